"""An ASGI app on 127.0.0.1 in the running loop, for the platform's endpoint and for tests.

uvicorn's `serve` catches SIGTERM and raises it again, polls every 100 ms and waits for open connections; its
start-up alone is used here, so that signals stay with the program and the end is prompt.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
from typing import TYPE_CHECKING, Self

import uvicorn

if TYPE_CHECKING:
    from types import TracebackType

    from starlette.types import ASGIApp, Receive, Scope, Send


class HttpServer:
    """`async with HttpServer(app) as server` serves the app at `server.url`, e.g. `http://127.0.0.1:40123`.

    `port` 0 takes a free one. `OSError` when the port is in use. Leaving aborts what is still open.
    """

    def __init__(self, app: ASGIApp, *, port: int = 0) -> None:
        self._app = app
        self._wanted_port = port
        config = uvicorn.Config(
            self._guarded,
            interface="asgi3",
            http="h11",
            ws="none",
            lifespan="off",
            log_config=None,
            access_log=False,
            proxy_headers=False,
            date_header=False,
            # Keep-alive outlasts any test; an idle connection that the server closes races with the next request.
            timeout_keep_alive=300,
        )
        self._server = uvicorn.Server(config)
        self.port = 0
        self.url = ""

    async def __aenter__(self) -> Self:
        listener = _listener(self._wanted_port)
        self.port = listener.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}"
        server = self._server
        server.config.load()
        server.lifespan = server.config.lifespan_class(server.config)
        await server.startup(sockets=[listener])
        await server.on_tick(0)  # sets the default headers
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for listening in self._server.servers:
            listening.close()
        self.abort()
        await asyncio.sleep(0)  # the requests learn that their connection is gone before their tasks end
        tasks = list(self._server.server_state.tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for listening in self._server.servers:
            await listening.wait_closed()

    def abort(self) -> None:
        """Reset all open connections, also those that wait for their answer."""
        for connection in list(self._server.server_state.connections):
            connection.transport.abort()

    async def _guarded(self, scope: Scope, receive: Receive, send: Send) -> None:
        # uvicorn logs a cancelled app as an error; here it is the end of a server that was told to stop.
        with contextlib.suppress(asyncio.CancelledError):
            await self._app(scope, receive, send)


def _listener(port: int) -> socket.socket:
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(("127.0.0.1", port))
    except OSError:
        listener.close()
        raise
    return listener
