"""What is asked of the platform's API about rooms, with the app's own secret: their names.

What must stay true: the daemon hears and delivers all the same, whatever the platform answers.
"""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING

import structlog

from reserve_listener.errors import StoreError
from reserve_listener.intake.names import Names
from reserve_listener.lark.api.client import Client

if TYPE_CHECKING:
    from collections.abc import Callable

    from reserve_listener.config import Config
    from reserve_listener.intake.directory import Directory
    from reserve_listener.model import IncomingEvent
    from reserve_listener.protocols.store import StoreNames

log = structlog.get_logger("names")


class Rooms:
    """Asks as long as `run` runs; without a secret, or if nothing is wanted, it says so once and asks nothing.

    `hide(secret, instead_of)`: see `lark.api.client.Client`.
    """

    def __init__(
        self, config: Config, store: StoreNames, directory: Directory, *, hide: Callable[[str, str], None]
    ) -> None:
        self._config = config
        self._store = store
        lark, rooms = config.lark, config.rooms
        self._client: Client | None = None
        self._names: Names | None = None
        if lark.app_secret is None and lark.app_secret_file is None:
            return
        self._client = Client(lark, requests_per_minute=rooms.requests_per_minute, hide=hide)
        if rooms.names or rooms.people_names:
            self._names = Names(
                store,
                self._client,
                directory,
                app_id=lark.app_id,
                places=rooms.names,
                people=rooms.people_names,
            )

    def heard(self, event: IncomingEvent) -> None:
        """An event is in the store."""
        if self._names is not None:
            self._names.heard(event)

    async def run(self) -> None:
        """Until cancelled."""
        if not self._config.rooms.people_names:
            with contextlib.suppress(StoreError):  # at the next start then
                await self._store.forget_people()
        if self._names is None:
            self._say_off()
            await asyncio.Event().wait()
        else:
            await self._names.run()

    async def close(self) -> None:
        """Give connections back. Does not raise."""
        if self._client is not None:
            await self._client.close()

    def _say_off(self) -> None:
        if self._client is None:
            log.warning(
                "names.off",
                reason="there is no app secret to ask the platform with",
                hint="set lark.app_secret_file to see rooms by name; everything else works without it",
            )
        else:
            log.info("names.off", reason="rooms.names is false")
