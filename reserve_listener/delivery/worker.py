"""One sink's worker: claim what is due, deliver, persist what came of it.

What must stay true:
- A delivery leaves the worker's hands (`_in_hand`) only when its outcome is committed, so it is neither lost nor taken
  twice within one life of the process; after a crash it is claimed again.
- Deliveries of one scope are carried one after the other, oldest first. A failed one holds back only its own scope:
  later ones are dropped from memory and claimed again behind it.
- The loop alone starts attempts and handles their ends, so a claim never runs between a failure and its commit.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections import deque
from typing import TYPE_CHECKING, Final

import structlog

from reserve_listener.errors import DeliveryError, MisconfiguredSinkError, StoreError
from reserve_listener.model import DEAD, DELIVERED, Delivery, Outcome
from reserve_listener.retry import RetryPolicy, decide

if TYPE_CHECKING:
    from collections.abc import Callable

    from reserve_listener.protocols import Sink, Store

STORE_PAUSE_S: Final = 1.0
"""How long a worker leaves a failing store alone."""

READY_LIMIT: Final = 2_000
READY_BYTES: Final = 32 * 1024 * 1024
"""What is held in memory behind scopes under way, so that others can pass a scope that is slow."""

log = structlog.get_logger("delivery")

Attempt = asyncio.Task[list[Outcome]]


class Worker:
    """Carries the deliveries of one sink until told to drain."""

    def __init__(
        self,
        sink: Sink,
        store: Store,
        *,
        policy: RetryPolicy,
        now_ms: Callable[[], int] | None = None,
        chance: Callable[[], float] = random.random,
    ) -> None:
        self.sink = sink
        self._store = store
        self._policy = policy
        self._now_ms = now_ms or (lambda: time.time_ns() // 1_000_000)
        self._chance = chance
        self._wake = asyncio.Event()
        self._draining = False
        self._halted = False
        self._more = True
        """Whether the store may hold due deliveries that are not in hand."""
        self._claimed_ms = 0
        self._ready: deque[Delivery] = deque()
        self._in_hand: set[int] = set()
        self._busy_scopes: set[int] = set()
        self._attempts: dict[Attempt, list[Delivery]] = {}
        self._unsettled: list[Outcome] = []

    def wake(self) -> None:
        """New deliveries are in the store."""
        self._more = True
        self._wake.set()

    def drain(self) -> None:
        """Deliver what is due, then return from `run`. What waits for a later time stays in the store."""
        self._draining = True
        self._wake.set()

    def halt(self) -> None:
        """Begin nothing new and return from `run` when the attempts under way have ended."""
        self._halted = True
        self.drain()

    @property
    def leaving(self) -> bool:
        """Whether `run` was asked to return."""
        return self._draining

    async def run(self) -> None:
        """Deliver until drained. Cancelling breaks off attempts; what they came to is found out after a restart."""
        try:
            while not self._finished():
                try:
                    await self._turn()
                except StoreError as error:
                    log.error(
                        "delivery.store_failed", sink=self.sink.name, error=str(error), delay_s=STORE_PAUSE_S
                    )
                    self._more = True
                    await self._sleep(STORE_PAUSE_S)
        finally:
            for attempt in self._attempts:
                attempt.cancel()
            await asyncio.gather(*self._attempts, return_exceptions=True)

    def _finished(self) -> bool:
        busy = bool(self._attempts or self._unsettled)
        wanting = not self._halted and bool(self._ready or self._more)
        return self._draining and not busy and not wanting

    async def _turn(self) -> None:
        self._collect()
        self._start()
        await self._settle()
        await self._claim()
        self._start()
        if not self._unsettled and not self._finished():
            await self._wait()

    # -- the ends of attempts -----------------------------------------------------------------------------------------------

    def _collect(self) -> None:
        for attempt in [attempt for attempt in self._attempts if attempt.done()]:
            deliveries = self._attempts.pop(attempt)
            self._busy_scopes.difference_update(delivery.scope for delivery in deliveries)
            outcomes = attempt.result()
            self._unsettled += outcomes
            scopes = {delivery.seq: delivery.scope for delivery in deliveries}
            held = {scopes[outcome.seq] for outcome in outcomes if outcome.state not in (DELIVERED, DEAD)}
            if held:
                self._let_go(held)

    def _let_go(self, scopes: set[int]) -> None:
        dropped = [delivery for delivery in self._ready if delivery.scope in scopes]
        self._ready = deque(delivery for delivery in self._ready if delivery.scope not in scopes)
        self._in_hand.difference_update(delivery.seq for delivery in dropped)

    async def _settle(self) -> None:
        if not self._unsettled:
            return
        outcomes, self._unsettled = self._unsettled, []
        try:
            await self._store.settle(self.sink.name, outcomes)
        except BaseException:
            self._unsettled = outcomes + self._unsettled
            raise
        self._in_hand.difference_update(outcome.seq for outcome in outcomes)
        # A wish for a time before the last claim (the clock was set back) would never be looked for.
        due = [outcome.due_ms - 1 for outcome in outcomes if outcome.state not in (DELIVERED, DEAD)]
        self._claimed_ms = min([self._claimed_ms, *due])

    # -- attempts -----------------------------------------------------------------------------------------------------------

    async def _claim(self) -> None:
        if not self._more or not self._room():
            return
        slots = self.sink.batch_size * self.sink.max_in_flight
        self._more = False
        self._claimed_ms = self._now_ms()
        claimed = await self._store.claim(
            self.sink.name, limit=4 * slots, now_ms=self._claimed_ms, excluding=self._in_hand
        )
        self._more = self._more or bool(claimed)
        self._ready.extend(claimed)
        self._in_hand.update(delivery.seq for delivery in claimed)

    def _place_free(self) -> bool:
        return len(self._attempts) < self.sink.max_in_flight

    def _room(self) -> bool:
        """Whether a claim is wanted. With a place free, all that is ready waits for scopes under way: let others pass."""
        if self._halted:
            return False
        if len(self._ready) < self.sink.batch_size * self.sink.max_in_flight:
            return True
        held_bytes = sum(len(delivery.body) for delivery in self._ready)
        return self._place_free() and len(self._ready) < READY_LIMIT and held_bytes < READY_BYTES

    def _start(self) -> None:
        while self._ready and not self._halted and self._place_free():
            batch = self._next_batch()
            if not batch:
                return
            self._busy_scopes.update(delivery.scope for delivery in batch)
            attempt = asyncio.create_task(
                self._attempt(batch), name=f"delivery-{self.sink.name}-{batch[0].seq}"
            )
            attempt.add_done_callback(lambda _: self._wake.set())
            self._attempts[attempt] = batch

    def _next_batch(self) -> list[Delivery]:
        batch: list[Delivery] = []
        passed: list[Delivery] = []
        while self._ready and len(batch) < self.sink.batch_size:
            delivery = self._ready.popleft()
            (passed if delivery.scope in self._busy_scopes else batch).append(delivery)
        self._ready.extendleft(reversed(passed))
        return batch

    async def _attempt(self, batch: list[Delivery]) -> list[Outcome]:
        started = time.monotonic()
        try:
            await self.sink.deliver(batch)
        except Exception as error:  # noqa: BLE001  # whatever a sink does, its deliveries stay in the store
            chance = self._chance()  # one for all: a batch that failed together comes back together
            return [self._failed(delivery, error, chance) for delivery in batch]
        log.debug(
            "delivery.done",
            sink=self.sink.name,
            events=len(batch),
            event_id=batch[0].event_id,
            attempt=batch[0].attempts + 1,
            took_s=round(time.monotonic() - started, 4),
        )
        return [Outcome.delivered(delivery) for delivery in batch]

    def _failed(self, delivery: Delivery, error: Exception, chance: float) -> Outcome:
        now_ms = self._now_ms()
        outcome = decide(self._policy, delivery, error, now_ms=now_ms, chance=chance)
        facts = {
            "sink": self.sink.name,
            "event_id": delivery.event_id,
            "attempt": outcome.attempts,
            "error": outcome.error,
        }
        if outcome.state == DEAD:
            log.error("delivery.dead_letter", **facts)
        elif isinstance(error, MisconfiguredSinkError):
            log.error("delivery.sink_misconfigured", **facts, delay_s=(outcome.due_ms - now_ms) / 1000)
        else:
            defect = None if isinstance(error, DeliveryError) else error
            log.warning("delivery.retry", **facts, delay_s=(outcome.due_ms - now_ms) / 1000, exc_info=defect)
        return outcome

    # -- waiting ------------------------------------------------------------------------------------------------------------

    async def _wait(self) -> None:
        """Until something is to be done: new deliveries, the end of an attempt, the next due time, the drain."""
        if self._more and self._room():
            return
        await self._sleep(await self._until_due())

    async def _until_due(self) -> float | None:
        if self._draining or not (self._place_free() and self._room()):
            return None  # nothing new is wanted, or the end of an attempt wakes us
        # What came due by the last claim was seen by it: only what is due after it can be news.
        due_ms = await self._store.next_due_ms(self.sink.name, after_ms=self._claimed_ms)
        if due_ms is None:
            return None
        return max(0.0, (due_ms - self._now_ms()) / 1000)

    async def _sleep(self, timeout_s: float | None) -> None:
        try:
            async with asyncio.timeout(timeout_s):
                await self._wake.wait()
        except TimeoutError:
            self._more = True
        self._wake.clear()
