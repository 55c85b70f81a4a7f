"""The one thread that writes: it collects what is waiting, commits once, and wakes everybody at once.

A commit with `synchronous=FULL` costs a disk flush whatever is in it, so what arrives during one flush shares the next.
What must stay true: a job's caller is told only after the commit that holds it, and that commit is in the file that has
the store's name; a failing job fails alone; a connection that the medium has failed is opened anew before it is used again.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
import queue
import sqlite3
import struct
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from itertools import groupby
from operator import attrgetter
from typing import TYPE_CHECKING, Any, Final, Protocol, TypeVar

from reserve_listener.errors import StoreError, WrongStoreError
from reserve_listener.store.sqlite import schema
from reserve_listener.store.sqlite.wal import WalGuard

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

BATCH_JOBS: Final = 2_000
"""With so many jobs a commit is full: bounds how long the first of them waits."""

HANDED_ON: Final = 32
"""Jobs that the loop hands on at a time when many come at once: while they are committed it reads the next. Fewer are handed
on as soon as the loop has done what it is at."""

SLOW_S: Final = 2.5
"""A batch that is under way for so long is a problem that people are told of."""

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

_PASSES_BY_ITSELF: Final = ("SQLITE_FULL", "SQLITE_BUSY", "SQLITE_LOCKED")
"""Of these, errors after which the connection is as good as before."""

_DAMAGED: Final = ("SQLITE_CORRUPT", "SQLITE_NOTADB")

T = TypeVar("T")
Work = Callable[[Any], Any]
"""With the medium's connection."""
Done = Callable[[Any, StoreError | None], None]
"""Who waits for a job: called on the loop with its result, or with why there is none. May not block."""
WorkOnAll = Callable[[list[Any], Any], "Sequence[Any]"]
"""What does the jobs of a kind that come one after another in one go: a result for each item."""


@dataclass(slots=True, eq=False)
class Job:
    """Work for the connection, and who waits for it. `writes`: inside the transaction, else after its commit."""

    work: WorkOnAll
    item: Any
    done: Done
    writes: bool
    told: bool = False

    def tell(self, value: Any, error: StoreError | None) -> None:
        """On the loop, once: what it came to. A caller's own mistake is not the others'."""
        if self.told:
            return
        self.told = True
        try:
            self.done(value, error)
        except Exception as defect:  # noqa: BLE001  # whatever it is, it is reported
            asyncio.get_running_loop().call_exception_handler(
                {"message": "a caller of the store failed", "exception": defect}
            )


Result = tuple[Job, Any, StoreError | None]


class MediumError(StoreError):
    """The medium has failed, and not what was to be written."""


class Medium(Protocol):
    """What a writer writes to, and the connection to it. Used in the writer's thread only."""

    def open(self) -> None:
        """As at start. Raises `StoreError`."""

    def usable(self) -> Any:
        """A connection that works as far as is known. Raises `NotNowError`, and `StoreError` for what only a person can mend."""

    def commit(self, connection: Any, jobs: Sequence[Job], /) -> tuple[list[Result], bool]:
        """All jobs in one transaction; should one fail, each alone. Also whether anything was written."""

    def read(self, job: Job, /) -> Result:
        """A job that only reads. Raises `StoreError` as `usable` does."""

    def has_failed(self, error: BaseException, /) -> bool:
        """Whether it was the medium that failed, and not what was to be written."""

    def failure(self, error: BaseException, /) -> StoreError:
        """An error of any kind, in words."""

    def suspect(self, error: BaseException, /) -> None:
        """A commit failed with this: open anew unless the connection is known to be as good as before."""

    def release(self) -> None:
        """Give everything back. Does not raise."""


class Writer:
    """Runs jobs on a connection of its own, in one thread. Made and used on the event loop's thread."""

    def __init__(
        self,
        medium: Medium,
        *,
        name: str = "store-writer",
    ) -> None:
        self._medium = medium
        self._loop = asyncio.get_running_loop()
        self._jobs: queue.SimpleQueue[list[Job] | None] = queue.SimpleQueue()
        self._coming: list[Job] = []
        self._opened: asyncio.Future[None] = self._loop.create_future()
        self._closed: asyncio.Future[None] = self._loop.create_future()
        self._accepting = True
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._failure: str | None = None
        self.failed_commits = 0
        """How many in a row have failed."""
        self._busy_since: float | None = None
        self._in_hand: Sequence[Job] = ()

    async def open(self) -> None:
        """Start the thread; raises what opening the file raised."""
        self._thread.start()
        await self._opened

    def submit(self, work: Callable[[Any], T], *, writes: bool) -> asyncio.Future[T]:
        """Queue work. The future gets its result, or a `StoreError`."""
        future: asyncio.Future[T] = self._loop.create_future()
        self.submit_item(each, work, partial(resolve, future), writes=writes)
        return future

    def submit_item(self, work: WorkOnAll, item: Any, done: Done, *, writes: bool) -> None:
        """Queue an item of work that may be done for many at once."""
        if not self._accepting:
            done(None, StoreError("the store is closed"))
            return
        coming = self._coming
        coming.append(Job(work, item, done, writes))
        if len(coming) >= HANDED_ON:
            self.hand_on()
        elif len(coming) == 1:
            self._loop.call_soon(self.hand_on)

    def hand_on(self) -> None:
        """Do not wait for more."""
        if self._coming:
            self._jobs.put(self._coming)
            self._coming = []

    @property
    def problem(self) -> str | None:
        """Why the last commit failed, or that one takes too long; None while commits succeed."""
        if (stuck_s := self.stuck_s) > SLOW_S:
            return f"a commit has been under way for {stuck_s:.0f} s"
        return self._failure

    @property
    def stuck_s(self) -> float:
        """How long the thread has been at what it is doing; 0 when it waits for work."""
        since = self._busy_since
        return 0.0 if since is None else time.monotonic() - since

    async def ended(self) -> None:
        """Returns when the thread has ended as asked; raises why it ended by itself."""
        await asyncio.shield(self._closed)

    async def close(self) -> None:
        """Finish what is queued, close the file, end the thread. Does not raise; may be called twice."""
        if not self._thread.ident:
            return
        if self._accepting:
            self._accepting = False
            self.hand_on()
            self._jobs.put(None)
        await asyncio.wait([self._closed])

    # -- in the thread --------------------------------------------------------------------------------------------------

    def _run(self) -> None:
        failure: BaseException | None = None
        try:
            self._medium.open()
        except BaseException as error:  # noqa: BLE001  # whatever it is, the opener must hear it
            self._medium.release()
            self._tell(resolve, self._opened, None, error)
            self._tell(resolve, self._closed, None, None)
            return
        self._tell(resolve, self._opened, None, None)
        try:
            while self._turn():
                pass
        except BaseException as error:  # noqa: BLE001  # whoever waits for `ended` is told
            failure = error
        finally:
            self._medium.release()
            self._tell(self._thread_ended, failure)

    def _thread_ended(self, failure: BaseException | None) -> None:
        """On the loop, as `submit` is: whether asked to end or not, nobody is left waiting."""
        self._accepting = False
        self._failure = self._failure if failure is None else str(failure)
        left = [*self._in_hand]
        with contextlib.suppress(queue.Empty):
            while True:
                left += self._jobs.get_nowait() or ()
        left += self._coming
        if failure is not None and not isinstance(failure, StoreError):
            failure = self._medium.failure(failure)
        for job in left:
            job.tell(None, failure or StoreError("the store is closed"))
        resolve(self._closed, None, failure)
        self._closed.exception()  # nobody may have asked

    def _turn(self) -> bool:
        jobs, more = self._collect()
        if jobs:
            self._in_hand = jobs
            self._busy_since = time.monotonic()
            try:
                self._do(jobs)
            finally:
                self._busy_since = None
            self._in_hand = ()
        return more

    def _do(self, jobs: Sequence[Job]) -> None:
        try:
            connection = self._medium.usable()
        except NotNowError as error:
            self._failure = str(error)
            self.failed_commits += any(job.writes for job in jobs)
            self._tell(_tell_all, [(job, None, StoreError(str(error))) for job in jobs])
            return
        writes = [job for job in jobs if job.writes]
        if writes:
            results, wrote = self._medium.commit(connection, writes)
            self._judge(results, wrote=wrote)
            self._tell(_tell_all, results)
        reads = [job for job in jobs if not job.writes]
        if reads:
            self._tell(_tell_all, [self._medium.read(job) for job in reads])

    def _judge(self, results: Sequence[Result], *, wrote: bool) -> None:
        """Health follows what was last written; a connection that may be spoiled is not used again."""
        errors = (error for _, _, error in results if error is not None)
        failed = next((error for error in errors if self._medium.has_failed(error)), None)
        if failed is not None:
            self._failure = str(failed)
            self.failed_commits += 1
            self._medium.suspect(failed)
        elif wrote:  # a commit of nothing, as of a duplicate, succeeds on a full disk too
            self._failure, self.failed_commits = None, 0

    def _collect(self) -> tuple[list[Job], bool]:
        some = self._jobs.get()
        jobs: list[Job] = []
        while some is not None:
            jobs += some
            if len(jobs) >= BATCH_JOBS:
                return jobs, True
            try:
                some = self._jobs.get_nowait()
            except queue.Empty:
                return jobs, True
        return jobs, False

    def _tell(self, callback: Callable[..., None], *args: Any) -> None:
        with contextlib.suppress(RuntimeError):  # the loop is closed: nobody waits any more
            self._loop.call_soon_threadsafe(callback, *args)


class NotNowError(Exception):
    """The file cannot be used at the moment."""


class File:
    """The store's file and the connection to it: a `Medium`."""

    def __init__(self, path: Path, part: schema.Part = schema.STORE, beside: Path | None = None) -> None:
        """`beside`: a file without which what is written here would be of no use."""
        self.path = path
        self._part = part
        self._beside = beside
        self._beside_identity: tuple[int, int] | None = None
        self._real = path.resolve()
        """Where SQLite has the rest of the store, if the path is a link."""
        self._wal = self._real.with_name(f"{self._real.name}-wal")
        self._connection: sqlite3.Connection | None = None
        self._guard: WalGuard | None = None
        self._held: int | None = None
        self._identity: tuple[int, int] | None = None
        self._wal_identity: tuple[int, int] | None = None
        self._damage: str | None = None

    def open(self) -> None:
        """Open, as at start. Raises `StoreError`."""
        self._connection = schema.open_writer(self.path, self._part)
        # Held open, also while no connection is: the number of a removed file would be given to the next one.
        self._held = os.open(self.path, os.O_RDONLY | os.O_CLOEXEC)
        self._identity, self._wal_identity = _identity(self.path), _identity(self._wal)
        self._beside_identity = _identity(self._beside)
        self._guard = WalGuard(self._real)

    def usable(self) -> sqlite3.Connection:
        """A connection to the file that has the store's name.

        Raises `NotNowError`, and `StoreError` when only a person can mend it: the file is gone, replaced or damaged.
        """
        self._require_same()
        self.require_whole()
        if self._connection is None:
            self._reopen()
            self._require_same()  # opening makes a file where none is
        if self._connection is None:  # pragma: no cover  # `_reopen` opens or raises
            raise NotNowError(f"the store {self.path} is not open")
        return self._connection

    def require_whole(self) -> None:
        """Raises `StoreError` when a part of what was committed is gone from the log."""
        if self._guard is None or self._guard.whole():
            return
        self._hold_still()
        raise StoreError(
            f"{self._wal}, a part of the store, was cut short while the daemon was running; what was committed since the"
            " last checkpoint is lost, and anything committed from now on would be."
            " Start the daemon again, and keep other programs away from this file."
        )

    def _hold_still(self) -> None:
        """At its closing SQLite would copy from the log what is left of it, page by page, and spoil the store.

        A lock of ours on the bytes that it locks for that keeps it off; the next opening recovers what is whole.
        """
        if self._held is not None:
            sharing = struct.pack("@hhqqi4x", fcntl.F_RDLCK, os.SEEK_SET, 0x40000002, 510, 0)
            fcntl.fcntl(self._held, fcntl.F_OFD_SETLK, sharing)

    def commit(self, connection: sqlite3.Connection, jobs: Sequence[Job]) -> tuple[list[Result], bool]:
        """See `Medium.commit`."""
        changes = connection.total_changes
        results = _commit(connection, jobs, self.path)
        wrote = connection.total_changes != changes
        if connection.in_transaction:  # even the rollback failed
            self.close()
        if wrote:
            self.require_whole()
        return results, wrote

    def has_failed(self, error: BaseException) -> bool:
        """See `Medium.has_failed`."""
        return is_medium(error)

    def failure(self, error: BaseException) -> StoreError:
        """See `Medium.failure`."""
        return _store_error(error, self.path)

    def suspect(self, error: BaseException) -> None:
        """A commit failed with this: open anew unless the connection is known to be as good as before."""
        name = _name_of(error)
        self.require_whole()
        if name.startswith(_PASSES_BY_ITSELF):
            return
        if name.startswith(_DAMAGED):
            self._damage = name
        self.close()

    def read(self, job: Job) -> Result:
        """A job that only reads; a damaged file shows here, too. Raises `StoreError` as `usable` does."""
        try:
            connection = self.usable()
        except NotNowError as error:
            return job, None, StoreError(str(error))
        try:
            return job, job.work([job.item], connection)[0], None
        except Exception as error:  # noqa: BLE001  # as in _commit
            if _name_of(error).startswith(_DAMAGED):
                self.suspect(error)
            return job, None, _store_error(error, self.path)

    def close(self) -> None:
        """Give the connection back. Does not raise."""
        connection, self._connection = self._connection, None
        if connection is not None:
            with contextlib.suppress(sqlite3.Error):
                connection.close()
        guard, self._guard = self._guard, None
        if guard is not None:
            guard.close()

    def release(self) -> None:
        """Give everything back. Does not raise."""
        self.close()
        if self._held is not None:
            os.close(self._held)
            self._held = None

    def _reopen(self) -> None:
        try:
            connection = schema.open_writer(self.path, self._part)
            if self._damage is not None:
                _require_sound(connection, self.path, self._damage)
        except (schema.DamagedStoreError, WrongStoreError):
            raise
        except StoreError as error:
            raise NotNowError(str(error)) from error
        self._connection, self._damage = connection, None
        self._wal_identity = _identity(self._wal)
        self._guard = WalGuard(self._real)

    def _require_same(self) -> None:
        try:
            named, wal, beside = _identity(self.path), _identity(self._wal), _identity(self._beside)
        except OSError as error:
            raise NotNowError(
                f"the store {self.path} cannot be looked at: {error.strerror or error}"
            ) from error
        for path, found, was in (
            (self.path, named, self._identity),
            (self._beside, beside, self._beside_identity),
        ):
            if found != was:
                what = "was removed" if found is None else "was replaced"
                raise StoreError(
                    f"the store {path} {what} while the daemon was running; anything committed to it from now on"
                    " would be lost. Put the file back, or start again with a new store."
                )
        if wal != self._wal_identity and self._connection is not None:
            raise StoreError(  # the end of the thread closes the connection, and that saves what is committed
                f"{self._wal}, a part of the store, was removed or replaced while the daemon was running; anything"
                " committed from now on would be lost. Earlier commits have been saved: start the daemon again."
            )


def _identity(path: Path | None) -> tuple[int, int] | None:
    """What tells a file from another one that has its name later; None: there is none."""
    if path is None:
        return None
    try:
        status = path.stat()
    except FileNotFoundError:
        return None
    return status.st_dev, status.st_ino


def _require_sound(connection: sqlite3.Connection, path: Path, damage: str) -> None:
    try:
        schema.require_sound(connection, path, indexes=damage == "SQLITE_CORRUPT_INDEX")
    except StoreError:
        connection.close()
        raise


def _commit(connection: sqlite3.Connection, jobs: Sequence[Job], path: Path) -> list[Result]:
    """All jobs in one transaction; should one fail, each in a transaction of its own."""
    try:
        return _transaction(connection, jobs)
    except Exception as error:  # noqa: BLE001  # a job's own mistake must not end the thread
        if len(jobs) == 1 or _name_of(error).startswith(_MEDIUM_FAILED) or connection.in_transaction:
            return [(job, None, _store_error(error, path)) for job in jobs]
    results: list[Result] = []
    for number, job in enumerate(jobs):
        results += _commit(connection, [job], path)
        failure = results[-1][2]
        if failure is not None and (is_medium(failure) or connection.in_transaction):
            return results + [(left, None, failure) for left in jobs[number + 1 :]]
    return results


def _transaction(connection: sqlite3.Connection, jobs: Sequence[Job]) -> list[Result]:
    connection.execute("BEGIN IMMEDIATE")
    try:
        results: list[Result] = []
        for work, group in groupby(jobs, attrgetter("work")):
            together = list(group)
            values = work([job.item for job in together], connection)
            results += [(job, value, None) for job, value in zip(together, values, strict=True)]
        connection.execute("COMMIT")
    except BaseException:
        with contextlib.suppress(sqlite3.Error):  # the first error is the one to tell
            if connection.in_transaction:
                connection.execute("ROLLBACK")
        raise
    return results


def each(works: Sequence[Work], connection: sqlite3.Connection) -> list[Any]:
    """A `WorkOnAll` for items that are work themselves."""
    return [work(connection) for work in works]


def _store_error(error: BaseException, path: Path) -> StoreError:
    advice = ". Make room on its disk." if _name_of(error) == "SQLITE_FULL" else ""
    failure = StoreError(f"the store {path} failed: {error}{advice}")
    failure.__cause__ = error
    return failure


def _name_of(error: BaseException) -> str:
    """SQLite's name of an error, also of the `StoreError` made of it; "" for others."""
    return str(getattr(error, "sqlite_errorname", "") or getattr(error.__cause__, "sqlite_errorname", ""))


def is_medium(error: BaseException) -> bool:
    """Whether it is the medium that failed, and not what was to be written."""
    return isinstance(error, MediumError) or _name_of(error).startswith(_MEDIUM_FAILED)


def _tell_all(results: Sequence[Result]) -> None:
    for job, value, error in results:
        job.tell(value, error)


def resolve(future: asyncio.Future[Any], value: Any, error: BaseException | None) -> None:
    """Tell whoever waits for it, if anybody still does."""
    if future.done():
        return  # its caller was cancelled
    if error is None:
        future.set_result(value)
    else:
        future.set_exception(error)
