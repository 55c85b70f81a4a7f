"""The lock that keeps a second daemon off the store.

What must stay true: the lock is on the store's own file, so neither another name of it (a hard link) nor a deleted lock file lets
anybody in; the kernel releases it when the process dies, however that happens; and looking at the lock does not take it.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import stat
import struct
from typing import TYPE_CHECKING, Final

from reserve_listener import ownership
from reserve_listener.errors import StoreError, StoreInUseError, WrongStoreError
from reserve_listener.store.sqlite.places import lock_path

if TYPE_CHECKING:
    from pathlib import Path

_FLOCK: Final = "@hhqqi4x"
"""`struct flock` of fcntl(2): kind, whence, start, length, process."""

_PLACE: Final = (os.SEEK_SET, 1 << 62, 1, 0)
"""The byte to lock: beyond the end of any file, and so not one of those that SQLite locks."""

_NOTE_BYTES: Final = 32

_held: set[tuple[int, int]] = set()
"""The files that this process holds. To open and close one of them again would drop SQLite's own locks on it (fcntl(2))."""


class StoreLock:
    """An open file description lock on the store, which is created if missing; `<store>.lock` tells people who holds it."""

    def __init__(self, store: Path) -> None:
        self.path = store.resolve()
        self._file: int | None = None
        self._note: int | None = None
        self._identity = (0, 0)

    def acquire(self) -> None:
        """Take the lock or raise `StoreInUseError` (exit 75) at once."""
        try:
            self._take()
        except OSError as error:
            self.release()
            raise _explained(self.path, error) from error
        except StoreError:
            self.release()
            raise

    def release(self) -> None:
        """Release the lock. The lock file stays: without it, a daemon of an older version would have no lock."""
        _held.discard(self._identity)
        for file in (self._file, self._note):
            if file is not None:
                os.close(file)
        self._file = self._note = None

    def _take(self) -> None:
        ownership.make_folder(self.path.parent)
        with contextlib.suppress(FileNotFoundError):
            if _identity(self.path.stat()) in _held:
                raise _in_use(self.path)
        self._file = _open_store(self.path)
        self._note = _open_note(lock_path(self.path))
        try:
            fcntl.fcntl(self._file, fcntl.F_OFD_SETLK, struct.pack(_FLOCK, fcntl.F_WRLCK, *_PLACE))
            fcntl.flock(self._note, fcntl.LOCK_EX | fcntl.LOCK_NB)  # all that older versions lock
        except OSError as error:
            if error.errno in (errno.EAGAIN, errno.EACCES):
                raise _in_use(self.path) from error
            raise StoreError(
                f"the store {self.path} cannot be locked: {error.strerror}. Put it on a file system that supports locks."
            ) from error
        self._identity = _identity(os.fstat(self._file))
        _held.add(self._identity)
        with contextlib.suppress(OSError):  # the disk is full: the number is only a courtesy
            os.ftruncate(self._note, 0)
            os.pwrite(self._note, f"{os.getpid()}\n".encode(), 0)


def holder(store: Path) -> str | None:
    """The process that holds the store, "unknown" if it left no number; None if nobody does, or there is no store."""
    store = store.resolve()
    try:
        if _identity(store.stat()) in _held:
            return str(os.getpid())
        file = os.open(store, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise _explained(store, error) from error
    try:
        found = fcntl.fcntl(file, fcntl.F_OFD_GETLK, struct.pack(_FLOCK, fcntl.F_WRLCK, *_PLACE))
    except OSError as error:
        raise StoreError(f"the lock of the store {store} cannot be examined: {error.strerror}.") from error
    finally:
        os.close(file)
    return None if struct.unpack(_FLOCK, found)[0] == fcntl.F_UNLCK else _noted(store)


def _open_store(path: Path) -> int:
    if path.is_dir():
        raise WrongStoreError(f"the store {path} is a directory. Set store.url to a file.")
    # O_NONBLOCK: opening a FIFO must not hang; it means nothing for a file.
    file = ownership.open_file(path, os.O_RDWR | os.O_NONBLOCK, 0o600)
    if not stat.S_ISREG(os.fstat(file).st_mode):
        os.close(file)
        raise WrongStoreError(f"the store {path} is not a regular file. Set store.url to another one.")
    return file


def _open_note(path: Path) -> int:
    """Open the lock file, if it is one: anything else must not be overwritten."""
    try:
        file = ownership.open_file(path, os.O_RDWR | os.O_NONBLOCK, 0o600)
    except OSError as error:
        if error.errno in (errno.ELOOP, errno.EISDIR, errno.ENXIO):
            raise _no_note(path) from error
        raise
    found = os.fstat(file)
    if stat.S_ISREG(found.st_mode) and found.st_nlink <= 1 and found.st_size <= _NOTE_BYTES:
        return file
    os.close(file)
    raise _no_note(path)


def _no_note(path: Path) -> StoreError:
    return StoreError(
        f"{path} is not the store's lock file but a link or something else; it was left alone. Remove it and start again."
    )


def _noted(store: Path) -> str:
    try:
        note = os.open(lock_path(store), os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError:
        return "unknown"
    try:
        number = os.read(note, _NOTE_BYTES).decode("ascii", "replace").strip()
    except OSError:
        return "unknown"
    finally:
        os.close(note)
    return number if number.isdecimal() else "unknown"


def _in_use(store: Path) -> StoreInUseError:
    return StoreInUseError(
        f"the store {store} is in use by another reserve-listener (process {_noted(store)})."
        " Stop that one, or give this one its own store.url."
    )


def _explained(store: Path, error: OSError) -> StoreError:
    return StoreError(
        f"the store {store} cannot be opened: {error.strerror} ({error.filename or store}). Check the directory's owner, or set store.url to another file."
    )


def _identity(status: os.stat_result) -> tuple[int, int]:
    return status.st_dev, status.st_ino
