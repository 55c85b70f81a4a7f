"""The listening socket of `[status]`.

Bound before the daemon is ready, so that a port that is taken fails the start, and served a moment later; who asks meanwhile
waits in the kernel's queue.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final

import structlog

from reserve_listener.config import certificates
from reserve_listener.errors import ReserveListenerError
from reserve_listener.net import descriptors
from reserve_listener.net.sockets import bound
from reserve_listener.observability.throttle import Throttle

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable, Sequence

    from starlette.types import ASGIApp

    from reserve_listener.config import StatusConfig
    from reserve_listener.net.asgi_server import AsgiServer

CONNECTIONS: Final = 2_000
"""Every open page has one for its stream, and some for a moment."""

TLS_COSTS: Final = 4
"""With TLS a connection's buffers grow to 600 KB: so many times fewer."""

TOLD_EVERY_S: Final = 60.0
"""Browsers, scanners and sleeping laptops drop connections all day long."""

log = structlog.get_logger("status")


class StatusListener:
    """Listens from `bind` to `close`, and answers from `serve` on. Made in a thread: it reads the certificate (`ConfigError`)."""

    def __init__(self, settings: StatusConfig) -> None:
        self._settings = settings
        self._tls = certificates.serving("status", settings.tls_cert_file, settings.tls_key_file)
        self._connections = CONNECTIONS // (1 if self._tls is None else TLS_COSTS)
        self._sockets: Sequence[socket.socket] = ()
        self._server: AsgiServer | None = None
        self._throttle = Throttle(TOLD_EVERY_S)

    @property
    def streams(self) -> int:
        """How many may listen to changes: a quarter of the connections is left for everybody else."""
        return descriptors.share(self._connections) * 3 // 4

    @property
    def port(self) -> int:
        """The port, once it is bound."""
        return int(self._sockets[0].getsockname()[1])

    async def bind(self) -> None:
        """Listen, on all addresses of the host. Raises `ReserveListenerError`."""
        try:
            self._sockets = await bound(*self._settings.address)
        except OSError as error:
            raise ReserveListenerError(
                f"the status page cannot listen on {self._settings.listen}: {error.strerror or error}."
                " Set status.listen to an address of this machine and a free port."
            ) from error

    async def serve(self, make_app: Callable[[], ASGIApp], *, opening: bool = False) -> None:
        """Answer from now on; with another app than before, if there was one. `opening`: which is not the last."""
        if self._server is None:
            self._server = await asyncio.to_thread(self._make_server, make_app)
            await self._server.open(self._sockets)
        else:
            self._server.app = await asyncio.to_thread(make_app)
        event = "status.opening" if opening else "status.listening"
        log.info(event, listen=self._settings.listen, port=self.port)

    async def close(self) -> None:
        """End it all: what is still open is aborted."""
        if self._server is not None:
            await self._server.close()
        for one in self._sockets:
            one.close()

    def _make_server(self, make_app: Callable[[], ASGIApp]) -> AsgiServer:
        from reserve_listener.net.asgi_connection import Limits  # noqa: PLC0415  # see `serve`
        from reserve_listener.net.asgi_server import AsgiServer  # noqa: PLC0415

        limits = Limits(connections=self._connections)
        return AsgiServer(make_app(), tls=self._tls, limits=limits, tell=self._tell_ended)

    def _tell_ended(self, reason: str, client: str) -> None:
        self._throttle.tell(reason, log.debug, "status.dropped", reason=reason, client=client)
