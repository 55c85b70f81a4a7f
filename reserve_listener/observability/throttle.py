"""Log lines that could otherwise come by the thousand: one of each kind in a while, with the number of those left out."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable


class Throttle:
    """At most one line of each kind in `every_s` seconds."""

    def __init__(self, every_s: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._every_s = every_s
        self._clock = clock
        self._told: dict[str, tuple[float, int]] = {}

    def tell(self, kind: str, write: Callable[..., None], event: str, **facts: object) -> bool:
        """`write(event, **facts)`, unless one of the kind was written just now; `more`: how many were left out since.

        Whether it was written.

        There must be few kinds: each is remembered.
        """
        now = self._clock()
        told_at, untold = self._told.get(kind, (now - self._every_s, 0))
        if now - told_at < self._every_s:
            self._told[kind] = (told_at, untold + 1)
            return False
        self._told[kind] = (now, 0)
        write(event, **facts, **({"more": untold} if untold else {}))
        return True
