"""The store: whether it is there or can be made, and by this user."""

from __future__ import annotations

import os

from reserve_listener.cli.checks.findings import WrongError
from reserve_listener.config.places import (
    is_file,
    nearest_that_exists,
    require_access,
    require_directory,
    require_room,
)
from reserve_listener.errors import StoreError
from reserve_listener.store import backend


def store(url: str) -> str:
    """How the store is; WrongError when it cannot be used."""
    found = backend(url)
    path, *others = found.files
    if not is_file(path):
        require_directory(nearest_that_exists(path.parent))
        require_room(path)
        return f"{path}: will be created"
    require_access(path, os.R_OK | os.W_OK, "read and write")
    # SQLite makes its journal beside the file.
    require_directory(path.parent)
    for other in filter(is_file, others):
        require_access(other, os.R_OK | os.W_OK, "read and write")
    try:
        found.look_over()
    except StoreError as error:
        raise WrongError(str(error)) from None
    require_room(path)
    return f"{path}: exists"
