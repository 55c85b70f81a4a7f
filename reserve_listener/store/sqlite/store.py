"""The store on SQLite: WAL, `synchronous=FULL`, one writer thread with group commit."""

from __future__ import annotations

import asyncio
import contextlib
import json
from functools import partial
from typing import TYPE_CHECKING, Any, Final

import structlog
from msgspec.structs import replace

from reserve_listener.ages import Ages
from reserve_listener.clock import now_ms
from reserve_listener.errors import StoreError
from reserve_listener.intake.directory import Directory
from reserve_listener.model import (
    DELIVERED,
    PENDING,
    Claimed,
    Outcome,
    Pruned,
    SinkFilter,
    Verdict,
)
from reserve_listener.store.sqlite import (
    attempts,
    claiming,
    history,
    naming,
    operations,
    projecting,
    readings,
    rebuilding,
    sql,
)
from reserve_listener.store.sqlite.appending import Appending
from reserve_listener.store.sqlite.inbox import Inbox
from reserve_listener.store.sqlite.insight import STATES, insight, shrink_log, sink_states, used_bytes
from reserve_listener.store.sqlite.lock import StoreLock
from reserve_listener.store.sqlite.places import alerts_path
from reserve_listener.store.sqlite.projecting import Position
from reserve_listener.store.sqlite.recent import Recent
from reserve_listener.store.sqlite.slots import Slots
from reserve_listener.store.sqlite.writer import File, Writer, each, resolve

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
    from pathlib import Path

    from reserve_listener.model import (
        Asked,
        Completed,
        EventQuery,
        Found,
        IncomingEvent,
        Insight,
        Known,
        KnownPlace,
        Pass,
        Reading,
        Scope,
        SinkState,
    )
    from reserve_listener.protocols import Compare, Complete, store as protocols
    from reserve_listener.store.sqlite.appending import Appended, SinkFilters
    from reserve_listener.store.sqlite.inbox import Batch

log = structlog.get_logger("store")

SCOPES_KNOWN: Final = 20_000
"""Numbers of rooms and levels that are kept in memory: all of a large organisation, in some 4 MiB."""

ATTEMPT_BYTES: Final = 200
"""What an attempt that is kept takes at the most."""

LAST_ERROR_CHARS: Final = 500
BACKLOG_COUNTED: Final = 10_000

CROWDED: Final = 0.5
"""From this share of the bound on what the logs take is given back before anything is dropped for it."""

ROW_FACTOR: Final = 1.2
ROW_BYTES: Final = 200
"""What an event takes in the file, rows of deliveries and indexes included, for each byte of it and besides."""

REBUILD_RETRY_S: Final = 1.0
"""How long a store that failed is left alone."""


def as_it_is(_event: IncomingEvent, _previous: Known | None) -> Completed | None:
    """A body that says nothing of what was before: see `protocols.Complete`."""
    return None


class SqliteStore:
    """See `protocols.store.Store`.

    `on_commit` is called on the loop after each commit that added deliveries, `on_requeue` when deliveries that had been
    settled, or held back, are pending again.

    `max_bytes`: the size at which pushes are refused; `Retention` keeps the store below it if it can. `directory`: what it
    knows by name is kept there, too.
    """

    def __init__(
        self,
        path: Path,
        *,
        max_bytes: int | None = None,
        now_ms: Callable[[], int] = now_ms,
        ages: Ages | None = None,
        complete: Complete = as_it_is,
        directory: protocols.Directory | None = None,
    ) -> None:
        self.path = path
        self.name = str(path)
        self.max_bytes = max_bytes
        self.connection: Callable[[], str] = lambda: ""
        self.on_commit: Callable[[], None] = lambda: None
        self.on_requeue: Callable[[], None] = lambda: None
        self.on_disabled: Callable[[Collection[str]], None] = lambda _names: None
        self.on_doubt: Callable[[], None] = lambda: None
        self.grown = asyncio.Event()
        """Set when the store has grown so much that its size should be looked at."""
        self._ages = ages or Ages(now_ms, now_ms)
        self._now_ms = self._ages.now_ms
        self._setting_right: asyncio.Task[None] | None = None
        self._rebuilding: asyncio.Task[None] | None = None
        self._unbuilt = False
        """Whether there are events of an older version that the history has not yet."""
        self._lock = StoreLock(path)
        self._sinks: dict[str, int] = {}
        self._filters: Mapping[str, tuple[int, SinkFilter]] = {}
        self._specs: SinkFilters = ()
        self._pauses: Mapping[int, claiming.Pauses] = {}
        self._complete = complete
        self._directory = directory or Directory()
        self._inbox = Inbox(path)
        self._alerts = Slots(alerts_path(path))
        self._scopes: dict[Scope, int] = {}
        self._recent: dict[int, Recent] = {}
        self._newest_seq = 0
        self._coming_bytes = 0
        """Of what is received and not projected."""
        self._size_bytes = 0
        self._grown_bytes = 0
        self._writer: Writer

    async def open(
        self, sinks: Sequence[str], filters_by_sink: Mapping[str, SinkFilter] | None = None
    ) -> None:
        """Lock, open, migrate, and make `sinks` the ones that get deliveries. Raises `StoreError`.

        What a sink that is no longer configured has not got becomes dead letters ("sink removed").
        """
        self._lock.acquire()
        self._writer = Writer(File(self.path))
        try:
            await self._writer.open()
            self._ages.remember(await self._writer.submit(partial(_all, sql.JUMPS, ()), writes=False))
            loop = asyncio.get_running_loop()
            self._ages.on_jump = lambda moved_ms: loop.call_soon(self._clock_was_set, moved_ms)
            await self._set_right()
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
        """From now on these sinks get deliveries, each of what its route takes; without one, of everything."""
        by_name = {name: (filters_by_sink or {}).get(name, SinkFilter()) for name in names}
        numbers, self._pauses = await self._writer.submit(partial(_know_sinks, list(names)), writes=True)
        self._filters = {name: (numbers[name], sink_filter) for name, sink_filter in by_name.items()}
        self._specs = tuple(self._filters.values())
        self._recent = {
            number: self._recent.get(number) or Recent(self._newest_seq) for number, _ in self._specs
        }
        # Those that are gone keep their numbers: a worker of theirs may still be at its last attempt.
        self._sinks |= numbers

    async def dead_letter_removed(self) -> None:
        """What sinks that are no longer configured have not got becomes dead letters. Their workers have ended."""
        while not await self._writer.submit(
            partial(operations.dead_letter_removed, self._now_ms()), writes=True
        ):
            pass

    async def close(self) -> None:
        """Commit what is queued and give back files and lock."""
        for task in (self._setting_right, self._rebuilding):
            if task is not None:
                task.cancel()
                await asyncio.wait([task])
        await self._inbox.close()
        await self._writer.close()
        self._lock.release()

    async def ended(self) -> None:
        """Returns when a writer has ended as asked; raises why it ended by itself."""
        ends = [asyncio.ensure_future(part.ended()) for part in (self._writer, self._inbox)]
        try:
            done, _ = await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
            for end in done:
                end.result()
        finally:
            for end in ends:
                end.cancel()

    # -- the history of an older store ------------------------------------------------------------------------------------

    async def _rebuild(self) -> None:
        """In the background, a chunk at a time; broken off, the next start goes on."""
        log.info(
            "store.rebuilding",
            hint="what changed with each event of the older store; pushes are taken meanwhile",
        )
        work = partial(rebuilding.some, self._complete)
        while self._unbuilt:
            try:
                done = await self._append_by(work)
            except StoreError as error:
                log.warning("store.rebuilding_failed", error=str(error))
                await asyncio.sleep(REBUILD_RETRY_S)
                continue
            self._unbuilt = not done
        log.info("store.rebuilt")

    # -- health -----------------------------------------------------------------------------------------------------------

    @property
    def problem(self) -> str | None:
        """Why pushes are answered 500 now; None while they are taken."""
        return self._writer.problem or self._inbox.problem or (self._full_text() if self.full else None)

    @property
    def failed_commits(self) -> int:
        """How many commits in a row have failed."""
        return max(self._writer.failed_commits, self._inbox.failed_commits)

    @property
    def stuck_s(self) -> float:
        """For how long a thread that writes has been at one piece of work."""
        return max(self._writer.stuck_s, self._inbox.stuck_s)

    @property
    def full(self) -> bool:
        """Whether the size bound is reached."""
        return self._is_full(0)

    async def touch(self, app_id: str) -> None:
        """Write something small: after a failure it tells whether the store works again. Raises `StoreError`."""
        await self._writer.submit(partial(_touch, app_id), writes=True)
        await self._inbox.touch()

    @property
    def size_bytes(self) -> int:
        """The bytes that both files take, counted since they were last measured."""
        return self._size_bytes + self._grown_bytes + self._coming_bytes

    async def measure(self) -> int:
        """The bytes that are in use in both files."""
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
        """What is projected and still in the inbox goes; else it does with the next push."""
        await self._inbox.tidy()

    # -- events in --------------------------------------------------------------------------------------------------------

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

    def _submit_appending(
        self,
        work: Callable[[Any], Any],
        done: Callable[[Any, StoreError | None], None],
        *,
        writes: bool = True,
    ) -> None:
        """Work that appends, compares with what is known, or changes the directory."""
        self._writer.submit_item(each, work, done, writes=writes)

    def _append_by(self, work: Callable[[Any], Any]) -> asyncio.Future[Any]:
        """The same, for who waits for it."""
        future: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self._submit_appending(work, partial(resolve, future))
        return future

    def _projected(
        self,
        future: asyncio.Future[list[Verdict]],
        number: int | None,
        size: int,
        appended: list[Appended],
        error: StoreError | None,
    ) -> None:
        """On the loop, also when nobody waits for it any more: what is committed has to be known."""
        if error is None:
            if number is not None:
                self._inbox.projected(number)
                self._coming_bytes -= size
            self._take_in([one for one in appended if one.verdict is not Verdict.DUPLICATE])
        resolve(future, None if error is not None else [one.verdict for one in appended], error)

    # -- what was asked for -----------------------------------------------------------------------------------------------

    def compare(
        self, reading: Reading, compare: Compare, *, number: int = 0, dry_run: bool = False
    ) -> asyncio.Future[Found]:
        """See `StoreReadings.compare`."""
        future: asyncio.Future[Found] = asyncio.get_running_loop().create_future()
        if self.full:
            future.set_exception(StoreError(self._full_text()))
            return future
        comparing = readings.Comparing(reading, compare, number=number, now_ms=self._now_ms())
        work = partial(comparing.try_out if dry_run else comparing.take, self._appending())
        done = partial(self._compared, future, comparing)
        self._submit_appending(work, done, writes=not dry_run)
        return future

    def _compared(
        self,
        future: asyncio.Future[Found],
        comparing: readings.Comparing,
        found: Found | None,
        error: StoreError | None,
    ) -> None:
        if error is None:
            if comparing.told_bytes:
                self._grow(comparing.told_bytes)
            self._take_in([] if comparing.appended is None else [comparing.appended])
        resolve(future, found, error)

    async def asked_in_vain(self, asked_for: Scope, *, number: int, gone: bool = False) -> None:
        """See `StoreReadings.asked_in_vain`."""
        work = partial(
            readings.asked_in_vain, asked_for, number, self._now_ms(), self._appending(), gone=gone
        )
        await self._append_by(work)

    async def asked(self, app_id: str) -> list[Asked]:
        """See `StoreReadings.asked`."""
        found: list[Asked] = []
        after = 0
        while True:
            page = await self._writer.submit(partial(readings.asked, app_id, after), writes=False)
            found += [one for _, one in page]
            if len(page) < readings.PAGE:
                return found
            after = page[-1][0]

    async def in_doubt(self, app_id: str, *, limit: int) -> list[tuple[str, str]]:
        """See `StoreReadings.in_doubt`."""
        work = partial(readings.in_doubt, app_id, limit)
        return await self._writer.submit(work, writes=False)

    async def last_pass(self, app_id: str) -> Pass | None:
        """See `StoreReadings.last_pass`."""
        work = partial(readings.last_pass, app_id)
        return await self._writer.submit(work, writes=False)

    async def begin_pass(self, app_id: str) -> Pass:
        """See `StoreReadings.begin_pass`."""
        work = partial(readings.begin_pass, app_id, self._now_ms())
        return await self._writer.submit(work, writes=True)

    async def end_pass(self, app_id: str) -> Pass | None:
        """See `StoreReadings.end_pass`."""
        work = partial(readings.end_pass, app_id, self._now_ms())
        return await self._writer.submit(work, writes=True)

    async def may_reconcile(self) -> bool:
        """See `StoreReadings.may_reconcile`: there is but one daemon."""
        return True

    def _appending(self) -> Appending:
        return Appending(
            self._specs, self._scopes, self._complete, unbuilt=self._unbuilt, directory=self._directory
        )

    def _take_in(self, new: Sequence[Appended]) -> None:
        self._grow(sum(one.size + one.told_bytes for one in new), len(new))
        stored = [one for one in new if one.verdict is not Verdict.UNREADABLE]
        if not stored:
            return
        if len(self._scopes) > SCOPES_KNOWN:
            self._scopes.clear()
        for one in stored:
            if one.event.scope is not None:
                self._scopes[one.event.scope] = one.scope
        self._newest_seq = stored[-1].seq
        for sink, recent in self._recent.items():
            recent.add([one for one in stored if sink in one.takers], self._newest_seq)
        self.on_commit()
        if any(one.in_doubt for one in stored):
            self.on_doubt()

    def _grow(self, size: int, rows: int = 1) -> None:
        self._grown_bytes += round(size * ROW_FACTOR) + rows * ROW_BYTES
        if self.max_bytes is not None and self._grown_bytes > self.max_bytes // 100:
            self.grown.set()

    def _is_full(self, size: int) -> bool:
        coming = self._grown_bytes + self._coming_bytes + size
        return self.max_bytes is not None and self._size_bytes + coming > self.max_bytes

    def _full_text(self) -> str:
        return (
            f"the store {self.path} has reached store.max_size_mb, and nothing else in it may be dropped:"
            " fix the sink that does not deliver, drop dead letters, or raise the limit"
        )

    # -- deliveries out ---------------------------------------------------------------------------------------------------

    async def claim(
        self,
        sink: str,
        *,
        limit: int,
        per_scope: int,
        now_ms: int,
        after_seq: int | None,
        skipping: Collection[int],
        raw: bool = False,
    ) -> Claimed:
        """See `StoreQueue.claim`."""
        claim = claiming.Claim(
            sink=self._sinks[sink],
            limit=limit,
            per_scope=per_scope,
            now_ms=now_ms,
            raw=raw,
            skipping=skipping,
        )
        pauses = self._pauses.get(claim.sink, [])
        recent = self._recent.get(claim.sink)
        if recent is not None and (found := recent.claim(claim, after_seq, pauses)) is not None:
            return found
        return await self._claimed(sink, partial(claiming.newer, claim, after_seq), pauses)

    async def claim_scopes(
        self, sink: str, scopes: Sequence[int], *, limit: int, per_scope: int, now_ms: int, raw: bool = False
    ) -> Claimed:
        """See `StoreQueue.claim_scopes`."""
        claim = claiming.Claim(
            sink=self._sinks[sink], limit=limit, per_scope=per_scope, now_ms=now_ms, raw=raw
        )
        pauses = self._pauses.get(claim.sink, [])
        return await self._claimed(sink, partial(claiming.of_scopes, claim, scopes), pauses)

    async def _claimed(
        self, _sink: str, work: Callable[[claiming.Pauses, Any], Claimed], pauses: claiming.Pauses
    ) -> Claimed:
        return await self._writer.submit(partial(work, pauses), writes=False)

    def holds(self, _sink: str) -> int:
        """See `StoreQueue.holds`: there is but one daemon."""
        return 1

    async def settle(self, sink: str, outcomes: Sequence[Outcome]) -> None:
        """See `StoreQueue.settle`."""
        now, number = self._now_ms(), self._sinks[sink]
        if number in self._recent:
            self._recent[number].settled(outcome.seq for outcome in outcomes)
        delivered: dict[int, list[int]] = {}
        rows = []
        for outcome in outcomes:
            if outcome.state == DELIVERED:
                delivered.setdefault(outcome.attempts, []).append(outcome.seq)
            else:
                rows.append(_outcome_row(outcome, number, now))
        at_once = [(made, now, json.dumps(seqs), number) for made, seqs in delivered.items()]
        kept = attempts.rows(outcomes, number)
        await self._write_of(sink, partial(_settle, at_once, rows, kept))
        if kept:
            self._grow(len(kept) * ATTEMPT_BYTES)

    async def release(self, sink: str) -> None:
        """See `StoreQueue.release`."""
        await self._write_of(sink, partial(_execute, sql.RELEASE, (self._sinks[sink],)))

    async def _write_of(self, _sink: str, work: Callable[[Any], Any]) -> Any:
        """What only who works the sink may write; of a store with several daemons None when that is another."""
        return await self._writer.submit(work, writes=True)

    async def bring_forward(self, sink: str, *, latest_ms: int) -> None:
        """See `StoreQueue.bring_forward`."""
        values = {"sink": self._sinks[sink], "latest_ms": latest_ms}
        await self._write_of(sink, partial(_execute, sql.BRING_FORWARD, values))

    async def dead_letter_expired(self, sink: str, *, before_ms: int, error: str) -> int:
        """See `StoreQueue.dead_letter_expired`."""
        number = self._sinks[sink]
        self._forget_recent()
        dead_lettered = 0
        after_seq: int | None = None
        while True:
            work = partial(
                operations.dead_letter_expired,
                number,
                after_seq,
                before_ms,
                self._now_ms(),
                shortened(error),
                self._pauses.get(number, []),
            )
            count, after_seq = await self._write_of(sink, work) or (0, None)
            dead_lettered += int(count)
            if after_seq is None:
                return dead_lettered

    async def disable_sink(self, sink: str, reason: str) -> bool:
        """The sink gets nothing until it is enabled; what waits for it stays. Whether it was enabled before."""
        values = (self._now_ms(), shortened(reason), sink)
        return bool(await self._writer.submit(partial(_execute, sql.DISABLE_SINK, values), writes=True))

    async def enable_sink(self, sink: str) -> bool:
        """Undo `disable_sink`. The time between does not count for the age of what waited. Whether it was disabled."""
        changed, self._pauses = await self._writer.submit(
            partial(_enable_sink, sink, self._now_ms()), writes=True
        )
        return bool(changed)

    async def sinks(self) -> list[SinkState]:
        """All sinks that the store knows, with what is in it for them."""
        return await self._writer.submit(sink_states, writes=False)

    async def insight(self, app_id: str, *, gaps_since_ms: int) -> Insight:
        """What `status` shows of the store; gaps of this app that ended since."""
        work = partial(insight, app_id, gaps_since_ms)
        inbox_bytes = self._inbox.ask(used_bytes)
        found = await self._writer.submit(work, writes=False)
        return replace(found, size_bytes=(found.size_bytes or 0) + await inbox_bytes)

    async def operate(self, operation: str, filters: EventQuery) -> int:
        """`retry` or `drop` dead letters, or `replay` events, all that match; how many deliveries it concerned."""
        work = operations.Operation(
            name=operation, filters=filters, filters_by_sink=self._filters, now_ms=self._now_ms()
        )
        step = work.first()
        self._forget_recent()
        try:
            while not step.done:
                step = await self._writer.submit(partial(work.step, step), writes=True)
        finally:
            if step.count or not step.done:  # broken off, some of it may be committed all the same
                self.on_requeue()
        return step.count

    def _forget_recent(self) -> None:
        """Deliveries are changed beside the workers: what these find now has to be what is in the file."""
        for recent in self._recent.values():
            recent.forget()

    async def backlog(self) -> dict[str, int]:
        """Deliveries that are not settled yet, for each configured sink; counted up to `BACKLOG_COUNTED`."""
        rows = await self._writer.submit(partial(_all, sql.BACKLOG, (BACKLOG_COUNTED,)), writes=False)
        return dict(rows)

    async def prune(self, after_seq: int, before_ms: int, *, strip: bool) -> Pruned:
        """One chunk of retention; see `operations.prune`. Nothing as long as the history is not made of it."""
        if self._unbuilt:
            return Pruned(events=0, after_seq=None)
        pruned: Pruned = await self._writer.submit(
            lambda connection: operations.prune(after_seq, before_ms, strip=strip, connection=connection),
            writes=True,
        )
        return pruned

    async def prune_history(self, before_ms: int) -> tuple[int, bool]:
        """Drop a chunk of the history that was stored before that time: how many events', and whether that was all."""
        dropped = int(await self._writer.submit(partial(history.drop, before_ms), writes=True))
        return dropped, dropped < history.CHUNK_ROWS

    # -- apps -------------------------------------------------------------------------------------------------------------

    async def last_connected_ms(self, app_id: str) -> int | None:
        """When this app was last seen connected with this store; None: never."""
        row = await self._writer.submit(partial(_one, sql.APP_LAST_CONNECTED, (app_id,)), writes=False)
        return None if row is None else int(row[0])

    async def know_app(
        self, app_id: str, *, gap_since_ms: int | None = None, longer_than_ms: int = 0
    ) -> int | None:
        """Remember that this app is connected now. A gap that is longer than that is recorded, and its length returned."""
        now = self._now_ms()
        gap_ms = self._ages.age_ms(gap_since_ms) if gap_since_ms is not None else 0
        if gap_ms > longer_than_ms > 0:
            gap = (app_id, gap_since_ms, now)
            await self._writer.submit(partial(_execute, sql.RECORD_GAP, gap), writes=True)
        await self._writer.submit(partial(_execute, sql.KNOW_APP, (app_id, now)), writes=True)
        return gap_ms if gap_ms > longer_than_ms > 0 else None

    # -- names ------------------------------------------------------------------------------------------------------------

    async def keep_places(self, places: Sequence[KnownPlace]) -> None:
        """What the API told of rooms and levels, each as of its `seen_ms`: what is known as of later stays. Idempotent."""
        await self._take_places(partial(naming.keep, places, self._now_ms()))

    async def mark_unseen(self, places: Sequence[KnownPlace]) -> int:
        """They were not among all that there are: gone, unless something was heard of them meanwhile. How many are."""
        return await self._take_places(partial(naming.mark_unseen, places, self._now_ms()))

    async def mark_gone(self, scope_type: str, scope_id: str) -> None:
        """There is no such room or level any more, whether or not its name is known. Idempotent."""
        await self._take_places(partial(naming.mark_gone, scope_type, scope_id, self._now_ms()))

    async def mark_there(self, scope_type: str, scope_id: str, *, as_of_ms: int) -> None:
        """See `StoreNames.mark_there`."""
        await self._take_places(partial(naming.mark_there, scope_type, scope_id, as_of_ms, self._now_ms()))

    async def _take_places(self, work: Callable[[sqlite3.Connection], list[KnownPlace]]) -> int:
        """Write, and know it; how many of them are gone."""

        def write(connection: sqlite3.Connection) -> list[KnownPlace]:
            places = work(connection)
            self._directory.take(places)
            return places

        places: list[KnownPlace] = await self._append_by(write)
        self._grow(sum(len(one.name or "") for one in places), len(places))
        return sum(one.gone_ms is not None for one in places)

    async def keep_people(self, names: Mapping[str, str]) -> None:
        """What the API told of people, by open_id. Idempotent."""
        await self._writer.submit(partial(naming.keep_people, names, self._now_ms()), writes=True)
        self._directory.take_people(names)
        self._grow(sum(map(len, names.values())), len(names))

    async def forget_people(self) -> None:
        """Nobody's name is kept any more. Idempotent."""
        self._directory.forget_people()
        await self._writer.submit(partial(_execute, naming.FORGET_PEOPLE, ()), writes=True)

    async def configs_after(self, scope: int, *, limit: int) -> list[tuple[int, str]]:
        """What is known of the scopes after this number, as JSON; each with its number."""
        rows: list[tuple[int, str]] = await self._writer.submit(
            partial(_all, naming.CONFIGS_AFTER, (scope, limit)), writes=False
        )
        return rows

    async def last_look(self, app_id: str, what: str) -> int | None:
        """When all names of this kind (`places`, `people`) were last asked for to the end; None: never."""
        at_ms: int | None = await self._writer.submit(partial(naming.last_look, app_id, what), writes=False)
        return at_ms

    async def looked(self, app_id: str, what: str, at_ms: int) -> None:
        """Remember that they were."""
        await self._writer.submit(partial(_execute, naming.KEEP_LOOK, (app_id, what, at_ms)), writes=True)

    # -- alerts -----------------------------------------------------------------------------------------------------------

    async def remembered_alerts(self) -> bytes | None:
        """What `remember_alerts` was given last, in this life or an earlier one. Raises `StoreError`."""
        content: bytes | None = await self._in_slots(self._alerts.read)
        return content

    async def remember_alerts(self, content: bytes) -> None:
        """Keep this for the next life; also while nothing else can be written. Raises `StoreError`."""
        await self._in_slots(partial(self._alerts.write, content))

    async def _in_slots(self, work: Callable[[], Any]) -> Any:
        try:
            return await asyncio.to_thread(work)
        except OSError as error:
            raise StoreError(f"{alerts_path(self.path)} failed: {error.strerror or error}") from error

    # -- the clock --------------------------------------------------------------------------------------------------------

    def _clock_was_set(self, moved_ms: int) -> None:
        log.warning(
            "clock.set",
            moved_s=moved_ms // 1000,
            hint="ages ignore the jump, and nothing waits longer because of it",
        )
        self.on_requeue()  # the workers see to their due times
        earlier = self._setting_right
        self._setting_right = asyncio.create_task(self._set_right_after(earlier), name="clock")

    async def _set_right_after(self, earlier: asyncio.Task[None] | None) -> None:
        if earlier is not None:
            await asyncio.wait([earlier])
        with contextlib.suppress(StoreError):  # done at the next start; this life knows of the jump
            await self._set_right()

    async def _set_right(self) -> None:
        """Keep what the clock jumped over, and let nothing be from the future."""
        await self._writer.submit(partial(_keep_jumps, self._ages.jumps), writes=True)
        work = partial(operations.receive_now, self._now_ms())
        before_seq = await self._writer.submit(partial(work, None), writes=True)
        while before_seq is not None:
            before_seq = await self._writer.submit(partial(work, before_seq), writes=True)


# -- work for the writer's thread -------------------------------------------------------------------------------------------


def _size(events: Iterable[IncomingEvent]) -> int:
    return sum(len(event.raw) + len(event.body or b"") for event in events)


def _where(connection: sqlite3.Connection) -> tuple[int, Position]:
    """The newest event that there ever was, and how far the inbox is projected."""
    newest = connection.execute(sql.NEWEST_EVER).fetchone() or (0,)
    return int(newest[0]), Position(*connection.execute(sql.INBOX_POSITION).fetchone())


def _know_sinks(
    names: list[str], connection: sqlite3.Connection
) -> tuple[dict[str, int], Mapping[int, claiming.Pauses]]:
    connection.execute(sql.FORGET_SINKS, (json.dumps(names),))
    numbers = {name: int(connection.execute(sql.KNOW_SINK, (name,)).fetchone()[0]) for name in names}
    return numbers, claiming.pauses_by_sink(connection.execute(sql.PAUSES))


def _keep_jumps(jumps: Sequence[tuple[int, int]], connection: sqlite3.Connection) -> None:
    connection.execute(sql.FORGET_JUMPS)
    connection.executemany(sql.ADD_JUMP, jumps)


def _enable_sink(
    sink: str, now_ms: int, connection: sqlite3.Connection
) -> tuple[int, Mapping[int, claiming.Pauses]]:
    connection.execute(sql.ADD_PAUSE, (now_ms, sink))
    changed = connection.execute(sql.ENABLE_SINK, (sink,)).rowcount
    return changed, claiming.pauses_by_sink(connection.execute(sql.PAUSES))


def _outcome_row(outcome: Outcome, sink: int, now_ms: int) -> tuple[object, ...]:
    settled_ms = None if outcome.state == PENDING else now_ms
    error = None if outcome.error is None else shortened(outcome.error)
    return (STATES[outcome.state], outcome.attempts, outcome.due_ms, settled_ms, error, outcome.seq, sink)


def shortened(error: str) -> str:
    """An error as the store keeps it. A lone surrogate (a path that is not UTF-8) is no text to SQLite."""
    return error[:LAST_ERROR_CHARS].encode("utf-8", "backslashreplace").decode()


def _touch(app_id: str, connection: sqlite3.Connection) -> None:
    # Without a long connection no app is known.
    connection.execute(sql.TOUCH_APP, (app_id,))
    connection.execute(sql.TOUCH_SINK)


def _execute(
    statement: str, values: tuple[object, ...] | Mapping[str, object], connection: sqlite3.Connection
) -> int:
    return connection.execute(statement, values).rowcount


def _settle(
    delivered: Sequence[tuple[object, ...]],
    others: Sequence[tuple[object, ...]],
    kept: Sequence[dict[str, object]],
    connection: sqlite3.Connection,
) -> None:
    connection.executemany(sql.SETTLE_DELIVERED, delivered)
    connection.executemany(sql.SETTLE, others)
    attempts.keep(kept, connection)


def _one(statement: str, values: tuple[object, ...], connection: sqlite3.Connection) -> Any:
    return connection.execute(statement, values).fetchone()


def _all(statement: str, values: tuple[object, ...], connection: sqlite3.Connection) -> list[Any]:
    return connection.execute(statement, values).fetchall()
