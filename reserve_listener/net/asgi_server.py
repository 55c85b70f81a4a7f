"""An ASGI app served in the running loop, for the webhook, the simulator and the tests.

uvicorn's server catches SIGTERM and raises it again, polls every 100 ms and waits for open connections, and the loop's own
accepting knows no bound: when the process is out of descriptors it writes thousands of lines a second. So uvicorn's protocol
alone is used here. Signals stay with the program, an idle server does nothing, and the end is prompt.

What must stay true: however many strangers connect, a new connection is accepted, at the cost of the one that has been
silent for longest.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import logging
import socket
import ssl
from operator import attrgetter
from typing import TYPE_CHECKING, Any, Final

from reserve_listener.net import descriptors
from reserve_listener.net.asgi_connection import READ_BYTES, Connection, Limits, Shared
from reserve_listener.net.sockets import BACKLOG
from reserve_listener.net.turns import Turns
from reserve_listener.net.uvicorn import Config, ServerState

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from starlette.types import ASGIApp, Receive, Scope, Send

ACCEPTED_A_TURN: Final = 32
"""Each costs 0.2 ms; the loop's own accepting takes two thousand at once. And an eighth of the bound at the most, since who
gives way to them gives its descriptor back a turn later."""

MADE_ROOM_FOR: Final = 16
"""A sixteenth of the connections gives way at once, so that a flood does not have us look through all for each new one."""

SEND_BUFFER_BYTES: Final = 64 * 1024
"""What the kernel keeps of answers that a peer does not read; left alone it grows to megabytes."""

EXHAUSTED: Final = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM})
REST_S: Final = 0.1
"""How long nothing is accepted when this process, or the machine, has no descriptor left."""

TLS_CLOSE_S: Final = 5.0
"""For the other side to say goodbye, too."""

NO_HANDSHAKE: Final = "the TLS handshake was aborted or took too long"
CROWDED: Final = "it was closed to make room for newer connections"


class AsgiServer:
    """Serves `app`, which may be exchanged, on listening sockets from `open` to `close`.

    `tell` hears, in one of few texts, why a connection was refused or ended; with the address of the other side.
    """

    def __init__(
        self,
        app: ASGIApp,
        *,
        tls: ssl.SSLContext | None = None,
        limits: Limits | None = None,
        tell: Callable[[str, str], None] | None = None,
    ) -> None:
        self.app = app
        self._tls = tls
        self._limits = limits or Limits()
        self._tell = tell or (lambda _reason, _client: None)
        self._listening: list[socket.socket] = []
        self._connections: set[Connection] = set()
        self._state = ServerState()
        self._shared: Shared

    async def open(self, listeners: Sequence[socket.socket]) -> None:
        """Accept connections from now on."""
        # What strangers send that is no HTTP is worth no line; `tell` hears of it.
        logging.getLogger("uvicorn.error").setLevel(logging.CRITICAL)
        self._shared = Shared(
            config=self._config(),
            state=self._state,
            limits=self._limits,
            turns=Turns(),
            tell=lambda reason, connection: self._tell(reason, str((connection.client or ("unknown",))[0])),
            gone=self._connections.discard,
            input=memoryview(bytearray(READ_BYTES)),
        )
        for listener in listeners:
            listener.setblocking(False)
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SEND_BUFFER_BYTES)
            listener.listen(BACKLOG)
            self._listening.append(listener)
            self._accept_from(listener)

    def stop_accepting(self) -> None:
        """Take no new connections; those that are open stay."""
        loop = asyncio.get_running_loop()
        for listener in self._listening:
            loop.remove_reader(listener)
            listener.close()
        self._listening.clear()

    async def close(self) -> None:
        """End it all: what is still open is aborted."""
        self.stop_accepting()
        self.abort()
        await asyncio.sleep(0)  # the requests learn that their connection is gone before their tasks end
        tasks = [*self._state.tasks, *(each.accepting for each in self._connections if each.accepting)]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    @property
    def busy(self) -> set[asyncio.Task[None]]:
        """The requests under way."""
        return set(self._state.tasks)

    @property
    def connections(self) -> int:
        """How many are open, handshakes included."""
        return len(self._connections)

    def abort(self) -> None:
        """Reset all open connections, also those that wait for their answer."""
        for connection in list(self._connections):
            connection.give_way()

    # -- accepting ----------------------------------------------------------------------------------------------------------

    def _accept_from(self, listener: socket.socket) -> None:
        if listener in self._listening:
            asyncio.get_running_loop().add_reader(listener, self._accept, listener)

    def _accept(self, listener: socket.socket) -> None:
        for _ in range(min(ACCEPTED_A_TURN, 1 + self._bound() // 8)):
            try:
                accepted, address = listener.accept()
            except (BlockingIOError, InterruptedError, ConnectionError):
                return
            except OSError as error:
                if error.errno not in EXHAUSTED:
                    raise
                self._rest(listener)
                return
            self._take(accepted, str(address[0]) if isinstance(address, tuple) else "local")

    def _rest(self, listener: socket.socket) -> None:
        self._tell("no file descriptor was left for it", "unknown")
        self._make_room()
        loop = asyncio.get_running_loop()
        loop.remove_reader(listener)
        loop.call_later(REST_S, self._accept_from, listener)

    def _take(self, accepted: socket.socket, client: str) -> None:
        if len(self._connections) >= self._bound():
            if not self._make_room():
                self._tell(
                    "there was no room for it: all other connections are waiting for their answers", client
                )
                accepted.close()
                return
            self._tell(CROWDED, "several")
        accepted.setblocking(False)
        connection = Connection(self._shared)
        self._connections.add(connection)
        task = asyncio.create_task(self._connect(connection, accepted, client), name="http-accept")
        connection.accepting = task
        task.add_done_callback(lambda _task: self._settle(connection, accepted))

    async def _connect(self, connection: Connection, accepted: socket.socket, client: str) -> None:
        named: dict[str, Any] = {}
        if self._tls is not None:
            seconds = self._limits.handshake_s
            named = {"ssl_handshake_timeout": seconds, "ssl_shutdown_timeout": TLS_CLOSE_S}
        try:
            await asyncio.get_running_loop().connect_accepted_socket(
                lambda: connection, accepted, ssl=self._tls, **named
            )
        except OSError as error:  # those of ssl are, too
            self._tell(_handshake_problem(error), client)

    def _settle(self, connection: Connection, accepted: socket.socket) -> None:
        connection.accepting = None
        if not connection.is_made:
            accepted.close()
            self._connections.discard(connection)

    def _bound(self) -> int:
        return descriptors.share(self._limits.connections)

    def _make_room(self) -> bool:
        """End those who have been silent for longest; if there are none, those who have sent a body for longest."""
        since = attrgetter("since")
        silent = [each for each in self._connections if each.is_silent]
        leaving = sorted(silent or [each for each in self._connections if each.is_sending], key=since)
        leaving = leaving[: max(1, len(self._connections) // MADE_ROOM_FOR)]
        for connection in leaving:
            self._connections.discard(connection)
            connection.give_way()
        return bool(leaving)

    # -- the app ------------------------------------------------------------------------------------------------------------

    def _config(self) -> Config:
        config = Config(
            self._guarded,
            interface="asgi3",
            ws="none",
            lifespan="off",
            log_config=None,
            access_log=False,
            proxy_headers=False,
            server_header=False,
            date_header=False,
            timeout_keep_alive=self._limits.keep_alive_s,
        )
        config.load()
        return config

    async def _guarded(self, scope: Scope, receive: Receive, send: Send) -> None:
        # uvicorn logs a cancelled app as an error; here it is the end of a server that was told to stop.
        with contextlib.suppress(asyncio.CancelledError):
            await self.app(scope, receive, send)


def _handshake_problem(error: OSError) -> str:
    reason = getattr(error, "reason", None)
    if isinstance(error, ssl.SSLError) and reason is not None:
        return f"the TLS handshake failed: {str(reason).lower().replace('_', ' ')}"
    return NO_HANDSHAKE
