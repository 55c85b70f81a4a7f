"""The one thread that writes: it collects what is waiting, commits once, and wakes everybody at once.

A commit with `synchronous=FULL` costs a disk flush whatever is in it, so what arrives during one flush shares the next.
What must stay true: a job's future resolves only after the commit that holds it; a failing job fails alone.
"""

from __future__ import annotations

import asyncio
import contextlib
import queue
import sqlite3
import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from reserve_listener.errors import StoreError

if TYPE_CHECKING:
    from collections.abc import Sequence

BATCH_JOBS: Final = 2_000
"""Jobs that share one commit at the most: bounds how long the first of them waits."""

_MEDIUM_FAILED: Final = (
    "SQLITE_FULL",
    "SQLITE_IOERR",
    "SQLITE_READONLY",
    "SQLITE_CORRUPT",
    "SQLITE_CANTOPEN",
    "SQLITE_BUSY",  # another program holds the file: each try waits for the whole busy timeout
    "SQLITE_LOCKED",
    "SQLITE_PROTOCOL",
    "SQLITE_NOTADB",
    "SQLITE_NOMEM",
)
"""Errors that are the medium's and not a single job's: running the jobs one by one would not help."""

Work = Callable[[sqlite3.Connection], Any]


@dataclass(slots=True, eq=False)
class Job:
    """Work for the connection, and who waits for it. `writes`: inside the transaction, else after its commit."""

    work: Work
    future: asyncio.Future[Any]
    writes: bool


Result = tuple[Job, Any, BaseException | None]


class Writer:
    """Runs jobs on a connection of its own, in one thread. Made and used on the event loop's thread."""

    def __init__(self, connect: Callable[[], sqlite3.Connection], *, name: str = "store-writer") -> None:
        self._connect = connect
        self._loop = asyncio.get_running_loop()
        self._jobs: queue.SimpleQueue[Job | None] = queue.SimpleQueue()
        self._opened: asyncio.Future[None] = self._loop.create_future()
        self._closed = self._loop.create_future()
        self._accepting = True
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)

    async def open(self) -> None:
        """Start the thread; raises what opening the connection raised."""
        self._thread.start()
        await self._opened

    def submit(self, work: Work, *, writes: bool) -> asyncio.Future[Any]:
        """Queue work. The future gets its result, or a `StoreError`."""
        future: asyncio.Future[Any] = self._loop.create_future()
        if not self._accepting:
            future.set_exception(StoreError("the store is closed"))
            return future
        self._jobs.put(Job(work, future, writes))
        return future

    async def ended(self) -> None:
        """Returns when the thread has ended: asked to, or not."""
        await asyncio.shield(self._closed)

    async def close(self) -> None:
        """Finish what is queued, close the connection, end the thread."""
        if self._accepting:
            self._accepting = False
            self._jobs.put(None)
        await asyncio.shield(self._closed)

    # -- in the thread --------------------------------------------------------------------------------------------------

    def _run(self) -> None:
        try:
            connection = self._connect()
        except BaseException as error:  # noqa: BLE001  # whatever it is, the opener must hear it
            self._tell(_resolve_one, self._opened, error)
            self._tell(_resolve_one, self._closed, None)
            return
        self._tell(_resolve_one, self._opened, None)
        try:
            while self._turn(connection):
                pass
        finally:
            connection.close()
            self._tell(self._thread_ended)

    def _thread_ended(self) -> None:
        """On the loop, as `submit` is: whether asked to end or not, nobody is left waiting in the queue."""
        self._accepting = False
        with contextlib.suppress(queue.Empty):
            while True:
                job = self._jobs.get_nowait()
                if job is not None and not job.future.done():
                    job.future.set_exception(StoreError("the store's writer has ended"))
        _resolve_one(self._closed, None)

    def _turn(self, connection: sqlite3.Connection) -> bool:
        jobs, more = self._collect()
        writes = [job for job in jobs if job.writes]
        if writes:
            self._tell(_resolve_all, _commit(connection, writes))
        reads = [job for job in jobs if not job.writes]
        if reads:
            self._tell(_resolve_all, [_attempt(connection, job) for job in reads])
        return more

    def _collect(self) -> tuple[list[Job], bool]:
        job = self._jobs.get()
        jobs: list[Job] = []
        while job is not None:
            jobs.append(job)
            if len(jobs) >= BATCH_JOBS:
                return jobs, True
            try:
                job = self._jobs.get_nowait()
            except queue.Empty:
                return jobs, True
        return jobs, False

    def _tell(self, callback: Callable[..., None], *args: Any) -> None:
        with contextlib.suppress(RuntimeError):  # the loop is closed: nobody waits any more
            self._loop.call_soon_threadsafe(callback, *args)


def _commit(connection: sqlite3.Connection, jobs: Sequence[Job]) -> list[Result]:
    """All jobs in one transaction; should one fail, each in a transaction of its own."""
    try:
        return _transaction(connection, jobs)
    except Exception as error:  # noqa: BLE001  # a job's own mistake must not end the thread
        if len(jobs) == 1 or getattr(error, "sqlite_errorname", "").startswith(_MEDIUM_FAILED):
            return [(job, None, _store_error(error)) for job in jobs]
    return [result for job in jobs for result in _commit(connection, [job])]


def _transaction(connection: sqlite3.Connection, jobs: Sequence[Job]) -> list[Result]:
    connection.execute("BEGIN IMMEDIATE")
    try:
        results: list[Result] = [(job, job.work(connection), None) for job in jobs]
        connection.execute("COMMIT")
    except BaseException:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise
    return results


def _attempt(connection: sqlite3.Connection, job: Job) -> Result:
    try:
        return job, job.work(connection), None
    except Exception as error:  # noqa: BLE001  # as in _commit
        return job, None, _store_error(error)


def _store_error(error: Exception) -> StoreError:
    failure = StoreError(f"the store failed: {error}")
    failure.__cause__ = error
    return failure


def _resolve_all(results: Sequence[Result]) -> None:
    for job, value, error in results:
        if job.future.done():
            continue  # its caller was cancelled
        if error is None:
            job.future.set_result(value)
        else:
            job.future.set_exception(error)


def _resolve_one(future: asyncio.Future[None], error: BaseException | None) -> None:
    if future.done():
        return
    if error is None:
        future.set_result(None)
    else:
        future.set_exception(error)
