"""What a connection does with a peer that breaks off; slow and wordy ones are in the webhook's tests of attacks."""

from __future__ import annotations

import asyncio
import socket
import struct
from typing import TYPE_CHECKING, Any

from reserve_listener.net.asgi_connection import Connection
from tests.helpers import until
from tests.web.serving import a_site, served

if TYPE_CHECKING:
    import pytest

UNREADABLE = b"GET /livez HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n"
RESET = struct.pack("ii", 1, 0)
"""`SO_LINGER`: closing resets the connection at once."""


async def test_a_peer_that_resets_before_it_is_parted_from_raises_nothing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """It has read the 400 and is gone; the loop has not heard of that yet, and must not meet it as an error of ours."""
    errors: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: errors.append(context))
    lost: list[Connection] = []
    part, connection_lost = Connection._part, Connection.connection_lost
    with socket.socket() as peer:
        peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)

        def reset_and_part(self: Connection) -> None:
            peer.close()
            part(self)

        def hear(self: Connection, exc: Exception | None) -> None:
            connection_lost(self, exc)
            lost.append(self)

        monkeypatch.setattr(Connection, "_part", reset_and_part)
        monkeypatch.setattr(Connection, "connection_lost", hear)
        async with served(a_site()) as client:
            assert client.base_url.port is not None
            peer.settimeout(0)
            loop = asyncio.get_running_loop()
            await loop.sock_connect(peer, ("127.0.0.1", client.base_url.port))
            await loop.sock_sendall(peer, UNREADABLE)
            await until(lambda: bool(lost))
    assert errors == []
