"""Signals, reload, a failing store, systemd's protocol: the life of the daemon as a process."""

from __future__ import annotations

import asyncio
import json
import os
import resource
import signal
import socket
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import psutil
import pytest

from reserve_listener.daemon.heartbeat import Heartbeat
from reserve_listener.daemon.systemd import Notifier
from reserve_listener.simulator import Answer, HttpServer, Receiver, Simulator, patience, sample_event
from tests.daemon_process import COMMAND, Daemon, environment, running, until, write_config

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path


class Supervisory:
    """systemd's end of the notify socket."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind(str(path))
        self._socket.setblocking(False)
        self.heard: list[dict[str, str]] = []

    def listen(self) -> list[dict[str, str]]:
        """Everything heard so far."""
        while True:
            try:
                datagram = self._socket.recv(65_536).decode()
            except BlockingIOError:
                return self.heard
            self.heard.append(dict(line.split("=", 1) for line in datagram.splitlines()))

    def has(self, **wanted: str) -> bool:
        """Whether one datagram held these assignments."""
        return any(wanted.items() <= each.items() for each in self.listen())

    def close(self) -> None:
        self._socket.close()


@asynccontextmanager
async def under_systemd(
    folder: Path, config: Path, *, first: str = "", **extra: str
) -> AsyncIterator[tuple[Daemon, Supervisory]]:
    """The daemon with a notify socket and without a controlling terminal, as a unit runs it."""
    systemd = Supervisory(folder / "notify")
    environ = {"NOTIFY_SOCKET": str(systemd.path), **extra}
    try:
        async with running(folder, config, environ=environ, session=True, first=first) as daemon:
            yield daemon, systemd
    finally:
        systemd.close()


async def test_systemd_hears_ready_status_watchdog_and_stopping(
    tmp_path: Path, platform: Simulator, server: HttpServer
) -> None:
    """READY after the connection, STATUS with state and backlog, WATCHDOG in time, STOPPING with more time to drain."""
    config = write_config(tmp_path, platform, server.url)
    async with under_systemd(tmp_path, config, WATCHDOG_USEC="600000") as (daemon, systemd):
        await until(lambda: systemd.has(READY="1", STATUS="connected"))
        await until(
            lambda: systemd.has(WATCHDOG="1", STATUS="connected; pending: audit 0, booking 0, console 0")
        )
        assert await daemon.stop() == 0
        assert systemd.has(STOPPING="1", EXTEND_TIMEOUT_USEC="25000000")


async def test_a_stopped_process_feeds_no_watchdog(
    tmp_path: Path, platform: Simulator, server: HttpServer
) -> None:
    """SIGSTOP silences the watchdog, so systemd would restart the unit; SIGCONT lets it speak again."""
    config = write_config(tmp_path, platform, server.url)
    async with under_systemd(tmp_path, config, WATCHDOG_USEC="300000") as (daemon, systemd):
        await until(lambda: systemd.has(WATCHDOG="1"))
        daemon.process.send_signal(signal.SIGSTOP)
        await until(lambda: psutil.Process(daemon.process.pid).status() == psutil.STATUS_STOPPED)
        systemd.listen()
        systemd.heard.clear()
        await asyncio.sleep(0.5)  # longer than the watchdog allows: nothing may come
        assert systemd.listen() == []
        daemon.process.send_signal(signal.SIGCONT)
        await until(lambda: systemd.has(WATCHDOG="1"))


async def test_ready_is_said_while_the_platform_is_away(tmp_path: Path, server: HttpServer) -> None:
    """Trying with a valid configuration is ready, too: a unit must not fail since the network is not up yet."""
    async with Simulator() as platform:
        config = write_config(tmp_path, platform, server.url)
    async with under_systemd(tmp_path, config) as (daemon, systemd):
        await until(lambda: systemd.has(READY="1"))
        assert any(each.get("STATUS", "").startswith("waiting") for each in systemd.listen())
        assert await daemon.stop() == 0


async def test_sighup_applies_a_good_configuration_without_a_reconnect(
    tmp_path: Path, platform: Simulator, server: HttpServer, receiver: Receiver
) -> None:
    """An added sink gets the next event, a removed one no more, and the connection is the same."""
    config = write_config(tmp_path, platform, server.url)
    async with under_systemd(tmp_path, config) as (daemon, systemd):
        await platform.connected(20)
        await platform.push(sample_event(event_id="before")).answered()
        await until(lambda: daemon.pending() == 0)
        text = (
            config.read_text()
            .replace('name = "audit"', 'name = "second"')
            .replace("events.jsonl", "second.jsonl")
        )
        config.write_text(text + '\n[log]\nlevel = "debug"\n')
        await until(lambda: systemd.has(READY="1"))
        daemon.process.send_signal(signal.SIGHUP)
        await until(lambda: any(line["event"] == "config.applied" for line in daemon.log()))
        await until(lambda: systemd.has(RELOADING="1"))
        await platform.push(sample_event(event_id="after")).answered()
        await until(lambda: daemon.pending() == 0)
        (line,) = (tmp_path / "second.jsonl").read_bytes().splitlines()
        assert json.loads(line)["id"] == "after"
        assert daemon.file_ids() == ["before"]
        assert [request.headers["webhook-id"] for request in receiver.received] == ["before", "after"]
        assert platform.endpoint_calls == 1
        assert any(line["level"] == "debug" for line in daemon.log())


async def test_sighup_refuses_a_bad_configuration_and_keeps_the_old_one(
    tmp_path: Path, platform: Simulator, server: HttpServer
) -> None:
    """A mistake in the file is said in the log with its key; everything goes on as before."""
    config = write_config(tmp_path, platform, server.url)
    async with under_systemd(tmp_path, config) as (daemon, _):
        await platform.connected(20)
        config.write_text(config.read_text().replace('type = "file"', 'type = "fil"'))
        daemon.process.send_signal(signal.SIGHUP)
        await until(lambda: any(line["event"] == "config.refused" for line in daemon.log()))
        (refused,) = [line for line in daemon.log() if line["event"] == "config.refused"]
        assert "sinks[1]" in refused["error"]
        event = sample_event()
        await platform.push(event).answered()
        await until(lambda: daemon.file_ids() == [event["header"]["event_id"]])
        assert await daemon.stop() == 0


@pytest.mark.parametrize("content", [None, "no certificates"])
async def test_sighup_refuses_a_ca_bundle_that_cannot_be_used(
    tmp_path: Path, platform: Simulator, server: HttpServer, content: str | None
) -> None:
    """A file that is only looked into when its sink is made is checked before anything is touched, too."""
    config = write_config(tmp_path, platform, server.url)
    if content is not None:
        (tmp_path / "ca.pem").write_text(content)
    async with under_systemd(tmp_path, config) as (daemon, _):
        await platform.connected(20)
        config.write_text(config.read_text() + f'ca_bundle = "{tmp_path}/ca.pem"\n')
        daemon.process.send_signal(signal.SIGHUP)
        await until(lambda: any(line["event"] == "config.refused" for line in daemon.log()))
        (refused,) = [line for line in daemon.log() if line["event"] == "config.refused"]
        assert "ca_bundle" in refused["error"]
        assert await platform.push(sample_event()).answered() == 200
        await until(lambda: len(daemon.file_ids()) == 1)
        assert await daemon.stop() == 0


async def test_a_storm_of_sighups_delivers_each_event_once(
    tmp_path: Path, platform: Simulator, server: HttpServer, receiver: Receiver
) -> None:
    """Reloads one after the other under load: no event is lost, and attempts under way end before they are made again."""
    config = write_config(tmp_path, platform, server.url)
    async with under_systemd(tmp_path, config) as (daemon, _):
        await platform.connected(20)
        for number in range(20):
            daemon.process.send_signal(signal.SIGHUP)
            await platform.push_many(sample_event(scope_id=f"omm_{number}") for _ in range(20))
        await until(lambda: daemon.pending() == 0)
        assert sorted(daemon.file_ids()) == sorted(platform.acknowledged) == sorted(daemon.logged_ids())
        assert sorted(r.headers["webhook-id"] for r in receiver.received) == sorted(platform.acknowledged)
        assert platform.endpoint_calls == 1
        assert await daemon.stop() == 0


async def test_a_changed_app_is_said_to_need_a_restart(
    tmp_path: Path, platform: Simulator, server: HttpServer
) -> None:
    """What a reload cannot apply is named."""
    config = write_config(tmp_path, platform, server.url)
    async with under_systemd(tmp_path, config) as (daemon, _):
        await platform.connected(20)
        text = config.read_text().replace("backoff_cap = 0.2", "backoff_cap = 0.3")
        config.write_text(f'[status]\nlisten = "127.0.0.1:0"\n{text}')
        daemon.process.send_signal(signal.SIGHUP)
        await until(lambda: any(line["event"] == "config.applied" for line in daemon.log()))
        (applied,) = [line for line in daemon.log() if line["event"] == "config.applied"]
        assert applied["restart_needed_for"] == ["lark.backoff_cap", "status"]


async def test_a_second_signal_leaves_at_once_and_loses_nothing(
    tmp_path: Path, platform: Simulator, server: HttpServer, receiver: Receiver
) -> None:
    """With a receiver that hangs, the first signal drains, the second ends; the event is delivered after a restart."""
    receiver.answer = Answer(delay=60)
    config = write_config(tmp_path, platform, server.url, more="\n[delivery]\ndrain_timeout = 300\n")
    async with running(tmp_path, config) as daemon:
        await platform.connected(20)
        event = sample_event()
        assert await platform.push(event).answered() == 200
        await receiver.wait_for(1)
        await until(lambda: daemon.pending() == 1)  # the file sink's is settled
        daemon.process.send_signal(signal.SIGTERM)
        await until(lambda: any(line["event"] == "daemon.signal" for line in daemon.log()))
        assert await daemon.stop() == 0
        assert daemon.pending() == 1
        receiver.answer = 200
        await daemon.start()
        await until(lambda: daemon.pending() == 0)
        assert [r.headers["webhook-id"] for r in receiver.received] == [event["header"]["event_id"]] * 2


async def test_a_full_disk_turns_answers_to_500_and_passes(
    tmp_path: Path, platform: Simulator, server: HttpServer
) -> None:
    """With no room for the store pushes are answered 500 and STATUS says why; with room again the next push is taken."""
    config = write_config(tmp_path, platform, server.url)
    async with under_systemd(tmp_path, config, WATCHDOG_USEC="600000") as (daemon, systemd):
        await platform.connected(20)
        assert await platform.push(sample_event()).answered() == 200
        await until(lambda: daemon.pending() == 0)
        # No file of this process may grow any more: what a full disk looks like to SQLite (SIGXFSZ is ignored by Python).
        unlimited = resource.prlimit(daemon.process.pid, resource.RLIMIT_FSIZE)
        resource.prlimit(daemon.process.pid, resource.RLIMIT_FSIZE, (4096, unlimited[1]))
        big = sample_event(reserve_scope_config={"note": "x" * 200_000})
        assert await platform.push(big, retry=False).answered(10) == 500
        await until(lambda: any("answering 500" in each.get("STATUS", "") for each in systemd.listen()))
        resource.prlimit(daemon.process.pid, resource.RLIMIT_FSIZE, unlimited)
        assert await platform.push(big).answered(10) == 200
        await until(lambda: daemon.pending() == 0)
        assert daemon.file_ids()[-1] == big["header"]["event_id"]
        assert await daemon.stop() == 0


async def test_a_task_that_dies_takes_the_daemon_down_loudly(
    tmp_path: Path, platform: Simulator, server: HttpServer
) -> None:
    """A defect in a background task ends the process with 1: its traceback in the log, a sentence on the terminal."""
    config = write_config(tmp_path, platform, server.url)
    script = (
        "import sys\n"
        "from reserve_listener.delivery.worker import Worker\n"
        "async def run(self):\n    raise ZeroDivisionError('a defect')\n"
        "Worker.run = run\n"
        "from reserve_listener.cli.main import main\n"
        "sys.argv[1:] = ['run', '-c', sys.argv[1]]\n"
        "main()\n"
    )
    process = await asyncio.create_subprocess_exec(
        *COMMAND[:1], "-c", script, str(config),
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE, env=environment(),
    )  # fmt: skip
    out, err = await asyncio.wait_for(process.communicate(), patience(30))
    assert process.returncode == 1
    assert err.decode().startswith("error: stopped by a bug (ZeroDivisionError)")
    assert "Traceback" not in err.decode()
    failed = json.loads(out.splitlines()[-1])
    assert (failed["event"], failed["level"], failed["exit_code"]) == ("daemon.failed", "error", 1)
    assert failed["reason"] == "a bug: ZeroDivisionError: a defect"
    assert "Traceback" in failed["exception"]


async def test_a_gap_longer_than_the_platform_pushes_again_is_recorded(
    tmp_path: Path, platform: Simulator, server: HttpServer
) -> None:
    """After more than 7.1 h without a connection the log says which changes may be lost, and the store keeps it."""
    config = write_config(tmp_path, platform, server.url)
    async with running(tmp_path, config) as daemon:
        await platform.connected(20)
        await until(lambda: len(daemon.query("SELECT 1 FROM apps")) == 1)
        assert await daemon.stop() == 0
        import sqlite3  # noqa: PLC0415

        connection = sqlite3.connect(tmp_path / "events.db")
        with connection:
            connection.execute("UPDATE apps SET last_connected_ms = last_connected_ms - 8 * 3600 * 1000")
        connection.close()
        await daemon.start()
        await until(lambda: any(line["event"] == "connection.gap" for line in daemon.log()))
        ((from_ms, to_ms),) = daemon.query("SELECT from_ms, to_ms FROM gaps")
        assert 8 * 3_600_000 <= to_ms - from_ms < 8.1 * 3_600_000
        assert await daemon.stop() == 0


def test_without_systemd_nothing_is_sent() -> None:
    """Without NOTIFY_SOCKET every call does nothing."""
    notifier = Notifier({})
    notifier.send("READY=1")
    assert not notifier.active
    assert notifier.watchdog_s is None


def test_the_abstract_namespace_and_a_foreign_watchdog() -> None:
    """`@name` is an abstract socket, and a watchdog meant for another process is none for us."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as systemd:
        systemd.bind(f"\0reserve-listener-test-{os.getpid()}")
        systemd.settimeout(5)
        environ = {
            "NOTIFY_SOCKET": f"@reserve-listener-test-{os.getpid()}",
            "WATCHDOG_USEC": "1000000",
            "WATCHDOG_PID": "1",
        }
        notifier = Notifier(environ)
        notifier.status("two\nlines")
        assert systemd.recv(1000) == b"STATUS=two\\nlines"
        assert notifier.watchdog_s is None
        notifier.close()


async def test_sleep_of_the_machine_is_noticed() -> None:
    """When the boot clock ran ahead of the monotonic one, the supervisor is told, once; small differences are none."""
    asleep = iter([100.0, 100.5, 160.0, 160.0])
    on_resume: list[float] = []
    ticks: list[float] = []

    async def sleep(seconds: float) -> None:
        ticks.append(seconds)
        if len(ticks) > 3:
            await asyncio.Event().wait()

    async def progress() -> str:
        return "fine"

    heartbeat = Heartbeat(
        Notifier({}),
        progress=progress,
        on_resume=lambda: on_resume.append(1),
        asleep=lambda: next(asleep),
        sleep=sleep,
    )
    task = asyncio.create_task(heartbeat.run())
    async with asyncio.timeout(patience(5)):
        while len(ticks) < 4:
            await asyncio.sleep(0)
    task.cancel()
    assert on_resume == [1]
