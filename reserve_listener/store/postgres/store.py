"""The store on PostgreSQL: what `SqlStore` does, with what differs where several replicas share it.

What must stay true: a push is answered after the commit that has its event, its comparison and its deliveries, so there is
no inbox and nothing to project later, and a replica that dies leaves nothing that another has to take in. Deliveries are
claimed and settled, and old events dropped, only under the lease for that.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import OrderedDict
from functools import partial
from typing import TYPE_CHECKING, Any, Final, TypeVar

import structlog

from reserve_listener.ages import Ages
from reserve_listener.errors import LeaseLostError, StoreError
from reserve_listener.model import Claimed, Pruned, SinkFilter, Verdict
from reserve_listener.store.postgres import appending, listening, looking, requests
from reserve_listener.store.postgres.connection import OutdatedError
from reserve_listener.store.postgres.database_clock import DatabaseClock
from reserve_listener.store.postgres.leases import BEAT_S, SINK, Membership
from reserve_listener.store.postgres.medium import FIRST_PAUSE_S, LONGEST_PAUSE_S, Database, is_away
from reserve_listener.store.shared import naming, rebuilding, sql
from reserve_listener.store.shared.batches import batches_after
from reserve_listener.store.shared.led import ALERTS, RECONCILE, RETENTION
from reserve_listener.store.shared.store import SqlStore
from reserve_listener.store.shared.writer import Writer, each, first_end, resolve

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
    from typing import Unpack

    from reserve_listener.model import EventQuery, IncomingEvent, Insight
    from reserve_listener.protocols.backend import StoreOptions
    from reserve_listener.store.postgres.connection import Connection
    from reserve_listener.store.postgres.schema import Target
    from reserve_listener.store.shared import claiming
    from reserve_listener.store.shared.appending import Appended
    from reserve_listener.store.shared.batches import Batch

log = structlog.get_logger("store")

T = TypeVar("T")

BATCHES_REMEMBERED: Final = 4_096
"""Batches whose verdicts nobody has asked for yet: intake asks for each soon after it is answered."""

SOON_S: Final = 5.0
"""For what the daemon's heartbeat asks: the watchdog (30 s) must not take a database that is slow for a daemon that hangs."""

CLOSE_TIMEOUT_S: Final = 5.0
"""For giving back what is held, and for all that is under way; a database that is away gives it back itself when the leases run
out."""


class PostgresStore(SqlStore):
    """See `protocols.store.Store`. `max_bytes` is SQLite's: how much room there is, is the server's business."""

    def __init__(self, target: Target, **options: Unpack[StoreOptions]) -> None:
        self._clock = DatabaseClock()
        if not options.keys() & {"now_ms", "ages"}:
            options |= {"now_ms": self._clock.now_ms, "ages": Ages(self._clock.now_ms)}
        super().__init__(target.name, **(options | {"max_bytes": None}))
        self.member = Membership()
        self._target = target
        self._number = 0
        self._left = 0
        self._verdicts: OrderedDict[int, list[Verdict]] = OrderedDict()
        self._databases: list[Database] = []
        self._receiver: Writer
        self._keeper: Writer
        self._listening: listening.Listening | None = None
        self._beating: asyncio.Task[None] | None = None
        self._forgetting: asyncio.Task[None] | None = None
        self._beat_now = asyncio.Event()
        self._pings: Sequence[asyncio.Future[None]] = ()
        self._seen = looking.Seen()
        self._was_lost = False
        """Whether a connection was, and is there again: to a standby perhaps, which knows less of what was delivered."""
        self._closed = False
        self._asked: int | None = None
        """The last request before this replica lived: it is not meant for it."""
        self._obeyed: set[int] = set()
        self._outdated: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._terms: tuple[object, ...] = ()
        self._appender: appending.SharedAppending

    async def open(
        self, sinks: Sequence[str], filters_by_sink: Mapping[str, SinkFilter] | None = None
    ) -> None:
        """Connect, migrate, and make `sinks` the ones that get deliveries; a server that is away is waited for.

        Raises `StoreError` for what waiting does not mend.
        """
        # First: it ends what a dead replica holds up, which the start would wait for, too.
        self._listening = listening.Listening(self._target, self.member.id, self._heard)
        self._listening.start()
        try:
            await self._waited_for(partial(self._begin, sinks, filters_by_sink))
        except BaseException:
            await self.close()
            raise
        self._beating = asyncio.create_task(self._beat(), name="store-beat")
        if self._unbuilt:
            self._rebuilding = asyncio.create_task(self._rebuild(), name="rebuilding")

    async def _waited_for(self, ask: Callable[[], Awaitable[T]]) -> T:
        """What the server says, once it is there. Raises `StoreError` for what waiting does not mend."""
        pause_s = FIRST_PAUSE_S
        while True:
            try:
                return await ask()
            except StoreError as error:
                if not is_away(error):
                    raise
                log.error("store.unreachable", error=str(error), delay_s=pause_s)
            await asyncio.sleep(pause_s)
            pause_s = min(2 * pause_s, LONGEST_PAUSE_S)

    async def _begin(self, sinks: Sequence[str], filters_by_sink: Mapping[str, SinkFilter] | None) -> None:
        self._databases = [Database(self._target, reopened=self._reopened) for _ in range(3)]
        self._writer, self._receiver, self._keeper = (
            Writer(database, name=name)
            for database, name in zip(
                self._databases, ("store-writer", "store-receiver", "store-keeper"), strict=True
            )
        )
        try:
            for writer in self._writers:
                await writer.open()
            await self._go_by_the_database()
            await self._watch_clock()
            self._unbuilt = await self._writer.submit(rebuilding.is_left, writes=False)
            await self.set_sinks(sinks, filters_by_sink)
            await self.dead_letter_removed()
            await self.measure()
        except BaseException:
            for writer in self._writers:
                await writer.close()
            raise

    def _reopened(self, connection: Connection) -> None:
        """In the thread. A standby that was promoted may lack a sink that was new, and give known numbers to other rooms."""
        numbers = {name: number for name, (number, _) in self._filters.items()}
        with connection.transaction():
            looking.restore_sinks(numbers, connection)
        self._scopes.clear()
        self._was_lost = True

    @property
    def _writers(self) -> tuple[Writer, ...]:
        """The first two are what pushes and deliveries wait for."""
        return self._receiver, self._writer, self._keeper

    async def _go_by_the_database(self) -> None:
        await self._keeper.submit(self._clock.look, writes=False)
        if self.now_ms == self._clock.now_ms:
            self.ages.start_over()

    async def set_sinks(
        self, names: Sequence[str], filters_by_sink: Mapping[str, SinkFilter] | None = None
    ) -> None:
        """See `StoreAdmin.set_sinks`. What only another replica has stays."""
        await self._know_sinks({name: (filters_by_sink or {}).get(name, SinkFilter()) for name in names})
        try:
            await self._look_after()
        except StoreError as error:
            if self._beating is None:
                raise  # the start begins anew
            # Events are stored for these sinks from now on, so they are in force; the next beat gets their leases.
            log.warning("store.no_beat", error=str(error))

    async def _know_sinks(self, filters_by_sink: Mapping[str, SinkFilter], *, anew: bool = False) -> None:
        before = self._filters
        work = partial(looking.know_sinks, self.member, tuple(filters_by_sink))
        numbers, pauses = await self._writer.submit(work, writes=True)
        if anew and self._filters is not before:
            return  # a reload has come in between
        self._pauses = pauses
        self._filters = {name: (numbers[name], sink_filter) for name, sink_filter in filters_by_sink.items()}
        self._specs = tuple(self._filters.values())
        self._sinks |= numbers

    async def close(self) -> None:
        """See `Store.close`. What this replica holds is another's at once."""
        closed, self._closed = self._closed, True
        for database in self._databases:
            database.end_within(CLOSE_TIMEOUT_S)
        if self._listening is not None:
            self._listening.stop()
        for task in (self._beating, self._forgetting, self._setting_right, self._rebuilding):
            if task is not None:
                task.cancel()
                await asyncio.wait([task])
        self.member.lose()
        if not closed and self._beating is not None:
            with contextlib.suppress(StoreError, TimeoutError):
                async with asyncio.timeout(CLOSE_TIMEOUT_S):
                    await self._keeper.submit(self._leave, writes=True)
        for writer in self._writers:
            await writer.close()

    def _leave(self, connection: Connection) -> None:
        self.member.leave(connection)
        listening.tell(self.member.id, listening.OTHERS, connection)

    async def ended(self) -> None:
        """See `Store.ended`."""
        await first_end(*(writer.end for writer in self._writers), self._outdated)

    # -- the other replicas -----------------------------------------------------------------------------------------------

    def holds(self, sink: str) -> int:
        """See `StoreQueue.holds`."""
        return self.member.fence(f"{SINK}{sink}")

    def leads(self, what: str) -> bool:
        """Whether this replica is the one that does this."""
        return bool(self.member.fence(what))

    async def may_reconcile(self) -> bool:
        """See `StoreReadings.may_reconcile`."""
        return self.leads(RECONCILE)

    async def _beat(self) -> None:
        """Say again and again that this replica lives; what it holds, and what others did, is known by that."""
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(BEAT_S):
                    await self._beat_now.wait()
            self._beat_now.clear()
            try:
                await self._look_after()
            except OutdatedError as error:
                resolve(self._outdated, None, error)
                self._outdated.exception()  # nobody may have asked
                return
            except StoreError as error:  # what is held runs out by itself
                log.warning("store.no_beat", error=str(error))
            self._keep_alive()

    def _keep_alive(self) -> None:
        """What is on the way closes connections on which nothing is said for long: not the next push is to find that out."""
        if all(ping.done() for ping in self._pings):
            self._pings = [writer.submit(looking.ping, writes=False) for writer in self._writers[:2]]
            for ping in self._pings:
                ping.add_done_callback(lambda done: done.cancelled() or done.exception())

    async def _look_after(self) -> None:
        if self._was_lost:  # somebody else may have given a sink that was lost another number
            known = {name: sink_filter for name, (_, sink_filter) in self._filters.items()}
            await self._know_sinks(known, anew=True)
        began_ms, before, compared = self.member.running_ms(), self._fences(), self.leads(RECONCILE)
        self.member.connection, self.member.told = self.connection(), self.told()
        sinks = tuple(self._filters)
        work = partial(looking.look, self.member, self._clock, sinks)
        held, seen = await self._keeper.submit(work, writes=True)
        await self._look_for_requests()
        last, self._seen = self._seen, seen
        if not self._closed:
            self.member.took(held, began_ms, sinks)
        if (seen.places, seen.people) != (last.places, last.people):
            await self._receiver.submit(self._learn, writes=False)
        if seen.disabled != last.disabled:
            self.on_disabled(seen.disabled or ())
        if self.leads(RECONCILE) and set(seen.doubts or ()) - set((compared and last.doubts) or ()):
            self.on_doubt()  # heard by another replica, which does not compare
        self._forget_removed()
        anew = seen.disabled, seen.enabled_ms, seen.reopenings
        was_lost, self._was_lost = self._was_lost, False
        if was_lost or before != self._fences() or anew != (last.disabled, last.enabled_ms, last.reopenings):
            self.on_requeue()
        elif seen.newest != last.newest:
            self.on_commit()

    def tell(self) -> None:
        """See `Store.tell`."""
        self._beat_now.set()

    def _forget_removed(self) -> None:
        """Of all replicas one does, again and again: the last that had a sink may have gone without a word."""
        if self.leads(RETENTION) and (self._forgetting is None or self._forgetting.done()):
            self._forgetting = asyncio.create_task(self._dead_letter_forgotten(), name="removed-sinks")

    async def _dead_letter_forgotten(self) -> None:
        with contextlib.suppress(StoreError):  # the next beat tries it again, and says what is wrong
            work = partial(looking.forget_removed, self.member, tuple(self._filters))
            if await self._keeper.submit(work, writes=True):
                await self.dead_letter_removed()

    async def _look_for_requests(self) -> None:
        if self._asked is None:
            self._asked = await self._keeper.submit(requests.newest, writes=False)
        if self.on_request is None:
            return
        work = partial(requests.coming, self._asked, self.member.id)
        found = await self._keeper.submit(work, writes=False)
        for request in found:  # not by their numbers: a lower one may be committed later
            if request.id not in self._obeyed:
                self.on_request(request)
        self._obeyed = {request.id for request in found}

    async def answer(self, request: int, content: bytes) -> None:
        """See `StoreRequests.answer`."""
        await self._keeper.submit(partial(requests.answer, request, self.member.id, content), writes=True)

    def _learn(self, connection: Any) -> None:
        """In the thread that changes names, so that none is turned back."""
        self._directory.take(naming.all_places(connection))
        self._directory.take_people(naming.people(connection))

    def _fences(self) -> dict[str, int]:
        return {name: self.holds(name) for name in self._filters}

    def _heard(self, what: str) -> None:
        """Another replica has committed something."""
        if what == listening.EVENTS:
            self.on_commit()
        else:
            self._beat_now.set()

    # -- health -----------------------------------------------------------------------------------------------------------

    @property
    def problem(self) -> str | None:
        """See `StoreHealth.problem`."""
        return self._receiver.problem or self._writer.problem

    @property
    def failed_commits(self) -> int:
        """See `StoreHealth.failed_commits`."""
        return max(self._receiver.failed_commits, self._writer.failed_commits)

    @property
    def stuck_s(self) -> float:
        """See `StoreHealth.stuck_s`."""
        return max(writer.stuck_s for writer in self._writers)

    async def touch(self, app_id: str) -> None:
        """See `StorePresence.touch`."""
        del app_id
        async with _soon():
            for writer in self._writers[:2]:
                await writer.submit(looking.touch, writes=True)

    async def know_app(
        self, app_id: str, *, gap_since_ms: int | None = None, longer_than_ms: int = 0
    ) -> int | None:
        """See `StorePresence.know_app`."""
        async with _soon():
            return await super().know_app(app_id, gap_since_ms=gap_since_ms, longer_than_ms=longer_than_ms)

    async def disabled(self) -> set[str]:
        """See `StoreAdmin.disabled`. As of the last beat; `on_disabled` tells of what comes after it."""
        return set(self._seen.disabled or ())

    async def backlog(self) -> dict[str, int]:
        """See `StoreHealth.backlog`."""
        async with _soon():
            return await super().backlog()

    async def measure(self) -> int:
        """See `StoreUpkeep.measure`."""
        self._size_bytes = int(await self._writer.submit(looking.size_bytes, writes=False))
        self._grown_bytes = 0
        return self._size_bytes

    async def free_inbox(self) -> None:
        """See `StoreUpkeep.free_inbox`: there is none."""

    async def insight(self, app_id: str, *, gaps_since_ms: int) -> Insight:
        """See `StoreHealth.insight`."""
        work = partial(looking.insight, app_id, gaps_since_ms)
        found: Insight = await self._writer.submit(work, writes=False)
        return found

    # -- events in --------------------------------------------------------------------------------------------------------

    def receive(
        self, events: Sequence[IncomingEvent], done: Callable[[int, StoreError | None], None]
    ) -> None:
        """See `StoreIntake.receive`. What becomes durable is the event with its deliveries."""
        self._number += 1
        self._append(events, partial(self._stored, self._number, done))

    def _stored(
        self,
        number: int,
        done: Callable[[int, StoreError | None], None],
        appended: list[Appended],
        error: StoreError | None,
    ) -> None:
        if error is None:
            self._verdicts[number] = self._taken_in(appended)
            if len(self._verdicts) > BATCHES_REMEMBERED:
                self._verdicts.popitem(last=False)
        done(number, error)

    async def left(self) -> list[Batch]:
        """See `StoreIntake.left`: whatever was received is projected, but for what `store copy` has brought."""
        ask = partial(self._receiver.submit, partial(batches_after, 0), writes=False)
        left: list[Batch] = await self._waited_for(ask)
        self._left = self._number = max((batch.number for batch in left), default=0)
        return left

    def project(
        self, events: Sequence[IncomingEvent], *, number: int | None = None
    ) -> asyncio.Future[list[Verdict]]:
        """See `StoreIntake.project`. What was received has been."""
        future: asyncio.Future[list[Verdict]] = asyncio.get_running_loop().create_future()
        verdicts: list[Verdict] = []
        while number is not None and self._verdicts and next(iter(self._verdicts)) <= number:
            verdicts += self._verdicts.popitem(last=False)[1]
        if number is not None and len(verdicts) == len(events):
            future.set_result(verdicts)
        elif number is not None and number <= self._left:
            work = partial(self._take_left, appending.Batch(self._appending(), events), number)
            self._submit_appending(work, partial(self._project_done, future))
        else:
            self._append(events, partial(self._project_done, future))
        return future

    def _take_left(self, batch: appending.Batch, number: int, connection: Connection) -> list[Appended]:
        """In the thread. Another replica may be at the same: what it has stored is known."""
        (appended,) = self._append_all([batch], connection)
        connection.execute(sql.FREE_BATCHES, (number,))
        return appended

    def _project_done(
        self, future: asyncio.Future[list[Verdict]], appended: list[Appended], error: StoreError | None
    ) -> None:
        resolve(future, None if error is not None else self._taken_in(appended), error)

    def _append(
        self, events: Sequence[IncomingEvent], done: Callable[[list[Appended], StoreError | None], None]
    ) -> None:
        batch = appending.Batch(self._appending(), events)
        self._receiver.submit_item(self._append_all, batch, done, writes=True)

    def _append_all(self, batches: Sequence[appending.Batch], connection: Connection) -> list[list[Appended]]:
        """In the thread."""
        return appending.append(self.member.id, batches, connection)

    def _taken_in(self, appended: list[Appended]) -> list[Verdict]:
        self._take_in([one for one in appended if one.verdict is not Verdict.DUPLICATE])
        return [one.verdict for one in appended]

    def _submit_appending(
        self,
        work: Callable[[Any], Any],
        done: Callable[[Any, StoreError | None], None],
        *,
        writes: bool = True,
    ) -> None:
        locked = partial(appending.locked, work) if writes else work
        self._receiver.submit_item(each, locked, done, writes=writes)

    def _appending(self) -> appending.SharedAppending:
        """The same for all that come while nothing changes: then they can be put in together."""
        terms = self._specs, self._unbuilt
        if self._terms != terms:
            self._terms = terms
            self._appender = appending.SharedAppending(
                self._specs, self._scopes, self._complete, unbuilt=self._unbuilt, directory=self._directory
            )
        return self._appender

    # -- deliveries out ---------------------------------------------------------------------------------------------------

    async def _claimed(self, sink: str, work: Callable[..., Claimed], _pauses: claiming.Pauses) -> Claimed:
        nothing = Claimed(deliveries=[], waiting={}, behind=set(), seen_seq=0, at_end=True)
        fence = self.holds(sink)
        if not fence:
            return nothing
        lease = partial(self.member.holds, f"{SINK}{sink}", fence)
        claim = partial(looking.claim, self._sinks[sink], lease, work, nothing)
        return await self._writer.submit(claim, writes=False)

    async def _write_of(self, sink: str, work: Callable[[Any], Any]) -> Any:
        name = f"{SINK}{sink}"
        fence = self.member.last_fence(name)
        if not fence:
            return None  # it never was this replica's
        lease = partial(self.member.holds, name, fence, keep=True)
        found, written = await self._writer.submit(partial(looking.write, lease, work), writes=True)
        if not written:
            log.warning(
                "delivery.lease_lost",
                sink=sink,
                hint="another replica has taken over this sink, and repeats what this one had begun",
            )
        return found

    def _led(self, what: str, work: Callable[[Any], T]) -> Callable[[Any], T]:
        lease = partial(self.member.holds, what, self.member.last_fence(what), keep=True)
        return partial(looking.led, what, lease, work)

    async def dead_letter_expired(self, sink: str, *, before_ms: int, error: str) -> int:
        """See `StoreQueue.dead_letter_expired`."""
        self._pauses = await self._writer.submit(looking.pauses, writes=False)
        return await super().dead_letter_expired(sink, before_ms=before_ms, error=error)

    async def disable_gone(self, sink: str, reason: str) -> bool:
        """See `StoreQueue.disable_gone`. All replicas hear of it."""
        if ours := await super().disable_gone(sink, reason):
            await self._tell_others()
        return ours

    async def disable_sink(self, sink: str, reason: str) -> bool:
        """See `StoreAdmin.disable_sink`. All replicas hear of it."""
        changed = await super().disable_sink(sink, reason)
        await self._tell_others()
        return changed

    async def enable_sink(self, sink: str) -> bool:
        """See `StoreAdmin.enable_sink`. All replicas hear of it."""
        changed = await super().enable_sink(sink)
        await self._tell_others()
        return changed

    async def operate(self, operation: str, filters: EventQuery) -> int:
        """See `StoreAdmin.operate`. All replicas hear of it."""
        count = await super().operate(operation, filters)
        await self._tell_others()
        return count

    async def _tell_others(self) -> None:
        await self._writer.submit(partial(looking.reopened, self.member.id), writes=True)

    # -- alerts -----------------------------------------------------------------------------------------------------------

    @property
    def replica(self) -> str | None:
        """See `StoreAlerts.replica`."""
        return self.member.id

    @property
    def is_cut_off(self) -> bool:
        """See `StoreAlerts.is_cut_off`."""
        return self.member.is_cut_off

    def tells_alerts(self) -> bool:
        """See `StoreAlerts.tells_alerts`."""
        return self.leads(ALERTS)

    async def remembered_alerts(self) -> bytes | None:
        """See `StoreAlerts.remembered_alerts`."""
        return await self._keeper.submit(looking.alerts, writes=False)

    async def remember_alerts(self, content: bytes) -> None:
        """See `StoreAlerts.remember_alerts`. The last one that told does, as long as no other has begun to."""
        lease = partial(self.member.held_last, ALERTS, self.member.last_fence(ALERTS))
        keep = partial(looking.keep_alerts, content)
        _, written = await self._keeper.submit(partial(looking.write, lease, keep), writes=True)
        if not written:
            raise LeaseLostError("another replica sends the alerts now")

    # -- retention --------------------------------------------------------------------------------------------------------

    async def prune(self, after_seq: int, before_ms: int, *, strip: bool) -> Pruned:
        """See `StoreUpkeep.prune`. Of all replicas one does."""
        if self.leads(RETENTION):
            with contextlib.suppress(LeaseLostError):
                return await super().prune(after_seq, before_ms, strip=strip)
        return Pruned(events=0, after_seq=None)

    async def prune_history(self, before_ms: int) -> tuple[int, bool]:
        """See `StoreUpkeep.prune_history`. Of all replicas one does."""
        if self.leads(RETENTION):
            with contextlib.suppress(LeaseLostError):
                return await super().prune_history(before_ms)
        return 0, True

    async def forget(self, before_ms: int, *, history_before_ms: int | None) -> bool:
        """See `StoreUpkeep.forget`. Of all replicas one does."""
        if self.leads(RETENTION):
            with contextlib.suppress(LeaseLostError):
                over = await super().forget(before_ms, history_before_ms=history_before_ms)
                return await self._writer.submit(self._led(RETENTION, requests.forget), writes=True) and over
        return True


@contextlib.asynccontextmanager
async def _soon() -> AsyncIterator[None]:
    try:
        async with asyncio.timeout(SOON_S):
            yield
    except TimeoutError:
        raise StoreError(f"the database has not answered within {SOON_S:g} s") from None
