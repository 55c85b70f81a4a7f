"""Reading a store from outside the daemon, for the commands."""

from __future__ import annotations

import sqlite3
import time
from contextlib import closing, contextmanager
from typing import TYPE_CHECKING, Final, Self

from msgspec.structs import replace

from reserve_listener.errors import StoreError
from reserve_listener.store.shared.insight import insight
from reserve_listener.store.shared.reader import SqlReader
from reserve_listener.store.sqlite import schema
from reserve_listener.store.sqlite.places import inbox_path
from reserve_listener.store.sqlite.size import used_bytes

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path
    from types import TracebackType

    from reserve_listener.model import Insight

STEPS: Final = 20_000
"""How many steps of SQLite's machine between two looks at the clock: less than a millisecond."""


class SqliteReader(SqlReader):
    """See `protocols.store.StoreReader`."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._connection: sqlite3.Connection

    def __enter__(self) -> Self:
        self._connection = schema.open_reader(self._path)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._connection.close()

    def until(self, deadline_s: float) -> None:
        """Abort later queries at this time (monotonic) with a `StoreError`."""
        self._connection.set_progress_handler(lambda: time.monotonic() > deadline_s, STEPS)

    def insight(self, *, gaps_since_ms: int) -> Insight:
        """The figures that `status` shows of a store without a daemon."""
        with self._reading():
            found = insight(None, gaps_since_ms, used_bytes, self._connection)
            return replace(found, size_bytes=(found.size_bytes or 0) + self._inbox_bytes())

    def _inbox_bytes(self) -> int:
        inbox = inbox_path(self._path)
        if not inbox.exists():  # an older version has left none
            return 0
        with closing(schema.open_reader(inbox, schema.INBOX)) as connection:
            return used_bytes(connection)

    @contextmanager
    def _reading(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.Error as error:
            raise StoreError(f"the store {self._path} cannot be read: {error}") from error
