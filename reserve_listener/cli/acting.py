"""Commands that act on many deliveries: select, count, confirm where it matters, then act."""

# No `from __future__ import annotations`: Typer reads the types when they run.
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from reserve_listener.cli.filters import Asked, described
from reserve_listener.cli.stores import locate_store

if TYPE_CHECKING:
    from reserve_listener.config import Located
    from reserve_listener.model import EventQuery, SinkFilter

IdsArgument = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="EVENT_ID", help="Only these events: their IDs, or unambiguous beginnings of them."
    ),
]
EventsOption = Annotated[
    list[str] | None, typer.Option("--event-id", metavar="ID", help="The same as EVENT_ID; repeatable.")
]
AllOption = Annotated[
    bool, typer.Option("--all", help="Everything that the other filters match; asks first.")
]
YesOption = Annotated[bool, typer.Option("--yes", "-y", help="Go ahead without asking.")]
DryRunOption = Annotated[bool, typer.Option("--dry-run", help="Only show what would be done.")]


@dataclass(frozen=True, kw_only=True)
class Action:
    """What is done to whatever matches, in words."""

    name: str
    """As the store and the daemon call it."""
    path: str
    """Where the daemon is asked."""
    one: str
    many: str
    future: str
    """After a number: `will be retried`."""
    conditional: str
    asks: bool = False
    """Whether it is confirmed even with a filter, since nothing brings back what it takes away."""

    def number(self, count: int) -> str:
        """`3 dead letters`."""
        return f"{count} {self.one if count == 1 else self.many}"


@dataclass(frozen=True, kw_only=True)
class Consent:
    """What the options say about going ahead."""

    everything: bool
    yes: bool
    dry_run: bool


def act(action: Action, asked: Asked, consent: Consent, config: Path | None) -> None:
    """Choose, count, ask, do it (the running daemon does, or this process when none runs), and say what was done."""
    if asked == Asked() and not consent.everything:
        raise typer.BadParameter(f"name the events, give a filter, or use --all for all {action.many}")
    located = locate_store(config)
    selected = asked.filters(located.store.url, unknown_scope=True)  # nothing to act on is no failure
    count = _count(action, selected, located)
    which = ", ".join(described(asked))
    if not count:
        typer.echo(f"No {action.many} {which}".rstrip() + ": nothing to do.")
        return
    typer.echo(f"{action.number(count)} {which}".rstrip() + ".", err=True)
    if consent.dry_run:
        typer.echo(f"{action.number(count)} {action.conditional}.")
        return
    if (action.asks or consent.everything) and not consent.yes:
        _ask(f"{action.number(count)} {action.future}. Go ahead?")
    typer.echo(f"{action.number(_do(action, asked, selected, located))} {action.future}.")


def _ask(question: str) -> None:
    """Return when a person agrees; exit 1 when not, and 2, as a wrong use, when nobody can be asked."""
    if not (sys.stdin.isatty() and sys.stderr.isatty()):
        raise typer.BadParameter(
            "nothing was done: there is no terminal to ask for confirmation. Use --yes to go ahead, or --dry-run to see what would be done"
        )
    if not typer.confirm(question, err=True):
        typer.echo("Nothing was done.", err=True)
        raise typer.Exit(1)


def _count(action: Action, selected: "list[EventQuery]", located: "Located") -> int:
    from reserve_listener.store import backend

    store = backend(located.store.url)
    return sum(store.count_matching(action.name, filters, _filters(located)) for filters in selected)


def _do(action: Action, asked: Asked, selected: "list[EventQuery]", located: "Located") -> int:
    from reserve_listener.clock import rfc3339
    from reserve_listener.store import backend
    from reserve_listener.web.answers import Count, Selection
    from reserve_listener.web.client import post

    one = selected[0]
    selection = Selection(
        sink=one.sink,
        scope=one.scope_id,
        since=None if one.since_ms is None else rfc3339(one.since_ms),
        until=None if one.until_ms is None else rfc3339(one.until_ms),
        event_ids=[filters.event_id for filters in selected if filters.event_id is not None],
        all=asked == Asked(),
    )
    answer = post(located.store.url, action.path, Count, selection)
    if answer is not None:
        return answer.count
    store = backend(located.store.url)
    return sum(store.operate(action.name, filters, _filters(located)) for filters in selected)


def _filters(located: "Located") -> "dict[str, SinkFilter] | None":
    """Which sink takes what, if the configuration says so."""
    from reserve_listener.sinks.registry import filter_of

    return {sink.name: filter_of(sink) for sink in located.config.sinks} if located.config else None
