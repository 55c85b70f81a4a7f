"""Whether files that are written to are there or can be made, and by this user."""

from __future__ import annotations

import os
import shutil
import stat
from typing import TYPE_CHECKING, Final

from reserve_listener.errors import ConfigError, ReserveListenerError

if TYPE_CHECKING:
    from pathlib import Path

LEAST_ROOM: Final = 1_048_576
"""With less than this the daemon does not even start: opening a store writes some hundred kilobytes."""


def look_at_file(path: Path) -> None:
    """Raise ConfigError when this user cannot append to the file or create it."""
    if is_file(path):
        require_access(path, os.R_OK | os.W_OK, "read and write")
    else:
        require_directory(path.parent)


def require_room(path: Path) -> None:
    """Raise ReserveListenerError when the disk of a file, whether it is there yet or not, is full."""
    try:
        free = shutil.disk_usage(nearest_that_exists(path)).free
    except OSError:  # a file system that cannot tell
        return
    if free < LEAST_ROOM:
        raise ReserveListenerError(f"{path}: its disk is full ({free // 1024} KiB are free); make room on it")


def nearest_that_exists(directory: Path) -> Path:
    """The directory, or the nearest above it that is there."""
    while not os.path.lexists(directory) and directory != directory.parent:
        directory = directory.parent
    return directory


def is_file(path: Path) -> bool:
    """Whether a file is there. Something else in its place is wrong."""
    try:
        mode = path.stat().st_mode
    except FileNotFoundError:
        return False
    except OSError as error:
        raise ConfigError(f"{path}: cannot be examined: {error.strerror}") from None
    if not stat.S_ISREG(mode):
        raise ConfigError(f"{path}: is not a regular file")
    return True


def require_directory(directory: Path) -> None:
    """Raise ConfigError unless this user can create files in it."""
    if not directory.exists():
        raise ConfigError(f"{directory}: the directory does not exist; create it")
    if not directory.is_dir():
        raise ConfigError(f"{directory}: is not a directory")
    require_access(directory, os.W_OK | os.X_OK, "create files in")


def require_access(path: Path, mode: int, what: str) -> None:
    """Raise ConfigError unless this user may do `what`."""
    if not os.access(path, mode, effective_ids=os.access in os.supports_effective_ids):
        raise ConfigError(f"{path}: this user (uid {os.geteuid()}) may not {what} it")
