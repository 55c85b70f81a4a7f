"""Reading short files within a time and a size: a FIFO, a device or a network disk that hangs holds nobody up."""

from __future__ import annotations

import errno
import os
import stat
import threading
import time
from concurrent.futures import Future
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from pathlib import Path

WITHIN_S: Final = 5.0
"""For one file, and for all secrets of a configuration together: a slow disk answers, and a stop does not wait for long."""

LEAST_S: Final = 0.1
"""What a file gets even when others have used all the time up."""

LARGEST_SECRET: Final = 65_536
"""A secret is a line or a few."""


_readings: dict[tuple[str, int], Future[bytes]] = {}
_lock = threading.Lock()


def read_within(path: Path, largest: int, *, within_s: float = WITHIN_S) -> bytes:
    """A regular file's content, at most `largest` bytes and one more. Blocks. Raises OSError, or ValueError for a bad name."""
    reading = _under_way(path, largest + 1)
    try:
        return reading.result(within_s)
    except TimeoutError:
        if reading.done():  # the file system's own
            raise
        raise TimeoutError("the file system does not respond; is it an unreachable network disk?") from None


def _under_way(path: Path, size: int) -> Future[bytes]:
    """The reading of this file that has not come back, or a new one.

    A thread that hangs in the kernel cannot be ended. It keeps nobody from leaving, and there is one for each file at the most.
    """
    key = (os.fspath(path), size)
    with _lock:
        reading = _readings.get(key)
        if reading is None:
            reading = _readings[key] = Future()
            threading.Thread(target=_read, args=(key, reading), name="read-file", daemon=True).start()
    return reading


def _read(key: tuple[str, int], reading: Future[bytes]) -> None:
    outcome: bytes | Exception
    try:
        outcome = _content(*key)
    except Exception as error:  # noqa: BLE001  # raised again where it is waited for
        outcome = error
    with _lock:
        del _readings[key]
    if isinstance(outcome, bytes):
        reading.set_result(outcome)
    else:
        reading.set_exception(outcome)


def _content(path: str, size: int) -> bytes:
    # Not blocking, so that a FIFO without a writer opens too, and is refused.
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC)
    with os.fdopen(descriptor, "rb", buffering=0) as file:
        mode = os.fstat(descriptor).st_mode
        if stat.S_ISDIR(mode):
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
        if not stat.S_ISREG(mode):
            raise OSError("it is not a regular file")
        pieces = []
        while size > 0 and (piece := file.read(size)):
            pieces.append(piece)
            size -= len(piece)
        return b"".join(pieces)


class SecretFiles:
    """The secret files of one configuration, each read once.

    So what is used, what is masked and what a reload compares cannot differ, whatever becomes of a file meanwhile.
    """

    def __init__(self) -> None:
        self._read: dict[Path, bytes | Exception] = {}
        self._left_s = WITHIN_S
        self._lock = threading.Lock()

    def __eq__(self, other: object) -> bool:
        """What files hold is no setting: two configurations with the same settings are the same."""
        return isinstance(other, SecretFiles)

    def __hash__(self) -> int:
        return hash(SecretFiles)

    def content(self, path: Path) -> bytes:
        """See `read_within`; the second time the same again."""
        with self._lock:
            if path not in self._read:
                self._read[path] = self._now(path)
            found = self._read[path]
        if isinstance(found, bytes):
            return found
        raise found

    def _now(self, path: Path) -> bytes | Exception:
        started = time.monotonic()
        try:
            return read_within(path, LARGEST_SECRET, within_s=max(self._left_s, LEAST_S))
        except (OSError, ValueError) as error:
            return error
        finally:
            self._left_s -= time.monotonic() - started
