"""The lock that keeps a second daemon off the store."""

from __future__ import annotations

import contextlib
import fcntl
import os
from typing import TYPE_CHECKING

from reserve_listener.errors import StoreError, StoreInUseError

if TYPE_CHECKING:
    from pathlib import Path


class StoreLock:
    """An flock on `<store>.lock`: the kernel lets go of it when the process dies, however it dies."""

    def __init__(self, store: Path) -> None:
        # Resolved: two names of one store must not be two locks.
        store = store.resolve()
        self.path = store.with_name(f"{store.name}.lock")
        self._file: int | None = None

    def acquire(self) -> None:
        """Take the lock or raise `StoreInUseError` (exit 75) at once."""
        try:
            self.path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            file = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise StoreError(
                f"the store's lock {self.path} cannot be made: {error.strerror}. Check the folder's owner, or name another file in store.url."
            ) from error
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            holder = os.pread(file, 32, 0).decode("ascii", "replace").strip() or "unknown"
            os.close(file)
            raise StoreInUseError(
                f"the store is in use by another reserve-listener (process {holder}, lock {self.path})."
                " Stop that one, or give this one a store.url of its own."
            ) from error
        except OSError as error:
            os.close(file)
            raise StoreError(
                f"the store's lock {self.path} cannot be taken: {error.strerror}."
                " Keep the store on a file system with locks."
            ) from error
        self._file = file
        with contextlib.suppress(OSError):  # the disk is full: the number is only a courtesy
            os.ftruncate(file, 0)
            os.pwrite(file, f"{os.getpid()}\n".encode(), 0)

    def release(self) -> None:
        """Let go. The file stays: removing it would let two daemons lock two files of one name."""
        if self._file is not None:
            os.close(self._file)
            self._file = None
