"""`reserve-listener dead-letters`: deliveries that were given up."""

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

if TYPE_CHECKING:
    from reserve_listener.model import DeadLetter

dead_letters_app = typer.Typer(
    help="Deliveries that were given up: look at them, try them again, drop them.", no_args_is_help=True
)


@dead_letters_app.command("list")
def list_dead_letters(
    config: ConfigOption = None,
    sink: SinkOption = None,
    scope: ScopeOption = None,
    since: SinceOption = None,
    event_id: EventOption = None,
    limit: Annotated[int, typer.Option("--limit", "-n", min=1, help="How many at the most.")] = 1000,
    as_json: JsonOption = False,
) -> None:
    """List dead letters, those first that were given up first.

    Example: reserve-listener dead-letters list --sink booking --since 2d
    """
    from reserve_listener.store import StoreReader

    store = locate_store(config).store.path
    known_sink(store, sink)
    with StoreReader(store) as reader:
        found = reader.dead_letters(make_filters(sink, scope, since, event_id), limit=limit)
    rows = [_row(letter) for letter in found]
    if as_json:
        typer.echo(json_text(rows))
    elif rows:
        print_table(
            ("given up", "sink", "event", "scope", "attempts", "error"),
            [
                (
                    row["given_up"],
                    row["sink"],
                    row["event_id"],
                    f"{row['scope_type']} {row['scope_id']}",
                    str(row["attempts"]),
                    row["last_error"] or "",
                )
                for row in rows
            ],
        )
    else:
        typer.echo("No dead letters.")


@dead_letters_app.command("retry")
def retry_dead_letters(
    config: ConfigOption = None,
    sink: SinkOption = None,
    scope: ScopeOption = None,
    since: SinceOption = None,
    event_id: EventOption = None,
) -> None:
    """Try dead letters again, all that match, as if their events had just come. Of configured sinks only.

    Example: reserve-listener dead-letters retry --sink booking
    """
    filters = make_filters(sink, scope, since, event_id)
    count = act(config, "retry", filters, question=f"Try all dead letters {described(filters)} again?")
    typer.echo(f"{count} dead letters will be tried again.")


@dead_letters_app.command("drop")
def drop_dead_letters(
    config: ConfigOption = None,
    sink: SinkOption = None,
    scope: ScopeOption = None,
    since: SinceOption = None,
    event_id: EventOption = None,
) -> None:
    """Drop dead letters, all that match, for good. Their events stay in the store.

    Example: reserve-listener dead-letters drop --sink old-receiver
    """
    filters = make_filters(sink, scope, since, event_id)
    count = act(config, "drop", filters, question=f"Drop all dead letters {described(filters)}, for good?")
    typer.echo(f"{count} dead letters dropped.")


def _row(letter: "DeadLetter") -> dict[str, Any]:
    from reserve_listener.clock import rfc3339

    return {
        "sink": letter.sink,
        "sink_configured": letter.configured,
        "event_id": letter.event_id,
        "tenant_key": letter.scope.tenant_key,
        "scope_type": letter.scope.scope_type,
        "scope_id": letter.scope.scope_id,
        "attempts": letter.attempts,
        "given_up": rfc3339(letter.settled_ms),
        "last_error": letter.last_error,
    }
