"""A way to a server that can stop to forward: every connection stays open, and what is sent is taken and goes nowhere."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager, suppress
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path


class Way:
    """From a port of its own to a Unix socket."""

    def __init__(self, to: Path) -> None:
        self._to = to
        self._open = asyncio.Event()
        self._open.set()
        self._pumps: set[asyncio.Task[None]] = set()
        self.port = 0

    @asynccontextmanager
    async def serve(self) -> AsyncIterator[Way]:
        """Until the end of the block."""
        server = await asyncio.start_server(self._connected, "127.0.0.1", 0)
        self.port = server.sockets[0].getsockname()[1]
        try:
            yield self
        finally:
            server.close()
            for pump in self._pumps:
                pump.cancel()

    def stall(self) -> None:
        """Forward nothing any more; new connections are accepted all the same."""
        self._open.clear()

    def go_on(self) -> None:
        """Forward again, also what came meanwhile."""
        self._open.set()

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await self._open.wait()
        with suppress(OSError):
            there, back = await asyncio.open_unix_connection(self._to)
            for source, sink in ((reader, back), (there, writer)):
                pump = asyncio.create_task(self._pump(source, sink))
                self._pumps.add(pump)
                pump.add_done_callback(self._pumps.discard)

    async def _pump(self, source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
        with suppress(OSError):
            while some := await source.read(65_536):
                await self._open.wait()
                sink.write(some)
                await sink.drain()
        sink.close()
