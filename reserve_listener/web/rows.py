"""The JSON objects of the commands and the API: rooms and levels, their history, events, dead letters.

Names are the current ones, from the store's directory; ids come along for programs.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from msgspec import to_builtins

from reserve_listener.clock import rfc3339
from reserve_listener.intake.summary import limits, summarise
from reserve_listener.web.answers import Attempt

if TYPE_CHECKING:
    from collections.abc import Callable

    from reserve_listener.model import (
        AttemptRecord,
        DeadLetter,
        DeliveryState,
        HistoryEntry,
        Known,
        Scope,
        StoredEvent,
    )
    from reserve_listener.protocols.store import Directory

Row = dict[str, Any]


def scope_row(scope: Scope, known: Known, language: str, directory: Directory) -> Row:
    """A row of `scopes list`: the limits now, in this language."""
    return {
        "scope_id": scope.scope_id,
        "scope_type": scope.scope_type,
        "tenant_key": scope.tenant_key,
        "name": directory.name(scope.scope_type, scope.scope_id),
        "path": directory.path(scope.scope_type, scope.scope_id),
        "revision": known.revision,
        "time": _time(known.created_ms),
        "summary": limits(json.loads(known.config), language, directory.people),
    }


def scope_shown(scope: Scope, known: Known, language: str, directory: Directory) -> Row:
    """`scopes show`: the same with all that is known."""
    return scope_row(scope, known, language, directory) | {
        "gone": directory.is_gone(scope.scope_type, scope.scope_id),
        "config": json.loads(known.config),
    }


def history_row(entry: HistoryEntry, language: str, directory: Directory) -> Row:
    """A row of `history`, its sentence in this language."""
    changes = None if entry.changes is None else json.loads(entry.changes)
    return {
        "event_id": entry.event_id,
        "time": _time(entry.created_ms),
        "received": rfc3339(entry.received_ms),
        "scope_id": entry.scope.scope_id,
        "scope_type": entry.scope.scope_type,
        "scope_name": directory.name(entry.scope.scope_type, entry.scope.scope_id),
        "revision": entry.revision,
        "changes": changes,
        "summary": summarise(changes, json.loads(entry.config), language, directory.people),
        "superseded": entry.revision is None,
        "origin": entry.origin,
    }


def event_row(event: StoredEvent, directory: Directory) -> Row:
    """A row of `events list`."""
    scope = event.scope
    return {
        "seq": event.seq,
        "event_id": event.event_id,
        "state": "unreadable" if event.body is None else "readable",
        "problem": event.problem,
        "summary": event.summary,
        "tenant_key": event.tenant_key,
        "scope_type": scope.scope_type if scope else None,
        "scope_id": scope.scope_id if scope else None,
        "scope_name": directory.name(scope.scope_type, scope.scope_id) if scope else None,
        "time": _time(event.created_ms),
        "received": rfc3339(event.received_ms),
        "deliveries": [_delivery(delivery) for delivery in event.deliveries],
    }


def event_shown(event: StoredEvent, directory: Directory) -> Row:
    """`events show`: the same with what sinks receive, and what the platform sent."""
    return event_row(event, directory) | {"event": parsed(event.body), "raw": parsed(event.raw)}


def dead_letter_row(letter: DeadLetter, directory: Directory) -> Row:
    """A row of `dead-letters list`."""
    return {
        "sink": letter.sink,
        "sink_configured": letter.configured,
        "event_id": letter.event_id,
        "tenant_key": letter.scope.tenant_key,
        "scope_type": letter.scope.scope_type,
        "scope_id": letter.scope.scope_id,
        "scope_name": directory.name(letter.scope.scope_type, letter.scope.scope_id),
        "attempts": letter.attempts,
        "given_up": rfc3339(letter.settled_ms),
        "last_error": letter.last_error,
    }


def attempt_shown(attempt: AttemptRecord, redact: Callable[[str], str] = str) -> Attempt:
    """One attempt, for people and scripts."""
    return Attempt(
        time=rfc3339(attempt.at_ms),
        outcome=attempt.outcome,
        status=attempt.status,
        duration_s=attempt.took_ms / 1000,
        error=None if attempt.error is None else redact(attempt.error),
    )


def parsed(raw: bytes | None) -> Any:
    """A document as JSON has it; one that is none, as text."""
    if raw is None:
        return None
    try:
        return json.loads(raw)
    except (ValueError, RecursionError):
        return raw.decode("utf-8", "backslashreplace")


def _delivery(delivery: DeliveryState) -> Row:
    waits = delivery.due_ms and not delivery.settled_ms
    return {
        "sink": delivery.sink,
        "state": delivery.state,
        "attempts": delivery.attempts,
        "next_attempt": rfc3339(delivery.due_ms) if waits else None,
        "settled": rfc3339(delivery.settled_ms) if delivery.settled_ms else None,
        "last_error": delivery.last_error,
        "last_attempts": [to_builtins(attempt_shown(attempt)) for attempt in delivery.history],
    }


def _time(created_ms: int | None) -> str | None:
    return None if created_ms is None else rfc3339(created_ms)
