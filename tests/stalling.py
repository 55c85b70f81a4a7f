"""A way to a server that can stop forwarding: every connection stays open, and what is sent is taken and goes nowhere.

It can also lead elsewhere from now on, as an address does after a failover: open connections go on to where they were.
"""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager, suppress
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path


class Way:
    """From a port of its own to a Unix socket, or another port. `to`: where new connections lead."""

    def __init__(self, to: Path | int) -> None:
        self.to = to
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
            await asyncio.gather(*self._pumps, return_exceptions=True)

    def stall(self) -> None:
        """Forward nothing any more; new connections are accepted all the same."""
        self._open.clear()

    def go_on(self) -> None:
        """Forward again, also what came meanwhile."""
        self._open.set()

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await self._open.wait()
        with suppress(OSError):
            there, back = await self._connect()
            for source, sink in ((reader, back), (there, writer)):
                pump = asyncio.create_task(self._pump(source, sink))
                self._pumps.add(pump)
                pump.add_done_callback(self._pumps.discard)

    async def _connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        if isinstance(self.to, int):
            return await asyncio.open_connection("127.0.0.1", self.to)
        return await asyncio.open_unix_connection(self.to)

    async def _pump(self, source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
        try:
            with suppress(OSError):
                while some := await source.read(65_536):
                    await self._open.wait()
                    sink.write(some)
                    await sink.drain()
        finally:
            sink.close()
