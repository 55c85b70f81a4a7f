"""The one thread that writes: it collects what is waiting, commits once, and wakes everybody at once.

A commit with `synchronous=FULL` costs a disk flush whatever is in it, so what arrives during one flush shares the next.
What must stay true: a job's caller is told only after the job's commit, and that commit is in the file that has the store's
name; a failing job fails alone; and after the medium has failed, the connection is opened again before it is used.
"""

from __future__ import annotations

import asyncio
import contextlib
import queue
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, Final, Protocol, TypeVar

from reserve_listener.errors import StoreError
from reserve_listener.store.shared.medium import MediumError, NotNowError

if TYPE_CHECKING:
    from collections.abc import Sequence

BATCH_JOBS: Final = 2_000
"""The most jobs in one commit, which limits how long the first of them waits."""

HANDED_ON: Final = 32
"""How many jobs the loop hands on at a time when many come at once: while they are committed, it reads the next. Fewer are
handed on as soon as the loop has finished its turn."""

SLOW_S: Final = 2.5
"""If a batch takes longer than this, people are told."""

T = TypeVar("T")
Work = Callable[[Any], Any]
"""Work to do with the medium's connection."""
Done = Callable[[Any, StoreError | None], None]
"""Called on the loop with the result of a job or with the error. Must not block."""
WorkOnAll = Callable[[list[Any], Any], "Sequence[Any]"]
"""Does consecutive jobs of a kind in one go, and returns a result for each item."""


@dataclass(slots=True, eq=False)
class Job:
    """Work for the connection, and whom to tell. `writes`: do it inside the transaction, else after the commit."""

    work: WorkOnAll
    item: Any
    done: Done
    writes: bool
    told: bool = False

    def tell(self, value: Any, error: StoreError | None) -> None:
        """Pass on the result, once, on the loop. A caller's exception must not affect others."""
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


class Medium(Protocol):
    """What a writer writes to, and the connection to it. For the writer's thread only."""

    def open(self) -> None:
        """Open, as at start. Raises `StoreError`."""

    def usable(self) -> Any:
        """A connection that works, as far as is known. Raises `NotNowError`, and `StoreError` if only a person can help."""

    def commit(self, connection: Any, jobs: Sequence[Job], /) -> tuple[list[Result], bool]:
        """Run all jobs in one transaction or, if one fails, each in its own. Also returns whether anything was written."""

    def read(self, job: Job, /) -> Result:
        """Run a job that only reads. Raises `StoreError` as `usable` does."""

    def has_failed(self, error: BaseException, /) -> bool:
        """Whether the medium failed, not the job."""

    def failure(self, error: BaseException, /) -> StoreError:
        """Any error as a `StoreError`, in words."""

    def suspect(self, error: BaseException, /) -> None:
        """A commit failed with this error: open again, unless the connection is known to be as good as before."""

    def release(self) -> None:
        """Release everything. Does not raise."""


class Writer:
    """Runs jobs on its own connection, in one thread. Create and use it on the event loop."""

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
        """How many commits in a row have failed."""
        self._busy_since: float | None = None
        self._in_hand: Sequence[Job] = ()

    async def open(self) -> None:
        """Start the thread. Raises what opening the medium raised."""
        self._thread.start()
        await self._opened

    def submit(self, work: Callable[[Any], T], *, writes: bool) -> asyncio.Future[T]:
        """Queue work. The future gets the result or a `StoreError`."""
        future: asyncio.Future[T] = self._loop.create_future()
        self.submit_item(each, work, partial(resolve, future), writes=writes)
        return future

    def submit_item(self, work: WorkOnAll, item: Any, done: Done, *, writes: bool) -> None:
        """Queue an item of work that can be done for many items at once."""
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
        """Hand on what is queued without waiting for more."""
        if self._coming:
            self._jobs.put(self._coming)
            self._coming = []

    @property
    def problem(self) -> str | None:
        """Why the last commit failed, or that the current one takes too long; None while commits succeed."""
        if (stuck_s := self.stuck_s) > SLOW_S:
            return f"a commit has been under way for {stuck_s:.0f} s"
        return self._failure

    @property
    def stuck_s(self) -> float:
        """How long the thread has been busy with the current work; 0 if it is waiting for work."""
        since = self._busy_since
        return 0.0 if since is None else time.monotonic() - since

    @property
    def end(self) -> asyncio.Future[None]:
        """Resolved when the thread has ended as asked; has the error if it ended by itself."""
        return self._closed

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
        """On the loop: however the thread ended, nobody is left waiting."""
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
            self._tell(_tell_all, [(job, None, MediumError(str(error))) for job in jobs])
            return
        writes = [job for job in jobs if job.writes]
        if writes:
            results, wrote = self._medium.commit(connection, writes)
            self._judge(results, wrote=wrote)
            self._tell(_tell_all, results)
        reads = [job for job in jobs if not job.writes]
        if reads:
            self._tell(_tell_all, [self._read(job) for job in reads])

    def _read(self, job: Job) -> Result:
        self._busy_since = (
            time.monotonic()
        )  # one may wait as long as the medium lets it; several in a row hang nowhere
        return self._medium.read(job)

    def _judge(self, results: Sequence[Result], *, wrote: bool) -> None:
        """Update the health by the last commit, and do not use a connection again that may be broken."""
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


def each(works: Sequence[Work], connection: Any) -> list[Any]:
    """A `WorkOnAll` for items that are themselves the work."""
    return [work(connection) for work in works]


def _tell_all(results: Sequence[Result]) -> None:
    for job, value, error in results:
        job.tell(value, error)


async def first_end(*ends: asyncio.Future[None]) -> None:
    """Return when the first has ended as asked; raise its error if it ended by itself. Cancelling this does not touch them."""
    done, _ = await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
    for end in done:
        end.result()


def resolve(future: asyncio.Future[Any], value: Any, error: BaseException | None) -> None:
    """Resolve the future, unless its caller has given up."""
    if future.done():
        return  # its caller was cancelled
    if error is None:
        future.set_result(value)
    else:
        future.set_exception(error)
