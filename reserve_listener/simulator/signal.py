"""Waiting for a condition instead of sleeping."""

from __future__ import annotations

import asyncio
import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

PATIENCE_AT_MOST = 10.0
"""A test on an even busier machine is pointless, and one that can never pass must end."""


def patience(seconds: float) -> float:
    """How long to wait for what takes at most `seconds` on an idle machine: longer, the busier the machine is."""
    busy = os.getloadavg()[0] / len(os.sched_getaffinity(0))
    return seconds * min(max(1.0, busy), PATIENCE_AT_MOST)


class Signal:
    """Wakes everybody who waits for a condition whenever something has changed.

    It costs nothing while nobody waits, so it can be fired at every event.
    """

    __slots__ = ("_waiters",)

    def __init__(self) -> None:
        self._waiters: set[asyncio.Future[None]] = set()

    def fire(self) -> None:
        """Make all waiters check their condition again."""
        waiters, self._waiters = self._waiters, set()
        for waiter in waiters:
            if not waiter.done():
                waiter.set_result(None)

    async def until(self, condition: Callable[[], bool], timeout: float | None) -> None:  # noqa: ASYNC109  # the wait's own
        """Return once `condition()` is true; `TimeoutError` after `timeout` seconds. Safe to cancel.

        On a busy machine it is `patience(timeout)` seconds.
        """
        async with asyncio.timeout(None if timeout is None else patience(timeout)):
            while not condition():
                waiter = asyncio.get_running_loop().create_future()
                self._waiters.add(waiter)
                try:
                    await waiter
                finally:
                    self._waiters.discard(waiter)
