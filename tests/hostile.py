"""A WebSocket server that does what no library would: frames by hand, after a handshake by hand."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import hashlib
import json
import struct
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

CONT: Final = 0x0
TEXT: Final = 0x1
BINARY: Final = 0x2
CLOSE: Final = 0x8
PING: Final = 0x9
PONG: Final = 0xA


def frame(opcode: int, payload: bytes = b"", *, fin: bool = True, reserved: int = 0) -> bytes:
    """As a server sends it: not masked."""
    head = (0x80 if fin else 0) | reserved | opcode
    size = len(payload)
    if size <= 125:  # RFC 6455, 5.2, as is the rest
        return struct.pack("!BB", head, size) + payload
    if size < 2**16:
        return struct.pack("!BBH", head, 126, size) + payload
    return struct.pack("!BBQ", head, 127, size) + payload


async def read_frame(reader: asyncio.StreamReader) -> tuple[int, bytes]:
    """What a client sent, masked: opcode and payload, of less than 64 KiB."""
    opcode, size = await reader.readexactly(2)
    size &= 0x7F
    if size == 126:
        size = int.from_bytes(await reader.readexactly(2), "big")
    mask, payload = await reader.readexactly(4), await reader.readexactly(size)
    return opcode & 0x0F, bytes(byte ^ mask[place % 4] for place, byte in enumerate(payload))


@contextlib.asynccontextmanager
async def gateway(
    act: Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]],
) -> AsyncIterator[bytes]:
    """An endpoint's answer that leads here. After the handshake `act` has the connection, which stays open at its end."""
    writers: list[asyncio.StreamWriter] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writers.append(writer)
        with contextlib.suppress(ConnectionError):
            await _shake_hands(reader, writer)
            await act(reader, writer)

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    url = f"ws://127.0.0.1:{port}/?device_id=1&service_id=2"
    try:
        yield json.dumps({"code": 0, "data": {"URL": url, "ClientConfig": {"ReconnectNonce": 0}}}).encode()
    finally:
        server.close()
        for writer in writers:
            writer.transport.abort()


async def _shake_hands(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """RFC 6455, 4.2.2."""
    request = await reader.readuntil(b"\r\n\r\n")
    key = next(
        line[19:] for line in request.split(b"\r\n") if line.lower().startswith(b"sec-websocket-key: ")
    )
    digest = hashlib.sha1(key + b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11", usedforsecurity=False).digest()
    writer.write(
        b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        b"Sec-WebSocket-Accept: " + base64.b64encode(digest) + b"\r\n\r\n"
    )
