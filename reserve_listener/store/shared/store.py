"""The store on any database: events, deliveries, rooms and limits, and how to ask for them.

How events come in, how writes become durable, and who else may write is up to each database: the abstract methods.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
from abc import ABC, abstractmethod
from functools import partial
from typing import TYPE_CHECKING, Any, Final, TypeVar

import structlog

from reserve_listener import clock
from reserve_listener.ages import Ages
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
from reserve_listener.store.shared import (
    attempts,
    claiming,
    history,
    naming,
    operations,
    readings,
    rebuilding,
    sql,
)
from reserve_listener.store.shared.insight import STATES, sink_states
from reserve_listener.store.shared.led import RECONCILE, RETENTION
from reserve_listener.store.shared.writer import resolve

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Callable, Collection, Mapping, Sequence

    from reserve_listener.model import (
        Asked,
        Completed,
        EventQuery,
        Found,
        IncomingEvent,
        Known,
        KnownPlace,
        Pass,
        Reading,
        Request,
        Scope,
        SinkState,
    )
    from reserve_listener.protocols import Compare, Complete, store as protocols
    from reserve_listener.store.shared.appending import Appended, Appending, SinkFilters
    from reserve_listener.store.shared.writer import Writer

log = structlog.get_logger("store")

T = TypeVar("T")

SCOPES_KNOWN: Final = 20_000
"""How many numbers of rooms and levels are kept in memory: all of a large organisation, in some 4 MiB."""

ATTEMPT_BYTES: Final = 200
"""The largest size of an attempt that is kept."""

LAST_ERROR_CHARS: Final = 500
BACKLOG_COUNTED: Final = 10_000

ROW_FACTOR: Final = 1.2
ROW_BYTES: Final = 200
"""What an event takes in the file, with its deliveries and indexes: this factor of its bytes, plus this many."""

REBUILD_RETRY_S: Final = 1.0
"""How long to leave a store alone that failed."""


def as_it_is(_event: IncomingEvent, _previous: Known | None) -> Completed | None:
    """Leaves the body as it is, without saying what changed: see `protocols.Complete`."""
    return None


class SqlStore(ABC):
    """See `protocols.store.Store`.

    `on_commit` is called on the loop after each commit that added deliveries, `on_requeue` if settled or held-back deliveries
    are pending again.

    `max_bytes`: the size at which pushes are refused; `Retention` keeps the store below it if it can. `directory`: receives
    all names that the store learns.
    """

    def __init__(
        self,
        name: str,
        *,
        max_bytes: int | None = None,
        now_ms: Callable[[], int] | None = None,
        ages: Ages | None = None,
        complete: Complete = as_it_is,
        directory: protocols.Directory | None = None,
    ) -> None:
        self.name = name
        self.max_bytes = max_bytes
        self.connection: Callable[[], str] = lambda: ""
        self.told: Callable[[], bytes | None] = lambda: None
        self.on_commit: Callable[[], None] = lambda: None
        self.on_requeue: Callable[[], None] = lambda: None
        self.on_disabled: Callable[[Collection[str]], None] = lambda _names: None
        self.on_request: Callable[[Request], None] | None = None
        self.on_doubt: Callable[[], None] = lambda: None
        self.grown = asyncio.Event()
        """Set once the store has grown enough for its size to be looked at."""
        self.now_ms = now_ms or clock.now_ms
        self.ages = ages or (Ages() if now_ms is None else Ages(now_ms, now_ms))
        self._now_ms = self.ages.now_ms
        self._setting_right: asyncio.Task[None] | None = None
        self._rebuilding: asyncio.Task[None] | None = None
        self._unbuilt = False
        """Whether the history still lacks events of an older version."""
        self._sinks: dict[str, int] = {}
        self._filters: Mapping[str, tuple[int, SinkFilter]] = {}
        self._specs: SinkFilters = ()
        self._pauses: Mapping[int, claiming.Pauses] = {}
        self._complete = complete
        self._directory = directory or Directory()
        self._scopes: dict[Scope, int] = {}
        self._coming_bytes = 0
        """The size of what has been received but is not part of the store's size yet."""
        self._size_bytes = 0
        self._grown_bytes = 0
        self._writer: Writer

    async def dead_letter_removed(self) -> None:
        """Make dead letters of what sinks did not get that are no longer configured. Their workers have ended."""
        while not await self._writer.submit(
            partial(operations.dead_letter_removed, self._now_ms()), writes=True
        ):
            pass

    # -- the history of an older store ------------------------------------------------------------------------------------

    async def _rebuild(self) -> None:
        """Rebuild in the background, chunk by chunk. If interrupted, the next start continues."""
        log.info(
            "store.rebuilding",
            hint="the history of the older store's events; pushes are accepted meanwhile",
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
    def full(self) -> bool:
        """Whether the size bound is reached."""
        return self._is_full(0)

    @property
    def size_bytes(self) -> int:
        """The bytes that both files take: as last measured, plus what has been added since."""
        return self._size_bytes + self._grown_bytes + self._coming_bytes

    # -- events in --------------------------------------------------------------------------------------------------------

    def _append_by(self, work: Callable[[Any], Any]) -> asyncio.Future[Any]:
        """The same, as a future to wait for."""
        future: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self._submit_appending(work, partial(resolve, future))
        return future

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
        appending = self._appending()
        work = (
            partial(comparing.try_out, appending)
            if dry_run
            else self._led(RECONCILE, partial(comparing.take, appending))
        )
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
        await self._append_by(self._led(RECONCILE, work))

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
        return await self._writer.submit(self._led(RECONCILE, work), writes=True)

    async def end_pass(self, app_id: str) -> Pass | None:
        """See `StoreReadings.end_pass`."""
        work = partial(readings.end_pass, app_id, self._now_ms())
        return await self._writer.submit(self._led(RECONCILE, work), writes=True)

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
        self._keep_recent(stored)
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
            f"the store {self.name} has reached store.max_size_mb, and nothing else in it may be dropped:"
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
        if (found := self._recent_claim(claim, after_seq, pauses)) is not None:
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

    async def settle(self, sink: str, outcomes: Sequence[Outcome]) -> None:
        """See `StoreQueue.settle`."""
        now, number = self._now_ms(), self._sinks[sink]
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

    async def disable_gone(self, sink: str, reason: str) -> bool:
        """See `StoreQueue.disable_gone`."""
        return await self._write_of(sink, self._disabling(sink, reason)) is not None

    async def disable_sink(self, sink: str, reason: str) -> bool:
        """Disable the sink: it gets nothing until it is enabled, and its deliveries wait. Returns whether it was enabled before."""
        return bool(await self._writer.submit(self._disabling(sink, reason), writes=True))

    def _disabling(self, sink: str, reason: str) -> Callable[[Any], int]:
        return partial(_execute, sql.DISABLE_SINK, (self._now_ms(), shortened(reason), sink))

    async def enable_sink(self, sink: str) -> bool:
        """Undo `disable_sink`; deliveries have not aged meanwhile. Returns whether it was disabled."""
        changed, self._pauses = await self._writer.submit(
            partial(_enable_sink, sink, self._now_ms()), writes=True
        )
        return bool(changed)

    async def sinks(self) -> list[SinkState]:
        """All sinks that the store knows, and what it has for each."""
        return await self._writer.submit(sink_states, writes=False)

    async def operate(self, operation: str, filters: EventQuery) -> int:
        """`retry` or `drop` all matching dead letters, or `replay` all matching events. Returns the number of deliveries."""
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

    async def disabled(self) -> set[str]:
        """See `StoreAdmin.disabled`."""
        return {sink.name for sink in await self.sinks() if sink.disabled_ms is not None}

    async def backlog(self) -> dict[str, int]:
        """The number of unsettled deliveries for each configured sink, counted up to `BACKLOG_COUNTED`."""
        rows = await self._writer.submit(partial(_all, sql.BACKLOG, (BACKLOG_COUNTED,)), writes=False)
        return dict(rows)

    async def prune(self, after_seq: int, before_ms: int, *, strip: bool) -> Pruned:
        """One chunk of retention; see `operations.prune`. Does nothing until the history has been rebuilt."""
        if self._unbuilt:
            return Pruned(events=0, after_seq=None)

        def work(connection: Any) -> Pruned:
            return operations.prune(after_seq, before_ms, strip=strip, connection=connection)

        pruned: Pruned = await self._writer.submit(self._led(RETENTION, work), writes=True)
        return pruned

    async def prune_history(self, before_ms: int) -> tuple[int, bool]:
        """Drop a chunk of the history stored before that time. Returns how many entries, and whether that was all."""
        work = self._led(RETENTION, partial(history.drop, before_ms))
        dropped = int(await self._writer.submit(work, writes=True))
        return dropped, dropped < history.CHUNK_ROWS

    async def forget(self, before_ms: int, *, history_before_ms: int | None) -> bool:
        """See `StoreUpkeep.forget`."""
        work = self._led(RETENTION, partial(operations.forget, before_ms, history_before_ms))
        return bool(await self._writer.submit(work, writes=True))

    # -- apps -------------------------------------------------------------------------------------------------------------

    async def last_connected_ms(self, app_id: str) -> int | None:
        """When this app was last seen connected with this store; None: never."""
        row = await self._writer.submit(partial(_one, sql.APP_LAST_CONNECTED, (app_id,)), writes=False)
        return None if row is None else int(row[0])

    async def know_app(
        self, app_id: str, *, gap_since_ms: int | None = None, longer_than_ms: int = 0
    ) -> int | None:
        """Remember that this app is connected now. A longer gap than `longer_than_ms` is recorded, and its length returned."""
        now = self._now_ms()
        gap_ms = self.ages.age_ms(gap_since_ms) if gap_since_ms is not None else 0
        if gap_ms > longer_than_ms > 0:
            gap = (app_id, gap_since_ms, now)
            await self._writer.submit(partial(_execute, sql.RECORD_GAP, gap), writes=True)
        await self._writer.submit(partial(_execute, sql.KNOW_APP, (app_id, now)), writes=True)
        return gap_ms if gap_ms > longer_than_ms > 0 else None

    # -- names ------------------------------------------------------------------------------------------------------------

    async def keep_places(self, places: Sequence[KnownPlace]) -> None:
        """Store what the API said of these places, each as of its `seen_ms`; later knowledge stays. Idempotent."""
        await self._take_places(partial(naming.keep, places, self._now_ms()))

    async def mark_unseen(self, places: Sequence[KnownPlace]) -> int:
        """Mark places as gone that a survey did not find, unless something has been heard of them since. Returns how many are gone."""
        return await self._take_places(partial(naming.mark_unseen, places, self._now_ms()))

    async def mark_gone(self, scope_type: str, scope_id: str) -> None:
        """Mark the room or level as gone, whether or not its name is known. Idempotent."""
        await self._take_places(partial(naming.mark_gone, scope_type, scope_id, self._now_ms()))

    async def mark_there(self, scope_type: str, scope_id: str, *, as_of_ms: int) -> None:
        """See `StoreNames.mark_there`."""
        await self._take_places(partial(naming.mark_there, scope_type, scope_id, as_of_ms, self._now_ms()))

    async def _take_places(self, work: Callable[[sqlite3.Connection], list[KnownPlace]]) -> int:
        """Write places and tell the directory. Returns how many of them are gone."""

        def write(connection: sqlite3.Connection) -> list[KnownPlace]:
            places = work(connection)
            self._directory.take(places)
            return places

        places: list[KnownPlace] = await self._append_by(write)
        self._grow(sum(len(one.name or "") for one in places), len(places))
        return sum(one.gone_ms is not None for one in places)

    async def keep_people(self, names: Mapping[str, str]) -> None:
        """Store what the API said of people, by open_id. Idempotent."""
        await self._writer.submit(partial(naming.keep_people, names, self._now_ms()), writes=True)
        self._directory.take_people(names)
        self._grow(sum(map(len, names.values())), len(names))

    async def forget_people(self) -> None:
        """Forget all people's names. Idempotent."""
        self._directory.forget_people()
        await self._writer.submit(partial(_execute, naming.FORGET_PEOPLE, ()), writes=True)

    async def configs_after(self, scope: int, *, limit: int) -> list[tuple[int, str]]:
        """The states of the scopes after this number as JSON, each with its number."""
        rows: list[tuple[int, str]] = await self._writer.submit(
            partial(_all, naming.CONFIGS_AFTER, (scope, limit)), writes=False
        )
        return rows

    async def last_look(self, app_id: str, what: str) -> int | None:
        """When all names of this kind (`places`, `people`) were last read to the end; None: never."""
        at_ms: int | None = await self._writer.submit(partial(naming.last_look, app_id, what), writes=False)
        return at_ms

    async def looked(self, app_id: str, what: str, at_ms: int) -> None:
        """Remember when that was."""
        await self._writer.submit(partial(_execute, naming.KEEP_LOOK, (app_id, what, at_ms)), writes=True)

    # -- each database's own ----------------------------------------------------------------------------------------------

    @abstractmethod
    def _submit_appending(
        self,
        work: Callable[[Any], Any],
        done: Callable[[Any, StoreError | None], None],
        *,
        writes: bool = True,
    ) -> None:
        """Submit work that appends, compares with what is known, or changes the directory."""

    @abstractmethod
    def _appending(self) -> Appending:
        """What inserts events, with the settings as they are now."""

    @abstractmethod
    async def _claimed(
        self, sink: str, work: Callable[[claiming.Pauses, Any], Claimed], pauses: claiming.Pauses
    ) -> Claimed:
        """Do the work of a claim, if this daemon works the sink."""

    @abstractmethod
    async def _write_of(self, sink: str, work: Callable[[Any], Any]) -> Any:
        """Write what only the daemon that works the sink may write; None if that is another one."""

    @abstractmethod
    def _led(self, what: str, work: Callable[[Any], T]) -> Callable[[Any], T]:
        """Wrap work for the daemon that leads in this: on any other, it writes nothing and raises `LeaseLostError`."""

    def _keep_recent(self, _stored: Sequence[Appended]) -> None:
        """These have just been stored: keep in memory what need not be read back."""
        return

    def _recent_claim(
        self, _claim: claiming.Claim, _after_seq: int | None, _pauses: claiming.Pauses
    ) -> Claimed | None:
        """A claim answered from memory; None if the database has to be asked."""
        return None

    def _forget_recent(self) -> None:
        """Deliveries are being changed by others than their workers: answer the next claims from the database."""
        return

    # -- the clock --------------------------------------------------------------------------------------------------------

    async def _watch_clock(self) -> None:
        """Recall earlier jumps of the clock, and react to new ones."""
        self.ages.remember(await self._writer.submit(_jumps, writes=False))
        loop = asyncio.get_running_loop()
        self.ages.on_jump = lambda moved_ms: loop.call_soon(self._clock_was_set, moved_ms)
        await self._set_right()

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
        """Store the jumps of the clock, and see that no event is from the future."""
        await self._writer.submit(partial(_keep_jumps, self.ages.jumps), writes=True)
        work = partial(operations.receive_now, self._now_ms())
        before_seq = await self._writer.submit(partial(work, None), writes=True)
        while before_seq is not None:
            before_seq = await self._writer.submit(partial(work, before_seq), writes=True)


# -- work for the writer's thread -------------------------------------------------------------------------------------------


def _jumps(connection: sqlite3.Connection) -> list[tuple[int, int]]:
    return connection.execute(sql.JUMPS).fetchall()


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
    """The error as it is stored: cut, and without lone surrogates (from paths that are not UTF-8), which SQLite refuses."""
    return error[:LAST_ERROR_CHARS].encode("utf-8", "backslashreplace").decode()


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
