"""One sink's worker: claim what is due, deliver it, store the outcome.

What must stay true:
- A delivery stays in the worker's hands until its outcome is committed, so within one life of the process it is neither lost
  nor taken twice; after a crash it is claimed again.
- Deliveries of one scope are made one after the other, oldest first: a scope with a delivery in hand is not claimed. A
  failed delivery holds back only its own scope.
- Only the loop starts attempts and handles their ends, so no claim runs between a failure and its commit.
"""

from __future__ import annotations

import asyncio
import random
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, NamedTuple, TypedDict

import structlog
from msgspec.structs import replace

from reserve_listener.ages import Ages
from reserve_listener.clock import now_ms
from reserve_listener.delivery import lines
from reserve_listener.delivery.aside import Aside
from reserve_listener.delivery.breaker import Breaker
from reserve_listener.delivery.pending import Pending
from reserve_listener.delivery.retry import RetryPolicy, decide, is_down
from reserve_listener.errors import (
    DeliveryError,
    MisconfiguredSinkError,
    PartlyDeliveredError,
    PermanentDeliveryError,
    SinkGoneError,
    StoreError,
)
from reserve_listener.meters import DEAD, RETRY, DeliveryMeter
from reserve_listener.model import DELIVERED, PENDING, AttemptRecord, Delivery, Outcome

if TYPE_CHECKING:
    from collections.abc import Callable

    from reserve_listener.protocols import Sink
    from reserve_listener.protocols.store import StoreQueue

STORE_PAUSE_S: Final = 1.0
"""How long a worker leaves a store alone that fails."""

LOOK_S: Final = 60.0
"""How often a wait is checked again at least: the clock may have been set."""

PACE_S: Final = 0.02
"""How often to look for new events while they keep coming, so that they share the cost of a look. The first event after a
pause is looked for at once."""

CLAIM_AHEAD: Final = 4
"""A claim takes this many times as much as can be under way."""

log = structlog.get_logger("delivery")

Attempt = asyncio.Task[None]


class UnderWay(NamedTuple):
    """An attempt's deliveries, and when it began (monotonic)."""

    deliveries: list[Delivery]
    started_s: float


class Terms(TypedDict):
    """The arguments that both kinds of claim share; see `protocols.store.StoreQueue.claim`."""

    limit: int
    per_scope: int
    now_ms: int
    raw: bool


@dataclass(slots=True)
class SinkHealth:
    """How a sink is doing, for people. Times are milliseconds since the epoch."""

    state: str = "ok"
    """"ok", "failing" (the last attempt failed), "misconfigured", "down" (probed only) or "disabled"."""
    last_error: str | None = None
    failing_since_ms: int | None = None
    delivered_ms: int | None = None
    next_attempt_ms: int | None = None


class Worker:
    """Makes the deliveries of one sink until told to drain. `disabled`: begins only after `enable`.

    `redact` masks secrets in error texts before they are stored: a sink's author may have quoted one.
    """

    def __init__(
        self,
        sink: Sink,
        store: StoreQueue,
        *,
        policy: RetryPolicy,
        disabled: bool = False,
        now_ms: Callable[[], int] = now_ms,
        ages: Ages | None = None,
        jitter: Callable[[], float] = random.random,
        meter: DeliveryMeter | None = None,
        redact: Callable[[str], str] = str,
    ) -> None:
        self.sink = sink
        self._redact = redact
        self.meter = meter or DeliveryMeter()
        self._store = store
        self._policy = policy
        self._ages = ages or Ages(now_ms, now_ms)
        self._now_ms = self._ages.now_ms
        self._jitter = jitter
        self._fence = store.holds(sink.name)
        self._wake = asyncio.Event()
        self.aside = Aside(
            sink,
            taken=lambda: sum(not attempt.done() for attempt in self._attempts),
            leaving=lambda: self._draining,
            took=self._try_all,
            done=self._wake.set,
        )
        self._window_s: float = getattr(sink, "window_s", 0)
        self._per_scope: int = 1 if getattr(sink, "one_per_scope", False) else sink.batch_size
        self._looked_s = float("-inf")
        self._next_look: asyncio.TimerHandle | None = None
        self._draining = False
        self._halted = False
        self._disabled = disabled
        self._breaker = Breaker(policy)
        self._pending = Pending()
        self._epoch = 0
        self._bring_forward = True
        self._newer_first = True
        self._busy_scopes: set[int] = set()
        self._attempts: dict[Attempt, UnderWay] = {}
        self._probe: Attempt | None = None
        self._unsettled: list[Outcome] = []
        self._gone: str | None = None
        self._release = False
        self._expire: str | None = None
        self._misconfigured = False
        self._refused = False
        self._health = SinkHealth()
        self._arrivals = lines.Arrivals(sink.name, seen=getattr(sink, "is_log", False))

    def wake(self) -> None:
        """New deliveries are in the store."""
        if self._next_look is not None:
            return
        loop = asyncio.get_running_loop()
        wait_s = max(self._window_s, self._looked_s + PACE_S - loop.time())
        if wait_s > 0 and not self._draining:
            self._next_look = loop.call_later(wait_s, self._look)
        else:
            self._look()

    def _look(self) -> None:
        if self._next_look is not None:
            self._next_look.cancel()
            self._next_look = None
        self._looked_s = asyncio.get_running_loop().time()
        self._pending.at_end = False
        self._wake.set()

    def requeue(self) -> None:
        """Settled or held-back deliveries are pending again: look at everything."""
        self._epoch += 1
        self._bring_forward = True  # the clock may have been set
        self._pending.forget()
        self._wake.set()

    @property
    def is_disabled(self) -> bool:
        """Whether it starts nothing until `enable`."""
        return self._disabled

    def disable(self) -> None:
        """Start nothing until `enable`. Waiting deliveries stay in the store."""
        self._disabled = True
        self._epoch += 1  # what a claim finds now would be older after the pause than it counts
        self._pending.let_go()
        self._wake.set()

    def enable(self) -> None:
        """Go on after `disable`."""
        self._disabled = False
        self._gone = None
        if self._health.failing_since_ms is not None:
            self._health.failing_since_ms = self._now_ms()  # nothing was tried meanwhile
        self._release = self._breaker.up() or self._release
        self.requeue()

    def drain(self) -> None:
        """Deliver what is due, then return from `run`. What is due later stays in the store."""
        self._draining = True
        self._look()

    def halt(self) -> None:
        """Start nothing new, and return from `run` once the attempts under way have ended."""
        self._halted = True
        self.drain()

    @property
    def leaving(self) -> bool:
        """Whether `run` has been asked to return."""
        return self._draining

    @property
    def health(self) -> SinkHealth:
        """How the sink is doing now."""
        health = self._health
        failing = (
            "misconfigured" if self._misconfigured else "failing" if health.last_error is not None else "ok"
        )
        health.state = "disabled" if self._disabled else "down" if self._breaker.is_open else failing
        health.next_attempt_ms = self._next_ms()
        return health

    @property
    def in_flight(self) -> int:
        """How many deliveries are under way."""
        return sum(len(under_way.deliveries) for under_way in self._attempts.values())

    async def run(self) -> None:
        """Deliver until drained. Cancelling aborts the attempts; their deliveries are claimed again later."""
        try:
            while not self._finished():
                try:
                    await self._turn()
                except StoreError as error:
                    log.error(
                        "delivery.store_failed", sink=self.sink.name, error=str(error), delay_s=STORE_PAUSE_S
                    )
                    await asyncio.sleep(STORE_PAUSE_S)  # not `_sleep`: the end of the commit has woken it
        finally:
            if self._next_look is not None:
                self._next_look.cancel()
            self._halted = True
            self._collect()  # what has ended by now is not made again: see `save`
            for attempt in self._attempts:
                attempt.cancel()
            await asyncio.gather(*self._attempts, return_exceptions=True)
            self._attempts.clear()

    async def save(self) -> None:
        """After `run` was cancelled: store the outcomes of the attempts that had ended by then. Raises `StoreError`."""
        await self._settle()

    def _finished(self) -> bool:
        busy = bool(self._attempts or self._unsettled or self.aside.under_way)
        wanting = self._slots() > 0 and (bool(self._pending.ready) or self._pending.unfinished)
        return self._draining and not busy and not wanting

    async def _turn(self) -> None:
        self._look_whose()
        self._collect()
        self._start()
        await self._settle()
        await self._bound_waits()
        await self._claim()
        self._start()
        if not self._unsettled and not self._finished():
            await self._wait()

    def _is_ours(self) -> bool:
        """Whether this daemon works the sink and has done so without a break since it claimed what is in hand."""
        return self._fence != 0 and self._store.holds(self.sink.name) == self._fence

    def _look_whose(self) -> None:
        """Another daemon may have worked the sink and delivered what is ready here: if so, start over."""
        fence = self._store.holds(self.sink.name)
        if fence != self._fence:
            self._fence = fence
            self._pending.let_go()
            self.requeue()

    def _slots(self) -> int:
        """How many deliveries may be under way at once, as things are now."""
        if self._halted or self._disabled or not self._is_ours():
            return 0
        if self._breaker.is_open:
            return int(self._breaker.may_probe(self._now_ms()))
        return self.sink.batch_size * self.sink.max_in_flight

    # -- the ends of attempts -----------------------------------------------------------------------------------------------

    def _collect(self) -> None:
        for attempt in [attempt for attempt in self._attempts if attempt.done()]:
            deliveries, started_s = self._attempts.pop(attempt)
            self._busy_scopes.difference_update(delivery.scope for delivery in deliveries)
            probing, self._probe = attempt is self._probe, None if attempt is self._probe else self._probe
            error = asyncio.CancelledError() if attempt.cancelled() else attempt.exception()
            took_s = time.monotonic() - started_s
            self.meter.attempts_s.observe(took_s)
            for part, failure in _parts(deliveries, error):
                outcomes = self._outcomes(part, failure, probing=probing, took_s=took_s)
                self._unsettled += outcomes
                self._count(part, outcomes)

    def _count(self, deliveries: list[Delivery], outcomes: list[Outcome]) -> None:
        now_ms, meter = self._now_ms(), self.meter
        for delivery, outcome in zip(deliveries, outcomes, strict=True):
            meter.outcomes[RETRY if outcome.state == PENDING else outcome.state] += 1
            if outcome.state == DELIVERED:
                meter.delays_s.observe(max(0, now_ms - delivery.received_ms) / 1000)

    def _outcomes(
        self, deliveries: list[Delivery], error: BaseException | None, *, probing: bool, took_s: float
    ) -> list[Outcome]:
        self._misconfigured = isinstance(error, MisconfiguredSinkError)
        if error is None:
            self._is_up()
            self._health.last_error, self._health.failing_since_ms = None, None
            self._health.delivered_ms = self._now_ms()
            self._arrivals.tell(deliveries, took_s)
            return [self._delivered(delivery, probing=probing, took_s=took_s) for delivery in deliveries]
        if not isinstance(
            error, Exception
        ):  # a sink that cancels itself: its deliveries stay in the store all the same
            error = RuntimeError(type(error).__name__)
        self._health.last_error = text = self._text(error)
        self._health.failing_since_ms = self._failing_since_ms(error)
        self._pending.let_go(frozenset(delivery.scope for delivery in deliveries))
        outcomes = self._failed(deliveries, error, text, probing=probing)
        return [
            self._told(delivery, outcome, error, probing=probing, took_s=took_s)
            for delivery, outcome in zip(deliveries, outcomes, strict=True)
        ]

    def _failing_since_ms(self, error: Exception) -> int:
        """A receiver that refused one event was there to do so: a failure after that is the first of a new series."""
        since_ms = None if self._refused else self._health.failing_since_ms
        self._refused = isinstance(error, PermanentDeliveryError)
        return since_ms or self._now_ms()

    def _delivered(self, delivery: Delivery, *, probing: bool, took_s: float) -> Outcome:
        outcome = Outcome.delivered(delivery)
        if not delivery.attempts and not probing:
            return outcome  # nothing had failed: nobody will ask
        return replace(outcome, attempt=self._record(outcome, None, took_s))

    def _told(
        self, delivery: Delivery, outcome: Outcome, error: Exception, *, probing: bool, took_s: float
    ) -> Outcome:
        outcome = replace(outcome, attempt=self._record(outcome, error, took_s))
        if not isinstance(error, SinkGoneError):  # said once, for all of them
            lines.tell_failed(
                self.sink.name,
                delivery,
                outcome,
                error,
                probing=probing and self._breaker.is_open,
                now_ms=self._now_ms(),
            )
        return outcome

    def _record(self, outcome: Outcome, error: Exception | None, took_s: float) -> AttemptRecord:
        name = "retry" if outcome.state == PENDING else outcome.state
        status = error.status if isinstance(error, DeliveryError) else None
        return AttemptRecord(self._now_ms(), name, status, round(took_s * 1000), outcome.error)

    def _text(self, error: Exception) -> str:
        return self._redact(str(error) or type(error).__name__)

    def _failed(
        self, deliveries: list[Delivery], error: Exception, text: str, *, probing: bool
    ) -> list[Outcome]:
        jitter = self._jitter()  # one for all: a batch that failed together comes back together
        if isinstance(error, SinkGoneError):
            return self._sink_gone(deliveries, text)
        if not is_down(error):
            self._is_up()
        elif self._breaker.down(error, now_ms=self._now_ms(), jitter=jitter, probing=probing):
            self._pending.let_go()
            self._release = True  # the breaker's pace is everybody's now: any of them may be the probe
            log.error(
                "delivery.sink_down",
                sink=self.sink.name,
                error=text,
                delay_s=(self._breaker.probe_ms - self._now_ms()) / 1000,
                hint="from now on it is only probed; its deliveries wait in the store",
            )
        elif self._breaker.is_open and not probing:
            self._release = True  # the same for what had begun before
        if probing and self._breaker.is_open:
            self._expire = text
            return [self._probed(delivery, text) for delivery in deliveries]
        now_ms, before_ms = self._now_ms(), self._ages.ago_ms(self._policy.max_age_ms)
        return [
            decide(
                self._policy, delivery, error, text=text, now_ms=now_ms, jitter=jitter, before_ms=before_ms
            )
            for delivery in deliveries
        ]

    def _is_up(self) -> None:
        if self._breaker.up():
            self._release, self._expire = True, None
            log.info("delivery.sink_up", sink=self.sink.name)

    def _try_all(self) -> None:
        """A test or an alert got through: what waits for its next attempt is due now."""
        if self._health.failing_since_ms is not None and self._is_ours():
            self._is_up()
            self._release = True

    def _sink_gone(self, deliveries: list[Delivery], text: str) -> list[Outcome]:
        if not self._disabled:
            log.error(
                "delivery.sink_disabled",
                sink=self.sink.name,
                error=text,
                hint=f"its deliveries wait; once the receiver is back, run: reserve-listener sinks enable {self.sink.name}",
            )
        self.disable()
        self._gone = text
        return [Outcome.uncounted(delivery, due_ms=0, error=text) for delivery in deliveries]

    def _probed(self, delivery: Delivery, text: str) -> Outcome:
        return Outcome.uncounted(delivery, due_ms=self._breaker.probe_ms, error=text)

    # -- what is persisted --------------------------------------------------------------------------------------------------

    async def _settle(self) -> None:
        while self._unsettled:
            await self._persist()
            if all(outcome.state == DELIVERED for outcome in self._unsettled):
                break  # in hand until the next time: they keep no claim waiting
        if self._gone is not None:
            if not await self._store.disable_gone(self.sink.name, self._gone):
                self.enable()  # another daemon works the sink, and finds out by itself
            self._gone = None
        if self._release:
            await self._store.release(self.sink.name)
            self._release = False
            self._pending.mature_all()
        if self._expire is not None and not self._attempts:
            await self._bury_expired(self._expire)
            self._expire = None

    async def _persist(self) -> None:
        """Commit the outcomes, and make attempts meanwhile: while events are projected, a commit takes longer than many attempts."""
        outcomes, self._unsettled = self._unsettled, []
        commit = asyncio.ensure_future(self._store.settle(self.sink.name, outcomes))
        commit.add_done_callback(lambda _: self._wake.set())
        try:
            while not commit.done():
                self._wake.clear()
                self._collect()
                self._start()
                await self._wake.wait()
            self._collect()
            self._start()
            await commit
        except BaseException:
            commit.cancel()
            self._unsettled = outcomes + self._unsettled
            raise
        self._settled(outcomes)

    def _settled(self, outcomes: list[Outcome]) -> None:
        scopes = self._pending.settled(outcome.seq for outcome in outcomes)
        for scope, outcome in zip(scopes, outcomes, strict=True):
            if outcome.state == PENDING and outcome.due_ms:
                self._pending.retry(scope, outcome.due_ms)
            elif outcome.state == PENDING:
                self._pending.put_behind(scope)

    async def _bury_expired(self, error: str) -> None:
        """Give up what has become too old. While a sink is down hardly anything is attempted, so no attempt would find out."""
        self._pending.let_go()
        before_ms = self._ages.ago_ms(self._policy.max_age_ms)
        text = f"{error} (given up after {self._policy.max_age_s:g} s)"
        dead_lettered = await self._store.dead_letter_expired(self.sink.name, before_ms=before_ms, error=text)
        if dead_lettered:
            self.meter.outcomes[DEAD] += dead_lettered
            log.error("delivery.expired", sink=self.sink.name, events=dead_lettered, error=text)
            self.requeue()

    async def _bound_waits(self) -> None:
        """See that no row is due later than the longest wait from now: the clock may have been set back, or the policy changed."""
        if self._bring_forward:
            latest_ms = self._now_ms() + self._policy.longest_wait_ms
            await self._store.bring_forward(self.sink.name, latest_ms=latest_ms)
            self._bring_forward = False

    # -- attempts -----------------------------------------------------------------------------------------------------------

    async def _claim(self) -> None:
        """Fill `ready` from the scopes that are due again and from what is new, in turns so that neither starves."""
        if self._slots() <= len(self._pending.ready):
            return
        ways = [self._claim_scopes, self._claim_newer]
        self._newer_first = not self._newer_first
        for claim in reversed(ways) if self._newer_first else ways:
            if self._slots() > len(self._pending.ready):
                await claim()

    async def _claim_scopes(self) -> None:
        pending, epoch, terms = self._pending, self._epoch, self._terms()
        pending.mature(terms["now_ms"])
        if scopes := list(pending.claimable(terms["limit"])):
            claimed = await self._store.claim_scopes(self.sink.name, scopes, **terms)
            if epoch == self._epoch:
                pending.take(claimed, asked=scopes)

    async def _claim_newer(self) -> None:
        pending, epoch = self._pending, self._epoch
        if pending.at_end:
            return
        pending.at_end = True  # unless woken meanwhile
        try:
            claimed = await self._store.claim(
                self.sink.name, after_seq=pending.cursor, skipping=pending.skipping, **self._terms()
            )
        except BaseException:
            pending.at_end = False
            raise
        if epoch == self._epoch:
            pending.cursor = claimed.seen_seq
            pending.at_end = pending.at_end and claimed.at_end
            pending.take(claimed)

    def _terms(self) -> Terms:
        now_ms = self._now_ms()
        if self._breaker.is_open:
            now_ms = max(now_ms, self._breaker.probe_ms)  # the clock may have been set back
        return Terms(
            limit=1 if self._breaker.is_open else CLAIM_AHEAD * self._slots(),
            per_scope=self._per_scope,
            now_ms=now_ms,
            raw=self.sink.needs_raw,
        )

    def _start(self) -> None:
        while self._pending.ready and self._place_free():
            batch = self._next_batch()
            if not batch:
                return
            self._busy_scopes.update(delivery.scope for delivery in batch)
            attempt = asyncio.create_task(
                self._carry(batch), name=f"delivery-{self.sink.name}-{batch[0].seq}"
            )
            attempt.add_done_callback(self._attempt_ended)
            self._attempts[attempt] = UnderWay(batch, time.monotonic())
            if self._breaker.is_open:
                self._probe = attempt

    def _attempt_ended(self, _attempt: Attempt) -> None:
        self._wake.set()
        self.aside.freed()

    def _place_free(self) -> bool:
        if self._breaker.is_open and self._attempts:
            return False
        return self._slots() > 0 and len(self._attempts) + self.aside.asked < self.sink.max_in_flight

    def _next_batch(self) -> list[Delivery]:
        ready, size = self._pending.ready, 1 if self._breaker.is_open else self.sink.batch_size
        batch: list[Delivery] = []
        passed: list[Delivery] = []
        while ready and len(batch) < size:
            delivery = ready.popleft()
            (passed if delivery.scope in self._busy_scopes else batch).append(delivery)
        ready.extendleft(reversed(passed))
        return batch

    async def _carry(self, batch: list[Delivery]) -> None:
        await self.sink.deliver(batch)

    # -- waiting ------------------------------------------------------------------------------------------------------------

    async def _wait(self) -> None:
        """Wait for something to do: new deliveries, the end of an attempt, the next due time, a drain."""
        if self._slots() > len(self._pending.ready) and self._pending.unfinished:
            return
        next_ms = None if self._draining or self._is_full() else self._next_ms()
        await self._sleep(
            None if next_ms is None else min(max(0.0, (next_ms - self._now_ms()) / 1000), LOOK_S)
        )

    def _is_full(self) -> bool:
        """Whether nothing can start before an attempt ends, whatever becomes due."""
        if self._breaker.is_open:
            return bool(self._attempts)
        return len(self._pending.ready) >= self._slots()

    def _next_ms(self) -> int | None:
        if self._halted or self._disabled:
            return None
        due_ms = self._pending.next_due_ms
        if not self._breaker.is_open:
            return due_ms
        if self._pending.ready or self._pending.unfinished:
            return self._breaker.probe_ms
        return None if due_ms is None else max(due_ms, self._breaker.probe_ms)

    async def _sleep(self, timeout_s: float | None) -> None:
        try:
            async with asyncio.timeout(timeout_s):
                await self._wake.wait()
        except TimeoutError:
            pass
        self._wake.clear()


def _parts(
    deliveries: list[Delivery], error: BaseException | None
) -> list[tuple[list[Delivery], BaseException | None]]:
    """Deliveries with the same result, together. Successes come first, so that the failures decide how the sink is doing."""
    if not isinstance(error, PartlyDeliveredError):
        return [(deliveries, error)]
    if len(error.errors) != len(deliveries):
        told = f"the sink told of {len(error.errors)} deliveries; it had {len(deliveries)}"
        return [(deliveries, RuntimeError(told))]
    parts: dict[int, tuple[list[Delivery], BaseException | None]] = {id(None): ([], None)}
    for delivery, failure in zip(deliveries, error.errors, strict=True):
        parts.setdefault(id(failure), ([], failure))[0].append(delivery)
    return [part for part in parts.values() if part[0]]
