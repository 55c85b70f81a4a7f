"""How events get into the store: one by one, or many with few statements. Work for the writer's thread, in its transaction.

Python releases its lock around each step of SQLite and has to wait for it again while the loop is busy. With five statements
for each event, that wait would be most of the cost of a burst, so one statement inserts many rows. Both ways do the same:
`tests/store/sqlite/test_appending.py` compares them.

An event's body is sealed here, once the event is known to be new: `complete` gets it together with what is known of its scope.
The result becomes the scope's state and part of its history in the same transaction.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar, Final

import msgspec

from reserve_listener.model import SinkFilter, Verdict
from reserve_listener.store.shared import naming, readings, rebuilding, sql
from reserve_listener.store.shared.history import Remembered
from reserve_listener.store.shared.rows import insert

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence

    from reserve_listener.model import Completed, IncomingEvent, Scope
    from reserve_listener.protocols import Complete
    from reserve_listener.protocols.store import Directory

_encode = msgspec.json.Encoder().encode

PORTION_BYTES: Final = 16 * 1024 * 1024
"""The most to hand to SQLite at once, which copies it: enough for all usual events, while large ones are not in memory three times."""

HISTORY_BYTES: Final = 250
"""What an entry of the history takes besides the configuration: as much as two sentences."""

_NUL: Final = b"\\u0000"
"""A text ends here in SQLite's JSON, but not in its columns."""

_EVERYTHING: Final = SinkFilter()

SinkFilters = tuple[tuple[int, SinkFilter], ...]
"""The numbers of the sinks, each with its filter."""


class Appended(msgspec.Struct, frozen=True, gc=False):
    """What became of an event. `seq`, `scope`: its numbers, if it is stored and readable."""

    verdict: Verdict
    event: IncomingEvent
    """The event as it is stored."""
    seq: int = 0
    scope: int = 0
    takers: tuple[int, ...] = ()
    """The numbers of the sinks that get it."""
    size: int = 0
    """The size of payload and body in bytes."""
    told_bytes: int = 0
    """The size of the new history and state of its scope."""
    in_doubt: bool = False
    """Whether its scope has to be read again: see `Window`."""


class Appending:
    """Inserts events. `scopes`: the numbers that are known already, all of them committed.

    `unbuilt`: there may be scopes without a history yet. `directory`: where `complete` takes names from. It learns what an event
    says of a room before the next event is sealed.
    """

    together: ClassVar = False
    """Whether a single event is inserted in the way for many, too."""

    def __init__(
        self,
        specs: SinkFilters,
        scopes: Mapping[Scope, int],
        complete: Complete,
        *,
        unbuilt: bool = False,
        directory: Directory | None = None,
    ) -> None:
        self._specs = specs
        self._no_filters = all(sink_filter == _EVERYTHING for _, sink_filter in specs)
        self._sinks = tuple([sink for sink, _ in specs])
        self._directory = directory
        self._scopes = scopes
        self._complete = complete
        self._unbuilt = unbuilt

    def one(self, event: IncomingEvent, connection: sqlite3.Connection) -> Appended:
        """Store one event."""
        if connection.execute(sql.FIND_EVENT, (event.tenant_key, event.event_id)).fetchone() is not None:
            return Appended(Verdict.DUPLICATE, event)
        scope = None if event.scope is None else self.scope_number(event.scope, connection)
        remembered = self.remembered(() if scope is None else (scope,), connection)
        event, completed = self._sealed(event, scope, remembered)
        return self.put(event, scope, completed, remembered, connection)

    def put(
        self,
        event: IncomingEvent,
        scope: int | None,
        completed: Completed | None,
        remembered: Remembered,
        connection: sqlite3.Connection,
        *,
        tenant_known: bool = True,
    ) -> Appended:
        """Store one event, which is sealed and new, and what is known after it. `tenant_known`: see `SinkFilter.takes`."""
        seq = connection.execute(sql.APPEND_EVENT, _columns(event, None, scope)).lastrowid or 0
        if event.news is not None:
            return self._heard(event, seq, connection)
        takers = self._takers(event, completed, tenant_known=tenant_known)
        for sink in takers:
            connection.execute(sql.ADD_DELIVERY, (seq, sink, scope))
        in_doubt = False
        if scope is not None and completed is not None:
            in_doubt = remembered.take(seq, scope, event, completed)
            remembered.write()
        return _appended(event, seq, scope, takers, completed, in_doubt=in_doubt)

    def all(self, events: Sequence[IncomingEvent], connection: sqlite3.Connection) -> list[Appended]:
        """Store many events, in their order."""
        known = _Known(events, connection)  # a server is asked everything at once, and answers then
        newest = connection.execute(sql.NEWEST_EVER)
        numbers = self._scope_numbers(events, connection)
        remembered = self.remembered(numbers.values(), connection)
        new = known.new()
        seq = int((newest.fetchone() or (0,))[0])
        appended = [Appended(Verdict.DUPLICATE, event) for event in events]
        for portion in _portions(events, new):
            rows: list[tuple[Any, ...]] = []
            deliveries: list[tuple[int, int, int | None]] = []
            for place in portion:
                event = events[place]
                scope = None if event.scope is None else numbers[event.scope]
                event, completed = self._sealed(event, scope, remembered)
                seq += 1
                rows.append(_columns(event, seq, scope))
                if event.news is not None:
                    appended[place] = self._heard(event, seq, connection)
                    continue
                takers = self._takers(event, completed)
                deliveries += [(seq, sink, scope) for sink in takers]
                in_doubt = False
                if scope is not None and completed is not None:
                    in_doubt = remembered.take(seq, scope, event, completed)
                appended[place] = _appended(event, seq, scope, takers, completed, in_doubt=in_doubt)
            insert(connection, sql.APPEND_EVENTS, rows)
            insert(connection, sql.ADD_DELIVERIES, deliveries)
            remembered.write()
        if new:
            self.took(seq, connection)
        return appended

    def took(self, newest: int, connection: sqlite3.Connection) -> None:
        """Numbers up to this one are taken. SQLite sees that by itself."""

    def _heard(self, event: IncomingEvent, seq: int, connection: sqlite3.Connection) -> Appended:
        """Take in an event about a room or level itself: names change, and nothing is delivered."""
        places = naming.hear(event, connection)
        if self._directory is not None:
            self._directory.take(places)
        return Appended(Verdict.STORED, event, seq, size=sum(len(one.name or "") for one in places))

    def remembered(self, scopes: Collection[int], connection: sqlite3.Connection) -> Remembered:
        """What is known of these scopes."""
        if self._unbuilt:
            rebuilding.finish(scopes, self._complete, connection)
        return Remembered(scopes, connection)

    def _sealed(
        self, event: IncomingEvent, scope: int | None, remembered: Remembered
    ) -> tuple[IncomingEvent, Completed | None]:
        completed = None if scope is None else self._complete(event, remembered.of(scope))
        if completed is None:
            return event, None
        return msgspec.structs.replace(event, body=completed.body), completed

    def _takers(
        self, event: IncomingEvent, completed: Completed | None, *, tenant_known: bool = True
    ) -> tuple[int, ...]:
        scope = event.scope
        if scope is None:
            return ()
        if self._no_filters:
            return self._sinks
        paths = None if completed is None else completed.paths
        return tuple(
            [
                sink
                for sink, sink_filter in self._specs
                if sink_filter.takes(scope, paths, tenant_known=tenant_known)
            ]
        )

    def scope_number(self, scope: Scope, connection: sqlite3.Connection) -> int:
        """The scope's number, which is a new one if it has none yet."""
        key = (scope.tenant_key, scope.scope_type, scope.scope_id)
        row = connection.execute(sql.FIND_SCOPE, key).fetchone()
        if row is None and readings.adopt(scope.tenant_key, connection):
            row = connection.execute(sql.FIND_SCOPE, key).fetchone()
        if row is None:
            row = connection.execute(sql.ADD_SCOPE, key).fetchone()
        return int(row[0])

    def _scope_numbers(
        self, events: Iterable[IncomingEvent], connection: sqlite3.Connection
    ) -> Mapping[Scope, int]:
        numbers: dict[Scope, int] = {}
        for event in events:
            scope = event.scope
            if scope is not None and scope not in numbers:
                numbers[scope] = self._scopes.get(scope) or self.scope_number(scope, connection)
        return numbers


def _appended(
    event: IncomingEvent,
    seq: int,
    scope: int | None,
    takers: tuple[int, ...],
    completed: Completed | None,
    *,
    in_doubt: bool,
) -> Appended:
    size = len(event.raw) + len(event.body or b"")
    if scope is None:
        return Appended(Verdict.UNREADABLE, event, size=size)
    told_bytes = 0 if completed is None else len(completed.config) + HISTORY_BYTES
    is_late = completed is not None and completed.revision is None
    verdict = Verdict.SUPERSEDED if is_late else Verdict.STORED
    return Appended(verdict, event, seq, scope, takers, size, told_bytes, in_doubt=in_doubt)


class _Known:
    """Which of these events the store already has: asked now, answered later."""

    def __init__(self, events: Sequence[IncomingEvent], connection: sqlite3.Connection) -> None:
        self._first: dict[tuple[str, str], int] = {}
        for place, event in enumerate(events):
            self._first.setdefault((event.tenant_key, event.event_id), place)
        self._connection = connection
        keys = _encode(list(self._first))
        self._asked = None if _NUL in keys else connection.execute(sql.KNOWN_EVENTS, (keys.decode(),))

    def new(self) -> list[int]:
        """The positions of the new events. One that occurs twice counts as new the first time."""
        if self._asked is None:
            found = (self._connection.execute(sql.FIND_EVENT, key).fetchone() for key in self._first)
            return [place for place, known in zip(self._first.values(), found, strict=True) if known is None]
        (known,) = self._asked.fetchone()
        places = list(self._first.values())
        for number in sorted(msgspec.json.decode(known), reverse=True):
            del places[number]
        return places


def _portions(events: Sequence[IncomingEvent], places: Sequence[int]) -> Iterator[Sequence[int]]:
    """The positions in portions: as many at once as `PORTION_BYTES` allows, and at least one."""
    begin = size = 0
    for number, place in enumerate(places):
        own = len(events[place].raw) + len(events[place].body or b"")
        size += own
        if size > PORTION_BYTES and number > begin:
            yield places[begin:number]
            begin, size = number, own
    yield places[begin:]


def _columns(event: IncomingEvent, seq: int | None, scope: int | None) -> tuple[Any, ...]:
    """A row of `events`. Of an event about a room or level itself, only what it takes to recognise it."""
    return (
        seq,
        event.tenant_key,
        event.event_id,
        scope,
        event.created_ms,
        event.received_ms,
        event.raw if event.news is None else None,
        event.body,
        event.problem,
    )
