"""The whole daemon: a real process, the simulator, and three sinks."""

from __future__ import annotations

import asyncio
import json
import os
import random
import signal
from typing import TYPE_CHECKING, Any

import pytest

from reserve_listener.simulator import Faults, HttpServer, Receiver, Simulator, sample_event
from tests.conftest import QUICK_RETRIES
from tests.daemon_process import Daemon, running, until, write_config

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

TOKEN = "verification0token0of0the0app000"

SEALED = {"revision", "changes", "summary"}
"""What the daemon adds to what the platform sent."""


def events(count: int, scopes: int = 50) -> Iterator[dict[str, Any]]:
    for number in range(count):
        yield sample_event(scope_id=f"omm_{number % scopes:032x}", token=TOKEN)


def ids(envelopes: list[dict[str, Any]]) -> list[str]:
    return [envelope["header"]["event_id"] for envelope in envelopes]


async def test_each_of_1000_events_pushed_twice_reaches_each_sink_exactly_once(
    tmp_path: Path, platform: Simulator, server: HttpServer, receiver: Receiver
) -> None:
    """1,000 distinct events, each pushed twice, arrive once in log, file and HTTP, in order, with nothing secret."""
    config = write_config(tmp_path, platform, server.url)
    envelopes = list(events(1_000))
    async with running(tmp_path, config) as daemon:
        await platform.connected(20)
        await platform.push_many([copy for envelope in envelopes for copy in (envelope, envelope)])
        await until(lambda: daemon.pending() == 0)
        assert await daemon.stop() == 0
        expected = ids(envelopes)
        assert platform.acknowledged == set(expected)
        assert sorted(daemon.logged_ids()) == sorted(expected)
        assert sorted(daemon.file_ids()) == sorted(expected)
        assert sorted(request.headers["webhook-id"] for request in receiver.received) == sorted(expected)
        lines = [json.loads(line) for line in (tmp_path / "events.jsonl").read_bytes().splitlines()]
        _assert_in_order_per_scope(lines, expected)
        _assert_in_order_per_scope([json.loads(request.body) for request in receiver.received], expected)
        by_id = {envelope["header"]["event_id"]: envelope for envelope in envelopes}
        _assert_sealed(lines)
        for line in lines:
            told = {key: value for key, value in line["data"].items() if key not in SEALED}
            assert line | {"data": told} == cloud_event(by_id[line["id"]])
        assert {request.body for request in receiver.received} == set(
            (tmp_path / "events.jsonl").read_bytes().splitlines()
        )
        _assert_nothing_secret(tmp_path, daemon, platform, receiver)


def _assert_sealed(lines: list[dict[str, Any]]) -> None:
    """Each event of a scope has the next number, a sentence, and its changes unless it is the first."""
    revisions: dict[str, int] = {}
    for line in lines:
        data, scope = line["data"], line["subject"]
        assert data["revision"] == revisions.get(scope, 0) + 1
        assert data["summary"]
        assert (data["changes"] is None) == (scope not in revisions)
        revisions[scope] = data["revision"]


def cloud_event(envelope: dict[str, Any]) -> dict[str, Any]:
    """The contract of the design's "Fixed", written down a second time, for an event of `sample_event`."""
    header, event = envelope["header"], envelope["event"]
    milliseconds = int(header["create_time"])
    approve, when, who = event["approve_config"], event["time_config"], event["reserve_scope_config"]
    return {
        "specversion": "1.0",
        "id": header["event_id"],
        "source": f"/apps/{header['app_id']}/tenants/{header['tenant_key']}",
        "type": "vc.reserve_config.updated_v1",
        "subject": event["scope_id"],
        "time": _rfc3339(milliseconds),
        "datacontenttype": "application/json",
        "data": {
            "scope_id": event["scope_id"],
            "scope_type": {1: "level", 2: "room"}[event["scope_type"]],
            "approve_config": approve
            | {
                "approval_switch": approve["approval_switch"] == 1,
                "approval_condition": ["all", "conditional"][approve["approval_condition"]],
                "approvers": [person["user_id"] for person in approve["approvers"]],
            },
            "time_config": when
            | {"time_switch": when["time_switch"] == 1}
            | {key: int(when[key]) for key in ("opening_hour", "start_time", "end_time")},
            "reserve_scope_config": who
            | {
                "allow_all_users": who["allow_all_users"] == 1,
                "allow_users": [person["user_id"] for person in who["allow_users"]],
            },
        },
    }


def _rfc3339(milliseconds: int) -> str:
    from datetime import UTC, datetime  # noqa: PLC0415

    return (
        datetime.fromtimestamp(milliseconds / 1000, UTC)
        .isoformat(timespec="milliseconds")
        .replace("+00:00", "Z")
    )


def _assert_in_order_per_scope(delivered: list[dict[str, Any]], sent: list[str]) -> None:
    position = {event_id: number for number, event_id in enumerate(sent)}
    last: dict[str, int] = {}
    for event in delivered:
        assert position[event["id"]] > last.get(event["subject"], -1)
        last[event["subject"]] = position[event["id"]]


def _assert_nothing_secret(folder: Path, daemon: Daemon, platform: Simulator, receiver: Receiver) -> None:
    secrets = [TOKEN.encode(), platform.app_secret.encode(), b"access_key", b"ticket"]
    for path in folder.iterdir():
        if path.name in ("secret", "config.toml"):
            continue
        content = path.read_bytes()
        assert [secret for secret in secrets if secret in content] == [], path.name
    for request in receiver.received:
        assert not any(secret in request.body for secret in secrets)
    assert daemon.stderr() == ""


async def test_what_was_not_delivered_before_a_restart_is_delivered_after_it(
    tmp_path: Path, platform: Simulator, server: HttpServer, receiver: Receiver
) -> None:
    """A receiver that is down delays neither answers nor the other sinks, and gets everything after a restart."""
    config = write_config(tmp_path, platform, server.url)
    receiver.answer = 503
    envelopes = list(events(20))
    async with running(tmp_path, config) as daemon:
        await platform.connected(20)
        await platform.push_many(envelopes)
        assert platform.acknowledged == set(ids(envelopes))
        await until(lambda: len(daemon.file_ids()) == 20 and len(daemon.logged_ids()) == 20)
        assert await daemon.stop() == 0
        assert daemon.pending() == 20
    receiver.received.clear()
    receiver.answer = 200
    async with running(tmp_path, config) as daemon:
        await until(lambda: daemon.pending() == 0)
        assert sorted(r.headers["webhook-id"] for r in receiver.received) == sorted(ids(envelopes))
        assert sorted(daemon.file_ids()) == sorted(ids(envelopes))
        assert await daemon.stop(signal.SIGINT) == 0


@pytest.mark.parametrize(
    ("payload", "problem"),
    [
        pytest.param(b"", "empty", id="0 bytes"),
        pytest.param(b"{}", "no header.event_id", id="empty object"),
        pytest.param(b"\xff\xfe{", "not JSON", id="invalid UTF-8"),
        pytest.param(b"[" * 100_000, "nested too deeply", id="deep nesting"),
        pytest.param(b'{"header": {"token": "' + TOKEN.encode(), "not JSON", id="cut off in the token"),
        pytest.param(b'["' + b"x" * 5_000_000 + b'"]', "not a JSON object", id="5 MB"),
    ],
)
async def test_what_cannot_be_read_is_kept_whole_and_answered_200(
    tmp_path: Path, platform: Simulator, server: HttpServer, payload: bytes, problem: str
) -> None:
    """Bad payloads crash nothing: each is one log line, one row that `events list` shows, and the next event flows."""
    config = write_config(tmp_path, platform, server.url)
    async with running(tmp_path, config) as daemon:
        await platform.connected(20)
        assert await platform.push(payload).answered(10) == 200
        (good,) = events(1)
        assert await platform.push(good).answered(10) == 200
        await until(lambda: daemon.file_ids() == ids([good]))
        assert await daemon.stop() == 0
        (line,) = [line for line in daemon.log() if line["event"] == "event.unreadable"]
        assert problem in line["problem"]
        (row,) = daemon.query("SELECT raw, body, problem FROM events WHERE body IS NULL")
        assert row[0] == payload.replace(TOKEN.encode(), b"")
        assert daemon.query("SELECT count(*) FROM deliveries")[0][0] == 3


async def test_an_event_of_5_mb_is_delivered_whole(
    tmp_path: Path, platform: Simulator, server: HttpServer, receiver: Receiver
) -> None:
    """A huge event, in one frame or in parts, arrives in every sink as it was sent."""
    config = write_config(tmp_path, platform, server.url)
    users = [{"user_id": {"open_id": f"ou_{n:032x}"}} for n in range(90_000)]
    big = [sample_event(reserve_scope_config={"allow_all_users": 0, "allow_users": users}) for _ in range(2)]
    async with running(tmp_path, config) as daemon:
        await platform.connected(20)
        assert await platform.push(big[0]).answered(20) == 200
        assert await platform.push(big[1], parts=4, part_order=[2, 0, 3, 1]).answered(20) == 200
        await until(lambda: daemon.pending() == 0)
        assert sorted(daemon.file_ids()) == sorted(ids(big)) == sorted(daemon.logged_ids())
        for request in receiver.received:
            assert len(json.loads(request.body)["data"]["reserve_scope_config"]["allow_users"]) == 90_000


async def test_an_app_that_was_never_connected_is_refused_with_exit_77(
    tmp_path: Path, platform: Simulator, server: HttpServer
) -> None:
    """A wrong secret at the first start ends with 77 and one sentence; the secret itself is not shown."""
    config = write_config(tmp_path, platform, server.url)
    (tmp_path / "secret").write_text("wrong0secret")
    async with running(tmp_path, config) as daemon:
        assert await daemon.ended() == 77
        assert "lark.app_secret" in daemon.stderr()
        assert "wrong0secret" not in daemon.stderr() + (tmp_path / "log.jsonl").read_text()
        assert "Traceback" not in daemon.stderr()


@pytest.mark.parametrize("status", [200, 503])
async def test_a_busy_platform_at_the_first_start_is_waited_out(
    tmp_path: Path, platform: Simulator, server: HttpServer, status: int
) -> None:
    """Only what says that the app is wrong ends a first start: "system busy" is tried again, soon, until it has passed."""
    platform.faults.endpoint_code, platform.faults.endpoint_status = 1000040345, status
    config = write_config(tmp_path, platform, server.url)
    async with running(tmp_path, config) as daemon:
        await until(lambda: platform.endpoint_calls >= 3)
        platform.faults.endpoint_code, platform.faults.endpoint_status = 0, 200
        await platform.connected(20)
        assert await daemon.stop() == 0


async def test_an_app_that_was_connected_waits_a_refusal_out(
    tmp_path: Path, platform: Simulator, server: HttpServer
) -> None:
    """Once connected with this store, a refusal at start is waited out, and a mended secret file is read again."""
    config = write_config(tmp_path, platform, server.url, lark="refused_backoff = 0.2")
    async with running(tmp_path, config) as daemon:
        await platform.connected(20)
        await until(lambda: daemon.query("SELECT count(*) FROM apps")[0][0] == 1)
        assert await daemon.stop() == 0
        good = (tmp_path / "secret").read_text()
        (tmp_path / "secret").write_text("wrong0secret")
        await daemon.start()
        await until(lambda: any("code 514" in line.get("reason", "") for line in daemon.log()))
        (tmp_path / "secret").write_text(good)
        await platform.connected(20)
        assert await daemon.stop() == 0


async def test_a_second_daemon_on_the_store_is_refused_with_exit_75(
    tmp_path: Path, platform: Simulator, server: HttpServer
) -> None:
    """Two daemons never write one store: the second ends with 75 and names the first one's process."""
    config = write_config(tmp_path, platform, server.url)
    async with running(tmp_path, config) as first:
        await platform.connected(20)
        async with running(tmp_path, config) as second:
            assert await second.ended() == 75
            assert str(first.process.pid) in second.stderr()
        assert await first.stop() == 0


async def test_a_wrong_configuration_ends_with_exit_78(tmp_path: Path) -> None:
    """A mistake in the file is one readable line with file, key and the nearest known key, and exit code 78."""
    config = tmp_path / "config.toml"
    config.write_text('[lark]\napp_idd = "cli_x"\napp_secret = "s"\n')
    async with running(tmp_path, config) as daemon:
        assert await daemon.ended() == 78
        assert "config.toml" in daemon.stderr()
        assert 'app_id"' in daemon.stderr()
        assert "Traceback" not in daemon.stderr()


async def test_other_event_types_are_answered_500_and_logged_once(
    tmp_path: Path, platform: Simulator, server: HttpServer
) -> None:
    """An event that the app subscribes to but nobody handles is the operator's mistake: said once, with what to do."""
    config = write_config(tmp_path, platform, server.url)
    other = sample_event()
    other["header"]["event_type"] = "im.message.receive_v1"
    async with running(tmp_path, config) as daemon:
        await platform.connected(20)
        for _ in range(3):
            assert await platform.push(other, retry=False).answered() == 500
        assert await daemon.stop() == 0
        (line,) = [line for line in daemon.log() if line["event"] == "event.other_type"]
        assert line["event_type"] == "im.message.receive_v1"
        assert daemon.query("SELECT count(*) FROM events")[0][0] == 0


async def test_faults_of_the_wire_lose_nothing(
    tmp_path: Path, server: HttpServer, receiver: Receiver
) -> None:
    """Duplicates, reordering, split payloads and garbage between them: every event arrives once in each sink."""
    faults = Faults(duplicate=True, reorder=True, split=3, garbage=True)
    async with Simulator(retry_delays=QUICK_RETRIES, faults=faults) as platform:
        config = write_config(tmp_path, platform, server.url)
        envelopes = list(events(100))
        async with running(tmp_path, config) as daemon:
            await platform.connected(20)
            await platform.push_many(envelopes)
            await until(lambda: set(ids(envelopes)) <= platform.acknowledged)
            await until(lambda: daemon.pending() == 0)
            assert await daemon.stop() == 0
            assert sorted(daemon.file_ids()) == sorted(ids(envelopes)) == sorted(daemon.logged_ids())
            assert sorted(r.headers["webhook-id"] for r in receiver.received) == sorted(ids(envelopes))


async def test_the_connection_comes_back_after_drops_and_refusals(
    tmp_path: Path, platform: Simulator, server: HttpServer
) -> None:
    """Closed, reset, refused for a while: the daemon is connected again and the next event flows."""
    config = write_config(tmp_path, platform, server.url, lark="refused_backoff = 0.2")
    async with running(tmp_path, config) as daemon:
        await platform.connected(20)
        for abort in (False, True):
            await platform.drop(abort=abort)
            await platform.connected(20)
        platform.faults.endpoint_code = 403
        await platform.drop()
        await until(lambda: any("code 403" in line.get("reason", "") for line in daemon.log()))
        platform.faults.endpoint_code = 0
        await platform.connected(20)
        (event,) = events(1)
        assert await platform.push(event).answered(10) == 200
        assert await daemon.stop() == 0


@pytest.mark.parametrize("kills", [5, pytest.param(60, marks=pytest.mark.long)])
async def test_kill_9_loses_nothing_that_was_answered(
    tmp_path: Path, server: HttpServer, receiver: Receiver, kills: int
) -> None:
    """Killed again and again under load: every event answered 200 is in the store and reaches every sink."""
    seed = int(os.environ.get("SEED") or random.randrange(2**32))
    chance = random.Random(seed)
    print(f"SEED={seed}")  # shown when the test fails; give it back in the environment
    async with Simulator(retry_delays=QUICK_RETRIES, answer_timeout=1.0) as platform:
        config = write_config(tmp_path, platform, server.url)
        stop = asyncio.Event()
        load = asyncio.create_task(_load(platform, stop), name="load")
        async with running(tmp_path, config) as daemon:
            for _ in range(kills):
                await platform.connected(30)
                answered = len(platform.acknowledged)
                await _more_than(platform, answered)
                await asyncio.sleep(chance.random() * 0.3)  # at any moment: this is the point of the test
                daemon.process.kill()
                await daemon.process.wait()
                await daemon.start()
            await platform.connected(30)
            stop.set()
            await load
            (fresh,) = events(1)
            assert await platform.push(fresh).answered(10) == 200
            await until(lambda: daemon.pending() == 0, 60)
            assert await daemon.stop() == 0
            acked = platform.acknowledged
            stored = {row[0] for row in daemon.query("SELECT event_id FROM events")}
            posted = {request.headers["webhook-id"] for request in receiver.received}
            assert len(acked) > kills
            for where in (stored, posted, set(daemon.file_ids()), set(daemon.logged_ids())):
                assert acked - where == set()
            assert stored == set(daemon.file_ids()) == posted
            bodies: dict[str, set[bytes]] = {}
            for request in receiver.received:
                bodies.setdefault(request.headers["webhook-id"], set()).add(request.body)
            assert all(len(each) == 1 for each in bodies.values())


async def _more_than(platform: Simulator, answered: int) -> None:
    await platform.until(lambda: len(platform.acknowledged) > answered, 30)


async def _load(platform: Simulator, stop: asyncio.Event) -> None:
    while not stop.is_set():
        await platform.push_many(events(20), in_flight=8)
        await asyncio.sleep(0.01)  # a rate, not a hope
