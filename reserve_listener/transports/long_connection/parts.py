"""Joining payloads that the platform sends in several frames (`sum` > 1)."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from hashlib import blake2b
from typing import TYPE_CHECKING, Final

from reserve_listener.lark.frames import MAX_FRAME_BYTES

if TYPE_CHECKING:
    from collections.abc import Callable

MAX_PARTS: Final = 1_024
"""Of one message: `MAX_FRAME_BYTES` in parts of 16 KiB, and who cuts a payload at all cuts it larger. Empty, that many hold
256 KiB (`PART_BYTES`)."""

MAX_MESSAGES: Final = 256
"""That wait for missing parts: within `TTL_S`, eight large payloads begun a second and none finished. What they hold is bounded
with the connection's other bytes (`shrink`); this is for messages that hold next to nothing, and there are never many."""

PART_BYTES: Final = 256
"""What a part costs beside its payload: without it a quarter of a million empty ones would count as nothing."""

TTL_S: Final = 30.0
"""After this a message with missing parts is forgotten; the platform pushes it again, whole."""


class PartsError(ValueError):
    """A part that fits no message, or would break a bound."""


@dataclass(slots=True)
class _Message:
    total: int
    since: float
    parts: dict[int, bytes] = field(default_factory=dict)
    held_bytes: int = 0


class Parts:
    """Collects parts by message id: in any order, repeated or not."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._messages: dict[bytes, _Message] = {}
        self.held_bytes = 0
        """Of all that waits."""

    def add(self, message_id: str, total: int, seq: int, payload: bytes) -> bytes | None:
        """The whole payload when this was its last missing part, else None. `PartsError` for a part out of bounds."""
        if not 1 <= total <= MAX_PARTS or not 0 <= seq < total:
            raise PartsError(f"part {seq} of {total} is out of bounds")
        self._expire()
        key = _key(message_id)
        message = self._messages.get(key)
        if message is None or message.total != total:
            self._forget(key)
            message = self._messages[key] = _Message(total, self._clock())
        known = message.parts.get(seq)
        growth = len(payload) + PART_BYTES if known is None else len(payload) - len(known)
        message.parts[seq] = payload
        message.held_bytes += growth
        self.held_bytes += growth
        if message.held_bytes - PART_BYTES * len(message.parts) > MAX_FRAME_BYTES:
            self._forget(key)
            raise PartsError(f"the joined payload exceeds {MAX_FRAME_BYTES} bytes")
        if len(message.parts) == total:
            self._forget(key)
            return b"".join(message.parts[number] for number in range(total))
        if len(self._messages) > MAX_MESSAGES:
            self._forget(next(iter(self._messages)))
        return None

    def shrink(self, to_bytes: int) -> None:
        """Forget the oldest messages until no more than this is held: the platform pushes them again."""
        while self._messages and self.held_bytes > to_bytes:
            self._forget(next(iter(self._messages)))

    def _expire(self) -> None:
        now = self._clock()
        while self._messages:
            key, oldest = next(iter(self._messages.items()))
            if now - oldest.since < TTL_S:
                return
            self._forget(key)

    def _forget(self, key: bytes) -> None:
        message = self._messages.pop(key, None)
        if message is not None:
            self.held_bytes -= message.held_bytes


def _key(message_id: str) -> bytes:
    """An id is as long as the peer likes; what is remembered of it is not."""
    return blake2b(message_id.encode(), digest_size=16).digest()
