"""Lists for people and for pipes: one rule for every command.

On a terminal a table that fits its width, ids shortened, times local with their zone. Elsewhere a line each, no header,
fields divided by tabs, ids whole, times RFC 3339 in UTC. Nothing in a cell drives a terminal or ends a line.
"""

import json
import os
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import typer

from reserve_listener.text import colourful, escaped_json, visible

SHORT = 10
"""Characters of an id that are shown on a terminal, after its prefix: with hexadecimal digits a million ids stay apart."""

NARROWEST = 20
GAP = "  "
INDENT = "    "
WIDE_ENOUGH = 40
"""The last column, the longest text of a row, gets a line of its own where it would be narrower than this and than it is."""

LONGEST_CELL = 10_000

Row = dict[str, Any]


@dataclass(frozen=True)
class Column:
    """A field of each row. `read` gives its text, as programs want it; None and "" are an empty cell.

    `person` gives what a person sees in its place, where there is something: a room's name instead of its id.
    """

    title: str
    read: Callable[[Row], str | None]
    kind: Literal["text", "id", "time"] = "text"
    person: Callable[[Row], str | None] | None = None

    def kind_of(self, rows: Sequence[Row]) -> str:
        """What a person sees in it: a name is a text, and may wrap."""
        return "text" if self.person is not None and any(map(self.person, rows)) else self.kind

    def for_program(self, row: Row) -> str:
        """The cell, whole."""
        return visible(self.read(row) or "", LONGEST_CELL)

    def for_person(self, row: Row) -> str:
        """The cell, as short as it can be."""
        if self.person is not None and (shown := self.person(row)):
            return visible(shown)
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
    from rich.cells import cell_len

    width = _width()
    titles = [column.title for column in columns]
    cells = [[column.for_person(row) for column in columns] for row in rows]
    longest = [max(map(cell_len, one)) for one in zip(titles, *cells, strict=True)]
    beneath = _room_for_last(longest, width) < min(longest[-1], WIDE_ENOUGH)
    kinds = [column.kind_of(rows) for column in columns]
    widths = _widths(kinds, longest[:-1] if beneath else longest, width)
    heading = _lines(titles, widths, width, beneath=beneath)
    bold = colourful(sys.stdout)
    typer.echo("\n".join(f"\x1b[1m{line}\x1b[0m" if bold else line for line in heading))
    for row in cells:
        typer.echo("\n".join(_lines(row, widths, width, beneath=beneath)))


def _room_for_last(longest: Sequence[int], width: int) -> int:
    return width - sum(longest[:-1]) - len(GAP) * (len(longest) - 1)


def _widths(kinds: Sequence[str], longest: Sequence[int], width: int) -> list[int]:
    """As wide as their longest cell, while there is room. Texts make room first, then times, then all; the widest first."""
    widths = list(longest)
    missing = sum(widths) + len(GAP) * (len(widths) - 1) - width
    texts, times = ([at for at in range(len(widths)) if kinds[at] == kind] for kind in ("text", "time"))
    for giving, least in ((texts, 10), (times, len("04:17:51 CEST")), (range(len(widths)), 2)):
        while missing > 0 and giving and widths[widest := max(giving, key=widths.__getitem__)] > least:
            widths[widest] -= 1
            missing -= 1
    return widths


def _lines(cells: Sequence[str], widths: Sequence[int], width: int, *, beneath: bool) -> Iterator[str]:
    """A row; `beneath`: with its last cell on lines of its own."""
    from itertools import zip_longest

    from rich.cells import set_cell_size

    wrapped = [_wrapped(cell, room) for cell, room in zip(cells, widths, strict=False)]
    for line in zip_longest(*wrapped, fillvalue=""):
        yield GAP.join(map(set_cell_size, line, widths)).rstrip()
    if beneath and cells[-1]:
        yield from (f"{INDENT}{line}" for line in _wrapped(cells[-1], width - len(INDENT)))


def _wrapped(text: str, width: int) -> list[str]:
    """Lines of at most `width` columns, broken between words where that is possible."""
    from rich.cells import cell_len, chop_cells

    lines = [""]
    for word in text.split(" "):
        if cell_len(lines[-1]) + 1 + cell_len(word) <= width and lines[-1]:
            lines[-1] += f" {word}"
        else:
            lines += chop_cells(word, width)
    return lines[1:] or lines


def _width() -> int:
    columns = os.environ.get("COLUMNS", "")
    try:
        width = int(columns) if columns.isdecimal() else os.get_terminal_size(sys.stdout.fileno()).columns
    except OSError:
        width = 0
    return max(width or 80, NARROWEST)
