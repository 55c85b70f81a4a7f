"""What commands print: tables for people, JSON for programs."""

import json
from collections.abc import Iterable, Sequence
from typing import Any

from reserve_listener.text import escaped_json, visible


def print_table(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """Print rows under bold headers. Cells are shown as they are: no markup, and nothing that drives the terminal."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, header_style="bold", pad_edge=False)
    for column in columns:
        table.add_column(column, overflow="fold")
    for row in rows:
        table.add_row(*(Text(visible(cell)) for cell in row))
    Console().print(table)


def json_text(value: Any, *, indent: int | None = 2) -> str:
    """A value as JSON that also a person may look at: what would drive a terminal is escaped."""
    return escaped_json(json.dumps(value, ensure_ascii=False, indent=indent))
