"""Checks that what SQLite counts as committed is still in the write-ahead log.

SQLite looks at what it has written only once, when it recovers. If somebody truncates the log beneath it (a disk tool that "frees
space"), it goes on writing behind a hole, and all of that is discarded at the next start. What must stay true: no commit is
confirmed that the end of the log does not show. The layout is that of https://sqlite.org/walformat.html.
"""

from __future__ import annotations

import os
import struct
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from pathlib import Path

INDEX_HEADER_BYTES: Final = 48
LOG_HEADER_BYTES: Final = 32
FRAME_HEADER_BYTES: Final = 24
SALT: Final = slice(32, 40)
"""Where the index has the salt, which the log's header (at 16) and each frame (at 8) repeat byte by byte."""


class WalGuard:
    """Looks at the log and index of an open connection, in a few microseconds. Close it after the connection, not before.

    Closing one of SQLite's files drops the locks that SQLite has on it (fcntl(2)), so both stay open as long as the connection.
    """

    def __init__(self, store: Path) -> None:
        self._files: list[int] = []
        for ending in ("-wal", "-shm"):
            try:
                self._files.append(os.open(f"{store}{ending}", os.O_RDONLY | os.O_CLOEXEC))
            except FileNotFoundError:  # a file system on which SQLite works without
                return
        self._seen = 0

    def whole(self) -> bool:
        """Whether all frames that the index counts are there, including the last one seen before."""
        if len(self._files) < 2:  # noqa: PLR2004  # log and index
            return True
        index = b""
        # Another program may checkpoint and start the log anew between the two reads: only what stands still counts.
        while index != (index := os.pread(self._files[1], INDEX_HEADER_BYTES, 0)):
            if self._fits(index):
                return True
        return False

    def close(self) -> None:
        """Close the files."""
        while self._files:
            os.close(self._files.pop())

    def _fits(self, index: bytes) -> bool:
        page_bytes, frames = struct.unpack_from("=H", index, 14)[0], struct.unpack_from("=I", index, 16)[0]
        seen, self._seen = min(self._seen, frames), frames
        if frames == 0:
            return True
        frame_bytes = FRAME_HEADER_BYTES + ((page_bytes & 0xFE00) | (page_bytes & 1) << 16)
        if os.fstat(self._files[0]).st_size < LOG_HEADER_BYTES + frames * frame_bytes:
            return False
        places = [16, *(LOG_HEADER_BYTES + (frame - 1) * frame_bytes + 8 for frame in {seen, frames} - {0})]
        return all(os.pread(self._files[0], 8, place) == index[SALT] for place in places)
