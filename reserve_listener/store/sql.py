"""The statements, by name."""

from __future__ import annotations

from typing import Final

APPEND_EVENT: Final = """
INSERT INTO events (tenant_key, event_id, scope, created_ms, received_ms, raw, body, problem)
VALUES (?, ?, ?, ?, ?, ?, ?, ?)
ON CONFLICT (tenant_key, event_id) DO NOTHING
RETURNING seq
"""

FIND_SCOPE: Final = "SELECT id FROM scopes WHERE tenant_key = ? AND scope_type = ? AND scope_id = ?"

ADD_SCOPE: Final = "INSERT INTO scopes (tenant_key, scope_type, scope_id) VALUES (?, ?, ?) RETURNING id"

ADD_DELIVERIES: Final = """
INSERT INTO deliveries (seq, sink, scope) SELECT ?, id, ? FROM sinks WHERE configured
"""

# A failed delivery has a due time; while it lies ahead, later deliveries of the same scope stay behind it.
CLAIM: Final = """
SELECT d.seq, e.event_id, d.scope, d.attempts, e.received_ms + d.held_ms, e.body
FROM deliveries AS d INDEXED BY deliveries_pending
JOIN events AS e ON e.seq = d.seq
WHERE d.sink = :sink AND d.state = 0 AND d.due_ms <= :now
  AND d.seq NOT IN (SELECT value FROM json_each(:excluding))
  AND NOT EXISTS (
    SELECT 1 FROM deliveries AS w INDEXED BY deliveries_waiting
    WHERE w.sink = d.sink AND w.scope = d.scope AND w.seq < d.seq
      AND w.state = 0 AND w.due_ms > 0 AND w.due_ms > :now)
ORDER BY d.seq
"""

NEXT_DUE: Final = """
SELECT min(due_ms) FROM deliveries INDEXED BY deliveries_due
WHERE sink = ? AND state = 0 AND due_ms > 0 AND due_ms > ?
"""

SETTLE: Final = """
UPDATE deliveries SET state = ?, attempts = ?, due_ms = ?, settled_ms = ?, last_error = ?
WHERE seq = ? AND sink = ? AND state = 0
"""

KNOW_SINK: Final = """
INSERT INTO sinks (name) VALUES (?) ON CONFLICT (name) DO UPDATE SET configured = 1 RETURNING id
"""

SINKS: Final = "SELECT name FROM sinks ORDER BY id"

FORGET_SINKS: Final = """
UPDATE sinks SET configured = 0 WHERE name NOT IN (SELECT value FROM json_each(?))
"""

BURY_REMOVED: Final = """
UPDATE deliveries SET state = 2, settled_ms = ?, last_error = 'sink removed'
WHERE state = 0 AND sink IN (SELECT id FROM sinks WHERE NOT configured)
"""

BACKLOG: Final = """
SELECT s.name, count(d.seq) FROM sinks AS s
LEFT JOIN deliveries AS d INDEXED BY deliveries_pending ON d.sink = s.id AND d.state = 0
WHERE s.configured GROUP BY s.name
"""

KNOW_APP: Final = """
INSERT INTO apps (app_id, last_connected_ms) VALUES (?, ?)
ON CONFLICT (app_id) DO UPDATE SET last_connected_ms = excluded.last_connected_ms
"""

APP_LAST_CONNECTED: Final = "SELECT last_connected_ms FROM apps WHERE app_id = ?"

RECORD_GAP: Final = "INSERT OR IGNORE INTO gaps (app_id, from_ms, to_ms) VALUES (?, ?, ?)"

# What a person asks for: every filter that is given has to fit. A sink that is not configured has no worker.
_MATCHING = """
(:event_id IS NULL OR e.event_id = :event_id)
  AND (:scope_id IS NULL OR c.scope_id = :scope_id)
  AND (:since_ms IS NULL OR e.received_ms >= :since_ms)
  AND (:sink IS NULL OR k.name = :sink)
"""

_DEAD = f"""
FROM deliveries AS d INDEXED BY deliveries_dead
JOIN events AS e ON e.seq = d.seq JOIN scopes AS c ON c.id = d.scope JOIN sinks AS k ON k.id = d.sink
WHERE d.state = 2 AND {_MATCHING}
"""  # fixed texts only

LIST_DEAD: Final = f"""
SELECT d.seq, k.name, k.configured, e.event_id, c.tenant_key, c.scope_type, c.scope_id, d.attempts, d.settled_ms, d.last_error
{_DEAD} ORDER BY d.settled_ms, d.seq LIMIT :limit
"""

RETRY_DEAD: Final = f"""
UPDATE deliveries SET state = 0, attempts = 0, due_ms = 0, settled_ms = NULL,
  held_ms = :now_ms - (SELECT received_ms FROM events WHERE events.seq = deliveries.seq)
WHERE (seq, sink) IN (SELECT d.seq, d.sink {_DEAD} AND k.configured)
"""  # noqa: S608

DROP_DEAD: Final = f"DELETE FROM deliveries WHERE (seq, sink) IN (SELECT d.seq, d.sink {_DEAD})"  # noqa: S608

# Once more to every configured sink; what is still pending stays as it is.
REPLAY: Final = f"""
INSERT INTO deliveries (seq, sink, scope, held_ms)
SELECT e.seq, k.id, e.scope, :now_ms - e.received_ms
FROM events AS e JOIN scopes AS c ON c.id = e.scope JOIN sinks AS k ON k.configured
WHERE e.body IS NOT NULL AND {_MATCHING}
ON CONFLICT (seq, sink) DO UPDATE
SET state = 0, attempts = 0, due_ms = 0, settled_ms = NULL, last_error = NULL, held_ms = excluded.held_ms
WHERE state <> 0
"""  # noqa: S608

LIST_EVENTS: Final = """
SELECT e.seq, e.tenant_key, e.event_id, e.received_ms, e.created_ms,
       s.tenant_key, s.scope_type, s.scope_id, e.body, e.raw, e.problem
FROM events AS e LEFT JOIN scopes AS s ON s.id = e.scope
WHERE (:event_id IS NULL OR e.event_id = :event_id)
  AND (:scope_id IS NULL OR s.scope_id = :scope_id)
  AND (:since_ms IS NULL OR e.received_ms >= :since_ms)
  AND (:sink IS NULL OR e.seq IN (
    SELECT d.seq FROM deliveries AS d JOIN sinks AS k ON k.id = d.sink WHERE k.name = :sink))
  AND (NOT :unreadable OR e.body IS NULL)
  AND e.seq > :after_seq
ORDER BY e.seq DESC LIMIT :limit
"""

DELIVERIES_OF: Final = """
SELECT s.name, d.state, d.attempts, d.due_ms, d.settled_ms, d.last_error
FROM deliveries AS d JOIN sinks AS s ON s.id = d.sink WHERE d.seq = ? ORDER BY s.id
"""
