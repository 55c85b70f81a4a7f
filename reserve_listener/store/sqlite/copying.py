"""A store in a file, as rows: see `protocols.copying`.

What must stay true: a copy gets the name of the store only once it is complete. Until then it is a separate file beside it.
"""

from __future__ import annotations

import os
import sqlite3
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Final

import msgspec

from reserve_listener import ownership
from reserve_listener.errors import StoreError
from reserve_listener.protocols.copying import Place
from reserve_listener.store.shared import sql
from reserve_listener.store.shared.tables import count, page
from reserve_listener.store.sqlite import schema
from reserve_listener.store.sqlite.backup import sync
from reserve_listener.store.sqlite.lock import StoreLock
from reserve_listener.store.sqlite.places import alerts_path, inbox_path, lock_path
from reserve_listener.store.sqlite.slots import Slots

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from reserve_listener.protocols.copying import Row, Table

INBOX: Final = "batches"
"""The only table with a file of its own."""

ENDINGS: Final = ("", "-wal", "-shm", "-journal")

_MAKE_PLACE: Final = (
    "CREATE TABLE IF NOT EXISTS copying (source TEXT NOT NULL, place TEXT NOT NULL, after TEXT NOT NULL)"
)


class _Files:
    """The rows of a store, and of the unprojected part of its inbox."""

    def __init__(
        self, path: Path, store: sqlite3.Connection, inbox: sqlite3.Connection, projected: int = 0
    ) -> None:
        self.name = str(path)
        self._path = path
        self._store = store
        self._inbox = inbox
        self._projected = projected

    def count(self, table: Table) -> int:
        """See `Rows.count`."""
        if table.name == INBOX:
            statement, values = sql.COUNT_BATCHES_AFTER, [self._projected]
        else:
            statement, values = count(table), []
        with self._explained():
            return int(self._of(table).execute(statement, values).fetchone()[0])

    def page(self, table: Table, after: Row) -> list[Row]:
        """See `Rows.page`."""
        if table.name == INBOX:
            after = after or (self._projected,)
        with self._explained():
            return self._of(table).execute(page(table, "?", first=not after), after).fetchall()

    def _of(self, table: Table) -> sqlite3.Connection:
        return self._inbox if table.name == INBOX else self._store

    @contextmanager
    def _explained(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.Error as error:
            raise schema.explained(self._path, error) from error


class SqliteOriginal(_Files):
    """See `protocols.copying.Original`. It is locked: no daemon can start on it."""

    def newest_ever(self) -> int:
        """See `Original.newest_ever`."""
        row = self._store.execute(sql.NEWEST_EVER).fetchone()
        return int(row[0]) if row else 0

    def alerts(self) -> bytes | None:
        """See `Original.alerts`."""
        file = alerts_path(self._path)
        return Slots(file).read() if file.exists() else None

    def require_unused(self) -> None:
        """See `Original.require_unused`."""


class SqliteCopy(_Files):
    """See `protocols.copying.Copy`. The file is locked, so nobody else uses it."""

    def __init__(
        self, target: Path, file: Path, store: sqlite3.Connection, inbox: sqlite3.Connection, source: str
    ) -> None:
        super().__init__(file, store, inbox)
        self.name = str(target)
        self._target = target
        self._source = source

    def place(self) -> Place | None:
        """See `Copy.place`."""
        with self._explained():
            self._store.execute(_MAKE_PLACE)
            row = self._store.execute("SELECT source, place, after FROM copying").fetchone()
            if row is None:
                self._store.execute("INSERT INTO copying VALUES (?, '', '[]')", (self._source,))
                return None
        if row[0] != self._source:
            raise StoreError(
                f"{self._path} is part of a copy of {row[0]}. Finish that one by the same command, or remove the file."
            )
        return Place(row[1], tuple(msgspec.json.decode(row[2]))) if row[1] else None

    def put(self, table: Table, rows: Sequence[Row], last: Place) -> None:
        """See `Copy.put`. The inbox is a separate file: a batch may be written twice and still exists once."""
        marks = ", ".join("?" * len(table.columns))
        verb = "INSERT OR REPLACE" if table.name == INBOX else "INSERT"
        statement = f"{verb} INTO {table.name} ({', '.join(table.columns)}) VALUES ({marks})"
        with self._explained():
            self._store.execute("BEGIN IMMEDIATE")
            self._of(table).executemany(statement, rows)
            self._store.execute(
                "UPDATE copying SET place = ?, after = ?",
                (last.table, msgspec.json.encode(last.after).decode()),
            )
            self._store.execute("COMMIT")

    def finish(self, newest_ever: int, alerts: bytes | None) -> None:
        """See `Copy.finish`."""
        with self._explained():
            self._store.execute("DELETE FROM sqlite_sequence WHERE name = 'events'")
            self._store.execute(
                "INSERT INTO sqlite_sequence (name, seq) VALUES ('events', ?)", (newest_ever,)
            )
        if alerts is not None:
            slots = Slots(alerts_path(self._path))
            slots.read()
            slots.write(alerts)

    def discard(self) -> None:
        """See `Copy.discard`."""
        self._close()
        _remove(self._path)

    def publish(self) -> None:
        """See `Copy.publish`. The store itself gets its name last, while its lock is still held."""
        with self._explained():
            self._store.execute("DROP TABLE copying")
        self._close()
        lock = StoreLock(self._target)
        lock.acquire()
        try:
            _require_no_store(self._target)
            for name_of in (alerts_path, inbox_path, Path):
                if name_of(self._path).exists():
                    name_of(self._path).replace(name_of(self._target))
            sync(self._target.parent)
        finally:
            lock.release()
        _remove(self._path)

    def _close(self) -> None:
        with self._explained():
            self._store.close()
            self._inbox.close()


@contextmanager
def original(path: Path) -> Iterator[SqliteOriginal]:
    """The store in this file. Raises `StoreInUseError` if a daemon holds it."""
    path = path.resolve()
    if not path.exists():
        raise schema.no_store(path)
    with ExitStack() as stack:
        lock = StoreLock(path)
        lock.acquire()
        stack.callback(lock.release)
        store = stack.enter_context(closing(schema.open_reader(path)))
        inbox = stack.enter_context(closing(_inbox_of(path)))
        yield SqliteOriginal(path, store, inbox, _projected(store, inbox))


@contextmanager
def copy_of(target: Path, source: str) -> Iterator[SqliteCopy]:
    """A copy where there is no store yet: a new one, or an interrupted one to continue."""
    target = target.resolve()
    file = target.with_name(f".{target.name}.copying")
    try:
        ownership.make_folder(target.parent)
        _require_no_store(target)
        if not file.exists():
            _require_free(target)
        with ExitStack() as stack:
            lock = StoreLock(file)
            lock.acquire()
            stack.callback(lock.release)
            _empty_unless_begun(file)
            store = stack.enter_context(closing(schema.open_writer(file)))
            inbox = stack.enter_context(closing(schema.open_writer(inbox_path(file), schema.INBOX)))
            yield SqliteCopy(target, file, store, inbox, source)
    except OSError as error:
        raise StoreError(
            f"{target}: cannot be written: {error.strerror}. Name a file in a folder in which you may make files."
        ) from error


def _inbox_of(store: Path) -> sqlite3.Connection:
    """The inbox of the store; an empty one if an older version left none."""
    if inbox_path(store).exists():
        return schema.open_reader(inbox_path(store), schema.INBOX)
    inbox = sqlite3.connect(":memory:")
    inbox.executescript("".join(schema.migrations(schema.INBOX)))
    return inbox


def _projected(store: sqlite3.Connection, inbox: sqlite3.Connection) -> int:
    """The batch of this inbox up to which everything is in the store."""
    known, number = store.execute(sql.INBOX_POSITION).fetchone()
    return int(number) if known == inbox.execute(sql.INBOX_ID).fetchone()[0] else 0


def _require_no_store(target: Path) -> None:
    if os.path.lexists(target) and target.stat().st_size:
        raise StoreError(
            f"{target} is there already and is not overwritten. Name another file, or move it away."
        )


def _require_free(target: Path) -> None:
    """Refuse files that would be taken for parts of the new store."""
    for file in (inbox_path(target), alerts_path(target)):
        for one in (*_with_logs(file), *_with_logs(target)[1:]):
            if os.path.lexists(one):
                raise StoreError(
                    f"{one} is there already and belongs to another store. Name another file, or move it away."
                )


def _empty_unless_begun(file: Path) -> None:
    """Empty a copy that was killed before it noted its place, or just before it got its name: it starts over."""
    with closing(sqlite3.connect(file)) as connection:
        try:
            begun = connection.execute(
                "SELECT count(*) FROM sqlite_master WHERE name = 'copying'"
            ).fetchone()[0]
        except sqlite3.Error as error:
            raise schema.explained(file, error) from error
    if not begun:
        os.truncate(file, 0)
        for one in _with_logs(file)[1:]:
            one.unlink(missing_ok=True)
        _remove_beside(file)


def _remove(file: Path) -> None:
    for one in (*_with_logs(file), lock_path(file)):
        one.unlink(missing_ok=True)
    _remove_beside(file)


def _remove_beside(file: Path) -> None:
    for one in (*_with_logs(inbox_path(file)), alerts_path(file)):
        one.unlink(missing_ok=True)


def _with_logs(file: Path) -> list[Path]:
    return [file.with_name(f"{file.name}{ending}") for ending in ENDINGS]
