"""The store by its roles: each user asks for the role that it needs, and none of them knows the backend.

Every method that is awaited may be cancelled and never blocks the loop. Errors of the medium (the disk is full, the
server does not answer) reach the caller as `StoreError`; the call has then stored nothing. tests/store holds every
backend to these promises.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol, Self

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Awaitable, Callable, Collection, Iterable, Iterator, Mapping, Sequence
    from types import TracebackType
    from typing import Literal

    from reserve_listener.ages import Ages
    from reserve_listener.errors import StoreError
    from reserve_listener.model import (
        Asked,
        Backlog,
        ChangeQuery,
        Claimed,
        DeadLetter,
        DeadLetterPlace,
        EventQuery,
        Found,
        HistoryEntry,
        HourFigures,
        IncomingEvent,
        Insight,
        KnownPlace,
        KnownScope,
        Outcome,
        Pass,
        Pruned,
        Reading,
        Request,
        Scope,
        SinkFilter,
        SinkState,
        StoredEvent,
        Verdict,
    )
    from reserve_listener.protocols import Compare


class Directory(Protocol):
    """What is known by name, in memory: `intake.directory.Directory`. Changed in the order in which events are stored, read in any thread."""

    @property
    def places(self) -> Mapping[tuple[str, str], KnownPlace]:
        """All rooms and levels, by scope_type and scope_id."""

    @property
    def people(self) -> Mapping[str, str]:
        """Names by open_id."""

    def take(self, places: Iterable[KnownPlace]) -> None:
        """These are known, or known better, from now on."""

    def take_people(self, names: Mapping[str, str]) -> None:
        """The same of people."""

    def forget_people(self) -> None:
        """Nobody's name is known any more."""

    def name(self, scope_type: str, scope_id: str) -> str | None:
        """The name of a room or level, also of one that is gone; None: not known."""

    def path(self, scope_type: str, scope_id: str) -> list[str] | None:
        """The names of the levels above, from the top, without the organisation's root; None: not all are known."""

    def is_gone(self, scope_type: str, scope_id: str) -> bool:
        """Whether it is known that there is no such room or level any more."""


class StoreIntake(Protocol):
    """Events in: durable first, projected into events and deliveries behind the answer. For intake."""

    def receive(
        self, events: Sequence[IncomingEvent], done: Callable[[int, StoreError | None], None]
    ) -> None:
        """Make a batch durable, to be projected later. Does not block.

        `done` is called on the loop once that is committed, with the number of the batch, or with why it is not.
        """

    async def left(self) -> Sequence[tuple[int, Sequence[IncomingEvent]]]:
        """What was received and is not projected: number and events of each batch, in the order in which it came."""

    def project(
        self, events: Sequence[IncomingEvent], *, number: int | None = None
    ) -> Awaitable[list[Verdict]]:
        """Store events with a delivery for each sink that wants them, and that batches are projected up to this number.

        All in one transaction; a verdict for each: STORED, SUPERSEDED, DUPLICATE or UNREADABLE. Idempotent by (tenant_key, event_id).
        It is queued when this returns, and done even if nobody waits for it.
        """


class StoreQueue(Protocol):
    """Deliveries out: claimed, carried, settled. For the workers."""

    def holds(self, sink: str) -> int:
        """Under which number this daemon works the sink: another one whenever another daemon may have worked it meanwhile.

        0: it does not, and nothing is claimed or settled by it; `Store.on_requeue` is called when that changes. Does not ask
        the medium: it is looked at before each attempt.
        """

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
        """Due deliveries of events after this one (None: from the first that is pending), oldest first.

        Changes nothing: what is claimed and not settled is claimed again after a restart. At most `per_scope` of one
        scope, none of those in `skipping` and of those whose oldest delivery waits; the answer names them. Looks at a
        bounded number of rows: it may return nothing and not be at the end. An age (`Delivery.received_ms`) leaves out
        the times during which the sink was disabled.
        """

    async def claim_scopes(
        self, sink: str, scopes: Sequence[int], *, limit: int, per_scope: int, now_ms: int, raw: bool = False
    ) -> Claimed:
        """The same of these scopes, wherever their deliveries stand. `seen_seq` and `at_end` mean nothing then."""

    async def settle(self, sink: str, outcomes: Sequence[Outcome]) -> None:
        """Persist outcomes, all or none. Idempotent."""

    async def release(self, sink: str) -> None:
        """Make everything that waits for its time due now. Idempotent."""

    async def bring_forward(self, sink: str, *, latest_ms: int) -> None:
        """Deliveries that wait for a later time wait until then. Idempotent."""

    async def dead_letter_expired(self, sink: str, *, before_ms: int, error: str) -> int:
        """Make dead letters of what is pending and older than that; how many. Nothing of the sink may be in hand.

        A chunk at a time: broken off, what is done stays done.
        """

    async def disable_gone(self, sink: str, reason: str) -> bool:
        """Its receiver is gone: the sink gets nothing until a person enables it; what waits for it stays.

        Only who works the sink may say so; whether that is this daemon.
        """


class StoreAdmin(Protocol):
    """What people do to sinks and deliveries. For the operator's actions and a reload."""

    async def set_sinks(
        self, names: Sequence[str], filters_by_sink: Mapping[str, SinkFilter] | None = None
    ) -> None:
        """From now on these sinks get deliveries, each of what its filter takes; without one, of everything. Idempotent."""

    async def dead_letter_removed(self) -> None:
        """What sinks that are no longer configured have not got becomes dead letters. Their workers have ended. Idempotent."""

    async def operate(self, operation: str, filters: EventQuery) -> int:
        """`retry` or `drop` dead letters, or `replay` events, all that match; how many deliveries it concerned.

        A chunk at a time: broken off, what is done stays done, and `Store.on_requeue` is called for it.
        """

    async def disable_sink(self, sink: str, reason: str) -> bool:
        """A person wants it: the sink gets nothing until it is enabled; what waits stays. Whether it was enabled before."""

    async def enable_sink(self, sink: str) -> bool:
        """Undo `disable_sink`. The time between does not count for the age of what waited. Whether it was disabled."""

    async def disabled(self) -> set[str]:
        """The sinks that are disabled; a store on a server says what it knew when it was last asked."""


class StoreHealth(Protocol):
    """How the store is and what is in it. For `status`; changes nothing."""

    now_ms: Callable[[], int]
    """The time of day that what is stored is dated by: this machine's, or the server's for all that share the store."""
    max_bytes: int | None
    """The size at which pushes are refused."""

    @property
    def name(self) -> str:
        """What messages call it: its file, or its URL without the password."""

    @property
    def problem(self) -> str | None:
        """Why pushes are answered 500 now; None while they are taken. Does not ask the medium."""

    @property
    def full(self) -> bool:
        """Whether the size bound is reached."""

    @property
    def failed_commits(self) -> int:
        """How many commits in a row have failed. Does not ask the medium."""

    @property
    def stuck_s(self) -> float:
        """For how long a write has been under way that does not come back. Does not ask the medium."""

    @property
    def size_bytes(self) -> int:
        """The bytes that the store takes, as far as is known. Does not ask the medium."""

    async def sinks(self) -> list[SinkState]:
        """All sinks that the store knows, with what is in it for them."""

    async def insight(self, app_id: str, *, gaps_since_ms: int) -> Insight:
        """What `status` shows of the store; gaps of this app that ended since."""

    async def backlog(self) -> dict[str, int]:
        """Deliveries that are not settled yet, for each configured sink; counted up to a bound."""


class StoreRequests(Protocol):
    """What commands ask through the store. `on_request` is called on the loop; a store that one daemon has never does."""

    on_request: Callable[[Request], None] | None

    async def answer(self, request: int, content: bytes) -> None:
        """Say so to whoever asked. Raises `StoreError`."""


class StoreAlerts(Protocol):
    """What was told of alerts, for the daemon's next life: kept as well as can be while nothing else can be written.

    Of the replicas that share a store one tells what concerns all of them. `told` is asked, on the loop, what this one has to
    say of itself.
    """

    told: Callable[[], bytes | None]

    @property
    def replica(self) -> str | None:
        """Who this daemon is among those that share the store; None: there are no others."""

    @property
    def is_cut_off(self) -> bool:
        """Whether the others cannot know how this daemon is: the store has not been reached for as long as a lease lasts."""

    def tells_alerts(self) -> bool:
        """Whether this daemon tells what concerns all replicas. Does not ask the medium."""

    async def remembered_alerts(self) -> bytes | None:
        """What `remember_alerts` was given last, in this life or an earlier one, or by another replica; None: nothing."""

    async def remember_alerts(self, content: bytes) -> None:
        """Keep this, a few kilobytes, instead of what was kept before. Idempotent. Refused if another replica tells the alerts."""


class StoreUpkeep(Protocol):
    """Dropping what is old, a chunk at a time. For `Retention`."""

    max_bytes: int | None
    """The size at which pushes are refused."""
    grown: asyncio.Event
    """Set when the store has grown so much that its size should be looked at."""

    @property
    def full(self) -> bool:
        """Whether the size bound is reached."""

    async def measure(self) -> int:
        """The bytes that are in use."""

    async def free_inbox(self) -> None:
        """What is projected and still kept as it was received goes; else it does with the next push."""

    async def prune(self, after_seq: int, before_ms: int, *, strip: bool) -> Pruned:
        """Drop a chunk of events stored before this time and delivered everywhere, oldest first.

        `strip`: of those that are delivered and younger, the content; they are still known.
        """

    async def prune_history(self, before_ms: int) -> tuple[int, bool]:
        """Drop a chunk of the history that was stored before that time: how many events', and whether that was all."""

    async def forget(self, before_ms: int, *, history_before_ms: int | None) -> bool:
        """Drop a chunk of what else is of no use any more; whether that was all.

        Pauses of sinks that ended before the first time and count for nothing that waits, gaps that ended before the second
        (None: none), and requests that nobody follows.
        """


class StorePresence(Protocol):
    """Which app was connected, and when: what a restart has to know. For the connection."""

    async def last_connected_ms(self, app_id: str) -> int | None:
        """When this app was last seen connected with this store; None: never."""

    async def know_app(
        self, app_id: str, *, gap_since_ms: int | None = None, longer_than_ms: int = 0
    ) -> int | None:
        """Remember that this app is connected now. A gap that is longer than that is recorded, and its length returned."""

    async def touch(self, app_id: str) -> None:
        """Write something small: after a failure it tells whether the store works again."""


class StoreNames(Protocol):
    """Rooms, levels and people by name, as the API told them. What is kept is in `directory` at once, too."""

    async def keep_places(self, places: Sequence[KnownPlace]) -> None:
        """What the API told of rooms and levels, each as of its `seen_ms`: what is known as of later stays. Idempotent."""

    async def mark_unseen(self, places: Sequence[KnownPlace]) -> int:
        """They were not among all that there are: gone, unless something was heard of them meanwhile. How many are."""

    async def mark_gone(self, scope_type: str, scope_id: str) -> None:
        """There is no such room or level any more, whether or not its name is known. Idempotent."""

    async def mark_there(self, scope_type: str, scope_id: str, *, as_of_ms: int) -> None:
        """The API told of it as of then, on the platform's clock: it is not gone, unless an event told so later. Idempotent."""

    async def keep_people(self, names: Mapping[str, str]) -> None:
        """What the API told of people, by open_id. Idempotent."""

    async def forget_people(self) -> None:
        """Nobody's name is kept any more. Idempotent."""

    async def configs_after(self, scope: int, *, limit: int) -> list[tuple[int, str]]:
        """What is known of the scopes after this number, as JSON; each with its number."""

    async def last_look(self, app_id: str, what: str) -> int | None:
        """When all names of this kind (`places`, `people`) were last asked for to the end; None: never."""

    async def looked(self, app_id: str, what: str, at_ms: int) -> None:
        """Remember that they were. Idempotent."""


class StoreReadings(Protocol):
    """What the platform's API told of limits, and how far it was asked. For the reconciler.

    A scope is asked for under the app's id; the store knows the tenant: that of its events, the first of which takes over
    what was asked for before it.
    """

    def compare(
        self, reading: Reading, compare: Compare, *, number: int = 0, dry_run: bool = False
    ) -> Awaitable[Found]:
        """Compare a reading with what is known of its scope and write what it comes to, all in one transaction.

        A change is an event with deliveries, like one that was heard. Idempotent: what was written is the same the next
        time. An outdated reading has its scope read again. It is queued when this returns, and done even if nobody waits
        for it. `number`: the pass that is done with the scope by this. `dry_run` only says what it would come to.
        """

    async def asked_in_vain(self, asked_for: Scope, *, number: int, gone: bool = False) -> None:
        """This pass is done with the scope, although there was no answer; it counts as not read, unless it is gone. Idempotent."""

    async def asked(self, app_id: str) -> list[Asked]:
        """Every scope of which something is known or that was asked for."""

    async def in_doubt(self, app_id: str, *, limit: int) -> list[tuple[str, str]]:
        """Scopes (type, id) to be read again: a push came, and nobody can say if the last reading has what it tells."""

    async def last_pass(self, app_id: str) -> Pass | None:
        """The pass over all there is that is under way or ended last."""

    async def begin_pass(self, app_id: str) -> Pass:
        """A new one. No scope is done with by it yet."""

    async def end_pass(self, app_id: str) -> Pass | None:
        """It has come to its end, and so have the gaps that ended before it began. Idempotent.

        Their result is what was found by asking since they began, by this pass or otherwise, and how many scopes it could not
        read.
        """

    async def may_reconcile(self) -> bool:
        """Whether this daemon is the one that asks: of several that share a store one does. To be asked every few seconds."""


class Store(
    StoreIntake,
    StoreQueue,
    StoreAdmin,
    StoreHealth,
    StoreAlerts,
    StoreRequests,
    StoreUpkeep,
    StorePresence,
    StoreNames,
    StoreReadings,
    Protocol,
):
    """All roles, of a store that this process holds. Made by `store.open_store`; only the daemon's root has it whole."""

    ages: Ages
    """How old what is stored is, by that clock."""
    connection: Callable[[], str]
    """How this daemon is connected, for the others that share the store; asked on the loop."""
    on_commit: Callable[[], None]
    """Called on the loop after each commit that added deliveries."""
    on_requeue: Callable[[], None]
    """Called on the loop when deliveries that had been settled, or held back, are pending again."""
    on_disabled: Callable[[Collection[str]], None]
    """Called on the loop with the sinks that are disabled, when somebody else has disabled or enabled one."""
    on_doubt: Callable[[], None]
    """Called on the loop when a scope is to be read again (`in_doubt`)."""

    def tell(self) -> None:
        """Something has changed of which `told` or `connection` tells: the others learn of it soon. Does not wait."""

    async def ended(self) -> None:
        """Returns when the store was closed; raises why it ended by itself."""

    async def close(self) -> None:
        """Commit what is queued and give everything back. May be called twice."""


class StoreReader(Protocol):
    """A read-only view of a store, also of one that a daemon is writing; for the commands. Use as a context manager.

    Blocks. Raises `StoreError` when there is no store or it cannot be read.
    """

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...

    def events(
        self,
        filters: EventQuery = ...,
        *,
        limit: int,
        unreadable: bool = False,
        before_seq: int | None = None,
        content: bool = True,
    ) -> list[StoredEvent]:
        """The newest events first, at most `limit`, each with how far it has come with every sink.

        Without `content`, which may be megabytes, of an event's body and raw payload no more than a byte.
        """

    def events_after(self, after_seq: int, filters: EventQuery = ..., *, limit: int) -> list[StoredEvent]:
        """Those that were stored after that one, in order, at most `limit`."""

    def dead_letters(
        self, filters: EventQuery, *, limit: int, after: DeadLetterPlace | None = None
    ) -> list[DeadLetter]:
        """The dead letters, those first that were given up first; at most `limit`. `after`: only those behind that one."""

    def until(self, deadline_s: float) -> None:
        """What is asked from now on is broken off then (monotonic), with a `StoreError`."""

    def backlog(self, now_ms: int) -> Backlog:
        """What waits for each configured sink, and what removed ones have left that is dead."""

    def sinks(self) -> list[SinkState]:
        """All sinks that the store ever knew, with what is in it for them."""

    def insight(self, *, gaps_since_ms: int) -> Insight:
        """What `status` shows of a store without a daemon."""

    def ids_that_begin(self, kind: Literal["event", "scope"], start: str, *, limit: int) -> list[str]:
        """Ids with this beginning, at most `limit`; only the id itself if there is one that is exactly this."""

    def history(
        self,
        scope_id: str,
        *,
        since_ms: int | None = None,
        until_ms: int | None = None,
        before_seq: int | None = None,
    ) -> Iterator[HistoryEntry]:
        """What happened to the rooms and levels of this id, the newest first; a page at a time, so that nothing waits."""

    def changes_after(self, after_seq: int, *, limit: int) -> list[HistoryEntry]:
        """What happened to all rooms and levels after that, in the order of storing; nothing comes in before it later."""

    def newest_change(self) -> int:
        """The last of these; 0 when there is none."""

    def scopes_after(self, after: int, *, limit: int) -> list[tuple[int, KnownScope]]:
        """Rooms and levels of which something is known, each with its number, in their order."""

    def changes(self, query: ChangeQuery = ..., *, limit: int) -> list[HistoryEntry]:
        """What happened to all rooms and levels, the newest first, at most `limit`."""

    def hours(self, since_ms: int, *, late_ms: int) -> list[HourFigures]:
        """What was stored since then, hour by hour; an hour without anything is left out. A delivery is late beyond `late_ms`."""

    def has_several_tenants(self) -> bool:
        """Whether rooms and levels of more than one tenant are known."""

    def known_scopes(self, scope_id: str | None = None) -> list[KnownScope]:
        """All rooms and levels of which something is known, or those of this id, the one last heard of first."""

    def known_at(self, scope_id: str, at_ms: int) -> HistoryEntry | None:
        """What was known of the room or level of this id at that time; None: nothing that is still kept."""

    def directory(self) -> Directory:
        """What is known by name now."""

    def is_rebuilding(self) -> bool:
        """Whether the daemon still works at the history of an older store."""
