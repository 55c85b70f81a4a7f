"""The file sink: a JSON line for each event, on the disk (fsync) before it counts as delivered.

What must stay true: the file holds whole lines only. A batch that fails is cut off again, and a line torn by a crash is
mended when the file is opened; both were never counted as delivered, so they come again.
"""

from __future__ import annotations

import asyncio
import os
import stat
import threading
from typing import TYPE_CHECKING, Final

import structlog

from reserve_listener.errors import MisconfiguredSinkError, TransientDeliveryError

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from reserve_listener.model import Delivery

MODE: Final = 0o640
OUR_LINES_BEGIN: Final = b'{"specversion":"1.0",'
TAIL_BYTES: Final = 64 * 1024
CLOSE_TIMEOUT_S: Final = 5.0

log = structlog.get_logger("sink.file")


class FileSink:
    """Appends to `path` (created 0640). Opens it anew when another file has taken its name (logrotate)."""

    batch_size = 500
    max_in_flight = 1

    def __init__(self, name: str, path: Path) -> None:
        self.name = name
        self.path = path
        self._file: int | None = None
        self._turn = threading.Lock()
        """An attempt that was cancelled goes on in its thread: nobody may close or write beneath it."""

    async def deliver(self, deliveries: Sequence[Delivery]) -> None:
        """See `protocols.Sink.deliver`. Blocks in a thread of the pool."""
        lines = b"".join(delivery.body + b"\n" for delivery in deliveries)
        try:
            await asyncio.to_thread(self._append, lines)
        except OSError as error:
            raise TransientDeliveryError(f"{self.path}: {error.strerror or error}") from error

    async def close(self) -> None:
        """See `protocols.Sink.close`."""
        await asyncio.to_thread(self._close)

    def _close(self) -> None:
        # A disk that hangs must not hang the end of the daemon: the file is then left to the kernel.
        if self._turn.acquire(timeout=CLOSE_TIMEOUT_S):
            try:
                self._let_go()
            finally:
                self._turn.release()

    def _let_go(self) -> None:
        file, self._file = self._file, None
        if file is not None:
            os.close(file)

    def _append(self, lines: bytes) -> None:
        with self._turn:
            file = self._current()
            before = os.fstat(file).st_size
            try:
                _write_all(file, lines)
                os.fsync(file)
            except OSError:
                try:
                    os.ftruncate(file, before)
                finally:
                    self._let_go()  # opened anew, it is mended should the cut have failed too
                raise

    def _current(self) -> int:
        if self._file is not None and not self._is_named(self._file):
            self._let_go()
        if self._file is None:
            self._file = self._open()
        return self._file

    def _is_named(self, file: int) -> bool:
        ours = os.fstat(file)
        try:
            named = self.path.stat()
        except FileNotFoundError:
            return False
        return (ours.st_dev, ours.st_ino) == (named.st_dev, named.st_ino)

    def _open(self) -> int:
        # O_NONBLOCK: opening a FIFO that nobody reads must not hang; it means nothing for a file.
        flags = os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NONBLOCK
        created = not self.path.exists()
        try:
            file = os.open(self.path, flags, MODE)
        except IsADirectoryError as error:
            raise MisconfiguredSinkError(f"{self.path} is not a regular file: name another path") from error
        try:
            if not stat.S_ISREG(os.fstat(file).st_mode):
                raise MisconfiguredSinkError(f"{self.path} is not a regular file: name another path")
            self._mend(file)
            if created:
                _sync_folder(self.path.parent)
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
            _write_all(file, b"\n")
        os.fsync(file)
        log.warning(
            "file.mended", sink=self.name, path=str(self.path), torn_bytes=size - start, taken_off=ours
        )


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


def _write_all(file: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(file, view) :]


def _sync_folder(folder: Path) -> None:
    """A new file's name is on the disk only when its folder is."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
