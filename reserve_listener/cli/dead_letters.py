"""`reserve-listener dead-letters`: deliveries that were given up."""

from typing import Annotated

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
from reserve_listener.cli.listing import Column, print_list
from reserve_listener.cli.options import ConfigOption, JsonOption
from reserve_listener.cli.stores import locate_store

dead_letters_app = typer.Typer(
    help="List, retry or drop failed deliveries. Dead letters are deliveries that the daemon gave up on.",
    epilog="Example: reserve-listener dead-letters list --sink booking",
    no_args_is_help=True,
)

COLUMNS = (
    Column("given up", lambda row: row["given_up"], "time"),
    Column("sink", lambda row: row["sink"]),
    Column("event", lambda row: row["event_id"], "id"),
    Column("type", lambda row: row["scope_type"]),
    Column("scope", lambda row: row["scope_id"], "id", person=lambda row: row["scope_name"]),
    Column("attempts", lambda row: str(row["attempts"])),
    Column("last error", lambda row: row["last_error"]),
)

RETRY = Action(
    name="retry",
    path="/dead-letters/retry",
    one="dead letter",
    many="dead letters",
    future="will be retried",
    conditional="would be retried",
)
DROP = Action(
    name="drop",
    path="/dead-letters/drop",
    one="dead letter",
    many="dead letters",
    future="dropped for good",
    conditional="would be dropped",
    asks=True,
)


@dead_letters_app.command("list")
def list_dead_letters(
    config: ConfigOption = None,
    sink: SinkOption = None,
    scope: ScopeOption = None,
    since: SinceOption = None,
    until: UntilOption = None,
    event_id: EventOption = None,
    limit: Annotated[
        int, typer.Option("--limit", "-n", metavar="NUMBER", min=1, help="How many to show at most.")
    ] = 1000,
    as_json: JsonOption = False,
) -> None:
    """List dead letters, oldest first.

    Example: reserve-listener dead-letters list --sink booking --since 2d
    """
    from reserve_listener.store import open_reader
    from reserve_listener.web.rows import dead_letter_row

    store = locate_store(config).store.url
    event_ids = () if event_id is None else (event_id,)
    asked = Asked(sink=sink, scope=scope, since=since, until=until, event_ids=event_ids)
    (filters,) = asked.filters(store)
    with open_reader(store) as reader:
        directory = reader.directory()
        rows = [
            dead_letter_row(letter, directory) for letter in reader.dead_letters(filters, limit=limit + 1)
        ]
    print_list(rows[:limit], COLUMNS, as_json=as_json, nothing="No dead letters.")
    if len(rows) > limit:
        typer.echo(f"note: these are the oldest {limit}; for more, use -n NUMBER", err=True)


@dead_letters_app.command("retry")
def retry_dead_letters(
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
    """Retry dead letters as if their events had just arrived. Only for sinks that are still configured.

    Select events by ID, with filters, or with --all, which asks first.

    \b
    Examples:
      reserve-listener dead-letters retry --sink booking --since 2d
      reserve-listener dead-letters retry --all --yes
    """
    events = (*(ids or ()), *(event_id or ()))
    asked = Asked(sink=sink, scope=scope, since=since, until=until, event_ids=events)
    act(RETRY, asked, Consent(everything=everything, yes=yes, dry_run=dry_run), config)


@dead_letters_app.command("drop")
def drop_dead_letters(
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
    """Drop dead letters for good. Their events stay in the store.

    Select events by ID, with filters, or with --all. Asks first, unless --yes is given.

    \b
    Examples:
      reserve-listener dead-letters drop --sink old-receiver --dry-run
      reserve-listener dead-letters drop --sink old-receiver --yes
    """
    events = (*(ids or ()), *(event_id or ()))
    asked = Asked(sink=sink, scope=scope, since=since, until=until, event_ids=events)
    act(DROP, asked, Consent(everything=everything, yes=yes, dry_run=dry_run), config)
