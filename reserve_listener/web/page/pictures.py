"""What is drawn: figures of the last 24 hours, and the bookable day. Numbers here, SVG in the templates.

Widths are percents and heights pixels, so that a picture fits any column and its letters keep their size.
"""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass
from datetime import datetime
from math import log10
from typing import TYPE_CHECKING, Final

from reserve_listener.errors import StoreError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from reserve_listener.model import HourFigures
    from reserve_listener.web.answers import Status
    from reserve_listener.web.page.times import Times
    from reserve_listener.web.reads import Reads

HOURS: Final = 24
HOUR_MS: Final = 3_600_000
DAY_S: Final = 86_400
LATE_MS: Final = 60_000
"""A delivery that took longer is shown as late: nearly all take milliseconds."""

FRESH_S: Final = 30.0
"""How old figures may be. Counting goes through all of the last day, which may be a second on a busy one."""
PATIENCE_S: Final = 0.03
"""How long the first page waits for them; whoever comes first after a start may have to look again."""

TALLEST: Final = 52
DELAY_TALLEST: Final = 18
LONGEST_MS: Final = DAY_S * 1000


@dataclass(frozen=True)
class Bar:
    """An hour. `x`: percents; heights: pixels; 0: nothing to draw."""

    x: float
    since_ms: int
    changes: int
    height: int
    late: int
    slowest_ms: int
    delay_height: int


@dataclass(frozen=True)
class Day:
    """The last 24 hours."""

    bars: tuple[Bar, ...]
    changes: int
    deliveries: int
    late: int
    slowest_ms: int


@dataclass(frozen=True)
class Break:
    """A part of the last 24 hours without a connection, in percents."""

    x: float
    width: float


class Counter:
    """Keeps the figures of the last day, counted anew in the background when somebody looks and they are old."""

    def __init__(self, reads: Reads) -> None:
        self._reads = reads
        self._figures: tuple[int, Sequence[HourFigures]] | None = None
        self._counted_s = -FRESH_S
        self._counting: asyncio.Task[None] | None = None

    async def day(self, now_ms: int) -> Day | None:
        """The last 24 hours, up to `FRESH_S` old; None: they are being counted for the first time."""
        if self._counting is None and time.monotonic() - self._counted_s >= FRESH_S:
            self._counting = asyncio.create_task(self._count(now_ms), name="page-count")
        if self._figures is None and self._counting is not None:
            await asyncio.wait([self._counting], timeout=PATIENCE_S)
        return None if self._figures is None else drawn(*self._figures)

    async def _count(self, now_ms: int) -> None:
        # Whole hours by the clock, so that a bar stays what it is while the time goes on.
        since_ms = (now_ms // HOUR_MS - HOURS + 1) * HOUR_MS
        try:
            found = await self._reads.ask(lambda reader: reader.hours(since_ms, late_ms=LATE_MS))
            self._figures = since_ms, found
        except StoreError:  # the page says that; old figures stay
            pass
        finally:
            self._counted_s = time.monotonic()
            self._counting = None


def drawn(since_ms: int, figures: Sequence[HourFigures]) -> Day:
    """The figures as bars: changes to scale, delays by their order of magnitude."""
    by_hour = {one.hour: one for one in figures if 0 <= one.hour < HOURS}
    most = max((one.changes for one in by_hour.values()), default=0)
    bars = []
    for hour in range(HOURS):
        one = by_hour.get(hour)
        bars.append(
            Bar(
                x=100 * hour / HOURS,
                since_ms=since_ms + hour * HOUR_MS,
                changes=one.changes if one else 0,
                height=max(2, round(TALLEST * one.changes / most)) if one else 0,
                late=one.late if one else 0,
                slowest_ms=one.slowest_ms if one else 0,
                delay_height=_delay_height(one.slowest_ms) if one and one.deliveries else 0,
            )
        )
    return Day(
        bars=tuple(bars),
        changes=sum(one.changes for one in by_hour.values()),
        deliveries=sum(one.deliveries for one in by_hour.values()),
        late=sum(one.late for one in by_hour.values()),
        slowest_ms=max((one.slowest_ms for one in by_hour.values()), default=0),
    )


def _delay_height(slowest_ms: int) -> int:
    return max(2, round(DELAY_TALLEST * log10(1 + slowest_ms) / log10(LONGEST_MS)))


def breaks(status: Status | None, times: Times) -> list[Break]:
    """Times of the last day without a connection, as far as they are known: long ones, and the one that lasts."""
    if status is None:
        return []
    begin_ms = times.now_ms - HOURS * HOUR_MS
    spans = [(_ms(gap.from_), _ms(gap.to)) for gap in status.gaps]
    missing = [reason.since for reason in status.reasons if reason.part == "connection" and reason.since]
    spans += [(_ms(since), times.now_ms) for since in missing]
    found = []
    for from_ms, to_ms in spans:
        start, end = max(begin_ms, from_ms), min(times.now_ms, to_ms)
        if start < end:
            width = 100 * (end - start) / (HOURS * HOUR_MS)
            found.append(
                Break(x=100 * (start - begin_ms) / (HOURS * HOUR_MS), width=min(100, max(width, 0.5)))
            )
    return found


def share(second: int) -> float:
    """Where a second of the day is, in percents."""
    return round(100 * second / DAY_S, 3)


def _ms(text: str) -> int:
    return round(datetime.fromisoformat(text).timestamp() * 1000)
