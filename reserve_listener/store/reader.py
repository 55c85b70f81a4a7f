"""Reading a store from outside the daemon, for the commands that look at events."""

from __future__ import annotations

import sqlite3
from dataclasses import asdict
from typing import TYPE_CHECKING, Any, Self

from reserve_listener.errors import StoreError
from reserve_listener.model import DeadLetter, DeliveryState, Filters, Scope, StoredEvent
from reserve_listener.store import schema, sql
from reserve_listener.store.sqlite import STATES

if TYPE_CHECKING:
    from pathlib import Path
    from types import TracebackType

EVERYTHING = Filters()

_STATE_NAMES = {number: name for name, number in STATES.items()}


class StoreReader:
    """A read-only view of a store, also of one that a daemon is writing. Use as a context manager."""

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

    def events(
        self,
        filters: Filters = EVERYTHING,
        *,
        limit: int,
        unreadable: bool = False,
        after_seq: int = 0,
    ) -> list[StoredEvent]:
        """The newest events first, at most `limit`, each with how far it has come with every sink.

        `after_seq`: only those that were stored after that one.
        """
        values = asdict(filters) | {"limit": limit, "unreadable": unreadable, "after_seq": after_seq}
        try:
            rows = self._connection.execute(sql.LIST_EVENTS, values).fetchall()
            return [self._event(row) for row in rows]
        except sqlite3.Error as error:
            raise StoreError(f"the store {self._path} cannot be read: {error}") from error

    def sinks(self) -> list[str]:
        """The names of all sinks that the store ever knew."""
        return [name for (name,) in self._connection.execute(sql.SINKS)]

    def dead_letters(self, filters: Filters, *, limit: int) -> list[DeadLetter]:
        """The dead letters, those first that were given up first; at most `limit`."""
        try:
            rows = self._connection.execute(sql.LIST_DEAD, asdict(filters) | {"limit": limit}).fetchall()
        except sqlite3.Error as error:
            raise StoreError(f"the store {self._path} cannot be read: {error}") from error
        return [
            DeadLetter(
                seq=seq,
                sink=sink,
                configured=bool(configured),
                event_id=event_id,
                scope=Scope(tenant_key=tenant_key, scope_type=scope_type, scope_id=scope_id),
                attempts=attempts,
                settled_ms=settled_ms,
                last_error=last_error,
            )
            for seq, sink, configured, event_id, tenant_key, scope_type, scope_id, attempts, settled_ms, last_error in rows
        ]

    def _event(self, row: tuple[Any, ...]) -> StoredEvent:
        seq, tenant_key, event_id, received_ms, created_ms, *scope, body, raw, problem = row
        return StoredEvent(
            seq=seq,
            tenant_key=tenant_key,
            event_id=event_id,
            received_ms=received_ms,
            created_ms=created_ms,
            scope=_scope(*scope),
            body=body,
            raw=raw,
            problem=problem,
            deliveries=tuple(
                DeliveryState(
                    sink=sink,
                    state=_STATE_NAMES[state],
                    attempts=attempts,
                    due_ms=due_ms,
                    settled_ms=settled_ms,
                    last_error=last_error,
                )
                for sink, state, attempts, due_ms, settled_ms, last_error in self._connection.execute(
                    sql.DELIVERIES_OF, (seq,)
                )
            ),
        )


def _scope(tenant_key: str | None, scope_type: str | None, scope_id: str | None) -> Scope | None:
    if tenant_key is None or scope_type is None or scope_id is None:
        return None
    return Scope(tenant_key=tenant_key, scope_type=scope_type, scope_id=scope_id)
