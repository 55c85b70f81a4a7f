"""What SIGHUP means to a real daemon: a reload, the end, or nothing."""

from __future__ import annotations

import asyncio
import os
import signal
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.daemon_process import COMMAND, Daemon, environment, until, write_config

if TYPE_CHECKING:
    from reserve_listener.simulator import HttpServer, Simulator

HANGUP_BIT = 1 << (signal.SIGHUP - 1)


def ignores_hangup(pid: int) -> bool:
    status = Path(f"/proc/{pid}/status").read_text().splitlines()
    mask = next(line for line in status if line.startswith("SigIgn:")).split()[1]
    return bool(int(mask, 16) & HANGUP_BIT)


@pytest.mark.parametrize("terminal", [True, False], ids=["terminal", "no terminal"])
async def test_a_hangup_ignored_at_the_start_stays_ignored(
    tmp_path: Path,
    platform: Simulator,
    server: HttpServer,
    terminal: bool,  # noqa: FBT001  # a table's
) -> None:
    """`nohup reserve-listener run &` survives the end of its terminal, is not reloaded by it, and stops when told to."""
    config = write_config(tmp_path, platform, server.url)
    controller, terminal_end = os.openpty()
    daemon = Daemon(tmp_path, config)
    with (tmp_path / "log.jsonl").open("ab") as out, (tmp_path / "stderr.txt").open("ab") as err:
        daemon.process = await asyncio.create_subprocess_exec(
            # setsid --ctty makes its standard input the controlling terminal.
            *("setsid", *(("--ctty",) if terminal else ()), "nohup", *COMMAND, "run", "-c", str(config)),
            stdin=terminal_end,
            stdout=out,
            stderr=err,
            env=environment(),
        )
    os.close(terminal_end)
    try:
        await platform.connected(20)
        assert ignores_hangup(daemon.process.pid)
        os.close(controller)  # the kernel sends SIGHUP to the session, if it is its terminal
        daemon.process.send_signal(signal.SIGHUP)
        assert await daemon.stop() == 0
        events = [line["event"] for line in daemon.log()]
        assert "config.applied" not in events
        assert [line["signal"] for line in daemon.log() if line["event"] == "daemon.signal"] == ["SIGTERM"]
    finally:
        with suppress(ProcessLookupError):
            daemon.process.kill()
        await daemon.process.wait()


async def test_the_end_of_the_terminal_stops_the_daemon(
    tmp_path: Path, platform: Simulator, server: HttpServer
) -> None:
    """Without nohup, the daemon of a window that is closed ends cleanly."""
    config = write_config(tmp_path, platform, server.url)
    controller, terminal_end = os.openpty()
    daemon = Daemon(tmp_path, config)
    with (tmp_path / "log.jsonl").open("ab") as out, (tmp_path / "stderr.txt").open("ab") as err:
        daemon.process = await asyncio.create_subprocess_exec(
            *("setsid", "--ctty", *COMMAND, "run", "-c", str(config)),
            stdin=terminal_end,
            stdout=out,
            stderr=err,
            env=environment(),
        )
    os.close(terminal_end)
    try:
        await platform.connected(20)
        await until(lambda: any(line["event"] == "connection.connected" for line in daemon.log()))
        os.close(controller)
        assert await daemon.ended() == 0
        assert [line["signal"] for line in daemon.log() if line["event"] == "daemon.signal"] == ["SIGHUP"]
    finally:
        with suppress(ProcessLookupError):
            daemon.process.kill()
        await daemon.process.wait()
