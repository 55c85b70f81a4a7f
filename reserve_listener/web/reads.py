"""Reading the store for the API, the page, the stream and the metrics: on threads and connections of their own.

What must stay true: none of this runs on the loop or in the writer's thread; the numbers of threads and waiting requests, and
the time of each read, are bounded; and no read holds a transaction for longer than its deadline.
"""

from __future__ import annotations

import asyncio
import threading
import time
from concurrent.futures import Future
from queue import SimpleQueue
from typing import TYPE_CHECKING, Any, Final, NamedTuple, TypeVar

from reserve_listener.errors import StoreError

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextlib import AbstractContextManager

    from reserve_listener.protocols.store import StoreReader

THREADS: Final = 4
"""SQLite works while Python does not, so some threads are of use; each has a connection, and one slow look leaves three."""

WAITING: Final = 100
"""Looks that wait for a thread, at a few milliseconds each. Whoever comes beyond that is told to come again."""

DEADLINE_S: Final = 3.0
"""From the question to its answer. A page takes milliseconds; what takes seconds goes through a large part of the store."""

TOO_SLOW: Final = "the store did not answer in time; ask for less, or try again soon"

CLOSE_TIMEOUT_S: Final = 1.0

T = TypeVar("T")


class BusyError(StoreError):
    """It cannot be looked up now; a moment later it can."""


class _Job(NamedTuple):
    look: Callable[[StoreReader], Any]
    until_s: float
    found: Future[Any]


class Reads:
    """`open_reader` opens a connection that only reads; it is called in the thread that uses it, and anew after an error."""

    def __init__(
        self,
        open_reader: Callable[[], AbstractContextManager[StoreReader]],
        *,
        threads: int = THREADS,
        waiting: int = WAITING,
        deadline_s: float = DEADLINE_S,
    ) -> None:
        self._open_reader = open_reader
        self._waiting = waiting
        self._deadline_s = deadline_s
        self._jobs: SimpleQueue[_Job | None] = SimpleQueue()
        self._threads = [
            threading.Thread(target=self._run, name=f"reads-{number}", daemon=True)
            for number in range(threads)
        ]
        self._started = False

    async def ask(self, look: Callable[[StoreReader], T]) -> T:
        """What `look` finds, in a thread. It may ask several times, and must not keep the reader.

        Raises `BusyError` when too many wait or it takes too long, and what `look` raises.
        """
        if self._jobs.qsize() >= self._waiting:
            raise BusyError("too many requests are reading the store; try again soon")
        if not self._started:
            self._started = True
            for thread in self._threads:
                thread.start()
        job = _Job(look, time.monotonic() + self._deadline_s, Future())
        self._jobs.put(job)
        try:
            async with asyncio.timeout(self._deadline_s):
                found: T = await asyncio.wrap_future(job.found)
                return found
        except TimeoutError:
            raise BusyError(TOO_SLOW) from None

    async def close(self) -> None:
        """Give the connections back. A thread that hangs is not waited for."""
        for _ in self._threads:
            self._jobs.put(None)
        if self._started:
            await asyncio.to_thread(self._join)

    def _join(self) -> None:
        until_s = time.monotonic() + CLOSE_TIMEOUT_S
        for thread in self._threads:
            thread.join(max(0.0, until_s - time.monotonic()))

    def _run(self) -> None:
        while self._serve():
            pass

    def _serve(self) -> bool:
        """With one reader, until it fails (True) or all is over."""
        job = self._jobs.get()
        if job is None:
            return False
        try:
            with self._open_reader() as reader:
                while job is not None:
                    if _answer(job, reader) is not None:
                        return True
                    job = self._jobs.get()
        except Exception as error:  # noqa: BLE001  # of opening: whatever it is, who asked is told
            if job is not None and not job.found.done():
                job.found.set_exception(error)
            return True
        return False


def _answer(job: _Job, reader: StoreReader) -> Exception | None:
    """What was found is told; what went wrong, too, and returned if the reader may be the reason."""
    if not job.found.set_running_or_notify_cancel():
        return None
    try:
        reader.until(job.until_s)
        job.found.set_result(job.look(reader))
    except Exception as error:  # noqa: BLE001  # as above
        is_late = isinstance(error, StoreError) and time.monotonic() >= job.until_s
        job.found.set_exception(BusyError(TOO_SLOW) if is_late else error)
        return error if isinstance(error, StoreError) else None
    return None
