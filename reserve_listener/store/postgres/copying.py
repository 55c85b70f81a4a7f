"""A store on a server, as rows: see `protocols.copying`.

What must stay true: while the table `copying` is there, no daemon takes the tables for a store (`schema`).
"""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final

import msgspec
import psycopg

from reserve_listener.errors import StoreError, StoreInUseError
from reserve_listener.protocols.copying import Place
from reserve_listener.store.postgres import dialect, looking, schema
from reserve_listener.store.postgres.connection import SCHEMA, told
from reserve_listener.store.postgres.database_clock import NOW
from reserve_listener.store.postgres.leases import LIVE
from reserve_listener.store.shared import sql
from reserve_listener.store.shared.tables import TABLES, count, page

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from reserve_listener.protocols.copying import Row, Table
    from reserve_listener.store.postgres.connection import Connection
    from reserve_listener.store.postgres.schema import Target

COUNT_TIMEOUT_S: Final = 600
"""A table of a hundred million rows is counted in that time."""

_TYPES: Final = """
SELECT attname, format_type(atttypid, NULL) FROM pg_attribute
WHERE attrelid = to_regclass(%s) AND attnum > 0 AND NOT attisdropped
"""

_TABLES: Final = f"""
SELECT c.relname FROM pg_class AS c JOIN pg_namespace AS n ON n.oid = c.relnamespace
WHERE n.nspname = '{SCHEMA}' AND c.relkind = 'r'
"""

_NUMBERS: Final = (
    "SELECT setval('events_seq', greatest(%s, 1), %s > 0)",
    *(
        f"SELECT setval(pg_get_serial_sequence('{name}', 'id'), coalesce(max(id), 1), max(id) IS NOT NULL) FROM {name}"
        for name in ("scopes", "sinks")
    ),
)


class _Tables:
    """Rows of a store."""

    def __init__(self, target: Target, connection: Connection) -> None:
        self.name = target.name
        self._connection = connection

    def count(self, table: Table) -> int:
        """See `Rows.count`."""
        with self._connection.transaction(reads=True, timeout_s=COUNT_TIMEOUT_S):
            return int(self._connection.query(count(table)).fetchone()[0])

    def page(self, table: Table, after: Row) -> list[Row]:
        """See `Rows.page`."""
        text = page(table, "%s", first=not after)
        values = [dialect.value_of(value) for value in after]
        with self._connection.transaction(reads=True):
            return [_plain(row) for row in self._connection.query(text, values).fetchall()]


class PostgresOriginal(_Tables):
    """See `protocols.copying.Original`. No replica may live when it is opened, nor when it is done with."""

    def newest_ever(self) -> int:
        """See `Original.newest_ever`."""
        with self._connection.transaction(reads=True):
            return int(self._connection.execute(sql.NEWEST_EVER).fetchone()[0])

    def alerts(self) -> bytes | None:
        """See `Original.alerts`."""
        with self._connection.transaction(reads=True):
            row = self._connection.query("SELECT content FROM alerts").fetchone()
        return None if row is None else bytes(row[0])

    def require_unused(self) -> None:
        """See `Original.require_unused`."""
        with self._connection.transaction(reads=True):
            live = self._connection.query(LIVE).fetchone()
        if live is not None:
            raise StoreInUseError(
                f"the store {self.name} is in use by a reserve-listener on {live[1]} (process {live[2]}), or was a moment ago."
                " Stop all replicas, wait for 20 s if one was killed, and run the command again."
            )


class PostgresCopy(_Tables):
    """See `protocols.copying.Copy`."""

    def __init__(self, target: Target, connection: Connection) -> None:
        super().__init__(target, connection)
        self._last = ("", "[]")
        self._types: dict[str, dict[str, str]] = {}

    def place(self) -> Place | None:
        """See `Copy.place`."""
        with self._connection.transaction(reads=True):
            name, after = self._last = self._connection.query("SELECT place, after FROM copying").fetchone()
        return Place(name, tuple(msgspec.json.decode(after))) if name else None

    def put(self, table: Table, rows: Sequence[Row], last: Place) -> None:
        """See `Copy.put`."""
        with self._connection.transaction():
            types = self._types_of(table)
            places = ", ".join(f"%s::{types[name]}[]" for name in table.columns)
            self._move(last)
            self._connection.query(
                f"INSERT INTO {table.name} ({', '.join(table.columns)}) OVERRIDING SYSTEM VALUE"
                f" SELECT * FROM unnest({places})",
                [
                    _column(values, types[name])
                    for name, values in zip(table.columns, zip(*rows, strict=True), strict=True)
                ],
            )

    def _types_of(self, table: Table) -> dict[str, str]:
        if table.name not in self._types:
            self._types[table.name] = dict(self._connection.query(_TYPES, (table.name,)).fetchall())
        return self._types[table.name]

    def _move(self, place: Place) -> None:
        values = (place.table, msgspec.json.encode(place.after).decode())
        moved = self._connection.query(
            "UPDATE copying SET place = %s, after = %s WHERE place = %s AND after = %s",
            [dialect.value_of(value) for value in (*values, *self._last)],
        )
        if moved.rowcount != 1:
            raise StoreError(f"another `store copy` is copying into {self.name}. Let it finish.")
        self._last = values

    def finish(self, newest_ever: int, alerts: bytes | None) -> None:
        """See `Copy.finish`. That each sink was had just now keeps a first replica with fewer of them from burying the rest."""
        with self._connection.transaction(timeout_s=COUNT_TIMEOUT_S):
            self._connection.query(_NUMBERS[0], (newest_ever, newest_ever))
            for statement in _NUMBERS[1:]:
                self._connection.query(statement)
            self._connection.query(f"UPDATE sinks SET had_ms = {NOW}")
            if alerts is not None:
                looking.keep_alerts(alerts, self._connection)
            for table in TABLES:
                self._connection.query(f"ANALYZE {table.name}")

    def discard(self) -> None:
        """See `Copy.discard`."""
        with self._connection.transaction():
            names = [name for (name,) in self._connection.query(_TABLES).fetchall()]
            self._connection.query(f"DROP TABLE {', '.join(names)} CASCADE")
            self._connection.query("DROP SEQUENCE events_seq")

    def publish(self) -> None:
        """See `Copy.publish`."""
        with self._connection.transaction():
            self._connection.query("DROP TABLE copying")


@contextmanager
def original(target: Target) -> Iterator[PostgresOriginal]:
    """The store in this database. Raises `StoreInUseError` while a replica lives."""
    with _connected(target) as connection:
        with connection.transaction(reads=True):
            schema.require_version(connection, target)
        store = PostgresOriginal(target, connection)
        store.require_unused()
        yield store


@contextmanager
def copy_of(target: Target, source: str) -> Iterator[PostgresCopy]:
    """A copy that is made where there is no store yet, or goes on where it was broken off."""
    with _connected(target) as connection:
        with connection.transaction(reads=True):
            begun = schema.copied_from(connection)
            there = begun is None and connection.query(_TABLES).fetchone()
        if there:
            raise StoreError(
                f"{target.name} has tables in the schema {SCHEMA} already, and they are not overwritten. Name another database;"
                f" or, if nobody needs them, remove them: DROP SCHEMA {SCHEMA} CASCADE"
            )
        if begun is None:
            schema.migrate(connection, target, source=source)
        elif begun != source:
            raise StoreError(
                f"{target.name} holds part of a copy of {begun}. Finish that one by the same command, or remove it:"
                f" DROP SCHEMA {SCHEMA} CASCADE"
            )
        yield PostgresCopy(target, connection)


@contextmanager
def _connected(target: Target) -> Iterator[Connection]:
    connection = target.connect()
    try:
        yield connection
    except psycopg.Error as error:
        raise StoreError(f"the store {target.name} failed: {told(error)}") from error
    finally:
        connection.close()


def _plain(row: Row) -> Row:
    return tuple([int(value) if value is True or value is False else value for value in row])


def _column(values: Sequence[Any], kind: str) -> list[Any]:
    if kind == "boolean":
        return [bool(value) for value in values]
    return [dialect.value_of(value) for value in values]
