"""Bodies of pushes, each with a deadline and a bound, and all of them together with another bound.

What must stay true: whoever sends much keeps the usual push of 2 kB, and one of a few hundred, from nothing.
"""

from __future__ import annotations

import asyncio
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

from reserve_listener.transports.webhook.push import PushRefusedError

if TYPE_CHECKING:
    from collections.abc import AsyncIterable, Iterator

BODY_BYTES: Final = 16 * 1024 * 1024
"""As on the long connection."""

IN_HAND_BYTES: Final = 32 * 1024 * 1024
"""What large bodies may take together from their first byte to their answer: two of the largest, or a hundred that name two
thousand people each. What is made of one takes some five times its size: 16 pushes of 15 MiB at once take 150 MB in all."""

SMALL_BYTES: Final = 64 * 1024
"""So much of each body does not count: it is 64 MiB if all the thousand connections send it at the same moment."""

BODY_TIMEOUT_S: Final = 10.0
"""The platform itself gives up after 3 s; a proxy that buffers may take longer to send than it took to receive."""


class Bodies:
    """All bodies in hand."""

    def __init__(self) -> None:
        self.bytes = 0
        """What counts of them."""
        self.arriving: set[Body] = set()

    @contextmanager
    def one(self) -> Iterator[Body]:
        """A body, for as long as its push is in hand."""
        body = Body(self)
        try:
            yield body
        finally:
            body.drop()

    def make_room(self) -> None:
        """Send the largest away that is still arriving, until there is room: it asks for the most and is the least usual."""
        while self.bytes > IN_HAND_BYTES and self.arriving:
            max(self.arriving, key=lambda body: body.counted).give_way()


class Body:
    """One body. `data`: what has come of it."""

    def __init__(self, bodies: Bodies) -> None:
        self.data = bytearray()
        self.counted = 0
        self._bodies = bodies
        self._gave_way = False
        self._deadline: asyncio.Timeout

    async def read(self, pieces: AsyncIterable[bytes]) -> bytes:
        """All of it. Raises `PushRefusedError` when it is too long, too slow, or has to give way."""
        self._bodies.arriving.add(self)
        try:
            async with asyncio.timeout(BODY_TIMEOUT_S) as self._deadline:
                async for piece in pieces:
                    self._add(piece)
        except TimeoutError:
            self._refuse_if_it_gave_way()
            raise PushRefusedError(
                408, "timeout", f"the body did not arrive within {BODY_TIMEOUT_S:g} s"
            ) from None
        finally:
            self._bodies.arriving.discard(self)
        self._refuse_if_it_gave_way()
        whole, self.data = bytes(self.data), bytearray()  # it counts on, for what is made of it
        return whole

    def give_way(self) -> None:
        """Be refused as soon as it is its reader's turn, and give back what came at once."""
        self.drop()
        self._gave_way = True
        self._deadline.reschedule(asyncio.get_running_loop().time())

    def drop(self) -> None:
        """Let go of it, and of its share."""
        self._bodies.arriving.discard(self)
        self._bodies.bytes -= self.counted
        self.counted = 0
        self.data = bytearray()

    def _add(self, piece: bytes) -> None:
        self._refuse_if_it_gave_way()
        self.data += piece
        if len(self.data) > BODY_BYTES:
            raise too_large()
        before, self.counted = self.counted, max(0, len(self.data) - SMALL_BYTES)
        self._bodies.bytes += self.counted - before
        self._bodies.make_room()
        self._refuse_if_it_gave_way()

    def _refuse_if_it_gave_way(self) -> None:
        if self._gave_way:
            raise PushRefusedError(503, "busy", "too many large pushes at once") from None


def too_large() -> PushRefusedError:
    """What a body is told that exceeds the bound."""
    return PushRefusedError(413, "too large", f"the body exceeds {BODY_BYTES} bytes")
