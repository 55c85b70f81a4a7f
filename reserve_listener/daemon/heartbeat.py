"""A sign of life that means progress, and the discovery that the machine was asleep.

What must stay true: systemd's watchdog is fed only after the store's writer has done a job that the event loop gave it, so
either of them standing still is found.
"""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Final

import structlog

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from reserve_listener.daemon.systemd import Notifier

TICK_S: Final = 5.0
ASLEEP_S: Final = 3.0
"""A suspension shorter than this is not worth a look at the connection."""

log = structlog.get_logger("daemon")


def suspended_s() -> float:
    """How long this machine has been asleep since it was started: the boot clock counts sleep, the monotonic does not."""
    return time.clock_gettime(time.CLOCK_BOOTTIME) - time.clock_gettime(time.CLOCK_MONOTONIC)


class Heartbeat:
    """`progress` does a round through the store's writer and says, in a line, how things stand; `on_resume` is called after sleep."""

    def __init__(
        self,
        notifier: Notifier,
        *,
        progress: Callable[[], Awaitable[str]],
        on_resume: Callable[[], None],
        asleep: Callable[[], float] = suspended_s,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._notifier = notifier
        self._progress = progress
        self._on_resume = on_resume
        self._asleep = asleep
        self._sleep = sleep
        self._tick_s = min(TICK_S, (notifier.watchdog_s or TICK_S * 3) / 3)

    async def run(self) -> None:
        """For ever, until cancelled."""
        asleep = self._asleep()
        while True:
            status = await self._progress()
            self._notifier.send("WATCHDOG=1", f"STATUS={status}")
            await self._sleep(self._tick_s)
            before, asleep = asleep, self._asleep()
            if asleep - before > ASLEEP_S:
                log.info("daemon.woke", asleep_s=round(asleep - before))
                self._on_resume()
