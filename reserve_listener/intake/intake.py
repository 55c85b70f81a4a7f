"""The line between the platform and the store: a push is answered with success only after its commit.

What must stay true (ARCHITECTURE.md, invariants 1 and 2): a `committed` verdict means that the event, or the whole unreadable
payload, is on stable storage. Every push gets a verdict within `COMMIT_TIMEOUT_S`, whatever the store does: after 3 s without
an answer the platform counts a push as failed and repeats it.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter, deque
from functools import partial
from typing import TYPE_CHECKING, Any, Final

import structlog

from reserve_listener.clock import now_ms
from reserve_listener.errors import StoreError
from reserve_listener.intake import fast_path, normalize, room_events
from reserve_listener.intake.inbox import Inbox
from reserve_listener.intake.projector import Projector
from reserve_listener.meters import IntakeMeter
from reserve_listener.model import EVENT_TYPE, Verdict
from reserve_listener.observability.throttle import Throttle
from reserve_listener.redact import blank_tokens

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from reserve_listener.model import IncomingEvent
    from reserve_listener.protocols.store import StoreIntake

COMMIT_TIMEOUT_S: Final = 2.5
"""If a commit takes longer, the answer is 500. Should it succeed later, deduplication takes care of the next push."""

REFUSALS_EVERY_S: Final = 1.0

TYPES_REMEMBERED: Final = 1_000
"""Foreign event types that are logged: each once, one a second, up to this many."""

TYPE_CHARS: Final = 200
"""How much of a type is remembered and shown."""

log = structlog.get_logger("intake")


class Intake:
    """Takes payloads, answers with verdicts.

    `knows` says whether a handler is registered for a type. `tokens` are the configured ones, which are blanked wherever they
    stand. `on_stored` is told of each new event once it is in the store.
    """

    def __init__(
        self,
        store: StoreIntake,
        *,
        knows: Callable[[str], bool],
        tokens: Sequence[str] = (),
        on_stored: Callable[[IncomingEvent], None] = lambda _event: None,
        now_ms: Callable[[], int] = now_ms,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._knows = knows
        self._tokens = tokens
        self._on_stored = on_stored
        self._knows_ours = knows(f"p2.{EVENT_TYPE}")
        self._now_ms = now_ms
        self._refusals = _Refusals(clock)
        self._foreign_types: set[str] = set()
        self._open = True
        self._late: dict[int, IncomingEvent] = {}
        """Events committed after their answer of 500, which has been counted already."""
        self.counts: Counter[Verdict] = Counter()
        """Each push once: refused ones and other types at the answer, the rest at projection."""
        self.meter = IntakeMeter()
        self._deadlines = _Deadlines(COMMIT_TIMEOUT_S, self._timed_out)
        self._projector = Projector(store, on_projected=self._projected)
        self._inbox = Inbox(store, self._projector, self.meter)

    async def start(self) -> None:
        """Project what an earlier run left behind, before the first push. Raises `StoreError`."""
        await self._projector.start()

    async def ended(self) -> None:
        """Raises the error with which the projector ended by itself."""
        await self._projector.ended()

    async def flush(self) -> None:
        """When this returns, everything answered before is in the store. Raises `StoreError`."""
        await self._projector.flush()

    def accept(self, raw: bytes, answer: Callable[[Verdict], None]) -> None:
        """See `protocols.Accept`. Must be called on the event loop."""
        if not self._open:
            self.counts[Verdict.FAILED] += 1
            answer(Verdict.FAILED)
            return
        came_s = time.monotonic()
        event = self._read(raw)
        if event is None:
            self.counts[Verdict.OTHER_TYPE] += 1
            answer(Verdict.OTHER_TYPE)
            self.meter.answers_s.observe(time.monotonic() - came_s)
            return
        waiting = self._deadlines.watch(answer, came_s)
        self._inbox.put(event, partial(self._conclude, waiting, event))

    async def close(self) -> None:
        """Refuse new pushes, and wait for the verdicts that are still to come."""
        self._open = False
        await self._deadlines.close()

    async def project_rest(self) -> None:
        """After `close`: move what was answered into the store. Bounded in time; does not raise."""
        await self._projector.close()

    def _read(self, raw: bytes) -> IncomingEvent | None:
        received_ms = self._now_ms()
        raw = blank_tokens(raw, self._tokens)  # first, so that nothing made of it holds one
        try:
            return self._normalized(raw, received_ms)
        except Exception as defect:  # noqa: BLE001  # whatever it is, the push is kept whole: to answer 500 would not mend it
            self._refusals.tell(
                log.error, "event.not_normalized", counted=False, bytes=len(raw), exc_info=defect
            )
            problem = f"a bug in reserve-listener: {type(defect).__name__}: {defect}"
            return normalize.unreadable(raw, problem, received_ms=received_ms)

    def _normalized(self, raw: bytes, received_ms: int) -> IncomingEvent | None:
        if self._knows_ours and (event := fast_path.read(raw, received_ms=received_ms)) is not None:
            return event
        try:
            envelope = normalize.parse(raw)
        except normalize.Unreadable as problem:
            return normalize.unreadable(raw, str(problem), received_ms=received_ms)
        event_type = normalize.event_type_of(envelope)
        if event_type is not None and not self._knows(event_type):
            self._mention(event_type)
            return None
        if event_type in room_events.TYPES:
            return self._about_a_room(event_type, raw, envelope, received_ms)
        return normalize.incoming(raw, envelope, received_ms=received_ms)

    def _about_a_room(
        self, event_type: str, raw: bytes, envelope: dict[str, Any], received_ms: int
    ) -> IncomingEvent:
        event = room_events.incoming(event_type, raw, envelope, received_ms=received_ms)
        if not event.news:
            self._refusals.tell(
                log.warning,
                "room_event.unreadable",
                counted=False,  # it is answered like one that can be read
                event_type=event_type.removeprefix("p2."),
                event_id=event.event_id,
                hint="nothing is lost: the daemon reads all names daily anyway",
            )
        return event

    def _mention(self, event_type: str) -> None:
        event_type = event_type[:TYPE_CHARS]  # as long as the sender likes
        if event_type in self._foreign_types or len(self._foreign_types) >= TYPES_REMEMBERED:
            return
        told = self._refusals.tell(
            log.warning,
            "event.other_type",
            counted=False,  # a second push would not change that
            event_type=event_type.removeprefix("p2."),
            hint="the app subscribes to an event that this daemon does not handle: remove it under"
            " Events & Callbacks in the developer console, or use a separate app for it",
        )
        if told:  # else the next push of the type is
            self._foreign_types.add(event_type)

    def _conclude(self, waiting: _Waiting, event: IncomingEvent, outcome: Verdict | StoreError) -> None:
        error = outcome if isinstance(outcome, StoreError) else None
        result = Verdict.FAILED if isinstance(outcome, StoreError) else outcome
        in_time, committed = waiting.tell(result), result.committed
        if in_time:
            self.meter.answers_s.observe(time.monotonic() - waiting.came_s)
        if not committed and in_time:
            self.counts[result] += 1
        elif committed and not in_time:
            self._late[id(event)] = event
        if not committed or not in_time:
            self._tell(result, event, error, in_time=in_time)
        if committed:
            self._refusals.over()

    def _tell(
        self, result: Verdict, event: IncomingEvent, error: StoreError | None, *, in_time: bool
    ) -> None:
        if not in_time:
            self._refusals.tell(
                log.warning,
                "event.commit_late",
                counted=False,  # it was, when it was slow
                event_id=event.event_id,
                verdict=result.value,
            )
        elif result is Verdict.FAILED:
            self._refusals.tell(log.error, "event.commit_failed", event_id=event.event_id, error=str(error))
        elif result is Verdict.OVERLOADED:
            self._refusals.tell(log.warning, "event.overloaded", event_id=event.event_id)

    def _timed_out(self) -> None:
        self.counts[Verdict.FAILED] += 1
        self.meter.answers_s.observe(self._deadlines.timeout_s)
        self._refusals.tell(log.error, "event.commit_slow", timeout_s=self._deadlines.timeout_s)

    def _projected(self, event: IncomingEvent, verdict: Verdict) -> None:
        if self._late.pop(id(event), None) is None:
            self.counts[verdict] += 1
        if verdict in (Verdict.STORED, Verdict.SUPERSEDED):
            self._on_stored(event)
        if verdict is Verdict.UNREADABLE:
            self._refusals.tell(
                log.warning,
                "event.unreadable",
                counted=False,  # it is kept
                event_id=event.event_id,
                problem=event.problem,
                bytes=len(event.raw),
                hint="kept whole; to see it, run: reserve-listener events list --unreadable",
            )


class _Refusals:
    """Log lines about refused pushes, and one when pushes are accepted again."""

    def __init__(self, clock: Callable[[], float]) -> None:
        # A full disk refuses thousands of pushes a second; a line for each would fill the next disk.
        self._throttle = Throttle(REFUSALS_EVERY_S, clock)
        self._refused = 0

    def tell(self, write: Callable[..., None], event: str, *, counted: bool = True, **facts: object) -> bool:
        """A push was refused. Returns whether a line was written."""
        self._refused += counted
        return self._throttle.tell(event, write, event, **facts)

    def over(self) -> None:
        """A push was accepted."""
        # Near its bound the store takes and refuses in turns, hundreds of times a second.
        if self._refused and self._throttle.tell(
            "over", log.info, "event.taken_again", not_taken=self._refused
        ):
            self._refused = 0


class _Waiting:
    """A push waiting for its commit."""

    __slots__ = ("_answer", "came_s")

    def __init__(self, answer: Callable[[Verdict], None], came_s: float) -> None:
        self._answer: Callable[[Verdict], None] | None = answer
        self.came_s = came_s

    @property
    def told(self) -> bool:
        """Whether it has its verdict."""
        return self._answer is None

    def tell(self, verdict: Verdict) -> bool:
        """Give the verdict, unless there was one before. Returns whether this was the first."""
        answer, self._answer = self._answer, None
        if answer is None:
            return False
        answer(verdict)
        return True

    def ended(self) -> asyncio.Future[None]:
        """A future that is resolved with the verdict, which must not have been given yet."""
        ended: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        answer = self._answer

        def and_end(verdict: Verdict) -> None:
            ended.set_result(None)
            if answer is not None:
                answer(verdict)

        self._answer = and_end
        return ended


class _Deadlines:
    """One timer for all waiting pushes, since they come due in the order of their arrival."""

    def __init__(self, timeout_s: float, timed_out: Callable[[], None]) -> None:
        self.timeout_s = timeout_s
        self._timed_out = timed_out
        self._queue: deque[_Waiting] = deque()
        self._timer: asyncio.TimerHandle | None = None

    def watch(self, answer: Callable[[Verdict], None], came_s: float) -> _Waiting:
        """Watch a push that came at `came_s` (monotonic): without a verdict in time, it is FAILED."""
        queue = self._queue
        while queue and queue[0].told:  # kept short: what has its verdict is nobody's memory
            queue.popleft()
        waiting = _Waiting(answer, came_s)
        queue.append(waiting)
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(self.timeout_s, self._sweep)
        return waiting

    async def close(self) -> None:
        """Wait at most the timeout for the open verdicts; then the rest is FAILED."""
        if self._timer is not None:
            self._timer.cancel()
        if left := [waiting.ended() for waiting in self._queue if not waiting.told]:
            await asyncio.wait(left, timeout=self.timeout_s)
        for waiting in self._queue:
            if waiting.tell(Verdict.FAILED):
                self._timed_out()

    def _sweep(self) -> None:
        loop = asyncio.get_running_loop()
        self._timer = None
        while self._queue and (self._queue[0].came_s + self.timeout_s <= loop.time() or self._queue[0].told):
            if self._queue.popleft().tell(Verdict.FAILED):
                self._timed_out()
        if self._queue:
            self._timer = loop.call_at(self._queue[0].came_s + self.timeout_s, self._sweep)
