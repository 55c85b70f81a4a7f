"""What the health checks look at: only what is in memory.

What must stay true: the daemon counts as dead only if a restart would help. A thread that does not come back is such a case;
the platform, a sink, a full disk and a locked store are not. Anybody may read the reasons: no path, name or error text.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from reserve_listener.clock import now_ms, rfc3339, wall_ms
from reserve_listener.web.answers import Check
from reserve_listener.web.health import FAILING, OK

if TYPE_CHECKING:
    from reserve_listener.protocols import Transport
    from reserve_listener.protocols.store import StoreHealth

STUCK_S: Final = 30.0
"""A commit waits for a lock for 5 s; what takes six times that hangs in the system, on a disk that is away."""


class Probes:
    """See `web.health.Probes`. `connects`: whether events come over a connection of ours, not by push."""

    def __init__(self, store: StoreHealth, transport: Transport, *, connects: bool) -> None:
        self._store = store
        self._transport = transport
        self._connects = connects

    def live(self) -> dict[str, Check]:
        """The loop, which answers this, and the threads that write."""
        return {"loop": Check(status=OK), "writer": self._writer()}

    def ready(self) -> dict[str, Check]:
        """By webhook nobody connects, and a daemon out of traffic would hear nothing: there the store alone counts."""
        connection = {"connection": self._connection()} if self._connects else {}
        return connection | {"store": self._stored()}

    def _writer(self) -> Check:
        stuck_s = self._store.stuck_s
        if stuck_s <= STUCK_S:
            return Check(status=OK)
        since = rfc3339(now_ms() - round(stuck_s * 1000))
        return Check(status=FAILING, since=since, reason=f"a write has been under way for {stuck_s:.0f} s")

    def _connection(self) -> Check:
        state = self._transport.state
        since = rfc3339(wall_ms(state.since))
        if state.is_receiving:
            return Check(status=OK, since=since)
        return Check(status=FAILING, since=since, reason=f"not connected to the platform: {state.name}")

    def _stored(self) -> Check:
        if self._store.problem is None:
            return Check(status=OK)
        return Check(status=FAILING, reason="the store takes no events: pushes are answered 500")
