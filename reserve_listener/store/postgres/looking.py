"""What a replica asks the database besides its work, and what only PostgreSQL's store asks. Work for a writer's thread."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, NamedTuple, TypeVar

from msgspec.structs import replace

from reserve_listener.errors import LeaseLostError
from reserve_listener.model import Replica
from reserve_listener.store.postgres import listening
from reserve_listener.store.postgres.connection import SCHEMA
from reserve_listener.store.postgres.database_clock import NOW
from reserve_listener.store.postgres.leases import LIVE
from reserve_listener.store.shared import claiming, readings, sql
from reserve_listener.store.shared.insight import insight as common_insight

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from reserve_listener.model import Claimed, Insight
    from reserve_listener.store.postgres.connection import Connection
    from reserve_listener.store.postgres.database_clock import DatabaseClock
    from reserve_listener.store.postgres.leases import Membership

T = TypeVar("T")

REMOVED_AFTER_MS: Final = 10 * 60 * 1000
"""A sink that no replica has had for so long is removed: a restart, or a new configuration on its way, takes less.

Who removes it has watched for as long: while the database was away, or all were stopped, nobody could say that a sink is there.
"""

DOUBTS_SEEN: Final = 100
"""At once. Who takes them looks for more when there are so many."""

_SEEN: Final = f"""
SELECT
  (SELECT last_value + is_called::integer FROM events_seq),
  (SELECT array_agg(name ORDER BY name) FROM sinks WHERE disabled_ms IS NOT NULL),
  (SELECT max(to_ms) FROM pauses),
  (SELECT number FROM reopenings),
  (SELECT array[count(*), max(seen_ms), count(gone_ms)] FROM places),
  (SELECT array[count(*), max(seen_ms)] FROM people),
  (SELECT array_agg(scope || ' ' || looked_ms) FROM (
    SELECT scope, looked_ms FROM readings WHERE doubt BETWEEN 1 AND {readings.ATTEMPTS} ORDER BY scope LIMIT {DOUBTS_SEEN}) AS d)
"""  # fixed texts only

_HAVE: Final = f"UPDATE sinks SET had_ms = {NOW} WHERE name = ANY(%s)"

_RESTORE: Final = """
INSERT INTO sinks (id, name) OVERRIDING SYSTEM VALUE SELECT * FROM unnest(%s::bigint[], %s::text[]) ON CONFLICT DO NOTHING
"""

_AFTER_RESTORED: Final = """
SELECT setval('sinks_id_seq', highest) FROM (SELECT max(id) AS highest FROM sinks) AS s, sinks_id_seq WHERE highest > last_value
"""
"""Seldom: as a rule a standby knows a sequence's next numbers before they are given."""

_CONFIGURED: Final = "UPDATE sinks SET configured = true WHERE name = ANY(%s) AND NOT configured"

_FORGET: Final = f"""
UPDATE sinks SET configured = false WHERE configured AND NOT name = ANY(%s) AND had_ms <= {NOW} - %s
"""  # fixed texts only

_SIZE: Final = f"""
SELECT coalesce(sum(pg_total_relation_size(c.oid)), 0)::bigint
FROM pg_class AS c JOIN pg_namespace AS n ON n.oid = c.relnamespace WHERE n.nspname = '{SCHEMA}' AND c.relkind = 'r'
"""

_KEEP_ALERTS: Final = """
INSERT INTO alerts (content) VALUES (%s) ON CONFLICT (one) DO UPDATE SET content = excluded.content
"""


class Seen(NamedTuple):
    """What another replica may have changed; compared with what was seen before."""

    newest: int = 0
    """Grows with each event, the first included."""
    disabled: Sequence[str] | None = None
    enabled_ms: int | None = None
    """When a sink was last enabled: it may have been disabled since the last beat."""
    reopenings: int = 0
    places: Sequence[Any] | None = None
    people: Sequence[Any] | None = None
    doubts: Sequence[str] | None = None
    """Scopes that are to be read again, each with when it was read last."""


def look(
    member: Membership, clock: DatabaseClock, sinks: Sequence[str], connection: Connection
) -> tuple[dict[str, int], Seen]:
    """A beat: the time, the leases that this replica has now, and what there is to see."""
    clock.look(connection)
    held = member.beat(sinks, connection)
    connection.query(_HAVE, (list(sinks),))
    return held, Seen(*connection.query(_SEEN).fetchone())


def know_sinks(
    member: Membership, names: Sequence[str], connection: Connection
) -> tuple[dict[str, int], Any]:
    """These are configured, with their numbers. And all pauses."""
    numbers = {name: int(connection.execute(sql.KNOW_SINK, (name,)).fetchone()[0]) for name in sorted(names)}
    connection.query(_HAVE, (list(names),))
    forget_removed(member, names, connection)
    return numbers, pauses(connection)


def restore_sinks(numbers: Mapping[str, int], connection: Connection) -> None:
    """What a replica has is there, under the number that its deliveries are stored with: a standby may not have heard of it."""
    connection.query(_RESTORE, (list(numbers.values()), list(numbers)))
    connection.query(_CONFIGURED, (list(numbers),))
    connection.query(_AFTER_RESTORED)


def forget_removed(member: Membership, names: Sequence[str], connection: Connection) -> bool:
    """What no replica has had for long is not configured any more; whether there was any. `names`: those of this one."""
    if member.watching_ms < REMOVED_AFTER_MS:
        return False
    return bool(connection.query(_FORGET, (list(names), REMOVED_AFTER_MS)).rowcount)


def pauses(connection: Connection) -> Any:
    """Of all sinks, as they are now: another replica may have enabled one."""
    return claiming.pauses_by_sink(connection.execute(sql.PAUSES))


def reopened(replica: str, connection: Connection) -> None:
    """Deliveries are pending again: the replica that works their sink looks at all, by the next beat at the latest."""
    connection.query("UPDATE reopenings SET number = number + 1")
    listening.tell(replica, listening.OTHERS, connection)


def claim(
    sink: int,
    lease: Callable[[Connection], bool],
    work: Callable[..., Claimed],
    nothing: Claimed,
    connection: Connection,
) -> Claimed:
    """A claim under the lease, of a sink that nobody has disabled."""
    row = connection.query("SELECT disabled_ms IS NOT NULL FROM sinks WHERE id = %s", (sink,)).fetchone()
    if row is None or row[0] or not lease(connection):
        return nothing
    return work(pauses(connection).get(sink, []), connection)


def write(
    lease: Callable[[Connection], bool], work: Callable[[Connection], Any], connection: Connection
) -> tuple[Any, bool]:
    """What only the holder of the lease may write; whether it was."""
    return (work(connection), True) if lease(connection) else (None, False)


def led(
    what: str, lease: Callable[[Connection], bool], work: Callable[[Connection], T], connection: Connection
) -> T:
    """What only the holder of the lease may do. Raises `LeaseLostError`: this transaction writes nothing then."""
    if not lease(connection):
        raise LeaseLostError(f"another replica does this now: {what}")
    return work(connection)


def touch(connection: Connection) -> None:
    """Write something, at the place where events are written: where they have to wait, so has this."""
    connection.lock_appends()
    connection.query("SELECT nextval('events_seq')").fetchone()
    connection.execute(sql.TOUCH_SINK)


def ping(connection: Connection) -> None:
    """Anything, so that a connection that was closed is known to be."""
    connection.query("SELECT 1").fetchone()


def size_bytes(connection: Connection) -> int:
    """The bytes that the tables take, with their indexes."""
    return int(connection.query(_SIZE).fetchone()[0])


def insight(app_id: str | None, gaps_since_ms: int, connection: Any) -> Insight:
    """See `StoreHealth.insight`."""
    found = common_insight(app_id, gaps_since_ms, size_bytes, connection)
    return replace(found, replicas=[Replica(*row) for row in connection.query(LIVE).fetchall()])


def alerts(connection: Connection) -> bytes | None:
    """See `StoreAlerts.remembered_alerts`."""
    row = connection.query("SELECT content FROM alerts").fetchone()
    return None if row is None else bytes(row[0])


def keep_alerts(content: bytes, connection: Connection) -> None:
    """See `StoreAlerts.remember_alerts`."""
    connection.query(_KEEP_ALERTS, (content,))
