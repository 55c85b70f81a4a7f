"""Unknown ids to ask the platform for: in the order in which they turn up, each at most once in `AGAIN_S`, and within bounds."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from typing import TYPE_CHECKING, Final, Generic, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable

AGAIN_S: Final = 3_600.0
"""An id that nobody knows is not asked for more often than that, however many events name it."""
TRIES: Final = 3
"""At one id that could not be asked for, before an event names it again."""

WANTED: Final = 1_000
"""Ids that wait: beyond that the daily look finds them."""
REMEMBERED: Final = 10_000
"""Ids that were asked for lately."""

T = TypeVar("T", bound="Hashable")


class Wanted(Generic[T]):
    """A queue without doubles."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._queue: OrderedDict[T, int] = OrderedDict()
        """What waits, with how often it was tried."""
        self._asked: OrderedDict[T, tuple[float, int]] = OrderedDict()
        """When it was asked for, and how often in a row."""
        self._some = asyncio.Event()

    def add(self, one: T) -> None:
        """It turned up."""
        asked_s, _ = self._asked.get(one, (-AGAIN_S, 0))
        if self._clock() - asked_s >= AGAIN_S:
            self._put(one, 0)

    def again(self, one: T) -> None:
        """Asking for it has failed."""
        _, tries = self._asked.get(one, (0, TRIES))
        if tries < TRIES:
            self._put(one, tries)

    def _put(self, one: T, tries: int) -> None:
        if len(self._queue) < WANTED:
            self._queue.setdefault(one, tries)
            self._some.set()

    async def next(self) -> T:
        """The one that has waited longest."""
        while (one := self.pop()) is None:
            self._some.clear()
            await self._some.wait()
        return one

    def pop(self) -> T | None:
        """The same, if one waits."""
        if not self._queue:
            return None
        one, tries = self._queue.popitem(last=False)
        self._asked.pop(one, None)
        self._asked[one] = (self._clock(), tries + 1)
        if len(self._asked) > REMEMBERED:
            self._asked.popitem(last=False)
        return one
