"""Serves an ASGI app on 127.0.0.1, for the platform's endpoint and for tests."""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING, Final, Self

from reserve_listener.net.asgi_connection import Limits
from reserve_listener.net.asgi_server import AsgiServer

if TYPE_CHECKING:
    from types import TracebackType

    from starlette.types import ASGIApp

KEEP_ALIVE_S: Final = 300
"""Longer than any client's: if the server closed an idle connection, that would race with the next request."""


class HttpServer:
    """`async with HttpServer(app) as server` serves the app at `server.url`, e.g. `http://127.0.0.1:40123`.

    `port` 0 takes a free one. `OSError` if the port is in use. At the end, open connections are aborted.
    """

    def __init__(self, app: ASGIApp, *, port: int = 0) -> None:
        self._server = AsgiServer(app, limits=Limits(keep_alive_s=KEEP_ALIVE_S))
        self._wanted_port = port
        self.port = 0
        self.url = ""

    async def __aenter__(self) -> Self:
        listener = _listener(self._wanted_port)
        self.port = listener.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}"
        await self._server.open([listener])
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._server.close()

    def abort(self) -> None:
        """Reset all open connections, including those that wait for an answer."""
        self._server.abort()


def _listener(port: int) -> socket.socket:
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(("127.0.0.1", port))
    except OSError:
        listener.close()
        raise
    return listener
