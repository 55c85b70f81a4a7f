"""How the daemon is: one snapshot for `status`, one line for `systemctl status`."""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING, Any, Final

from reserve_listener import __version__
from reserve_listener.clock import now_ms, rfc3339
from reserve_listener.errors import StoreError
from reserve_listener.model import MIB

if TYPE_CHECKING:
    from collections.abc import Callable

    from reserve_listener.delivery import SinkHealth, Workers
    from reserve_listener.model import SinkState
    from reserve_listener.protocols import Transport
    from reserve_listener.store import SqliteStore

GAPS_SHOWN_MS: Final = 30 * 24 * 3600 * 1000


class Health:
    """Looks at the parts, and changes nothing. `scrub` masks what is secret."""

    def __init__(
        self,
        app_id: str,
        store: SqliteStore,
        transport: Transport,
        workers: Workers,
        *,
        scrub: Callable[[str], str],
    ) -> None:
        self._app_id = app_id
        self._store = store
        self._transport = transport
        self._workers = workers
        self._scrub = scrub
        self._started = time.monotonic()

    async def line(self) -> str:
        """The connection, the backlog and what is wrong, in a line."""
        backlog = ", ".join(f"{name} {count}" for name, count in (await self._backlog()).items())
        troubled = [
            f"{name} {health.state}"
            for name, health in self._workers.health().items()
            if health.state in ("down", "disabled")
        ]
        parts = [self.connection(), f"pending: {backlog or 'store failing'}", *troubled]
        if self._store.problem is not None:
            parts.append(f"answering 500: {self._store.problem}")
        return "; ".join(parts)

    def connection(self) -> str:
        """The connection's state for people."""
        state = self._transport.state
        if state.until is None:
            return state.name
        return self._scrub(f"waiting {max(0.0, state.until - time.monotonic()):.0f} s ({state.reason})")

    async def snapshot(self) -> dict[str, Any]:
        """Everything that `status` shows."""
        state, problem = self._transport.state, self._store.problem
        sinks, gaps, size_bytes = await self._stored()
        bound = self._store.max_bytes
        return {
            "healthy": state.hears and problem is None,
            "version": __version__,
            "pid": os.getpid(),
            "running_s": round(time.monotonic() - self._started),
            "connection": self.connection(),
            "problem": problem,
            "pending": {sink.name: sink.pending for sink in sinks if sink.configured},
            "sinks": [self._sink(sink) for sink in sinks if sink.configured],
            "gaps": [{"from": rfc3339(from_ms), "to": rfc3339(to_ms)} for from_ms, to_ms in gaps],
            "store": {
                "path": str(self._store.path),
                "size_mb": None if size_bytes is None else round(size_bytes / MIB, 1),
                "max_size_mb": None if bound is None else bound // MIB,
            },
        }

    def _sink(self, sink: SinkState) -> dict[str, Any]:
        worker = self._workers.worker(sink.name)
        return described(sink, None if worker is None else worker.health, scrub=self._scrub)

    async def _stored(self) -> tuple[list[SinkState], list[tuple[int, int]], int | None]:
        try:
            since_ms = now_ms() - GAPS_SHOWN_MS
            return (
                await self._store.sinks(),
                await self._store.gaps(self._app_id, since_ms=since_ms),
                await self._store.measure(),
            )
        except StoreError:
            return [], [], None

    async def _backlog(self) -> dict[str, int]:
        try:
            return await self._store.backlog()
        except StoreError:
            return {}


def described(
    sink: SinkState, health: SinkHealth | None, *, scrub: Callable[[str], str] = str
) -> dict[str, Any]:
    """A sink for people and scripts; without a daemon nothing is known but what is stored."""

    def at(ms: int | None) -> str | None:
        return None if ms is None else rfc3339(ms)

    state = "disabled" if sink.disabled_ms is not None else "unknown" if health is None else health.state
    error = sink.disabled_reason or (health.last_error if health else None)
    return {
        "name": sink.name,
        "state": state if sink.configured else "removed",
        "pending": sink.pending,
        "dead_letters": sink.dead,
        "last_error": None if error is None else scrub(error),
        "failing_since": at(sink.disabled_ms or (health.failing_since_ms if health else None)),
        "next_attempt": at(health.next_attempt_ms if health else None),
        "last_delivered": at(health.delivered_ms if health else None),
    }
