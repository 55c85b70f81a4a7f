"""The statements, by name."""

from __future__ import annotations

from typing import Final

FIND_EVENT: Final = "SELECT 1 FROM events WHERE tenant_key = ? AND event_id = ?"

# Which of many: `?` is a JSON array of pairs.
KNOWN_EVENTS: Final = """
SELECT json_group_array(k.key) FROM json_each(?) AS k CROSS JOIN events AS e
  ON e.tenant_key = json_extract(k.value, '$[0]') AND e.event_id = json_extract(k.value, '$[1]')
"""

# The statements that end in VALUES are given rows of places for values (`appending`).
APPEND_EVENTS: Final = """
INSERT INTO events (seq, tenant_key, event_id, scope, created_ms, received_ms, raw, body, problem) VALUES """

APPEND_EVENT: Final = f"{APPEND_EVENTS}(?, ?, ?, ?, ?, ?, ?, ?, ?)"

FIND_SCOPE: Final = "SELECT id FROM scopes WHERE tenant_key = ? AND scope_type = ? AND scope_id = ?"

ADD_SCOPE: Final = "INSERT INTO scopes (tenant_key, scope_type, scope_id) VALUES (?, ?, ?) RETURNING id"

ADD_DELIVERIES: Final = "INSERT INTO deliveries (seq, sink, scope) VALUES "

ADD_DELIVERY: Final = f"{ADD_DELIVERIES}(?, ?, ?)"

# Of all events that there ever were: numbers are not given twice.
NEWEST_EVER: Final = "SELECT seq FROM sqlite_sequence WHERE name = 'events'"

MOVE_INBOX: Final = "UPDATE inbox SET inbox = ?, number = ?"

INBOX_POSITION: Final = "SELECT inbox, number FROM inbox"

# The inbox's own file.
INBOX_ID: Final = "SELECT id FROM inbox"

NEWEST_BATCH: Final = "SELECT max(number) FROM batches"

PUT_BATCH: Final = "INSERT INTO batches (number, events) VALUES (?, ?)"

BATCHES_AFTER: Final = "SELECT number, events FROM batches WHERE number > ? ORDER BY number"

COUNT_BATCHES_AFTER: Final = "SELECT count(*) FROM batches WHERE number > ?"

TOUCH_INBOX: Final = "UPDATE inbox SET id = id"

FREE_BATCHES: Final = "DELETE FROM batches WHERE number <= ?"

# What a claim looks at: the pending deliveries of a sink in order of arrival, within bounds, as one JSON array: see
# `appending` for what each step of SQLite costs. The plus signs keep SQLite off the index by scope, which would have to
# be sorted. The bodies are only measured here: SQLite need not read them for that.
PENDING_FROM: Final = """
SELECT json_group_array(json_array(
  p.seq, p.scope, attempts, due_ms, held_ms, e.event_id, e.received_ms, length(e.body), length(e.raw)))
FROM (
  SELECT seq, scope, attempts, due_ms, held_ms FROM deliveries
  WHERE seq > ? AND seq <= ? AND +sink = ? AND +state = 0 ORDER BY seq LIMIT ?) AS p
CROSS JOIN events AS e ON e.seq = p.seq
"""

PENDING_OF_SCOPE: Final = """
SELECT json_group_array(json_array(
  p.seq, p.scope, attempts, due_ms, held_ms, e.event_id, e.received_ms, length(e.body), length(e.raw)))
FROM (
  SELECT seq, scope, attempts, due_ms, held_ms FROM deliveries INDEXED BY deliveries_pending
  WHERE sink = ? AND scope = ? AND state = 0 ORDER BY seq LIMIT ?) AS p
CROSS JOIN events AS e ON e.seq = p.seq
"""

# Bodies (and payloads) one after the other, in the order of the numbers asked for.
BODIES: Final = """
SELECT CAST(group_concat(body, '') AS BLOB)
FROM (SELECT e.body AS body FROM json_each(?) AS j CROSS JOIN events AS e ON e.seq = j.value)
"""

BODIES_AND_RAW: Final = """
SELECT CAST(group_concat(body || raw, '') AS BLOB)
FROM (SELECT e.body AS body, e.raw AS raw FROM json_each(?) AS j CROSS JOIN events AS e ON e.seq = j.value)
"""

FIRST_PENDING: Final = (
    "SELECT min(seq) FROM deliveries INDEXED BY deliveries_pending WHERE sink = ? AND state = 0"
)

NEWEST: Final = "SELECT max(seq) FROM events"

PENDING_AGES: Final = """
SELECT d.seq, e.received_ms + d.held_ms, d.held_ms FROM deliveries AS d JOIN events AS e ON e.seq = d.seq
WHERE d.seq > ? AND d.seq <= ? AND +d.sink = ? AND +d.state = 0 ORDER BY d.seq
"""

RELEASE: Final = """
UPDATE deliveries INDEXED BY deliveries_due SET due_ms = 0 WHERE sink = ? AND state = 0 AND due_ms > 0
"""

BRING_FORWARD: Final = """
UPDATE deliveries INDEXED BY deliveries_due SET due_ms = :latest_ms
WHERE sink = :sink AND state = 0 AND due_ms > :latest_ms AND due_ms > 0
"""

SETTLE: Final = """
UPDATE deliveries SET state = ?, attempts = ?, due_ms = ?, settled_ms = ?, last_error = ?
WHERE seq = ? AND sink = ? AND state = 0
"""

# The same for many that were delivered, in one step. The plus keeps SQLite on the primary key.
SETTLE_DELIVERED: Final = """
UPDATE deliveries SET state = 1, attempts = ?, due_ms = 0, settled_ms = ?, last_error = NULL
WHERE seq IN (SELECT value FROM json_each(?)) AND sink = ? AND +state = 0
"""

ADD_ATTEMPT: Final = """
INSERT INTO attempts (seq, sink, number, at_ms, outcome, status, took_ms, error)
SELECT seq, sink,
  1 + (SELECT coalesce(max(number), 0) FROM attempts AS a WHERE a.seq = d.seq AND a.sink = d.sink),
  :at_ms, :outcome, :status, :took_ms, :error
FROM deliveries AS d WHERE seq = :seq AND sink = :sink
  AND NOT EXISTS (SELECT 1 FROM attempts AS a WHERE a.seq = d.seq AND a.sink = d.sink AND a.at_ms = :at_ms)
"""

DROP_OLD_ATTEMPTS: Final = """
DELETE FROM attempts WHERE seq = :seq AND sink = :sink AND number <= (
  SELECT max(number) - :kept FROM attempts WHERE seq = :seq AND sink = :sink)
"""

ATTEMPTS_OF: Final = """
SELECT s.name, a.at_ms, a.outcome, a.status, a.took_ms, a.error
FROM attempts AS a JOIN sinks AS s ON s.id = a.sink WHERE a.seq = ? ORDER BY a.sink, a.number
"""

LAST_FAILURES: Final = """
WITH failed AS (
  SELECT seq, sink, max(at_ms) AS at_ms FROM (
    SELECT seq, sink, at_ms FROM attempts INDEXED BY attempts_failed
    WHERE outcome <> 'delivered' ORDER BY at_ms DESC LIMIT :looked_at)
  GROUP BY seq, sink ORDER BY max(at_ms) DESC LIMIT :shown)
SELECT d.seq, k.name, e.event_id, c.tenant_key, c.scope_type, c.scope_id, d.state, d.due_ms, p.name
FROM failed AS f JOIN deliveries AS d ON d.seq = f.seq AND d.sink = f.sink
JOIN events AS e ON e.seq = d.seq JOIN scopes AS c ON c.id = d.scope JOIN sinks AS k ON k.id = d.sink
LEFT JOIN places AS p ON p.scope_type = c.scope_type AND p.scope_id = c.scope_id
ORDER BY f.at_ms DESC
"""

KNOW_SINK: Final = """
INSERT INTO sinks (name) VALUES (?) ON CONFLICT (name) DO UPDATE SET configured = 1 RETURNING id
"""

DISABLE_SINK: Final = """
UPDATE sinks SET disabled_ms = ?, disabled_reason = ? WHERE name = ? AND disabled_ms IS NULL
"""

ADD_PAUSE: Final = """
INSERT INTO pauses (sink, from_ms, to_ms)
SELECT id, disabled_ms, ? FROM sinks WHERE name = ? AND disabled_ms IS NOT NULL
ON CONFLICT (sink, from_ms) DO UPDATE SET to_ms = max(to_ms, excluded.to_ms)
"""

ENABLE_SINK: Final = (
    "UPDATE sinks SET disabled_ms = NULL, disabled_reason = NULL WHERE name = ? AND disabled_ms IS NOT NULL"
)

PAUSES: Final = "SELECT sink, from_ms, to_ms FROM pauses ORDER BY sink, from_ms"

SINK_STATES: Final = """
SELECT name, configured,
  (SELECT count(*) FROM deliveries INDEXED BY deliveries_pending WHERE sink = s.id AND state = 0),
  (SELECT count(*) FROM deliveries INDEXED BY deliveries_dead WHERE sink = s.id AND state = 2),
  disabled_ms, disabled_reason,
  (SELECT e.received_ms + d.held_ms + coalesce(
      (SELECT sum(p.to_ms - max(p.from_ms, e.received_ms + d.held_ms)) FROM pauses AS p
       WHERE p.sink = s.id AND p.to_ms > e.received_ms + d.held_ms), 0)
   FROM deliveries AS d JOIN events AS e ON e.seq = d.seq
   WHERE d.sink = s.id AND d.seq = (
     SELECT min(seq) FROM deliveries INDEXED BY deliveries_pending WHERE sink = s.id AND state = 0))
FROM sinks AS s ORDER BY id
"""

# The first that is pending is the oldest. What is due in the future has failed before.
WAITING: Final = """
SELECT name,
  (SELECT count(*) FROM deliveries INDEXED BY deliveries_pending WHERE sink = s.id AND state = 0),
  (SELECT count(*) FROM deliveries INDEXED BY deliveries_due
   WHERE sink = s.id AND state = 0 AND due_ms > 0 AND due_ms > :now_ms),
  (SELECT count(*) FROM deliveries INDEXED BY deliveries_dead WHERE sink = s.id AND state = 2),
  (SELECT received_ms FROM events WHERE seq =
    (SELECT min(seq) FROM deliveries INDEXED BY deliveries_pending WHERE sink = s.id AND state = 0)),
  configured
FROM sinks AS s
WHERE configured OR EXISTS (SELECT 1 FROM deliveries INDEXED BY deliveries_dead WHERE sink = s.id AND state = 2)
ORDER BY id
"""

LAST_RECEIVED: Final = "SELECT received_ms FROM events ORDER BY seq DESC LIMIT 1"

FIRST_DEAD: Final = "SELECT min(settled_ms) FROM deliveries INDEXED BY deliveries_dead WHERE state = 2"

CONFIGURED_SINKS: Final = "SELECT id, name FROM sinks WHERE configured ORDER BY id"

FORGET_SINKS: Final = """
UPDATE sinks SET configured = 0 WHERE name NOT IN (SELECT value FROM json_each(?))
"""

BURY_REMOVED: Final = """
UPDATE deliveries SET state = 2, settled_ms = :now_ms, last_error = 'sink removed'
WHERE (seq, sink) IN (
  SELECT seq, sink FROM deliveries INDEXED BY deliveries_pending
  WHERE state = 0 AND sink IN (SELECT id FROM sinks WHERE NOT configured) LIMIT :limit)
"""

BURY: Final = """
UPDATE deliveries SET state = 2, settled_ms = ?, last_error = ? WHERE seq = ? AND sink = ? AND state = 0
"""

# Counted up to a bound: it is asked for again and again.
BACKLOG: Final = """
SELECT s.name, (SELECT count(*) FROM (
  SELECT 1 FROM deliveries INDEXED BY deliveries_pending WHERE sink = s.id AND state = 0 LIMIT ?))
FROM sinks AS s WHERE s.configured ORDER BY s.name
"""

# Retention. What is pending or a dead letter is never dropped.
OLDEST_EVENTS: Final = """
SELECT seq, received_ms, NOT EXISTS (
  SELECT 1 FROM deliveries AS d WHERE d.seq = events.seq AND d.state <> 1), raw IS NULL
FROM events WHERE seq > ? ORDER BY seq LIMIT ?
"""

DROP_DELIVERIES_OF: Final = "DELETE FROM deliveries WHERE seq = ?"

DROP_EVENT: Final = "DELETE FROM events WHERE seq = ?"

# What stays of an event, so that a push of it is still known. Put in anew: a row that only shrinks frees no page.
KEY_OF: Final = "SELECT seq, tenant_key, event_id, scope, created_ms, received_ms FROM events WHERE seq = ?"

ADD_KEY: Final = """
INSERT INTO events (seq, tenant_key, event_id, scope, created_ms, received_ms) VALUES (?, ?, ?, ?, ?, ?)
"""

KNOW_APP: Final = """
INSERT INTO apps (app_id, last_connected_ms) VALUES (?, ?)
ON CONFLICT (app_id) DO UPDATE SET last_connected_ms = excluded.last_connected_ms
"""

# Writes a page without changing anything.
TOUCH_APP: Final = "UPDATE apps SET last_connected_ms = last_connected_ms WHERE app_id = ?"

TOUCH_SINK: Final = "UPDATE sinks SET configured = configured WHERE id = (SELECT min(id) FROM sinks)"

APP_LAST_CONNECTED: Final = "SELECT last_connected_ms FROM apps WHERE app_id = ?"

# A pause counts for the age of what waited meanwhile: as long as the oldest that waits may have, it stays.
DROP_PAUSES: Final = """
DELETE FROM pauses WHERE (sink, from_ms) IN (
  SELECT p.sink, p.from_ms FROM pauses AS p WHERE p.to_ms < :before_ms AND p.to_ms <= coalesce((
    SELECT received_ms FROM events WHERE seq = (
      SELECT min(d.seq) FROM deliveries AS d INDEXED BY deliveries_pending WHERE d.sink = p.sink AND d.state = 0)),
    :before_ms)
  LIMIT :limit)
"""

DROP_GAPS: Final = """
DELETE FROM gaps WHERE (app_id, from_ms) IN (
  SELECT app_id, from_ms FROM gaps WHERE to_ms < :before_ms LIMIT :limit)
"""

GAPS: Final = """
SELECT from_ms, to_ms, found, not_read FROM gaps WHERE (:app_id IS NULL OR app_id = :app_id) AND to_ms > :since_ms ORDER BY from_ms
"""

JUMPS: Final = "SELECT from_ms, to_ms FROM jumps ORDER BY from_ms"

FORGET_JUMPS: Final = "DELETE FROM jumps"

ADD_JUMP: Final = "INSERT INTO jumps (from_ms, to_ms) VALUES (?, ?)"

# From the newest back: what was stored while the clock was ahead is the last.
NEWEST_BEFORE: Final = "SELECT seq, received_ms FROM events WHERE seq < ? ORDER BY seq DESC LIMIT ?"

RECEIVED_AT: Final = "UPDATE events SET received_ms = ? WHERE seq = ?"

RECORD_GAP: Final = "INSERT OR IGNORE INTO gaps (app_id, from_ms, to_ms) VALUES (?, ?, ?)"

# What a person asks for: every filter that is given has to fit. A sink that is not configured has no worker.
_MATCHING = """
(:event_id IS NULL OR e.event_id = :event_id)
  AND (:scope_id IS NULL OR c.scope_id = :scope_id)
  AND (:since_ms IS NULL OR e.received_ms >= :since_ms)
  AND (:until_ms IS NULL OR e.received_ms < :until_ms)
  AND (:sink IS NULL OR k.name = :sink)
"""

_DEAD = f"""
FROM deliveries AS d INDEXED BY deliveries_dead
JOIN events AS e ON e.seq = d.seq JOIN scopes AS c ON c.id = d.scope JOIN sinks AS k ON k.id = d.sink
WHERE d.state = 2 AND {_MATCHING}
"""  # fixed texts only

LIST_DEAD: Final = f"""
SELECT d.seq, k.name, k.configured, e.event_id, c.tenant_key, c.scope_type, c.scope_id, d.attempts, d.settled_ms, d.last_error
{_DEAD} AND (:after_ms IS NULL OR (d.settled_ms, d.seq, k.name) > (:after_ms, :after_seq, :after_sink))
ORDER BY d.settled_ms, d.seq, k.name LIMIT :limit
"""

# From there on: a dead letter that is tried again and given up again meanwhile is not tried once more.
_SOME_DEAD = f"""
SELECT d.sink, d.seq {_DEAD} AND (d.sink, d.seq) > (:after_sink, :after) AND (k.configured OR :gone_too)
ORDER BY d.sink, d.seq LIMIT :limit
"""  # fixed texts only

DEAD_TO_RETRY: Final = _SOME_DEAD.replace(":gone_too", "FALSE")

DEAD_TO_DROP: Final = _SOME_DEAD.replace(":gone_too", "TRUE")

RETRY_DEAD: Final = """
UPDATE deliveries SET state = 0, attempts = 0, due_ms = 0, settled_ms = NULL,
  held_ms = ? - (SELECT received_ms FROM events WHERE events.seq = deliveries.seq)
WHERE sink = ? AND seq = ? AND state = 2
"""

DROP_DEAD: Final = "DELETE FROM deliveries WHERE sink = ? AND seq = ? AND state = 2"

TO_REPLAY: Final = """
SELECT e.seq, e.scope, c.tenant_key, c.scope_type, c.scope_id, e.received_ms
FROM events AS e JOIN scopes AS c ON c.id = e.scope
WHERE e.seq > :after AND e.seq <= :top AND e.body IS NOT NULL
  AND (:event_id IS NULL OR e.event_id = :event_id)
  AND (:scope_id IS NULL OR c.scope_id = :scope_id)
  AND (:since_ms IS NULL OR e.received_ms >= :since_ms)
  AND (:until_ms IS NULL OR e.received_ms < :until_ms)
ORDER BY e.seq LIMIT :limit
"""

# Once more; what is still pending stays as it is.
REPLAY: Final = """
INSERT INTO deliveries (seq, sink, scope, held_ms) VALUES (?, ?, ?, ?)
ON CONFLICT (seq, sink) DO UPDATE
SET state = 0, attempts = 0, due_ms = 0, settled_ms = NULL, last_error = NULL, held_ms = excluded.held_ms
WHERE state <> 0
"""

REPEAT: Final = """
UPDATE deliveries
SET state = 0, attempts = 0, due_ms = 0, settled_ms = NULL, last_error = NULL, held_ms = ?4
WHERE seq = ?1 AND sink = ?2 AND scope = ?3 AND state <> 0
"""

STATE_OF: Final = "SELECT state FROM deliveries WHERE seq = ? AND sink = ?"

# Ids that begin so, the whole one first. Of events only the index is read, not their content.
EVENT_IDS_THAT_BEGIN: Final = """
SELECT DISTINCT event_id FROM events WHERE substr(event_id, 1, length(:start)) = :start
ORDER BY event_id <> :start, event_id LIMIT :limit
"""

SCOPE_IDS_THAT_BEGIN: Final = """
SELECT DISTINCT scope_id FROM scopes WHERE substr(scope_id, 1, length(:start)) = :start
ORDER BY scope_id <> :start, scope_id LIMIT :limit
"""

_EVENTS = """
SELECT e.seq, e.tenant_key, e.event_id, e.received_ms, e.created_ms,
       s.tenant_key, s.scope_type, s.scope_id,
       iif(:content, e.body, substr(e.body, 1, 1)), iif(:content, e.raw, x''), e.problem, h.summary
FROM events AS e LEFT JOIN scopes AS s ON s.id = e.scope LEFT JOIN history AS h ON h.seq = e.seq
WHERE (:event_id IS NULL OR e.event_id = :event_id)
  AND (:scope_id IS NULL OR s.scope_id = :scope_id)
  AND (:since_ms IS NULL OR e.received_ms >= :since_ms)
  AND (:until_ms IS NULL OR e.received_ms < :until_ms)
  AND (:sink IS NULL OR e.seq IN (
    SELECT d.seq FROM deliveries AS d JOIN sinks AS k ON k.id = d.sink WHERE k.name = :sink))
  AND (NOT :unreadable OR e.body IS NULL)
  AND e.seq > :after_seq AND (:before_seq IS NULL OR e.seq < :before_seq) AND e.raw IS NOT NULL
"""

NEWEST_EVENTS: Final = f"{_EVENTS} ORDER BY e.seq DESC LIMIT :limit"

EVENTS_AFTER: Final = f"{_EVENTS} ORDER BY e.seq LIMIT :limit"

DELIVERIES_OF: Final = """
SELECT s.name, d.state, d.attempts, d.due_ms, d.settled_ms, d.last_error
FROM deliveries AS d JOIN sinks AS s ON s.id = d.sink WHERE d.seq = ? ORDER BY s.id
"""
