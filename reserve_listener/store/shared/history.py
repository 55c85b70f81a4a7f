"""What is known of rooms and levels, and how it came about. Work for the writer's thread, in its transaction.

What must stay true: a scope's state is what its history leads to, so both are written together; and a state is never dropped.
Statements are few, for the reason that `appending` gives.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import msgspec

from reserve_listener.model import Known, Window
from reserve_listener.store.shared.rows import insert

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Collection, Mapping, Sequence

    from reserve_listener.model import Completed, IncomingEvent

CHUNK_ROWS: Final = 100
"""How many entries are dropped at once, so that no more go than are needed to make room."""

KNOWN: Final = """
SELECT json_group_array(json_array(t.scope, json_array(t.revision, t.created_ms, t.config), r.from_ms, r.until_ms))
FROM states AS t LEFT JOIN readings AS r ON r.scope = t.scope WHERE t.scope IN (SELECT value FROM json_each(?))
"""

KEEP_STATES: Final = """
INSERT INTO states (scope, revision, created_ms, received_ms, config) VALUES
ON CONFLICT (scope) DO UPDATE SET revision = excluded.revision, created_ms = excluded.created_ms,
  received_ms = excluded.received_ms, config = excluded.config
"""

ADD_HISTORY: Final = """
INSERT INTO history (seq, scope, event_id, created_ms, received_ms, revision, changes, config, summary, origin) VALUES
"""

# Some later read counts; until then it is the first attempt again.
DOUBT: Final = "UPDATE readings SET doubt = max(doubt, 1) WHERE scope = ?"

CHANGES_OF: Final = """
SELECT json_group_array(json_array(seq, revision, changes)) FROM history
WHERE seq IN (SELECT value FROM json_each(?))
"""

_HISTORY = """
SELECT h.seq, s.tenant_key, s.scope_type, s.scope_id, h.event_id, h.created_ms, h.received_ms, h.revision, h.changes,
  h.config, h.summary, h.origin
FROM scopes AS s CROSS JOIN history AS h ON h.scope = s.id WHERE s.scope_id = :scope_id
"""

HISTORY_OF: Final = f"""{_HISTORY}
  AND (:since_ms IS NULL OR h.received_ms >= :since_ms) AND (:until_ms IS NULL OR h.received_ms < :until_ms)
  AND (:before_seq IS NULL OR h.seq < :before_seq)
ORDER BY h.seq DESC LIMIT :limit
"""

CHANGES_AFTER: Final = """
SELECT h.seq, s.tenant_key, s.scope_type, s.scope_id, h.event_id, h.created_ms, h.received_ms, h.revision, h.changes,
  h.config, h.summary, h.origin
FROM history AS h CROSS JOIN scopes AS s ON s.id = h.scope WHERE h.seq > :after_seq ORDER BY h.seq LIMIT :limit
"""

NEWEST_CHANGE: Final = "SELECT coalesce(max(seq), 0) FROM history"

# A late push says nothing of what was known. What came later is never older, so the last that is old enough counts.
KNOWN_AT: Final = f"""{_HISTORY}
  AND h.revision IS NOT NULL AND coalesce(h.created_ms, h.received_ms) <= :at_ms ORDER BY h.seq DESC LIMIT 1
"""

STATES_AFTER: Final = """
SELECT s.id, s.tenant_key, s.scope_type, s.scope_id, t.revision, t.created_ms, t.received_ms, t.config
FROM scopes AS s CROSS JOIN states AS t ON t.scope = s.id
WHERE s.id > :after AND (:scope_id IS NULL OR s.scope_id = :scope_id) ORDER BY s.id LIMIT :limit
"""

RECEIVED_AT: Final = "UPDATE history SET received_ms = ? WHERE seq = ?"

# The oldest first, and no further than to the first that stays: they came about in the order of their age.
DROP_HISTORY: Final = """
DELETE FROM history WHERE seq IN (SELECT seq FROM history ORDER BY seq LIMIT ?) AND received_ms < ?
"""

_Paths = tuple[str, ...] | None

_decode_known = msgspec.json.Decoder(list[tuple[int, Known, int | None, int | None]]).decode
_decode_changes = msgspec.json.Decoder(list[tuple[int, int | None, str | None]]).decode


class _Change(msgspec.Struct, gc=False):
    path: str


_decode_paths = msgspec.json.Decoder(list[_Change]).decode


class Remembered:
    """What is known of some scopes, read once; what changes is written once, by `write`."""

    def __init__(self, scopes: Collection[int], connection: sqlite3.Connection) -> None:
        self._connection = connection
        found = _found(scopes, connection)
        self._known = {scope: known for scope, known, _, _ in found}
        self._windows = {
            scope: Window(start, end)
            for scope, _, start, end in found
            if start is not None and end is not None
        }
        self._doubted: set[int] = set()
        self._states: dict[int, tuple[Any, ...]] = {}
        self._history: list[tuple[Any, ...]] = []

    def of(self, scope: int) -> Known | None:
        """What is known of the scope by now."""
        return self._known.get(scope)

    def window(self, scope: int) -> Window | None:
        """The window of the scope's last reading."""
        return self._windows.get(scope)

    def take(self, seq: int, scope: int, event: IncomingEvent, completed: Completed) -> bool:
        """Add an event to the history; the next one is compared with the state after it.

        Returns whether the scope has to be read again, since nobody can tell if its last reading includes this event.
        """
        if (known := completed.known) is not None:
            self._known[scope] = known
            self._states[scope] = (
                scope,
                known.revision,
                known.created_ms,
                event.received_ms,
                known.config,
            )
        self._history.append(
            (
                seq,
                scope,
                event.event_id,
                event.created_ms,
                event.received_ms,
                completed.revision,
                completed.changes,
                completed.config,
                completed.summary,
                event.origin,
            )
        )
        window = self._windows.get(scope)
        in_doubt = window is not None and event.origin is None and window.may_hold(event.created_ms)
        if in_doubt:
            self._doubted.add(scope)
        return in_doubt

    def keep(self, scope: int, known: Known, received_ms: int) -> None:
        """Set the state of the scope without an event."""
        self._states[scope] = (scope, known.revision, known.created_ms, received_ms, known.config)

    def write(self) -> None:
        """Write the states, the history, and which scopes to read again."""
        insert(self._connection, KEEP_STATES, list(self._states.values()))
        insert(self._connection, ADD_HISTORY, self._history)
        if self._doubted:
            self._connection.executemany(DOUBT, [(scope,) for scope in self._doubted])


def known_of(scopes: Collection[int], connection: sqlite3.Connection) -> dict[int, Known]:
    """The states of these scopes, as far as there are any."""
    return {scope: known for scope, known, _, _ in _found(scopes, connection)}


def _found(
    scopes: Collection[int], connection: sqlite3.Connection
) -> list[tuple[int, Known, int | None, int | None]]:
    if not scopes:
        return []
    (found,) = connection.execute(KNOWN, (msgspec.json.encode(list(scopes)).decode(),)).fetchone()
    return _decode_known(found)


def paths_of(seqs: Sequence[int], connection: sqlite3.Connection) -> Mapping[int, _Paths]:
    """What each of these events changes, for the filters of sinks: None at first sight. Events without history are left out."""
    (found,) = connection.execute(CHANGES_OF, (msgspec.json.encode(seqs).decode(),)).fetchone()
    return {seq: _paths(revision, changes) for seq, revision, changes in _decode_changes(found)}


def drop(before_ms: int, connection: sqlite3.Connection) -> int:
    """Drop a chunk of the history stored before that time. Returns how many; if fewer than `CHUNK_ROWS`, that was all."""
    return connection.execute(DROP_HISTORY, (CHUNK_ROWS, before_ms)).rowcount


def _paths(revision: int | None, changes: str | None) -> _Paths:
    if changes is None:
        return () if revision is None else None
    return tuple(change.path for change in _decode_paths(changes))
