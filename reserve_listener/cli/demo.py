"""`reserve-listener demo`: the real daemon against the local platform, watched from outside.

The daemon is a process of its own, started with the command line a person would use; what the demo says has arrived was
read where it arrived: in the daemon's log, in the file, at the HTTP receiver.
"""

import asyncio
import json
import os
import secrets
import socket
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from reserve_listener.cli.called import called
from reserve_listener.cli.options import UnusedConfigOption
from reserve_listener.errors import ReserveListenerError
from reserve_listener.text import colourful

if TYPE_CHECKING:
    from reserve_listener.simulator import HttpServer, Push, Receiver, Simulator, WebhookPlatform

    Platform = Simulator | WebhookPlatform

ARRIVAL_TIMEOUT_S = 10.0
START_TIMEOUT_S = 30.0
STOP_TIMEOUT_S = 15.0
PAUSE_S = 0.6

LONG_CONNECTION = """\
[lark]
app_id = "{app_id}"
app_secret_file = "{folder}/app_secret"
domain = "{domain}"
"""

WEBHOOK = """\
[lark]
app_id = "{app_id}"
transport = "webhook"

[webhook]
listen = "{listen}"
encrypt_key_file = "{folder}/encrypt_key"
verification_token_file = "{folder}/verification_token"
"""

SINKS = """
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


class Transport(StrEnum):
    """How events come in."""

    long_connection = "long_connection"
    webhook = "webhook"


def demo(
    events: Annotated[
        int,
        typer.Option(
            "--events", metavar="NUMBER", min=0, help="How many changes to send; 0: keep going until Ctrl-C."
        ),
    ] = 5,
    transport: Annotated[Transport, typer.Option(help="How events arrive.")] = Transport.long_connection,
    _config: UnusedConfigOption = None,
) -> None:
    """Watch the daemon work, without an account. A local platform sends changes, three sinks receive them.

    Exit codes: 0 everything arrived, 1 something did not.

    Example: reserve-listener demo --events 3 --transport webhook
    """
    with suppress(KeyboardInterrupt):
        if not asyncio.run(_demo(events, transport)):
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


async def _demo(events: int, transport: Transport) -> bool:
    from reserve_listener.simulator import HttpServer, Receiver, realistic_events

    began = time.monotonic()
    async with AsyncExitStack() as stack:
        _say(_dim("Starting a local platform and an HTTP receiver …"))
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="reserve-listener-demo-")))
        receiver = Receiver()
        server = await stack.enter_async_context(HttpServer(receiver))
        platform = await stack.enter_async_context(_configured(folder, transport, server))
        _say(_dim(f"Starting the daemon, and waiting for it to connect (up to {START_TIMEOUT_S:.0f} s) …"))
        daemon = await stack.enter_async_context(_daemon(folder))
        await _connected(platform, daemon)
        _say(_dim(f"Connected after {time.monotonic() - began:.1f} s.\n"))
        _introduce(folder, platform, server, daemon)
        sent = arrived = 0
        changes = realistic_events(rooms=1, levels=0)  # one room, so that each change has one before it
        while not events or sent < events:
            sent += 1
            push = platform.push(next(changes))
            arrived += await _show(
                f"{sent}/{events}" if events else str(sent), push, folder, receiver, daemon
            )
            await asyncio.sleep(PAUSE_S)
        await _history(folder)
        _conclude(folder, sent, arrived, time.monotonic() - began)
    return sent == arrived


@asynccontextmanager
async def _configured(folder: Path, transport: Transport, server: "HttpServer") -> AsyncIterator["Platform"]:
    """The local platform, and a configuration that fits it."""
    from reserve_listener.simulator import Simulator, WebhookPlatform
    from reserve_listener.simulator.events import APP_ID, TOKEN
    from reserve_listener.simulator.platform import APP_SECRET

    if transport is Transport.webhook:
        listen = f"127.0.0.1:{_free_port()}"
        key = secrets.token_urlsafe(24)
        platform: Platform = WebhookPlatform(f"http://{listen}/webhook/event", encrypt_key=key)
        lark = WEBHOOK.format(app_id=APP_ID, folder=folder, listen=listen)
        files = {"encrypt_key": key, "verification_token": TOKEN}
    else:
        platform = Simulator()
        lark, files = "", {"app_secret": APP_SECRET}
    async with platform:
        if isinstance(platform, Simulator):
            lark = LONG_CONNECTION.format(app_id=APP_ID, folder=folder, domain=platform.domain)
        for name, secret in files.items():
            (folder / name).touch(mode=0o600)
            (folder / name).write_text(f"{secret}\n")
        (folder / "config.toml").write_text(lark + SINKS.format(folder=folder, receiver=server.url))
        yield platform


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


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


async def _connected(platform: "Platform", daemon: Daemon) -> None:
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
        _say(f"     {_bold(line['data']['summary'])}")
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


def _introduce(folder: Path, platform: "Platform", server: "HttpServer", daemon: Daemon) -> None:
    _say(
        _bold("reserve-listener, live: every change of a room's reservation limits, delivered to three sinks")
    )
    from reserve_listener.simulator import Simulator

    long = isinstance(platform, Simulator)
    how = "a local one: real frames" if long else "is pushed to by a local one: encrypted, signed"
    _say(f"""
  platform  {platform.domain}   {how}, no account needed
  daemon    reserve-listener run -c {folder}/config.toml   (process {daemon.process.pid}, {"connected" if long else "listening"})
  sinks     console (log) · audit (file {folder.name}/events.jsonl) · booking (http {server.url})""")


async def _history(folder: Path) -> None:
    """What the store now knows of the room, by the command that a person would use."""
    line = _last_line(folder)
    if line is None:
        return
    _say(f"\n{_bold('What changed')} (reserve-listener history {line['subject']}):\n")
    sys.stdout.flush()
    command = [sys.executable, "-m", "reserve_listener", "history", line["subject"]]
    process = await asyncio.create_subprocess_exec(*command, "-c", str(folder / "config.toml"))
    await process.wait()


def _last_line(folder: Path) -> dict[str, Any] | None:
    path = folder / "events.jsonl"
    lines = path.read_text().splitlines()[-1:] if path.exists() else []
    return json.loads(lines[0]) if lines else None


def _conclude(folder: Path, sent: int, arrived: int, took_s: float) -> None:
    if line := _last_line(folder):
        _say(f"\n{_bold('What a sink receives')} (CloudEvents 1.0; the last line of events.jsonl):\n")
        _say(json.dumps(line, indent=2, ensure_ascii=False))
    if sent != arrived:
        _say(_red(f"\n{sent - arrived} of {sent} changes did not arrive everywhere."))
        return
    _say(f"""
{_green(f"All {sent} changes arrived in all three sinks.")} It took {took_s:.1f} s. Where to go next:

  your own app       README.md, "Connect a real app": create the app, then
                     {called()} config init && {called()} run
  play the platform  {called()} simulate   (drops, stalls, refusals, duplicates at the press of a key)
""")


def _say(text: str) -> None:
    typer.echo(text, color=colourful(sys.stdout))


def _bold(text: str) -> str:
    return typer.style(text, bold=True)


def _dim(text: str) -> str:
    return typer.style(text, dim=True)


def _green(text: str) -> str:
    return typer.style(text, fg=typer.colors.GREEN)


def _red(text: str) -> str:
    return typer.style(text, fg=typer.colors.RED)
