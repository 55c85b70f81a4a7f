"""The filters that several commands share, and acting on what they match."""

# No `from __future__ import annotations`: Typer reads the types when they run.
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from reserve_listener.cli.stores import locate_store
from reserve_listener.errors import ReserveListenerError

if TYPE_CHECKING:
    from reserve_listener.control.answers import Selection
    from reserve_listener.model import Filters

PATHS = {"retry": "/dead-letters/retry", "drop": "/dead-letters/drop", "replay": "/events/replay"}

SinkOption = Annotated[str | None, typer.Option("--sink", metavar="NAME", help="Only of this sink.")]
ScopeOption = Annotated[
    str | None, typer.Option("--scope", metavar="ID", help="Only of this room or level (its scope_id).")
]
SinceOption = Annotated[
    str | None,
    typer.Option(
        "--since", metavar="WHEN", help="Only what was stored since: 45s, 30m, 2h, 7d, or 2026-11-22T08:00."
    ),
]
EventOption = Annotated[str | None, typer.Option("--event-id", metavar="ID", help="Only this event.")]


def make_filters(sink: str | None, scope: str | None, since: str | None, event_id: str | None) -> "Filters":
    """The options as `Filters`; a time that cannot be read is an error of usage (exit 2)."""
    from reserve_listener.model import Filters

    return Filters(sink=sink, scope_id=scope, event_id=event_id, since_ms=_since_ms(since) if since else None)


def known_sink(store: Path, name: str | None) -> None:
    """An error for a sink that the store never knew: nothing would match, silently."""
    from reserve_listener.store import StoreReader

    if name is None:
        return
    with StoreReader(store) as reader:
        names = [sink.name for sink in reader.sinks()]
    if name not in names:
        raise ReserveListenerError(
            f'the store knows no sink "{name}"; it knows {", ".join(names) or "none"}.'
        )


def act(config: Path | None, operation: str, filters: "Filters", *, question: str) -> int:
    """Have the running daemon do it, or do it here when none runs; how many deliveries it concerned.

    `question` is asked on a terminal only.
    """
    from reserve_listener.control.answers import Count
    from reserve_listener.control.client import post
    from reserve_listener.store import operate

    located = locate_store(config)
    store = located.store.path
    known_sink(store, filters.sink)
    if sys.stdin.isatty() and sys.stdout.isatty():
        typer.confirm(question, abort=True)
    answer = post(store, PATHS[operation], Count, _selection(filters))
    if answer is not None:
        return answer.count
    from reserve_listener.outlets import route_of

    routes = {sink.name: route_of(sink) for sink in located.config.sinks} if located.config else None
    return operate(store, operation, filters, routes)


def _selection(filters: "Filters") -> "Selection":
    """The filters as the daemon is asked for them; none of them means all."""
    from reserve_listener.clock import rfc3339
    from reserve_listener.control.answers import Selection
    from reserve_listener.model import Filters

    return Selection(
        sink=filters.sink,
        scope=filters.scope_id,
        since=None if filters.since_ms is None else rfc3339(filters.since_ms),
        event_ids=[] if filters.event_id is None else [filters.event_id],
        all=filters == Filters(),
    )


def described(filters: "Filters") -> str:
    """What the filters match, for the question: `of sink booking, since …`."""
    parts = [
        f"{name} {value}"
        for name, value in (
            ("of sink", filters.sink),
            ("of scope", filters.scope_id),
            ("of event", filters.event_id),
        )
        if value
    ]
    if filters.since_ms is not None:
        from reserve_listener.clock import rfc3339

        parts.append(f"since {rfc3339(filters.since_ms)}")
    return ", ".join(parts) or "that there are"


def _since_ms(text: str) -> int:
    from reserve_listener.clock import moment_ms

    try:
        return moment_ms(text)
    except ValueError as error:
        raise typer.BadParameter(str(error), param_hint="--since") from None
