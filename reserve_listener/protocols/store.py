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
    """Names, in memory: `intake.directory.Directory`. Changes follow the order in which events are stored; any thread may read it."""

    @property
    def places(self) -> Mapping[tuple[str, str], KnownPlace]:
        """All rooms and levels, by scope_type and scope_id."""

    @property
    def people(self) -> Mapping[str, str]:
        """Names by open_id."""

    def take(self, places: Iterable[KnownPlace]) -> None:
        """Add or update these."""

    def take_people(self, names: Mapping[str, str]) -> None:
        """The same for people."""

    def forget_people(self) -> None:
        """Forget everybody's name."""

    def name(self, scope_type: str, scope_id: str) -> str | None:
        """The name of a room or level, even if it is gone; None: not known."""

    def path(self, scope_type: str, scope_id: str) -> list[str] | None:
        """The names of the levels above, from the top, without the organisation's root; None: not all are known."""

    def is_gone(self, scope_type: str, scope_id: str) -> bool:
        """Whether the room or level is known to be gone."""


class StoreIntake(Protocol):
    """Events in: made durable first, projected into events and deliveries after the answer. For intake."""

    def receive(
        self, events: Sequence[IncomingEvent], done: Callable[[int, StoreError | None], None]
    ) -> None:
        """Make a batch durable, to be projected later. Does not block.

        `done` is called on the loop once that is committed, with the number of the batch, or with why it is not.
        """

    async def left(self) -> Sequence[tuple[int, Sequence[IncomingEvent]]]:
        """The batches that were received but not projected: number and events of each, in order of arrival."""

    def project(
        self, events: Sequence[IncomingEvent], *, number: int | None = None
    ) -> Awaitable[list[Verdict]]:
        """Store events, with a delivery for each sink that wants them, and record that batches are projected up to `number`.

        All in one transaction; a verdict for each: STORED, SUPERSEDED, DUPLICATE or UNREADABLE. Idempotent by (tenant_key, event_id).
        The work is queued when this returns, and is done even if nobody waits for it.
        """


class StoreQueue(Protocol):
    """Deliveries out: claimed, carried, settled. For the workers."""

    def holds(self, sink: str) -> int:
        """The number under which this daemon serves the sink; it changes whenever another daemon may have served it in between.

        0: this daemon does not serve it, and neither claims nor settles; `Store.on_requeue` is called when that changes. Does
        not ask the medium, as it is called before each attempt.
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
        """Due deliveries of events after this one (None: from the first pending one), oldest first.

        Changes nothing: deliveries that were claimed but not settled are claimed again after a restart. At most `per_scope`
        of one scope, and none of scopes in `skipping` or whose oldest delivery is waiting; the answer names the latter. Looks
        at a bounded number of rows, so it may return nothing before the end. Ages (`Delivery.received_ms`) do not count the
        time during which the sink was disabled.
        """

    async def claim_scopes(
        self, sink: str, scopes: Sequence[int], *, limit: int, per_scope: int, now_ms: int, raw: bool = False
    ) -> Claimed:
        """The same for these scopes, wherever their deliveries are. `seen_seq` and `at_end` then mean nothing."""

    async def settle(self, sink: str, outcomes: Sequence[Outcome]) -> None:
        """Persist outcomes, all or none. Idempotent."""

    async def release(self, sink: str) -> None:
        """Make all waiting deliveries due now. Idempotent."""

    async def bring_forward(self, sink: str, *, latest_ms: int) -> None:
        """Let no delivery wait longer than until `latest_ms`. Idempotent."""

    async def dead_letter_expired(self, sink: str, *, before_ms: int, error: str) -> int:
        """Make dead letters of pending deliveries older than that; returns their number. None of the sink's may be in hand.

        Works in chunks: if it is interrupted, finished chunks stay done.
        """

    async def disable_gone(self, sink: str, reason: str) -> bool:
        """Disable the sink, as its receiver is gone, until a person enables it; its pending deliveries stay.

        Only the daemon that serves the sink may do so. Returns whether that is this one.
        """


class StoreAdmin(Protocol):
    """What people do to sinks and deliveries. For the operator's actions and a reload."""

    async def set_sinks(
        self, names: Sequence[str], filters_by_sink: Mapping[str, SinkFilter] | None = None
    ) -> None:
        """From now on, create deliveries for these sinks: of the events that match the sink's filter, or of all. Idempotent."""

    async def dead_letter_removed(self) -> None:
        """Make dead letters of the pending deliveries of sinks that are no longer configured. Their workers have ended. Idempotent."""

    async def operate(self, operation: str, filters: EventQuery) -> int:
        """`retry` or `drop` dead letters, or `replay` events, all that match; returns how many deliveries were affected.

        Works in chunks: if it is interrupted, finished chunks stay done, and `Store.on_requeue` is called for them.
        """

    async def disable_sink(self, sink: str, reason: str) -> bool:
        """Disable the sink for a person, until it is enabled; its pending deliveries stay. Returns whether it was enabled."""

    async def enable_sink(self, sink: str) -> bool:
        """Undo `disable_sink`. The time in between does not count for ages. Returns whether it was disabled."""

    async def disabled(self) -> set[str]:
        """The disabled sinks; for a store on a server, as of its last answer."""


class StoreHealth(Protocol):
    """The store's state and contents. For `status`; changes nothing."""

    now_ms: Callable[[], int]
    """The clock that dates what is stored: this machine's, or the server's for all that share the store."""
    max_bytes: int | None
    """The size at which pushes are refused."""

    @property
    def name(self) -> str:
        """Its name in messages: its file, or its URL without the password."""

    @property
    def problem(self) -> str | None:
        """Why pushes are answered 500 now; None while they are accepted. Does not ask the medium."""

    @property
    def full(self) -> bool:
        """Whether the size bound is reached."""

    @property
    def failed_commits(self) -> int:
        """How many commits in a row have failed. Does not ask the medium."""

    @property
    def stuck_s(self) -> float:
        """How long a write that does not return has been in progress. Does not ask the medium."""

    @property
    def size_bytes(self) -> int:
        """The store's size in bytes, as far as known. Does not ask the medium."""

    async def sinks(self) -> list[SinkState]:
        """All sinks that the store knows, with the state of their deliveries."""

    async def insight(self, app_id: str, *, gaps_since_ms: int) -> Insight:
        """What `status` shows of the store, including the app's gaps that ended since then."""

    async def backlog(self) -> dict[str, int]:
        """Deliveries that are not settled yet, for each configured sink; counted up to a bound."""


class StoreRequests(Protocol):
    """Commands' requests through a shared store. `on_request` is called on the loop; never by a store of a single daemon."""

    on_request: Callable[[Request], None] | None

    async def answer(self, request: int, content: bytes) -> None:
        """Answer whoever made the request. Raises `StoreError`."""


class StoreAlerts(Protocol):
    """Which alerts have been sent, for the daemon's next start: kept as safely as possible even if nothing else can be written.

    One of the replicas that share a store sends the alerts that concern all. `told` is asked, on the loop, for this daemon's
    report on itself.
    """

    told: Callable[[], bytes | None]

    @property
    def replica(self) -> str | None:
        """This daemon's id among those that share the store; None: the store is not shared."""

    @property
    def is_cut_off(self) -> bool:
        """Whether the others cannot know this daemon's state: the store has not been reached for as long as a lease lasts."""

    def tells_alerts(self) -> bool:
        """Whether this daemon sends the alerts that concern all replicas. Does not ask the medium."""

    async def remembered_alerts(self) -> bytes | None:
        """The last content given to `remember_alerts`, now, before a restart or by another replica; None: nothing."""

    async def remember_alerts(self, content: bytes) -> None:
        """Keep this, a few kilobytes, instead of the previous content. Idempotent. Refused if another replica sends the alerts."""


class StoreUpkeep(Protocol):
    """Dropping what is old, a chunk at a time. For `Retention`."""

    max_bytes: int | None
    """The size at which pushes are refused."""
    grown: asyncio.Event
    """Set when the store has grown so much that its size should be measured."""

    @property
    def full(self) -> bool:
        """Whether the size bound is reached."""

    async def measure(self) -> int:
        """The bytes that are in use."""

    async def free_inbox(self) -> None:
        """Free batches that are already projected; otherwise the next push does."""

    async def prune(self, after_seq: int, before_ms: int, *, strip: bool) -> Pruned:
        """Drop a chunk of events stored before this time and delivered everywhere, oldest first.

        `strip`: drop only the content of delivered, younger ones; they stay known.
        """

    async def prune_history(self, before_ms: int) -> tuple[int, bool]:
        """Drop a chunk of the history stored before that time. Returns how many entries, and whether that was all."""

    async def forget(self, before_ms: int, *, history_before_ms: int | None) -> bool:
        """Drop a chunk of other rows that are no longer needed. Returns whether that was all.

        These are pauses of sinks that ended before `before_ms` and affect no waiting delivery, gaps that ended before
        `history_before_ms` (None: none), and requests that nobody follows.
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
        """Write something small, to find out after a failure whether the store works again."""


class StoreNames(Protocol):
    """The names of rooms, levels and people from the API. Names that are kept appear in `directory` at once."""

    async def keep_places(self, places: Sequence[KnownPlace]) -> None:
        """Keep the API's rooms and levels, each as of its `seen_ms`; newer knowledge stays. Idempotent."""

    async def mark_unseen(self, places: Sequence[KnownPlace]) -> int:
        """Mark these as gone, as a complete survey lacks them, unless something newer is known. Returns how many were marked."""

    async def mark_gone(self, scope_type: str, scope_id: str) -> None:
        """Mark this room or level as gone, whether or not its name is known. Idempotent."""

    async def mark_there(self, scope_type: str, scope_id: str, *, as_of_ms: int) -> None:
        """The API knew it at that time, on the platform's clock: unmark it, unless a later event says that it is gone. Idempotent."""

    async def keep_people(self, names: Mapping[str, str]) -> None:
        """Keep the API's names of people, by open_id. Idempotent."""

    async def forget_people(self) -> None:
        """Forget everybody's name. Idempotent."""

    async def configs_after(self, scope: int, *, limit: int) -> list[tuple[int, str]]:
        """The configurations of the scopes after this number, as JSON; each with its number."""

    async def last_look(self, app_id: str, what: str) -> int | None:
        """When all names of this kind (`places`, `people`) were last read completely; None: never."""

    async def looked(self, app_id: str, what: str, at_ms: int) -> None:
        """Remember that they were. Idempotent."""


class StoreReadings(Protocol):
    """The limits from the platform's API, and the progress of reading them. For the reconciler.

    The caller names a scope by the app's id; the store knows the tenant from its events. The first event takes over what was
    read before it.
    """

    def compare(
        self, reading: Reading, compare: Compare, *, number: int = 0, dry_run: bool = False
    ) -> Awaitable[Found]:
        """Compare a reading with what is known of its scope and write the result, all in one transaction.

        A change becomes an event with deliveries, like one that was pushed. Idempotent: a repetition finds nothing new. After
        an outdated reading the scope is read again. The work is queued when this returns, and is done even if nobody waits for
        it. `number`: the pass that this finishes for the scope. `dry_run` only returns what the result would be.
        """

    async def asked_in_vain(self, asked_for: Scope, *, number: int, gone: bool = False) -> None:
        """Finish this pass for the scope without an answer; it counts as not read, unless it is gone. Idempotent."""

    async def asked(self, app_id: str) -> list[Asked]:
        """Every scope that is known or was asked for."""

    async def in_doubt(self, app_id: str, *, limit: int) -> list[tuple[str, str]]:
        """Scopes (type, id) to read again: a push arrived, and nobody can say whether the last reading already contains it."""

    async def last_pass(self, app_id: str) -> Pass | None:
        """The pass that is in progress, or the last one that ended."""

    async def begin_pass(self, app_id: str) -> Pass:
        """Begin a new pass, for which no scope is finished yet."""

    async def end_pass(self, app_id: str) -> Pass | None:
        """End the pass, and settle the gaps that ended before it began. Idempotent.

        A gap's result is the number of changes found by asking since it began, by this pass or otherwise, and the number of
        scopes that this pass could not read.
        """

    async def may_reconcile(self) -> bool:
        """Whether this daemon is the one, among those that share the store, that asks. To be called every few seconds."""


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
    """All roles of a store that this process holds. Made by `store.open_store`; only the daemon's root uses it whole."""

    ages: Ages
    """Ages of what is stored, by that clock."""
    connection: Callable[[], str]
    """This daemon's connection state, for the others that share the store; called on the loop."""
    on_commit: Callable[[], None]
    """Called on the loop after each commit that added deliveries."""
    on_requeue: Callable[[], None]
    """Called on the loop when deliveries that had been settled, or held back, are pending again."""
    on_disabled: Callable[[Collection[str]], None]
    """Called on the loop with the disabled sinks, when another process has disabled or enabled one."""
    on_doubt: Callable[[], None]
    """Called on the loop when a scope has to be read again (`in_doubt`)."""

    def tell(self) -> None:
        """The result of `told` or `connection` has changed: let the others know soon. Does not wait."""

    async def ended(self) -> None:
        """Returns when the store is closed; raises the reason if it ended by itself."""

    async def close(self) -> None:
        """Commit what is queued and release all resources. May be called twice."""


class StoreReader(Protocol):
    """A read-only view of a store, even while a daemon writes to it; for the commands. Use as a context manager.

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
        """The newest events first, at most `limit`, each with its deliveries.

        Without `content`, which may be megabytes, body and raw payload are cut to a byte.
        """

    def events_after(self, after_seq: int, filters: EventQuery = ..., *, limit: int) -> list[StoredEvent]:
        """The events stored after that one, in order, at most `limit`."""

    def dead_letters(
        self, filters: EventQuery, *, limit: int, after: DeadLetterPlace | None = None
    ) -> list[DeadLetter]:
        """The dead letters, the oldest first, at most `limit`. `after`: only those after that one."""

    def until(self, deadline_s: float) -> None:
        """Cancel any query from now on at this time (monotonic), with a `StoreError`."""

    def backlog(self, now_ms: int) -> Backlog:
        """The pending deliveries of each configured sink, and the dead letters of removed ones."""

    def sinks(self) -> list[SinkState]:
        """All sinks that the store ever knew, with the state of their deliveries."""

    def insight(self, *, gaps_since_ms: int) -> Insight:
        """What `status` shows of a store without a daemon."""

    def ids_that_begin(self, kind: Literal["event", "scope"], start: str, *, limit: int) -> list[str]:
        """Ids with this beginning, at most `limit`; only the id itself if one matches exactly."""

    def history(
        self,
        scope_id: str,
        *,
        since_ms: int | None = None,
        until_ms: int | None = None,
        before_seq: int | None = None,
    ) -> Iterator[HistoryEntry]:
        """The history of the rooms and levels with this id, the newest first; read in pages, so that nothing waits."""

    def changes_after(self, after_seq: int, *, limit: int) -> list[HistoryEntry]:
        """The history of all rooms and levels after that, in the order of storing; no earlier entry is ever added later."""

    def newest_change(self) -> int:
        """The number of the last of these; 0 if there is none."""

    def scopes_after(self, after: int, *, limit: int) -> list[tuple[int, KnownScope]]:
        """Known rooms and levels after this number, in order, each with its number."""

    def changes(self, query: ChangeQuery = ..., *, limit: int) -> list[HistoryEntry]:
        """The history of all rooms and levels, the newest first, at most `limit`."""

    def hours(self, since_ms: int, *, late_ms: int) -> list[HourFigures]:
        """Figures for each hour since then, without empty hours. A delivery that takes longer than `late_ms` is late."""

    def has_several_tenants(self) -> bool:
        """Whether rooms and levels of more than one tenant are known."""

    def known_scopes(self, scope_id: str | None = None) -> list[KnownScope]:
        """All known rooms and levels, or those with this id, the one with the latest event first."""

    def known_at(self, scope_id: str, at_ms: int) -> HistoryEntry | None:
        """The state of the room or level with this id at that time; None: not kept any more."""

    def directory(self) -> Directory:
        """The names known now."""

    def is_rebuilding(self) -> bool:
        """Whether the daemon is still computing the history of an older store."""
