"""Whole binary frames cut straight out of what was read, which is all that a platform at work sends.

websockets spends 10 µs on each frame. Its parser asks its reader at the boundary of each frame whether the stream has
ended; a reader that takes the plain frames out of the buffer before it answers leaves it everything else: control frames,
fragments, text, what is masked or too large or no frame at all. What must stay true: messages arrive in the order in
which they were sent, and nothing else about the connection can tell the two ways apart (`tests/transports/long_connection/test_wire.py`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from websockets.protocol import State
from websockets.streams import StreamReader

if TYPE_CHECKING:
    from collections.abc import Callable, Generator

    from websockets.protocol import Protocol

BINARY: Final = 0x82
"""The first byte of a frame that is a whole binary message: FIN and the opcode, no extension."""

# The second byte: a length below these, or the number of bytes of one that follows. With the mask bit it is larger.
_IN_TWO, _IN_EIGHT = 126, 127
_SHORTEST_HEAD = 2


def read_whole_frames(protocol: Protocol, on_message: Callable[[bytes], None]) -> None:
    """From now on `on_message` gets the messages of whole binary frames; it must not raise."""
    protocol.reader = _Reader(protocol, on_message)
    protocol.parser = protocol.parse()
    next(protocol.parser)  # as the library starts it


class _Reader(StreamReader):
    def __init__(self, protocol: Protocol, on_message: Callable[[bytes], None]) -> None:
        super().__init__()
        self._protocol = protocol
        self._on_message = on_message

    def at_eof(self) -> Generator[None, None, bool]:
        """The parser's question before each frame."""
        while True:
            unfinished = self._take_whole()
            if self.buffer and (self.eof or not unfinished):
                return False
            if self.eof:
                return True
            yield

    def _take_whole(self) -> bool:
        """Hand on what is whole; whether the rest is the beginning of such a frame."""
        protocol, buffer, place = self._protocol, self.buffer, 0
        while protocol.state is State.OPEN and protocol.cur_size is None and not protocol.events:
            start, end = _payload(buffer, place, protocol.max_size)
            if not end or end > len(buffer):
                break
            message = bytes(memoryview(buffer)[start:end])
            self._on_message(message)
            place = end
        else:
            end = 0
        if place:
            del buffer[:place]
        return bool(end and buffer)


def _payload(buffer: bytearray, place: int, max_size: int | None) -> tuple[int, int]:
    """Where the payload of the binary frame begins and ends that begins there; 0 for its end: it is for the library.

    An end beyond the buffer is one that is still to come, or not known yet.
    """
    have = len(buffer) - place
    if have and buffer[place] != BINARY:
        return 0, 0
    start = place + _SHORTEST_HEAD
    if have < _SHORTEST_HEAD:
        return start, len(buffer) + 1
    length = buffer[place + 1]
    if length >= _IN_TWO:
        size = 2 if length == _IN_TWO else 8
        if length > _IN_EIGHT:
            return 0, 0
        if have < _SHORTEST_HEAD + size:
            return start, len(buffer) + 1
        length = int.from_bytes(buffer[start : start + size], "big")
        start += size
    if max_size is not None and length > max_size:
        return 0, 0
    return start, start + length
