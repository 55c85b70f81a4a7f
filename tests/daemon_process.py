"""The real daemon as a real process, for tests that start, signal and kill it."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sqlite3
import sys
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypedDict

from reserve_listener.simulator import patience
from tests.commands import COMMANDS, Forked

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping
    from typing import Unpack

    from reserve_listener.simulator import Simulator

COMMAND = (sys.executable, "-m", "reserve_listener")
STOP_TIMEOUT_S = 30.0
IN_A_HURRY = """
from reserve_listener.intake import reconciler, troubles
from reserve_listener.lark.api import pace
pace.MINUTE_S, troubles.BACKOFF_S, reconciler.LEAD_EVERY_S = 6.0, 0.5, 0.5
"""
"""`How.first` of a daemon that asks the platform for limits ten times as often as it may, which takes most of such a test."""
QUICK_ALERTS = """
from reserve_listener.daemon.alerts import watch
watch.TICK_S, watch.LOOK_MS = 0.2, 500
"""
"""`How.first` of a daemon that sees ten times as often what alerts are about."""


def environment(**extra: str) -> dict[str, str]:
    """The environment without anything that configures a daemon."""
    return {k: v for k, v in os.environ.items() if not k.startswith("RESERVE_LISTENER_")} | extra


def write_config(
    folder: Path, simulator: Simulator, receiver_url: str, *, lark: str = "", more: str = ""
) -> Path:
    """A configuration with the long connection and the three sinks, its store and its file in `folder`."""
    (folder / "secret").write_text(f"{simulator.app_secret}\n")
    connection = f"""
app_id = "{simulator.app_id}"
app_secret_file = "{folder}/secret"
domain = "{simulator.domain}"
backoff_base = 0.05
backoff_cap = 0.2
{lark}
"""
    return write_sinks_config(folder, receiver_url, lark=connection, more=more)


def write_sinks_config(folder: Path, receiver_url: str, *, lark: str, more: str) -> Path:
    """A configuration with this in `[lark]` and the three sinks; `more` stands at its end, in the http sink first."""
    path = folder / "config.toml"
    path.write_text(
        f"""
[lark]
{lark}
[store]
url = "sqlite:///{folder}/events.db"

[[sinks]]
name = "console"
type = "log"

[[sinks]]
name = "audit"
type = "file"
path = "{folder}/events.jsonl"

[[sinks]]
name = "booking"
type = "http"
url = "{receiver_url}/hook"
{more}
"""
    )
    return path


def ask(config: Path, *arguments: str) -> bytes:
    """What a command says, on both outputs. Blocks until it has ended."""
    done = COMMANDS.run(
        *arguments, "-c", str(config), env=environment(), timeout=patience(60), python=COMMAND[0]
    )
    return (done.stdout + done.stderr).encode()


class How(TypedDict, total=False):
    """What may be said of a daemon's start."""

    environ: Mapping[str, str]
    """What its environment has besides."""
    session: bool
    """Of its own, without a controlling terminal, as a service has it."""
    anew: bool
    """By a Python of its own: what is measured is to be the daemon's alone."""
    first: str
    """Python that it runs before all else, where it is a fork."""


class Daemon:
    """`reserve-listener run`; its output goes to `<folder>/log.jsonl`, over restarts."""

    def __init__(self, folder: Path, config: Path, *options: str, **how: Unpack[How]) -> None:
        self.folder = folder
        self.process: asyncio.subprocess.Process | Forked
        self._arguments = ("run", "-c", str(config), *options)
        self._how = how

    async def start(self) -> None:
        """Start the process; says nothing of the connection."""
        with (self.folder / "log.jsonl").open("ab") as out, (self.folder / "stderr.txt").open("ab") as err:
            self.process = await COMMANDS.start(
                *self._arguments,
                env=environment(**self._how.get("environ", {})),
                streams=(out.fileno(), err.fileno()),
                timeout=patience(60),
                python=COMMAND[0],
                session=self._how.get("session", False),
                anew=self._how.get("anew", False),
                first=self._how.get("first", ""),
            )

    async def stop(self, number: int = signal.SIGTERM) -> int:
        """Send a signal and wait; the exit code. One that has only just been started is let come as far as hearing it."""
        if number != signal.SIGKILL:
            await until(self._hears_signals)
        self.process.send_signal(number)
        return await self.ended()

    def _hears_signals(self) -> bool:
        """Whether it has a handler for SIGTERM (`SigCgt` of proc(5)), or has ended."""
        with suppress(OSError, IndexError):
            status = Path(f"/proc/{self.process.pid}/status").read_text()
            caught = int(status.split("SigCgt:")[1].split()[0], 16)
            return bool(caught >> (signal.SIGTERM - 1) & 1)
        return True

    async def ended(self) -> int:
        """The exit code, once there is one."""
        return await asyncio.wait_for(self.process.wait(), patience(STOP_TIMEOUT_S))

    def log(self) -> list[dict[str, Any]]:
        """Whole lines of the log so far; a line torn by a kill is left out."""
        lines = []
        for line in (self.folder / "log.jsonl").read_bytes().splitlines():
            with suppress(ValueError):
                lines.append(json.loads(line))
        return lines

    def stderr(self) -> str:
        """What went to standard error so far."""
        return (self.folder / "stderr.txt").read_text()

    def logged_ids(self) -> list[str]:
        """The ids that the log sink wrote."""
        return [line["event_id"] for line in self.log() if line["event"] == "reserve_config.updated"]

    def file_ids(self) -> list[str]:
        """The ids in the file sink's file; every line must be whole."""
        path = self.folder / "events.jsonl"
        return [json.loads(line)["id"] for line in path.read_bytes().splitlines()] if path.exists() else []

    def pending(self) -> int:
        """Deliveries that are not settled, and batches that are not projected, read from both files."""
        (newest,) = self.query("SELECT coalesce(max(number), 0) FROM batches", "events.db-inbox")[0]
        (position,) = self.query("SELECT number FROM inbox")[0]
        (pending,) = self.query("SELECT count(*) FROM deliveries WHERE state = 0")[0]
        return int(pending) + max(0, int(newest) - int(position))

    def query(self, statement: str, file: str = "events.db") -> list[tuple[Any, ...]]:
        """Look into the store, or into its inbox."""
        connection = sqlite3.connect(f"file:{self.folder}/{file}?mode=ro", uri=True)
        try:
            return connection.execute(statement).fetchall()
        finally:
            connection.close()


@asynccontextmanager
async def running(folder: Path, config: Path, *options: str, **how: Unpack[How]) -> AsyncIterator[Daemon]:
    """A started daemon that is gone at the end, however the test ends."""
    daemon = Daemon(folder, config, *options, **how)
    await daemon.start()
    try:
        yield daemon
    finally:
        with suppress(ProcessLookupError):
            daemon.process.kill()
        await daemon.process.wait()


def in_file(folder: Path) -> list[dict[str, Any]]:
    """What the file sink has written so far."""
    path = folder / "events.jsonl"
    return [json.loads(line) for line in path.read_bytes().splitlines()] if path.exists() else []


async def until(condition: Any, timeout_s: float = 20.0) -> None:
    """Wait for a condition in another process: there is no event to wait for, so it is asked again and again."""
    async with asyncio.timeout(patience(timeout_s)):
        while not condition():
            await asyncio.sleep(0.02)
