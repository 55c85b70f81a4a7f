"""Names in the whole daemon, asked of the simulator's API: in every sink, over renames, deletions and kills."""

from __future__ import annotations

import asyncio
import json
import signal
import sqlite3
from contextlib import closing
from typing import TYPE_CHECKING, Any

import httpx2
import msgspec
import pytest

from reserve_listener.simulator import ApiFault, Estate, Faults, HttpServer, Receiver, Simulator
from reserve_listener.simulator.events import envelope
from tests.conftest import NO_WAITS, QUICK_RETRIES
from tests.daemon_process import IN_A_HURRY, Daemon, in_file, running, until, write_config
from tests.pushing import TOKEN, sealed, signed, write_webhook_config

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable
    from pathlib import Path

    from reserve_listener.simulator import Call, Place


@pytest.fixture
async def platform() -> AsyncIterator[Simulator]:
    async with Simulator(
        retry_delays=QUICK_RETRIES, client_config=dict(NO_WAITS), estate=Estate(rooms=12, depth=3)
    ) as simulator:
        yield simulator


def read(daemon: Daemon) -> list[dict[str, Any]]:
    """The lines that say that all names were read."""
    return [line for line in daemon.log() if line["event"] == "names.read"]


def named(data: dict[str, Any]) -> tuple[str | None, list[str] | None]:
    return data.get("scope_name"), data.get("scope_path")


def above(place: Place) -> list[str]:
    return [each.name for each in place.above[1:]]


def directory(daemon: Daemon) -> dict[str, tuple[str | None, bool]]:
    """What is in the store: name, and whether it is gone, by id."""
    rows = daemon.query("SELECT scope_id, name, gone_ms FROM places")
    return {scope_id: (name, gone is not None) for scope_id, name, gone in rows}


async def changed(platform: Simulator, daemon: Daemon, place: Place) -> dict[str, Any]:
    """What the file sink gets of the next change of this place."""
    before = len(in_file(daemon.folder))
    platform.admin.change_at_random(place)
    await until(lambda: len(in_file(daemon.folder)) > before)
    found: dict[str, Any] = in_file(daemon.folder)[-1]["data"]
    assert found["scope_id"] == place.id
    return found


async def test_every_sink_gets_the_names(
    tmp_path: Path, platform: Simulator, server: HttpServer, receiver: Receiver
) -> None:
    """Once the names are read, each event says them in log, file and HTTP; a rename is in the next event, a day unasked."""
    config = write_config(tmp_path, platform, server.url)
    async with running(tmp_path, config, first=IN_A_HURRY) as daemon:
        await platform.connected(20)
        await until(lambda: read(daemon))
        room, level = platform.estate.rooms[0], platform.estate.levels[0]
        assert named(await changed(platform, daemon, room)) == (room.name, above(room))
        assert named(await changed(platform, daemon, level)) == (level.name, above(level))
        (push,) = platform.admin.rename(room, "新西湖")
        assert await push.over() == 200
        (push,) = platform.admin.rename(room.above[-1], "顶楼")
        assert await push.over() == 200
        assert named(await changed(platform, daemon, room)) == ("新西湖", above(room))
        assert above(room)[-1] == "顶楼"
        await until(lambda: daemon.pending() == 0)
        assert await daemon.stop() == 0
        expected = [named(one["data"]) for one in in_file(tmp_path)]
        assert [named(json.loads(request.body)["data"]) for request in receiver.received] == expected
        lines = [line for line in daemon.log() if line["event"] == "reserve_config.updated"]
        assert [(line["scope_name"], line["data"]["scope_path"]) for line in lines] == expected
        assert not [line for line in daemon.log() if line["event"] == "event.other_type"]


async def test_what_is_deleted_is_marked(tmp_path: Path, platform: Simulator, server: HttpServer) -> None:
    """A room, and a level with all below it: with their events nobody has to ask, and no sink hears of it."""
    config = write_config(tmp_path, platform, server.url)
    async with running(tmp_path, config, first=IN_A_HURRY) as daemon:
        await platform.connected(20)
        await until(lambda: read(daemon))
        room, level = platform.estate.rooms[0], platform.estate.levels[-1]
        gone = {room.id, level.id, *(each.id for each in level.below())}
        assert len(gone) > 2
        for push in (*platform.admin.remove(room), *platform.admin.remove(level)):
            assert await push.over() == 200
        await until(lambda: {key for key, (_, is_gone) in directory(daemon).items() if is_gone} == gone)
        new = platform.estate.root
        (push,) = platform.admin.add("新会议室", new)
        assert await push.over() == 200
        added = platform.estate.rooms[-1]
        assert named(await changed(platform, daemon, added)) == ("新会议室", [])
        await until(lambda: daemon.pending() == 0)
        assert len(daemon.query("SELECT 1 FROM deliveries")) == 3  # of the one change, for each sink
        assert await daemon.stop() == 0


async def test_a_kill_in_the_middle_of_a_look(
    tmp_path: Path, platform: Simulator, server: HttpServer
) -> None:
    """Whenever the daemon is killed while it reads all names, nothing is marked gone, and the next start reads them all."""
    config = write_config(tmp_path, platform, server.url)
    kill_at = iter([1, 3, 6, 10])
    async with running(tmp_path, config, first=IN_A_HURRY) as daemon:
        await until(lambda: read(daemon))
        await daemon.stop()
        removed = platform.estate.rooms[0]
        platform.admin.remove(removed, push=False)
        for number in kill_at:
            make_old(daemon)
            await killed_after(platform, daemon, number)
            assert not [1 for _, is_gone in directory(daemon).values() if is_gone]
        platform.faults.before_answer = None
        await daemon.start()
        await until(lambda: len(read(daemon)) == 2)
        assert {key for key, (_, gone) in directory(daemon).items() if gone} == {removed.id}
        for place in platform.estate.places:
            assert directory(daemon)[place.id] == (place.name, False)
        assert await daemon.stop() == 0


def make_old(daemon: Daemon) -> None:
    """As if the names had been read the day before yesterday."""
    with closing(sqlite3.connect(daemon.folder / "events.db")) as connection, connection:
        connection.execute("UPDATE looks SET ended_ms = ended_ms - 172800000")


async def killed_after(platform: Simulator, daemon: Daemon, calls: int) -> None:
    """Start it and kill it while that many calls about rooms have come and the last one has no answer."""
    left = calls
    reached = asyncio.Event()

    async def kill(call: Call) -> None:
        nonlocal left
        left -= "/room" in call.path
        if not left and not reached.is_set():
            daemon.process.send_signal(signal.SIGKILL)
            await daemon.process.wait()
            reached.set()

    platform.faults.before_answer = kill
    await daemon.start()
    await asyncio.wait_for(reached.wait(), 60)


@pytest.mark.parametrize(
    ("spoil", "line"),
    [
        (lambda faults: faults.missing_permissions.add("vc:room:readonly"), "names.unavailable"),
        (lambda faults: faults.api.append(broken()), "names.interrupted"),
    ],
    ids=["permission", "broken"],
)
async def test_without_names_everything_else_works(
    tmp_path: Path,
    platform: Simulator,
    server: HttpServer,
    spoil: Callable[[Faults], None],
    line: str,
) -> None:
    """A permission that is missing, or an API that is broken: one line, and events come and go without names."""
    spoil(platform.faults)
    config = write_config(tmp_path, platform, server.url)
    async with running(tmp_path, config, first=IN_A_HURRY) as daemon:
        await platform.connected(20)
        for room in platform.estate.rooms:
            assert named(await changed(platform, daemon, room)) == (None, None)

        def told() -> list[Any]:
            return [one for one in daemon.log() if one["event"] == line and one["what"] == "places"]

        await until(told)
        assert await daemon.stop() == 0
        assert [one["level"] for one in told()] == ["warning"]


def broken() -> ApiFault:
    return ApiFault(path="/vc/v1/", status=502)


async def test_names_that_are_not_wanted_are_not_asked_for(
    tmp_path: Path, platform: Simulator, server: HttpServer
) -> None:
    """Said once at the start; what an event tells of a room's name counts all the same."""
    config = write_config(tmp_path, platform, server.url, more="[rooms]\nnames = false\nreconcile = false\n")
    async with running(tmp_path, config, first=IN_A_HURRY) as daemon:
        await platform.connected(20)
        await until(lambda: any(line["event"] == "names.off" for line in daemon.log()))
        room = platform.estate.rooms[0]
        assert named(await changed(platform, daemon, room)) == (None, None)
        (push,) = platform.admin.rename(room, "湖")
        assert await push.over() == 200
        assert named(await changed(platform, daemon, room)) == ("湖", None)
        assert await daemon.stop() == 0
    assert not platform.calls


async def test_a_webhook_without_the_apps_secret(
    tmp_path: Path, platform: Simulator, server: HttpServer
) -> None:
    """There is nothing to ask with: said once; events about rooms come in over the webhook like any other."""
    config = write_webhook_config(tmp_path, server.url)
    async with (
        running(tmp_path, config, first=IN_A_HURRY) as daemon,
        httpx2.AsyncClient(trust_env=False) as client,
    ):
        await until(lambda: any(line["event"] == "webhook.listening" for line in daemon.log()))
        await until(lambda: any(line["event"] == "rooms.off" for line in daemon.log()))
        (port,) = [line["port"] for line in daemon.log() if line["event"] == "webhook.listening"]
        room = platform.estate.rooms[0]
        for event_type, told in (
            ("vc.room.updated_v1", {"room": {"room_id": room.id, "name": room.name}}),
            ("vc.room.deleted_v1", {"room": {"room_id": room.id}}),
            ("vc.room_level.deleted_v1", {"nothing": "of use"}),
        ):
            body = sealed(msgspec.json.encode(envelope(told, event_type, token=TOKEN)))
            answer = await client.post(f"http://127.0.0.1:{port}/hook", content=body, headers=signed(body))
            assert answer.status_code == 200
        await until(lambda: directory(daemon) == {room.id: (room.name, True)})
        assert await daemon.stop() == 0
        (off,) = [line for line in daemon.log() if line["event"] == "rooms.off"]
        assert (off["level"], "secret" in off["reason"]) == ("warning", True)
        assert not [line for line in daemon.log() if line["event"] == "event.other_type"]
