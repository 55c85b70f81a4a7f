"""The platform's WebSocket side: tickets, handshakes, open connections.

A ticket is valid for one connection, and an app may have at most 50 connections.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
import secrets
from http import HTTPStatus
from typing import TYPE_CHECKING, Final, Self
from urllib.parse import parse_qs, urlencode, urlsplit

from websockets.asyncio.server import Server, ServerConnection, serve
from websockets.exceptions import ConnectionClosed

from reserve_listener.lark.frames import MAX_FRAME_BYTES
from reserve_listener.simulator.connection import SERVICE_ID, Connection
from reserve_listener.simulator.faults import Faults, Refusal

if TYPE_CHECKING:
    import random
    from collections.abc import Callable
    from types import TracebackType

    from websockets.http11 import Request, Response

PATH: Final = "/ws/v2"
MAX_CONNECTIONS: Final = 50
CLOSE_TIMEOUT: Final = 1.0

_AUTH_FAILED: Final = 514
_NO_CREDENTIAL: Final = 1000040344
_TOO_MANY_CONNECTIONS: Final = 1000040350

# websockets logs the request with its ticket at DEBUG, and a traceback for each client that leaves in the handshake.
_silent = logging.getLogger(f"{__name__}.websockets")
_silent.setLevel(logging.CRITICAL + 1)


class Gateway:
    """`async with Gateway(…) as gateway` listens on a free port of 127.0.0.1.

    `on_message`, `on_open` and `on_close` are called in the loop, at once.
    """

    def __init__(
        self,
        *,
        faults: Faults,
        random: random.Random,
        on_message: Callable[[Connection, bytes | str], None],
        on_open: Callable[[Connection], None],
        on_close: Callable[[Connection], None],
    ) -> None:
        self.connections: list[Connection] = []
        self._faults = faults
        self._random = random
        self._port = 0
        self._on_message = on_message
        self._on_open = on_open
        self._on_close = on_close
        self._tickets: set[str] = set()
        self._numbers = itertools.count(1)
        self._server: Server

    async def __aenter__(self) -> Self:
        self._server = await serve(
            self._serve,
            "127.0.0.1",
            0,
            process_request=self._admit,
            create_connection=Connection,
            compression=None,
            ping_interval=None,  # the platform leaves it to the client to ask whether the other end lives
            close_timeout=CLOSE_TIMEOUT,
            max_size=2 * MAX_FRAME_BYTES,
            max_queue=None,
            logger=_silent,
        )
        self._port = next(iter(self._server.sockets)).getsockname()[1]
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for connection in self.connections:
            if connection.stalled:
                connection.abort()
        self._server.close()
        await self._server.wait_closed()

    def issue(self) -> str:
        """A URL with a new ticket, which makes the URL a credential."""
        ticket = secrets.token_hex(16)
        self._tickets.add(ticket)
        query = {
            "device_id": str(self._random.randrange(10**18, 10**19)),
            "service_id": str(SERVICE_ID),
            "access_key": secrets.token_hex(16),
            "ticket": ticket,
        }
        return f"ws://127.0.0.1:{self._port}{PATH}?{urlencode(query)}"

    def open(self) -> list[Connection]:
        """The connections that can be written to."""
        return [connection for connection in self.connections if connection.open]

    def _admit(self, connection: ServerConnection, request: Request) -> Response | None:
        assert isinstance(connection, Connection)  # noqa: S101  # `create_connection` above
        connection.faults = self._faults
        connection.random = self._random
        connection.on_message = self._on_message
        refusal = self._refusal(request)
        if refusal is None:
            return None
        if isinstance(refusal, int):
            return connection.respond(refusal, "refused\n")
        response = connection.respond(HTTPStatus.FORBIDDEN, "refused\n")
        response.headers["handshake-status"] = str(refusal.status)
        response.headers["handshake-msg"] = refusal.msg
        if refusal.autherrcode is not None:
            response.headers["handshake-autherrcode"] = str(refusal.autherrcode)
        return response

    def _refusal(self, request: Request) -> Refusal | int | None:
        fault = self._faults.handshake_refuse
        if fault is not None:
            return fault if isinstance(fault, int) else Refusal(*fault)
        url = urlsplit(request.path)
        if url.path != PATH:
            return HTTPStatus.NOT_FOUND
        ticket = parse_qs(url.query).get("ticket", [""])[0]
        if ticket not in self._tickets:
            return Refusal(_AUTH_FAILED, "invalid ticket", _NO_CREDENTIAL)
        if len(self.connections) >= MAX_CONNECTIONS:
            return Refusal(_AUTH_FAILED, "too many connections", _TOO_MANY_CONNECTIONS)
        self._tickets.remove(ticket)
        return None

    async def _serve(self, connection: ServerConnection) -> None:
        assert isinstance(connection, Connection)  # noqa: S101  # as above
        if task := asyncio.current_task():
            task.set_name(f"simulator-connection-{next(self._numbers)}")
        self.connections.append(connection)
        self._on_open(connection)
        try:
            await connection.serve()
        except ConnectionClosed:
            pass  # without a close frame, or with a code that means an error: a client may leave as it likes
        finally:
            self.connections.remove(connection)
            self._on_close(connection)
