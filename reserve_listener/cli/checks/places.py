"""The store: whether it is there or can be made, and by this user."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from reserve_listener.cli.checks.findings import DoubtfulError, WrongError
from reserve_listener.config.places import (
    is_file,
    nearest_that_exists,
    require_access,
    require_directory,
    require_room,
)
from reserve_listener.errors import StoreAwayError, StoreError, WrongStoreError
from reserve_listener.store import backend

if TYPE_CHECKING:
    from reserve_listener.protocols.backend import Backend


def _on_a_server(found: Backend) -> str:
    try:
        found.look_over()
    except WrongStoreError as error:
        raise WrongError(str(error)) from None
    except StoreAwayError as error:
        raise DoubtfulError(str(error), "until then the daemon waits, and takes no events") from None
    except StoreError as error:
        return str(error)  # the daemon makes it
    return f"{found.name}: exists"


def store(url: str) -> str:
    """How the store is; WrongError when it cannot be used."""
    found = backend(url)
    if not found.files:
        return _on_a_server(found)
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
