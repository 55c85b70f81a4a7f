"""Alerts of the real daemon, on the days on which they are needed: each thing that breaks is really broken."""

from __future__ import annotations

import asyncio
import json
import resource
import signal
import struct
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import pytest

from reserve_listener.simulator import Answer, HttpServer, Receiver, Simulator, sample_event
from reserve_listener.web.answers import Status
from reserve_listener.web.client import get
from tests.daemon.test_lifecycle import under_systemd
from tests.daemon_process import QUICK_ALERTS, ask, running, until, write_config
from tests.helpers import url_of

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from reserve_listener.simulator import Received
    from tests.daemon_process import Daemon

BOOKING = "retry = { base = 0.05, cap = 0.1 }\n"
"""The sink that gets events: down soon, and up again soon."""

OPS = """
[[sinks]]
name = "ops"
type = "http"
url = "{url}/ops"
events = false
timeout = 1
"""


def configured(
    folder: Path,
    platform: Simulator,
    server: HttpServer,
    *,
    alerts: str = "",
    sinks: str = "",
    booking: str = "",
) -> Path:
    """The usual sinks, one that gets alerts only, and `[alerts]` with these keys."""
    more = BOOKING + booking + OPS.format(url=server.url) + sinks
    if "sinks =" not in alerts:
        alerts = f'sinks = ["ops"]\n{alerts}'
    return write_config(
        folder, platform, server.url, lark='language = "en"', more=f"{more}\n[alerts]\n{alerts}\n"
    )


class Told:
    """The alerts that have come to a receiver, by the path of the sink."""

    def __init__(self, receiver: Receiver) -> None:
        self._receiver = receiver

    def events(self, path: str = "/ops") -> list[dict[str, Any]]:
        """As they came, each attempt."""
        return [json.loads(each.body) for each in self._receiver.received if each.path == path]

    def states(self, path: str = "/ops") -> list[str]:
        """What, and whether it began or ended."""
        return [f"{each['subject']} {each['data']['state']}" for each in self.events(path)]


@pytest.fixture
def told(receiver: Receiver) -> Told:
    """What comes to the alert sinks."""
    return Told(receiver)


def logged(daemon: Daemon, event: str) -> list[dict[str, Any]]:
    """The daemon's own lines of this kind."""
    return [line for line in daemon.log() if line["event"] == event]


async def test_a_platform_that_is_away_is_told_once_and_its_return_once(
    tmp_path: Path, platform: Simulator, server: HttpServer, told: Told
) -> None:
    """The events are as the contract has them, `status` shows the alert while it fires, and the log says both."""
    config = configured(tmp_path, platform, server, alerts="disconnected_after = 0.3")
    async with running(tmp_path, config, first=QUICK_ALERTS) as daemon:
        await platform.connected(20)
        platform.faults.endpoint_status = 500
        await platform.drop(abort=True)
        await until(lambda: told.states() == ["disconnected firing"])
        status = await asyncio.to_thread(get, url_of(tmp_path / "events.db"), "/status", Status)
        assert status is not None
        (firing,) = status.alerts
        (event,) = told.events()
        assert (firing.alert, firing.since) == ("disconnected", event["data"]["since"])
        said = event["data"]["summary"].partition(" for ")[0]  # then how long, which goes on
        assert firing.summary.startswith(f"{said} for ")
        assert b"disconnected" not in (shown := await asyncio.to_thread(ask, config, "status"))
        assert said.encode() in shown
        platform.faults.endpoint_status = 200
        await until(lambda: told.states() == ["disconnected firing", "disconnected resolved"])
        assert await daemon.stop() == 0
    first, last = told.events()
    assert first.keys() == {
        "specversion", "id", "source", "type", "subject", "time", "datacontenttype", "data",
    }  # fmt: skip
    assert first["type"] == "reserve_listener.alert.v1"
    assert first["source"] == last["source"] == f"/apps/{platform.app_id}"
    assert first["data"].keys() == {"alert", "state", "since", "summary", "detail"}
    assert first["data"]["since"] == last["data"]["since"] < first["time"] < last["time"]
    assert first["id"] != last["id"]
    (firing_line,) = logged(daemon, "alert.firing")
    (resolved_line,) = logged(daemon, "alert.resolved")
    assert (firing_line["level"], resolved_line["level"]) == ("warning", "info")
    assert firing_line["alert"] == resolved_line["alert"] == "disconnected"


async def test_a_sink_for_alerts_is_tried_with_an_alert(
    tmp_path: Path, platform: Simulator, server: HttpServer, told: Told
) -> None:
    """`sinks test` sends it what it will get, by the daemon or without one; a sink that gets events, too, is sent an event."""
    config = configured(tmp_path, platform, server)
    await asyncio.to_thread(ask, config, "sinks", "test", "ops")
    async with running(tmp_path, config, first=QUICK_ALERTS) as daemon:
        await platform.connected(20)
        await asyncio.to_thread(ask, config, "sinks", "test", "ops")
        await asyncio.to_thread(ask, config, "sinks", "test", "booking")
        assert await daemon.stop() == 0
    for event in told.events():
        assert (event["type"], event["subject"], event["test"]) == (
            "reserve_listener.alert.v1",
            "test",
            True,
        )
    (event,) = told.events("/hook")
    assert (len(told.events()), event["type"]) == (2, "vc.reserve_config.updated_v1")


async def test_a_restart_while_an_alert_fires_neither_tells_it_again_nor_forgets_since_when(
    tmp_path: Path, platform: Simulator, server: HttpServer, told: Told
) -> None:
    """Killed and started again while the platform is away: the same alert goes on, until the connection is there."""
    config = configured(tmp_path, platform, server, alerts="disconnected_after = 0.3")
    async with running(tmp_path, config, first=QUICK_ALERTS) as daemon:
        await platform.connected(20)
        platform.faults.endpoint_status = 500
        await platform.drop(abort=True)
        await until(lambda: told.states() == ["disconnected firing"])
        since = told.events()[0]["data"]["since"]
        await until(lambda: delivered_to_all(tmp_path))
        assert await daemon.stop(signal.SIGKILL) == -signal.SIGKILL
        attempts = platform.endpoint_calls
        await daemon.start()
        await until(lambda: platform.endpoint_calls >= attempts + 3)
        status = await asyncio.to_thread(get, url_of(tmp_path / "events.db"), "/status", Status)
        assert status is not None
        assert [(one.alert, one.since) for one in status.alerts] == [("disconnected", since)]
        platform.faults.endpoint_status = 200
        await until(lambda: told.states() == ["disconnected firing", "disconnected resolved"])
        assert told.events()[1]["data"]["since"] == since
        assert await daemon.stop() == 0


def remembered(folder: Path) -> list[dict[str, Any]]:
    """What the daemon has kept of its alerts: in one half of the file, after a number that grows, a length and a checksum."""
    file = (folder / "events.db-alerts").read_bytes()
    half = len(file) // 2
    kept = []
    for start in (0, half):
        number, length, _ = struct.unpack_from(">QII", file, start)
        kept.append((number, file[start + 16 : start + 16 + length]))
    alerts: list[dict[str, Any]] = json.loads(max(kept)[1] or b'{"alerts": []}')["alerts"]
    return alerts


def waiting_for(folder: Path) -> set[str]:
    """The alert sinks that have not got something yet, as the daemon remembers it."""
    return {name for alert in remembered(folder) for name in alert.get("waiting", ())}


def delivered_to_all(folder: Path) -> bool:
    """Whether nobody waits for an alert, as the daemon remembers it."""
    return bool(remembered(folder)) and not waiting_for(folder)


async def test_what_an_alert_sink_has_not_got_before_a_kill_it_gets_after_it(
    tmp_path: Path, platform: Simulator, server: HttpServer, receiver: Receiver, told: Told
) -> None:
    """The other sink, which has it, is not told again; the event is the same one."""
    pager = OPS.format(url=server.url).replace("ops", "pager")
    config = configured(
        tmp_path, platform, server, sinks=pager, alerts='sinks = ["ops", "pager"]\ndisconnected_after = 0.3'
    )
    receiver.answer = lambda request: 503 if request.path == "/pager" else 200
    async with running(tmp_path, config, first=QUICK_ALERTS) as daemon:
        await platform.connected(20)
        platform.faults.endpoint_status = 500
        await platform.drop(abort=True)
        await until(lambda: told.states()[:1] == ["disconnected firing"] and len(told.events("/pager")) > 1)
        assert len({event["id"] for event in told.events("/pager")}) == 1
        await until(lambda: waiting_for(tmp_path) == {"pager"})
        assert await daemon.stop(signal.SIGKILL) == -signal.SIGKILL
        receiver.answer = 200
        before = told.states().count("disconnected firing")
        attempts = len(told.events("/pager"))
        await daemon.start()
        await until(lambda: len(told.events("/pager")) == attempts + 1)
        await until(lambda: delivered_to_all(tmp_path))
        assert len({event["id"] for event in told.events("/pager")}) == 1, told.events("/pager")
        assert told.states().count("disconnected firing") == before == 1
        assert await daemon.stop() == 0


async def test_a_connection_that_flaps_makes_no_storm(
    tmp_path: Path, platform: Simulator, server: HttpServer, told: Told
) -> None:
    """Lost and back again and again: it began, it ended, it began; the next end waits until it is quiet."""
    config = configured(tmp_path, platform, server, alerts="disconnected_after = 0.001")
    async with running(tmp_path, config, first=QUICK_ALERTS) as daemon:
        await platform.connected(20)
        for _ in range(6):
            platform.faults.endpoint_status = 500
            await platform.drop(abort=True)
            lost = platform.endpoint_calls
            await until(lambda lost=lost: platform.endpoint_calls >= lost + 8)
            platform.faults.endpoint_status = 200
            await platform.connected(20)
        assert await daemon.stop() == 0
    assert told.states()[:2] in (["disconnected firing", "disconnected resolved"], ["disconnected firing"])
    assert len(told.states()) <= 3


async def test_a_store_that_cannot_be_written_is_told_past_the_store(
    tmp_path: Path, platform: Simulator, server: HttpServer, told: Told
) -> None:
    """The disk is full: two commits fail, the alert goes out all the same, and the first good commit ends it."""
    config = configured(tmp_path, platform, server)
    async with under_systemd(tmp_path, config, first=QUICK_ALERTS) as (daemon, _):
        await platform.connected(20)
        await until(lambda: (tmp_path / "events.db-alerts").stat().st_size > 0)
        unlimited = full_disk(daemon)
        big = sample_event(reserve_scope_config={"note": "x" * 200_000})
        for number in range(2):
            push = big | {"header": {**big["header"], "event_id": f"big-{number}"}}
            assert await platform.push(push, retry=False).answered(10) == 500
        await until(lambda: told.states() == ["commit_failing firing"])
        assert b"pushes are answered 500" not in told.events()[0]["data"]["detail"].encode()
        assert "events.db" in told.events()[0]["data"]["detail"]
        resource.prlimit(daemon.process.pid, resource.RLIMIT_FSIZE, unlimited)
        await until(lambda: told.states() == ["commit_failing firing", "commit_failing resolved"])
        assert await daemon.stop() == 0


async def test_a_daemon_killed_while_its_disk_is_full_tells_the_end_after_the_restart(
    tmp_path: Path, platform: Simulator, server: HttpServer, told: Told
) -> None:
    """What fires is remembered although nothing can be stored: an incident that was opened is closed."""
    config = configured(tmp_path, platform, server)
    async with under_systemd(tmp_path, config, first=QUICK_ALERTS) as (daemon, _):
        await platform.connected(20)
        await until(lambda: (tmp_path / "events.db-alerts").stat().st_size > 0)
        full_disk(daemon)
        big = sample_event(reserve_scope_config={"note": "x" * 200_000})
        for number in range(2):
            push = big | {"header": {**big["header"], "event_id": f"big-{number}"}}
            assert await platform.push(push, retry=False).answered(10) == 500
        await until(lambda: told.states() == ["commit_failing firing"])
        await until(lambda: delivered_to_all(tmp_path))
        daemon.process.kill()
        await daemon.process.wait()
    async with running(tmp_path, config, first=QUICK_ALERTS) as daemon:
        await until(lambda: told.states() == ["commit_failing firing", "commit_failing resolved"])
        assert await daemon.stop() == 0


def full_disk(daemon: Daemon) -> tuple[int, int]:
    """No file of the daemon grows beyond what its smallest ones have; what the limit was before."""
    unlimited = resource.prlimit(daemon.process.pid, resource.RLIMIT_FSIZE)
    resource.prlimit(daemon.process.pid, resource.RLIMIT_FSIZE, (140_000, unlimited[1]))
    return unlimited


async def test_a_sink_that_is_down_is_told_to_the_alert_sinks(
    tmp_path: Path, platform: Simulator, server: HttpServer, receiver: Receiver, told: Told
) -> None:
    """With its last error, under a source of its own, and once it delivers again the end."""
    config = configured(tmp_path, platform, server)
    receiver.answer = lambda request: Answer(status=503, body=b"closed") if request.path == "/hook" else 200
    async with running(tmp_path, config, first=QUICK_ALERTS) as daemon:
        await platform.connected(20)
        assert await platform.push(sample_event(event_id="one")).answered() == 200
        await until(lambda: told.states() == ["sink_down firing"])
        (event,) = told.events()
        assert event["source"] == f"/apps/{platform.app_id}/sinks/booking"
        assert "booking" in event["data"]["summary"]
        assert "HTTP 503: closed" in event["data"]["detail"]
        receiver.answer = 200
        await until(lambda: told.states() == ["sink_down firing", "sink_down resolved"])
        assert await daemon.stop() == 0


async def test_dead_letters_and_late_deliveries_are_told(
    tmp_path: Path, platform: Simulator, server: HttpServer, receiver: Receiver, told: Told
) -> None:
    """A refused event is a dead letter until somebody drops it; one that waits too long is late until it has arrived."""
    config = configured(tmp_path, platform, server, alerts="oldest_pending = 0.5")
    answers = {"one": 400, "two": 429}

    def answer(request: Received) -> int:
        return answers[request.headers["webhook-id"]] if request.path == "/hook" else 200

    receiver.answer = answer
    async with running(tmp_path, config, first=QUICK_ALERTS) as daemon:
        await platform.connected(20)
        for event_id in ("one", "two"):
            event = sample_event(event_id=event_id, scope_id=f"omm_{event_id}")
            assert await platform.push(event).answered() == 200
        await until(lambda: {"dead_letters firing", "oldest_pending firing"} <= {*told.states()})
        answers["two"] = 200
        await until(lambda: "oldest_pending resolved" in told.states())
        assert "dead_letters resolved" not in told.states()
        await asyncio.to_thread(ask, config, "dead-letters", "drop", "one", "--yes")
        await until(lambda: "dead_letters resolved" in told.states())
        assert await daemon.stop() == 0
    texts = {event["subject"]: event["data"] for event in told.events() if event["data"]["state"] == "firing"}
    assert "booking 1" in texts["dead_letters"]["detail"]
    assert "booking" in texts["oldest_pending"]["summary"]


@pytest.mark.long
async def test_one_alert_sink_that_hangs_holds_up_no_other(
    tmp_path: Path, platform: Simulator, server: HttpServer, receiver: Receiver, told: Told
) -> None:
    """The other has each alert at once, and is told that this one is down; itself it is not told of that."""
    pager = OPS.format(url=server.url).replace("ops", "pager").replace("timeout = 1", "timeout = 0.2")
    config = configured(
        tmp_path, platform, server, sinks=pager, alerts='sinks = ["pager", "ops"]\ndisconnected_after = 0.3'
    )
    receiver.answer = lambda request: Answer(delay=3600 if request.path == "/pager" else 0)
    async with running(tmp_path, config, first=QUICK_ALERTS) as daemon:
        await platform.connected(20)
        platform.faults.endpoint_status = 500
        await platform.drop(abort=True)
        await until(lambda: told.states() == ["disconnected firing", "sink_down firing"], 40)
        down = told.events()[1]
        assert down["source"].endswith("/sinks/pager")
        assert "no answer within 0.2 s" in down["data"]["detail"]
        assert {*told.states("/pager")} == {"disconnected firing"}
        assert b"pager: down" in await asyncio.to_thread(ask, config, "status")
        receiver.answer = 200
        await until(lambda: "sink_down resolved" in told.states(), 120)
        assert {*told.states("/pager")} == {"disconnected firing"}
        assert await daemon.stop() == 0


async def test_a_sink_for_alerts_only_gets_no_events(
    tmp_path: Path, platform: Simulator, server: HttpServer, receiver: Receiver, told: Told
) -> None:
    """There is no row for it, also not by a replay; a sample of an alert can be sent to it."""
    config = configured(tmp_path, platform, server)
    async with running(tmp_path, config, first=QUICK_ALERTS) as daemon:
        await platform.connected(20)
        assert await platform.push(sample_event(event_id="one")).answered() == 200
        await until(lambda: daemon.pending() == 0)
        rows = "SELECT name FROM sinks JOIN deliveries ON sink = id ORDER BY name"
        assert [name for (name,) in daemon.query(rows)] == ["audit", "booking", "console"]
        await asyncio.to_thread(ask, config, "events", "replay", "--sink", "ops", "--all", "--yes")
        await asyncio.to_thread(ask, config, "events", "replay", "one")
        await until(lambda: daemon.pending() == 0)
        assert [name for (name,) in daemon.query(rows)] == ["audit", "booking", "console"]
        assert told.events() == []
        assert b"ops accepted" in await asyncio.to_thread(ask, config, "sinks", "test", "ops")
        (sample,) = told.events()
        assert (sample["type"], sample["subject"], sample["test"]) == (
            "reserve_listener.alert.v1",
            "test",
            True,
        )
        assert await daemon.stop() == 0
    assert b"ops accepted" in await asyncio.to_thread(ask, config, "sinks", "test", "ops")
    assert [event["subject"] for event in told.events()] == ["test", "test"]


async def test_a_reload_changes_who_is_told(
    tmp_path: Path, platform: Simulator, server: HttpServer, told: Told
) -> None:
    """A sink that is named from now on is told what begins from now on; one that is named no longer is not."""
    pager = OPS.format(url=server.url).replace("ops", "pager")
    config = configured(tmp_path, platform, server, sinks=pager, alerts="disconnected_after = 0.3")
    async with under_systemd(tmp_path, config, first=QUICK_ALERTS) as (daemon, _):
        await platform.connected(20)
        config.write_text(config.read_text().replace('sinks = ["ops"]', 'sinks = ["pager"]'))
        daemon.process.send_signal(signal.SIGHUP)
        await until(lambda: logged(daemon, "config.applied"))
        assert logged(daemon, "config.applied")[0]["restart_needed_for"] == []
        platform.faults.endpoint_status = 500
        await platform.drop(abort=True)
        await until(lambda: told.states("/pager") == ["disconnected firing"])
        assert told.events() == []
        assert await daemon.stop() == 0


async def test_without_alert_sinks_the_log_has_it(
    tmp_path: Path, platform: Simulator, server: HttpServer
) -> None:
    """Nobody has to configure anything for `alert.firing` and `alert.resolved`."""
    config = write_config(tmp_path, platform, server.url, more="[alerts]\ndisconnected_after = 0.3\n")
    async with running(tmp_path, config, first=QUICK_ALERTS) as daemon:
        await platform.connected(20)
        platform.faults.endpoint_status = 500
        await platform.drop(abort=True)
        await until(lambda: logged(daemon, "alert.firing"))
        platform.faults.endpoint_status = 200
        await until(lambda: logged(daemon, "alert.resolved"))
        assert logged(daemon, "alert.firing")[0]["summary"]
        assert await daemon.stop() == 0


@asynccontextmanager
async def _gap(folder: Path, config: Path, hours: float) -> AsyncIterator[Daemon]:
    """A daemon that was last connected so long ago."""
    import sqlite3  # noqa: PLC0415

    connection = sqlite3.connect(folder / "events.db")
    with connection:
        connection.execute(
            "UPDATE apps SET last_connected_ms = last_connected_ms - ?", (round(hours * 3600_000),)
        )
    connection.close()
    async with running(folder, config, first=QUICK_ALERTS) as daemon:
        yield daemon


async def test_a_gap_is_told(tmp_path: Path, platform: Simulator, server: HttpServer, told: Told) -> None:
    """Offline for longer than the platform pushes again: told once, with the times, and not once more after a restart."""
    config = configured(tmp_path, platform, server, sinks="\n[rooms]\nreconcile = false\n")
    async with running(tmp_path, config, first=QUICK_ALERTS) as daemon:
        await platform.connected(20)
        await until(lambda: daemon.query("SELECT 1 FROM apps"))
        assert await daemon.stop() == 0
    async with _gap(tmp_path, config, 8) as daemon:
        await until(lambda: told.states() == ["gap firing"])
        await until(lambda: delivered_to_all(tmp_path))
        assert "rooms.reconcile" in told.events()[0]["data"]["detail"]
        assert await daemon.stop() == 0
        await daemon.start()
        await platform.connected(20)
        status: Status | None = None
        while status is None:
            status = await asyncio.to_thread(get, url_of(tmp_path / "events.db"), "/status", Status)
        assert [one.alert for one in status.alerts] == ["gap"]
        assert await daemon.stop() == 0
    assert told.states() == ["gap firing"]
