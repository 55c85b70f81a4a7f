"""The data that the parts pass to each other: small and frozen.

They are structs of msgspec, as several are made for each event and one costs a tenth of a frozen dataclass. None can be part
of a cycle (`gc=False`).

Times are milliseconds since the epoch (UTC) where a name ends in `_ms`; durations are seconds and end in `_s`.
"""

from __future__ import annotations

from enum import Enum
from typing import TYPE_CHECKING, Any, Final

import msgspec

if TYPE_CHECKING:
    from collections.abc import Collection

EVENT_TYPE: Final = "vc.reserve_config.updated_v1"
ALERT_TYPE: Final = "reserve_listener.alert.v1"
"""Events about the daemon itself: see docs/monitoring.md."""
MIB: Final = 1024 * 1024
LONGEST_NAME: Final = 60
"""The longest name of a room, level or person, in characters; longer ones are cut, as a line has to hold several."""

SQLITE_URL: Final = "sqlite:///"
"""The beginning of the URL of a store in a file. The path follows unchanged: an absolute one has a fourth slash."""

POSTGRES_URL: Final = "postgresql://"
"""The same for a store on a server: libpq's URL, with our own `password_file` in its query."""

SECTIONS: Final[dict[str, tuple[str, ...]]] = {
    "approve_config": ("approval_switch", "approval_condition", "meeting_duration", "approvers"),
    "time_config": (
        "time_switch",
        "days_in_advance",
        "opening_hour",
        "start_time",
        "end_time",
        "max_duration",
    ),
    "reserve_scope_config": ("allow_all_users", "allow_users", "allow_depts"),
}
"""A configuration as the event's page has it: its sections and their keys. The platform may add others."""


class Verdict(Enum):
    """Intake's verdict on a push. The transport turns it into the answer to the platform."""

    STORED = "stored"
    """Committed. After the answer, the projection gives it a delivery for each sink, unless it is already known."""
    DUPLICATE = "duplicate"
    """The projection found that it is already known: the platform pushed it again."""
    SUPERSEDED = "superseded"
    """As STORED, but the projection found that it is late: what is known of its scope is newer."""
    UNREADABLE = "unreadable"
    """Committed whole, but it cannot be normalised: no deliveries."""
    OTHER_TYPE = "other_type"
    """An event type for which no handler is registered. Not stored."""
    OVERLOADED = "overloaded"
    """Too much waits for the commit. Not stored: the platform must push it again."""
    FAILED = "failed"
    """The commit failed or took too long. The platform must push it again."""

    __hash__ = object.__hash__  # each is one object; Enum hashes its name, in Python

    @property
    def committed(self) -> bool:
        """Whether the push is on stable storage, so that it may be answered with success."""
        return self in _COMMITTED


_COMMITTED: Final = (Verdict.STORED, Verdict.DUPLICATE, Verdict.SUPERSEDED, Verdict.UNREADABLE)


class State(msgspec.Struct, frozen=True, gc=False):
    """A transport's state: connecting, connected, lost or waiting (`until`, on the monotonic clock); or listening."""

    name: str
    since: float
    until: float | None = None
    reason: str | None = None
    hint: str | None = None
    """What a person can do about it."""
    change: str | None = None
    """What has just happened to the connection, one of `meters.CONNECTION_CHANGES`; None: nothing to count."""

    @property
    def is_receiving(self) -> bool:
        """Whether pushes can arrive."""
        return self.name in ("connected", "listening")


class Scope(msgspec.Struct, frozen=True, kw_only=True, array_like=True, gc=False):
    """A meeting room or a room level of one tenant. Its events are kept in order."""

    tenant_key: str
    scope_type: str
    scope_id: str


class IncomingEvent(msgspec.Struct, frozen=True, kw_only=True, array_like=True, gc=False):
    """One push, ready for the store: without the verification token, and normalised where that was possible.

    It waits in the inbox as an array: see `store/shared/batches.py` before you add a field.
    """

    tenant_key: str
    event_id: str
    """`header.event_id`; for an unreadable push `sha256:` and the hash of its bytes."""
    raw: bytes
    """The payload as the platform sent it, verification token removed."""
    received_ms: int
    created_ms: int | None = None
    """`header.create_time`; orders the events of a scope, never an age."""
    scope: Scope | None = None
    body: bytes | None = None
    """The CloudEvents JSON for sinks, as far as the push alone determines it (`protocols.Complete`); None if unreadable."""
    problem: str | None = None
    """Why it is unreadable."""
    news: tuple[PlaceNews, ...] | None = None
    """Its news of rooms and levels themselves, as far as it can be read; None: it is about limits."""
    origin: str | None = None
    """How it was found, if it was not pushed: `reconcile`."""

    @property
    def is_unreadable(self) -> bool:
        """Whether it is only stored, not delivered."""
        return self.scope is None and self.news is None


class PlaceNews(msgspec.Struct, frozen=True, kw_only=True, array_like=True, gc=False):
    """An event's news of a room or level itself; None: the event says nothing of it. Waits in the inbox like `IncomingEvent`."""

    scope_type: str
    scope_id: str
    name: str | None = None
    parent: str | None = None
    """The level that it is in."""
    gone: bool = False
    all_below: bool = False
    """Whether everything below it is gone, too."""


class KnownPlace(msgspec.Struct, frozen=True, kw_only=True, array_like=True, gc=False):
    """A room or level by name, as the store knows it."""

    scope_type: str
    scope_id: str
    name: str | None
    """Safe to show, and cut at `LONGEST_NAME`; None: not known."""
    parent: str | None
    """The level that it is in; None: the organisation's root, or unknown."""
    top: bool
    """Whether only the organisation's root is above it."""
    seen_ms: int
    """The time from which this is known."""
    gone_ms: int | None = None
    """Since when it is known to be gone."""


class Known(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """What is known of a scope; its next event is compared with this."""

    revision: int
    created_ms: int | None
    """The `create_time` of the event that it comes from."""
    config: str
    """The configuration, as JSON."""


class Window(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """A span of time that includes both ends."""

    from_ms: int
    until_ms: int

    def may_hold(self, created_ms: int | None) -> bool:
        """Whether something may have been created within it; without a time, that cannot be ruled out."""
        return created_ms is None or self.from_ms <= created_ms <= self.until_ms


class Completed(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """An event after its comparison with what was known of its scope."""

    body: bytes
    """The final body, with the changes in it."""
    revision: int | None
    """None: it was already superseded when it arrived, and what is known stays."""
    created_ms: int | None
    """The `create_time` of the scope's state after it."""
    config: str
    """The configuration known after it, as JSON; for a superseded event, its own."""
    changes: str | None
    """As JSON; None: there was nothing to compare with."""
    paths: tuple[str, ...] | None
    """What changed, for `SinkFilter`: None at first sight, empty for a superseded event."""
    summary: str

    @property
    def known(self) -> Known | None:
        """The state of the scope after it; None: unchanged."""
        return None if self.revision is None else Known(self.revision, self.created_ms, self.config)


class Reading(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """The limits of a room or level in an answer of the platform's API; for the two times, see `lark.api.answers.Limits`."""

    app_id: str
    scope_type: str
    scope_id: str
    as_of_ms: int
    until_ms: int
    received_ms: int
    told: dict[str, Any]
    """The configuration, normalised; keys that the answer did not contain are absent."""

    @property
    def asked_for(self) -> Scope:
        """The scope, under the app's id: the API knows no tenant."""
        return Scope(tenant_key=self.app_id, scope_type=self.scope_type, scope_id=self.scope_id)

    @property
    def window(self) -> Window:
        """If a push was created in this span, nobody can say whether the answer contains it."""
        return Window(self.as_of_ms, self.until_ms)


class Finding(Enum):
    """The result of comparing a reading with what is known of its scope."""

    BASELINE = "baseline"
    """Nothing was known before: the reading is the first state."""
    SAME = "same"
    """Nothing differs."""
    CHANGED = "changed"
    """Something differs although no push said so: an event."""
    OUTDATED = "outdated"
    """Something newer arrived meanwhile: the reading is useless."""
    SEVERAL_TENANTS = "several_tenants"
    """The API returns the limits of one tenant, and nobody knows which: the reading is useless."""


class Compared(msgspec.Struct, frozen=True, gc=False):
    """A reading, compared."""

    finding: Finding
    known: Known | None = None
    """What is known of the scope after it; None: as before."""
    event: IncomingEvent | None = None
    """Of a change, with what it is `completed` to."""
    completed: Completed | None = None


class Found(msgspec.Struct, frozen=True, gc=False):
    """The result of a reading in the store; for a change, its entry in the history."""

    finding: Finding
    entry: HistoryEntry | None = None


class Pass(msgspec.Struct, frozen=True, gc=False):
    """A pass over all rooms and levels."""

    number: int
    """0: there has been none yet."""
    started_ms: int
    ended_ms: int | None
    """None: it is in progress, or was interrupted and has to be finished."""
    differences: int
    not_read: int = 0
    """Scopes that it could not read."""
    last_ended_ms: int | None = None
    """When the last finished pass ended."""

    @property
    def is_unfinished(self) -> bool:
        """Whether it has to be continued."""
        return self.number > 0 and self.ended_ms is None


class Asked(msgspec.Struct, frozen=True, gc=False):
    """A room or level that is known, or that was asked for."""

    scope_type: str
    scope_id: str
    looked_ms: int
    """When it was last asked for; 0: never."""
    in_pass: int
    """The last pass that has finished with it; 0: none."""
    was_read: bool
    """Whether its limits were ever read."""


class HistoryEntry(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """An event in the history of a room or level; see `Completed`."""

    seq: int
    event_id: str
    scope: Scope
    created_ms: int | None
    received_ms: int
    revision: int | None
    changes: str | None
    config: str
    summary: str
    """In the language that was configured when it was stored."""
    origin: str | None


class KnownScope(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """A room or level, and what is known of it."""

    scope: Scope
    known: Known
    received_ms: int
    """When its last event was stored."""


class StoredEvent(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """An event as the store has it, for people to look at."""

    seq: int
    tenant_key: str
    event_id: str
    received_ms: int
    created_ms: int | None
    scope: Scope | None
    body: bytes | None
    raw: bytes
    problem: str | None
    summary: str | None = None
    """What changed, in a sentence; None: not known (yet), or unreadable."""
    deliveries: tuple[DeliveryState, ...] = ()


class AttemptRecord(msgspec.Struct, frozen=True, gc=False):
    """An attempt at a delivery, as recorded for people."""

    at_ms: int
    """When it ended."""
    outcome: str
    """delivered, retry or dead."""
    status: int | None
    """The receiver's HTTP status, if it answered."""
    took_ms: int
    error: str | None


class DeliveryState(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """The state of one event at one sink: pending, delivered or dead."""

    sink: str
    state: str
    attempts: int
    due_ms: int
    settled_ms: int | None
    last_error: str | None
    history: tuple[AttemptRecord, ...] = ()
    """The last attempts, the newest last; empty for a delivery that never failed."""


class FailedDelivery(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """A delivery that failed lately, with its last attempts, the newest last."""

    sink: str
    event_id: str
    scope: Scope
    state: str
    due_ms: int
    attempts: list[AttemptRecord]
    scope_name: str | None = None


class Delivery(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """One event due at one sink."""

    seq: int
    event_id: str
    scope: int
    """The scope's number in the store: deliveries of one scope keep their order."""
    attempts: int
    """Attempts made before this one."""
    received_ms: int
    """Where its age begins: when it was stored, moved by the time that does not count (`StoreQueue.claim`)."""
    body: bytes
    raw: bytes | None = None
    """What the platform sent, for a sink that `needs_raw`; for an alert, which it did not send, the same as `body`."""

    def __repr__(self) -> str:
        """Which delivery it is; its content stays out of tracebacks."""
        return f"Delivery(seq={self.seq}, event_id={self.event_id!r}, attempts={self.attempts})"


class Claimed(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """What a claim found: deliveries to make, and what is known now of the scopes that have more."""

    deliveries: list[Delivery]
    waiting: dict[int, int]
    """Scopes whose oldest delivery is not due yet, with the time (ms) when it is."""
    behind: set[int]
    """Scopes with deliveries that were seen but not taken."""
    seen_seq: int
    """Everything up to this event has been looked at."""
    at_end: bool
    """Whether there was nothing newer."""


class SinkFilter(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """Which events a sink takes; a None lets everything through."""

    scope_type: str | None = None
    scope_ids: frozenset[str] | None = None
    tenants: frozenset[str] | None = None
    changes_in: tuple[str, ...] | None = None
    """Sections and paths; `*` is any."""
    events: bool = True
    """False: none at all, for a sink that only carries alerts."""

    def takes(self, scope: Scope, paths: Collection[str] | None = None, *, tenant_known: bool = True) -> bool:
        """Whether the sink takes an event of this scope that changes these paths (None: the first sight of it).

        A tenant that is not known yet is the only one of the app, and passes as any.
        """
        return (
            self.events
            and self.scope_type in (None, scope.scope_type)
            and (self.scope_ids is None or scope.scope_id in self.scope_ids)
            and (self.tenants is None or not tenant_known or scope.tenant_key in self.tenants)
            and (self.changes_in is None or paths is None or any(map(self._wants, paths)))
        )

    def _wants(self, path: str) -> bool:
        return any(
            wanted in ("*", path) or path.startswith((f"{wanted}.", f"{wanted}["))
            for wanted in self.changes_in or ()
        )


class Outcome(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """The result of an attempt, in exactly one of the forms that the class methods create."""

    seq: int
    state: str
    attempts: int
    due_ms: int = 0
    error: str | None = None
    attempt: AttemptRecord | None = None
    """The record that is kept for people; None for the usual case, an immediate success."""

    @classmethod
    def delivered(cls, delivery: Delivery) -> Outcome:
        """The sink has the event."""
        return cls(seq=delivery.seq, state=DELIVERED, attempts=delivery.attempts + 1)

    @classmethod
    def retry(cls, delivery: Delivery, *, due_ms: int, error: str) -> Outcome:
        """Try again, no earlier than `due_ms`."""
        return cls(
            seq=delivery.seq, state=PENDING, attempts=delivery.attempts + 1, due_ms=due_ms, error=error
        )

    @classmethod
    def uncounted(cls, delivery: Delivery, *, due_ms: int, error: str) -> Outcome:
        """Try again. This attempt does not count, as the sink was known to be down, or is gone."""
        return cls(seq=delivery.seq, state=PENDING, attempts=delivery.attempts, due_ms=due_ms, error=error)

    @classmethod
    def dead(cls, delivery: Delivery, *, error: str) -> Outcome:
        """The delivery is given up: a dead letter."""
        return cls(seq=delivery.seq, state=DEAD, attempts=delivery.attempts + 1, error=error)


class EventQuery(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """The events that a person asks for: a None matches everything. Stored at `since_ms` or later, before `until_ms`."""

    sink: str | None = None
    scope_id: str | None = None
    event_id: str | None = None
    since_ms: int | None = None
    until_ms: int | None = None


class ChangeQuery(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """The part of the history of all rooms and levels that a person asks for: a None matches everything."""

    scopes: frozenset[tuple[str, str]] | None = None
    """scope_type and scope_id."""
    scope_type: str | None = None
    section: str | None = None
    """Only entries that change something in this section."""
    since_ms: int | None = None
    until_ms: int | None = None
    before_seq: int | None = None
    """Only entries older than this one, to continue a list."""
    event_start: str | None = None
    """The beginning of the event's id."""


class HourFigures(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """What was stored in one hour, and how long its deliveries took."""

    hour: int
    """Which hour, counted from the beginning of the requested time."""
    changes: int
    deliveries: int
    """How many deliveries have succeeded by now."""
    late: int
    """How many of these took longer than the given time."""
    slowest_ms: int


class SinkState(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """A sink as the store knows it."""

    name: str
    configured: bool
    pending: int
    dead: int
    disabled_ms: int | None
    """Since when it is disabled; None if it is not."""
    disabled_reason: str | None
    oldest_ms: int | None = None
    """Where the age of the first waiting delivery begins, as in `Delivery.received_ms`; None if none is waiting."""


class Replica(msgspec.Struct, frozen=True, gc=False):
    """A daemon that shares the store. `leads`: what only this one does at present, "sink:<name>" and others."""

    id: str
    host: str
    pid: int
    version: str
    seen_ms: int
    connection: str
    leads: list[str]
    sinks: list[str] = []
    """The sinks in its configuration."""
    told: bytes | None = None
    """What it says of itself, as JSON; see `daemon.alerts.replicas.Told`."""


class Request(msgspec.Struct, frozen=True, gc=False):
    """A request of a command to the daemons that share a store. `content`: its details, as JSON."""

    id: int
    what: str
    content: bytes


class Answer(msgspec.Struct, frozen=True, gc=False):
    """An answer of one of them, as JSON. While a daemon is busy with a request, it may answer several times."""

    number: int
    replica: str
    content: bytes


class Insight(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """The figures of the store, for `status`."""

    sinks: list[SinkState] = []
    gaps: list[tuple[int, int, int | None, int | None]] = []
    """Times without a connection, from and to (ms), of which events may be lost; how many changes have been found by asking since
    their beginning, and how many rooms and levels could not be read. None: reconciling has not ended."""
    size_bytes: int | None = None
    last_event_ms: int | None = None
    first_dead_ms: int | None = None
    """Since when there are dead letters."""
    failures: list[FailedDelivery] = []
    """The deliveries that failed lately, the latest first."""
    replicas: list[Replica] = []
    """The daemons that are alive, if the store is shared."""


class SinkBacklog(msgspec.Struct, frozen=True, gc=False):
    """What a sink has not received."""

    name: str
    pending: int
    waiting: int
    """How many of these failed and are waiting for their retry."""
    dead: int
    oldest_ms: int | None
    """When the oldest pending one was stored."""
    configured: bool = True
    """False: the sink was removed and has left dead letters."""


class Backlog(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """What is waiting in a store."""

    last_event_ms: int | None
    sinks: list[SinkBacklog]


class DeadLetter(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """A delivery that was given up. `configured`: whether its sink still is in the configuration."""

    seq: int
    sink: str
    configured: bool
    event_id: str
    scope: Scope
    attempts: int
    settled_ms: int
    last_error: str | None


DeadLetterPlace = tuple[int, int, str]
"""The position of one in their order: `settled_ms`, `seq`, `sink`."""

PENDING: Final = "pending"
DELIVERED: Final = "delivered"
DEAD: Final = "dead"


class Pruned(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """The result of one chunk of retention. `after_seq`: where to continue; None if nothing is left to look at."""

    events: int
    after_seq: int | None
