"""What people ask of a running daemon, over the control socket; see `web.api.Actions`."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Final, Protocol

import structlog

from reserve_listener.clock import now_ms
from reserve_listener.daemon.alerts.watch import BY_HAND
from reserve_listener.daemon.trial import sample_delivery, send_test_event
from reserve_listener.errors import NotFoundError, ReserveListenerError
from reserve_listener.protocols.store import StoreAdmin, StoreReadings
from reserve_listener.web.answers import Reconciling, Reconnected

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Sequence

    from reserve_listener.daemon.rooms import Rooms
    from reserve_listener.daemon.snapshot import Health
    from reserve_listener.delivery import Worker, Workers
    from reserve_listener.model import EventQuery
    from reserve_listener.protocols import Transport
    from reserve_listener.web.answers import Comparison, SampleResult, Status

RECONNECT_S: Final = 15.0
"""As long as an attempt may take: the endpoint's answer and the handshake."""

RECONNECT_LOOK_S: Final = 0.1

log = structlog.get_logger("control")


class ActedOn(StoreAdmin, StoreReadings, Protocol):
    """The roles of a store that are needed here."""


class OperatorActions:
    """Acts on the parts of one daemon."""

    def __init__(
        self,
        app_id: str,
        store: ActedOn,
        *,
        transport: Transport,
        workers: Workers,
        health: Health,
        rooms: Rooms,
        redact: Callable[[str], str] = str,
    ) -> None:
        self._app_id = app_id
        self._redact = redact
        self._rooms = rooms
        self._store = store
        self._transport = transport
        self._workers = workers
        self._health = health
        self.for_alerts_only: Callable[[], Collection[str]] = tuple
        """Names of the sinks that get nothing but alerts."""

    async def status(self) -> Status:
        """See `web.api.Actions`."""
        return await self._health.snapshot()

    async def operate(self, operation: str, selected: Sequence[EventQuery]) -> int:
        """See `web.api.Actions`."""
        count = 0
        for filters in selected:
            count += await self._store.operate(operation, filters)
        log.info("control.done", operation=operation, deliveries=count)
        return count

    async def switch_sink(self, name: str, *, on: bool) -> bool:
        """See `web.api.Actions`."""
        worker = self._worker(name)
        if on:
            changed = await self._store.enable_sink(name)
            worker.enable()
        else:
            changed = await self._store.disable_sink(name, BY_HAND)
            worker.disable()
        log.info("control.done", operation="enable" if on else "disable", sink=name, changed=changed)
        return changed

    async def test_sink(self, name: str) -> SampleResult:
        """See `web.api.Actions`."""
        sample = sample_delivery(self._app_id, now_ms(), is_alert=name in self.for_alerts_only())
        return await send_test_event(self._worker(name).aside.deliver, sample, redact=self._redact)

    async def reconnect(self) -> str:
        """See `web.api.Actions`."""
        was = self._health.connection()
        if not self._transport.reconnect():
            raise ReserveListenerError(
                "the platform pushes to this daemon's webhook, so there is no connection to renew."
            )
        log.info("control.done", operation="reconnect", was=was)
        return was

    async def reconnected(self, was: str, asked_s: float) -> Reconnected:
        """What came of `reconnect`, asked for then: connected, or waiting for the next attempt; where it is if it takes too long."""
        deadline_s = asked_s + RECONNECT_S
        while time.monotonic() < deadline_s:
            state = self._transport.state
            if state.name in {"connected", "waiting"} and state.since >= asked_s:
                break
            await asyncio.sleep(RECONNECT_LOOK_S)
        state = self._transport.state
        return Reconnected(was=was, state=state.name, text=self._health.connection(), hint=state.hint)

    async def reconcile(self, scope_ids: Sequence[str] | None, *, dry_run: bool) -> Reconciling:
        """See `web.api.Actions`."""
        if not await self._store.may_reconcile():
            raise ReserveListenerError(
                "another replica compares limits. `reserve-listener reconcile` asks that one, from any machine."
            )
        job = await self._rooms.ask(scope_ids, dry_run=dry_run)
        log.info("control.done", operation="reconcile", scopes=scope_ids or "all", dry_run=dry_run)
        return Reconciling(status="reconciling" if job.is_begun else "waiting", id=job.id)

    def comparison(self, comparison_id: str, after: int) -> Comparison:
        """See `web.api.Actions`."""
        return self._rooms.comparison(comparison_id, after)

    def _worker(self, name: str) -> Worker:
        worker = self._workers.worker(name)
        if worker is None:
            raise NotFoundError(
                f'the daemon has no sink "{name}". If it was just added, reload the configuration first.'
            )
        return worker
