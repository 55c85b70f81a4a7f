"""The store: whether it is there or can be made, and by this user."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Final

from reserve_listener.cli.checks.findings import WrongError
from reserve_listener.config.places import (
    is_file,
    nearest_that_exists,
    require_access,
    require_directory,
    require_room,
)
from reserve_listener.errors import StoreError
from reserve_listener.store.sqlite.places import inbox_path
from reserve_listener.store.sqlite.schema import INBOX, look_at

if TYPE_CHECKING:
    from pathlib import Path

_SQLITE_HEADER: Final = b"SQLite format 3\x00"


def store(path: Path) -> str:
    """How the store is; WrongError when it cannot be used."""
    if not is_file(path):
        require_directory(nearest_that_exists(path.parent))
        require_room(path)
        return f"{path}: will be created"
    require_access(path, os.R_OK | os.W_OK, "read and write")
    # SQLite makes its journal beside the file.
    require_directory(path.parent)
    if _head(path) not in {b"", _SQLITE_HEADER}:
        raise WrongError(f"{path}: is not an SQLite database; set store.url to another file")
    inbox = inbox_path(path)
    if is_file(inbox):
        require_access(inbox, os.R_OK | os.W_OK, "read and write")
    try:
        look_at(path)
        if inbox.exists():
            look_at(inbox, INBOX)
    except StoreError as error:
        raise WrongError(str(error)) from None
    require_room(path)
    return f"{path}: exists"


def _head(path: Path) -> bytes:
    """The first bytes: SQLite takes a file that is shorter than its header for an empty one."""
    try:
        with path.open("rb") as file:
            return file.read(len(_SQLITE_HEADER))
    except OSError as error:
        raise WrongError(f"{path}: cannot be read: {error.strerror}") from None
