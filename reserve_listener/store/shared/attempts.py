"""The last attempts at deliveries that failed: the first thing to look at if an event does not arrive.

A delivery that succeeds at once leaves nothing here, so the usual case costs nothing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from reserve_listener.model import AttemptRecord, FailedDelivery, Scope
from reserve_listener.store.shared import sql

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Iterable, Sequence

    from reserve_listener.model import Outcome

KEPT: Final = 10
"""How many are kept for each delivery: with the usual backoff, those of the last day."""

ERROR_CHARS: Final = 100
"""How much of each error is kept; the delivery has the whole text of the last one."""

FAILURES_SHOWN: Final = 5
LOOKED_AT: Final = 200
"""How many failed attempts are searched for those: one event that keeps failing hides few others."""


def rows(outcomes: Iterable[Outcome], sink: int) -> list[dict[str, object]]:
    """What to keep of these outcomes, as values for `keep`."""
    return [
        {
            "seq": outcome.seq,
            "sink": sink,
            "at_ms": outcome.attempt.at_ms,
            "outcome": outcome.attempt.outcome,
            "status": outcome.attempt.status,
            "took_ms": outcome.attempt.took_ms,
            "error": _shortened(outcome.attempt.error),
            "kept": KEPT,
        }
        for outcome in outcomes
        if outcome.attempt is not None
    ]


def keep(values: Sequence[dict[str, object]], connection: sqlite3.Connection) -> None:
    """Add attempts, and drop the oldest ones of each delivery. Idempotent. Deliveries dropped by hand meanwhile get none."""
    if values:
        connection.executemany(sql.ADD_ATTEMPT, values)
        connection.executemany(sql.DROP_OLD_ATTEMPTS, values)


def of_event(seq: int, connection: sqlite3.Connection) -> dict[str, list[AttemptRecord]]:
    """The kept attempts for an event, by sink, the newest last."""
    found: dict[str, list[AttemptRecord]] = {}
    for sink, *values in connection.execute(sql.ATTEMPTS_OF, (seq,)):
        found.setdefault(sink, []).append(AttemptRecord(*values))
    return found


def last_failures(states: dict[int, str], connection: sqlite3.Connection) -> list[FailedDelivery]:
    """The deliveries that failed lately, the latest first. `states`: the names of the state numbers."""
    found = connection.execute(
        sql.LAST_FAILURES, {"looked_at": LOOKED_AT, "shown": FAILURES_SHOWN}
    ).fetchall()
    return [
        FailedDelivery(
            sink=sink,
            event_id=event_id,
            scope=Scope(tenant_key=tenant_key, scope_type=scope_type, scope_id=scope_id),
            state=states[state],
            due_ms=due_ms,
            attempts=of_event(seq, connection)[sink],
            scope_name=name,
        )
        for seq, sink, event_id, tenant_key, scope_type, scope_id, state, due_ms, name in found
    ]


def _shortened(error: str | None) -> str | None:
    """The error, cut. SQLite does not take lone surrogates, which come from paths that are not UTF-8."""
    return None if error is None else error[:ERROR_CHARS].encode("utf-8", "backslashreplace").decode()
