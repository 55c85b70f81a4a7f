"""Computes the history of a store that an older version filled, from the events that are still in it.

What must stay true: a scope's events are taken in the order of storing, each once, however often this is interrupted; and an
event that arrives meanwhile finds its scope rebuilt. The bodies of old events stay as they were sent.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import msgspec
import structlog

from reserve_listener.model import IncomingEvent
from reserve_listener.store.shared.history import Remembered

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Collection

    from reserve_listener.protocols import Complete

log = structlog.get_logger("store")

CHUNK_EVENTS: Final = 200
"""How many events one transaction takes: some hundredths of a second, so that no push waits for all of them."""

LEFT: Final = "SELECT EXISTS (SELECT 1 FROM unbuilt)"

UNBUILT_AMONG: Final = """
SELECT DISTINCT scope FROM unbuilt WHERE scope IN (SELECT value FROM json_each(?))
"""

_NEXT = """
SELECT u.scope, u.seq, e.tenant_key, e.event_id, e.created_ms, e.received_ms, e.body
FROM unbuilt AS u LEFT JOIN events AS e ON e.seq = u.seq {} ORDER BY u.scope, u.seq LIMIT :limit
"""

NEXT: Final = _NEXT.format("")

NEXT_OF_SCOPE: Final = _NEXT.format("WHERE u.scope = :scope")

DONE: Final = "DELETE FROM unbuilt WHERE scope = ? AND seq = ?"


def is_left(connection: sqlite3.Connection) -> bool:
    """Whether anything is left to rebuild."""
    return bool(connection.execute(LEFT).fetchone()[0])


def some(complete: Complete, connection: sqlite3.Connection) -> bool:
    """Rebuild a chunk. Returns whether that was the last."""
    return _rebuild(None, complete, connection) < CHUNK_EVENTS


def finish(scopes: Collection[int], complete: Complete, connection: sqlite3.Connection) -> None:
    """Rebuild what is left of these scopes."""
    asked = msgspec.json.encode(list(scopes)).decode()
    for (scope,) in connection.execute(UNBUILT_AMONG, (asked,)).fetchall():
        while _rebuild(scope, complete, connection) == CHUNK_EVENTS:
            pass


def _rebuild(scope: int | None, complete: Complete, connection: sqlite3.Connection) -> int:
    statement = NEXT if scope is None else NEXT_OF_SCOPE
    rows = connection.execute(statement, {"scope": scope, "limit": CHUNK_EVENTS}).fetchall()
    remembered = Remembered({row[0] for row in rows}, connection)
    for number, seq, tenant_key, event_id, created_ms, received_ms, body in rows:
        if body is None:  # dropped at the size bound
            continue
        event = IncomingEvent(
            tenant_key=tenant_key,
            event_id=event_id,
            raw=b"",
            received_ms=received_ms,
            created_ms=created_ms,
            body=body,
        )
        try:
            completed = complete(event, remembered.of(number))
        except Exception:  # what is wrong with one old event must not stop the others, or a push of its scope
            log.exception("event.not_rebuilt", event_id=event_id)
            continue
        if completed is not None:
            remembered.take(seq, number, event, completed)
    remembered.write()
    connection.executemany(DONE, [row[:2] for row in rows])
    return len(rows)
