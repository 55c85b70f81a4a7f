"""How events get in: one by one, or many in three statements. Work for the writer's thread, inside its transaction.

Python gives up its lock around each step of SQLite and has to wait for it again while the loop is busy; with five
statements an event that wait is what a burst mostly costs. So many events go over as one JSON array (what is small) and
one blob (payloads and bodies, cut up by SQLite), and SQLite does the rest on the other core. Both ways do the same:
`tests/test_appending.py` holds them against each other.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import msgspec

from reserve_listener.model import Verdict
from reserve_listener.store import sql

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Iterator, Sequence

    from reserve_listener.model import IncomingEvent, Route

_encode = msgspec.json.Encoder().encode

_NUL: Final = b"\\u0000"
"""SQLite's JSON ends a text there; its columns do not."""

PORTION_BYTES: Final = 16 * 1024 * 1024
"""What is joined into one blob, and copied once more by SQLite, at the most: a full commit of usual events is half of it, and
large ones must not be in memory three times over."""

Outlets = tuple[tuple[int, "Route"], ...]
"""The sinks by their numbers, each with its route."""


def append(
    event: IncomingEvent, sinks: Sequence[tuple[int, Route]], connection: sqlite3.Connection
) -> Verdict:
    """Store one event."""
    scope = _scope_number(event, connection)
    row = connection.execute(
        sql.APPEND_EVENT,
        (
            event.tenant_key,
            event.event_id,
            scope,
            event.created_ms,
            event.received_ms,
            event.raw,
            event.body,
            event.problem,
        ),
    ).fetchone()
    if row is None:
        return Verdict.DUPLICATE
    if event.scope is None:
        return Verdict.UNREADABLE
    for sink, route in sinks:
        if route.takes(event.scope):
            connection.execute(sql.ADD_DELIVERY, (row[0], sink, scope))
    return Verdict.STORED


def _scope_number(event: IncomingEvent, connection: sqlite3.Connection) -> int | None:
    if event.scope is None:
        return None
    key = (event.scope.tenant_key, event.scope.scope_type, event.scope.scope_id)
    row = (
        connection.execute(sql.FIND_SCOPE, key).fetchone()
        or connection.execute(sql.ADD_SCOPE, key).fetchone()
    )
    return int(row[0])


def append_all(
    items: Sequence[tuple[IncomingEvent, Outlets]], connection: sqlite3.Connection
) -> list[Verdict]:
    """Store many, in their order; a verdict for each."""
    verdicts: list[Verdict] = []
    for some in _portions(items):
        verdicts += _append_some(some, connection)
    return verdicts


def _portions(
    items: Sequence[tuple[IncomingEvent, Outlets]],
) -> Iterator[Sequence[tuple[IncomingEvent, Outlets]]]:
    """As many at once as `PORTION_BYTES` allow, and at least one."""
    begin = size = 0
    for number, (event, _) in enumerate(items):
        size += len(event.raw) + len(event.body or b"")
        if size > PORTION_BYTES and number > begin:
            yield items[begin:number]
            begin, size = number, len(event.raw) + len(event.body or b"")
    yield items[begin:]


def _append_some(
    items: Sequence[tuple[IncomingEvent, Outlets]], connection: sqlite3.Connection
) -> list[Verdict]:
    if len(items) == 1:
        return _one_by_one(items, connection)
    first: dict[tuple[str, str], int] = {}
    for number, (event, _) in enumerate(items):
        if event.scope is None or not event.body or not event.raw:  # SQLite cuts NULL out of nothing
            return _one_by_one(items, connection)
        first.setdefault((event.tenant_key, event.event_id), number)
    numbers = list(first.values())  # what is in it twice is stored the first time and a duplicate the second
    blob, rows = _packed([items[number] for number in numbers])
    if _NUL in rows:
        return _one_by_one(items, connection)
    (newest,) = connection.execute(sql.NEWEST).fetchone()
    values = {"rows": rows.decode(), "blob": blob, "newest": newest or 0}
    connection.execute(sql.ADD_SCOPES, values)
    added = connection.execute(sql.APPEND_EVENTS, values).rowcount
    if added:
        connection.execute(sql.ADD_DELIVERIES, values)
    if added == len(items):
        return [Verdict.STORED] * added
    verdicts = [Verdict.DUPLICATE] * len(items)
    for (row,) in connection.execute(sql.APPENDED, values).fetchall():
        verdicts[numbers[row]] = Verdict.STORED
    return verdicts


def _one_by_one(
    items: Sequence[tuple[IncomingEvent, Outlets]], connection: sqlite3.Connection
) -> list[Verdict]:
    return [append(event, sinks, connection) for event, sinks in items]


def _packed(items: Sequence[tuple[IncomingEvent, Outlets]]) -> tuple[bytes, bytes]:
    """All payloads and bodies in one, and the rest as JSON; the columns are those of `sql.APPEND_EVENTS`."""
    rows: list[tuple[Any, ...]] = []
    pieces: list[bytes] = []
    place = 1
    for event, sinks in items:
        scope, raw, body = event.scope, event.raw, event.body or b""
        assert scope is not None  # noqa: S101  # as `append_all` has seen
        takers = [sink for sink, route in sinks if route.takes(scope)]
        rows.append(
            (
                event.tenant_key,
                event.event_id,
                scope.tenant_key,
                scope.scope_type,
                scope.scope_id,
                event.created_ms,
                event.received_ms,
                place,
                len(raw),
                len(body),
                takers,
            )
        )
        pieces += (raw, body)
        place += len(raw) + len(body)
    return b"".join(pieces), _encode(rows)
