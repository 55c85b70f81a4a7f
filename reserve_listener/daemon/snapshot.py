"""How the daemon is: one snapshot for `status`, one line for `systemctl status`."""

from __future__ import annotations

import asyncio
import itertools
import os
import time
from collections import Counter, deque
from typing import TYPE_CHECKING, Final

from reserve_listener import __version__
from reserve_listener.clock import rfc3339, wall_ms
from reserve_listener.daemon import verdict
from reserve_listener.daemon.alerts.replicas import health_of, others, sinks_of
from reserve_listener.errors import StoreError
from reserve_listener.model import MIB, PENDING, Insight, State
from reserve_listener.web import answers
from reserve_listener.web.answers import (
    ConnectionStatus,
    Gap,
    ReplicaStatus,
    SinkStatus,
    Status,
    StoreStatus,
)
from reserve_listener.web.rows import attempt_shown

if TYPE_CHECKING:
    from collections.abc import Callable

    from reserve_listener.daemon.alerts.conditions import SinkNow
    from reserve_listener.delivery import SinkHealth, Workers
    from reserve_listener.model import FailedDelivery, SinkState
    from reserve_listener.protocols import Transport
    from reserve_listener.protocols.store import StoreHealth
    from reserve_listener.web.answers import Alert, Reason, ReconcileStatus

GAPS_SHOWN_MS: Final = 30 * 24 * 3600 * 1000
HOUR_MS: Final = 3600 * 1000
RECONNECTS_KEPT: Final = 1_000
"""A connection that breaks more often than every four seconds for an hour is bad enough at "1000"."""

STORE_TIMEOUT_S: Final = 2.0
"""A store that does not tell within that time is itself what is wrong; `status` has 5 s in all."""


class Health:
    """Looks at the parts, and changes nothing. `redact` masks what is secret; `replica`: who this daemon is among several."""

    def __init__(
        self,
        app_id: str,
        store: StoreHealth,
        transport: Transport,
        workers: Workers,
        *,
        redact: Callable[[str], str],
        reconciling: Callable[[], ReconcileStatus | None] = lambda: None,
        replica: str | None = None,
    ) -> None:
        self._app_id = app_id
        self._reconciling = reconciling
        self._store = store
        self._transport = transport
        self._workers = workers
        self._replica = replica
        self._redact = redact
        self._started = time.monotonic()
        self._silent_since_ms = store.now_ms()
        self._connected_ms: deque[int] = deque(maxlen=RECONNECTS_KEPT)
        self._noticed_ms: dict[str, int] = {}
        self.changes: Counter[str] = Counter()
        """What happened to the connection, by `State.change`."""
        self.alerts: Callable[[], list[Alert]] = list
        """Those that are firing."""
        self.alerts_to: Callable[[str], SinkHealth | None] = lambda _name: None
        """How a sink does that cannot carry its alerts."""

    @property
    def silent_since_ms(self) -> int:
        """Since when nothing has been heard; of the last time if something is."""
        return self._silent_since_ms

    def on_state(self, state: State) -> None:
        """The connection's state has changed."""
        if state.change is not None:
            self.changes[state.change] += 1
        if state.name == "connected":
            self._connected_ms.append(self._store.now_ms())
        elif state.name == "lost":
            self._silent_since_ms = self._store.now_ms()

    async def line(self) -> str:
        """The connection, the backlog and what is wrong, in a line."""
        backlog = ", ".join(f"{name} {count}" for name, count in (await self._backlog()).items())
        troubled = [
            f"{name} {health.state}"
            for name, health in self._workers.health().items()
            if health.state in ("down", "misconfigured", "disabled")
        ]
        parts = [self.connection(), f"pending: {backlog or 'store failing'}", *troubled]
        self._since("problem", is_so=self._store.problem is not None)
        if self._store.problem is not None:
            parts.append(f"answering 500: {self._store.problem}")
        return "; ".join(parts)

    def connection(self) -> str:
        """The connection's state for people."""
        state = self._transport.state
        if state.until is None:
            return state.name
        return self._redact(f"waiting {max(0.0, state.until - time.monotonic()):.0f} s ({state.reason})")

    async def snapshot(self) -> Status:
        """Everything that `status` shows."""
        insight, silence = await self._insight()
        problem = self._store.problem  # after the look, which may have shown it
        open_gaps = verdict.open_gaps(
            insight.gaps, now_ms=self._store.now_ms(), reconciles=self._reconciles()
        )
        told = list(others(insight.replicas, self._replica))
        elsewhere = sinks_of(told)
        sinks = [self._sink(sink, elsewhere.get(sink.name)) for sink in insight.sinks if sink.configured]
        dead = sum(sink.dead for sink in insight.sinks)
        failing = [*self._not_connected(), *self._not_taking(problem)]
        degraded = [
            *self._not_telling(silence if problem is None else None),
            *verdict.missed(open_gaps, reconciles=self._reconciles()),
            *verdict.troubled_sinks(sinks, now_ms=self._store.now_ms()),
            *self._dead_letters(dead, insight),
            *verdict.deaf_replicas(told, now_ms=self._store.now_ms()),
            *verdict.different_sinks(insight.replicas),
            *self._filling(insight),
        ]
        return Status(
            status=verdict.FAILING if failing else verdict.DEGRADED if degraded else verdict.OK,
            reasons=failing + degraded,
            version=__version__,
            pid=os.getpid(),
            running_s=round(time.monotonic() - self._started),
            connection=self._connection(),
            last_event=_at(insight.last_event_ms),
            problem=problem,
            pending={sink.name: sink.pending for sink in sinks},
            dead_letters=dead,
            sinks=sinks,
            failures=[failure_shown(failure, self._redact) for failure in insight.failures],
            gaps=gaps_shown(insight),
            replicas=replicas_shown(insight),
            reconcile=self._reconciling(),
            alerts=self.alerts(),
            store=store_status(self._store.name, insight, self._store.max_bytes),
        )

    # -- the parts ----------------------------------------------------------------------------------------------------------

    def _not_connected(self) -> list[Reason]:
        state = self._transport.state
        return list(verdict.not_connected(state, text=self.connection(), since_ms=self._silent_since_ms))

    def _not_taking(self, problem: str | None) -> list[Reason]:
        since_ms = self._since("problem", is_so=problem is not None)
        return list(verdict.not_taking(problem, since_ms=since_ms))

    def _not_telling(self, silence: str | None) -> list[Reason]:
        since_ms = self._since("silence", is_so=silence is not None)
        return list(verdict.not_telling(silence, since_ms=since_ms))

    def _reconciles(self) -> bool:
        """Whether what is missed in a gap is found afterwards."""
        reconciling = self._reconciling()
        return reconciling is not None and reconciling.state != "off"

    def _dead_letters(self, count: int, insight: Insight) -> list[Reason]:
        return list(verdict.dead_letters(count, since_ms=insight.first_dead_ms))

    def _filling(self, insight: Insight) -> list[Reason]:
        size, bound = insight.size_bytes, self._store.max_bytes
        since_ms = self._since("filling", is_so=verdict.is_filling(size, bound))
        return list(verdict.filling(size, bound, since_ms=since_ms))

    def _since(self, what: str, *, is_so: bool) -> int | None:
        """When this was first seen to be so: somebody, the heartbeat at least, looks every few seconds."""
        if not is_so:
            self._noticed_ms.pop(what, None)
            return None
        return self._noticed_ms.setdefault(what, self._store.now_ms())

    def _connection(self) -> ConnectionStatus:
        state = self._transport.state
        hour_ago = self._store.now_ms() - HOUR_MS
        again = itertools.islice(self._connected_ms, 1, None)  # the first time was no reconnect
        return ConnectionStatus(
            state=state.name,
            text=self.connection(),
            since=_wall(state.since),
            last_frame=_wall(self._transport.last_frame_s),
            next_attempt=_wall(state.until),
            reconnects_last_hour=sum(ms > hour_ago for ms in again),
        )

    def _sink(self, sink: SinkState, elsewhere: SinkNow | None) -> SinkStatus:
        """As whoever works it knows it: this daemon, or another replica (`elsewhere`)."""
        worker = self._workers.worker(sink.name)
        health = None if worker is None else worker.health
        if elsewhere is not None:
            health = health_of(elsewhere)
        if health is not None and health.state == "ok":
            health = self.alerts_to(sink.name) or health
        return described(sink, health, redact=self._redact)

    async def _insight(self) -> tuple[Insight, str | None]:
        """What the store knows; or nothing, and why it does not tell."""
        try:
            async with asyncio.timeout(STORE_TIMEOUT_S):
                since_ms = self._store.now_ms() - GAPS_SHOWN_MS
                return await self._store.insight(self._app_id, gaps_since_ms=since_ms), None
        except TimeoutError:
            return Insight(), f"it has not answered for {STORE_TIMEOUT_S:g} s"
        except StoreError as error:
            return Insight(), str(error)

    async def _backlog(self) -> dict[str, int]:
        try:
            return await self._store.backlog()
        except StoreError:
            return {}


def stopped(store: str, insight: Insight | None, problem: str | None = None) -> Status:
    """What can be said while no daemon runs; without `insight` the store cannot be read."""
    insight = insight or Insight()
    sinks = [described(sink, None) for sink in insight.sinks if sink.configured or sink.dead]
    return Status(
        status=verdict.STOPPED,
        reasons=list(verdict.stopped(store, problem)),
        version=__version__,
        last_event=_at(insight.last_event_ms),
        pending={sink.name: sink.pending for sink in sinks},
        dead_letters=sum(sink.dead_letters for sink in sinks),
        sinks=sinks,
        failures=[failure_shown(failure) for failure in insight.failures],
        gaps=gaps_shown(insight),
        replicas=replicas_shown(insight),
        store=store_status(store, insight, None),
    )


def described(
    sink: SinkState, health: SinkHealth | None, *, redact: Callable[[str], str] = str
) -> SinkStatus:
    """A sink for people and scripts; without a daemon nothing is known but what is stored."""
    state = "disabled" if sink.disabled_ms is not None else "unknown" if health is None else health.state
    error = sink.disabled_reason or (health.last_error if health else None)
    return SinkStatus(
        name=sink.name,
        state=state if sink.configured else "removed",
        pending=sink.pending,
        dead_letters=sink.dead,
        last_error=None if error is None else redact(error),
        failing_since=_at(sink.disabled_ms or (health.failing_since_ms if health else None)),
        next_attempt=_at(health.next_attempt_ms if health else None),
        last_delivered=_at(health.delivered_ms if health else None),
    )


def failure_shown(failure: FailedDelivery, redact: Callable[[str], str] = str) -> answers.FailedDelivery:
    """A delivery that failed lately, for people and scripts."""
    return answers.FailedDelivery(
        sink=failure.sink,
        event_id=failure.event_id,
        scope_type=failure.scope.scope_type,
        scope_id=failure.scope.scope_id,
        scope_name=failure.scope_name,
        state=failure.state,
        attempts=[attempt_shown(attempt, redact) for attempt in failure.attempts],
        next_attempt=rfc3339(failure.due_ms) if failure.state == PENDING and failure.due_ms else None,
    )


def gaps_shown(insight: Insight) -> list[Gap]:
    """Times of which events may be lost."""
    return [
        Gap(from_=rfc3339(from_ms), to=rfc3339(to_ms), found=found, not_read=not_read)
        for from_ms, to_ms, found, not_read in insight.gaps
    ]


def replicas_shown(insight: Insight) -> list[ReplicaStatus]:
    """The daemons that share the store."""
    return [
        ReplicaStatus(
            id=one.id,
            host=one.host,
            pid=one.pid,
            version=one.version,
            seen=rfc3339(one.seen_ms),
            connection=one.connection,
            leads=one.leads,
        )
        for one in insight.replicas
    ]


def store_status(path: str, insight: Insight, max_bytes: int | None) -> StoreStatus:
    """The store's file and its bound."""
    size = insight.size_bytes
    return StoreStatus(
        path=path,
        size_mb=None if size is None else round(size / MIB, 1),
        max_size_mb=None if max_bytes is None else max_bytes // MIB,
    )


def _at(ms: int | None) -> str | None:
    return None if ms is None else rfc3339(ms)


def _wall(monotonic_s: float | None) -> str | None:
    return None if monotonic_s is None else rfc3339(wall_ms(monotonic_s))
