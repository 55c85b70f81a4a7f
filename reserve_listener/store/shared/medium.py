"""Whether an error is the medium's: the disk, the file or the server, and not what was to be written."""

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
"""Names of SQLite's errors that are the medium's and not a single job's: running the jobs one by one would not help."""


class MediumError(StoreError):
    """The medium has failed, and not what was to be written."""


class NotNowError(Exception):
    """The medium cannot be used at the moment."""


def is_medium(error: BaseException) -> bool:
    """Whether it is the medium that failed, and not what was to be written."""
    return isinstance(error, MediumError) or sqlite_name(error).startswith(_MEDIUM_FAILED)


def sqlite_name(error: BaseException) -> str:
    """SQLite's name of an error, also of the `StoreError` made of it; "" for others."""
    return str(getattr(error, "sqlite_errorname", "") or getattr(error.__cause__, "sqlite_errorname", ""))
