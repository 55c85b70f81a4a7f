"""Reading the store from outside the daemon, for the commands."""

from __future__ import annotations

import time
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any, Self

from reserve_listener.store.postgres import looking, schema
from reserve_listener.store.shared.reader import SqlReader

if TYPE_CHECKING:
    from types import TracebackType

    from reserve_listener.model import Insight
    from reserve_listener.store.postgres.connection import Connection, Values
    from reserve_listener.store.postgres.schema import Target


class _Found(list[Any]):
    """Rows that were read, taken as from a cursor."""

    def fetchone(self) -> Any:
        """The next one, or None."""
        return self.pop(0) if self else None

    def fetchall(self) -> list[Any]:
        """All that are left."""
        return self


class _OneByOne:
    """A connection on which each question is a transaction."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self.deadline_s: float | None = None

    def execute(self, statement: str, values: Values = ()) -> _Found:
        """As `Connection.execute`."""
        left_s = None if self.deadline_s is None else max(0.001, self.deadline_s - time.monotonic())
        with self._connection.transaction(reads=True, timeout_s=left_s):
            return _Found(self._connection.execute(statement, values).fetchall())

    query = execute


class PostgresReader(SqlReader):
    """See `protocols.store.StoreReader`."""

    def __init__(self, target: Target) -> None:
        self._target = target
        self._stack = ExitStack()

    def __enter__(self) -> Self:
        connection = self._target.connect()
        self._stack.callback(connection.close)
        self._connection: Any = _OneByOne(connection)
        try:
            with connection.transaction(reads=True):
                schema.require_version(connection, self._target)
        except BaseException:
            self._stack.close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()

    def until(self, deadline_s: float) -> None:
        """See `StoreReader.until`."""
        self._connection.deadline_s = deadline_s

    def insight(self, *, gaps_since_ms: int) -> Insight:
        """See `StoreReader.insight`."""
        return looking.insight(None, gaps_since_ms, self._connection)
