"""An ASGI app served in the running loop, for the webhook, the simulator and the tests.

uvicorn's `serve` catches SIGTERM and raises it again, polls every 100 ms and waits for open connections; its start-up alone
is used here, so that signals stay with the program, an idle server does nothing, and the end is prompt.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from typing import TYPE_CHECKING, Any

import uvicorn

if TYPE_CHECKING:
    import socket
    import ssl
    from collections.abc import Sequence

    from starlette.types import ASGIApp, Receive, Scope, Send

KEEP_ALIVE_S = 300
"""Longer than any client's: an idle connection that the server closes races with the next request."""


class AsgiServer:
    """Serves `app` on bound sockets from `open` to `close`. `protocol`: uvicorn's, or one made of it."""

    def __init__(
        self,
        app: ASGIApp,
        *,
        protocol: Any = "h11",
        tls: ssl.SSLContext | None = None,
        keep_alive_s: int = KEEP_ALIVE_S,
    ) -> None:
        self._app = app
        self._listening: list[asyncio.Server] = []
        factory = None if tls is None else lambda _config, _default: tls
        self._server = uvicorn.Server(
            uvicorn.Config(
                self._guarded,
                interface="asgi3",
                http=protocol,
                ws="none",
                lifespan="off",
                log_config=None,
                access_log=False,
                proxy_headers=False,
                server_header=False,
                date_header=False,
                timeout_keep_alive=keep_alive_s,
                ssl_context_factory=factory,
            )
        )

    async def open(self, listeners: Sequence[socket.socket]) -> None:
        """Accept connections from now on."""
        # What strangers send that is no HTTP is worth no line; the app says itself what goes wrong.
        logging.getLogger("uvicorn.error").setLevel(logging.CRITICAL)
        server = self._server
        server.config.load()
        server.lifespan = server.config.lifespan_class(server.config)
        await server.startup(sockets=list(listeners))
        self._listening = list(server.servers)
        await server.on_tick(0)  # sets the default headers

    def stop_accepting(self) -> None:
        """Take no new connections; those that are open stay."""
        for listening in self._listening:
            listening.close()

    async def close(self) -> None:
        """End it all: what is still open is aborted."""
        self.stop_accepting()
        self.abort()
        await asyncio.sleep(0)  # the requests learn that their connection is gone before their tasks end
        tasks = list(self._server.server_state.tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for listening in self._listening:
            await listening.wait_closed()

    @property
    def busy(self) -> set[asyncio.Task[None]]:
        """The requests under way."""
        return set(self._server.server_state.tasks)

    def abort(self) -> None:
        """Reset all open connections, also those that wait for their answer."""
        for connection in list(self._server.server_state.connections):
            connection.transport.abort()

    async def _guarded(self, scope: Scope, receive: Receive, send: Send) -> None:
        # uvicorn logs a cancelled app as an error; here it is the end of a server that was told to stop.
        with contextlib.suppress(asyncio.CancelledError):
            await self._app(scope, receive, send)
