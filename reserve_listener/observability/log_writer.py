"""The thread that writes the log, so that a slow terminal or a stopped pipe never blocks the event loop.

Two kinds of lines share it, so they never interleave: the daemon's own, which are dropped (and counted) when more than
`HELD_BYTES` wait, and those of the log sink, whose caller waits until they are out.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import queue
import select
import threading
from typing import TYPE_CHECKING, Final

from reserve_listener.text import ESCAPE

if TYPE_CHECKING:
    from collections.abc import Callable

HELD_BYTES: Final = 8 * 1024 * 1024
"""Of lines that wait: some twenty thousand usual ones, minutes of a bad day; an eighth of what the daemon takes when it is idle."""
LINE_BYTES: Final = 200
"""What a line costs beside its text: the queue's entry, and an object for it."""
CLOSE_TIMEOUT_S: Final = 2.0

_Item = tuple[bytes, "asyncio.Future[None] | None"]


class LogWriter:
    """Writes to a file descriptor. `on_dropped` renders the line that says how many were dropped.

    What `encoding` cannot express is written as its escape (`text.ESCAPE`).
    """

    def __init__(self, descriptor: int, *, on_dropped: Callable[[int], str], encoding: str = "utf-8") -> None:
        self._descriptor = descriptor
        self._on_dropped = on_dropped
        self._encoding = encoding
        self._items: queue.SimpleQueue[_Item | None] = queue.SimpleQueue()
        self._held_bytes = 0
        self._counting = threading.Lock()
        self._dropped = 0
        self._torn = False
        self._closed = False
        self._thread = threading.Thread(target=self._run, name="log-writer", daemon=True)
        self._thread.start()

    def line(self, text: str) -> None:
        """Queue one line; dropped when too many wait."""
        data = self._bytes([text])
        with self._counting:  # lines come from several threads
            if self._held_bytes + len(data) + LINE_BYTES > HELD_BYTES:
                self._dropped += 1
                return
            self._held_bytes += len(data) + LINE_BYTES
            self._items.put((data, None))

    async def write(self, lines: list[str]) -> None:
        """Write lines and wait until they are out. Raises `OSError`."""
        if self._closed:
            raise OSError("the log is closed")
        written = asyncio.get_running_loop().create_future()
        self._items.put((self._bytes(lines), written))
        await written

    def close(self) -> None:
        """Write what is queued, for at most `CLOSE_TIMEOUT_S`."""
        self._closed = True
        self._items.put(None)
        self._thread.join(CLOSE_TIMEOUT_S)

    def _bytes(self, lines: list[str]) -> bytes:
        return "".join(f"{line}\n" for line in lines).encode(self._encoding, ESCAPE)

    def _run(self) -> None:
        while (item := self._items.get()) is not None:
            data, written = item
            error: OSError | None = None
            try:
                self._say_dropped()
                self._write_all(data)
            except OSError as failure:
                error = failure
            if written is None:
                self._let_go(len(data) + LINE_BYTES, is_lost=error is not None)
            else:
                _tell(written, error)

    def _let_go(self, size: int, *, is_lost: bool) -> None:
        with self._counting:
            self._held_bytes -= size
            self._dropped += is_lost

    def _say_dropped(self) -> None:
        if dropped := self._dropped:
            self._write_all(self._bytes([self._on_dropped(dropped)]))
            with self._counting:
                self._dropped -= dropped

    def _write_all(self, data: bytes) -> None:
        # What a full disk cut off is ended, so that the next line is a line of its own.
        view = memoryview(b"\n" + data if self._torn else data)
        while view:
            try:
                written = os.write(self._descriptor, view)
            except BlockingIOError:  # a terminal that somebody else made non-blocking
                select.select([], [self._descriptor], [], 1.0)
                continue
            view = view[written:]
            self._torn = bool(view)


def _tell(written: asyncio.Future[None], error: OSError | None) -> None:
    def resolve() -> None:
        if written.done():
            return
        if error is None:
            written.set_result(None)
        else:
            written.set_exception(error)

    with contextlib.suppress(RuntimeError):  # the loop is closed: nobody waits any more
        written.get_loop().call_soon_threadsafe(resolve)
