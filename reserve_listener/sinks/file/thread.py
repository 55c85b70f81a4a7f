"""A thread for one sink's disk, so that a disk that hangs (NFS) holds up nobody else, nor the end of the process.

The loop's pool would be shared with other sinks and DNS, and `concurrent.futures` joins its threads at exit. What must
stay true: one job at a time, in order, also across `end`: nobody works beneath a job that still hangs.
"""

from __future__ import annotations

import asyncio
import contextlib
import queue
import threading
from typing import TYPE_CHECKING, Any, Final, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable

T = TypeVar("T")
_Job = tuple["Callable[[], Any]", "asyncio.Future[Any] | None"]
_END: Final = None


class FileThread:
    """A daemon thread, started by the first job. After `end` the next job starts it again."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._jobs: queue.SimpleQueue[_Job | None] = queue.SimpleQueue()
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None

    def submit(self, work: Callable[[], T]) -> asyncio.Future[T]:
        """Queue work; its outcome becomes the future's. Cancelled, it is not begun; begun, it goes on in the thread."""
        done: asyncio.Future[T] = asyncio.get_running_loop().create_future()
        self._put((work, done))
        return done

    def post(self, work: Callable[[], None]) -> None:
        """Queue work that nobody waits for, from any thread. It must not raise."""
        self._put((work, None))

    def end(self, *, join: bool = False) -> None:
        """Let the thread end when all that is queued is done; wait for that with `join`."""
        with self._lock:
            thread = self._thread
            if thread is not None:
                self._jobs.put(_END)
        if thread is not None and join:
            thread.join()

    def _put(self, job: _Job) -> None:
        with self._lock:
            if self._thread is None:
                thread = threading.Thread(target=self._run, name=self._name, daemon=True)
                thread.start()
                self._thread = thread
            self._jobs.put(job)

    def _run(self) -> None:
        while True:
            job = self._jobs.get()
            if job is not _END:
                _do(*job)
                del job  # it may hold megabytes until the next comes
                continue
            with self._lock:
                if self._jobs.empty():
                    self._thread = None
                    return


def _do(work: Callable[[], Any], done: asyncio.Future[Any] | None) -> None:
    if done is None:
        work()
        return
    if done.cancelled():
        return
    result: Any = None
    error: BaseException | None = None
    try:
        result = work()
    except BaseException as failure:  # noqa: BLE001  # whoever waits for it is told
        error = failure
    with contextlib.suppress(RuntimeError):  # the loop is closed: nobody waits any more
        done.get_loop().call_soon_threadsafe(_resolve, done, result, error)


def _resolve(done: asyncio.Future[Any], result: Any, error: BaseException | None) -> None:
    if done.done():
        return
    if error is None:
        done.set_result(result)
    else:
        done.set_exception(error)
