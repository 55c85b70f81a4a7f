"""The history of all rooms and levels together, for the page. Work that only reads, on any connection.

What must stay true: a page of the feed costs what it shows, however long the history is. So times are first turned into
positions in the order of storing, and for a selection of rooms only the index by scope is searched before any row is read.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import msgspec

from reserve_listener.model import HourFigures

if TYPE_CHECKING:
    import sqlite3

    from reserve_listener.model import ChangeQuery

_COLUMNS = """
SELECT h.seq, s.tenant_key, s.scope_type, s.scope_id, h.event_id, h.created_ms, h.received_ms, h.revision, h.changes,
  h.config, h.summary, h.origin
"""

# A path stands in the JSON as it is; within a value its quotes would be escaped.
_MATCHING = """
  h.seq >= :from_seq AND h.seq < :to_seq
  AND (:since_ms IS NULL OR h.received_ms >= :since_ms) AND (:until_ms IS NULL OR h.received_ms < :until_ms)
  AND (:section IS NULL OR instr(h.changes, '"path":"' || :section || '.') > 0)
"""

_ALL = """
{columns} FROM history AS h CROSS JOIN scopes AS s ON s.id = h.scope
WHERE {matching} ORDER BY h.seq DESC LIMIT :limit
"""

_OF_SOME = """
{columns} FROM history AS h CROSS JOIN scopes AS s ON s.id = h.scope WHERE h.seq IN (
  SELECT h.seq FROM history AS h INDEXED BY history_scope WHERE {matching} AND h.scope IN (
    SELECT id FROM scopes WHERE (:scope_type IS NULL OR scope_type = :scope_type)
      AND (:scopes IS NULL OR (scope_type, scope_id) IN (
        SELECT json_extract(value, '$[0]'), json_extract(value, '$[1]') FROM json_each(:scopes))))
  ORDER BY h.seq DESC LIMIT :limit)
ORDER BY h.seq DESC
"""

# Of events only the index is gone through. What is pruned is not found: it has no event to look at.
_OF_EVENTS = """
{columns} FROM events AS e INDEXED BY events_identity CROSS JOIN history AS h ON h.seq = e.seq
  CROSS JOIN scopes AS s ON s.id = h.scope
WHERE substr(e.event_id, 1, length(:event_start)) = :event_start AND {matching} ORDER BY h.seq DESC LIMIT :limit
"""

CHANGES: Final = _ALL.format(columns=_COLUMNS, matching=_MATCHING)
CHANGES_OF: Final = _OF_SOME.format(columns=_COLUMNS, matching=_MATCHING)
CHANGES_OF_EVENTS: Final = _OF_EVENTS.format(columns=_COLUMNS, matching=_MATCHING)

NEXT: Final = "SELECT seq, received_ms FROM history WHERE seq >= ? ORDER BY seq LIMIT 1"
LAST: Final = "SELECT seq FROM history ORDER BY seq DESC LIMIT 1"

# The deliveries' own index is by seq: each is looked up beside its event.
HOURS: Final = """
SELECT hour, count(*), sum(delivered), sum(late), max(slowest) FROM (
  SELECT (h.received_ms - :since_ms) / 3600000 AS hour,
    (SELECT count(*) FROM deliveries AS d WHERE d.seq = h.seq AND d.state = 1) AS delivered,
    (SELECT count(*) FROM deliveries AS d WHERE d.seq = h.seq AND d.state = 1
      AND d.settled_ms - h.received_ms - d.held_ms > :late_ms) AS late,
    (SELECT max(d.settled_ms - h.received_ms - d.held_ms) FROM deliveries AS d WHERE d.seq = h.seq AND d.state = 1)
      AS slowest
  FROM history AS h WHERE h.seq >= :from_seq AND h.received_ms >= :since_ms)
GROUP BY hour ORDER BY hour
"""

SEVERAL_TENANTS: Final = """
SELECT EXISTS (SELECT 1 FROM scopes WHERE tenant_key > (SELECT min(tenant_key) FROM scopes))
"""


def changes(query: ChangeQuery, limit: int, connection: sqlite3.Connection) -> list[Any]:
    """The rows, the newest first."""
    last = connection.execute(LAST).fetchone()
    if last is None:
        return []
    to_seq = last[0] + 1 if query.before_seq is None else query.before_seq
    if query.until_ms is not None:
        to_seq = min(to_seq, first_since(query.until_ms, last[0], connection))
    values = {
        "from_seq": 0 if query.since_ms is None else first_since(query.since_ms, last[0], connection),
        "to_seq": to_seq,
        "since_ms": query.since_ms,
        "until_ms": query.until_ms,
        "section": query.section,
        "limit": limit,
    }
    if query.event_start is not None:
        return connection.execute(CHANGES_OF_EVENTS, values | {"event_start": query.event_start}).fetchall()
    if query.scopes is None and query.scope_type is None:
        return connection.execute(CHANGES, values).fetchall()
    scopes = None if query.scopes is None else msgspec.json.encode(sorted(query.scopes)).decode()
    return connection.execute(
        CHANGES_OF, values | {"scope_type": query.scope_type, "scopes": scopes}
    ).fetchall()


def hours(since_ms: int, late_ms: int, connection: sqlite3.Connection) -> list[HourFigures]:
    """See `StoreReader.hours`."""
    last = connection.execute(LAST).fetchone()
    if last is None:
        return []
    values = {
        "from_seq": first_since(since_ms, last[0], connection),
        "since_ms": since_ms,
        "late_ms": late_ms,
    }
    rows = connection.execute(HOURS, values).fetchall()
    return [
        HourFigures(hour, count, delivered or 0, late or 0, max(0, slowest or 0))
        for hour, count, delivered, late, slowest in rows
    ]


def first_since(moment_ms: int, last: int, connection: sqlite3.Connection) -> int:
    """The first entry of that time or later, by binary search: entries are roughly in the order of their age."""
    low, high = 0, last + 1
    while low < high:
        middle = (low + high) // 2
        seq, received_ms = connection.execute(NEXT, (middle,)).fetchone()
        if received_ms >= moment_ms:
            high = middle
        else:
            low = seq + 1
    return low
