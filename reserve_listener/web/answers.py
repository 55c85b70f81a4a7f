"""The daemon's requests and answers, over the control socket and `/api/v1`.

Times are RFC 3339 in UTC; durations are seconds and end in `_s`. New fields get a default: a command may be newer than the
daemon that it asks.
"""

from __future__ import annotations

from typing import Any, Generic, TypeVar

import msgspec

T = TypeVar("T")


class Problem(msgspec.Struct, frozen=True, kw_only=True):
    """An error as RFC 9457 writes it (`application/problem+json`)."""

    title: str
    status: int
    detail: str
    type: str = "about:blank"


class Selection(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The deliveries that an action applies to. `all`: everything, so that forgetting the filters does not mean everything.

    An unknown key is refused: it may be a misspelt filter, and without it the action would apply to more than intended.
    """

    sink: str | None = None
    scope: str | None = None
    since: str | None = None
    until: str | None = None
    event_ids: list[str] = []
    all: bool = False


class Check(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One part of a health check: ok or failing."""

    status: str
    since: str | None = None
    reason: str | None = None


class Health(msgspec.Struct, frozen=True, kw_only=True):
    """The answer of a health check."""

    status: str
    checks: dict[str, Check]


class Count(msgspec.Struct, frozen=True, kw_only=True):
    """How many deliveries an action applied to."""

    count: int


class Changed(msgspec.Struct, frozen=True, kw_only=True):
    """Whether the action changed anything; false: it was so already."""

    changed: bool
    status: str


class Reconnecting(msgspec.Struct, frozen=True, kw_only=True):
    """`status`: the connection's state now; `was`: its state before."""

    status: str
    was: str


class Reconnected(msgspec.Struct, frozen=True, kw_only=True):
    """What one of several daemons has done: `state` and `text` give the result, once it is known."""

    was: str
    state: str | None = None
    text: str = ""
    hint: str | None = None


class Refusal(msgspec.Struct, frozen=True, kw_only=True):
    """Why a daemon refuses a command's request."""

    refused: str


class ReconcileRequest(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Which rooms and levels to compare with the platform: these ids, or all."""

    scope: str | None = None
    scopes: list[str] = []
    all: bool = False
    dry_run: bool = False
    """Only report differences; store and deliver nothing."""


class Reconciling(msgspec.Struct, frozen=True, kw_only=True):
    """The comparison has been accepted; `GET /reconcile/{id}` shows its progress. `waiting`: another one comes first."""

    status: str
    id: str


class Change(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A change: `before` and `after` of a value, without the side that was absent; `added` and `removed` of a list.

    `effective` is false if it has no effect on anybody's booking.
    """

    path: str
    before: Any = msgspec.UNSET
    after: Any = msgspec.UNSET
    added: list[dict[str, Any]] | msgspec.UnsetType = msgspec.UNSET
    removed: list[dict[str, Any]] | msgspec.UnsetType = msgspec.UNSET
    effective: bool = True


class HistoryRow(msgspec.Struct, frozen=True, kw_only=True):
    """An event of a room or level: a row of `history`. `changes` is null if there was nothing to compare with."""

    event_id: str
    time: str | None
    received: str
    scope_id: str
    scope_type: str
    scope_name: str | None
    revision: int | None
    changes: list[Change] | None
    summary: str
    superseded: bool
    origin: str | None


class Comparison(msgspec.Struct, frozen=True, kw_only=True):
    """The progress of a comparison, and the differences found. `state`: waiting, running, done or failed.

    `problem`: why it is paused, or why it failed; `stuck`: it stays paused until a person does something.
    `more`: there are further differences after those in `found`. `ahead`: how many rooms and levels an earlier comparison
    still has to read before this one begins.
    """

    id: str
    state: str
    dry_run: bool
    total: int
    done: int
    differences: int
    gone: int
    not_read: int
    problem: str | None
    hint: str | None
    found: list[HistoryRow]
    more: bool
    stuck: bool = False
    ahead: int = 0


class ReconcileStatus(msgspec.Struct, frozen=True, kw_only=True):
    """The last pass over all rooms and levels. `state`: off, waiting, running, done or failed; `reason`: why it is not running.

    `total` and `done` count scopes. `differences`: changes whose push never arrived; `not_read`: scopes that could not be read.
    """

    state: str
    reason: str | None = None
    hint: str | None = None
    total: int = 0
    done: int = 0
    differences: int = 0
    gone: int = 0
    not_read: int = 0
    started: str | None = None
    ended: str | None = None
    next: str | None = None


class SampleResult(msgspec.Struct, frozen=True, kw_only=True):
    """The result of a sample event."""

    delivered: bool
    problem: str | None
    event_id: str
    took_s: float


class Reason(msgspec.Struct, frozen=True, kw_only=True):
    """Why the verdict is not `ok`: which part, since when, and what to do."""

    part: str
    since: str | None
    reason: str
    hint: str | None


class ConnectionStatus(msgspec.Struct, frozen=True, kw_only=True):
    """How events arrive. `text`: the state in words."""

    state: str
    text: str
    since: str | None = None
    last_frame: str | None = None
    next_attempt: str | None = None
    reconnects_last_hour: int = 0


class SinkStatus(msgspec.Struct, frozen=True, kw_only=True):
    """A sink, and the deliveries that wait for it."""

    name: str
    state: str
    pending: int
    dead_letters: int
    last_error: str | None = None
    failing_since: str | None = None
    next_attempt: str | None = None
    last_delivered: str | None = None


class Attempt(msgspec.Struct, frozen=True, kw_only=True):
    """One attempt at a delivery. `status`: the HTTP status, if there was one."""

    time: str
    outcome: str
    status: int | None = None
    duration_s: float | None = None
    error: str | None = None


class FailedDelivery(msgspec.Struct, frozen=True, kw_only=True):
    """A delivery that failed lately, with its last attempts, the newest last."""

    sink: str
    event_id: str
    scope_type: str
    scope_id: str
    state: str
    attempts: list[Attempt]
    next_attempt: str | None = None
    scope_name: str | None = None


class Gap(msgspec.Struct, frozen=True, kw_only=True, rename={"from_": "from"}):
    """A time without a connection, longer than the platform keeps retrying: changes from it may be lost."""

    from_: str
    to: str
    found: int | None = None
    """How many changes were found afterwards by comparing all limits; null: not finished yet."""
    not_read: int | None = None
    """How many rooms and levels could not be read."""


class ReplicaStatus(msgspec.Struct, frozen=True, kw_only=True):
    """A daemon that shares the store. `leads`: the work that it alone does now, such as `sink:<name>`."""

    id: str
    host: str
    pid: int
    version: str
    seen: str
    connection: str
    leads: list[str]


class ScopeRow(msgspec.Struct, frozen=True, kw_only=True):
    """A known room or level. `summary`: its current limits in words."""

    scope_id: str
    scope_type: str
    tenant_key: str
    name: str | None
    path: list[str] | None
    revision: int
    time: str | None
    summary: str


class ScopeShown(ScopeRow, frozen=True, kw_only=True):
    """The same with its whole configuration. `gone`: it no longer exists on the platform."""

    gone: bool
    config: dict[str, Any]


class DeliveryRow(msgspec.Struct, frozen=True, kw_only=True):
    """The delivery of an event to a sink."""

    sink: str
    state: str
    attempts: int
    next_attempt: str | None
    settled: str | None
    last_error: str | None
    last_attempts: list[Attempt]


class EventRow(msgspec.Struct, frozen=True, kw_only=True):
    """A stored push. `state`: readable or unreadable."""

    seq: int
    event_id: str
    state: str
    problem: str | None
    summary: str | None
    tenant_key: str
    scope_type: str | None
    scope_id: str | None
    scope_name: str | None
    time: str | None
    received: str
    deliveries: list[DeliveryRow]


class EventShown(EventRow, frozen=True, kw_only=True):
    """The same with the event as sinks receive it, and the platform's push."""

    event: Any
    raw: Any


class DeadLetterRow(msgspec.Struct, frozen=True, kw_only=True):
    """A delivery that was given up."""

    sink: str
    sink_configured: bool
    event_id: str
    tenant_key: str
    scope_type: str
    scope_id: str
    scope_name: str | None
    attempts: int
    given_up: str
    last_error: str | None


class Listing(msgspec.Struct, Generic[T], frozen=True, kw_only=True):
    """Part of a list. `next`: the `cursor` of the next part; null: this was the last one."""

    items: list[T]
    next: str | None


class Alert(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A firing alert. `sink`: the sink that it is about, if any."""

    alert: str
    since: str
    summary: str
    detail: str
    sink: str | None = None


class StoreStatus(msgspec.Struct, frozen=True, kw_only=True):
    """The store's file. Sizes are in MiB and include the WAL."""

    path: str
    size_mb: float | None = None
    max_size_mb: int | None = None


class Status(msgspec.Struct, frozen=True, kw_only=True):
    """Everything that `status` shows. Fields that only a running daemon knows are null without one."""

    status: str
    reasons: list[Reason]
    version: str
    store: StoreStatus
    pid: int | None = None
    running_s: int | None = None
    connection: ConnectionStatus | None = None
    last_event: str | None = None
    problem: str | None = None
    pending: dict[str, int] = {}
    dead_letters: int = 0
    sinks: list[SinkStatus] = []
    failures: list[FailedDelivery] = []
    gaps: list[Gap] = []
    reconcile: ReconcileStatus | None = None
    alerts: list[Alert] = []
    replicas: list[ReplicaStatus] = []
    """All daemons that share the store, including this one; none with SQLite."""
