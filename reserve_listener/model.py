"""What travels between the parts: small, frozen, and nothing else.

Structs of msgspec, which cost a tenth of a frozen dataclass to make; several are made for each event. None can be part of
a cycle (`gc=False`).

Times are milliseconds since the epoch (UTC) where a name ends in `_ms`; durations are seconds and end in `_s`.
"""

from __future__ import annotations

from enum import Enum
from typing import Final

import msgspec

EVENT_TYPE: Final = "vc.reserve_config.updated_v1"
MIB: Final = 1024 * 1024


class Verdict(Enum):
    """What intake says of a push. The transport turns it into the platform's answer."""

    STORED = "stored"
    """Committed. The projection, behind the answer, gives it a delivery for each sink, unless it is known already."""
    DUPLICATE = "duplicate"
    """Known already, as the projection found: the platform pushed it again."""
    UNREADABLE = "unreadable"
    """Committed whole, but it cannot be normalised: no deliveries."""
    OTHER_TYPE = "other_type"
    """An event type for which no handler is registered. Not stored."""
    OVERLOADED = "overloaded"
    """Too much waits for the commit. Not stored: the platform shall push again."""
    FAILED = "failed"
    """The commit failed or took too long. The platform shall push again."""

    @property
    def committed(self) -> bool:
        """Whether the push is on stable storage, so that it may be answered with success."""
        return self in (Verdict.STORED, Verdict.DUPLICATE, Verdict.UNREADABLE)


class State(msgspec.Struct, frozen=True, gc=False):
    """Where a transport stands: connecting, connected, lost or waiting (`until`, on the monotonic clock); or listening."""

    name: str
    since: float
    until: float | None = None
    reason: str | None = None
    hint: str | None = None
    """What a person can do about it."""

    @property
    def hears(self) -> bool:
        """Whether pushes can come in."""
        return self.name in ("connected", "listening")


class Scope(msgspec.Struct, frozen=True, kw_only=True, array_like=True, gc=False):
    """A meeting room or a room level of one tenant: what events are kept in order for."""

    tenant_key: str
    scope_type: str
    scope_id: str


class IncomingEvent(msgspec.Struct, frozen=True, kw_only=True, array_like=True, gc=False):
    """One push, ready for the store: without the verification token, and normalised where that was possible.

    As an array it waits in the inbox: see `store/inbox.py` before a field is added.
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
    """The CloudEvents JSON that sinks receive, as far as the push alone tells (`protocols.Complete`); None when unreadable."""
    problem: str | None = None
    """Why it is unreadable."""


class StoredEvent(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """An event as the store holds it, for people to look at."""

    seq: int
    tenant_key: str
    event_id: str
    received_ms: int
    created_ms: int | None
    scope: Scope | None
    body: bytes | None
    raw: bytes
    problem: str | None
    deliveries: tuple[DeliveryState, ...] = ()


class AttemptRecord(msgspec.Struct, frozen=True, gc=False):
    """An attempt at a delivery, as it is kept for people."""

    at_ms: int
    """When it ended."""
    outcome: str
    """delivered, retry or dead."""
    status: int | None
    """The receiver's HTTP status, if it answered."""
    took_ms: int
    error: str | None


class DeliveryState(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """How far one event has come with one sink: pending, delivered or dead."""

    sink: str
    state: str
    attempts: int
    due_ms: int
    settled_ms: int | None
    last_error: str | None
    history: tuple[AttemptRecord, ...] = ()
    """The last attempts, the newest last; nothing of a delivery that never failed."""


class FailedDelivery(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """A delivery that failed lately, with its last attempts, the newest last."""

    sink: str
    event_id: str
    scope: Scope
    state: str
    due_ms: int
    attempts: list[AttemptRecord]


class Delivery(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """One event due at one sink."""

    seq: int
    event_id: str
    scope: int
    """The scope's number in the store: deliveries of one scope keep their order."""
    attempts: int
    """Attempts made before this one."""
    received_ms: int
    """What its age counts from: when it was stored, later by the time that does not count (`Store.claim`)."""
    body: bytes
    raw: bytes | None = None
    """What the platform sent, for a sink that `needs_raw`."""

    def __repr__(self) -> str:
        """Which one it is; what is in it stays out of tracebacks."""
        return f"Delivery(seq={self.seq}, event_id={self.event_id!r}, attempts={self.attempts})"


class Claimed(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """What a claim found: deliveries to make, and what is known now of the scopes that have more."""

    deliveries: list[Delivery]
    waiting: dict[int, int]
    """Scopes whose oldest delivery waits, with the time (ms) until which it does."""
    behind: set[int]
    """Scopes with deliveries that were looked at and not taken."""
    seen_seq: int
    """Up to here all was looked at."""
    at_end: bool
    """Whether nothing newer was there."""


class Route(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """What a sink wants to hear; what is None lets everything through."""

    scope_type: str | None = None
    scope_ids: frozenset[str] | None = None
    tenants: frozenset[str] | None = None

    def takes(self, scope: Scope) -> bool:
        """Whether the events of this scope are for the sink."""
        return (
            self.scope_type in (None, scope.scope_type)
            and (self.scope_ids is None or scope.scope_id in self.scope_ids)
            and (self.tenants is None or scope.tenant_key in self.tenants)
        )


class Outcome(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """What an attempt came to; exactly one of the shapes that the class methods make."""

    seq: int
    state: str
    attempts: int
    due_ms: int = 0
    error: str | None = None
    attempt: AttemptRecord | None = None
    """What is kept of it for people; nothing of the usual case, a success at once."""

    @classmethod
    def delivered(cls, delivery: Delivery) -> Outcome:
        """The sink has it."""
        return cls(seq=delivery.seq, state=DELIVERED, attempts=delivery.attempts + 1)

    @classmethod
    def retry(cls, delivery: Delivery, *, due_ms: int, error: str) -> Outcome:
        """Again, not before `due_ms`."""
        return cls(
            seq=delivery.seq, state=PENDING, attempts=delivery.attempts + 1, due_ms=due_ms, error=error
        )

    @classmethod
    def uncounted(cls, delivery: Delivery, *, due_ms: int, error: str) -> Outcome:
        """Again, and the attempt does not count: the sink was known to be down, or is gone."""
        return cls(seq=delivery.seq, state=PENDING, attempts=delivery.attempts, due_ms=due_ms, error=error)

    @classmethod
    def dead(cls, delivery: Delivery, *, error: str) -> Outcome:
        """Given up: a dead letter."""
        return cls(seq=delivery.seq, state=DEAD, attempts=delivery.attempts + 1, error=error)


class Filters(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """What a person asks for; what is None matches everything. Stored at `since_ms` or later, before `until_ms`."""

    sink: str | None = None
    scope_id: str | None = None
    event_id: str | None = None
    since_ms: int | None = None
    until_ms: int | None = None


class SinkState(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """A sink as the store knows it."""

    name: str
    configured: bool
    pending: int
    dead: int
    disabled_ms: int | None
    """Since when it is disabled; None when it is not."""
    disabled_reason: str | None


class Insight(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """What the store knows of how things are."""

    sinks: list[SinkState] = []
    gaps: list[tuple[int, int]] = []
    """Times without a connection, from and to (ms), of which events may be lost."""
    size_bytes: int | None = None
    last_event_ms: int | None = None
    first_dead_ms: int | None = None
    """Since when there are dead letters."""
    failures: list[FailedDelivery] = []
    """Deliveries that failed lately, the latest first."""


class DeadLetter(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """A delivery that was given up. `configured`: whether its sink still is."""

    seq: int
    sink: str
    configured: bool
    event_id: str
    scope: Scope
    attempts: int
    settled_ms: int
    last_error: str | None


PENDING: Final = "pending"
DELIVERED: Final = "delivered"
DEAD: Final = "dead"
