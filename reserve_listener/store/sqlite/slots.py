"""A few kilobytes that survive a restart however broken the store is: a separate file that never grows.

What must stay true: the last content, or the one before, is found intact, even after a kill in the middle of a write. The file is
written in full when it is created, so that later writes need no room on a full disk.

There are two slots, written in turn. Each has a number, a length and a checksum before its content; the highest number counts.
"""

from __future__ import annotations

import errno
import os
import struct
import threading
import zlib
from typing import TYPE_CHECKING, Final

from reserve_listener import ownership

if TYPE_CHECKING:
    from pathlib import Path

SLOT_BYTES: Final = 64 * 1024
"""A hundred usual alerts, or forty with the longest texts possible: one for each sink, and six others."""

_HEAD: Final = struct.Struct(">QII")
CONTENT_BYTES: Final = SLOT_BYTES - _HEAD.size


class Slots:
    """One such file. Every method blocks and may raise `OSError`. A call that hangs on the disk holds up the next."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._number = 0
        self._one = threading.Lock()

    def read(self) -> bytes | None:
        """What was written last; None if nothing was. Creates the file if there is none."""
        with self._one:
            return self._read()

    def write(self, content: bytes) -> None:
        """Write this, at most `CONTENT_BYTES`: more would reach into the other slot."""
        if len(content) > CONTENT_BYTES:
            raise OSError(
                errno.EFBIG, f"{len(content)} bytes are more than the {CONTENT_BYTES} that it holds"
            )
        with self._one:
            self._write(content)

    def _read(self) -> bytes | None:
        file = ownership.open_file(self._path, os.O_RDWR, 0o600)
        try:
            if os.fstat(file).st_size < 2 * SLOT_BYTES:
                _write(file, bytes(2 * SLOT_BYTES), 0)
            found = max(_slot(os.pread(file, SLOT_BYTES, at * SLOT_BYTES)) for at in (0, 1))
        finally:
            os.close(file)
        self._number = found[0]
        return found[1] if found[0] else None

    def _write(self, content: bytes) -> None:
        number = self._number + 1
        slot = _HEAD.pack(number, len(content), _checksum(number, content)) + content
        file = ownership.open_file(self._path, os.O_RDWR, 0o600)
        try:
            _write(file, slot, number % 2 * SLOT_BYTES)
        finally:
            os.close(file)
        self._number = number


def _write(file: int, content: bytes, at: int) -> None:
    while content:
        written = os.pwrite(file, content, at)
        content, at = content[written:], at + written
    os.fdatasync(file)


def _slot(slot: bytes) -> tuple[int, bytes]:
    """Number and content; the number is 0 if the slot was never written, or not completely."""
    if len(slot) < _HEAD.size:
        return 0, b""
    number, length, checksum = _HEAD.unpack_from(slot)
    content = slot[_HEAD.size : _HEAD.size + length]
    whole = len(content) == length and _checksum(number, content) == checksum
    return (number, content) if whole else (0, b"")


def _checksum(number: int, content: bytes) -> int:
    """A checksum that includes the number: else a new number over old content would make that the newest."""
    return zlib.crc32(content, number & 0xFFFFFFFF)
