"""`reserve-listener events`: looking at what the store holds."""

import json
from typing import TYPE_CHECKING, Annotated, Any

import typer

from reserve_listener.cli.options import ConfigOption, JsonOption
from reserve_listener.errors import ReserveListenerError

if TYPE_CHECKING:
    from pathlib import Path

    from reserve_listener.model import StoredEvent

events_app = typer.Typer(help="Look at the events in the store.", no_args_is_help=True)


@events_app.command("list")
def list_events(
    config: ConfigOption = None,
    limit: Annotated[int, typer.Option("--limit", "-n", min=1, help="How many, the newest ones.")] = 20,
    unreadable: Annotated[
        bool, typer.Option("--unreadable", help="Only pushes that could not be normalised.")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """List the newest events, the oldest of them first.

    Example: reserve-listener events list -n 50
    """
    found = _read(config, limit=limit, unreadable=unreadable)[::-1]
    if as_json:
        typer.echo(json.dumps([_summary(event) for event in found], ensure_ascii=False, indent=2))
        return
    if not found:
        typer.echo("No events." if not unreadable else "No unreadable pushes.")
        return
    _table(found)


@events_app.command("show")
def show_event(
    event_id: Annotated[str, typer.Argument(help="The event's id, as in `events list`.")],
    config: ConfigOption = None,
    as_json: JsonOption = False,
) -> None:
    """Show one event: what sinks receive, what the platform sent, and how far it has come.

    Example: reserve-listener events show 5e3702a84e847582be8db7fb73283c02
    """
    found = _read(config, limit=10, event_id=event_id)
    if not found:
        raise ReserveListenerError(
            f"there is no event {event_id} in the store. `events list` shows what there is."
        )
    whole = [_summary(event) | {"event": _parsed(event.body), "raw": _parsed(event.raw)} for event in found]
    if as_json:
        typer.echo(json.dumps(whole, ensure_ascii=False, indent=2))
        return
    for event in whole:
        typer.echo(json.dumps(event, ensure_ascii=False, indent=2))


def _read(
    config: "Path | None", *, limit: int, event_id: str | None = None, unreadable: bool = False
) -> "list[StoredEvent]":
    from reserve_listener.config import load
    from reserve_listener.store import StoreReader

    with StoreReader(load(config).store.path) as store:
        return store.events(limit=limit, event_id=event_id, unreadable=unreadable)


def _summary(event: "StoredEvent") -> dict[str, Any]:
    from reserve_listener.normalize import rfc3339

    return {
        "seq": event.seq,
        "event_id": event.event_id,
        "state": "unreadable" if event.body is None else "readable",
        "problem": event.problem,
        "tenant_key": event.tenant_key,
        "scope_type": event.scope.scope_type if event.scope else None,
        "scope_id": event.scope.scope_id if event.scope else None,
        "time": rfc3339(event.created_ms) if event.created_ms is not None else None,
        "received": rfc3339(event.received_ms),
        "deliveries": [
            {
                "sink": delivery.sink,
                "state": delivery.state,
                "attempts": delivery.attempts,
                "next_attempt": rfc3339(delivery.due_ms)
                if delivery.due_ms and not delivery.settled_ms
                else None,
                "settled": rfc3339(delivery.settled_ms) if delivery.settled_ms else None,
                "last_error": delivery.last_error,
            }
            for delivery in event.deliveries
        ],
    }


def _parsed(raw: bytes | None) -> Any:
    if raw is None:
        return None
    try:
        return json.loads(raw)
    except (ValueError, RecursionError):
        return raw.decode("utf-8", "backslashreplace")


def _table(events: "list[StoredEvent]") -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, header_style="bold", pad_edge=False)
    for column in ("received", "event", "scope", "deliveries"):
        table.add_column(column, overflow="fold")
    for event in events:
        row = _summary(event)
        scope = f"{row['scope_type']} {row['scope_id']}" if event.scope else f"unreadable: {event.problem}"
        states = ", ".join(f"{delivery.sink} {delivery.state}" for delivery in event.deliveries) or "-"
        # Text, not markup: what the platform sends is shown as it is.
        table.add_row(*(Text(_printable(cell)) for cell in (row["received"], event.event_id, scope, states)))
    Console().print(table)


def _printable(text: str) -> str:
    """Without control characters: a payload must not drive the terminal."""
    return "".join(character if character.isprintable() else "�" for character in text)
