"""The store's figures for `status`: work that only reads, on any connection."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from reserve_listener.model import DEAD, DELIVERED, PENDING, Insight, SinkState
from reserve_listener.store.shared import attempts, sql

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Callable

STATES: Final = {PENDING: 0, DELIVERED: 1, DEAD: 2}
STATE_NAMES: Final = {number: name for name, number in STATES.items()}


def insight(
    app_id: str | None,
    gaps_since_ms: int,
    measure: Callable[[Any], int],
    connection: sqlite3.Connection,
) -> Insight:
    """All figures. `app_id`: whose gaps; None: everybody's. `measure`: how to find the size."""
    (first_dead_ms,) = connection.execute(sql.FIRST_DEAD).fetchone()
    last = connection.execute(sql.LAST_RECEIVED).fetchone()
    return Insight(
        sinks=sink_states(connection),
        gaps=connection.execute(sql.GAPS, {"app_id": app_id, "since_ms": gaps_since_ms}).fetchall(),
        size_bytes=measure(connection),
        last_event_ms=None if last is None else last[0],
        first_dead_ms=first_dead_ms,
        failures=attempts.last_failures(STATE_NAMES, connection),
    )


def sink_states(connection: sqlite3.Connection) -> list[SinkState]:
    """All sinks, and what the store has for each."""
    return [
        SinkState(
            name=name,
            configured=bool(configured),
            pending=pending,
            dead=dead,
            disabled_ms=disabled_ms,
            disabled_reason=reason,
            oldest_ms=oldest_ms,
        )
        for name, configured, pending, dead, disabled_ms, reason, oldest_ms in connection.execute(
            sql.SINK_STATES
        )
    ]
