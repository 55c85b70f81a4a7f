"""What one replica does at a time, and which replicas there are. Work for a thread that writes, inside its transaction.

What must stay true: all times here are the database's. A lease that has run out is taken by whoever comes first, with a
higher fencing number; who writes under a lease checks that number in the transaction that writes, so whoever has lost it
writes nothing, however long it was frozen. The holder itself believes in it for less long than the database does.
"""

from __future__ import annotations

import os
import secrets
import socket
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from reserve_listener import __version__
from reserve_listener.ages import running_ms
from reserve_listener.store.postgres.database_clock import NOW
from reserve_listener.store.shared.led import ALERTS, RECONCILE, RETENTION

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from reserve_listener.store.postgres.connection import Connection

BEAT_S: Final = 3.0
"""How often a replica says that it lives."""

LEASE_MS: Final = 15_000
"""With the beat: what a dead replica held is another's within 18 s. Four beats may fail before it is lost."""

MARGIN_MS: Final = 2_000
"""So much earlier the holder stops to believe in it: an attempt that has begun by then is on its way."""

DEAD_MS: Final = 20_000
"""A replica that was not seen for so long is gone."""

SINK: Final = "sink:"

_SEEN: Final = f"""
INSERT INTO replicas (id, host, pid, version, seen_ms, connection, sinks, told)
VALUES (%(id)s, %(host)s, %(pid)s, %(version)s, {NOW}, %(connection)s, %(sinks)s::text[], %(told)s::bytea)
ON CONFLICT (id) DO UPDATE SET seen_ms = excluded.seen_ms, connection = excluded.connection, sinks = excluded.sinks,
  told = excluded.told
"""

_BURY: Final = f"DELETE FROM replicas WHERE seen_ms < {NOW} - {DEAD_MS}"  # fixed texts only

_LEASE: Final = f"""
INSERT INTO leases AS l (name, holder, fence, until_ms)
SELECT name, %(id)s, 1, {NOW} + {LEASE_MS} FROM unnest(%(names)s::text[]) AS n(name) ORDER BY name
ON CONFLICT (name) DO UPDATE SET holder = excluded.holder, until_ms = excluded.until_ms,
  fence = l.fence + CASE WHEN l.holder = excluded.holder AND l.until_ms > {NOW} THEN 0 ELSE 1 END
WHERE l.holder = excluded.holder OR l.until_ms <= {NOW}
RETURNING name, fence
"""

_HELD: Final = f"""
SELECT 1 FROM leases WHERE name = %s AND holder = %s AND fence = %s AND until_ms > {NOW}
"""

_HELD_LAST: Final = "SELECT 1 FROM leases WHERE name = %s AND holder = %s AND fence = %s FOR SHARE"

_GIVE_BACK: Final = "UPDATE leases SET until_ms = 0 WHERE holder = %s"

_LEAVE: Final = "DELETE FROM replicas WHERE id = %s"

LIVE: Final = f"""
SELECT r.id, r.host, r.pid, r.version, r.seen_ms, r.connection,
  ARRAY(SELECT l.name FROM leases AS l WHERE l.holder = r.id AND l.until_ms > {NOW} ORDER BY l.name),
  r.sinks, r.told
FROM replicas AS r WHERE r.seen_ms >= {NOW} - {DEAD_MS} ORDER BY r.host, r.pid, r.id
"""  # fixed texts only


@dataclass(slots=True)
class Membership:
    """This replica, as the others see it. Leases are read on the loop and changed by what a beat found."""

    running_ms: Callable[[], int] = running_ms
    id: str = field(default_factory=lambda: f"{socket.gethostname()}-{os.getpid()}-{secrets.token_hex(3)}")
    connection: str = ""
    told: bytes | None = None
    _beaten_ms: int | None = None
    _beating_since_ms: int | None = None
    _held: dict[str, tuple[int, int]] = field(default_factory=dict)

    def fence(self, name: str) -> int:
        """The fencing number under which this replica holds the lease; 0: it does not, as far as it can tell."""
        fence, until_ms = self._held.get(name, (0, 0))
        return fence if self.running_ms() < until_ms else 0

    def last_fence(self, name: str) -> int:
        """The one under which it held the lease last: the database says whether that still counts."""
        return self._held.get(name, (0, 0))[0]

    def took(self, held: Mapping[str, int], began_ms: int, sinks: Sequence[str]) -> None:
        """A beat for these sinks that began then (by the clock that nobody sets) got these.

        One of a sink that is not configured any more is kept while it lasts, for the last attempts.
        """
        if self._beaten_ms is None or began_ms > self._beaten_ms + DEAD_MS:
            self._beating_since_ms = began_ms
        self._beaten_ms = began_ms
        until_ms = began_ms + LEASE_MS - MARGIN_MS
        asked = _names(sinks)
        kept = {name: lease for name, lease in self._held.items() if name not in asked}
        self._held = kept | {name: (fence, until_ms) for name, fence in held.items()}

    @property
    def is_cut_off(self) -> bool:
        """Whether it has not reached the database for so long that the others may have taken what it held."""
        return self._beaten_ms is not None and self.running_ms() > self._beaten_ms + LEASE_MS - MARGIN_MS

    @property
    def watching_ms(self) -> int:
        """For how long it has seen, without interruption, which others live."""
        if self._beaten_ms is None or self._beating_since_ms is None:
            return 0
        is_interrupted = self.running_ms() > self._beaten_ms + DEAD_MS
        return 0 if is_interrupted else self._beaten_ms - self._beating_since_ms

    def lose(self) -> None:
        """It holds nothing from now on."""
        self._held = {}

    def beat(self, sinks: Sequence[str], connection: Connection) -> dict[str, int]:
        """Say that it lives, and get or keep what nobody else holds: by name the fencing numbers."""
        values = {
            "id": self.id,
            "host": socket.gethostname(),
            "pid": os.getpid(),
            "version": __version__,
            "connection": self.connection,
            "told": self.told,
            "sinks": list(sinks),
            "names": _names(sinks),
        }
        connection.query(_SEEN, values)
        connection.query(_BURY)
        return dict(connection.query(_LEASE, values).fetchall())

    def leave(self, connection: Connection) -> None:
        """What it holds is free for the others at once."""
        connection.query(_GIVE_BACK, (self.id,))
        connection.query(_LEAVE, (self.id,))

    def holds(self, name: str, fence: int, connection: Connection, *, keep: bool = False) -> bool:
        """Whether it does now. `keep`: to the end of this transaction, nobody takes it over before that."""
        statement = f"{_HELD} FOR SHARE" if keep else _HELD
        return connection.query(statement, (name, self.id, fence)).fetchone() is not None

    def held_last(self, name: str, fence: int, connection: Connection) -> bool:
        """Whether nobody has taken it since, even if it has run out; nor does before the end of this transaction."""
        return connection.query(_HELD_LAST, (name, self.id, fence)).fetchone() is not None


def _names(sinks: Sequence[str]) -> list[str]:
    return sorted([ALERTS, RECONCILE, RETENTION, *(f"{SINK}{name}" for name in sinks)])
