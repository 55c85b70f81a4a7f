"""How much room the store's files take, and how to give some back. Work for a connection's thread."""

from __future__ import annotations

import sqlite3
from contextlib import suppress
from pathlib import Path


def used_bytes(connection: sqlite3.Connection) -> int:
    """The bytes in use in the file, plus the whole log beside it (-wal), which a reader may keep from shrinking."""
    pages, free, size = (
        int(connection.execute(f"PRAGMA {name}").fetchone()[0])
        for name in ("page_count", "freelist_count", "page_size")
    )
    return (pages - free) * size + _log_bytes(connection)


def _log_bytes(connection: sqlite3.Connection) -> int:
    file = connection.execute("PRAGMA database_list").fetchone()[2]
    try:
        return Path(f"{file}-wal").stat().st_size
    except OSError:  # there is none
        return 0


def shrink_log(connection: sqlite3.Connection) -> None:
    """Empty the log, unless a reader uses it; does not wait for one."""
    (timeout_ms,) = connection.execute("PRAGMA busy_timeout").fetchone()
    connection.execute("PRAGMA busy_timeout = 0")
    with suppress(sqlite3.OperationalError):  # a disk that fails shows at the next commit
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
    connection.execute(f"PRAGMA busy_timeout = {int(timeout_ms)}")
