"""Lists over HTTP: rooms and levels, their history, events, dead letters, sinks.

What must stay true: only `reads`' threads query the store, a page at a time, and they also build and encode the answer; the loop
only hands the request over.
"""

from __future__ import annotations

import base64
import binascii
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING, Any, Final

import msgspec
from starlette.exceptions import HTTPException

from reserve_listener.errors import NotFoundError
from reserve_listener.model import EventQuery, Known
from reserve_listener.web import rows
from reserve_listener.web.answers import (
    DeadLetterRow,
    EventRow,
    EventShown,
    HistoryRow,
    Listing,
    ScopeRow,
    ScopeShown,
    SinkStatus,
)
from reserve_listener.web.api import Endpoint, Parameter, moment

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from starlette.requests import Request

    from reserve_listener.protocols.store import Directory, StoreReader
    from reserve_listener.web.api import Actions
    from reserve_listener.web.reads import Reads

LIMIT: Final = 100
MOST: Final = 500

Found = Listing[Any]

PAGED: Final = (
    Parameter("limit", f"How many at most, 1 to {MOST}; {LIMIT} if not given.", kind="integer"),
    Parameter("cursor", "`next` of the part before this one."),
)
TIMES: Final = (
    Parameter(
        "since",
        "Only what was stored at this time or later: RFC 3339, or a span before now (45s, 30m, 2h, 7d).",
    ),
    Parameter("until", "Only what was stored before this time."),
)
OF_EVENTS: Final = (
    Parameter("sink", "Only this sink."),
    Parameter("scope", "Only this room or level: its scope_id."),
    Parameter("event_id", "Only this event."),
)
UNREADABLE: Final = Parameter("unreadable", "Only pushes that could not be normalised.", kind="boolean")
AT: Final = Parameter("at", "As the limits were at that time.")


@dataclass(frozen=True, kw_only=True)
class Lookups:
    """Answers from the store. `directory` has the names, `language` is that of the sentences."""

    reads: Reads
    actions: Actions
    directory: Directory
    language: str

    def endpoints(self) -> Iterator[Endpoint]:
        """All of them."""
        scope, event = "/scopes/{id}", "/events/{id}"
        yield _get(
            "/scopes",
            "All known rooms and levels.",
            self._scopes,
            Listing[ScopeRow],
            *PAGED,
        )
        yield _get(
            scope, "The limits of one room or level, now or as they were.", self._scope, ScopeShown, AT
        )
        yield _get(
            f"{scope}/history",
            "Its changes, the newest first.",
            self._history,
            Listing[HistoryRow],
            *TIMES,
            *PAGED,
        )
        yield _get(
            "/events",
            "Events, the newest first.",
            self._events,
            Listing[EventRow],
            *OF_EVENTS,
            *TIMES,
            UNREADABLE,
            *PAGED,
        )
        yield _get(event, "One event with its content and deliveries.", self._event, EventShown)
        yield _get(
            "/dead-letters", "Deliveries that were given up, the oldest first.", self._dead_letters,
            Listing[DeadLetterRow], *OF_EVENTS, *TIMES, *PAGED,
        )  # fmt: skip
        yield _get(
            "/sinks", "Where events go, and the state of each sink.", self._sinks, Listing[SinkStatus], *PAGED
        )

    async def _scopes(self, request: Request) -> bytes:
        limit, after = _limit(request), _cursor(request, "scopes", int) or 0

        def look(reader: StoreReader) -> Found:
            found = reader.scopes_after(after, limit=limit + 1)
            items = [self._scope_row(one.scope, one.known) for _, one in found[:limit]]
            return _part(items, "scopes", found[limit - 1][0] if len(found) > limit else None)

        return await self._ask(look)

    async def _scope(self, request: Request) -> bytes:
        scope_id, at_ms = request.path_params["id"], moment("at", request.query_params.get("at"))

        def look(reader: StoreReader) -> rows.Row:
            known = reader.known_scopes(scope_id)
            if not known:
                raise NotFoundError(f"nothing is known of {scope_id}")
            if at_ms is None:
                return rows.scope_shown(known[0].scope, known[0].known, self.language, self.directory)
            then = reader.known_at(scope_id, at_ms)
            if then is None or then.revision is None:
                raise NotFoundError(f"the limits of {scope_id} at that time are not known")
            state = Known(then.revision, then.created_ms, then.config)
            return rows.scope_shown(then.scope, state, self.language, self.directory)

        return await self._ask(look)

    async def _history(self, request: Request) -> bytes:
        scope_id, limit = request.path_params["id"], _limit(request)
        before, (since_ms, until_ms) = _cursor(request, "history", int), _times(request)

        def look(reader: StoreReader) -> Found:
            entries = reader.history(scope_id, since_ms=since_ms, until_ms=until_ms, before_seq=before)
            found = list(islice(entries, limit + 1))
            if not found and before is None and not reader.known_scopes(scope_id):
                raise NotFoundError(f"nothing is known of {scope_id}")
            items = [rows.history_row(entry, self.language, self.directory) for entry in found[:limit]]
            return _part(items, "history", found[limit - 1].seq if len(found) > limit else None)

        return await self._ask(look)

    async def _events(self, request: Request) -> bytes:
        query, limit = _query(request), _limit(request)
        before, unreadable = _cursor(request, "events", int), _switch(request, "unreadable")

        def look(reader: StoreReader) -> Found:
            found = reader.events(
                query, limit=limit + 1, unreadable=unreadable, before_seq=before, content=False
            )
            items = [rows.event_row(event, self.directory) for event in found[:limit]]
            return _part(items, "events", found[limit - 1].seq if len(found) > limit else None)

        return await self._ask(look)

    async def _event(self, request: Request) -> bytes:
        event_id = request.path_params["id"]

        def look(reader: StoreReader) -> rows.Row:
            found = reader.events(EventQuery(event_id=event_id), limit=1)
            if not found:
                raise NotFoundError(f"the store has no event {event_id}")
            return rows.event_shown(found[0], self.directory)

        return await self._ask(look)

    async def _dead_letters(self, request: Request) -> bytes:
        query, limit = _query(request), _limit(request)
        after = _cursor(request, "dead-letters", tuple[int, int, str])

        def look(reader: StoreReader) -> Found:
            found = reader.dead_letters(query, limit=limit + 1, after=after)
            items = [rows.dead_letter_row(letter, self.directory) for letter in found[:limit]]
            last = found[limit - 1] if len(found) > limit else None
            return _part(
                items, "dead-letters", None if last is None else (last.settled_ms, last.seq, last.sink)
            )

        return await self._ask(look)

    async def _sinks(self, request: Request) -> Found:
        limit, after = _limit(request), _cursor(request, "sinks", str)
        sinks = sorted((await self.actions.status()).sinks, key=lambda sink: sink.name)
        found = [sink for sink in sinks if after is None or sink.name > after]
        return _part(found[:limit], "sinks", found[limit - 1].name if len(found) > limit else None)

    def _scope_row(self, scope: Any, known: Known) -> rows.Row:
        return rows.scope_row(scope, known, self.language, self.directory)

    async def _ask(self, look: Callable[[StoreReader], Any]) -> bytes:
        return await self.reads.ask(lambda reader: msgspec.json.encode(look(reader)))


def _get(path: str, summary: str, handle: Any, answer: Any, *query: Parameter) -> Endpoint:
    return Endpoint(method="GET", path=path, summary=summary, handle=handle, answer=answer, query=query)


def _part(items: Sequence[Any], kind: str, place: Any) -> Found:
    return Listing(items=list(items), next=None if place is None else _written(kind, place))


def _written(kind: str, place: Any) -> str:
    return base64.urlsafe_b64encode(msgspec.json.encode([kind, place])).decode().rstrip("=")


def _cursor(request: Request, kind: str, type_: Any) -> Any:
    """Where to go on; None: at the beginning. One of another list, or of nobody's making, is refused."""
    text = request.query_params.get("cursor")
    if text is None:
        return None
    try:
        raw = base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)
        whose, place = msgspec.json.decode(raw, type=tuple[str, type_])
        place = place if whose == kind else None
    except (binascii.Error, ValueError, RecursionError):
        place = None
    if place is None or any(isinstance(part, int) and not 0 <= part < 2**63 for part in _parts(place)):
        raise HTTPException(400, "cursor: not a `next` of this list")
    return place


def _parts(place: Any) -> Sequence[Any]:
    return place if isinstance(place, tuple) else (place,)


def _limit(request: Request) -> int:
    text = request.query_params.get("limit", str(LIMIT))
    number = int(text) if text.isascii() and text.isdecimal() and len(text) <= len(str(MOST)) else 0
    if not 1 <= number <= MOST:
        raise HTTPException(400, f"limit: must be a whole number from 1 to {MOST}")
    return number


def _switch(request: Request, key: str) -> bool:
    text = request.query_params.get(key, "false")
    if text not in ("true", "false"):
        raise HTTPException(400, f"{key}: must be true or false")
    return text == "true"


def _times(request: Request) -> tuple[int | None, int | None]:
    asked = request.query_params
    return moment("since", asked.get("since")), moment("until", asked.get("until"))


def _query(request: Request) -> EventQuery:
    asked = request.query_params
    since_ms, until_ms = _times(request)
    return EventQuery(
        sink=asked.get("sink"),
        scope_id=asked.get("scope"),
        event_id=asked.get("event_id"),
        since_ms=since_ms,
        until_ms=until_ms,
    )
