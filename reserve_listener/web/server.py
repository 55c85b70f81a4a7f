"""The control socket: the API for this machine's user alone (mode 0600).

Bound at once and served a moment later, so that connecting to the platform does not wait for the HTTP libraries; who asks
meanwhile waits in the kernel's queue.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
from typing import TYPE_CHECKING, Final

import structlog

from reserve_listener import ownership
from reserve_listener.net.sockets import socket_address

if TYPE_CHECKING:
    from pathlib import Path

    from reserve_listener.net.asgi_server import AsgiServer
    from reserve_listener.web.api import Actions

CONNECTIONS: Final = 32
"""Commands that ask at the same time; each is one person or script. Beyond it the oldest that is silent is cut off."""

HEADER_TIMEOUT_S: Final = 10.0
EXCHANGE_TIMEOUT_S: Final = 120.0
"""A request, from its head to the last byte of its answer: more than the client waits."""

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
            self._listener = _bound(self._path)
        except OSError as error:
            log.warning(
                "control.unavailable",
                path=str(self._path),
                error=error.strerror or str(error),
                hint="commands on this machine cannot ask this daemon. Remove what is in the way, or give the daemon a folder"
                " of its own (with PostgreSQL: $RUNTIME_DIRECTORY), and restart it",
            )

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
            with contextlib.suppress(OSError):  # somebody else has put something there
                self._path.unlink()


def _bound(path: Path) -> socket.socket:
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    mask = os.umask(0o177)
    try:
        listener.setblocking(False)
        with socket_address(path) as address:
            listener.bind(address)
            ownership.give(path)
        listener.listen(BACKLOG)
    except OSError:
        listener.close()
        raise
    finally:
        os.umask(mask)
    return listener


def _make_server(actions: Actions) -> AsgiServer:
    from reserve_listener.net.asgi_connection import Limits  # noqa: PLC0415  # see `serve`
    from reserve_listener.net.asgi_server import AsgiServer  # noqa: PLC0415
    from reserve_listener.web.api import make_app  # noqa: PLC0415

    limits = Limits(connections=CONNECTIONS, head_s=HEADER_TIMEOUT_S, exchange_s=EXCHANGE_TIMEOUT_S)
    return AsgiServer(make_app(actions), limits=limits)
