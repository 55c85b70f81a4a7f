"""What is written for SQLite, as PostgreSQL says it."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import pytest

from reserve_listener.store.postgres import dialect, schema
from reserve_listener.store.shared import feed, history, naming, readings, rebuilding, sql
from tests.postgres import MISSING, SERVER, programs

if TYPE_CHECKING:
    from collections.abc import Iterator

    from reserve_listener.store.postgres.connection import Connection

MODULES = (feed, history, naming, readings, rebuilding, sql)

STATEMENTS = {
    f"{module.__name__.rpartition('.')[2]}.{name}": text
    for module in MODULES
    for name, text in vars(module).items()
    if name.isupper() and isinstance(text, str) and not name.startswith("_")
}

OF_FILES = {
    "COUNT_BATCHES_AFTER",
    "MOVE_INBOX",
    "INBOX_POSITION",
    "INBOX_ID",
    "NEWEST_BATCH",
    "PUT_BATCH",
    "BATCHES_AFTER",
} | {
    "TOUCH_INBOX",
    "FREE_BATCHES",
}
"""SQLite's inbox has no counterpart."""

NAMED = re.compile(r"%\((\w+)\)s")

pytestmark = pytest.mark.skipif(programs() is None, reason=MISSING)


@pytest.fixture(scope="module")
def connection() -> Iterator[Connection]:
    """To a database with the tables."""
    target = schema.target(SERVER.database())
    connection = target.connect()
    schema.migrate(connection, target)
    yield connection
    connection.close()


@pytest.mark.parametrize("name", [name for name in STATEMENTS if name.rpartition(".")[2] not in OF_FILES])
def test_each_statement_is_understood(connection: Connection, name: str) -> None:
    """PostgreSQL takes it: tables, columns, functions and the types of all values are found."""
    statement = STATEMENTS[name]
    if "VALUES" in statement and not re.search(r"VALUES\s*\(", statement):
        statement = re.sub("VALUES", f"VALUES ({', '.join('?' * _columns(statement))}) ", statement)
    text = dialect.translated(statement, ())[0]
    places: dict[str, int] = {}
    text = NAMED.sub(lambda found: f"${places.setdefault(found[1], len(places) + 1)}", text)
    while "%s" in text:
        places[f"place {len(places)}"] = 0
        text = text.replace("%s", f"${len(places)}", 1)
    with connection.transaction(reads=True):
        connection.query(f"PREPARE statement_{name.replace('.', '_')} AS {text}".replace("%%", "%"))
        connection.sync()


def _columns(statement: str) -> int:
    """Of an INSERT whose rows are put in behind it."""
    return statement[statement.index("(") : statement.index(")")].count(",") + 1


@pytest.mark.parametrize("text", ["a\0b", "\0", "\uf8fe", "\uf8fe0", "a\uf8fe1\0", "plain", ""])
def test_any_text_comes_back(text: str) -> None:
    """A NUL, which PostgreSQL does not take, and the character that stands for it."""
    (kept,) = dialect.values_of(sql.DISABLE_SINK, (text,))
    assert "\0" not in kept
    assert dialect.row_of((kept, 1), is_json=False) == (text, 1)
