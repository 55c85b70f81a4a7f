"""Where a request ends and the next begins, read in one way only; and how many pieces it may come in.

What must stay true: whatever a proxy in front could understand otherwise than we do is refused, so that nobody smuggles a
request past it (RFC 9112, 11.2); and no request costs more work than its bytes are worth.
"""

from __future__ import annotations

import re
from typing import Final

import h11

HEAD_BYTES: Final = 16 * 1024
"""What nginx and h11 allow, too; a push's head has some 600 bytes."""

HEAD_LINES: Final = 100
"""A push has ten, and proxies add some. Each costs 3 µs: 16 KiB of lines of 4 bytes would cost 15 ms."""

PIECES: Final = 256
BYTES_A_PIECE: Final = 256
"""A body may come in 256 pieces, and in one more for each 256 bytes: no network cuts smaller (an MTU is at least 576), and
proxies pass on kilobytes. A chunk costs 10 µs whatever is in it: 16 MiB in chunks of one byte would cost three minutes."""

SPARE_BYTES: Final = 64 * 1024
"""How much longer than the body itself what it is wrapped in may be: chunks have extensions that nobody needs."""

_END_OF_HEAD: Final = re.compile(rb"\n\r?\n")
_FIRST_OF_A_REQUEST: Final = 0x21


class Framing(h11.Connection):
    """h11 for a server, without what it lets pass. `problem`: what was wrong, in a text of ours."""

    def __init__(self) -> None:
        super().__init__(h11.SERVER, HEAD_BYTES)
        self.problem = "the request is not proper HTTP"
        self.is_chunked = False
        self.body_left = 0
        self._pieces = self._body_bytes = self._raw_bytes = 0

    def receive_data(self, data: bytes) -> None:
        """As h11's, and counted."""
        self._raw_bytes += len(data)
        super().receive_data(data)

    def next_event(self) -> type[h11.NEED_DATA | h11.PAUSED] | h11.Event:
        """As h11's. Raises `RemoteProtocolError` for more."""
        event = super().next_event()
        if isinstance(event, h11.Request):
            self._begin(event)
        elif isinstance(event, h11.Data):
            self._count(len(event.data))
        return event

    def refuse(self, problem: str) -> None:
        """Say what is wrong, and raise."""
        self.problem = problem
        raise h11.RemoteProtocolError(problem)

    def _begin(self, request: h11.Request) -> None:
        headers = dict(request.headers)
        coding, length = headers.get(b"transfer-encoding"), headers.get(b"content-length")
        if request.http_version not in (b"1.0", b"1.1"):
            self.refuse("the request is not HTTP/1.1 or HTTP/1.0")
        if coding is not None and length is not None:
            self.refuse("the request has both Content-Length and Transfer-Encoding")
        if coding is not None and request.http_version == b"1.0":
            self.refuse("the request is HTTP/1.0 and has a Transfer-Encoding")
        self.is_chunked = coding is not None
        self.body_left = int(length or b"0")
        self._pieces = self._body_bytes = self._raw_bytes = 0

    def _count(self, size: int) -> None:
        self._pieces += 1
        self._body_bytes += size
        self.body_left -= size
        if self._pieces > PIECES + self._body_bytes // BYTES_A_PIECE:
            self.refuse("the body arrives in too many small pieces")
        if self._raw_bytes > SPARE_BYTES + 2 * self._body_bytes:
            self.refuse("the body's chunks have too much overhead")


class HeadReader:
    """Finds the end of a head in what came so far, looking at each byte once."""

    def __init__(self) -> None:
        self._seen = 0

    def find(self, received: bytearray) -> int | None:
        """How many bytes the head has; None while it is not complete. Raises ValueError for what cannot become one."""
        if received[0] < _FIRST_OF_A_REQUEST:  # such as TLS: no need to wait for an end that never comes
            raise ValueError("the request is not proper HTTP")
        found = _END_OF_HEAD.search(received, self._seen)
        size = len(received) if found is None else found.end()
        self._seen = 0 if found else max(0, size - 2)
        if size > HEAD_BYTES:
            raise ValueError(f"the head exceeds {HEAD_BYTES} bytes")
        if found is None:
            return None
        head = bytes(received[:size])
        if head.count(b"\n") > HEAD_LINES:
            raise ValueError(f"the head has more than {HEAD_LINES} lines")
        if _is_ambiguous(head):
            raise ValueError("the head has ambiguous lines")
        return size


def _is_ambiguous(head: bytes) -> bool:
    """Whether it has a line end that is not CRLF, or a line that goes on in the next one."""
    ends = head.count(b"\r\n")
    return not ends == head.count(b"\n") == head.count(b"\r") or b"\n " in head or b"\n\t" in head
