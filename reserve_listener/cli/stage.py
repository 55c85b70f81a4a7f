"""Where the demo plays: a local platform, an HTTP receiver, and the daemon in a process of its own.

The daemon is started with the command line a person would use; what has arrived is read where it arrived: in the daemon's
log, in the file, at the HTTP receiver.
"""

import asyncio
import json
import os
import secrets
import socket
import sys
import tempfile
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Any

from reserve_listener.errors import ReserveListenerError

if TYPE_CHECKING:
    from reserve_listener.simulator import Estate, Place, Receiver, Simulator, WebhookPlatform

START_TIMEOUT_S = 30.0
STOP_TIMEOUT_S = 15.0
ASKED_TIMEOUT_S = 30.0
"""The daemon asks for five at once and then for 80 a minute."""
ROOMS = 4
DEPTH = 2
"""Rooms on a floor of a building."""

LARK = """\
[lark]
app_id = "{app_id}"
app_secret_file = "{folder}/app_secret"
domain = "{domain}"
"""

WEBHOOK = """\
transport = "webhook"

[webhook]
listen = "{listen}"
encrypt_key_file = "{folder}/encrypt_key"
verification_token_file = "{folder}/verification_token"
"""

BOOKING = """
[[sinks]]
name = "booking"
type = "http"
url = "{receiver}/hooks/rooms"
"""

SINKS = (
    """
[store]
url = "sqlite:///{folder}/events.db"

[status]
listen = "127.0.0.1:{page}"

[[sinks]]
name = "console"
type = "log"

[[sinks]]
name = "audit"
type = "file"
path = "{folder}/events.jsonl"
"""
    + BOOKING
)


class Transport(StrEnum):
    """How events come in."""

    long_connection = "long_connection"
    webhook = "webhook"


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

    def has_said(self, event: str) -> bool:
        """Whether there is such a line in its log."""
        return any(line["event"] == event for line in self.lines)

    def last_words(self) -> str:
        """The end of its log."""
        return "\n".join(json.dumps(line, ensure_ascii=False) for line in self.lines[-5:])


@dataclass
class Stage:
    """`platform` pushes. `api` answers about its rooms; with a long connection they are one."""

    folder: Path
    platform: "Simulator | WebhookPlatform"
    api: "Simulator"
    receiver: "Receiver"
    receiver_url: str
    page: str
    daemon: Daemon = field(init=False)

    @property
    def estate(self) -> "Estate":
        """The rooms and levels there are."""
        return self.api.estate

    def in_log(self, event_id: str) -> bool:
        """Whether the daemon's log tells of the event."""
        return event_id in self.daemon.logged

    def in_file(self, event_id: str) -> dict[str, Any] | None:
        """The event, if the file has it."""
        return next((event for event in self.events() if event["id"] == event_id), None)

    def at_receiver(self, event_id: str) -> bool:
        """Whether the HTTP receiver got the event."""
        return any(request.headers.get("webhook-id") == event_id for request in self.receiver.received)

    def found_out(self, room: "Place", *, since: int) -> dict[str, Any] | None:
        """The event about a change of this room that nobody pushed, if the file has it after its first so many."""
        told = (event for event in self.events()[since:] if event["subject"] == room.id)
        return next((event for event in told if event["data"].get("origin") == "reconcile"), None)

    def events(self) -> list[dict[str, Any]]:
        """What is in the file."""
        path = self.folder / "events.jsonl"
        lines = path.read_bytes().splitlines(keepends=True) if path.exists() else []
        return [json.loads(line) for line in lines if line.endswith(b"\n")]

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """The daemon is there and connected; at the end it is stopped."""
        async with running_daemon(self.folder) as self.daemon:
            await _connected(self.platform, self.daemon)
            yield
        await self.api.disconnected()

    async def has_asked(self) -> None:
        """Return once the daemon has asked for the limits of all rooms and levels."""
        wanted = {place.id for place in self.estate.places}

        def asked() -> bool:
            return wanted <= {call.query.get("scope_id") for call in self.api.calls if call.code == 0}

        try:
            await self.api.until(asked, ASKED_TIMEOUT_S)
        except TimeoutError:
            raise ReserveListenerError(
                f"the daemon did not ask for the limits of all rooms. Its last words:\n{self.daemon.last_words()}"
            ) from None


@asynccontextmanager
async def set_up(transport: Transport) -> AsyncIterator[Stage]:
    """Everything but the daemon; its configuration is written."""
    from reserve_listener.simulator import Estate, HttpServer, Receiver, Simulator, WebhookPlatform

    async with AsyncExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="reserve-listener-demo-")))
        receiver = Receiver()
        server = await stack.enter_async_context(HttpServer(receiver))
        api = await stack.enter_async_context(Simulator(estate=Estate(rooms=ROOMS, depth=DEPTH)))
        platform: Simulator | WebhookPlatform = api
        listen = key = ""
        if transport is Transport.webhook:
            listen, key = f"127.0.0.1:{_free_port()}", secrets.token_urlsafe(24)
            platform = WebhookPlatform(f"http://{listen}/webhook/event", encrypt_key=key, estate=api.estate)
            await stack.enter_async_context(platform)
        page = _free_port()  # the same after the daemon's restart, for a browser that looks at it
        _configure(folder, api, listen, key, server.url, page)
        yield Stage(folder, platform, api, receiver, server.url, f"http://127.0.0.1:{page}/")


def _configure(folder: Path, api: "Simulator", listen: str, key: str, receiver_url: str, page: int) -> None:
    from reserve_listener.simulator.events import TOKEN

    text = LARK.format(app_id=api.app_id, folder=folder, domain=api.domain)
    files = {"app_secret": api.app_secret}
    if listen:
        text += WEBHOOK.format(folder=folder, listen=listen)
        files |= {"encrypt_key": key, "verification_token": TOKEN}
    for name, secret in files.items():
        write_secret(folder / name, secret)
    (folder / "config.toml").write_text(text + SINKS.format(folder=folder, receiver=receiver_url, page=page))


def write_secret(file: Path, secret: str) -> None:
    """Only for its owner."""
    file.touch(mode=0o600)
    file.write_text(f"{secret}\n")


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@asynccontextmanager
async def running_daemon(folder: Path) -> AsyncIterator[Daemon]:
    """A daemon with the folder's configuration; at the end it is stopped."""
    command = [sys.executable, "-m", "reserve_listener", "run", "--log-format", "json"]
    environ = {name: value for name, value in os.environ.items() if not name.startswith("RESERVE_LISTENER_")}
    process = await asyncio.create_subprocess_exec(
        *command,
        "-c",
        str(folder / "config.toml"),
        stdout=asyncio.subprocess.PIPE,
        env=environ | {"RUNTIME_DIRECTORY": str(folder)},  # one that is killed leaves a socket there
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
            async with asyncio.timeout(STOP_TIMEOUT_S):
                await process.wait()
        except TimeoutError:
            process.kill()
            await process.wait()
        await follower


async def _connected(platform: "Simulator | WebhookPlatform", daemon: Daemon) -> None:
    connecting = asyncio.create_task(platform.connected(START_TIMEOUT_S), name="demo-connected")
    ended = asyncio.create_task(daemon.process.wait(), name="demo-ended")
    await asyncio.wait([connecting, ended], return_when=asyncio.FIRST_COMPLETED)
    ended.cancel()
    if connecting.done() and connecting.exception() is None:
        return
    connecting.cancel()
    raise ReserveListenerError(
        f"the daemon did not connect to the local platform. Its last words:\n{daemon.last_words()}"
    )
