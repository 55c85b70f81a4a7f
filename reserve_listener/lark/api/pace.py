"""When a call may go out: the platform bounds how often each API is asked, for all of an app's clients together.

What must stay true: within any minute no more than `per_minute` calls and `burst` go out, whatever the callers do and however
often they are started anew, and none before the platform's own wish is over.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final

from reserve_listener.lark.api.errors import TryAgainError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

MINUTE_S: Final = 61.0
"""A second more than the platform's: calls that left a minute apart may arrive a little closer."""
PATIENCE_S: Final = 60.0
"""The longest wish of the platform that a call waits out by itself: its limits are per minute. A longer one goes to the caller."""
LONGEST_WISH_S: Final = 3600.0
"""What is longer is taken for this: a header that is garbage must not end asking for good."""


class Pace:
    """Spaces the calls of one kind evenly, `per_minute`, but for a few after a pause: `burst`.

    The first call goes out after an interval (unless `at_once`), as if calls had been made all the time: so a daemon that is
    restarted again and again makes no more of them than one that is not.
    """

    def __init__(
        self,
        per_minute: int,
        *,
        burst: int = 0,
        at_once: bool = False,
        clock: Callable[[], float],
        sleep: Callable[[float], Awaitable[None]],
    ) -> None:
        self._interval_s = MINUTE_S / per_minute
        self._burst_s = burst * self._interval_s
        self._clock = clock
        self._sleep = sleep
        self._next_s = clock() + self._burst_s + (0 if at_once else self._interval_s)
        """When the next call would go out if all were spaced evenly; it may go out `_burst_s` earlier."""
        self._held_until_s = clock()
        self._queue = asyncio.Lock()

    async def turn(self) -> None:
        """Wait for the caller's turn; turns are taken in the order in which they were asked for.

        Raises `TryAgainError` while the platform wishes for a pause of over `PATIENCE_S`. Cancelled, it takes no turn.
        """
        async with self._queue:
            while (wait_s := self._wait_s()) > 0:
                await self._sleep(wait_s)
            self._next_s = max(self._next_s, self._clock()) + self._interval_s

    def start_over(self) -> None:
        """Somebody else has made the calls until now: the first one goes out after an interval, and a burst has to be earned."""
        self._next_s = max(self._next_s, self._clock() + self._burst_s + self._interval_s)

    def hold(self, wish_s: float) -> None:
        """The platform wants no call for so long."""
        self._held_until_s = max(self._held_until_s, self._clock() + min(wish_s, LONGEST_WISH_S))

    def _wait_s(self) -> float:
        held_s = self._held_until_s - self._clock()
        if held_s > PATIENCE_S:
            raise TryAgainError("the platform has asked for a pause", after_s=held_s)
        return max(held_s, self._next_s - self._burst_s - self._clock())
