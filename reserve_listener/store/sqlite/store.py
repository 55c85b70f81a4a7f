"""The store on SQLite: WAL, `synchronous=FULL`, one writer thread with group commit, and an inbox in front."""

from __future__ import annotations

import asyncio
import json
from functools import partial
from typing import TYPE_CHECKING, Any, Final, TypeVar

from msgspec.structs import replace

from reserve_listener.errors import StoreError
from reserve_listener.model import Claimed, Outcome, SinkFilter, Verdict
from reserve_listener.store.shared import claiming, naming, projecting, rebuilding, sql
from reserve_listener.store.shared.appending import Appending
from reserve_listener.store.shared.insight import insight
from reserve_listener.store.shared.projecting import Position
from reserve_listener.store.shared.store import SqlStore
from reserve_listener.store.shared.writer import Writer, each, first_end, resolve
from reserve_listener.store.sqlite.file import File
from reserve_listener.store.sqlite.inbox import Inbox
from reserve_listener.store.sqlite.lock import StoreLock
from reserve_listener.store.sqlite.places import alerts_path
from reserve_listener.store.sqlite.recent import Recent
from reserve_listener.store.sqlite.size import shrink_log, used_bytes
from reserve_listener.store.sqlite.slots import Slots

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Callable, Iterable, Mapping, Sequence
    from pathlib import Path
    from typing import Unpack

    from reserve_listener.model import IncomingEvent, Insight
    from reserve_listener.protocols.backend import StoreOptions
    from reserve_listener.store.shared.appending import Appended
    from reserve_listener.store.shared.batches import Batch

T = TypeVar("T")

CROWDED: Final = 0.5
"""From this share of the size bound on, the logs are emptied before anything is dropped for room."""


class SqliteStore(SqlStore):
    """See `protocols.store.Store`."""

    def __init__(self, path: Path, **options: Unpack[StoreOptions]) -> None:
        super().__init__(str(path), **options)
        self.path = path
        self._lock = StoreLock(path)
        self._inbox = Inbox(path)
        self._alerts = Slots(alerts_path(path))
        self._recent: dict[int, Recent] = {}
        self._newest_seq = 0

    async def open(
        self, sinks: Sequence[str], filters_by_sink: Mapping[str, SinkFilter] | None = None
    ) -> None:
        """Lock, open and migrate the store, with `sinks` as the ones that get deliveries. Raises `StoreError`.

        What a sink that is no longer configured did not get becomes dead letters ("sink removed").
        """
        self._lock.acquire()
        self._writer = Writer(File(self.path))
        try:
            await self._writer.open()
            await self._watch_clock()
            self._directory.take(await self._writer.submit(naming.all_places, writes=False))
            self._directory.take_people(await self._writer.submit(naming.people, writes=False))
            self._newest_seq, position = await self._writer.submit(_where, writes=False)
            await self._inbox.open(position)
            await self.set_sinks(sinks, filters_by_sink)
            await self.dead_letter_removed()
            await self.measure()
            self._unbuilt = await self._writer.submit(rebuilding.is_left, writes=False)
        except BaseException:
            await self.close()
            raise
        if self._unbuilt:
            self._rebuilding = asyncio.create_task(self._rebuild(), name="rebuilding")

    async def set_sinks(
        self, names: Sequence[str], filters_by_sink: Mapping[str, SinkFilter] | None = None
    ) -> None:
        """From now on these sinks get deliveries: each what its filter accepts, or everything without one."""
        by_name = {name: (filters_by_sink or {}).get(name, SinkFilter()) for name in names}
        numbers, self._pauses = await self._writer.submit(partial(_know_sinks, list(names)), writes=True)
        self._filters = {name: (numbers[name], sink_filter) for name, sink_filter in by_name.items()}
        self._specs = tuple(self._filters.values())
        self._recent = {
            number: self._recent.get(number) or Recent(self._newest_seq) for number, _ in self._specs
        }
        # Those that are gone keep their numbers: a worker of theirs may still be at its last attempt.
        self._sinks |= numbers

    async def close(self) -> None:
        """Commit what is queued, and release files and lock."""
        for task in (self._setting_right, self._rebuilding):
            if task is not None:
                task.cancel()
                await asyncio.wait([task])
        await self._inbox.close()
        await self._writer.close()
        self._lock.release()

    async def ended(self) -> None:
        """Return when a writer has ended as asked; raise its error if it ended by itself."""
        await first_end(self._writer.end, self._inbox.end)

    # -- health --------------------------------------------------------------------------------------------------------

    @property
    def problem(self) -> str | None:
        """Why pushes are answered 500 now; None while they are accepted."""
        return self._writer.problem or self._inbox.problem or (self._full_text() if self.full else None)

    @property
    def failed_commits(self) -> int:
        """How many commits in a row have failed."""
        return max(self._writer.failed_commits, self._inbox.failed_commits)

    @property
    def stuck_s(self) -> float:
        """How long a writing thread has been busy with the same work."""
        return max(self._writer.stuck_s, self._inbox.stuck_s)

    async def touch(self, app_id: str) -> None:
        """Write something small, to find out after a failure whether the store works again. Raises `StoreError`."""
        await self._writer.submit(partial(_touch, app_id), writes=True)
        await self._inbox.touch()

    async def measure(self) -> int:
        """The bytes in use in both files."""
        self._size_bytes = await self._used_bytes()
        if self.max_bytes is not None and self._size_bytes > self.max_bytes * CROWDED:
            await self._of_both(shrink_log)
            self._size_bytes = await self._used_bytes()
        self._grown_bytes = 0
        return self._size_bytes

    async def _used_bytes(self) -> int:
        in_store, in_inbox = await self._of_both(used_bytes)
        return int(in_store) + int(in_inbox)

    async def _of_both(self, work: Callable[[sqlite3.Connection], Any]) -> tuple[Any, Any]:
        return await asyncio.gather(self._writer.submit(work, writes=False), self._inbox.ask(work))

    async def free_inbox(self) -> None:
        """Delete projected batches from the inbox now; otherwise that happens with the next push."""
        await self._inbox.tidy()

    async def insight(self, app_id: str, *, gaps_since_ms: int) -> Insight:
        """The figures that `status` shows, with the gaps of this app that ended since then."""
        work = partial(insight, app_id, gaps_since_ms, used_bytes)
        inbox_bytes = self._inbox.ask(used_bytes)
        found = await self._writer.submit(work, writes=False)
        return replace(found, size_bytes=(found.size_bytes or 0) + await inbox_bytes)

    # -- events in -----------------------------------------------------------------------------------------------------

    def receive(
        self, events: Sequence[IncomingEvent], done: Callable[[int, StoreError | None], None]
    ) -> None:
        """See `StoreIntake.receive`."""
        size = _size(events)
        if self._is_full(size):
            done(0, StoreError(self._full_text()))
            return
        self._coming_bytes += size
        self._inbox.put(events, partial(self._received, size, done))

    def _received(
        self, size: int, done: Callable[[int, StoreError | None], None], number: int, error: StoreError | None
    ) -> None:
        if error is not None:
            self._coming_bytes -= size
        done(number, error)

    async def left(self) -> list[Batch]:
        """See `StoreIntake.left`."""
        batches = await self._inbox.left()
        self._coming_bytes += sum(_size(batch.events) for batch in batches)
        return batches

    def project(
        self, events: Sequence[IncomingEvent], *, number: int | None = None
    ) -> asyncio.Future[list[Verdict]]:
        """See `StoreIntake.project`."""
        position = None if number is None else Position(self._inbox.id, number)
        work = partial(projecting.project, self._appending(), events, position)
        future: asyncio.Future[list[Verdict]] = asyncio.get_running_loop().create_future()
        done = partial(self._projected, future, number, _size(events))
        self._submit_appending(work, done)
        return future

    def _projected(
        self,
        future: asyncio.Future[list[Verdict]],
        number: int | None,
        size: int,
        appended: list[Appended],
        error: StoreError | None,
    ) -> None:
        """Note a commit. On the loop, even if nobody waits for it any more."""
        if error is None:
            if number is not None:
                self._inbox.projected(number)
                self._coming_bytes -= size
            self._take_in([one for one in appended if one.verdict is not Verdict.DUPLICATE])
        resolve(future, None if error is not None else [one.verdict for one in appended], error)

    def _submit_appending(
        self,
        work: Callable[[Any], Any],
        done: Callable[[Any, StoreError | None], None],
        *,
        writes: bool = True,
    ) -> None:
        self._writer.submit_item(each, work, done, writes=writes)

    def _appending(self) -> Appending:
        return Appending(
            self._specs, self._scopes, self._complete, unbuilt=self._unbuilt, directory=self._directory
        )

    async def may_reconcile(self) -> bool:
        """See `StoreReadings.may_reconcile`: there is but one daemon."""
        return True

    # -- deliveries out ------------------------------------------------------------------------------------------------

    async def _claimed(
        self, _sink: str, work: Callable[[claiming.Pauses, Any], Claimed], pauses: claiming.Pauses
    ) -> Claimed:
        return await self._writer.submit(partial(work, pauses), writes=False)

    def holds(self, _sink: str) -> int:
        """See `StoreQueue.holds`: there is but one daemon."""
        return 1

    async def _write_of(self, _sink: str, work: Callable[[Any], Any]) -> Any:
        return await self._writer.submit(work, writes=True)

    def _led(self, _what: str, work: Callable[[Any], T]) -> Callable[[Any], T]:
        return work

    async def settle(self, sink: str, outcomes: Sequence[Outcome]) -> None:
        """See `StoreQueue.settle`."""
        if (recent := self._recent.get(self._sinks[sink])) is not None:
            recent.settled(outcome.seq for outcome in outcomes)
        await super().settle(sink, outcomes)

    def _recent_claim(
        self, claim: claiming.Claim, after_seq: int | None, pauses: claiming.Pauses
    ) -> Claimed | None:
        recent = self._recent.get(claim.sink)
        return None if recent is None else recent.claim(claim, after_seq, pauses)

    def _keep_recent(self, stored: Sequence[Appended]) -> None:
        self._newest_seq = stored[-1].seq
        for sink, recent in self._recent.items():
            recent.add([one for one in stored if sink in one.takers], self._newest_seq)

    def _forget_recent(self) -> None:
        for recent in self._recent.values():
            recent.forget()

    # -- alerts --------------------------------------------------------------------------------------------------------

    def tell(self) -> None:
        """See `Store.tell`: there are no others."""

    @property
    def replica(self) -> str | None:
        """See `StoreAlerts.replica`: there is but one daemon."""
        return None

    @property
    def is_cut_off(self) -> bool:
        """See `StoreAlerts.is_cut_off`."""
        return False

    def tells_alerts(self) -> bool:
        """See `StoreAlerts.tells_alerts`."""
        return True

    async def remembered_alerts(self) -> bytes | None:
        """What `remember_alerts` was last given, in this run or an earlier one. Raises `StoreError`."""
        content: bytes | None = await self._in_slots(self._alerts.read)
        return content

    async def remember_alerts(self, content: bytes) -> None:
        """Keep this for the next run, even while nothing else can be written. Raises `StoreError`."""
        await self._in_slots(partial(self._alerts.write, content))

    async def answer(self, request: int, content: bytes) -> None:
        """See `StoreRequests.answer`: commands ask at the socket."""

    async def _in_slots(self, work: Callable[[], Any]) -> Any:
        try:
            return await asyncio.to_thread(work)
        except OSError as error:
            raise StoreError(f"{alerts_path(self.path)} failed: {error.strerror or error}") from error


# -- work for the writer's thread -------------------------------------------------------------------------------------------


def _size(events: Iterable[IncomingEvent]) -> int:
    return sum(len(event.raw) + len(event.body or b"") for event in events)


def _know_sinks(
    names: list[str], connection: sqlite3.Connection
) -> tuple[dict[str, int], Mapping[int, claiming.Pauses]]:
    connection.execute(sql.FORGET_SINKS, (json.dumps(names),))
    numbers = {name: int(connection.execute(sql.KNOW_SINK, (name,)).fetchone()[0]) for name in names}
    return numbers, claiming.pauses_by_sink(connection.execute(sql.PAUSES))


def _where(connection: sqlite3.Connection) -> tuple[int, Position]:
    """The number of the newest event there ever was, and how far the inbox has been projected."""
    newest = connection.execute(sql.NEWEST_EVER).fetchone() or (0,)
    return int(newest[0]), Position(*connection.execute(sql.INBOX_POSITION).fetchone())


def _touch(app_id: str, connection: sqlite3.Connection) -> None:
    # Without a long connection no app is known.
    connection.execute(sql.TOUCH_APP, (app_id,))
    connection.execute(sql.TOUCH_SINK)
