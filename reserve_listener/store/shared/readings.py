"""What the platform's API says of rooms and levels, compared with what is known. Work for the writer's thread.

What must stay true: a reading is compared, and the result and the reading's own record are written, in one transaction. So a
difference becomes one event, however often that is interrupted and repeated. A push that the last reading may or may not
include marks its scope in the transaction that stores the push (`history.Remembered`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from msgspec.structs import replace

from reserve_listener.model import Asked, Finding, Found, HistoryEntry, Pass, Scope

if TYPE_CHECKING:
    import sqlite3

    from reserve_listener.model import Compared, Completed, Reading, Window
    from reserve_listener.protocols import Compare
    from reserve_listener.store.shared.appending import Appended, Appending
    from reserve_listener.store.shared.history import Remembered

ATTEMPTS: Final = 3
"""How often a scope is read again because of a doubt, before it waits for the next pass: a wrong clock would cause doubts for ever."""

PAGE: Final = 2_000
"""How many scopes one query reads: some milliseconds, during which commits wait."""

# The two smallest will do to see whether there is more than one. Each is found by the index.
TENANTS: Final = """
WITH RECURSIVE tenants (tenant_key) AS (
  SELECT min(tenant_key) FROM scopes WHERE tenant_key > ''
  UNION ALL
  SELECT (SELECT min(s.tenant_key) FROM scopes AS s WHERE s.tenant_key > t.tenant_key)
  FROM tenants AS t WHERE t.tenant_key IS NOT NULL LIMIT 4)
SELECT tenant_key FROM tenants WHERE tenant_key IS NOT NULL AND tenant_key <> ? LIMIT 2
"""

# What was asked for before anything was heard stands under the app's id.
ADOPT: Final = """
UPDATE OR IGNORE scopes SET tenant_key = ?1 WHERE tenant_key IN (SELECT app_id FROM passes WHERE app_id <> ?1)
"""

FOUND_SAME: Final = "UPDATE states SET created_ms = ? WHERE scope = ?"

READ: Final = """
INSERT INTO readings (scope, looked_ms, pass, from_ms, until_ms) VALUES (?, ?, ?, ?, ?)
ON CONFLICT (scope) DO UPDATE SET looked_ms = excluded.looked_ms, pass = max(pass, excluded.pass),
  from_ms = excluded.from_ms, until_ms = excluded.until_ms, doubt = 0
"""

# It stays where it is in the pass: what was not read is read again.
OUTDATED: Final = """
INSERT INTO readings (scope, looked_ms, doubt) VALUES (?, ?, 1)
ON CONFLICT (scope) DO UPDATE SET looked_ms = excluded.looked_ms, doubt = doubt + 1
"""

ASKED_IN_VAIN: Final = """
INSERT INTO readings (scope, looked_ms, pass) VALUES (?, ?, ?)
ON CONFLICT (scope) DO UPDATE SET looked_ms = excluded.looked_ms, pass = max(pass, excluded.pass), doubt = 0
"""

ASKED: Final = """
SELECT s.id, s.scope_type, s.scope_id, coalesce(r.looked_ms, 0), coalesce(r.pass, 0), r.until_ms IS NOT NULL
FROM scopes AS s LEFT JOIN readings AS r ON r.scope = s.id LEFT JOIN states AS t ON t.scope = s.id
WHERE s.id > ? AND s.tenant_key = ? AND (r.scope IS NOT NULL OR t.scope IS NOT NULL) ORDER BY s.id LIMIT ?
"""

IN_DOUBT: Final = """
SELECT s.scope_type, s.scope_id FROM readings AS r JOIN scopes AS s ON s.id = r.scope
WHERE r.doubt > 0 AND r.doubt <= ? AND s.tenant_key = ? ORDER BY r.looked_ms LIMIT ?
"""

LATEST: Final = (
    "SELECT number, started_ms, ended_ms, differences, not_read, last_ended_ms FROM passes WHERE app_id = ?"
)

APPS: Final = "SELECT app_id FROM passes"

KNOW_APP: Final = "INSERT OR IGNORE INTO passes (app_id, number, started_ms, ended_ms) VALUES (?, 0, 0, 0)"

BEGIN: Final = """
INSERT INTO passes (app_id, number, started_ms) VALUES (?1, (SELECT coalesce(max(number), 0) + 1 FROM passes), ?2)
ON CONFLICT (app_id) DO UPDATE SET number = excluded.number, started_ms = excluded.started_ms, ended_ms = NULL,
  differences = 0, not_read = 0
RETURNING number, last_ended_ms
"""

COUNT_DIFFERENCE: Final = "UPDATE passes SET differences = differences + 1 WHERE number = ?"

# Once for each scope, however often it is said.
COUNT_NOT_READ: Final = """
UPDATE passes SET not_read = not_read + 1 WHERE number = ?1
  AND NOT EXISTS (SELECT 1 FROM readings AS r WHERE r.scope = ?2 AND r.pass >= ?1)
"""

END: Final = "UPDATE passes SET ended_ms = ?1, last_ended_ms = ?1 WHERE app_id = ?2 AND ended_ms IS NULL"

# What was missed in a gap is found by the end of a pass that began after it; some of it before, by whoever asked for a room
# since the connection was lost. The oldest entry that counts is looked for from the newest back: no further than to the gap.
END_GAPS: Final = """
UPDATE gaps SET not_read = p.not_read, found = (
  SELECT count(*) FROM history AS h WHERE h.origin = 'reconcile' AND h.seq > coalesce((
    SELECT b.seq FROM history AS b WHERE b.received_ms < gaps.from_ms ORDER BY b.seq DESC LIMIT 1), 0))
FROM passes AS p
WHERE p.app_id = gaps.app_id AND gaps.app_id = ? AND gaps.found IS NULL AND gaps.to_ms <= p.started_ms
"""


def adopt(tenant_key: str, connection: sqlite3.Connection) -> bool:
    """The tenant's first event has come: give it what was stored under the app's id. Returns whether there was anything."""
    return bool(tenant_key) and connection.execute(ADOPT, (tenant_key,)).rowcount > 0


def apps(connection: sqlite3.Connection) -> set[str]:
    """The apps' ids. What is stored under one of them belongs to a tenant that is not known yet."""
    return {app_id for (app_id,) in connection.execute(APPS)}


def tenant_of(app_id: str, connection: sqlite3.Connection) -> str | None:
    """The tenant whose limits the app reads; the app's own id while no event has named one, None if events name several."""
    tenants = [tenant for (tenant,) in connection.execute(TENANTS, (app_id,))]
    return None if len(tenants) > 1 else tenants[0] if tenants else app_id


class Comparing:
    """One reading on its way into the store. `number`: its pass; 0: none."""

    def __init__(self, reading: Reading, compare: Compare, *, number: int, now_ms: int) -> None:
        self._reading = reading
        self._compare = compare
        self._number = number
        self._now_ms = now_ms
        self.appended: Appended | None = None
        """The event that the reading became, if it did."""
        self.told_bytes = 0
        """The size of a baseline."""

    def try_out(self, appending: Appending, connection: sqlite3.Connection) -> Found:
        """What the reading would result in; nothing is kept."""
        connection.execute("BEGIN")
        try:
            return self.take(appending, connection)
        finally:
            self.appended, self.told_bytes = None, 0
            if connection.in_transaction:
                connection.execute("ROLLBACK")

    def take(self, appending: Appending, connection: sqlite3.Connection) -> Found:
        """Compare the reading and write the result."""
        self.appended, self.told_bytes = None, 0
        reading = self._reading
        whose = scope_of(reading.asked_for, connection)
        if whose is None:
            return Found(Finding.SEVERAL_TENANTS)
        scope = appending.scope_number(whose, connection)
        remembered = appending.remembered((scope,), connection)
        reading = _after(remembered.window(scope), reading)
        compared = self._compare(reading, whose.tenant_key, remembered.of(scope))
        if compared.finding is Finding.OUTDATED:
            connection.execute(OUTDATED, (scope, self._now_ms))
            return Found(Finding.OUTDATED)
        entry = self._write(compared, scope, appending, remembered, connection)
        window = reading.window
        connection.execute(READ, (scope, self._now_ms, self._number, window.from_ms, window.until_ms))
        return Found(compared.finding, entry)

    def _write(
        self,
        compared: Compared,
        scope: int,
        appending: Appending,
        remembered: Remembered,
        connection: sqlite3.Connection,
    ) -> HistoryEntry | None:
        event, completed, known = compared.event, compared.completed, compared.known
        if event is not None and completed is not None:
            event = replace(event, body=completed.body)
            tenant_known = event.tenant_key != self._reading.app_id
            self.appended = appending.put(
                event, scope, completed, remembered, connection, tenant_known=tenant_known
            )
            connection.execute(COUNT_DIFFERENCE, (self._number,))
            return _entry(self.appended, completed)
        if known is not None and compared.finding is Finding.SAME:
            connection.execute(FOUND_SAME, (known.created_ms, scope))
        elif known is not None:
            remembered.keep(scope, known, self._reading.received_ms)
            remembered.write()
            self.told_bytes = len(known.config)
        return None


def _after(last: Window | None, reading: Reading) -> Reading:
    """The reading, dated no earlier than the scope's last one, which had ended when this one began.

    The answers alone do not show that: their `Date` counts whole seconds, so of two readings within one second the slower one
    would look older. If the platform's clocks contradict each other, the answer's time stands.
    """
    if last is None or not reading.as_of_ms < last.from_ms <= reading.until_ms:
        return reading
    return replace(reading, as_of_ms=last.from_ms)


def scope_of(asked_for: Scope, connection: sqlite3.Connection) -> Scope | None:
    """The scope with its tenant in place of the app's id, under which it is asked for; None if there are several tenants."""
    app_id = asked_for.tenant_key
    tenant_key = tenant_of(app_id, connection)
    if tenant_key == app_id:  # so that it is found again when the first event comes
        connection.execute(KNOW_APP, (app_id,))
    return None if tenant_key is None else replace(asked_for, tenant_key=tenant_key)


def asked_in_vain(
    asked_for: Scope,
    number: int,
    now_ms: int,
    appending: Appending,
    connection: sqlite3.Connection,
    *,
    gone: bool,
) -> None:
    """The scope was asked for in vain, and this pass has finished with it."""
    whose = scope_of(asked_for, connection)
    if whose is None:
        return
    scope = appending.scope_number(whose, connection)
    if not gone:
        connection.execute(COUNT_NOT_READ, (number, scope))
    connection.execute(ASKED_IN_VAIN, (scope, now_ms, number))


def asked(app_id: str, after: int, connection: sqlite3.Connection) -> list[tuple[int, Asked]]:
    """A page of the scopes that are known or were asked for, each with its number, after that number."""
    rows = connection.execute(ASKED, (after, tenant_of(app_id, connection), PAGE)).fetchall()
    return [
        (number, Asked(scope_type, scope_id, looked_ms, in_pass, bool(was_read)))
        for number, scope_type, scope_id, looked_ms, in_pass, was_read in rows
    ]


def in_doubt(app_id: str, limit: int, connection: sqlite3.Connection) -> list[tuple[str, str]]:
    """The scopes (type, id) to read again."""
    return connection.execute(IN_DOUBT, (ATTEMPTS, tenant_of(app_id, connection), limit)).fetchall()


def last_pass(app_id: str, connection: sqlite3.Connection) -> Pass | None:
    """The pass in progress, or the one that ended last."""
    row = connection.execute(LATEST, (app_id,)).fetchone()
    return None if row is None else Pass(*row)


def begin_pass(app_id: str, now_ms: int, connection: sqlite3.Connection) -> Pass:
    """Begin a new pass in place of the last."""
    number, last_ended_ms = connection.execute(BEGIN, (app_id, now_ms)).fetchone()
    return Pass(number, now_ms, None, 0, 0, last_ended_ms)


def end_pass(app_id: str, now_ms: int, connection: sqlite3.Connection) -> Pass | None:
    """End the pass, and with it the gaps that were over when it began."""
    connection.execute(END, (now_ms, app_id))
    connection.execute(END_GAPS, (app_id,))
    return last_pass(app_id, connection)


def _entry(appended: Appended, completed: Completed) -> HistoryEntry:
    event = appended.event
    if event.scope is None:
        raise ValueError("a reading is of a scope")
    return HistoryEntry(
        seq=appended.seq,
        event_id=event.event_id,
        scope=event.scope,
        created_ms=event.created_ms,
        received_ms=event.received_ms,
        revision=completed.revision,
        changes=completed.changes,
        config=completed.config,
        summary=completed.summary,
        origin=event.origin,
    )
