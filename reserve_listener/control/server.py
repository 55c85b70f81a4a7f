"""The control socket: the API for this machine's user alone (mode 0600).

Bound at once and served a moment later, so that connecting to the platform does not wait for the HTTP libraries; who asks
meanwhile waits in the kernel's queue.
"""

from __future__ import annotations

import asyncio
import os
import socket
from typing import TYPE_CHECKING, Any, Final

import structlog

from reserve_listener import ownership
from reserve_listener.store.places import socket_address

if TYPE_CHECKING:
    from pathlib import Path

    from reserve_listener.asgi_server import AsgiServer
    from reserve_listener.control.api import Actions

CONNECTIONS: Final = 32
"""Commands that ask at the same time; each is one person or script. Beyond it the oldest is cut off."""

HEADER_TIMEOUT_S: Final = 10.0
EXCHANGE_TIMEOUT_S: Final = 120.0
"""One connection, from its first byte to the last of its answer: more than the client waits."""

BACKLOG: Final = 64

log = structlog.get_logger("control")


class ControlServer:
    """Listens from `bind` to `close`, and answers from `serve` on. Needs the store's lock to be held."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._listener: socket.socket | None = None
        self._server: AsgiServer | None = None

    def bind(self) -> None:
        """Listen. A path that cannot be used costs the socket, not the daemon."""
        try:
            self._path.unlink(
                missing_ok=True
            )  # left by a daemon that was killed: the lock says that it is gone
            listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            listener.setblocking(False)
            mask = os.umask(0o177)
            try:
                with socket_address(self._path) as address:
                    listener.bind(address)
                    ownership.give(self._path)
            finally:
                os.umask(mask)
            listener.listen(BACKLOG)
            self._listener = listener
        except OSError as error:
            log.warning("control.unavailable", path=str(self._path), error=str(error))

    async def serve(self, actions: Actions) -> None:
        """Answer from now on."""
        if self._listener is not None:
            # The libraries take some 0.1 s of a thread to load; the loop goes on connecting.
            self._server = await asyncio.to_thread(_make_server, actions)
            await self._server.open([self._listener])

    async def close(self) -> None:
        """Stop listening and take the socket away."""
        if self._server is not None:
            await self._server.close()
        if self._listener is not None:
            self._listener.close()
            self._path.unlink(missing_ok=True)


def _make_server(actions: Actions) -> AsgiServer:
    from reserve_listener.asgi_server import AsgiServer  # noqa: PLC0415  # see `serve`
    from reserve_listener.control.api import make_app  # noqa: PLC0415

    return AsgiServer(make_app(actions), protocol=_protocol_class())


def _protocol_class() -> Any:
    """The protocol of uvicorn, with an end to every exchange and a bound on how many there are."""
    from uvicorn.protocols.http.h11_impl import H11Protocol  # noqa: PLC0415  # see `serve`

    open_now: dict[Any, None] = {}  # a set in the order of coming

    class Protocol(H11Protocol):
        _has_asked = False

        def connection_made(self, transport: Any) -> None:
            super().connection_made(transport)
            if len(open_now) >= CONNECTIONS:
                next(iter(open_now)).transport.abort()
            open_now[self] = None
            self._ends = [
                self.loop.call_later(HEADER_TIMEOUT_S, self._expect_headers),
                self.loop.call_later(EXCHANGE_TIMEOUT_S, transport.abort),
            ]

        def connection_lost(self, exc: Exception | None) -> None:
            open_now.pop(self, None)
            for end in self._ends:
                end.cancel()
            super().connection_lost(exc)

        def data_received(self, data: bytes) -> None:
            super().data_received(data)
            self._has_asked = self._has_asked or self.cycle is not None

        def _expect_headers(self) -> None:
            if not self._has_asked:
                self.transport.abort()

    return Protocol
