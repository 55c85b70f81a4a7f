"""The files beside a store's file, and their names."""

from __future__ import annotations

import hashlib
import os
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from pathlib import Path

SOCKET_NAME_BYTES: Final = 80
"""unix(7) has room for 107 bytes, and what `net.sockets.socket_address` puts before the name takes up to 22."""


def lock_path(store: Path) -> Path:
    """The file that says which process holds the store."""
    store = store.resolve()
    return store.with_name(f"{store.name}.lock")


def inbox_path(store: Path) -> Path:
    """The file with what has been answered but is not in the store yet."""
    store = store.resolve()
    return store.with_name(f"{store.name}-inbox")


def alerts_path(store: Path) -> Path:
    """The file that says which alerts are firing."""
    store = store.resolve()
    return store.with_name(f"{store.name}-alerts")


def socket_path(store: Path) -> Path:
    """Where the store's daemon listens: the same for every link to the store, and short enough for a socket."""
    store = store.resolve()
    name = f"{store.name}.sock"
    if len(os.fsencode(name)) > SOCKET_NAME_BYTES:
        name = f".{hashlib.sha256(os.fsencode(store.name)).hexdigest()[:32]}.sock"
    return store.with_name(name)
