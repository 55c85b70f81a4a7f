"""Names of rooms, levels and people. Writing is for the writer's thread, in its transaction; reading, for any connection.

What must stay true: an earlier answer or event does not undo later knowledge; and no row is dropped: a room that is gone keeps
its name, since people still look at its history.

There are two clocks, each compared only with itself: events go by the platform's `create_time`, answers of the API by our own
clock (`seen_ms`). A time in the future was written while the clock was wrong, and holds nothing up.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import msgspec

from reserve_listener.model import KnownPlace

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Iterable, Mapping, Sequence

    from reserve_listener.model import IncomingEvent, PlaceNews

_PLACES = """
SELECT json_group_array(json_array(p.scope_type, p.scope_id, p.name, p.parent,
  json(CASE p.top WHEN 0 THEN 'false' ELSE 'true' END), p.seen_ms, p.gone_ms))
FROM {}
"""

ALL_PLACES: Final = _PLACES.format("places AS p")

PLACES_AMONG: Final = _PLACES.format("""json_each(?) AS k CROSS JOIN places AS p
  ON p.scope_type = json_extract(k.value, '$[0]') AND p.scope_id = json_extract(k.value, '$[1]')""")

KEEP_PLACES: Final = """
INSERT INTO places (scope_type, scope_id, name, parent, top, seen_ms)
SELECT json_extract(value, '$[0]'), json_extract(value, '$[1]'), json_extract(value, '$[2]'),
  json_extract(value, '$[3]'), json_extract(value, '$[4]'), json_extract(value, '$[5]')
FROM json_each(:places) WHERE TRUE
ON CONFLICT (scope_type, scope_id) DO UPDATE SET name = coalesce(excluded.name, places.name), parent = excluded.parent,
  top = excluded.top, seen_ms = excluded.seen_ms, gone_ms = NULL
WHERE places.seen_ms <= excluded.seen_ms OR places.seen_ms > :now_ms
"""

# Only those that nothing was heard of meanwhile.
MARK_UNSEEN: Final = """
UPDATE places SET gone_ms = :now_ms, seen_ms = :now_ms WHERE gone_ms IS NULL
  AND (scope_type, scope_id, seen_ms) IN (
    SELECT json_extract(value, '$[0]'), json_extract(value, '$[1]'), json_extract(value, '$[2]') FROM json_each(:places))
"""

MARK_GONE: Final = """
INSERT INTO places (scope_type, scope_id, top, seen_ms, gone_ms) VALUES (:scope_type, :scope_id, 0, :now_ms, :now_ms)
ON CONFLICT (scope_type, scope_id) DO UPDATE SET gone_ms = coalesce(places.gone_ms, :now_ms), seen_ms = :now_ms
"""

MARK_THERE: Final = """
UPDATE places SET gone_ms = NULL, seen_ms = :now_ms WHERE scope_type = :scope_type AND scope_id = :scope_id
  AND gone_ms IS NOT NULL AND (created_ms IS NULL OR created_ms < :as_of_ms)
"""

# What an event tells. One without a name or a level (`deleted`) leaves both as they were.
HEAR_OF: Final = """
INSERT INTO places (scope_type, scope_id, name, parent, top, created_ms, seen_ms, gone_ms)
VALUES (:scope_type, :scope_id, :name, :parent, 0, :created_ms, :received_ms, :gone_ms)
ON CONFLICT (scope_type, scope_id) DO UPDATE SET name = coalesce(excluded.name, places.name),
  top = places.top AND coalesce(excluded.parent, places.parent) IS places.parent,
  parent = coalesce(excluded.parent, places.parent), created_ms = coalesce(excluded.created_ms, places.created_ms),
  seen_ms = excluded.seen_ms, gone_ms = excluded.gone_ms
WHERE places.created_ms IS NULL OR excluded.created_ms IS NULL OR places.created_ms <= excluded.created_ms
"""

BELOW: Final = """
WITH RECURSIVE below (scope_type, scope_id) AS (
  SELECT 'level', :scope_id
  UNION SELECT p.scope_type, p.scope_id FROM below AS b JOIN places AS p ON b.scope_type = 'level' AND p.parent = b.scope_id)
SELECT json_group_array(json_array(scope_type, scope_id)) FROM below
"""

MARK_BELOW: Final = """
UPDATE places SET gone_ms = :received_ms, seen_ms = :received_ms, created_ms = coalesce(:created_ms, created_ms)
WHERE gone_ms IS NULL AND (created_ms IS NULL OR :created_ms IS NULL OR created_ms <= :created_ms)
  AND (scope_type, scope_id) IN (
    SELECT json_extract(value, '$[0]'), json_extract(value, '$[1]') FROM json_each(:places))
"""

PEOPLE: Final = "SELECT json_group_object(open_id, name) FROM people"

KEEP_PEOPLE: Final = """
INSERT INTO people (open_id, name, seen_ms) SELECT key, value, :now_ms FROM json_each(:names) WHERE TRUE
ON CONFLICT (open_id) DO UPDATE SET name = excluded.name, seen_ms = excluded.seen_ms
"""

FORGET_PEOPLE: Final = "DELETE FROM people"

CONFIGS_AFTER: Final = "SELECT scope, config FROM states WHERE scope > ? ORDER BY scope LIMIT ?"

LAST_LOOK: Final = "SELECT ended_ms FROM looks WHERE app_id = ? AND what = ?"

KEEP_LOOK: Final = """
INSERT INTO looks (app_id, what, ended_ms) VALUES (?, ?, ?)
ON CONFLICT (app_id, what) DO UPDATE SET ended_ms = excluded.ended_ms
"""

_encode = msgspec.json.Encoder().encode
_decode_places = msgspec.json.Decoder(list[KnownPlace]).decode
_decode_names = msgspec.json.Decoder(dict[str, str]).decode


def all_places(connection: sqlite3.Connection) -> list[KnownPlace]:
    """All rooms and levels whose name is known, or that are known to be gone."""
    (found,) = connection.execute(ALL_PLACES).fetchone()
    return _decode_places(found)


def people(connection: sqlite3.Connection) -> dict[str, str]:
    """People's names by open_id."""
    (found,) = connection.execute(PEOPLE).fetchone()
    return _decode_names(found)


def keep(places: Sequence[KnownPlace], now_ms: int, connection: sqlite3.Connection) -> list[KnownPlace]:
    """Store what the API said of these places, each as of its `seen_ms`. Returns how they are known now."""
    rows = [(one.scope_type, one.scope_id, one.name, one.parent, int(one.top), one.seen_ms) for one in places]
    connection.execute(KEEP_PLACES, {"places": _encode(rows).decode(), "now_ms": now_ms})
    return _among(places, connection)


def mark_unseen(
    places: Sequence[KnownPlace], now_ms: int, connection: sqlite3.Connection
) -> list[KnownPlace]:
    """Mark places as gone that a complete survey did not find, unless something has been heard of them since."""
    rows = [(one.scope_type, one.scope_id, one.seen_ms) for one in places]
    connection.execute(MARK_UNSEEN, {"places": _encode(rows).decode(), "now_ms": now_ms})
    return _among(places, connection)


def mark_gone(
    scope_type: str, scope_id: str, now_ms: int, connection: sqlite3.Connection
) -> list[KnownPlace]:
    """Mark the room or level as gone, whether or not its name is known."""
    connection.execute(MARK_GONE, {"scope_type": scope_type, "scope_id": scope_id, "now_ms": now_ms})
    return _of([(scope_type, scope_id)], connection)


def mark_there(
    scope_type: str, scope_id: str, as_of_ms: int, now_ms: int, connection: sqlite3.Connection
) -> list[KnownPlace]:
    """It existed at that time by the platform's clock: only a later event can mean that it is gone."""
    values = {"scope_type": scope_type, "scope_id": scope_id, "as_of_ms": as_of_ms, "now_ms": now_ms}
    connection.execute(MARK_THERE, values)
    return _of([(scope_type, scope_id)], connection)


def hear(event: IncomingEvent, connection: sqlite3.Connection) -> list[KnownPlace]:
    """Take in what an event says of rooms and levels. Returns those that are known differently now."""
    changed: list[KnownPlace] = []
    for news in event.news or ():
        changed += _hear(news, event, connection)
    return changed


def _hear(news: PlaceNews, event: IncomingEvent, connection: sqlite3.Connection) -> list[KnownPlace]:
    values: dict[str, Any] = {
        "scope_type": news.scope_type,
        "scope_id": news.scope_id,
        "name": news.name,
        "parent": news.parent,
        "created_ms": event.created_ms,
        "received_ms": event.received_ms,
        "gone_ms": event.received_ms if news.gone else None,
    }
    if not connection.execute(HEAR_OF, values).rowcount:
        return []  # something newer was heard before
    if not news.all_below:
        return _of([(news.scope_type, news.scope_id)], connection)
    (below,) = connection.execute(BELOW, values).fetchone()
    connection.execute(MARK_BELOW, values | {"places": below})
    return _of(msgspec.json.decode(below), connection)


def keep_people(names: Mapping[str, str], now_ms: int, connection: sqlite3.Connection) -> None:
    """Store what the API said of people."""
    connection.execute(KEEP_PEOPLE, {"names": _encode(names).decode(), "now_ms": now_ms})


def last_look(app_id: str, what: str, connection: sqlite3.Connection) -> int | None:
    """When all names of this kind were last read to the end; None: never."""
    row = connection.execute(LAST_LOOK, (app_id, what)).fetchone()
    return None if row is None else int(row[0])


def _among(places: Iterable[KnownPlace], connection: sqlite3.Connection) -> list[KnownPlace]:
    return _of([(one.scope_type, one.scope_id) for one in places], connection)


def _of(keys: Sequence[Any], connection: sqlite3.Connection) -> list[KnownPlace]:
    (found,) = connection.execute(PLACES_AMONG, (_encode(keys).decode(),)).fetchone()
    return _decode_places(found)
