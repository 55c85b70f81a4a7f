"""Tells failures of the medium (disk, file or server) from failures of a single job."""

from __future__ import annotations

from typing import Final

from reserve_listener.errors import StoreError

_MEDIUM_FAILED: Final = (
    "SQLITE_FULL",
    "SQLITE_IOERR",
    "SQLITE_READONLY",
    "SQLITE_CORRUPT",
    "SQLITE_CANTOPEN",
    "SQLITE_BUSY",  # another program holds the file: each try waits for the whole busy timeout
    "SQLITE_LOCKED",
    "SQLITE_PROTOCOL",
    "SQLITE_NOTADB",
    "SQLITE_NOMEM",
)
"""SQLite's errors that are the medium's, not a single job's: running the jobs one by one would not help."""


class MediumError(StoreError):
    """The medium has failed, not the job."""


class NotNowError(Exception):
    """The medium cannot be used at the moment."""


def is_medium(error: BaseException) -> bool:
    """Whether the medium failed, not the job."""
    return isinstance(error, MediumError) or sqlite_name(error).startswith(_MEDIUM_FAILED)


def sqlite_name(error: BaseException) -> str:
    """SQLite's name of an error, or of the cause of a `StoreError`; "" for others."""
    return str(getattr(error, "sqlite_errorname", "") or getattr(error.__cause__, "sqlite_errorname", ""))
