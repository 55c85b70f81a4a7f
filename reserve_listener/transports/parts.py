"""Joining payloads that the platform sends in several frames (`sum` > 1)."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from reserve_listener.frames import MAX_FRAME_BYTES

if TYPE_CHECKING:
    from collections.abc import Callable

MAX_PARTS: Final = 1_024
MAX_MESSAGES: Final = 256
MAX_BYTES: Final = 4 * MAX_FRAME_BYTES
"""Bounds on what waits for its missing parts: the peer names `sum`, so nothing is allocated by it."""

TTL_S: Final = 30.0
"""After this a message with missing parts is forgotten; the platform pushes it again, whole."""


class PartsError(ValueError):
    """A part that fits no message, or would break a bound."""


@dataclass(slots=True)
class _Message:
    total: int
    since: float
    parts: dict[int, bytes] = field(default_factory=dict)
    size: int = 0


class Parts:
    """Collects parts by message id: in any order, repeated or not."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._messages: dict[str, _Message] = {}
        self._size = 0

    def add(self, message_id: str, total: int, seq: int, payload: bytes) -> bytes | None:
        """The whole payload when this was its last missing part, else None. `PartsError` for a part out of bounds."""
        if not 1 <= total <= MAX_PARTS or not 0 <= seq < total:
            raise PartsError(f"part {seq} of {total} is out of bounds")
        self._expire()
        message = self._messages.get(message_id)
        if message is None or message.total != total:
            self._forget(message_id)
            message = self._messages[message_id] = _Message(total, self._clock())
        growth = len(payload) - len(message.parts.get(seq, b""))
        message.parts[seq] = payload
        message.size += growth
        self._size += growth
        if message.size > MAX_FRAME_BYTES:
            self._forget(message_id)
            raise PartsError(f"the joined payload exceeds {MAX_FRAME_BYTES} bytes")
        if len(message.parts) == total:
            self._forget(message_id)
            return b"".join(message.parts[number] for number in range(total))
        self._keep_bounds()
        return None

    def _expire(self) -> None:
        now = self._clock()
        while self._messages:
            message_id, oldest = next(iter(self._messages.items()))
            if now - oldest.since < TTL_S:
                return
            self._forget(message_id)

    def _keep_bounds(self) -> None:
        while len(self._messages) > MAX_MESSAGES or self._size > MAX_BYTES:
            self._forget(next(iter(self._messages)))

    def _forget(self, message_id: str) -> None:
        message = self._messages.pop(message_id, None)
        if message is not None:
            self._size -= message.size
