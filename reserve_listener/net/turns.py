"""Work that strangers cause, done in small steps: only a little of it in each turn of the loop."""

from __future__ import annotations

import asyncio
from collections import deque
from typing import Final, Protocol

TURN_S: Final = 0.005
"""Everything else on the loop, commits and answers among it, waits for so long at the most (and for the last step)."""


class Worker(Protocol):
    """Somebody with work to do in small steps."""

    is_queued: bool

    def work(self) -> bool:
        """One step, well below `TURN_S`; whether there are more."""


class Turns:
    """Steps of all who have some, one after the other, so that nobody's many steps hold up another's few."""

    def __init__(self) -> None:
        self._queue: deque[Worker] = deque()
        self._is_running = False

    def add(self, worker: Worker) -> None:
        """Let it work soon, unless it is queued already."""
        if not worker.is_queued:
            worker.is_queued = True
            self._queue.append(worker)
            self._schedule()

    def _schedule(self) -> None:
        if self._queue and not self._is_running:
            self._is_running = True
            asyncio.get_running_loop().call_soon(self._run)

    def _run(self) -> None:
        now = asyncio.get_running_loop().time
        until = now() + TURN_S
        try:
            while self._queue and now() < until:
                worker = self._queue.popleft()
                worker.is_queued = False
                if worker.work():
                    self.add(worker)
        finally:
            self._is_running = False
            self._schedule()
