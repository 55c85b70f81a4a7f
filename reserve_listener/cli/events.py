"""`reserve-listener events`: looking at what the store holds, and delivering it once more."""

import json
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple

import typer

from reserve_listener.cli.acting import (
    Action,
    AllOption,
    Consent,
    DryRunOption,
    EventsOption,
    IdsArgument,
    YesOption,
    act,
)
from reserve_listener.cli.filters import (
    Asked,
    EventOption,
    ScopeOption,
    SinceOption,
    SinkOption,
    UntilOption,
)
from reserve_listener.cli.listing import Column, at_terminal, json_text, local_time, print_line, print_list
from reserve_listener.cli.options import ConfigOption, JsonOption
from reserve_listener.cli.stores import locate_store
from reserve_listener.cli.streams import until_interrupted
from reserve_listener.errors import ReserveListenerError
from reserve_listener.text import escaped_json, visible

if TYPE_CHECKING:
    from collections.abc import Iterator

    from reserve_listener.model import EventQuery, StoredEvent
    from reserve_listener.protocols.store import Directory

FOLLOW_S = 0.5
FOLLOWED_AT_ONCE = 1_000

COLUMNS = (
    Column("received", lambda row: row["received"], "time"),
    Column("event", lambda row: row["event_id"], "id"),
    Column("type", lambda row: row["scope_type"] or "unreadable"),
    Column("scope", lambda row: row["scope_id"], "id", person=lambda row: row["scope_name"]),
    Column("deliveries", lambda row: row["problem"] or _deliveries(row)),
    Column("summary", lambda row: row["summary"]),
)

REPLAY = Action(
    name="replay",
    path="/events/replay",
    one="delivery",
    many="deliveries",
    future="will be repeated",
    conditional="would be repeated",
)

events_app = typer.Typer(
    help="Look at the events in the store, or deliver them again.",
    epilog="Example: reserve-listener events list --since 2h",
    no_args_is_help=True,
)


@events_app.command("list")
def list_events(
    config: ConfigOption = None,
    sink: SinkOption = None,
    scope: ScopeOption = None,
    since: SinceOption = None,
    until: UntilOption = None,
    event_id: EventOption = None,
    limit: Annotated[
        int, typer.Option("--limit", "-n", metavar="NUMBER", min=1, help="How many of the newest to show.")
    ] = 20,
    unreadable: Annotated[
        bool, typer.Option("--unreadable", help="Only pushes that could not be normalised.")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """List the newest events in the order of their arrival.

    Example: reserve-listener events list -n 50 --since 2h
    """
    store = locate_store(config).store.url
    event_ids = () if event_id is None else (event_id,)
    asked = Asked(sink=sink, scope=scope, since=since, until=until, event_ids=event_ids)
    found = _read(store, asked.filters(store)[0], limit=limit, unreadable=unreadable)
    nothing = "No unreadable pushes." if unreadable else "No events."
    print_list(found.rows(), COLUMNS, as_json=as_json, nothing=nothing)


@events_app.command("show")
def show_event(
    event_id: Annotated[
        str,
        typer.Argument(
            metavar="EVENT_ID",
            help="The event's ID, as `events list` shows it, or an unambiguous beginning of it.",
        ),
    ],
    config: ConfigOption = None,
    as_json: JsonOption = False,
) -> None:
    """Show one event: what sinks receive, what the platform sent, and the state of its deliveries.

    Example: reserve-listener events show 5e3702a84e
    """
    from reserve_listener.web.rows import event_row, event_shown

    store = locate_store(config).store.url

    found = _read(store, Asked(event_ids=(event_id,)).filters(store)[0], limit=2)
    if not found.events:
        raise ReserveListenerError(
            f"the store has no event {event_id}. `events list` shows the events that it has."
        )
    event = found.events[-1]
    if len(found.events) > 1:
        typer.echo(
            f"note: other tenants have an event with this ID, too; this one is of tenant {event.tenant_key}",
            err=True,
        )
    if as_json:
        typer.echo(json_text(event_shown(event, found.directory)))
        return
    for line in _shown(event_row(event, found.directory), event):
        typer.echo(line)


@events_app.command("tail")
def tail_events(
    config: ConfigOption = None,
    sink: SinkOption = None,
    scope: ScopeOption = None,
    follow: Annotated[
        bool, typer.Option("--follow", "-f", help="Keep printing new events, until Ctrl-C.")
    ] = False,
    limit: Annotated[
        int, typer.Option("--limit", "-n", metavar="NUMBER", min=1, help="How many to start with.")
    ] = 10,
    as_json: JsonOption = False,
) -> None:
    """Print the newest events, one per line; with -f, also new ones as they arrive.

    With --json, print what sinks receive: an array, or with -f one object per line.

    Example: reserve-listener events tail -f --scope omm_3c5dd7e09b
    """
    store = locate_store(config).store.url
    # Followed is also a new room of which nothing has been heard.
    (filters,) = Asked(sink=sink, scope=scope).filters(store, unknown_scope=follow)
    if as_json and not follow:
        bodies = [_body(event) for event in _read(store, filters, limit=limit).events]
        typer.echo(json_text([body for body in bodies if body is not None]))
        return
    with until_interrupted():
        for found in _newest(store, filters, limit=limit, follow=follow):
            for row in () if as_json else found.rows():
                print_line(row, COLUMNS)
            for event in found.events if as_json else ():
                if (body := _body(event)) is not None:
                    typer.echo(json_text(body, indent=None))


def _body(event: "StoredEvent") -> Any:
    """What sinks receive; nothing of an unreadable push, which is said where it disturbs no program."""
    if event.body is None:
        typer.echo(f"unreadable, not shown: {event.event_id} (events show {event.event_id})", err=True)
        return None
    return json.loads(event.body)


@events_app.command("replay")
def replay_events(
    ids: IdsArgument = None,
    config: ConfigOption = None,
    sink: SinkOption = None,
    scope: ScopeOption = None,
    since: SinceOption = None,
    until: UntilOption = None,
    event_id: EventsOption = None,
    everything: AllOption = False,
    yes: YesOption = False,
    dry_run: DryRunOption = False,
) -> None:
    """Deliver events once more, to every sink whose filters match or to a single one.

    Select events by ID, with filters, or with --all, which asks first. Receivers see the same IDs again, and out of order, so
    they should compare `time`. If the configuration cannot be read, only earlier deliveries are repeated.

    \b
    Examples:
      reserve-listener events replay --sink booking --since 2d
      reserve-listener events replay 5e3702a84e --dry-run
    """
    events = (*(ids or ()), *(event_id or ()))
    asked = Asked(sink=sink, scope=scope, since=since, until=until, event_ids=events)
    act(REPLAY, asked, Consent(everything=everything, yes=yes, dry_run=dry_run), config)


class _Found(NamedTuple):
    """Events, the oldest first, and what rooms are called when they are shown."""

    events: "list[StoredEvent]"
    directory: "Directory"

    def rows(self) -> list[dict[str, Any]]:
        """As they are listed."""
        from reserve_listener.web.rows import event_row

        return [event_row(event, self.directory) for event in self.events]


def _newest(store: str, filters: "EventQuery", *, limit: int, follow: bool) -> "Iterator[_Found]":
    """The newest events; with `follow` also those to come. Looks at the store twice a second."""
    import time

    from reserve_listener.store import open_reader

    found = _read(store, filters, limit=limit)
    after_seq = 0
    while True:
        yield found
        if not follow:
            return
        after_seq = found.events[-1].seq if found.events else after_seq
        time.sleep(FOLLOW_S)
        with open_reader(store) as reader:
            events = reader.events_after(after_seq, filters, limit=FOLLOWED_AT_ONCE)
            if not events:  # a standby that was promoted may lack the last ones: then from now on
                after_seq = min(
                    after_seq, max((event.seq for event in reader.events(limit=1, content=False)), default=0)
                )
            found = _Found(events, reader.directory() if events else found.directory)


def _read(store: str, filters: "EventQuery", *, limit: int, unreadable: bool = False) -> _Found:
    """The newest events that match."""
    from reserve_listener.store import open_reader

    with open_reader(store) as reader:
        return _Found(reader.events(filters, limit=limit, unreadable=unreadable)[::-1], reader.directory())


def _deliveries(row: dict[str, Any]) -> str:
    return ", ".join(f"{delivery['sink']} {delivery['state']}" for delivery in row["deliveries"]) or "none"


def _attempt(attempt: dict[str, Any], *, person: bool) -> str:
    status = "" if attempt["status"] is None else f"HTTP {attempt['status']}"
    time = local_time(attempt["time"]) if person else attempt["time"]
    facts = (
        time,
        attempt["outcome"],
        status,
        f"{attempt['duration_s']:g} s",
        visible(attempt["error"] or ""),
    )
    return f"{'  attempt':<12}{'  '.join(filter(None, facts))}" if person else "\t".join(("attempt", *facts))


def _shown(row: dict[str, Any], event: "StoredEvent") -> "Iterator[str]":
    """For a person, name and value side by side and then the JSON; for a program, fields divided by tabs."""
    from reserve_listener.web.rows import parsed

    person = at_terminal()
    for name in (
        "event_id",
        "received",
        "time",
        "tenant_key",
        "scope_type",
        "scope_id",
        "scope_name",
        "state",
        "summary",
        "problem",
    ):
        if row[name] is None:
            continue
        text = local_time(row[name]) if person and name in {"received", "time"} else visible(row[name])
        yield f"{name:<12}{text}" if person else f"{name}\t{text}"
    for delivery in row["deliveries"]:
        when = delivery["settled"] or delivery["next_attempt"]
        facts = (
            delivery["sink"],
            delivery["state"],
            f"{delivery['attempts']} attempt{'s' * (delivery['attempts'] != 1)}"
            if person
            else str(delivery["attempts"]),
            local_time(when) if person and when else when or "",
            visible(delivery["last_error"] or ""),
        )
        yield (
            f"{'delivery':<12}{'  '.join(filter(None, facts))}" if person else "\t".join(("delivery", *facts))
        )
        yield from (_attempt(attempt, person=person) for attempt in delivery["last_attempts"])
    for name, title, raw in (
        ("event", "What sinks receive:", event.body),
        ("raw", "What the platform sent:", event.raw),
    ):
        if raw is not None and person:
            yield f"\n{title}\n{json_text(parsed(raw))}"
        elif raw is not None:
            yield f"{name}\t{escaped_json(json_text(parsed(raw), indent=None))}"
