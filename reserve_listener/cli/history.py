"""`reserve-listener history`: the changes of a room or level."""

from collections.abc import Iterator, Mapping
from itertools import islice
from typing import Annotated, Any

import typer

from reserve_listener.cli.filters import SinceOption, UntilOption, moment
from reserve_listener.cli.listing import Column, at_terminal, local_time, print_list
from reserve_listener.cli.options import ConfigOption, JsonOption
from reserve_listener.cli.stores import locate_store
from reserve_listener.text import visible

ScopeArgument = Annotated[
    str,
    typer.Argument(
        metavar="SCOPE",
        help="The room or level: its name or scope_id, or an unambiguous beginning of either.",
    ),
]

COLUMNS = (
    Column("time", lambda row: row["time"] or row["received"], "time"),
    Column("revision", lambda row: "late" if row["superseded"] else str(row["revision"])),
    Column("event", lambda row: row["event_id"], "id"),
    Column("summary", lambda row: row["summary"]),
)


def history(
    scope: ScopeArgument,
    config: ConfigOption = None,
    since: SinceOption = None,
    until: UntilOption = None,
    limit: Annotated[
        int | None,
        typer.Option(
            "--limit", "-n", metavar="NUMBER", min=1, help="Show only this many, the newest. Default: all."
        ),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Show the changes of a room or level, the newest first.

    The sentences are in the language of the configuration (lark.language).

    Example: reserve-listener history omm_3c5dd7e09b --since 30d
    """
    from reserve_listener.cli.known import called, mention_rebuilding, nothing_known, scope_id_of
    from reserve_listener.store import open_reader
    from reserve_listener.web.rows import history_row

    located = locate_store(config)
    since_ms, until_ms = moment(since, "--since"), moment(until, "--until")
    with open_reader(located.store.url) as reader:
        scope_id = scope_id_of(reader, scope)
        entries = reader.history(scope_id, since_ms=since_ms, until_ms=until_ms)
        directory = reader.directory()
        rows = [history_row(entry, located.language, directory) for entry in islice(entries, limit)]
        if not rows and not reader.known_scopes(scope_id):
            raise nothing_known(reader, scope)
        mention_rebuilding(reader)
    if rows and at_terminal() and not as_json:
        if title := called(directory, rows[0]["scope_type"], rows[0]["scope_id"]):
            typer.echo(_style(title, bold=True))
        for row in rows:
            for line in _told(row, located.language, directory.people):
                typer.echo(line)
    else:
        print_list(rows, COLUMNS, as_json=as_json, nothing="Nothing in that time.")


def _told(row: dict[str, Any], language: str, names: Mapping[str, str]) -> Iterator[str]:
    """For a person: the sentence, and below it each value before and after."""
    late = " (late, superseded)" if row["superseded"] else f" #{row['revision']}"
    found = "" if row["origin"] is None else " (found by asking)"
    yield f"{_style(local_time(row['time'] or row['received']), dim=True)}{late}{found}  {_style(row['summary'], bold=True)}"
    for change in row["changes"] or ():
        moot = "" if change.get("effective", True) else _style("  (no effect now)", dim=True)
        yield f"    {_name(change['path'], language)}: {_sides(change, language, names)}{moot}"


def _name(path: str, language: str) -> str:
    from reserve_listener.intake.terms import BY_PATH

    return BY_PATH[path].heading(language) if path in BY_PATH else visible(path)


def _sides(change: dict[str, Any], language: str, names: Mapping[str, str]) -> str:
    from reserve_listener.intake.terms import BY_PATH

    if "added" in change:
        term = BY_PATH[change["path"]]
        added = [_style(f"+ {visible(term.entry(entry, names))}", fg="green") for entry in change["added"]]
        removed = [_style(f"- {visible(term.entry(entry, names))}", fg="red") for entry in change["removed"]]
        return "  ".join(added + removed)
    before, after = (_value(change, side, language) for side in ("before", "after"))
    return f"{_style(before, fg='red')} → {_style(after, fg='green')}"


def _value(change: dict[str, Any], side: str, language: str) -> str:
    from reserve_listener.cli.listing import json_text
    from reserve_listener.intake.terms import BY_PATH
    from reserve_listener.intake.words import LANGUAGES

    if side not in change:
        return LANGUAGES[language].not_set
    term = BY_PATH.get(change["path"])
    text = json_text(change[side], indent=None) if term is None else term.show(change[side], language)
    return visible(text)


def _style(text: str, **style: Any) -> str:
    import sys

    from reserve_listener.text import colourful

    return typer.style(text, **style) if colourful(sys.stdout) else text
