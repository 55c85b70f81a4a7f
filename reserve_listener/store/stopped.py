"""Acting on the store of a daemon that is not running."""

from __future__ import annotations

import sqlite3
import time
from dataclasses import asdict
from typing import TYPE_CHECKING

from reserve_listener.errors import StoreError
from reserve_listener.store import schema
from reserve_listener.store.lock import StoreLock
from reserve_listener.store.sqlite import OPERATIONS

if TYPE_CHECKING:
    from pathlib import Path

    from reserve_listener.model import Filters


def operate(path: Path, operation: str, filters: Filters) -> int:
    """What `SqliteStore.operate` does, here and now, under the lock; `StoreInUseError` when a daemon holds it."""
    if not path.exists():
        raise StoreError(f"there is no store at {path} yet: `reserve-listener run` creates it.")
    lock = StoreLock(path)
    lock.acquire()
    try:
        connection = schema.open_writer(path)
        try:
            values = asdict(filters) | {"now_ms": time.time_ns() // 1_000_000}
            return connection.execute(OPERATIONS[operation], values).rowcount
        except sqlite3.Error as error:
            raise StoreError(f"the store {path} failed: {error}") from error
        finally:
            connection.close()
    finally:
        lock.release()
