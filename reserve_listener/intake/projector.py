"""After the answer: turns durable batches of the inbox into events and deliveries in the store.

What must stay true: every batch is projected exactly once, in the order of arrival, whatever fails in between; and while
projecting fails, `problem` says so and no push is accepted.

With an idle listener a push is projected at once. Under load many are projected together, since one large transaction costs
a fraction of many small ones. In a burst (thousands of rooms changed at once) the answers go first: the platform waits for them,
and projecting meanwhile would take half of the time.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from typing import TYPE_CHECKING, Final, NamedTuple

import structlog

from reserve_listener.errors import StoreError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from reserve_listener.model import IncomingEvent, Verdict
    from reserve_listener.protocols.store import StoreIntake

AT_ONCE: Final = 2_048
PACE_S: Final = 0.15
"""Under load events are projected once there are this many, or after this time."""

BEHIND_EVENTS: Final = 8_192
BEHIND_BYTES: Final = 64 * 1024 * 1024
"""How much may be received but not yet projected. Beyond either bound pushes wait for room; if that takes too long the answer is 500."""

BURST_EVENTS: Final = 256
"""This many within `PACE_S` make a burst."""
HOLD_S: Final = 0.75
"""How long the events of a burst wait for its end. If it lasts longer, it is projected while it lasts."""
LULL_S: Final = 0.02
"""A burst has ended if no push comes for this long."""
HELD_EVENTS: Final = 12_288
HELD_BYTES: Final = BEHIND_BYTES // 2
"""How much may wait for the end of a burst: more events than may be behind otherwise, so that pushes need not wait for room."""

RETRY_S: Final = 1.0
"""How often to try a store that has failed, without a push."""
BREATH_S: Final = 0.1
"""The same with pushes, which wait for the result."""

CLOSE_TIMEOUT_S: Final = 5.0
"""For the last projection. What it does not get to stays in the inbox and is projected at the next start."""

log = structlog.get_logger("store")


class _Batch(NamedTuple):
    number: int
    events: Sequence[IncomingEvent]
    size: int


class Projector:
    """Projects the batches that it is given. `on_projected` is told what became of each event.

    `on_room` is called when there may be room again, `on_failed` after each failed attempt, with `problem`.
    """

    def __init__(
        self,
        store: StoreIntake,
        *,
        on_projected: Callable[[IncomingEvent, Verdict], None] = lambda _event, _verdict: None,
    ) -> None:
        self.problem: str | None = None
        """Why answered pushes cannot be projected at the moment; None if they can."""
        self.on_room: Callable[[], None] = lambda: None
        self.on_failed: Callable[[str], None] = lambda _problem: None
        self._store = store
        self._on_projected = on_projected
        self._batches: deque[_Batch] = deque()
        self._queued_events = 0
        self._behind_events = 0
        self._behind_bytes = 0
        self._wake = asyncio.Event()
        self._full = asyncio.Event()
        self._asked = asyncio.Event()
        self._arrived = asyncio.Event()
        self._closing = asyncio.Event()
        self._one_at_a_time = asyncio.Lock()
        self._begun_s = float("-inf")
        self._in_burst = False
        self._is_holding = False
        self._task: asyncio.Task[None] | None = None

    # -- what is to be projected ------------------------------------------------------------------------------------------------

    @property
    def behind(self) -> int:
        """How many events are received, or about to be, and not yet projected."""
        return self._behind_events

    @property
    def has_room(self) -> bool:
        """Whether more may be received."""
        most = HELD_EVENTS if self._is_holding else BEHIND_EVENTS
        return self.problem is None and self._behind_events < most and self._behind_bytes < BEHIND_BYTES

    def expect(self, events: int, size: int) -> None:
        """This much is about to be received."""
        self._behind_events += events
        self._behind_bytes += size

    def forget(self, events: int, size: int) -> None:
        """This much is projected, or will not come after all."""
        self._behind_events -= events
        self._behind_bytes -= size

    def take(self, number: int, events: Sequence[IncomingEvent], size: int) -> None:
        """An expected batch is durable."""
        self._batches.append(_Batch(number, events, size))
        self._queued_events += len(events)
        self._wake.set()
        self._arrived.set()
        if self._queued_events >= AT_ONCE:
            self._full.set()

    def try_now(self) -> None:
        """Try again now: a push is waiting for the store that failed."""
        self._asked.set()

    # -- its life -----------------------------------------------------------------------------------------------------------

    async def start(self) -> None:
        """Project what an earlier run left behind. Raises `StoreError`."""
        left = await self._store.left()
        for number, events in left:
            size = sum(len(event.raw) + len(event.body or b"") for event in events)
            self.expect(len(events), size)
            self.take(number, events, size)
        if left:
            log.info("store.inbox_projected", events=self._queued_events)
        await self.flush()
        self._task = asyncio.create_task(self._run(), name="projector")

    async def flush(self) -> None:
        """Project everything that is durable by now. Raises `StoreError`."""
        last = self._batches[-1].number if self._batches else 0
        while self._batches and self._batches[0].number <= last:
            await self._project()

    async def ended(self) -> None:
        """Raises the error with which it ended by itself."""
        if self._task is not None:
            await asyncio.shield(self._task)

    async def close(self) -> None:
        """Project what is left and end. Bounded in time; does not raise."""
        self._closing.set()
        self._asked.set()
        self._wake.set()
        self._arrived.set()
        self._full.set()
        try:
            async with asyncio.timeout(CLOSE_TIMEOUT_S):
                if self._task is not None:
                    await asyncio.wait([self._task])
                await self.flush()
        except (StoreError, TimeoutError) as error:
            log.error(
                "store.not_projected",
                events=self._queued_events,
                error=str(error) or "no commit in time",
                hint="it is in the inbox beside the store and will be processed after the next start",
            )

    async def _run(self) -> None:
        while True:
            await self._wake.wait()
            await self._pace()
            if self._closing.is_set():
                return
            try:
                await self._project()
            except StoreError as error:
                self._failed(error)
                await asyncio.sleep(BREATH_S)
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(RETRY_S):
                        await self._asked.wait()
                self._asked.clear()

    async def _pace(self) -> None:
        """Wait until there is enough to do, or until some time has passed since the last projection."""
        rest_s = self._begun_s + PACE_S - asyncio.get_running_loop().time()
        if rest_s > 0 and self._queued_events < AT_ONCE:
            if not self._closing.is_set():
                self._full.clear()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(rest_s):
                    await self._full.wait()
        if self._queued_events >= BURST_EVENTS and not self._in_burst:
            self._in_burst = True
            await self._hold()

    async def _hold(self) -> None:
        """Wait until the burst has ended, or as much is held back as may be."""
        self._is_holding = True
        ends_s = asyncio.get_running_loop().time() + HOLD_S
        with contextlib.suppress(TimeoutError):
            while self._may_hold_more():
                self._arrived.clear()
                async with asyncio.timeout(min(LULL_S, ends_s - asyncio.get_running_loop().time())):
                    await self._arrived.wait()
        self._is_holding = False

    def _may_hold_more(self) -> bool:
        within = self._behind_events < HELD_EVENTS and self._behind_bytes < HELD_BYTES
        return within and not self._closing.is_set()

    async def _project(self) -> None:
        async with self._one_at_a_time:
            if batches := self._next():
                await self._do(batches)

    def _next(self) -> list[_Batch]:
        batches: list[_Batch] = []
        events = 0
        for batch in self._batches:
            if batches and events + len(batch.events) > AT_ONCE:
                break
            batches.append(batch)
            events += len(batch.events)
        return batches

    async def _do(self, batches: Sequence[_Batch]) -> None:
        self._begun_s = asyncio.get_running_loop().time()
        events = [event for batch in batches for event in batch.events]
        verdicts = await self._store.project(events, number=batches[-1].number)
        for batch in batches:
            self._batches.popleft()
            self._queued_events -= len(batch.events)
            self.forget(len(batch.events), batch.size)
        if not self._batches:
            self._wake.clear()
            self._in_burst = False
        self._well()
        for event, verdict in zip(events, verdicts, strict=True):
            self._on_projected(event, verdict)
        self.on_room()

    def _failed(self, error: StoreError) -> None:
        if self.problem is None:
            log.error(
                "store.projecting_failed",
                error=str(error),
                waiting=self._queued_events,
                hint="pushes are answered 500 until this works again; what has been answered is safe in the inbox",
            )
        self.problem = str(error)
        self.on_failed(self.problem)

    def _well(self) -> None:
        if self.problem is not None:
            self.problem = None
            log.info("store.projecting_again")
