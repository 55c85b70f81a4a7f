"""The filters that several commands share, and acting on what they match."""

# No `from __future__ import annotations`: Typer reads the types when they run.
import re
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from reserve_listener.cli.stores import locate_store
from reserve_listener.errors import ReserveListenerError

if TYPE_CHECKING:
    from reserve_listener.model import Filters

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

_UNITS_S = {"s": 1, "m": 60, "h": 3600, "d": 86_400}


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
    from msgspec.structs import asdict

    from reserve_listener.control import ask
    from reserve_listener.store import operate

    located = locate_store(config)
    store = located.store.path
    known_sink(store, filters.sink)
    if sys.stdin.isatty() and sys.stdout.isatty():
        typer.confirm(question, abort=True)
    answer = ask(store, {"operation": operation, "filters": asdict(filters)})
    if answer is not None:
        return int(answer["count"])
    from reserve_listener.outlets import route_of

    routes = {sink.name: route_of(sink) for sink in located.config.sinks} if located.config else None
    return operate(store, operation, filters, routes)


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
    if match := re.fullmatch(r"(\d{1,9})([smhd])", text):
        return int((time.time() - int(match[1]) * _UNITS_S[match[2]]) * 1000)
    from datetime import datetime

    try:
        return int(datetime.fromisoformat(text).timestamp() * 1000)
    except (ValueError, OverflowError):
        raise typer.BadParameter(
            f'"{text}" is neither a span (45s, 30m, 2h, 7d) nor a time (2026-11-22T08:00)',
            param_hint="--since",
        ) from None
