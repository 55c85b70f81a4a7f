"""The file sink: a JSON line for each event, on the disk (fsync) before it counts as delivered.

What must stay true: the file holds whole lines only. A batch that fails is cut off again, and a line torn by a crash is
mended when the file is opened; both were never counted as delivered, so they come again. Nothing that others wrote is cut:
the file is locked for as long as it is open, and a batch is cut off only when it is the last thing in it. A link is followed
if it was there when the sink was made, and never written through when one takes the file's place later.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import stat
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import structlog

from reserve_listener import ownership
from reserve_listener.config.reading import LOOK_S, UNRESPONSIVE, answer_within, real_path
from reserve_listener.errors import DeliveryError, MisconfiguredSinkError, TransientDeliveryError
from reserve_listener.sinks.file.rotation import (
    MODE,
    Every,
    Rotation,
    is_named,
    lock,
    next_name,
    sync_folder,
    tidy,
)
from reserve_listener.sinks.file.thread import FileThread

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Sequence

    from reserve_listener.model import Delivery

OUR_LINES_BEGIN: Final = b'{"specversion":"1.0",'
TAIL_BYTES: Final = 64 * 1024
CLOSE_TIMEOUT_S: Final = 5.0

ATTEMPT_TIMEOUT_S: Final = 30.0
"""A batch takes milliseconds, and seconds on a disk that is busy. What comes later than this is written all the same, and once more."""

WARNING_EVERY_S: Final = 60.0

log = structlog.get_logger("sink.file")


class FileSink:
    """Appends to `path` (created 0640). Opens it anew when another file has taken its name (logrotate).

    `reserved`: files that are never written to, whatever their name; the store's above all.

    All work on the disk is done by a thread of its own; a second one, also its own, tidies up rotated files.
    """

    batch_size = 1_000
    max_in_flight = 1
    needs_raw = False

    def __init__(
        self,
        name: str,
        path: Path,
        *,
        rotate_bytes: int | None = None,
        rotate_every: Every | None = None,
        keep: int = 10,
        compress: bool = False,
        reserved: Collection[Path] = (),
        now_s: Callable[[], float] = time.time,
    ) -> None:
        self.name = name
        self.path = path
        self._real: Path | None = None
        with contextlib.suppress(TimeoutError):
            self._real = real_path(path)
        self._reserved = reserved
        self._rotation = Rotation(bytes_=rotate_bytes, every=rotate_every, keep=keep, compress=compress)
        self._now_s = now_s
        self._file: int | None = None
        self._since_s = 0.0
        """When the first data of the file was written, or the last before it was opened."""
        self._thread = FileThread(f"file-{name}")
        self._tidier = FileThread(f"file-{name}-tidy")
        self._stop_tidying = threading.Event()
        self._warned_s: dict[str, float] = {}

    @property
    def real(self) -> Path:
        """Where a path that is a link leads: files are rotated, and folders flushed, where the file itself is.

        Known from the start, so that no later link is followed; of a disk that did not respond then, from when it does.
        """
        if self._real is None:
            self._real = Path(os.path.realpath(self.path))
        return self._real

    async def deliver(self, deliveries: Sequence[Delivery]) -> None:
        """See `protocols.Sink.deliver`. Cancelled, an attempt goes on in its thread if it has begun; the next waits for it."""
        lines = b"".join(delivery.body + b"\n" for delivery in deliveries)
        writing = self._thread.submit(lambda: self._attempt(lines))
        try:
            async with asyncio.timeout(ATTEMPT_TIMEOUT_S):
                await writing
        except TimeoutError:
            raise TransientDeliveryError(f"{self.path}: {UNRESPONSIVE}") from None

    async def close(self) -> None:
        """See `protocols.Sink.close`. A disk that hangs is not waited for: its file is closed when it wakes up."""
        self._stop_tidying.set()
        closed = self._thread.submit(self._close)
        self._thread.end()
        await asyncio.wait([closed], timeout=CLOSE_TIMEOUT_S)

    def problem(self) -> str | None:
        """Why the path cannot be used as it is now; None when nothing speaks against it. Blocks for `LOOK_S` at the most."""
        try:
            return answer_within(("problem", self.path), self._problem, LOOK_S)
        except TimeoutError as error:
            return f"{self.path}: {error}"

    def _problem(self) -> str | None:
        folder = self.real.parent
        try:
            self._require_own()
            if not stat.S_ISREG(self.path.stat().st_mode):
                raise MisconfiguredSinkError(self._not_a_file())
            usable = os.access(self.path, os.R_OK | os.W_OK)
        except MisconfiguredSinkError as error:
            return str(error)
        except FileNotFoundError as error:
            if not folder.is_dir():
                return self._words(error)
            usable = os.access(folder, os.W_OK | os.X_OK)
        except OSError as error:
            return self._words(error)
        if not usable:
            return self._words(PermissionError(errno.EACCES, os.strerror(errno.EACCES)))
        if self._rotation.on and not os.access(folder, os.R_OK | os.W_OK | os.X_OK):
            return f"{self.path} cannot be rotated: give the daemon's user read and write access to the directory {folder}"
        return None

    # -- in the sink's thread ----------------------------------------------------------------------------------------------

    def _close(self) -> None:
        with contextlib.suppress(OSError):  # every batch is on the disk already
            self._let_go()
        self._tidier.end(join=True)
        self._stop_tidying.clear()

    def _let_go(self) -> None:
        file, self._file = self._file, None
        if file is not None:
            os.close(file)

    def _attempt(self, lines: bytes) -> None:
        try:
            self._append(lines)
        except OSError as error:
            raise TransientDeliveryError(self._words(error)) from error

    def _append(self, lines: bytes) -> None:
        file = self._current()
        size, now_s = os.fstat(file).st_size, self._now_s()
        if self._rotation.due(size=size, batch=len(lines), since_s=self._since_s, now_s=now_s):
            file = self._rotate(file, now_s)
        before = os.fstat(file).st_size
        if before == 0:
            self._since_s = now_s
        written = 0
        try:
            while written < len(lines):
                written += os.write(file, memoryview(lines)[written:])
            os.fsync(file)
        except OSError:
            try:
                # Cut short or added to by others meanwhile: then only a torn last line is taken off, at the opening.
                if os.fstat(file).st_size == before + written:
                    os.ftruncate(file, before)
            finally:
                self._let_go()  # opened anew, it is mended should the cut have failed too
            raise

    def _current(self) -> int:
        if self._file is not None and not is_named(self._file, self.real):
            self._let_go()
        if self._file is None:
            self._file = self._open()
            self._tidy_up()
        return self._file

    def _open(self) -> int:
        self._require_own()
        try:
            # O_NONBLOCK: opening a FIFO that nobody reads must not hang; it means nothing for a file.
            file = ownership.open_file(self.real, os.O_RDWR | os.O_APPEND | os.O_NONBLOCK, MODE)
        except OSError as error:
            if error.errno in (errno.EISDIR, errno.ENXIO):  # a folder, a socket
                raise MisconfiguredSinkError(self._not_a_file()) from error
            raise
        try:
            found = os.fstat(file)
            self._require_own(found)
            if not stat.S_ISREG(found.st_mode):
                raise MisconfiguredSinkError(self._not_a_file())
            if not lock(file):
                raise TransientDeliveryError(
                    f"{self.path} is being written by another process or by the previous configuration"
                )
            if not is_named(file, self.real):  # rotated, and maybe compressed, before we had the lock
                raise TransientDeliveryError(f"{self.path} was replaced while it was being opened")
            self._since_s = found.st_mtime
            self._mend(file)
            if found.st_size == 0:
                sync_folder(self.real.parent)
        except BaseException:
            os.close(file)
            raise
        return file

    def _mend(self, file: int) -> None:
        """End the file with a whole line. Ours, cut short by a crash, is taken off; anybody else's is only ended."""
        size = os.fstat(file).st_size
        start = _last_line(file, size)
        if start == size:
            return
        # After a power cut a file system may leave NULs where the data had not reached the disk yet.
        torn = os.pread(file, len(OUR_LINES_BEGIN), start).rstrip(b"\0")
        ours = torn == OUR_LINES_BEGIN[: len(torn)]
        if ours:
            os.ftruncate(file, start)
        else:
            os.write(file, b"\n")
        os.fsync(file)
        log.warning(
            "file.mended", sink=self.name, path=str(self.path), torn_bytes=size - start, taken_off=ours
        )

    # -- rotation ----------------------------------------------------------------------------------------------------------

    def _rotate(self, file: int, now_s: float) -> int:
        """The file to write to: a new one, or the present one when that cannot be had."""
        path = self.real
        size = os.fstat(file).st_size
        try:
            rotated = next_name(path, now_s)
            os.rename(path, rotated)  # noqa: PTH104  # the calls by their names: the order matters
            try:
                sync_folder(path.parent)
                new = self._open()
            except (OSError, DeliveryError):
                if not path.exists():
                    os.rename(rotated, path)  # noqa: PTH104  # see above
                raise
        except (OSError, DeliveryError) as error:
            self._warn("file.rotation_failed", error)
            return self._current()  # never one that has lost its name: a line torn in it would not be mended
        self._file = new
        os.close(file)
        log.info("file.rotated", sink=self.name, path=str(path), rotated_path=str(rotated), size_bytes=size)
        self._tidy_up()
        return new

    def _tidy_up(self) -> None:
        if self._rotation.on:
            self._tidier.post(self._tidy)

    def _tidy(self) -> None:
        rotation = self._rotation
        failed = tidy(self.real, keep=rotation.keep, compress=rotation.compress, stop=self._stop_tidying)
        for error in failed:
            self._warn("file.tidying_failed", error)

    def _warn(self, event: str, error: Exception) -> None:
        now_s = self._now_s()
        if abs(now_s - self._warned_s.get(event, float("-inf"))) < WARNING_EVERY_S:
            return
        self._warned_s[event] = now_s
        facts: dict[str, Any] = {"sink": self.name, "path": str(self.path), "error": str(error)}
        log.warning(event, **facts)

    # -- paths and words ---------------------------------------------------------------------------------------------------

    def _require_own(self, found: os.stat_result | None = None) -> None:
        """Raises `MisconfiguredSinkError` when what has the name is another's. `found`: the file that was opened.

        Looked at before the opening too: to open and close the store would drop SQLite's locks on it.
        """
        now = os.path.realpath(self.path)
        if now != str(self.real) and self.real.parent.is_dir():
            raise MisconfiguredSinkError(
                f"{self.path} points to a different file than when the daemon started or reloaded ({now} for {self.real}), which is not"
                " written to: put it back, or reload the daemon if that is meant"
            )
        try:
            found = found or self.real.lstat()
        except FileNotFoundError:
            return
        for path in self._reserved:
            with contextlib.suppress(OSError):
                if os.path.samestat(found, path.stat()):
                    raise MisconfiguredSinkError(
                        f"{self.path} is another name of {path}, which the daemon itself needs: choose another path"
                    )

    def _not_a_file(self) -> str:
        return f"{self.path} is not a regular file: choose another path"

    def _words(self, error: OSError) -> str:
        reason = f"{self.path}: {error.strerror or error}"
        folder = self.real.parent
        if isinstance(error, FileNotFoundError):
            return f"{reason}: create the directory {folder}"
        if isinstance(error, NotADirectoryError):
            return f"{reason}: choose another path"
        if isinstance(error, PermissionError):
            return f"{reason}: give the daemon's user write access to the file and its directory"
        return reason


def _last_line(file: int, size: int) -> int:
    """Where the last, unended line begins; `size` when the file ends well."""
    end = size
    while end > 0:
        start = max(0, end - TAIL_BYTES)
        at = os.pread(file, end - start, start).rfind(b"\n")
        if at >= 0:
            return start + at + 1
        end = start
    return 0
