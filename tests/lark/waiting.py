"""A clock that waiting moves on: no test waits for a minute."""

from __future__ import annotations

import asyncio


class Clock:
    """Monotonic seconds. `sleep` returns at once, and it is later then."""

    def __init__(self) -> None:
        self.now_s = 1_000.0
        self.slept: list[float] = []

    def __call__(self) -> float:
        """What time it is."""
        return self.now_s

    async def sleep(self, seconds: float) -> None:
        """Let others run, and the time pass."""
        self.slept.append(seconds)
        await asyncio.sleep(0)
        self.now_s += seconds
