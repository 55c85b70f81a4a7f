"""The pages that only show. Each is looked up and written in one of `Reads`' threads; the loop only hands it over."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import msgspec

from reserve_listener.intake.directory import along
from reserve_listener.model import ChangeQuery, EventQuery
from reserve_listener.web.page import pictures
from reserve_listener.web.page.filters import SHORTEST_EVENT, Filters
from reserve_listener.web.page.frame import number
from reserve_listener.web.page.limits import bookable, bounds
from reserve_listener.web.page.telling import LEVEL, Estate, Row, Teller

if TYPE_CHECKING:
    from collections.abc import Sequence

    from starlette.requests import Request
    from starlette.responses import Response

    from reserve_listener.model import KnownScope
    from reserve_listener.protocols.store import StoreReader
    from reserve_listener.web.page.filters import Keys
    from reserve_listener.web.page.frame import Frame, Values
    from reserve_listener.web.page.telling import Place
    from reserve_listener.web.site import Site

SHOWN: Final = 25
"""Changes on a page: some 25 kB, with all that can be opened."""
NAMED_IN_FEED: Final = 5
NAMED_IN_HISTORY: Final = 20
"""Of those who were added or removed by one change; the sentence has their number."""
FOUND_SHOWN: Final = 12
PLACES_SHOWN: Final = 100
INSIDE_SHOWN: Final = 200
LEVELS_OFFERED: Final = 500
"""Levels in the filter's list; who has more searches."""
DEAD_SHOWN: Final = 5
ALL_DEAD_SHOWN: Final = 100


class Views:
    """All of them, over one site."""

    def __init__(self, site: Site, frame: Frame) -> None:
        self._site = site
        self._frame = frame
        self._counter = pictures.Counter(site.reads)

    async def feed(self, request: Request) -> Response:
        """What has changed, and how it goes: `/`."""
        asked, filters = await self._frame.asked(request), Filters.of(request.query_params)
        day = await self._counter.day(asked.now_ms)

        def look(reader: StoreReader) -> tuple[str, Values]:
            teller = asked.teller(self._site, reader)
            values = self._feed(filters, teller, reader)
            return "feed", values | {"day": day} | self._dead(reader, teller, DEAD_SHOWN)

        return await self._frame.shown(asked, look)

    async def places(self, request: Request) -> Response:
        """All rooms and levels, and their limits in words: `/scopes`."""
        if "id" in request.query_params:
            return await self._place(request, request.query_params["id"])
        asked = await self._frame.asked(request)
        page = request.query_params.get("page", "1")

        def look(reader: StoreReader) -> tuple[str, Values]:
            teller = asked.teller(self._site, reader)
            found = self._all_places(teller, reader)
            pages = max(1, -(-len(found) // PLACES_SHOWN))
            this = min(max(1, number(page) or 1), pages)
            shown = found[(this - 1) * PLACES_SHOWN : this * PLACES_SHOWN]
            rows = [Row(place, None, None) if known is None else teller.row(known) for place, known in shown]
            return "places", {"rows": rows, "total": len(found), "page": this, "pages": pages}

        return await self._frame.shown(asked, look)

    async def place(self, request: Request) -> Response:
        """One room or level: `/scopes/{id}`."""
        return await self._place(request, request.path_params["scope_id"])

    async def deliveries(self, request: Request) -> Response:
        """Sinks and dead letters: `/deliveries`."""
        asked = await self._frame.asked(request)

        def look(reader: StoreReader) -> tuple[str, Values]:
            return "deliveries", self._dead(reader, asked.teller(self._site, reader), ALL_DEAD_SHOWN)

        return await self._frame.shown(asked, look)

    async def _place(self, request: Request, scope_id: str) -> Response:
        asked = await self._frame.asked(request)
        before = Filters.of(request.query_params).before

        def look(reader: StoreReader) -> tuple[str, Values]:
            teller = asked.teller(self._site, reader)
            known, named = reader.known_scopes(scope_id), self._named(scope_id)
            if not known and not named:
                return "not_found", {"scope_id": scope_id}
            types = frozenset((one.scope.scope_type, scope_id) for one in known) | named
            query = ChangeQuery(scopes=types, before_seq=int(before) if before else None)
            entries = reader.changes(query, limit=SHOWN + 1)
            return "place", {
                "shown": self._shown_places(teller, known, named, scope_id),
                "days": teller.days(entries[:SHOWN], most=NAMED_IN_HISTORY),
                "older": entries[SHOWN - 1].seq if len(entries) > SHOWN else None,
                "before": before,
                "inside": self._inside(teller, reader, scope_id) if (LEVEL, scope_id) in types else [],
            }

        return await self._frame.shown(asked, look)

    # -- what is shown -------------------------------------------------------------------------------------------------------

    def _feed(self, filters: Filters, teller: Teller, reader: StoreReader) -> Values:
        estate = Estate(self._site.directory)
        found = filters.found(estate, reader)
        query = filters.query(filters.places(estate, found))
        if found is not None and not found and len(filters.q) >= SHORTEST_EVENT:
            query = msgspec.structs.replace(query, scopes=None, event_start=filters.q)
        entries = reader.changes(query, limit=SHOWN + 1)
        return {
            "filters": filters,
            "found": self._matches(found, filters.q, teller),
            "days": teller.days(entries[:SHOWN], most=NAMED_IN_FEED),
            "older": filters.url(before=str(entries[SHOWN - 1].seq)) if len(entries) > SHOWN else None,
            "levels": estate.levels()[:LEVELS_OFFERED] if filters.is_open else [],
        }

    @staticmethod
    def _matches(found: Keys | None, text: str, teller: Teller) -> Values:
        """The best of those that were searched for: whose own name or id it is, and what begins with it."""
        places = [teller.place(*key) for key in found or ()]
        wanted = text.casefold()
        places.sort(
            key=lambda one: (
                wanted not in one.name.casefold() and wanted not in one.scope_id.casefold(),
                not one.name.casefold().startswith(wanted),
                one.is_level,
                one.name.casefold(),
                one.scope_id,
            )
        )
        return {"places": places[:FOUND_SHOWN], "more": max(0, len(places) - FOUND_SHOWN)}

    def _all_places(self, teller: Teller, reader: StoreReader) -> list[tuple[Place, KnownScope | None]]:
        """All rooms and levels, along the tree of levels, with what is known of each."""
        known = reader.known_scopes()
        keys = {(one.scope.scope_type, one.scope.scope_id) for one in known}
        unknown = Estate(self._site.directory).keys() - keys
        found: list[tuple[Place, KnownScope | None]] = [(teller.of(one.scope), one) for one in known]
        found += [(teller.place(*key), None) for key in unknown]
        return sorted(found, key=lambda one: _along(one[0]))

    def _named(self, scope_id: str) -> Keys:
        return frozenset(
            (kind, scope_id) for kind in ("room", LEVEL) if (kind, scope_id) in self._site.directory.places
        )

    def _shown_places(
        self, teller: Teller, known: Sequence[KnownScope], named: Keys, scope_id: str
    ) -> list[Values]:
        """What is known of each that has this id: one, but for a platform that gives a room and a level the same."""
        shown = []
        for one in known:
            config = msgspec.json.decode(one.known.config)
            day = bookable(config)
            shown.append(
                {
                    "place": teller.of(one.scope),
                    "row": teller.row(one),
                    "sections": teller.limits.sections(config),
                    "bookable": None if day is None else _drawn(day),
                    "revision": one.known.revision,
                    "as_of": teller.time(one.known.created_ms or one.received_ms),
                    "gone": self._gone(teller, one.scope.scope_type, scope_id),
                }
            )
        types = {one.scope.scope_type for one in known}
        for kind, _ in named:
            if kind not in types:
                shown.append(
                    {
                        "place": teller.place(kind, scope_id),
                        "row": None,
                        "gone": self._gone(teller, kind, scope_id),
                    }
                )
        return shown

    def _gone(self, teller: Teller, scope_type: str, scope_id: str) -> Any:
        place = self._site.directory.places.get((scope_type, scope_id))
        return None if place is None else teller.times.at(place.gone_ms)

    def _inside(self, teller: Teller, reader: StoreReader, level: str) -> list[Row]:
        keys = list(Estate(self._site.directory).directly_in(level))[:INSIDE_SHOWN]
        rows = []
        for key in keys:
            known = [one for one in reader.known_scopes(key[1]) if one.scope.scope_type == key[0]]
            rows.append(teller.row(known[0]) if known else Row(teller.place(*key), None, None))
        return sorted(rows, key=lambda row: _along(row.place))

    def _dead(self, reader: StoreReader, teller: Teller, limit: int) -> Values:
        dead = reader.dead_letters(EventQuery(), limit=limit)
        return {
            "dead": [
                {"letter": one, "place": teller.of(one.scope), "at": teller.time(one.settled_ms)}
                for one in dead
            ]
        }


def _along(place: Place) -> tuple[Any, ...]:
    return along(place.names, place.scope_id, named=place.named, gone=place.gone)


def _drawn(day: tuple[int, int]) -> Values:
    start, end = bounds(day)
    marks = [(hour, pictures.share(hour * 3600)) for hour in (0, 6, 12, 18, 24)]
    return {
        "x": pictures.share(day[0]),
        "width": round(pictures.share(day[1]) - pictures.share(day[0]), 3),
        "start": start,
        "end": end,
        "always": day == (0, pictures.DAY_S),
        "marks": marks,
    }
