"""The store and the files that sinks write: whether they are there or can be made, and by this user."""

from __future__ import annotations

import os
import shutil
import stat
from typing import TYPE_CHECKING, Final

from reserve_listener.cli.checks.findings import WrongError
from reserve_listener.errors import StoreError
from reserve_listener.store.sqlite.places import inbox_path
from reserve_listener.store.sqlite.schema import INBOX, look_at

if TYPE_CHECKING:
    from pathlib import Path

_SQLITE_HEADER: Final = b"SQLite format 3\x00"

LEAST_ROOM: Final = 1_048_576
"""With less than this the daemon does not even start: opening a store writes some hundred kilobytes."""
FULL_DISK: Final = 1
"""The exit code of a full disk: the configuration is not what is wrong."""


def store(path: Path) -> str:
    """How the store is; WrongError when it cannot be used."""
    if not _is_file(path):
        _require_directory(_nearest_that_exists(path.parent))
        require_room(path)
        return f"{path}: will be created"
    _require_access(path, os.R_OK | os.W_OK, "read and write")
    # SQLite makes its journal beside the file.
    _require_directory(path.parent)
    if _head(path) not in {b"", _SQLITE_HEADER}:
        raise WrongError(f"{path}: is not an SQLite database; set store.url to another file")
    inbox = inbox_path(path)
    if _is_file(inbox):
        _require_access(inbox, os.R_OK | os.W_OK, "read and write")
    try:
        look_at(path)
        if inbox.exists():
            look_at(inbox, INBOX)
    except StoreError as error:
        raise WrongError(str(error)) from None
    require_room(path)
    return f"{path}: exists"


def look_at_file(path: Path) -> None:
    """Raise WrongError when this user cannot append to the file or create it."""
    if _is_file(path):
        _require_access(path, os.R_OK | os.W_OK, "read and write")
    else:
        _require_directory(path.parent)


def require_room(path: Path) -> None:
    """Raise WrongError when the disk of a file, whether it is there yet or not, is full."""
    try:
        free = shutil.disk_usage(_nearest_that_exists(path)).free
    except OSError:  # a file system that cannot tell
        return
    if free < LEAST_ROOM:
        raise WrongError(
            f"{path}: its disk is full ({free // 1024} KiB are free)", "make room on it", exit_code=FULL_DISK
        )


def _head(path: Path) -> bytes:
    """The first bytes: SQLite takes a file that is shorter than its header for an empty one."""
    try:
        with path.open("rb") as file:
            return file.read(len(_SQLITE_HEADER))
    except OSError as error:
        raise WrongError(f"{path}: cannot be read: {error.strerror}") from None


def _nearest_that_exists(directory: Path) -> Path:
    while not os.path.lexists(directory) and directory != directory.parent:
        directory = directory.parent
    return directory


def _is_file(path: Path) -> bool:
    """Whether a file is there. Something else in its place is wrong."""
    try:
        mode = path.stat().st_mode
    except FileNotFoundError:
        return False
    except OSError as error:
        raise WrongError(f"{path}: cannot be examined: {error.strerror}") from None
    if not stat.S_ISREG(mode):
        raise WrongError(f"{path}: is not a regular file")
    return True


def _require_directory(directory: Path) -> None:
    if not directory.exists():
        raise WrongError(f"{directory}: the directory does not exist; create it")
    if not directory.is_dir():
        raise WrongError(f"{directory}: is not a directory")
    _require_access(directory, os.W_OK | os.X_OK, "create files in")


def _require_access(path: Path, mode: int, what: str) -> None:
    if not os.access(path, mode, effective_ids=os.access in os.supports_effective_ids):
        raise WrongError(f"{path}: this user (uid {os.geteuid()}) may not {what} it")
