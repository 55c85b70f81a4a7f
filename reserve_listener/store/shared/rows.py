"""Inserts many rows with few statements, which stay prepared."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Sequence

ROWS_AT_ONCE: Final = (128, 32, 8, 2, 1)
"""How many rows one statement inserts. Few sizes, so that the statements stay prepared."""


def insert(connection: sqlite3.Connection, statement: str, rows: Sequence[tuple[Any, ...]]) -> None:
    """Insert these rows. `statement`: an INSERT that ends with VALUES; the placeholders are added."""
    place = 0
    for size in ROWS_AT_ONCE:
        while len(rows) - place >= size:
            some = rows[place : place + size]
            connection.execute(_many(statement, len(some[0]), size), [value for row in some for value in row])
            place += size


@cache
def _many(statement: str, columns: int, rows: int) -> str:
    before, values, after = statement.partition("VALUES")
    row = f"({', '.join('?' * columns)})"
    return f"{before}{values} {', '.join([row] * rows)}{after}"
