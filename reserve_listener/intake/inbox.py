"""The way in: the pushes of one turn of the loop become one batch, which the store makes durable in one small write.

What must stay true: a push is reported as stored only after that write; what waits is bounded in events and bytes; and
nothing is accepted while projecting into the store fails, nor more than it can catch up with.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from functools import partial
from typing import TYPE_CHECKING, Final, NamedTuple

from reserve_listener.errors import StoreError
from reserve_listener.model import Verdict

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from reserve_listener.intake.projector import Projector
    from reserve_listener.meters import IntakeMeter
    from reserve_listener.model import IncomingEvent
    from reserve_listener.protocols.store import StoreIntake

WAITING_EVENTS: Final = 50_000
WAITING_BYTES: Final = 128 * 1024 * 1024
"""How much may wait for the commit; beyond either bound a push is answered 500 at once."""

AT_ONCE: Final = 64
"""How many pushes are handed on together while more are coming: the loop reads the next ones during the write."""

BATCH_EVENTS: Final = 512
BATCH_BYTES: Final = 4 * 1024 * 1024
"""The largest batch, unless a single push is larger: what waited for room goes on in portions."""


class _Push(NamedTuple):
    event: IncomingEvent
    done: Callable[[Verdict | StoreError], None]
    size: int


class Inbox:
    """Collects pushes into batches. For the loop only."""

    def __init__(self, store: StoreIntake, projector: Projector, meter: IntakeMeter) -> None:
        self._store = store
        self._meter = meter
        self._projector = projector
        self._coming: deque[_Push] = deque()
        self._waiting_events = 0
        self._waiting_bytes = 0
        self._called = False
        projector.on_room = self._hand_on
        projector.on_failed = self._refuse

    def put(self, event: IncomingEvent, done: Callable[[Verdict | StoreError], None]) -> None:
        """Make a push durable. `done` is called on the loop with STORED, UNREADABLE or OVERLOADED, or with the error."""
        push = _Push(event, done, len(event.raw) + len(event.body or b""))
        if self._waiting_events >= WAITING_EVENTS or self._waiting_bytes + push.size > WAITING_BYTES:
            done(Verdict.OVERLOADED)
        else:
            self._take(push)

    def _take(self, push: _Push) -> None:
        self._waiting_events += 1
        self._waiting_bytes += push.size
        self._coming.append(push)
        if self._projector.problem is not None:
            self._projector.try_now()  # what comes of it decides
        elif len(self._coming) >= AT_ONCE:
            self._hand_on()
        elif not self._called:
            self._called = True
            asyncio.get_running_loop().call_soon(self._turn_over)

    def _turn_over(self) -> None:
        self._called = False
        self._hand_on()

    def _hand_on(self) -> None:
        while self._coming and self._projector.has_room:
            some, size = self._next_batch()
            self._projector.expect(len(some), size)
            told = partial(self._received, some, size, time.monotonic())
            self._store.receive([push.event for push in some], told)

    def _next_batch(self) -> tuple[list[_Push], int]:
        coming, some = self._coming, [self._coming.popleft()]
        size = some[0].size
        while coming and len(some) < BATCH_EVENTS and size + coming[0].size <= BATCH_BYTES:
            some.append(coming.popleft())
            size += some[-1].size
        return some, size

    def _refuse(self, problem: str) -> None:
        """Projecting fails: refuse the pushes that are not durable yet."""
        refused, self._coming = self._coming, deque()
        for push in refused:
            self._waiting_events -= 1
            self._waiting_bytes -= push.size
            push.done(StoreError(problem))

    def _received(
        self,
        pushes: Sequence[_Push],
        size: int,
        began_s: float,
        number: int,
        error: StoreError | None,
    ) -> None:
        self._meter.commits_s.observe(time.monotonic() - began_s)
        self._meter.batches.observe(len(pushes))
        self._waiting_events -= len(pushes)
        self._waiting_bytes -= size
        if error is not None:
            self._projector.forget(len(pushes), size)
        else:
            self._projector.take(number, [push.event for push in pushes], size)
        for push in pushes:
            push.done(error or (Verdict.UNREADABLE if push.event.is_unreadable else Verdict.STORED))
