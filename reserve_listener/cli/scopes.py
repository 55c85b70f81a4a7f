"""`reserve-listener scopes`: the limits of rooms and levels, as they are known."""

import json
from typing import TYPE_CHECKING, Annotated, Any

import typer

from reserve_listener.cli.filters import moment
from reserve_listener.cli.history import ScopeArgument
from reserve_listener.cli.known import PATH
from reserve_listener.cli.listing import (
    Column,
    Row,
    at_terminal,
    json_text,
    local_time,
    print_list,
    short_id,
)
from reserve_listener.cli.options import ConfigOption, JsonOption
from reserve_listener.cli.stores import locate_store
from reserve_listener.errors import ReserveListenerError
from reserve_listener.text import visible

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from reserve_listener.model import Known, KnownScope, Scope
    from reserve_listener.protocols.store import Directory, StoreReader

COLUMNS = (
    Column("type", lambda row: row["scope_type"]),
    Column("revision", lambda row: str(row["revision"])),
    Column("time", lambda row: row["time"], "time"),
    Column("limits", lambda row: row["summary"]),
)

FORMULA = ("=", "+", "-", "@", "\t", "\r")
"""A spreadsheet takes a cell that begins so for a formula, and an id is the platform's text."""

scopes_app = typer.Typer(
    help="Show the limits of rooms and levels, now or as they were.",
    epilog="Example: reserve-listener scopes show omm_3c5dd7e09b --at 2026-11-01",
    no_args_is_help=True,
)


@scopes_app.command("list")
def list_scopes(config: ConfigOption = None, as_json: JsonOption = False) -> None:
    """List all known rooms and levels with their limits in words.

    Example: reserve-listener scopes list
    """
    from reserve_listener.web.rows import scope_row

    language, scopes, directory = _all(config)
    rows = [scope_row(one.scope, one.known, language, directory) for one in scopes]

    def name(row: "Row") -> str | None:
        shown: str | None = row["name"]
        if not directory.is_gone(row["scope_type"], row["scope_id"]):
            return shown
        return f"{shown or short_id(row['scope_id'])} (gone)"

    columns = (Column("scope", lambda row: row["scope_id"], "id", person=name), *COLUMNS)
    print_list(rows, columns, as_json=as_json, nothing="Nothing is known yet.")


@scopes_app.command("show")
def show_scope(
    scope: ScopeArgument,
    config: ConfigOption = None,
    at: Annotated[
        str | None,
        typer.Option(
            "--at", metavar="WHEN", help="As the limits were at that time: 7d ago, or 2026-11-01T08:00."
        ),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Show the limits of one room or level, now or as they were.

    Example: reserve-listener scopes show omm_3c5dd7e09b --at 30d
    """
    from reserve_listener.cli.known import scope_id_of
    from reserve_listener.store import open_reader
    from reserve_listener.web.rows import scope_shown

    located = locate_store(config)
    at_ms = moment(at, "--at")
    with open_reader(located.store.url) as reader:
        whose, known = _known(reader, scope_id_of(reader, scope), at, at_ms)
        directory = reader.directory()
    row = scope_shown(whose, known, located.language, directory)
    if as_json:
        typer.echo(json_text(row))
        return
    for name, text in _facts(row, located.language, directory):
        typer.echo(f"{name:<28}{visible(text)}" if at_terminal() else f"{name}\t{visible(text)}")


@scopes_app.command("export")
def export_scopes(
    as_csv: Annotated[
        bool, typer.Option("--csv", help="As CSV for spreadsheets: UTF-8, a row for each room or level.")
    ] = False,
    config: ConfigOption = None,
) -> None:
    """Write the limits of all rooms and levels to standard output, as a table.

    Example: reserve-listener scopes export --csv > rooms.csv
    """
    if not as_csv:
        raise typer.BadParameter("choose a format: --csv is the only one", param_hint="--csv")
    language, scopes, directory = _all(config)
    _write_csv(_table(scopes, language, directory))


def _all(config: Any) -> "tuple[str, list[KnownScope], Directory]":
    """By their names from the top, as the page lists them; and what they are called."""
    from reserve_listener.cli.known import mention_rebuilding
    from reserve_listener.store import open_reader

    located = locate_store(config)
    with open_reader(located.store.url) as reader:
        mention_rebuilding(reader)
        scopes, directory = reader.known_scopes(), reader.directory()
    scopes.sort(key=lambda one: (_along(one.scope, directory), one.scope.tenant_key))
    return located.language, scopes, directory


def _along(scope: "Scope", directory: "Directory") -> tuple[Any, ...]:
    from reserve_listener.intake.directory import along

    kind, scope_id = scope.scope_type, scope.scope_id
    name = directory.name(kind, scope_id)
    names = [] if name is None else [*(directory.path(kind, scope_id) or ()), name]
    return along(names, scope_id, named=name is not None, gone=directory.is_gone(kind, scope_id))


def _known(reader: "StoreReader", scope_id: str, at: str | None, at_ms: int | None) -> "tuple[Scope, Known]":
    from reserve_listener.cli.known import nothing_known
    from reserve_listener.model import Known

    scopes = reader.known_scopes(scope_id)
    if not scopes:
        raise nothing_known(reader, scope_id)
    if len(scopes) > 1:
        typer.echo(
            "note: other rooms or levels have this ID, too (of another type or tenant); this is the one with the"
            " latest event",
            err=True,
        )
    if at_ms is None:
        return scopes[0].scope, scopes[0].known
    entry = reader.known_at(scope_id, at_ms)
    if entry is None or entry.revision is None:
        raise ReserveListenerError(
            f"the limits of {scope_id} at {at} are not known: its history begins later. `history {scope_id}` shows when."
        )
    return entry.scope, Known(entry.revision, entry.created_ms, entry.config)


def _facts(row: dict[str, Any], language: str, directory: "Directory") -> "Iterator[tuple[str, str]]":
    """Name and value, the limits in the terms of the console; what is in the configuration beside them as it is."""
    from reserve_listener.intake.changes import FIELDS, path_of
    from reserve_listener.intake.terms import TERMS

    person = at_terminal()
    for name in ("scope_id", "scope_type", "name", "path", "tenant_key", "revision", "time", "summary"):
        if row[name] is not None:
            yield name, _fact(row[name], as_time=person and name == "time")
    if row["gone"]:
        yield "gone", "true"
    config = row["config"]
    for term in TERMS:
        names = directory.people if person else None
        yield term.heading(language) if person else term.path, term.read(config, language, names)
    for key, value in config.items():
        beside = {key: value} if key not in FIELDS or not isinstance(value, dict) else None
        for name, other in (beside or value).items():
            path = path_of(name) if beside else path_of(key, name)
            if beside or name not in FIELDS[key]:
                yield path, json_text(other, indent=None)


def _fact(value: Any, *, as_time: bool) -> str:
    if isinstance(value, list):
        return PATH.join(value)
    return local_time(value) if as_time else str(value)


def _table(scopes: "Iterable[KnownScope]", language: str, directory: "Directory") -> "Iterator[list[str]]":
    from reserve_listener.clock import rfc3339
    from reserve_listener.intake.terms import ABOUT, SCOPE_TYPES, TERMS

    about = {name: names[language] for name, names in ABOUT.items()}
    yield [
        *(about[name] for name in ("scope_id", "scope_type", "name", "path")),
        *(term.heading(language) for term in TERMS),
        *(about[name] for name in ("revision", "time")),
    ]
    for one in scopes:
        config = json.loads(one.known.config)
        time = "" if one.known.created_ms is None else rfc3339(one.known.created_ms)
        scope = one.scope
        kind = SCOPE_TYPES[language].get(scope.scope_type, scope.scope_type)
        name = directory.name(scope.scope_type, scope.scope_id) or ""
        path = PATH.join(directory.path(scope.scope_type, scope.scope_id) or ())
        yield [
            *(scope.scope_id, kind, name, path),
            *(term.read(config, language) for term in TERMS),
            *(str(one.known.revision), time),
        ]


def _write_csv(table: "Iterable[list[str]]") -> None:
    """UTF-8 whatever the locale says, with the mark by which spreadsheets know it."""
    import csv
    import io
    import sys

    sys.stdout.flush()
    text = io.TextIOWrapper(sys.stdout.buffer, encoding="utf-8-sig", newline="", write_through=True)
    writer = csv.writer(text)
    for row in table:
        writer.writerow([f"'{cell}" if cell.startswith(FORMULA) else cell for cell in map(visible, row)])
    text.detach()
