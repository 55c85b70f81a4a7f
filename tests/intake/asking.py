"""A platform, a store, and our client: where those who ask the one for the other are tried."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Protocol, Self

from reserve_listener.config import LarkConfig
from reserve_listener.intake.complete import completing
from reserve_listener.intake.directory import Directory
from reserve_listener.lark.api.client import Client
from reserve_listener.store import open_store
from tests.helpers import url_of

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable
    from pathlib import Path

    from reserve_listener.protocols.store import Store
    from reserve_listener.simulator import Simulator


class Asking(Protocol):
    """Who asks the platform, as a task."""

    async def run(self) -> None:
        """Until cancelled."""


class World:
    """`clock` and `sleep` are the client's."""

    def __init__(
        self,
        simulator: Simulator,
        folder: Path,
        *,
        now_ms: Callable[[], int],
        clock: Callable[[], float],
        sleep: Callable[[float], Awaitable[None]],
    ) -> None:
        self.simulator = simulator
        self.directory = Directory()
        self.url = url_of(folder / "events.db")
        self.store: Store
        self.now_ms = now_ms
        lark = LarkConfig(app_id=simulator.app_id, app_secret=simulator.app_secret, domain=simulator.domain)
        self.client = Client(lark, hide=lambda *_: None, clock=clock, sleep=sleep)

    @asynccontextmanager
    async def opened(self) -> AsyncIterator[Self]:
        """With the store open while this lasts."""
        self.store = await open_store(
            self.url,
            ["a"],
            now_ms=self.now_ms,
            directory=self.directory,
            complete=completing("en", self.directory),
        )
        try:
            yield self
        finally:
            await self.client.close()
            await self.store.close()


@asynccontextmanager
async def running(asking: Asking) -> AsyncIterator[None]:
    """It runs while this lasts, and does not end by itself."""
    task = asyncio.create_task(asking.run())
    try:
        yield
        assert not task.done()
    finally:
        task.cancel()
        await asyncio.wait([task])
