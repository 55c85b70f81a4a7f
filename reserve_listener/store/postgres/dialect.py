"""How PostgreSQL says what the statements of `store.shared` say.

Most differ in how places for values are written and in hints for SQLite's planner, and are translated by rule. Those that
use what only SQLite has stand here by hand, beside the statement that they stand for.
"""

from __future__ import annotations

import re
from functools import cache
from typing import TYPE_CHECKING, Any, Final

from reserve_listener.store.shared import feed, history, naming, readings, rebuilding, sql

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

_PENDING: Final = """
SELECT coalesce(json_agg(json_build_array(
  p.seq, p.scope, attempts, due_ms, held_ms, e.event_id, e.received_ms, length(e.body), length(e.raw)) ORDER BY p.seq),
  '[]')::text
FROM (
  SELECT seq, scope, attempts, due_ms, held_ms FROM deliveries
  WHERE {} AND state = 0 ORDER BY seq LIMIT ?) AS p
JOIN events AS e ON e.seq = p.seq
"""

_AMONG: Final = "SELECT value::bigint FROM json_array_elements_text(?::json) AS j(value)"

_CONTENT: Final = """
SELECT string_agg({}, ''::bytea ORDER BY j.place)
FROM json_array_elements_text(?::json) WITH ORDINALITY AS j(seq, place) JOIN events AS e ON e.seq = j.seq::bigint
"""

_PLACES: Final = """
SELECT coalesce(json_agg(json_build_array(
  p.scope_type, p.scope_id, p.name, p.parent, p.top, p.seen_ms, p.gone_ms)), '[]')::text
FROM {}
"""

_ID_PREFIX: Final = """
SELECT {id} FROM {table} WHERE starts_with({id}, :start) GROUP BY {id} ORDER BY {id} <> :start, {id} LIMIT :limit
"""

_READING: Final = """
INSERT INTO readings ({columns}) VALUES ({values})
ON CONFLICT (scope) DO UPDATE SET looked_ms = excluded.looked_ms, {what}
"""

BY_HAND: Final[Mapping[str, str]] = {
    sql.KNOWN_EVENTS: """
        SELECT coalesce(json_agg(k.place - 1), '[]')::text
        FROM json_array_elements(?::json) WITH ORDINALITY AS k(value, place)
        JOIN events AS e ON e.tenant_key = k.value ->> 0 AND e.event_id = k.value ->> 1
    """,
    sql.APPEND_EVENT: """
        INSERT INTO events (seq, tenant_key, event_id, scope, created_ms, received_ms, raw, body, problem)
        VALUES (coalesce(?::bigint, nextval('events_seq')), ?, ?, ?, ?, ?, ?, ?, ?) RETURNING seq
    """,
    sql.NEWEST_EVER: "SELECT last_value - CASE WHEN is_called THEN 0 ELSE 1 END FROM events_seq",
    sql.PENDING_FROM: _PENDING.format("seq > ? AND seq <= ? AND sink = ?"),
    sql.PENDING_OF_SCOPE: _PENDING.format("sink = ? AND scope = ?"),
    sql.BODIES: _CONTENT.format("e.body"),
    sql.BODIES_AND_RAW: _CONTENT.format("e.body || e.raw"),
    sql.SETTLE_DELIVERED: f"""
        UPDATE deliveries SET state = 1, attempts = ?, due_ms = 0, settled_ms = ?, last_error = NULL
        WHERE seq IN ({_AMONG}) AND sink = ? AND state = 0
    """,
    sql.ADD_ATTEMPT: sql.ADD_ATTEMPT.replace(
        ":at_ms, :outcome, :status, :took_ms, :error",
        ":at_ms, :outcome, :status::integer, :took_ms, :error::text",
    ),
    sql.ADD_PAUSE: """
        INSERT INTO pauses (sink, from_ms, to_ms)
        SELECT id, disabled_ms, ? FROM sinks WHERE name = ? AND disabled_ms IS NOT NULL
        ON CONFLICT (sink, from_ms) DO UPDATE SET to_ms = greatest(pauses.to_ms, excluded.to_ms)
    """,
    sql.KNOW_SINK: """
        INSERT INTO sinks (name) VALUES (?) ON CONFLICT (name) DO UPDATE SET configured = true RETURNING id
    """,
    sql.FORGET_SINKS: """
        UPDATE sinks SET configured = false
        WHERE name NOT IN (SELECT value FROM json_array_elements_text(?::json) AS j(value))
    """,
    sql.BACKLOG: """
        SELECT s.name, (SELECT count(*) FROM (
          SELECT 1 FROM deliveries WHERE sink = s.id AND state = 0 LIMIT ?) AS counted)
        FROM sinks AS s WHERE s.configured ORDER BY s.name
    """,
    sql.RECORD_GAP: "INSERT INTO gaps (app_id, from_ms, to_ms) VALUES (?, ?, ?) ON CONFLICT DO NOTHING",
    sql.REPLAY: sql.REPLAY.replace("WHERE state", "WHERE deliveries.state"),
    sql.EVENT_IDS_THAT_BEGIN: _ID_PREFIX.format(id="event_id", table="events"),
    sql.SCOPE_IDS_THAT_BEGIN: _ID_PREFIX.format(id="scope_id", table="scopes"),
    history.KNOWN: f"""
        SELECT coalesce(json_agg(json_build_array(
          t.scope, json_build_array(t.revision, t.created_ms, t.config), r.from_ms, r.until_ms)), '[]')::text
        FROM states AS t LEFT JOIN readings AS r ON r.scope = t.scope WHERE t.scope IN ({_AMONG})
    """,
    history.DOUBT: "UPDATE readings SET doubt = greatest(doubt, 1) WHERE scope = ?",
    history.CHANGES_OF: f"""
        SELECT coalesce(json_agg(json_build_array(seq, revision, changes)), '[]')::text
        FROM history WHERE seq IN ({_AMONG})
    """,
    rebuilding.UNBUILT_AMONG: f"SELECT DISTINCT scope FROM unbuilt WHERE scope IN ({_AMONG})",
    naming.ALL_PLACES: _PLACES.format("places AS p"),
    naming.PLACES_AMONG: _PLACES.format("""json_array_elements(?::json) AS k(value) JOIN places AS p
        ON p.scope_type = k.value ->> 0 AND p.scope_id = k.value ->> 1"""),
    naming.KEEP_PLACES: """
        INSERT INTO places (scope_type, scope_id, name, parent, top, seen_ms)
        SELECT value ->> 0, value ->> 1, value ->> 2, value ->> 3, (value ->> 4)::integer::boolean, (value ->> 5)::bigint
        FROM json_array_elements(:places::json) AS j(value)
        ON CONFLICT (scope_type, scope_id) DO UPDATE SET name = coalesce(excluded.name, places.name),
          parent = excluded.parent, top = excluded.top, seen_ms = excluded.seen_ms, gone_ms = NULL
        WHERE places.seen_ms <= excluded.seen_ms OR places.seen_ms > :now_ms
    """,
    naming.MARK_UNSEEN: """
        UPDATE places SET gone_ms = :now_ms, seen_ms = :now_ms WHERE gone_ms IS NULL
          AND (scope_type, scope_id, seen_ms) IN (
            SELECT value ->> 0, value ->> 1, (value ->> 2)::bigint FROM json_array_elements(:places::json) AS j(value))
    """,
    naming.MARK_GONE: naming.MARK_GONE.replace(":scope_id, 0,", ":scope_id, false,"),
    naming.HEAR_OF: naming.HEAR_OF.replace(":parent, 0,", ":parent, false,").replace(
        " IS places.parent", " IS NOT DISTINCT FROM places.parent"
    ),
    naming.BELOW: """
        WITH RECURSIVE below (scope_type, scope_id) AS (
          SELECT 'level' COLLATE "C", :scope_id::text COLLATE "C"
          UNION SELECT p.scope_type, p.scope_id FROM below AS b
          JOIN places AS p ON b.scope_type = 'level' AND p.parent = b.scope_id)
        SELECT json_agg(json_build_array(scope_type, scope_id))::text FROM below
    """,
    naming.MARK_BELOW: """
        UPDATE places SET gone_ms = :received_ms, seen_ms = :received_ms, created_ms = coalesce(:created_ms, created_ms)
        WHERE gone_ms IS NULL AND (created_ms IS NULL OR :created_ms IS NULL OR created_ms <= :created_ms)
          AND (scope_type, scope_id) IN (
            SELECT value ->> 0, value ->> 1 FROM json_array_elements(:places::json) AS j(value))
    """,
    naming.PEOPLE: "SELECT coalesce(json_object_agg(open_id, name), '{}')::text FROM people",
    naming.KEEP_PEOPLE: """
        INSERT INTO people (open_id, name, seen_ms) SELECT key, value, :now_ms FROM json_each_text(:names::json)
        ON CONFLICT (open_id) DO UPDATE SET name = excluded.name, seen_ms = excluded.seen_ms
    """,
    readings.TENANTS: """
        WITH RECURSIVE tenants (tenant_key, place) AS (
          SELECT min(tenant_key), 1 FROM scopes WHERE tenant_key > ''
          UNION ALL
          SELECT (SELECT min(s.tenant_key) FROM scopes AS s WHERE s.tenant_key > t.tenant_key), place + 1
          FROM tenants AS t WHERE t.tenant_key IS NOT NULL AND place < 4)
        SELECT tenant_key FROM tenants WHERE tenant_key IS NOT NULL AND tenant_key <> ? LIMIT 2
    """,
    readings.ADOPT: """
        UPDATE scopes AS s SET tenant_key = ?1 WHERE tenant_key IN (SELECT app_id FROM passes WHERE app_id <> ?1)
          AND NOT EXISTS (SELECT 1 FROM scopes AS o
            WHERE o.tenant_key = ?1 AND o.scope_type = s.scope_type AND o.scope_id = s.scope_id)
    """,
    readings.KNOW_APP: """
        INSERT INTO passes (app_id, number, started_ms, ended_ms) VALUES (?, 0, 0, 0) ON CONFLICT DO NOTHING
    """,
    readings.READ: _READING.format(
        columns="scope, looked_ms, pass, from_ms, until_ms",
        values="?, ?, ?, ?, ?",
        what="""pass = greatest(readings.pass, excluded.pass),
          from_ms = excluded.from_ms, until_ms = excluded.until_ms, doubt = 0""",
    ),
    readings.OUTDATED: _READING.format(
        columns="scope, looked_ms, doubt", values="?, ?, 1", what="doubt = readings.doubt + 1"
    ),
    readings.ASKED_IN_VAIN: _READING.format(
        columns="scope, looked_ms, pass",
        values="?, ?, ?",
        what="pass = greatest(readings.pass, excluded.pass), doubt = 0",
    ),
    sql.SINK_STATES: sql.SINK_STATES.replace("sum(p.to_ms - max(", "sum(p.to_ms - greatest(").replace(
        "d.held_ms)) FROM pauses", "d.held_ms))::bigint FROM pauses"
    ),
    sql.LAST_FAILURES: sql.LAST_FAILURES.replace(
        ":looked_at)\n  GROUP BY", ":looked_at) AS lately\n  GROUP BY"
    ),
    feed.HOURS: feed.HOURS.replace(
        "sum(delivered), sum(late)", "sum(delivered)::bigint, sum(late)::bigint"
    ).replace(")\nGROUP BY", ") AS by_event\nGROUP BY"),
}

_RULES: Final = (
    (re.compile(r"INDEXED BY \w+"), ""),
    (re.compile(r"(?<=[ (])\+(?=[a-z])"), ""),  # keeps SQLite off an index
    (re.compile(r"\bCROSS JOIN\b"), "JOIN"),
    (re.compile(r"iif\(:content, ([\w.]+), (.*?\)|x'')\)"), r"CASE WHEN :content THEN \1 ELSE \2 END"),
    (re.compile(r"\bx''"), "''::bytea"),
    (re.compile(r"\binstr\("), "strpos("),
    (re.compile(r"json_extract\((\w+), '\$\[(\d)\]'\)"), r"(\1 ->> \2)"),
    (re.compile(r"\bjson_each\((:\w+)\)"), r"json_array_elements(\1::json) AS j(value)"),
    (re.compile(r"substr\(([\w.]+), 1, length\((:\w+)\)\) = \2"), r"starts_with(\1, \2)"),
)

_NUMBERED: Final = re.compile(r"\?(\d)")
_NAMED: Final = re.compile(r"(?<!:):([a-z_]+)")
_MAYBE: Final = re.compile(r"(?<!:):([a-z_]+) IS NULL")

_ESCAPE: Final = "\uf8fe"
"""A NUL, which is no text to PostgreSQL, is kept as this private character and a 0; the character itself as it and a 1."""


def translated(statement: str, values: Sequence[Any] | Mapping[str, Any]) -> tuple[str, Any]:
    """The statement and its values, as psycopg takes them."""
    return _text(statement), values_of(statement, values)


def values_of(statement: str, values: Sequence[Any] | Mapping[str, Any]) -> Any:
    """The values, as psycopg takes them."""
    is_json = takes_json(statement)
    if isinstance(values, dict):
        return {name: value_of(value, is_json=is_json) for name, value in values.items()}
    kept = [value_of(value, is_json=is_json) for value in values]
    if _is_numbered(statement):
        return {f"p{place}": value for place, value in enumerate(kept, start=1)}
    return kept


def row_of(row: Any, *, is_json: bool) -> Any:
    """A row, as it was put in. `is_json`: its texts are JSON."""
    if row is None or not any(isinstance(value, str) and _ESCAPE in value for value in row):
        return row
    nul = "\\u0000" if is_json else "\0"
    return tuple(
        value.replace(f"{_ESCAPE}0", nul).replace(f"{_ESCAPE}1", _ESCAPE) if isinstance(value, str) else value
        for value in row
    )


def value_of(value: Any, *, is_json: bool = False) -> Any:
    """One value. `is_json`: if it is a text, it is JSON."""
    if not isinstance(value, str):
        return value
    if _ESCAPE in value:
        value = value.replace(_ESCAPE, f"{_ESCAPE}1")
    nul = "\\u0000" if is_json else "\0"
    return value.replace(nul, f"{_ESCAPE}0") if nul in value else value


@cache
def takes_json(statement: str) -> bool:
    """Whether it is given JSON."""
    return "::json" in _text(statement)


@cache
def gives_json(statement: str) -> bool:
    """Whether it answers with JSON."""
    return any(name in _text(statement) for name in ("json_agg(", "json_object_agg("))


@cache
def _is_numbered(statement: str) -> bool:
    return _NUMBERED.search(BY_HAND.get(statement, statement)) is not None


@cache
def _text(statement: str) -> str:
    text = BY_HAND.get(statement, statement)
    for pattern, replacement in _RULES:
        text = pattern.sub(replacement, text)
    text = _MAYBE.sub(_typed, text.replace("%", "%%"))
    text = _NUMBERED.sub(r"%(p\1)s", text)
    return _NAMED.sub(r"%(\1)s", text).replace("?", "%s")


def _typed(found: re.Match[str]) -> str:
    """A value that may be NULL: of which type it is cannot be told from that."""
    name = found[1]
    kind = "bigint" if name.endswith(("_ms", "_seq")) else "json" if name == "scopes" else "text"
    return f":{name}::{kind} IS NULL"
