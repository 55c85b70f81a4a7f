"""How often a call may be made: limits for any second and any minute, whichever is reached first."""

from __future__ import annotations

import math
from collections import defaultdict, deque
from typing import TYPE_CHECKING, Final, NamedTuple

from reserve_listener.simulator.openapi.answers import TOO_OFTEN, RefusedError

if TYPE_CHECKING:
    from collections.abc import Callable

MINUTE_S: Final = 60.0


class Rate(NamedTuple):
    """Calls per minute and per second; 0: no limit."""

    minute: int = 0
    second: int = 0


ROOMS: Final = Rate(1000, 50)
LIMITS: Final = Rate(minute=100)
PEOPLE: Final = Rate(second=5)
MESSAGES: Final = Rate(second=5)
"""For each group, and for each message; the API's own limits are higher."""


class Rates:
    """Counts calls by name. Minutes and seconds last `scale` times as long as they should.

    Refused calls do not count; the platform's pages do not say whether they do there.
    """

    def __init__(self, clock: Callable[[], float], *, scale: float = 1.0) -> None:
        self._clock = clock
        self._scale = scale
        self._made: dict[str, deque[float]] = defaultdict(deque)

    def count(self, name: str, rate: Rate) -> None:
        """Count a call. Raises `RefusedError` if it comes too soon."""
        now, made = self._clock(), self._made[name]
        while made and made[0] <= now - MINUTE_S * self._scale:
            made.popleft()
        waits = [_wait(made, bound, span * self._scale, now) for bound, span in _spans(rate)]
        wait, bound = max(waits, default=(0.0, 0))
        if wait > 0:
            headers = {"x-ogw-ratelimit-limit": str(bound), "x-ogw-ratelimit-reset": str(math.ceil(wait))}
            raise RefusedError(TOO_OFTEN, "request trigger frequency limit", status=429, headers=headers)
        made.append(now)


def _spans(rate: Rate) -> list[tuple[int, float]]:
    return [(bound, span) for bound, span in ((rate.minute, MINUTE_S), (rate.second, 1.0)) if bound]


def _wait(made: deque[float], bound: int, span: float, now: float) -> tuple[float, int]:
    """The seconds until `span` has room for one more, and the limit."""
    return (made[-bound] + span - now if len(made) >= bound else 0.0), bound
