"""Unknown ids to ask the platform for: in the order of appearance, each at most once in `AGAIN_S`, and within bounds."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from typing import TYPE_CHECKING, Final, Generic, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable

AGAIN_S: Final = 3_600.0
"""The shortest time between two questions for the same id, however many events name it."""
TRIES: Final = 3
"""How often to try an id if asking fails, until an event names it again."""

WANTED: Final = 1_000
"""How many ids may wait; any others are found by the daily survey."""
REMEMBERED: Final = 10_000
"""How many recently asked ids are remembered."""

T = TypeVar("T", bound="Hashable")


class Wanted(Generic[T]):
    """A queue without duplicates."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._queue: OrderedDict[T, int] = OrderedDict()
        """What is waiting, and how often it has been tried."""
        self._asked: OrderedDict[T, tuple[float, int]] = OrderedDict()
        """When each was last asked for, and how often in a row."""
        self._some = asyncio.Event()

    def add(self, one: T) -> None:
        """An id turned up."""
        asked_s, _ = self._asked.get(one, (-AGAIN_S, 0))
        if self._clock() - asked_s >= AGAIN_S:
            self._put(one, 0)

    def again(self, one: T) -> None:
        """Asking for this one failed."""
        _, tries = self._asked.get(one, (0, TRIES))
        if tries < TRIES:
            self._put(one, tries)

    def _put(self, one: T, tries: int) -> None:
        if len(self._queue) < WANTED:
            self._queue.setdefault(one, tries)
            self._some.set()

    async def next(self) -> T:
        """The one that has waited longest; waits for one if there is none."""
        while (one := self.pop()) is None:
            self._some.clear()
            await self._some.wait()
        return one

    def pop(self) -> T | None:
        """The one that has waited longest; None if there is none."""
        if not self._queue:
            return None
        one, tries = self._queue.popitem(last=False)
        self._asked.pop(one, None)
        self._asked[one] = (self._clock(), tries + 1)
        if len(self._asked) > REMEMBERED:
            self._asked.popitem(last=False)
        return one
