"""The platform through an HTTP proxy: the endpoint's call forwarded, the WebSocket tunnelled."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from reserve_listener.simulator import HttpServer, Receiver, Simulator, sample_event
from tests.daemon import running, until, write_config

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path


class Proxy:
    """A forward proxy that handles CONNECT and absolute-form requests, and keeps their first lines and headers."""

    def __init__(self) -> None:
        self.requests: list[str] = []
        self.heads: list[bytes] = []
        self.url = ""

    @asynccontextmanager
    async def serve(self) -> AsyncIterator[Proxy]:
        server = await asyncio.start_server(self._handle, "127.0.0.1", 0)
        self.url = f"http://user:pass0word@127.0.0.1:{server.sockets[0].getsockname()[1]}"
        try:
            yield self
        finally:
            server.close()

    async def _handle(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        method, target, _ = head.split(b"\r\n", 1)[0].decode().split()
        self.requests.append(method if method == "CONNECT" else f"{method} {urlsplit(target).path}")
        self.heads.append(head)
        if method == "CONNECT":
            host, _, port = target.rpartition(":")
            theirs = await asyncio.open_connection(host, int(port))
            writer.write(b"HTTP/1.1 200 OK\r\n\r\n")
        else:
            parts = urlsplit(target)
            theirs = await asyncio.open_connection(parts.hostname, parts.port)
            theirs[1].write(head.replace(target.encode(), parts.path.encode(), 1))
        await asyncio.gather(_copy(reader, theirs[1]), _copy(theirs[0], writer))


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        while data := await reader.read(65_536):
            writer.write(data)
            await writer.drain()
    except ConnectionError:
        pass
    finally:
        writer.close()


async def test_the_connection_goes_through_the_configured_proxy(tmp_path: Path) -> None:
    """Endpoint and WebSocket both use `lark.proxy`, with its credentials, which appear in no log."""
    async with Simulator() as platform, HttpServer(Receiver()) as server, Proxy().serve() as proxy:
        config = write_config(tmp_path, platform, server.url, lark=f'proxy = "{proxy.url}"')
        async with running(tmp_path, config) as daemon:
            await platform.connected(20)
            assert proxy.requests == ["POST /callback/ws/endpoint", "CONNECT"]
            assert all(b"proxy-authorization: basic" in head.lower() for head in proxy.heads)
            event = sample_event()
            assert await platform.push(event).answered() == 200
            await until(lambda: daemon.pending() == 0)
            assert await daemon.stop() == 0
            assert b"pass0word" not in (tmp_path / "log.jsonl").read_bytes()
