"""What the commands say of rooms and levels: which one is meant, and its row."""

import json
from typing import TYPE_CHECKING, Any

import typer

from reserve_listener.cli.filters import whole_id
from reserve_listener.errors import ReserveListenerError

if TYPE_CHECKING:
    from reserve_listener.model import HistoryEntry, Known, Scope
    from reserve_listener.protocols.store import StoreReader

Row = dict[str, Any]


def scope_id_of(reader: "StoreReader", text: str) -> str:
    """The id of the room or level that a person means: the id, or an unambiguous beginning of it."""
    return whole_id(reader, "scope", text)


def nothing_known(reader: "StoreReader", text: str) -> ReserveListenerError:
    """Why there is nothing to show."""
    if reader.is_rebuilding():
        return ReserveListenerError(
            f"nothing is known of {text} yet: the daemon is still going through the events of the older store."
        )
    return ReserveListenerError(f"nothing is known of {text}. `scopes list` shows of what something is.")


def mention_rebuilding(reader: "StoreReader") -> None:
    """What is shown is not all."""
    if reader.is_rebuilding():
        typer.echo(
            "note: the daemon is still going through the events of the older store; there is more to come",
            err=True,
        )


def scope_row(scope: "Scope", known: "Known", language: str) -> Row:
    """A row of `scopes list`."""
    from reserve_listener.clock import rfc3339
    from reserve_listener.intake.summary import limits

    return {
        "scope_id": scope.scope_id,
        "scope_type": scope.scope_type,
        "tenant_key": scope.tenant_key,
        "name": None,
        "path": None,
        "revision": known.revision,
        "time": None if known.created_ms is None else rfc3339(known.created_ms),
        "summary": limits(json.loads(known.config), language),
    }


def history_row(entry: "HistoryEntry", language: str) -> Row:
    """A row of `history`, its sentence in this language."""
    from reserve_listener.clock import rfc3339
    from reserve_listener.intake.summary import summarise

    changes = None if entry.changes is None else json.loads(entry.changes)
    return {
        "event_id": entry.event_id,
        "time": None if entry.created_ms is None else rfc3339(entry.created_ms),
        "received": rfc3339(entry.received_ms),
        "scope_id": entry.scope.scope_id,
        "scope_type": entry.scope.scope_type,
        "scope_name": None,
        "revision": entry.revision,
        "changes": changes,
        "summary": summarise(changes, json.loads(entry.config), language),
        "superseded": entry.revision is None,
        "origin": entry.origin,
    }
