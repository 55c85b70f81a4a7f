"""What somebody who is woken at three is told: ok, degraded, failing or stopped, why, and what to do."""

from __future__ import annotations

import asyncio
import json
import signal
import time
from typing import TYPE_CHECKING, Any

import pytest

from reserve_listener import store as stores
from reserve_listener.cli.status import _span
from reserve_listener.clock import rfc3339
from reserve_listener.daemon import snapshot as health, verdict
from reserve_listener.daemon.snapshot import Health
from reserve_listener.delivery import Workers
from reserve_listener.model import State
from reserve_listener.simulator import HttpServer, Receiver, Simulator, patience, sample_event
from tests.cli.test_operate import cli
from tests.daemon_process import COMMAND, Daemon, environment, running, until, write_config
from tests.helpers import append, small_event, url_of

if TYPE_CHECKING:
    from pathlib import Path

    from reserve_listener.protocols.store import Store
    from reserve_listener.web.answers import Status
    from tests.backends import Backend


async def told(config: Path) -> tuple[int, dict[str, Any]]:
    """`status --json`: its exit code and its object."""
    code, out, err = await cli("status", "--json", "-c", str(config))
    assert err == ""
    return code, json.loads(out)


async def connected(daemon: Daemon, platform: Simulator) -> None:
    """The daemon is connected, and knows it."""
    await platform.connected(20)
    await until(lambda: daemon.query("SELECT 1 FROM apps"))


async def test_all_is_well(tmp_path: Path, platform: Simulator, server: HttpServer) -> None:
    """Connected and delivering: `ok`, exit 0, and the facts that show it."""
    config = write_config(tmp_path, platform, server.url)
    async with running(tmp_path, config) as daemon:
        await connected(daemon, platform)
        assert await platform.push(sample_event(event_id="one")).answered() == 200
        await until(lambda: daemon.pending() == 0)
        code, found = await told(config)
        assert (code, found["status"], found["reasons"]) == (0, "ok", [])
        assert found["pid"] == daemon.process.pid
        assert found["pending"] == {"audit": 0, "booking": 0, "console": 0}
        assert {sink["state"] for sink in found["sinks"]} == {"ok"}
        connection = found["connection"]
        assert (connection["state"], connection["reconnects_last_hour"]) == ("connected", 0)
        assert connection["since"] <= found["last_event"]
        assert connection["since"] <= connection["last_frame"]
        await platform.drop()
        await platform.connected(20)
        await until(lambda: [line["event"] for line in daemon.log()].count("connection.connected") == 2)
        _, found = await told(config)
        assert found["connection"]["reconnects_last_hour"] == 1
        code, out, _ = await cli("status", "-c", str(config))
        assert code == 0
        assert out.startswith("status\tok\n")
        assert "connection\tconnected, since 2" in out
        assert await daemon.stop() == 0


async def test_not_connected_is_failing_with_the_next_attempt_and_what_to_do(
    tmp_path: Path, platform: Simulator, server: HttpServer
) -> None:
    """A platform that refuses: `failing`, exit 1, since when, why, what to mend, and when it is tried again."""
    config = write_config(tmp_path, platform, server.url, lark="refused_backoff = 100")
    async with running(tmp_path, config) as daemon:
        await connected(daemon, platform)
        platform.faults.endpoint_code = 514
        await platform.drop()
        await until(lambda: any("code 514" in line.get("reason", "") for line in daemon.log()))
        code, found = await told(config)
        (reason,) = found["reasons"]
        assert (code, found["status"], reason["part"]) == (1, "failing", "connection")
        assert "code 514" in reason["reason"]
        assert "check lark.app_id and lark.app_secret" in reason["hint"]
        assert "reserve-listener reconnect" in reason["hint"]
        assert reason["since"] < found["connection"]["next_attempt"]
        assert await daemon.stop() == 0


async def test_what_waits_for_a_person_is_degraded(
    tmp_path: Path, platform: Simulator, server: HttpServer, receiver: Receiver
) -> None:
    """Dead letters, a sink that is set up wrongly, one that is disabled: `degraded`, exit 1, each with its hint."""
    config = write_config(tmp_path, platform, server.url)
    receiver.answer = [422, 404]
    async with running(tmp_path, config) as daemon:
        await connected(daemon, platform)
        assert await platform.push(sample_event(event_id="dead")).answered() == 200
        await until(lambda: daemon.pending() == 0)
        code, found = await told(config)
        assert (code, found["status"], found["dead_letters"]) == (1, "degraded", 1)
        assert [reason["part"] for reason in found["reasons"]] == ["dead_letters"]
        assert "dead-letters list" in found["reasons"][0]["hint"]
        assert found["reasons"][0]["since"] >= found["last_event"]
        await cli("dead-letters", "drop", "-c", str(config), "--event-id", "dead", "--yes")
        assert (await told(config))[1]["status"] == "ok"
        assert await platform.push(sample_event(event_id="misled")).answered() == 200
        await receiver.wait_for(2)
        await until(lambda: any(line["event"] == "delivery.sink_misconfigured" for line in daemon.log()))
        _, found = await told(config)
        assert [reason["part"] for reason in found["reasons"]] == ["sink booking"]
        assert "misconfigured: " in found["reasons"][0]["reason"]
        await cli("sinks", "disable", "booking", "-c", str(config))
        _, found = await told(config)
        assert found["reasons"][0]["reason"] == "disabled: disabled by hand"
        assert "sinks enable booking" in found["reasons"][0]["hint"]
        assert await daemon.stop() == 0


async def test_a_stopped_daemon_is_told_from_its_store(
    tmp_path: Path, platform: Simulator, server: HttpServer, receiver: Receiver
) -> None:
    """Exit 3, JSON too, with what the store knows; without a store no error either."""
    config = write_config(tmp_path, platform, server.url)
    code, found = await told(config)
    assert (code, found["status"]) == (3, "stopped")
    assert [reason["part"] for reason in found["reasons"]] == ["daemon", "store"]
    receiver.answer = 422
    async with running(tmp_path, config) as daemon:
        await platform.connected(20)
        assert await platform.push(sample_event(event_id="one")).answered() == 200
        await until(lambda: daemon.pending() == 0)
        assert await daemon.stop() == 0
    code, found = await told(config)
    assert (code, found["status"], found["dead_letters"]) == (3, "stopped", 1)
    assert found["last_event"] is not None
    code, out, err = await cli("status", "-c", str(config))
    assert (code, err) == (3, "")
    assert "no daemon runs on the store" in out
    assert await cli("status", "--quiet", "-c", str(config)) == (3, "", "")


async def test_a_daemon_that_stands_still_is_said_to_within_five_seconds(
    tmp_path: Path, platform: Simulator, server: HttpServer
) -> None:
    """SIGSTOP: exit 1 in time, with the process that does not answer, also as JSON; going on it answers again."""
    config = write_config(tmp_path, platform, server.url)
    async with running(tmp_path, config) as daemon:
        await connected(daemon, platform)
        daemon.process.send_signal(signal.SIGSTOP)
        code, found = await told(config)
        (reason,) = found["reasons"]
        assert (code, found["status"], reason["part"]) == (1, "failing", "daemon")
        assert "does not answer within" in reason["reason"]
        assert f"process {daemon.process.pid} " in reason["hint"]
        assert found["pid"] == daemon.process.pid
        assert [sink["name"] for sink in found["sinks"]] == ["console", "audit", "booking"]
        assert await cli("status", "--quiet", "-c", str(config)) == (1, "", "")
        daemon.process.send_signal(signal.SIGCONT)
        assert (await told(config))[0] == 0
        assert await daemon.stop() == 0


async def test_commands_do_not_wait_for_a_daemon_that_stands_still(
    tmp_path: Path, platform: Simulator, server: HttpServer
) -> None:
    """SIGSTOP: lists come from the store with a warning, actions are not left behind, the check counts with care."""
    config = write_config(tmp_path, platform, server.url)
    async with running(tmp_path, config) as daemon:
        await connected(daemon, platform)
        daemon.process.send_signal(signal.SIGSTOP)
        code, out, err = await cli("sinks", "list", "-c", str(config))
        assert (code, [line.split("\t")[0] for line in out.splitlines()]) == (
            0,
            ["console", "audit", "booking"],
        )
        assert err.startswith("warning: the daemon does not answer within")
        for action in (("sinks", "disable", "booking"), ("reconnect",)):
            code, out, err = await cli(*action, "-c", str(config))
            assert (code, out) == (1, "")
            assert "nothing was done. `reserve-listener status` says more." in err
        code, out, err = await cli("check", "--online", "-c", str(config))
        assert "warn\tother clients\t1 connected, perhaps including the daemon on this machine" in out
        daemon.process.send_signal(signal.SIGCONT)
        code, found = await told(config)
        assert (code, {sink["state"] for sink in found["sinks"]}) == (0, {"ok"})
        assert await daemon.stop() == 0


async def test_a_removed_socket_is_not_a_stopped_daemon(
    tmp_path: Path, platform: Simulator, server: HttpServer
) -> None:
    """The store's lock says that a daemon runs, whatever became of its socket."""
    config = write_config(tmp_path, platform, server.url)
    async with running(tmp_path, config) as daemon:
        await connected(daemon, platform)
        stores.backend(url_of(tmp_path / "events.db")).control_socket.unlink()
        code, found = await told(config)
        (reason,) = found["reasons"]
        assert (code, found["status"]) == (1, "failing")
        assert f"process {daemon.process.pid} holds the store" in reason["reason"]
        assert await daemon.stop() == 0


async def test_a_broken_configuration_does_not_hide_the_daemon(
    tmp_path: Path, platform: Simulator, server: HttpServer
) -> None:
    """While the file on the disk is wrong the daemon is asked all the same; the warning goes to stderr."""
    config = write_config(tmp_path, platform, server.url)
    async with running(tmp_path, config) as daemon:
        await connected(daemon, platform)
        config.write_text(config.read_text() + '\nnonsense = 1\n[lark.nope]\nx = "y"\n')
        code, out, err = await cli("status", "--json", "-c", str(config))
        assert (code, json.loads(out)["status"]) == (0, "ok")
        assert err.startswith("warning: ")
        assert await cli("status", "--quiet", "-c", str(config)) == (0, "", "")
        assert await daemon.stop() == 0


async def test_watching_follows(tmp_path: Path, platform: Simulator, server: HttpServer) -> None:
    """`--watch --json` prints an object a line as things change, until Ctrl-C, which is no error."""
    config = write_config(tmp_path, platform, server.url)
    watcher = await asyncio.create_subprocess_exec(
        *COMMAND, "status", "--watch", "--json", "-c", str(config),
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE, env=environment(),
    )  # fmt: skip
    assert watcher.stdout is not None
    async with asyncio.timeout(patience(60)):
        assert json.loads(await watcher.stdout.readline())["status"] == "stopped"
        async with running(tmp_path, config) as daemon:
            while json.loads(await watcher.stdout.readline())["status"] != "ok":
                pass
            assert await daemon.stop() == 0
        watcher.send_signal(signal.SIGINT)
        _, err = await watcher.communicate()
    assert (watcher.returncode, err) == (0, b"")


class Still:
    """A transport that is connected and does nothing."""

    def __init__(self) -> None:
        self.state = State("connected", time.monotonic())
        self.last_frame_s: float | None = None

    async def run(self) -> None:
        """Nothing."""

    def on_resume(self) -> None:
        """Nothing."""

    def reconnect(self) -> bool:
        """Nothing."""
        return True

    def stop_accepting(self) -> None:
        """Nothing."""

    async def close(self) -> None:
        """Nothing."""


async def snapshot(store: Store) -> Status:
    """What a daemon with this store says that is connected and has no workers."""
    return await Health("cli_x", store, Still(), Workers(store), redact=str).snapshot()


async def test_a_store_that_hangs_is_what_is_said(backend: Backend, monkeypatch: pytest.MonkeyPatch) -> None:
    """While the disk does not return, `status` does: the store is named. Pushes may well be taken: nobody says that they are not."""
    monkeypatch.setattr(health, "STORE_TIMEOUT_S", 0.1)
    store = await backend.open("a")
    held = await backend.hold_projecting(store).begun()
    try:
        found = await snapshot(store)
        assert found.status == "degraded"
        assert found.problem is None
        assert [reason.part for reason in found.reasons] == ["store"]
        assert found.reasons[0].reason == "what is in it is not known: it has not answered for 0.1 s"
    finally:
        await held.release()
    assert (await snapshot(store)).status == "ok"
    await store.close()


async def test_a_gap_is_in_the_verdict_until_it_is_known_what_was_missed(backend: Backend) -> None:
    """As in the alert: until the rooms were compared with the platform, or for a day where nobody compares them."""
    store = await backend.open("a")
    hour_ms = 3_600_000
    await store.know_app("cli_x")
    since_ms = store.now_ms() - 9 * hour_ms
    assert await store.know_app("cli_x", gap_since_ms=since_ms, longer_than_ms=8 * hour_ms)
    found = await snapshot(store)
    assert (found.status, [reason.part for reason in found.reasons]) == ("degraded", ["gap"])
    assert rfc3339(since_ms) in found.reasons[0].reason
    assert "rooms.reconcile" in (found.reasons[0].hint or "")
    await store.close()


@pytest.mark.parametrize(
    ("compared", "reconciles", "hours", "is_open"),
    [
        (None, True, 1, True),
        (None, True, 48, True),
        (None, False, 23, True),
        (None, False, 25, False),
        (0, True, 1, False),
        (3, False, 1, False),
    ],
)
def test_a_gap_is_open_until_somebody_has_looked(
    compared: int | None, hours: int, *, reconciles: bool, is_open: bool
) -> None:
    """Nobody could end one that nothing looks into: that takes a day."""
    now_ms = 1_795_673_343_000
    gap = (now_ms - (hours + 9) * 3_600_000, now_ms - hours * 3_600_000, compared, None)
    assert verdict.open_gaps([gap], now_ms=now_ms, reconciles=reconciles) == ([gap] if is_open else [])


async def test_a_store_that_fills_is_degraded_and_a_full_one_failing(backend: Backend) -> None:
    """Over 70 % of its bound a person is told; at the bound pushes are refused."""
    store = await backend.open("a", max_bytes=10_000_000)
    for number in range(8):
        await append(store, small_event(str(number), size=1_000_000))
    found = await snapshot(store)
    assert (found.status, [reason.part for reason in found.reasons]) == ("degraded", ["store"])
    assert "% full" in found.reasons[0].reason
    store.max_bytes = 1_000_000
    found = await snapshot(store)
    assert (found.status, [reason.part for reason in found.reasons]) == ("failing", ["store", "store"])
    await store.close()


@pytest.mark.parametrize(
    ("seconds", "person"), [(59, "59 s"), (60, "1 min"), (3_700, "1 h 1 min"), (183_600, "2 d 3 h")]
)
def test_how_long_it_runs_is_said_in_words(
    monkeypatch: pytest.MonkeyPatch, seconds: int, person: str
) -> None:
    """A person reads days and hours, a program seconds."""
    assert _span(seconds) == f"{seconds} s"
    monkeypatch.setattr("reserve_listener.cli.status.at_terminal", lambda: True)
    assert _span(seconds) == person
