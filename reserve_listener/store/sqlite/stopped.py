"""Acts on the store of a daemon that is not running."""

from __future__ import annotations

import sqlite3
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING

from reserve_listener.clock import now_ms
from reserve_listener.errors import StoreError
from reserve_listener.store.shared import sql
from reserve_listener.store.shared.operations import operation_of
from reserve_listener.store.sqlite import schema
from reserve_listener.store.sqlite.lock import StoreLock

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from reserve_listener.model import EventQuery, SinkFilter


def operate(
    path: Path, operation: str, filters: EventQuery, filters_by_sink: Mapping[str, SinkFilter] | None
) -> int:
    """Do what `SqliteStore.operate` does, here and now, under the lock. Raises `StoreInUseError` if a daemon holds it.

    `filters_by_sink` is None if the configuration cannot be read: a replay then only repeats earlier deliveries.
    """
    with _writing(path) as connection:
        work = operation_of(operation, filters, filters_by_sink, connection, now_ms=now_ms())
        step = work.first()
        while not step.done:
            connection.execute("BEGIN IMMEDIATE")
            step = work.step(step, connection)
            connection.execute("COMMIT")
        return step.count


def count_matching(
    path: Path, operation: str, filters: EventQuery, filters_by_sink: Mapping[str, SinkFilter] | None
) -> int:
    """How many deliveries `operate` would apply to now. Only reads, so the daemon may be running."""
    connection = schema.open_reader(path)
    try:
        work = replace(
            operation_of(operation, filters, filters_by_sink, connection, now_ms=now_ms()), dry_run=True
        )
        step = work.first()
        while not step.done:
            step = work.step(step, connection)
    except sqlite3.Error as error:
        raise StoreError(f"the store {path} cannot be read: {error}") from error
    finally:
        connection.close()
    return step.count


def disable_sink(path: Path, name: str, reason: str) -> bool:
    """Do what `SqliteStore.disable_sink` does, on a stopped daemon's store. Returns whether that changed anything."""
    with _writing(path) as connection:
        return connection.execute(sql.DISABLE_SINK, (now_ms(), reason, name)).rowcount > 0


def enable_sink(path: Path, name: str) -> bool:
    """Do what `SqliteStore.enable_sink` does, on a stopped daemon's store. Returns whether that changed anything."""
    with _writing(path) as connection:
        connection.execute("BEGIN IMMEDIATE")
        connection.execute(sql.ADD_PAUSE, (now_ms(), name))
        changed = connection.execute(sql.ENABLE_SINK, (name,)).rowcount > 0
        connection.execute("COMMIT")
        return changed


@contextmanager
def _writing(path: Path) -> Iterator[sqlite3.Connection]:
    if not path.exists():
        raise schema.no_store(path)
    lock = StoreLock(path)
    lock.acquire()
    try:
        connection = schema.open_writer(path)
        try:
            yield connection
        except sqlite3.Error as error:
            raise StoreError(f"the store {path} failed: {error}") from error
        finally:
            connection.close()
    finally:
        lock.release()
