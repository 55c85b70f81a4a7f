"""Lists all levels and rooms once, for their names and as an inventory of limits to read.

What must stay true: only a complete survey may mark an unseen room as gone, and only after asking for it by its id, since a list
may hide rooms that exist.
"""

from __future__ import annotations

import asyncio
import time
from itertools import islice
from typing import TYPE_CHECKING, Final, TypeVar

import structlog

from reserve_listener.clock import now_ms
from reserve_listener.intake.directory import LEVEL, ROOM, is_id, shown
from reserve_listener.intake.jobs import Target, kind_of
from reserve_listener.lark.api.errors import ApiError, GoneError
from reserve_listener.model import KnownPlace

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from reserve_listener.intake.directory import Directory
    from reserve_listener.lark.api.answers import Place, RoomsApi
    from reserve_listener.protocols.store import StoreNames

PLACES: Final = "places"

CHUNK: Final = 200
"""How many rooms are written at once: some milliseconds of the store's thread."""

log = structlog.get_logger("names")

T = TypeVar("T")


class Survey:
    """Lists everything. `keeps`: whether to store the names; if not, a look only says what there is."""

    def __init__(
        self,
        store: StoreNames,
        api: RoomsApi,
        directory: Directory,
        *,
        app_id: str,
        keeps: bool = True,
        now_ms: Callable[[], int] = now_ms,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._store = store
        self._api = api
        self._directory = directory
        self._app_id = app_id
        self._keeps = keeps
        self._now_ms = now_ms
        self._clock = clock
        self._looking = asyncio.Lock()
        self._began_s = float("-inf")
        self._seen: list[Target] = []

    async def look(self, *, no_older_s: float = 0.0) -> list[Target]:
        """List all scopes, or return the last list if it is no older than this many seconds. Raises `ApiError` and `StoreError`."""
        asked_s = self._clock()
        async with self._looking:
            if asked_s - self._began_s > no_older_s:
                began_s = self._clock()
                self._seen = await self._look()
                self._began_s = began_s
            return self._seen

    def known(self) -> list[Target]:
        """The scopes that existed at the last look."""
        return [
            Target(kind, one.scope_id)
            for one in list(self._directory.places.values())  # at once: the store's thread may add to them
            if one.gone_ms is None and (kind := kind_of(one.scope_type)) is not None
        ]

    async def _look(self) -> list[Target]:
        began_ms = self._now_ms()
        unseen = {(one.scope_type, one.scope_id): one for one in list(self._directory.places.values())}
        seen: dict[Target, None] = {}
        chunk: list[KnownPlace] = []
        async for place in self._api.places():
            if (known := known_place(place, began_ms)) is None:
                continue
            unseen.pop((known.scope_type, known.scope_id), None)
            seen[Target(place.scope_type, place.scope_id)] = None
            chunk.append(known)
            if len(chunk) == CHUNK:
                await self._keep(chunk)
                chunk = []
        await self._keep(chunk)
        if self._keeps:
            missing = [one for one in unseen.values() if one.gone_ms is None] if seen else []
            await self._end(seen, await self._mark(missing), began_ms)
        return list(seen)

    async def _keep(self, places: list[KnownPlace]) -> None:
        if self._keeps:
            await self._store.keep_places(places)

    async def _end(self, seen: Iterable[Target], gone: int, began_ms: int) -> None:
        await self._store.looked(self._app_id, PLACES, began_ms)
        kinds = [target.scope_type for target in seen]
        log.info("names.read", rooms=kinds.count(ROOM), levels=kinds.count(LEVEL), gone=gone)

    async def _mark(self, missing: Iterable[KnownPlace]) -> int:
        """Mark the missing scopes that are gone. Returns how many."""
        count = 0
        for some in in_chunks(missing, CHUNK):
            count += await self._store.mark_unseen([one for one in some if not await self._is_there(one)])
        return count

    async def _is_there(self, place: KnownPlace) -> bool:
        """Whether it exists and is only hidden from the lists. If the platform gives no clear answer, it is taken to exist."""
        asked_ms = self._now_ms()
        if (kind := kind_of(place.scope_type)) is None:
            return False
        try:
            told = await self._api.place(kind, place.scope_id)
        except GoneError:
            return False
        except ApiError as error:
            if type(error) is not ApiError:
                raise
            return True
        if (known := known_place(told, asked_ms)) is not None:
            await self._store.keep_places([known])
        return True


def known_place(place: Place, seen_ms: int) -> KnownPlace | None:
    """The place in the form that is stored; None if it cannot be."""
    if place.scope_type not in (ROOM, LEVEL) or not is_id(place.scope_id):
        return None
    return KnownPlace(
        scope_type=place.scope_type,
        scope_id=place.scope_id,
        name=shown(place.name),
        parent=place.parent if is_id(place.parent) else None,
        top=not place.path,
        seen_ms=seen_ms,
    )


def in_chunks(items: Iterable[T], size: int) -> Iterator[list[T]]:
    """All items, in lists of at most `size`."""
    rest = iter(items)
    while chunk := list(islice(rest, size)):
        yield chunk
