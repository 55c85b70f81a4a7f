"""Lists for persons and for pipes: one rule for every command.

On a terminal a table that fits its width, ids shortened, times local with their zone. Elsewhere a line each, no header,
fields divided by tabs, ids whole, times RFC 3339 in UTC. Nothing in a cell drives a terminal or ends a line.
"""

import json
import os
import sys
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import typer

from reserve_listener.text import colourful, escaped_json, visible

SHORT = 10
"""Characters of an id that are shown on a terminal, after its prefix: with hexadecimal digits a million ids stay apart."""

NARROWEST = 20
LONGEST_CELL = 10_000

Row = dict[str, Any]


@dataclass(frozen=True)
class Column:
    """A field of each row. `read` gives its text, as programs want it; None and "" are an empty cell."""

    title: str
    read: Callable[[Row], str | None]
    kind: Literal["text", "id", "time"] = "text"

    def for_program(self, row: Row) -> str:
        """The cell, whole."""
        return visible(self.read(row) or "", LONGEST_CELL)

    def for_person(self, row: Row) -> str:
        """The cell, as short as it can be."""
        text = self.read(row) or ""
        if self.kind == "time" and text:
            return local_time(text)
        return short_id(visible(text)) if self.kind == "id" else visible(text)


def print_list(rows: Sequence[Row], columns: Sequence[Column], *, as_json: bool, nothing: str) -> None:
    """The rows on standard output; `nothing`, on standard error, is what a person is told when there are none."""
    if as_json:
        typer.echo(json_text(rows))
    elif not rows:
        typer.echo(nothing, err=True)
    elif at_terminal():
        _print_table(rows, columns)
    else:
        for row in rows:
            print_line(row, columns)


def print_line(row: Row, columns: Iterable[Column]) -> None:
    """One row by itself, for lists that go on."""
    if at_terminal():
        typer.echo("  ".join(column.for_person(row) for column in columns))
    else:
        typer.echo("\t".join(column.for_program(row) for column in columns))


def json_text(value: Any, *, indent: int | None = 2) -> str:
    """A value as JSON that also a person may look at: what would drive a terminal is escaped."""
    return escaped_json(json.dumps(value, ensure_ascii=False, indent=indent))


def at_terminal() -> bool:
    """Whether a person reads standard output."""
    return sys.stdout.isatty()


def local_time(rfc3339: str) -> str:
    """A moment on the clock of whoever reads it, with the name of the zone."""
    from datetime import datetime

    return f"{datetime.fromisoformat(rfc3339).astimezone():%Y-%m-%d %H:%M:%S %Z}"


def short_id(text: str) -> str:
    """The beginning of an id, enough to tell it from others; commands take it as it stands, the dots included."""
    prefix = max(text[:SHORT].rfind("_"), text[:SHORT].rfind("-")) + 1
    length = prefix + SHORT
    return text if len(text) <= length + 2 else f"{text[:length]}…"


def _print_table(rows: Sequence[Row], columns: Sequence[Column]) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    plain = not colourful(sys.stdout)
    cells = [[column.for_person(row) for column in columns] for row in rows]
    width = _width()
    whole = _least_width(columns, cells) <= width
    table = Table(box=None, header_style="" if plain else "bold", pad_edge=False)
    for column in columns:
        table.add_column(
            column.title,
            overflow="fold",
            no_wrap=whole and column.kind != "text",
            min_width=len(column.title),
        )
    for line in cells:
        table.add_row(*map(Text, line))
    Console(width=width, highlight=False, color_system=None if plain else "auto").print(table)


def _least_width(columns: Sequence[Column], cells: Sequence[Sequence[str]]) -> int:
    """What it takes to keep ids and times on one line, while texts give way."""
    from rich.cells import cell_len

    return sum(
        max(len(column.title), *(cell_len(line[at]) for line in cells if column.kind != "text"), 0) + 1
        for at, column in enumerate(columns)
    )


def _width() -> int:
    columns = os.environ.get("COLUMNS", "")
    try:
        width = int(columns) if columns.isdecimal() else os.get_terminal_size(sys.stdout.fileno()).columns
    except OSError:
        width = 0
    return max(width or 80, NARROWEST)
