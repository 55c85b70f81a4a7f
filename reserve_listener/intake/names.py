"""Asks the platform's API for names of rooms, levels and people: for all once a day, and for single ones when a new id turns up.

What must stay true: neither a push nor a delivery waits for a name, and no failure here affects anything else.
"""

from __future__ import annotations

import asyncio
import re
import time
from functools import partial
from typing import TYPE_CHECKING, Final

import msgspec
import structlog

from reserve_listener.clock import now_ms
from reserve_listener.errors import StoreError
from reserve_listener.intake.directory import LEVEL, ROOM, is_id, shown
from reserve_listener.intake.survey import PLACES, Survey, in_chunks, known_place
from reserve_listener.intake.troubles import BACKOFF_CAP_S, Troubles
from reserve_listener.intake.wanted import Wanted
from reserve_listener.lark.api.errors import ApiError, GoneError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from reserve_listener.intake.directory import Directory
    from reserve_listener.lark.api.answers import RoomsApi, ScopeType
    from reserve_listener.model import IncomingEvent, Reading
    from reserve_listener.protocols.store import StoreNames

PEOPLE: Final = "people"

DAY_S: Final = 86_400.0
"""How old names may get before all are asked for again."""
MEANWHILE: Final = "events are still delivered, with the names known so far; the daemon tries again"
"""What still works while names cannot be asked for."""

PEOPLE_CHUNK: Final = 50
CONFIGS_CHUNK: Final = 500

_encode = msgspec.json.Encoder().encode

_OPEN_ID: Final = re.compile(rb'"open_id":"([!-~]{1,200}?)"')

log = structlog.get_logger("names")


class Names:
    """Keeps the names in the store, and so the directory, up to date. Start `run` as a task, and call `heard` and `told`.

    `places`, `people`: whose names to ask for. `survey` may be shared with others.
    """

    def __init__(
        self,
        store: StoreNames,
        api: RoomsApi,
        directory: Directory,
        *,
        app_id: str,
        places: bool = True,
        people: bool = False,
        survey: Survey | None = None,
        troubles: Troubles | None = None,
        now_ms: Callable[[], int] = now_ms,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._store = store
        self._api = api
        self._directory = directory
        self._app_id = app_id
        self._asks_places = places
        self._asks_people = people
        self._now_ms = now_ms
        self._sleep = sleep
        self._survey = survey or Survey(store, api, directory, app_id=app_id, now_ms=now_ms, clock=clock)
        self._troubles = troubles or Troubles("names", MEANWHILE)
        self._places: Wanted[tuple[str, str]] = Wanted(clock)
        self._strangers: Wanted[str] = Wanted(clock)

    def heard(self, event: IncomingEvent) -> None:
        """An event has been stored: ask for the names in it that are not known. Does not block."""
        if self._asks_places and event.scope is not None:
            self._want(event.scope.scope_type, event.scope.scope_id)
        if self._asks_people and event.body is not None:
            self._introduce(event.body)

    def told(self, reading: Reading) -> None:
        """The same for limits that were read from the API: a baseline is not an event. Does not block."""
        if self._asks_places:
            self._want(reading.scope_type, reading.scope_id)
        if self._asks_people:
            self._introduce(_encode(reading.told))

    def _introduce(self, document: bytes) -> None:
        for open_id in _open_ids(document) - self._directory.people.keys():
            self._strangers.add(open_id)

    async def run(self) -> None:
        """Work until cancelled."""
        async with asyncio.TaskGroup() as tasks:
            if self._asks_places:
                tasks.create_task(self._daily(PLACES, self._survey.look), name="names-places")
                tasks.create_task(self._one_by_one(), name="names-wanted")
            if self._asks_people:
                tasks.create_task(self._daily(PEOPLE, self._all_people), name="names-people")
                tasks.create_task(self._introduced(), name="names-strangers")

    # -- rooms and levels ---------------------------------------------------------------------------------------------------

    def _want(self, scope_type: str, scope_id: str) -> None:
        place = self._directory.places.get((scope_type, scope_id))
        if place is not None and place.name is not None and place.gone_ms is None:
            return
        if scope_type in (ROOM, LEVEL) and is_id(scope_id):
            self._places.add((scope_type, scope_id))

    async def _one_by_one(self) -> None:
        while True:
            wanted = await self._places.next()
            pause_s = await self._attempt("wanted", partial(self._find, *wanted))
            if pause_s:
                await self._sleep(pause_s)
                self._places.again(wanted)

    async def _find(self, scope_type: str, scope_id: str) -> None:
        asked_ms = self._now_ms()
        kind: ScopeType = "room" if scope_type == ROOM else "level"
        try:
            place = await self._api.place(kind, scope_id)
        except ApiError as error:
            if type(error) in (ApiError, GoneError):
                return  # an event has just named it, so it is rather hidden from this app: the daily look tells
            raise
        if (known := known_place(place, asked_ms)) is not None:
            await self._store.keep_places([known])
        for level in {*place.path, place.parent or ""} - {scope_id}:
            self._want(LEVEL, level)

    # -- people -------------------------------------------------------------------------------------------------------------

    async def _all_people(self) -> None:
        began_ms = self._now_ms()
        found = 0
        for some in in_chunks(sorted(await self._everybody()), PEOPLE_CHUNK):
            found += await self._ask_for(some)
        await self._store.looked(self._app_id, PEOPLE, began_ms)
        log.info("names.people_read", people=found)

    async def _everybody(self) -> set[str]:
        people = set(self._directory.people)
        after = 0
        while configs := await self._store.configs_after(after, limit=CONFIGS_CHUNK):
            after = configs[-1][0]
            for _, config in configs:
                people |= _open_ids(config.encode())
        return people

    async def _introduced(self) -> None:
        while True:
            strangers = [await self._strangers.next()]
            while len(strangers) < PEOPLE_CHUNK and (another := self._strangers.pop()) is not None:
                strangers.append(another)
            pause_s = await self._attempt("strangers", partial(self._ask_for, strangers))
            if pause_s:
                await self._sleep(pause_s)
                for stranger in strangers:
                    self._strangers.again(stranger)

    async def _ask_for(self, open_ids: Sequence[str]) -> int:
        """Ask for these names and store them. Returns how many people have one."""
        told = await self._api.people(open_ids)
        names = {open_id: name for open_id in open_ids if (name := shown(told.get(open_id)))}
        if names:
            await self._store.keep_people(names)
        return len(names)

    # -- when, and what goes wrong ------------------------------------------------------------------------------------------

    async def _daily(self, what: str, look: Callable[[], Awaitable[object]]) -> None:
        while True:
            pause_s = await self._attempt(what, partial(self._if_due, what, look))
            await self._sleep(pause_s or await self._due_s(what))

    async def _if_due(self, what: str, look: Callable[[], Awaitable[object]]) -> None:
        if not await self._due_s(what):
            await look()

    async def _due_s(self, what: str) -> float:
        """How long the names are still good for. A time in the future was written while the clock was wrong, and does not count."""
        try:
            last_ms = await self._store.last_look(self._app_id, what)
        except StoreError:
            return BACKOFF_CAP_S
        age_s = (self._now_ms() - (last_ms or 0)) / 1000
        return DAY_S - age_s if 0 <= age_s < DAY_S else 0

    async def _attempt(self, what: str, work: Callable[[], Awaitable[object]]) -> float:
        """Do the work, and log what goes wrong. Returns how long to wait before the next attempt; 0 if it succeeded."""
        try:
            await work()
        except Exception as error:  # noqa: BLE001  # whatever it is, the events go on without names
            return self._troubles.pause_s(what, error)
        self._troubles.over(what)
        return 0


def _open_ids(document: bytes) -> set[str]:
    return {found.decode() for found in _OPEN_ID.findall(document)}
