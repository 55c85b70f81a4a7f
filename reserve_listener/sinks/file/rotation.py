"""Rotated files: when a file is due, what they are called, how many are kept, how they are compressed.

What must stay true: a kill at any point leaves every line in a whole file. A plain file goes only when its compressed one
is on the disk, and only files that bear exactly the names given here are touched.
"""

from __future__ import annotations

import errno
import fcntl
import gzip
import os
import re
import stat
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final, Literal

from reserve_listener import ownership

if TYPE_CHECKING:
    import threading
    from collections.abc import Iterator
    from pathlib import Path

Every = Literal["hour", "day", "week"]
PERIODS: Final[dict[Every, str]] = {"hour": "%Y-%m-%dT%H%z", "day": "%Y-%m-%d", "week": "%G-W%V"}
"""What is the same for all times of a period. The hour has its offset: in autumn one comes twice."""

MODE: Final = 0o640
CHUNK_BYTES: Final = 256 * 1024
GZIP_LEVEL: Final = 6
HALF: Final = ".gz.tmp"
NO_LOCKS: Final = frozenset({errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOLCK, errno.ENOSYS})

_Key = tuple[str, int]


@dataclass(frozen=True, kw_only=True)
class Rotation:
    """When to rotate and what becomes of the rotated files. Off with neither `bytes_` nor `every`."""

    bytes_: int | None = None
    every: Every | None = None
    keep: int = 10
    compress: bool = False

    @property
    def on(self) -> bool:
        """Whether anything is ever rotated."""
        return self.bytes_ is not None or self.every is not None

    def due(self, *, size: int, batch: int, since_s: float, now_s: float) -> bool:
        """Whether a file of `size` with data from `since_s` has to go before a batch of that many bytes."""
        if size == 0:
            return False
        if self.bytes_ is not None and size + batch > self.bytes_:
            return True
        return self.every is not None and _period(self.every, since_s) != _period(self.every, now_s)


def next_name(path: Path, now_s: float) -> Path:
    """A name that no file has and that sorts behind all others', also when the clock was set back."""
    key = (datetime.fromtimestamp(now_s, tz=UTC).strftime("%Y%m%dT%H%M%SZ"), 0)
    newest = max(_rotated(path), default=("", 0))
    if newest[0] >= key[0]:
        key = (newest[0], newest[1] + 1)
    return path.with_name(_name(path, key))


def tidy(path: Path, *, keep: int, compress: bool, stop: threading.Event) -> list[OSError]:
    """Delete what is more than `keep`, and what a kill left half compressed; compress the rest. Returns what failed.

    Blocks for as long as the compressing takes, or until `stop` is set.
    """
    failed: list[OSError] = []
    with _noting(failed):
        for key in (key for key, ends in _rotated(path).items() if HALF in ends):
            with _noting(failed):
                _unlink_file(path.with_name(_name(path, key) + HALF))
        rotated = {key: [end for end in ends if end != HALF] for key, ends in _rotated(path).items()}
        keys = sorted(key for key, ends in rotated.items() if ends)
        old = max(0, len(keys) - keep)
        for name in (_name(path, key) + end for key in keys[:old] for end in rotated[key]):
            with _noting(failed):
                _unlink_file(path.with_name(name))
        for key in (key for key in keys[old:] if compress and "" in rotated[key] and not stop.is_set()):
            with _noting(failed):
                _compress(path.with_name(_name(path, key)), stop)
    return failed


def lock(file: int) -> bool:
    """Take the lock that goes with this opening of the file; False when another holds it. Does not wait."""
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError as error:
        if error.errno not in NO_LOCKS:
            raise
    return True


def is_named(file: int, path: Path) -> bool:
    """Whether the open file is the one of this name. A link is another file, whatever it leads to."""
    ours = os.fstat(file)
    try:
        named = path.lstat()
    except FileNotFoundError:
        return False
    return (ours.st_dev, ours.st_ino) == (named.st_dev, named.st_ino)


def sync_folder(folder: Path) -> None:
    """A new file's name is on the disk only when its folder is."""
    try:
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except PermissionError:  # it may be written and not read: nothing can be done
        return
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _period(every: Every, at_s: float) -> str:
    try:
        return datetime.fromtimestamp(at_s, tz=UTC).astimezone().strftime(PERIODS[every])
    except (ValueError, OverflowError, OSError):  # a file may bear any time
        return ""


def _name(path: Path, key: _Key) -> str:
    stamp, number = key
    return f"{path.name}.{stamp}" + (f"-{number}" if number else "")


def _rotated(path: Path) -> dict[_Key, list[str]]:
    """What there is of each rotated file: the plain one (""), ".gz", HALF."""
    pattern = re.compile(re.escape(path.name) + r"\.([0-9]{8}T[0-9]{6}Z)(?:-([1-9][0-9]*))?(|\.gz|\.gz\.tmp)")
    found: dict[_Key, list[str]] = {}
    for name in os.listdir(path.parent):  # noqa: PTH208  # names are all that is wanted
        if match := pattern.fullmatch(name):
            found.setdefault((match[1], int(match[2] or 0)), []).append(match[3])
    return found


@contextmanager
def _noting(failed: list[OSError]) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        failed.append(error)


def _unlink_file(path: Path) -> None:
    """A folder or a link of such a name is not ours."""
    with suppress(FileNotFoundError):
        if stat.S_ISREG(path.lstat().st_mode):
            path.unlink()


def _compress(plain: Path, stop: threading.Event) -> None:
    source = os.open(plain, os.O_RDWR | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        # Locked, it is written or compressed by somebody else, who may also have been done just before we got the lock.
        if stat.S_ISREG(os.fstat(source).st_mode) and lock(source) and is_named(source, plain):
            _compress_open(source, plain, stop)
    finally:
        os.close(source)


def _compress_open(source: int, plain: Path, stop: threading.Event) -> None:
    half = plain.with_name(plain.name + HALF)
    try:
        if not _write_gzip(source, half, plain.name, stop):
            return
        os.rename(half, plain.with_name(plain.name + ".gz"))  # noqa: PTH104  # the calls by their names: the order matters
        sync_folder(plain.parent)
        os.unlink(plain)  # noqa: PTH108  # see above
    finally:
        _unlink_file(half)


def _write_gzip(source: int, half: Path, name: str, stop: threading.Event) -> bool:
    with os.fdopen(ownership.create_file(half, os.O_WRONLY, MODE), "wb") as target:
        with gzip.GzipFile(
            name, "wb", GZIP_LEVEL, target, mtime=max(0, int(os.fstat(source).st_mtime))
        ) as packed:
            while chunk := os.read(source, CHUNK_BYTES):
                if stop.is_set():
                    return False
                packed.write(chunk)
        target.flush()
        os.fsync(target.fileno())
    return not stop.is_set()
