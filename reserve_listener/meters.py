"""What the daemon counts of itself, for `/metrics`. A leaf: counting is a list and an addition, whoever may look at it later.

Used on the loop; read from other threads, to which a figure may be older than its neighbour by one event.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter
from typing import Final

ANSWER_S: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2, 3)
"""To 3 s, after which the platform takes a push for lost."""
COMMIT_S: Final = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 10)
BATCH_EVENTS: Final = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512)
ATTEMPT_S: Final = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)
DELAY_S: Final = (0.01, 0.03, 0.1, 0.3, 1, 3, 10, 30, 60, 300, 900, 3_600, 14_400, 86_400)

CONNECTION_CHANGES: Final = ("connected", "closed", "lost", "requested", "failed", "refused")
"""It was made; it was closed by the platform, lost, or given up because a person asked; an attempt failed or was refused."""

DELIVERED: Final = "delivered"
RETRY: Final = "retry"
DEAD: Final = "dead"


API_CALLS: Final = ("token", "places", "place", "limits", "people")
API_OUTCOMES: Final = ("ok", "retry", "gone", "refused")
RECONCILED: Final = ("same", "changed", "gone", "failed")


class Histogram:
    """How many values were no more than each bound, and their sum. `counts` has one more, for what is above the last."""

    __slots__ = ("bounds", "counts", "total")

    def __init__(self, bounds: tuple[float, ...]) -> None:
        self.bounds = bounds
        self.counts = [0] * (len(bounds) + 1)
        self.total = 0.0

    def observe(self, value: float) -> None:
        """Count a value."""
        self.counts[bisect_left(self.bounds, value)] += 1
        self.total += value


class DeliveryMeter:
    """What comes of one sink's deliveries. It outlives the sink's workers: a reload is no new beginning."""

    __slots__ = ("attempts_s", "delays_s", "outcomes")

    def __init__(self) -> None:
        self.outcomes: Counter[str] = Counter({DELIVERED: 0, RETRY: 0, DEAD: 0})
        """Of each attempt at an event, and of those that were given up without one."""
        self.attempts_s = Histogram(ATTEMPT_S)
        self.delays_s = Histogram(DELAY_S)
        """From when an event was stored to when the sink had it; times that do not count for its age left out."""


class IntakeMeter:
    """How pushes are answered."""

    __slots__ = ("answers_s", "batches", "commits_s")

    def __init__(self) -> None:
        self.answers_s = Histogram(ANSWER_S)
        """From a push to its verdict."""
        self.commits_s = Histogram(COMMIT_S)
        """Of a batch: from when the store got it to when it was on the disk, or known not to get there."""
        self.batches = Histogram(BATCH_EVENTS)


class RoomsMeter:
    """What comes of asking the platform about rooms."""

    __slots__ = ("limited", "reconciled", "reconciled_ms", "requests")

    def __init__(self) -> None:
        self.requests: Counter[tuple[str, str]] = Counter()
        """Calls, by name and outcome."""
        self.limited: Counter[str] = Counter()
        """Those that the platform wants later, by name."""
        self.reconciled: Counter[str] = Counter()
        """Scopes that were compared, by outcome."""
        self.reconciled_ms: int | None = None
        """When the last pass over all of them ended."""
