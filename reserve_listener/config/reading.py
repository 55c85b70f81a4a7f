"""Reading short files within limits of time and size: no FIFO, device or hanging network disk can block the caller."""

from __future__ import annotations

import errno
import os
import stat
import threading
import time
from concurrent.futures import Future
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable

WITHIN_S: Final = 5.0
"""For one file, and for all secrets of a configuration together: a slow disk answers, and a stop does not wait for long."""

UNRESPONSIVE: Final = "the file system does not respond; is it an unreachable network disk?"

LEAST_S: Final = 0.1
"""What a file gets even when others have used all the time up."""

LARGEST_SECRET: Final = 65_536
"""A secret is a line or a few."""


LOOK_S: Final = 1.0
"""For a look at a file that nothing is read from: there are several to a file, and a start waits for each."""

T = TypeVar("T")

_under_way: dict[Hashable, Future[Any]] = {}
_lock = threading.Lock()


def read_within(path: Path, largest: int, *, within_s: float = WITHIN_S) -> bytes:
    """A regular file's content, at most `largest` bytes and one more. Blocks. Raises OSError, or ValueError for a bad name."""
    name, size = os.fspath(path), largest + 1
    return answer_within(("content", name, size), lambda: _content(name, size), within_s)


def answer_within(key: Hashable, work: Callable[[], T], within_s: float) -> T:
    """What comes of work that may hang on a disk. Blocks. Raises what it raises, or TimeoutError.

    A thread that hangs in the kernel cannot be ended. It keeps nobody from leaving, and there is one for each key at the most.
    """
    with _lock:
        answer = _under_way.get(key)
        if answer is None:
            answer = _under_way[key] = Future()
            threading.Thread(target=_do, args=(key, work, answer), name="read-file", daemon=True).start()
    try:
        found: T = answer.result(within_s)
    except TimeoutError:
        if answer.done():  # the file system's own
            raise
        raise TimeoutError(UNRESPONSIVE) from None
    return found


def real_path(path: Path, *, within_s: float = LOOK_S) -> Path:
    """Where a path leads, links seen through. Blocks. Raises TimeoutError."""
    return answer_within(("real", path), lambda: Path(os.path.realpath(path)), within_s)


def _do(key: Hashable, work: Callable[[], Any], answer: Future[Any]) -> None:
    outcome, failure = None, None
    try:
        outcome = work()
    except Exception as error:  # noqa: BLE001  # raised again where it is waited for
        failure = error
    with _lock:
        del _under_way[key]
    if failure is None:
        answer.set_result(outcome)
    else:
        answer.set_exception(failure)


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
