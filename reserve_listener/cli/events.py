"""`reserve-listener events`: looking at what the store holds."""

import json
from typing import TYPE_CHECKING, Annotated, Any

import typer

from reserve_listener.cli.filters import (
    EventOption,
    ScopeOption,
    SinceOption,
    SinkOption,
    act,
    described,
    known_sink,
    make_filters,
)
from reserve_listener.cli.options import ConfigOption, JsonOption
from reserve_listener.cli.stores import locate_store
from reserve_listener.cli.tables import json_text, print_table
from reserve_listener.errors import ReserveListenerError
from reserve_listener.text import visible

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from reserve_listener.model import Filters, StoredEvent

FOLLOW_S = 0.5
FOLLOWED_AT_ONCE = 1_000

events_app = typer.Typer(help="Look at the events in the store.", no_args_is_help=True)


@events_app.command("list")
def list_events(
    config: ConfigOption = None,
    sink: SinkOption = None,
    scope: ScopeOption = None,
    since: SinceOption = None,
    event_id: EventOption = None,
    limit: Annotated[int, typer.Option("--limit", "-n", min=1, help="How many, the newest ones.")] = 20,
    unreadable: Annotated[
        bool, typer.Option("--unreadable", help="Only pushes that could not be normalised.")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """List the newest events, the oldest of them first.

    Example: reserve-listener events list -n 50 --since 2h
    """
    filters = make_filters(sink, scope, since, event_id)
    found = _read(config, filters, limit=limit, unreadable=unreadable)
    if as_json:
        typer.echo(json_text([_summary(event) for event in found]))
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
    found = _read(config, make_filters(None, None, None, event_id), limit=10)
    if not found:
        raise ReserveListenerError(
            f"there is no event {event_id} in the store. `events list` shows what there is."
        )
    whole = [_summary(event) | {"event": _parsed(event.body), "raw": _parsed(event.raw)} for event in found]
    if as_json:
        typer.echo(json_text(whole))
        return
    for event in whole:
        typer.echo(json_text(event))


@events_app.command("tail")
def tail_events(
    config: ConfigOption = None,
    sink: SinkOption = None,
    scope: ScopeOption = None,
    follow: Annotated[
        bool, typer.Option("--follow", "-f", help="Go on with what comes, until Ctrl-C.")
    ] = False,
    limit: Annotated[int, typer.Option("--limit", "-n", min=1, help="How many to begin with.")] = 10,
    as_json: JsonOption = False,
) -> None:
    """Print the newest events, a line each, and with -f those that come.

    --json: what sinks receive, as an array, and with -f one object a line.

    Example: reserve-listener events tail -f --scope omm_3c5dd7e09bac0c1758fcf9511bd1a771
    """
    from contextlib import suppress

    filters = make_filters(sink, scope, None, None)
    if as_json and not follow:
        bodies = [_body(event) for event in _read(config, filters, limit=limit)]
        typer.echo(json_text([body for body in bodies if body is not None]))
        return
    with suppress(KeyboardInterrupt):
        for event in _newest(config, filters, limit=limit, follow=follow):
            if not as_json:
                typer.echo("  ".join(visible(cell) for cell in _cells(event)))
            elif (body := _body(event)) is not None:
                typer.echo(json_text(body, indent=None))


def _body(event: "StoredEvent") -> Any:
    """What sinks receive; nothing of an unreadable push, which is said where it disturbs no program."""
    if event.body is None:
        typer.echo(f"unreadable, not shown: {event.event_id} (events show {event.event_id})", err=True)
        return None
    return json.loads(event.body)


@events_app.command("replay")
def replay_events(
    config: ConfigOption = None,
    sink: SinkOption = None,
    scope: ScopeOption = None,
    since: SinceOption = None,
    event_id: EventOption = None,
) -> None:
    """Deliver events once more, all that match, to every configured sink or to one.

    Receivers see the same ids again, and out of order: they compare `time`.

    Example: reserve-listener events replay --sink booking --since 2d
    """
    filters = make_filters(sink, scope, since, event_id)
    count = act(config, "replay", filters, question=f"Deliver all events {described(filters)} once more?")
    typer.echo(f"{count} deliveries will be made once more.")


def _newest(
    config: "Path | None", filters: "Filters", *, limit: int, follow: bool
) -> "Iterator[StoredEvent]":
    """The newest events, oldest first; with `follow` also those to come. Looks at the store twice a second."""
    import time

    from reserve_listener.store import StoreReader

    path = _store_path(config, filters)
    with StoreReader(path) as store:
        found = store.events(filters, limit=limit)[::-1]
    while True:
        yield from found
        if not follow:
            return
        after_seq = found[-1].seq if found else 0
        time.sleep(FOLLOW_S)
        with StoreReader(path) as store:
            while not (found := store.events_after(after_seq, filters, limit=FOLLOWED_AT_ONCE)):
                time.sleep(FOLLOW_S)


def _read(
    config: "Path | None", filters: "Filters", *, limit: int, unreadable: bool = False
) -> "list[StoredEvent]":
    """The newest events that match, the oldest of them first."""
    from reserve_listener.store import StoreReader

    with StoreReader(_store_path(config, filters)) as store:
        return store.events(filters, limit=limit, unreadable=unreadable)[::-1]


def _store_path(config: "Path | None", filters: "Filters") -> "Path":
    path = locate_store(config).store.path
    known_sink(path, filters.sink)
    return path


def _summary(event: "StoredEvent") -> dict[str, Any]:
    from reserve_listener.clock import rfc3339

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
    print_table(("received", "event", "scope", "deliveries"), map(_cells, events))


def _cells(event: "StoredEvent") -> tuple[str, str, str, str]:
    row = _summary(event)
    scope = f"{row['scope_type']} {row['scope_id']}" if event.scope else f"unreadable: {event.problem}"
    states = ", ".join(f"{delivery.sink} {delivery.state}" for delivery in event.deliveries) or "-"
    return row["received"], event.event_id, scope, states
