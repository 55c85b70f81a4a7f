"""From the inbox into the store: answered pushes become events and deliveries. Work for the writer's thread.

What must stay true: events and the inbox's position are written in one transaction, so the store has each answered push
exactly once; and no event, whatever is in it, blocks those behind it for ever.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import msgspec
import structlog

from reserve_listener.store.shared import sql
from reserve_listener.store.shared.medium import is_medium

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Sequence

    from reserve_listener.model import IncomingEvent
    from reserve_listener.store.shared.appending import Appended, Appending

log = structlog.get_logger("store")


class Position(NamedTuple):
    """How far an inbox has been projected."""

    inbox: str
    number: int


def project(
    appending: Appending,
    events: Sequence[IncomingEvent],
    position: Position | None,
    connection: sqlite3.Connection,
) -> list[Appended]:
    """Store these events, and note that the inbox has been projected up to this position."""
    appended = _appended(appending, events, connection)
    if position is not None:
        connection.execute(sql.MOVE_INBOX, position)
    return appended


def _appended(
    appending: Appending, events: Sequence[IncomingEvent], connection: sqlite3.Connection
) -> list[Appended]:
    if len(events) == 1 and not appending.together:
        return [_one(appending, events[0], connection)]
    connection.execute("SAVEPOINT together")
    try:
        appended = appending.all(events, connection)
        connection.execute("RELEASE together")  # a server says by then what was wrong
    except Exception as error:
        if is_medium(error):
            raise
        connection.execute("ROLLBACK TO together")
        appended = [_one(appending, event, connection) for event in events]
        connection.execute("RELEASE together")
    return appended


def _one(appending: Appending, event: IncomingEvent, connection: sqlite3.Connection) -> Appended:
    """Store one event. If it cannot be stored as it is, keep it whole, like one that cannot be read."""
    connection.execute("SAVEPOINT one")
    try:
        appended = appending.one(event, connection)
        connection.execute("RELEASE one")
    except Exception as defect:
        if is_medium(defect):
            raise
        connection.execute("ROLLBACK TO one")
        log.exception("event.not_projected", event_id=event.event_id)
        problem = f"a bug in reserve-listener: {type(defect).__name__}: {defect}"
        kept = msgspec.structs.replace(
            event, created_ms=None, scope=None, body=None, problem=problem, news=None
        )
        appended = appending.one(kept, connection)
        connection.execute("RELEASE one")
    return appended
