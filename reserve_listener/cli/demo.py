"""`reserve-listener demo`: the real daemon against the local platform, watched from outside.

The daemon is a process of its own, started with the command line a person would use; what the demo says has arrived was
read where it arrived: in the daemon's log, in the file, at the HTTP receiver.
"""

import asyncio
import json
import os
import sys
import tempfile
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from reserve_listener.errors import ReserveListenerError

if TYPE_CHECKING:
    from reserve_listener.simulator import HttpServer, Push, Receiver, Simulator

ARRIVAL_TIMEOUT_S = 10.0
START_TIMEOUT_S = 30.0
STOP_TIMEOUT_S = 15.0
PAUSE_S = 0.6
SECONDS_OF_HOUR = 3600

CONFIG = """\
[lark]
app_id = "{app_id}"
app_secret_file = "{folder}/app_secret"
domain = "{domain}"

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
url = "{receiver}/hooks/rooms"
"""


def demo(
    events: Annotated[
        int, typer.Option("--events", min=0, help="How many changes to send; 0: until Ctrl-C.")
    ] = 5,
) -> None:
    """Watch the daemon work, without an account: a local platform sends changes, three sinks get them.

    Ends with exit code 1 if anything did not arrive.

    Example: reserve-listener demo --events 3
    """
    with suppress(KeyboardInterrupt):
        if not asyncio.run(_demo(events)):
            raise typer.Exit(1)


@dataclass
class Daemon:
    """The daemon's process, and the event ids that its log sink has written."""

    process: asyncio.subprocess.Process
    logged: set[str] = field(default_factory=set)
    lines: list[dict[str, Any]] = field(default_factory=list)

    async def follow(self) -> None:
        """Read its log to the end."""
        assert self.process.stdout is not None  # noqa: S101  # it was asked for
        async for line in self.process.stdout:
            with suppress(ValueError):
                entry = json.loads(line)
                self.lines.append(entry)
                if entry["event"] == "reserve_config.updated":
                    self.logged.add(entry["event_id"])


async def _demo(events: int) -> bool:
    from reserve_listener.simulator import HttpServer, Receiver, Simulator, realistic_events

    async with AsyncExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="reserve-listener-demo-")))
        receiver = Receiver()
        platform = await stack.enter_async_context(Simulator())
        server = await stack.enter_async_context(HttpServer(receiver))
        _configure(folder, platform, server)
        daemon = await stack.enter_async_context(_daemon(folder))
        await _connected(platform, daemon)
        _introduce(folder, platform, server, daemon)
        sent = arrived = 0
        changes = realistic_events()
        while not events or sent < events:
            sent += 1
            push = platform.push(next(changes))
            arrived += await _show(
                f"{sent}/{events}" if events else str(sent), push, folder, receiver, daemon
            )
            await asyncio.sleep(PAUSE_S)
        _conclude(folder, sent, arrived)
    return sent == arrived


def _configure(folder: Path, platform: "Simulator", server: "HttpServer") -> None:
    from reserve_listener.simulator.platform import APP_ID, APP_SECRET

    secret = folder / "app_secret"
    secret.touch(mode=0o600)
    secret.write_text(f"{APP_SECRET}\n")
    text = CONFIG.format(app_id=APP_ID, folder=folder, domain=platform.domain, receiver=server.url)
    (folder / "config.toml").write_text(text)


@asynccontextmanager
async def _daemon(folder: Path) -> AsyncIterator[Daemon]:
    command = [sys.executable, "-m", "reserve_listener", "run", "--log-format", "json"]
    process = await asyncio.create_subprocess_exec(
        *command,
        "-c",
        str(folder / "config.toml"),
        stdout=asyncio.subprocess.PIPE,
        env={name: value for name, value in os.environ.items() if not name.startswith("RESERVE_LISTENER_")},
        start_new_session=True,  # Ctrl-C is ours; the daemon is stopped as systemd would, with SIGTERM
        limit=16 * 1024 * 1024,
    )
    daemon = Daemon(process)
    follower = asyncio.create_task(daemon.follow(), name="demo-follow")
    try:
        yield daemon
    finally:
        with suppress(ProcessLookupError):
            process.terminate()
        try:
            await asyncio.wait_for(process.wait(), STOP_TIMEOUT_S)
        except TimeoutError:
            process.kill()
            await process.wait()
        await follower


async def _connected(platform: "Simulator", daemon: Daemon) -> None:
    connecting = asyncio.create_task(platform.connected(START_TIMEOUT_S), name="demo-connected")
    ended = asyncio.create_task(daemon.process.wait(), name="demo-ended")
    await asyncio.wait([connecting, ended], return_when=asyncio.FIRST_COMPLETED)
    ended.cancel()
    if connecting.done() and connecting.exception() is None:
        return
    connecting.cancel()
    said = "\n".join(json.dumps(line, ensure_ascii=False) for line in daemon.lines[-5:])
    raise ReserveListenerError(f"the daemon did not connect to the local platform. Its last words:\n{said}")


async def _show(number: str, push: "Push", folder: Path, receiver: "Receiver", daemon: Daemon) -> bool:
    event = json.loads(push.payload)
    code = await push.answered(ARRIVAL_TIMEOUT_S)
    kind = "room" if event["event"]["scope_type"] == 2 else "level"  # noqa: PLR2004  # the platform's number
    took = f" in {push.attempts[-1].elapsed * 1000:.0f} ms" if push.attempts else ""
    _say(
        f"\n{number}  {_bold(kind + ' ' + event['event']['scope_id'])}  → answered {code}{took}, after the commit"
    )
    arrived = [
        await _report("log ", "a line of the daemon's log", lambda: push.event_id in daemon.logged),
        await _report("file", "a line of events.jsonl", lambda: _in_file(folder, push.event_id)),
        await _report("http", "POST /hooks/rooms", lambda: _at_receiver(receiver, push.event_id)),
    ]
    if line := _in_file(folder, push.event_id):
        _say(f"     {_dim(_describe(line['data']))}")
    return code == 200 and all(arrived)  # noqa: PLR2004  # the platform's answer for success


async def _report(what: str, place: str, arrived: Callable[[], Any]) -> bool:
    found = await _arrives(arrived)
    _say(
        f"     {_green('✓') if found else _red('✗')} {what}  {place if found else f'nothing within {ARRIVAL_TIMEOUT_S:g} s'}"
    )
    return found


async def _arrives(arrived: Callable[[], Any]) -> bool:
    """Whether it becomes true in time. Polls: a file and a pipe of another process are watched."""
    with suppress(TimeoutError):
        async with asyncio.timeout(ARRIVAL_TIMEOUT_S):
            while not arrived():  # noqa: ASYNC110  # a file of another process sets no event
                await asyncio.sleep(0.01)
            return True
    return False


def _in_file(folder: Path, event_id: str | None) -> dict[str, Any] | None:
    path = folder / "events.jsonl"
    lines = path.read_bytes().splitlines(keepends=True) if path.exists() else []
    whole = (json.loads(line) for line in lines if line.endswith(b"\n"))
    return next((event for event in whole if event["id"] == event_id), None)


def _at_receiver(receiver: "Receiver", event_id: str | None) -> bool:
    return any(request.headers.get("webhook-id") == event_id for request in receiver.received)


def _introduce(folder: Path, platform: "Simulator", server: "HttpServer", daemon: Daemon) -> None:
    _say(_bold("reserve-listener, live: every change of a room's reservation limits, carried to three sinks"))
    _say(f"""
  platform  {platform.domain}   a local one: real frames, no account needed
  daemon    reserve-listener run -c {folder}/config.toml   (process {daemon.process.pid}, connected)
  sinks     console (log) · audit (file {folder.name}/events.jsonl) · booking (http {server.url})""")


def _conclude(folder: Path, sent: int, arrived: int) -> None:
    last = (folder / "events.jsonl").read_text().splitlines()[-1:] if arrived else []
    for line in last:
        _say(f"\n{_bold('What a sink receives')} (CloudEvents 1.0; the last line of events.jsonl):\n")
        _say(json.dumps(json.loads(line), indent=2, ensure_ascii=False))
    if sent != arrived:
        _say(_red(f"\n{sent - arrived} of {sent} changes did not arrive everywhere."))
        return
    _say(f"""
{_green(f"All {sent} changes arrived in all three sinks.")} Where to go next:

  your own app       README.md, "For a real app": create it, subscribe to the event, then
                     cp config.example.toml config.toml && reserve-listener run
  play the platform  reserve-listener simulate   (drops, stalls, refusals, duplicates on a key press)
""")


def _describe(data: dict[str, Any]) -> str:
    """The limits in a glance."""
    approve, when = data.get("approve_config", {}), data.get("time_config", {})
    who = data.get("reserve_scope_config", {})
    facts = [
        "approval " + (approve.get("approval_condition", "on") if approve.get("approval_switch") else "off")
    ]
    if when.get("time_switch"):
        facts.append(f"{when.get('days_in_advance')} days ahead")
        facts.append(f"{_clock(when.get('start_time'))}-{_clock(when.get('end_time'))}")
        facts.append(f"at most {when.get('max_duration')} h")
    users, departments = len(who.get("allow_users", [])), len(who.get("allow_depts", []))
    facts.append("everyone" if who.get("allow_all_users") else f"{users} people, {departments} departments")
    return " · ".join(facts)


def _clock(seconds: Any) -> str:
    if not isinstance(seconds, int):
        return str(seconds)
    return f"{seconds // SECONDS_OF_HOUR:02d}:{seconds % SECONDS_OF_HOUR // 60:02d}"


def _say(text: str) -> None:
    typer.echo(text)  # takes the colours off where the output is no terminal


def _bold(text: str) -> str:
    return typer.style(text, bold=True)


def _dim(text: str) -> str:
    return typer.style(text, dim=True)


def _green(text: str) -> str:
    return typer.style(text, fg=typer.colors.GREEN)


def _red(text: str) -> str:
    return typer.style(text, fg=typer.colors.RED)
