"""Reading a store from outside the daemon, for the commands."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING, Any, Final, Literal, TypeVar

from msgspec.structs import asdict, replace

from reserve_listener.intake.directory import Directory
from reserve_listener.model import (
    Backlog,
    ChangeQuery,
    DeadLetter,
    DeliveryState,
    EventQuery,
    HistoryEntry,
    HourFigures,
    Known,
    KnownScope,
    Scope,
    SinkBacklog,
    SinkState,
    StoredEvent,
)
from reserve_listener.store.shared import attempts, feed, history, naming, rebuilding, sql
from reserve_listener.store.shared.insight import STATE_NAMES, sink_states

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from reserve_listener.model import DeadLetterPlace

EVERYTHING = EventQuery()
ALL_CHANGES = ChangeQuery()

T = TypeVar("T")

PAGE: Final = 500
"""How many rows are read in one transaction."""


class SqlReader:
    """See `protocols.store.StoreReader`: the queries that are the same for every database."""

    _connection: Any

    def _reading(self) -> AbstractContextManager[None]:
        """Turns the database's exceptions into `StoreError`."""
        return nullcontext()

    def events(
        self,
        filters: EventQuery = EVERYTHING,
        *,
        limit: int,
        unreadable: bool = False,
        before_seq: int | None = None,
        content: bool = True,
    ) -> list[StoredEvent]:
        """See `protocols.store.StoreReader.events`."""
        return self._events(
            sql.NEWEST_EVENTS,
            filters,
            limit=limit,
            unreadable=unreadable,
            after_seq=0,
            before_seq=before_seq,
            content=content,
        )

    def events_after(
        self, after_seq: int, filters: EventQuery = EVERYTHING, *, limit: int
    ) -> list[StoredEvent]:
        """The events stored after that one, in order, at most `limit`."""
        return self._events(
            sql.EVENTS_AFTER,
            filters,
            limit=limit,
            unreadable=False,
            after_seq=after_seq,
            before_seq=None,
            content=True,
        )

    def _events(self, statement: str, filters: EventQuery, **values: int | None) -> list[StoredEvent]:
        with self._reading():
            rows = self._connection.execute(statement, asdict(filters) | values).fetchall()
            return [self._event(row) for row in rows]

    def backlog(self, now_ms: int) -> Backlog:
        """See `protocols.store.StoreReader.backlog`."""
        last = self._all(sql.LAST_RECEIVED, ())
        rows = self._all(sql.WAITING, {"now_ms": now_ms})
        return Backlog(
            last_event_ms=last[0][0] if last else None,
            sinks=[replace(SinkBacklog(*row), configured=bool(row[-1])) for row in rows],
        )

    def sinks(self) -> list[SinkState]:
        """All sinks that the store has ever known, and what it has for each."""
        with self._reading():
            return sink_states(self._connection)

    def ids_that_begin(self, kind: Literal["event", "scope"], start: str, *, limit: int) -> list[str]:
        """Ids with this beginning, at most `limit`; only the id itself if one matches exactly."""
        statement = sql.EVENT_IDS_THAT_BEGIN if kind == "event" else sql.SCOPE_IDS_THAT_BEGIN
        with self._reading():
            rows = self._connection.execute(statement, {"start": start, "limit": limit}).fetchall()
        found = [text for (text,) in rows]
        return found[:1] if found[:1] == [start] else found

    def history(
        self,
        scope_id: str,
        *,
        since_ms: int | None = None,
        until_ms: int | None = None,
        before_seq: int | None = None,
    ) -> Iterator[HistoryEntry]:
        """The history of the rooms and levels with this id, the newest first; read in pages, so that nothing waits."""
        values: dict[str, Any] = {"scope_id": scope_id, "since_ms": since_ms, "until_ms": until_ms}
        while True:
            rows = self._all(history.HISTORY_OF, values | {"before_seq": before_seq, "limit": PAGE})
            yield from map(_entry, rows)
            if len(rows) < PAGE:
                return
            before_seq = rows[-1][0]

    def changes_after(self, after_seq: int, *, limit: int) -> list[HistoryEntry]:
        """See `protocols.store.StoreReader.changes_after`."""
        rows = self._all(history.CHANGES_AFTER, {"after_seq": after_seq, "limit": limit})
        return list(map(_entry, rows))

    def newest_change(self) -> int:
        """See `protocols.store.StoreReader.newest_change`."""
        return int(self._all(history.NEWEST_CHANGE, ())[0][0])

    def scopes_after(self, after: int, *, limit: int) -> list[tuple[int, KnownScope]]:
        """See `protocols.store.StoreReader.scopes_after`."""
        rows = self._all(history.STATES_AFTER, {"scope_id": None, "after": after, "limit": limit})
        return [(int(row[0]), _known(row)) for row in rows]

    def changes(self, query: ChangeQuery = ALL_CHANGES, *, limit: int) -> list[HistoryEntry]:
        """The history of all rooms and levels, the newest first, at most `limit`."""
        return [_entry(row) for row in self._read(lambda: feed.changes(query, limit, self._connection))]

    def hours(self, since_ms: int, *, late_ms: int) -> list[HourFigures]:
        """What has been stored since then, hour by hour, without empty hours. A delivery is late after more than `late_ms`."""
        return self._read(lambda: feed.hours(since_ms, late_ms, self._connection))

    def has_several_tenants(self) -> bool:
        """Whether rooms and levels of more than one tenant are known."""
        return bool(self._all(feed.SEVERAL_TENANTS, ())[0][0])

    def known_scopes(self, scope_id: str | None = None) -> list[KnownScope]:
        """All known rooms and levels, or those with this id, the one last heard of first."""
        found: list[KnownScope] = []
        after = 0
        while True:
            rows = self._all(history.STATES_AFTER, {"scope_id": scope_id, "after": after, "limit": PAGE})
            found += map(_known, rows)
            if len(rows) < PAGE:
                return sorted(found, key=lambda one: -one.received_ms)
            after = rows[-1][0]

    def known_at(self, scope_id: str, at_ms: int) -> HistoryEntry | None:
        """What was known of the room or level with this id at that time; None if nothing of it is kept."""
        rows = self._all(history.KNOWN_AT, {"scope_id": scope_id, "at_ms": at_ms})
        return _entry(rows[0]) if rows else None

    def directory(self) -> Directory:
        """All names as they are known now."""
        found = Directory()
        with self._reading():
            found.take(naming.all_places(self._connection))
            found.take_people(naming.people(self._connection))
        return found

    def is_rebuilding(self) -> bool:
        """Whether the daemon is still computing the history of an older store."""
        return bool(self._all(rebuilding.LEFT, ())[0][0])

    def _read(self, look: Callable[[], T]) -> T:
        with self._reading():
            return look()

    def _all(self, statement: str, values: Mapping[str, Any] | tuple[()]) -> list[Any]:
        with self._reading():
            return list(self._connection.execute(statement, values).fetchall())

    def dead_letters(
        self, filters: EventQuery, *, limit: int, after: DeadLetterPlace | None = None
    ) -> list[DeadLetter]:
        """See `protocols.store.StoreReader.dead_letters`."""
        place = dict(zip(("after_ms", "after_seq", "after_sink"), after or (None, None, None), strict=True))
        rows = self._all(sql.LIST_DEAD, asdict(filters) | place | {"limit": limit})
        return [
            DeadLetter(
                seq=seq,
                sink=sink,
                configured=bool(configured),
                event_id=event_id,
                scope=Scope(tenant_key=tenant_key, scope_type=scope_type, scope_id=scope_id),
                attempts=attempts,
                settled_ms=settled_ms,
                last_error=last_error,
            )
            for seq, sink, configured, event_id, tenant_key, scope_type, scope_id, attempts, settled_ms, last_error in rows
        ]

    def _event(self, row: tuple[Any, ...]) -> StoredEvent:
        seq, tenant_key, event_id, received_ms, created_ms, *scope, body, raw, problem, summary = row
        made = attempts.of_event(seq, self._connection)
        return StoredEvent(
            seq=seq,
            tenant_key=tenant_key,
            event_id=event_id,
            received_ms=received_ms,
            created_ms=created_ms,
            scope=_scope(*scope),
            body=body,
            raw=raw,
            problem=problem,
            summary=summary,
            deliveries=tuple(
                DeliveryState(
                    sink=sink,
                    state=STATE_NAMES[state],
                    attempts=attempts,
                    due_ms=due_ms,
                    settled_ms=settled_ms,
                    last_error=last_error,
                    history=tuple(made.get(sink, ())),
                )
                for sink, state, attempts, due_ms, settled_ms, last_error in self._connection.execute(
                    sql.DELIVERIES_OF, (seq,)
                )
            ),
        )


def _scope(tenant_key: str | None, scope_type: str | None, scope_id: str | None) -> Scope | None:
    if tenant_key is None or scope_type is None or scope_id is None:
        return None
    return Scope(tenant_key=tenant_key, scope_type=scope_type, scope_id=scope_id)


def _entry(row: tuple[Any, ...]) -> HistoryEntry:
    seq, tenant_key, scope_type, scope_id, *rest = row
    event_id, created_ms, received_ms, revision, changes, config, summary, origin = rest
    return HistoryEntry(
        seq=seq,
        event_id=event_id,
        scope=Scope(tenant_key=tenant_key, scope_type=scope_type, scope_id=scope_id),
        created_ms=created_ms,
        received_ms=received_ms,
        revision=revision,
        changes=changes,
        config=config,
        summary=summary,
        origin=origin,
    )


def _known(row: tuple[Any, ...]) -> KnownScope:
    _, tenant_key, scope_type, scope_id, revision, created_ms, received_ms, config = row
    return KnownScope(
        scope=Scope(tenant_key=tenant_key, scope_type=scope_type, scope_id=scope_id),
        known=Known(revision, created_ms, config),
        received_ms=received_ms,
    )
