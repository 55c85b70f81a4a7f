"""How old things are, by a clock that people and time servers set.

What must stay true: an age counts time while the daemon ran, was off or the machine slept, but never a clock jump of over an
hour that happened while it ran. Once the clock is looked at again, no stored time lies in the future.
A leaf: everybody may use it.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Final

from reserve_listener import clock

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    Jump = tuple[int, int]
    """What the clock showed before, and after."""

JUMP_MS: Final = 3600 * 1000
"""More than that ahead is a jump. Less is no harm: ages are compared with days."""

BACK_MS: Final = 1000
"""So much back is a clock that was set; time servers correct less than that by running slower."""

LONGEST_WAIT_MS: Final = 25 * 3600 * 1000
"""No delivery is put off for longer: a due time beyond it was written while the clock was wrong, and counts as now."""

JUMPS_KEPT: Final = 100
"""A clock that jumps more often than that tells nothing about ages."""


def running_ms() -> int:
    """Milliseconds since the machine was started, sleep included: this clock cannot be set."""
    return time.clock_gettime_ns(time.CLOCK_BOOTTIME) // 1_000_000


class Ages:
    """Compares the time of day with a clock that cannot be set each time it is asked.

    `on_jump` is called with how far the clock was set, in milliseconds, when that is noticed.
    """

    def __init__(
        self, now_ms: Callable[[], int] = clock.now_ms, running_ms: Callable[[], int] = running_ms
    ) -> None:
        self.on_jump: Callable[[int], object] = lambda _moved_ms: None
        self.jumps: list[Jump] = []
        self._now_ms = now_ms
        self._running_ms = running_ms
        self.start_over()

    def remember(self, jumps: Sequence[Jump]) -> None:
        """The jumps that an earlier life has seen."""
        self.jumps = sorted([*jumps, *self.jumps])
        self._cut(self._now_ms())

    def start_over(self) -> None:
        """Whatever the clock showed before was no time of day: what it shows from now on is no jump."""
        self._offset_ms = self._now_ms() - self._running_ms()

    def now_ms(self) -> int:
        """The time of day."""
        now_ms = self._now_ms()
        offset_ms = now_ms - self._running_ms()
        moved_ms, self._offset_ms = offset_ms - self._offset_ms, offset_ms
        if moved_ms > JUMP_MS:
            self.jumps = [*self.jumps, (now_ms - moved_ms, now_ms)][-JUMPS_KEPT:]
            self.on_jump(moved_ms)
        elif moved_ms < -BACK_MS:
            self._cut(now_ms)
            self.on_jump(moved_ms)
        return now_ms

    def age_ms(self, since_ms: int) -> int:
        """How long ago that was."""
        now_ms = self.now_ms()
        jumped_ms = sum(max(0, to_ms - max(from_ms, since_ms)) for from_ms, to_ms in self.jumps)
        return now_ms - since_ms - jumped_ms

    def ago_ms(self, age_ms: int) -> int:
        """The time of day that is so long ago."""
        then_ms = self.now_ms() - age_ms
        for from_ms, to_ms in reversed(self.jumps):
            if to_ms > then_ms:
                then_ms -= to_ms - from_ms
        return then_ms

    def _cut(self, now_ms: int) -> None:
        """Time that is to come once more was not jumped over."""
        self.jumps = [(from_ms, min(to_ms, now_ms)) for from_ms, to_ms in self.jumps if from_ms < now_ms]
