"""What a store knows of how things are, for `status`: work that only reads, on any connection."""

from __future__ import annotations

import sqlite3
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from reserve_listener.model import DEAD, DELIVERED, PENDING, Insight, SinkState
from reserve_listener.store.sqlite import attempts, sql

if TYPE_CHECKING:
    from collections.abc import Callable

STATES: Final = {PENDING: 0, DELIVERED: 1, DEAD: 2}
STATE_NAMES: Final = {number: name for name, number in STATES.items()}


def insight(
    app_id: str | None,
    gaps_since_ms: int,
    connection: sqlite3.Connection,
    *,
    measure: Callable[[Any], int] | None = None,
) -> Insight:
    """All of it. `app_id`: whose gaps; None: everybody's. `measure`: how the size is found, if not by the file."""
    (first_dead_ms,) = connection.execute(sql.FIRST_DEAD).fetchone()
    last = connection.execute(sql.LAST_RECEIVED).fetchone()
    return Insight(
        sinks=sink_states(connection),
        gaps=connection.execute(sql.GAPS, {"app_id": app_id, "since_ms": gaps_since_ms}).fetchall(),
        size_bytes=(measure or used_bytes)(connection),
        last_event_ms=None if last is None else last[0],
        first_dead_ms=first_dead_ms,
        failures=attempts.last_failures(STATE_NAMES, connection),
    )


def sink_states(connection: sqlite3.Connection) -> list[SinkState]:
    """All sinks, with what is in the store for them."""
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


def used_bytes(connection: sqlite3.Connection) -> int:
    """The bytes that are in use in the file, and all of the log beside it (-wal), which a reader may keep from shrinking."""
    pages, free, size = (
        int(connection.execute(f"PRAGMA {name}").fetchone()[0])
        for name in ("page_count", "freelist_count", "page_size")
    )
    return (pages - free) * size + _log_bytes(connection)


def _log_bytes(connection: sqlite3.Connection) -> int:
    file = connection.execute("PRAGMA database_list").fetchone()[2]
    try:
        return Path(f"{file}-wal").stat().st_size
    except OSError:  # there is none
        return 0


def shrink_log(connection: sqlite3.Connection) -> None:
    """Empty the log, unless a reader is in it: that is not waited for."""
    (timeout_ms,) = connection.execute("PRAGMA busy_timeout").fetchone()
    connection.execute("PRAGMA busy_timeout = 0")
    with suppress(sqlite3.OperationalError):  # a disk that fails shows at the next commit
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
    connection.execute(f"PRAGMA busy_timeout = {int(timeout_ms)}")
