"""Reconciling in the whole daemon: what was missed while it was away is found, whatever the daemon goes through; and the command."""

from __future__ import annotations

import asyncio
import json
import signal
import sqlite3
from contextlib import closing
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from reserve_listener.intake import normalize
from reserve_listener.simulator import ApiFault, Estate, HttpServer, Receiver, Simulator, sample_event
from tests.cli.test_operate import as_json, cli
from tests.conftest import NO_WAITS, QUICK_RETRIES
from tests.daemon_process import COMMAND, IN_A_HURRY, Daemon, in_file, running, until, write_config
from tests.terminal import at_terminal

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from reserve_listener.simulator import Call, Place

LIMITS = "/reserve_scope"
AWAY_MS = 8 * 3600 * 1000


@pytest.fixture
async def platform() -> AsyncIterator[Simulator]:
    """With few rooms: the daemon reads some 80 a minute by the clock on the wall."""
    async with Simulator(
        retry_delays=QUICK_RETRIES, client_config=dict(NO_WAITS), estate=Estate(rooms=4, depth=1)
    ) as simulator:
        yield simulator


def ended(daemon: Daemon) -> list[dict[str, Any]]:
    """The lines that say what a pass has found."""
    return [line for line in daemon.log() if line["event"] == "reconcile.done"]


def requested(daemon: Daemon) -> list[dict[str, Any]]:
    """The lines that say that a pass begins because a person asked."""
    return [
        line for line in daemon.log() if line["event"] == "reconcile.started" and line["why"] == "request"
    ]


def change(platform: Simulator, place: Place, hours: int) -> None:
    """Nobody hears of it."""
    platform.admin.change(place, push=False, time_config={"max_duration": hours})


async def test_what_was_missed_in_a_gap_is_found(tmp_path: Path, platform: Simulator) -> None:
    """Exactly the changes that were made while away, in every sink, in the platform's own form, too; the gap says how many."""
    old, booking = Receiver(), Receiver()
    async with HttpServer(old) as old_server, HttpServer(booking) as server:
        more = f'[[sinks]]\nname = "old"\ntype = "http"\nurl = "{old_server.url}/old"\nformat = "feishu"\n'
        config = write_config(tmp_path, platform, server.url, more=more)
        async with running(tmp_path, config, first=IN_A_HURRY) as daemon:
            await platform.connected(20)
            await until(lambda: ended(daemon))
            assert await daemon.stop() == 0
            assert in_file(tmp_path) == []
            make_gap(tmp_path)
            changed = platform.estate.rooms[:3]
            for number, room in enumerate(changed):
                change(platform, room, 3 + number)
            await daemon.start()
            await until(lambda: len(ended(daemon)) == 2)
            await until(lambda: daemon.pending() == 0)
            found = in_file(tmp_path)
            assert {one["subject"]: one["data"]["changes"][0]["after"] for one in found} == {
                room.id: 3 + number for number, room in enumerate(changed)
            }
            assert {one["data"]["origin"] for one in found} == {"reconcile"}
            assert [one["data"]["scope_name"] for one in found] == [
                next(room.name for room in changed if room.id == one["subject"]) for one in found
            ]
            status = await as_json("status", "-c", str(config))
            assert [gap["found"] for gap in status["gaps"]] == [3]
            assert (status["reconcile"]["state"], status["reconcile"]["differences"]) == ("done", 3)
            _, text, _ = await cli("status", "-c", str(config))
            assert "changes were missed; 3 found" in text
            lines = [line["event"] for line in daemon.log()]
            gap = next(line for line in daemon.log() if line["event"] == "connection.gap")
            assert "is looking for them" in gap["hint"]
            assert lines.index("connection.gap") < len(lines) - lines[::-1].index("reconcile.done")
            assert ended(daemon)[1]["why"] == "gap"
            assert sorted(ended(daemon)[1]["changed"]) == sorted(room.name for room in changed)
            history = await as_json("history", changed[0].id, "-c", str(config))
            assert [(row["origin"], row["revision"]) for row in history] == [("reconcile", 1)]
            assert await daemon.stop() == 0
        assert {one["id"] for one in map(json.loads, (request.body for request in booking.received))} == {
            one["id"] for one in found
        }
        bodies = {}
        for request in old.received:
            again = normalize.incoming(request.body, normalize.parse(request.body), received_ms=0)
            told = json.loads(again.body or b"")["data"]
            del told["warnings"]  # nothing was ever pushed, so no tenant is known
            bodies[again.event_id] = told
        for one in found:
            told = {key: value for key, value in one["data"].items() if key not in normalize.OUR_KEYS}
            assert bodies[one["id"]] == told


async def test_a_gap_ends_with_all_that_was_found_and_what_could_not_be_read(
    tmp_path: Path, platform: Simulator, server: HttpServer
) -> None:
    """Also what a person asked for while the pass could not go on; and whoever asks for everything hears of the rest, with exit 1."""
    config = str(write_config(tmp_path, platform, server.url))
    async with running(tmp_path, tmp_path / "config.toml", first=IN_A_HURRY) as daemon:
        await platform.connected(20)
        await until(lambda: ended(daemon))
        assert await daemon.stop() == 0
        make_gap(tmp_path)
        first, *others, hidden = platform.estate.rooms
        for number, room in enumerate((first, *others)):
            change(platform, room, 3 + number)
        forbidden = ApiFault(
            path=LIMITS, scope_ids=frozenset({hidden.id}), status=403, code=121005, msg="no permission"
        )
        all_but_one = frozenset(place.id for place in platform.estate.places) - {first.id}
        broken = replace(ApiFault.token_refused(path=LIMITS), scope_ids=all_but_one)
        platform.faults.api[:] = [broken]
        await daemon.start()
        await until(lambda: any(line["event"] == "connection.gap" for line in daemon.log()))
        await until(lambda: any(line["event"] == "reconcile.interrupted" for line in daemon.log()))
        code, out, _ = await cli("reconcile", first.id, "-c", config)
        assert (code, out.count("\n")) == (0, 1)
        code, out, _ = await cli("status", "--json", "-c", config)
        status = json.loads(out)
        assert (code, status["status"], [one["part"] for one in status["reasons"]]) == (
            1,
            "degraded",
            ["gap"],
        )
        assert [(gap["found"], gap["not_read"]) for gap in status["gaps"]] == [(None, None)]
        platform.faults.api[:] = [forbidden]
        await until(lambda: any(line["why"] == "gap" for line in ended(daemon)), 60)
        status = await as_json("status", "-c", config)
        assert [(gap["found"], gap["not_read"]) for gap in status["gaps"]] == [(3, 1)]
        assert (status["reconcile"]["differences"], status["reconcile"]["not_read"]) == (2, 1)
        _, text, _ = await cli("status", "-c", config)
        assert "3 found by comparing limits with the platform's; 1 room or level could not be read" in text
        code, out, err = await cli("reconcile", "-c", config)
        assert (code, out) == (1, "")
        assert "1 could not be read" in err
        assert f"error: {hidden.id} could not be read: code 121005: no permission" in err
        assert await daemon.stop() == 0


def make_gap(folder: Path) -> None:
    """As if the daemon had been stopped for longer than the platform pushes again."""
    with closing(sqlite3.connect(folder / "events.db")) as connection, connection:
        connection.execute("UPDATE apps SET last_connected_ms = last_connected_ms - ?", (AWAY_MS,))


async def test_who_and_what_the_limits_name_has_names(
    tmp_path: Path, platform: Simulator, server: HttpServer
) -> None:
    """People from the baseline on, although nobody was pushed; a room that is new at the next start, although the day is not over."""
    told = {
        person["user_id"]["open_id"]
        for place in platform.estate.places
        for person in (
            *place.limits["approve_config"]["approvers"],
            *place.limits["reserve_scope_config"]["allow_users"],
        )
    }
    assert told
    more = "[rooms]\npeople_names = true\nrequests_per_minute = 100\n"
    config = write_config(tmp_path, platform, server.url, more=more)
    async with running(tmp_path, config, first=IN_A_HURRY) as daemon:
        await until(lambda: ended(daemon))
        await until(lambda: {one for (one,) in daemon.query("SELECT open_id FROM people")} == told)
        assert await daemon.stop() == 0
        new = platform.estate.add("新会议室", platform.estate.root)
        await daemon.start()
        await until(lambda: len(ended(daemon)) == 2)
        assert ("新会议室",) in daemon.query(f"SELECT name FROM places WHERE scope_id = '{new.id}'")
        walks = [call for call in platform.calls if call.path.endswith("/vc/v1/rooms")]
        levels = len(platform.estate.levels) + 2  # and those of the organisation, with its id and without
        assert len(walks) == 2 * levels
        assert await daemon.stop() == 0


async def test_a_kill_at_any_moment_loses_and_doubles_nothing(
    tmp_path: Path, platform: Simulator, server: HttpServer
) -> None:
    """Killed again and again while it reads, before and after comparing: in the end each difference is one event."""
    config = write_config(tmp_path, platform, server.url)
    async with running(tmp_path, config, first=IN_A_HURRY) as daemon:
        await platform.connected(20)
        await until(lambda: ended(daemon))
        await daemon.stop(signal.SIGKILL)
        changed = platform.estate.rooms
        for number, room in enumerate(changed):
            change(platform, room, 3 + number)
        for reads in (1, 2, 3):
            await killed_after(platform, daemon, reads)
        platform.faults.before_answer = None
        before = len(ended(daemon))
        await daemon.start()
        await until(lambda: len(ended(daemon)) > before and ended(daemon)[-1]["why"] == "start", 60)
        await until(lambda: daemon.pending() == 0)
        assert await daemon.stop() == 0
        rows = daemon.query("SELECT event_id, origin FROM history")
        assert len(rows) == len(changed)
        ids = {event_id for event_id, _ in rows}
        assert set(daemon.file_ids()) == ids
        after = {one["subject"]: one["data"]["time_config"]["max_duration"] for one in in_file(tmp_path)}
        assert after == {room.id: 3 + number for number, room in enumerate(changed)}


async def killed_after(platform: Simulator, daemon: Daemon, reads: int) -> None:
    """Start it and kill it while so many scopes have been read and the last one has no answer."""
    count, reached = 0, asyncio.Event()

    async def hold(call: Call) -> None:
        nonlocal count
        count += call.path.endswith(LIMITS)
        if count > reads:
            reached.set()
            await asyncio.sleep(30)

    platform.faults.before_answer = hold
    await daemon.start()
    await asyncio.wait_for(reached.wait(), 30)
    await daemon.stop(signal.SIGKILL)


async def test_a_person_asks(tmp_path: Path, platform: Simulator, server: HttpServer) -> None:
    """A line for each difference; only tried out at first; rooms by name; what nobody knows, and no daemon, by their codes."""
    config = str(write_config(tmp_path, platform, server.url))
    code, _, err = await cli("reconcile", "-c", config)
    assert (code, "no daemon runs" in err) == (3, True)
    async with running(tmp_path, tmp_path / "config.toml", first=IN_A_HURRY) as daemon:
        await platform.connected(20)
        await until(lambda: ended(daemon))
        room, other = platform.estate.rooms[:2]
        change(platform, room, 3)
        code, out, err = await cli("reconcile", room.name, other.id, "--dry-run", "-c", config)
        assert (code, out.count("\n")) == (0, 1)
        assert out.startswith(f"{room.id}\t{room.name}\t")
        assert err == "2 of 2 compared, 1 differs; nothing was stored.\n"
        assert in_file(tmp_path) == []
        code, out, err = await cli("reconcile", room.id, "--json", "-c", config)
        (row,) = json.loads(out)
        assert (code, row["scope_name"], row["origin"]) == (0, room.name, "reconcile")
        assert row["changes"][0]["after"] == 3
        code, out, err = await cli("reconcile", room.id, "-c", config)
        assert (code, out, err) == (0, "", "1 of 1 compared, 0 differ.\n")
        code, out, err = await cli("reconcile", "omm_nobody", "-c", config)
        assert (code, "omm_nobody" in err) == (1, True)
        await until(lambda: [one["id"] for one in in_file(tmp_path)] == [row["event_id"]])
        assert await daemon.stop() == 0


async def test_at_a_terminal(tmp_path: Path, platform: Simulator, server: HttpServer) -> None:
    """All rooms with a bar; Ctrl-C ends the command, and the daemon goes on."""
    config = str(write_config(tmp_path, platform, server.url))
    async with running(tmp_path, tmp_path / "config.toml", first=IN_A_HURRY) as daemon:
        await platform.connected(20)
        await until(lambda: ended(daemon))
        room = platform.estate.rooms[0]
        change(platform, room, 3)
        code, text = await asyncio.to_thread(at_terminal, "reconcile", "-c", config, cwd=tmp_path, width=120)
        assert code == 0
        assert f"{room.name} (omm_" in text
        assert "compared, 1 differs." in text
        assert "━" in text

        passes = len(ended(daemon))
        process = await asyncio.create_subprocess_exec(
            *COMMAND,
            "reconcile",
            "-c",
            config,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        await until(lambda: len(requested(daemon)) == 2)
        process.send_signal(signal.SIGINT)
        _, err = await process.communicate()
        assert process.returncode == 130
        assert b"The daemon continues" in err
        await until(lambda: len(ended(daemon)) == passes + 1)
        assert await daemon.stop() == 0


async def test_a_missing_permission_is_said_to_whoever_asks(
    tmp_path: Path, platform: Simulator, server: HttpServer
) -> None:
    """With its name, exit 1; events are delivered all the same."""
    platform.faults.missing_permissions.add("vc:room:readonly")
    config = str(write_config(tmp_path, platform, server.url))
    async with running(tmp_path, tmp_path / "config.toml", first=IN_A_HURRY) as daemon:
        await platform.connected(20)
        await until(lambda: any(line["event"].endswith(".unavailable") for line in daemon.log()))
        code, out, err = await cli("reconcile", "-c", config)
        assert (code, out) == (1, "")
        assert "vc:room:readonly" in err
        status = await as_json("status", "-c", config)
        assert status["reconcile"]["state"] == "waiting"
        assert await platform.push(sample_event(event_id="e1")).answered() == 200
        await until(lambda: daemon.file_ids() == ["e1"])
        assert await daemon.stop() == 0
        assert len([line for line in daemon.log() if line["event"].endswith(".unavailable")]) == 1
