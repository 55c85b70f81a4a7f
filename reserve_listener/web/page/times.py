"""Times as people read them: absolute in the machine's zone, and how long ago that is."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from typing import TYPE_CHECKING, Final

from reserve_listener.clock import rfc3339, zone_of
from reserve_listener.intake.words import fill

if TYPE_CHECKING:
    from reserve_listener.web.page.words import Words

MINUTE_S: Final = 60
HOUR_S: Final = 3600
DAY_S: Final = 86_400
JUST_NOW_S: Final = 45
"""Nobody needs it more exactly, and a clock beside ours may go by a little differently."""

AHEAD_MS: Final = 2_000
"""What lies further ahead is to come; what does less was written by a clock that goes a little ahead of ours."""

LAST_MS: Final = 253_402_214_400_000
"""The end of 9999 less a day: what lies beyond has no date."""


@dataclass(frozen=True)
class Time:
    """A moment, in all the ways in which a page shows it."""

    iso: str
    clock: str
    """14:07"""
    short: str
    """14:07; of another day 25 Nov 14:07"""
    full: str
    """2026-11-26 14:07:03 UTC+8"""
    ago: str
    day: str
    """Today, Thursday 26 November 2026"""
    zone: str


class Times:
    """For one page: everything is told as of the same moment."""

    def __init__(self, words: Words, now_ms: int) -> None:
        self._words = words
        self.now_ms = now_ms

    def at(self, ms: int | None) -> Time | None:
        """A moment; None stays it."""
        if ms is None:
            return None
        local = _local(ms)
        zone = zone_of(local)
        return Time(
            iso=rfc3339(min(max(ms, 0), LAST_MS)),
            clock=f"{local:%H:%M}",
            short=self._short(local),
            full=f"{local:%Y-%m-%d %H:%M:%S} {zone}",
            ago=self._ago(ms),
            day=self._day(local.date()),
            zone=zone,
        )

    def _short(self, local: datetime) -> str:
        today = _local(self.now_ms)
        if local.date() == today.date():
            return f"{local:%H:%M}"
        if local.year != today.year:
            return f"{local:%Y-%m-%d %H:%M}"
        month = self._words["months"].split()[local.month - 1][:3]
        return f"{self._words['short_date'].format(day=local.day, month=month)} {local:%H:%M}"

    def told(self, text: str | None) -> Time | None:
        """The same of what an answer says, RFC 3339."""
        return None if text is None else self.at(round(datetime.fromisoformat(text).timestamp() * 1000))

    def span(self, ms: int) -> str:
        """How long something took."""
        words = self._words
        if ms < 1000:  # noqa: PLR2004  # a second
            return fill(words["span_ms"], ms)
        seconds = ms / 1000
        for limit_s, unit_s, key in (
            (2 * MINUTE_S, 1, "span_s"),
            (90 * MINUTE_S, MINUTE_S, "span_min"),
            (2 * DAY_S, HOUR_S, "span_h"),
        ):
            if seconds < limit_s:
                return fill(words[key], f"{seconds / unit_s:.0f}")
        return fill(words["span_days"], f"{seconds / DAY_S:.0f}")

    def _ago(self, ms: int) -> str:
        passed_ms = self.now_ms - ms
        if abs(passed_ms) < JUST_NOW_S * 1000:
            return self._words["just_now" if passed_ms > -AHEAD_MS else "soon"]
        return fill(self._words["ago" if passed_ms > 0 else "ahead"], self.span(abs(passed_ms)))

    def _day(self, day: date) -> str:
        words = self._words
        text = words["date"].format(
            weekday=words["weekdays"].split()[day.weekday()],
            day=day.day,
            month=words["months"].split()[day.month - 1],
            year=day.year,
        )
        today = _local(self.now_ms).date()
        near = {today: words["today"], today - timedelta(days=1): words["yesterday"]}.get(day)
        return text if near is None else fill(words["near_day"], near, text)


def day_begins_ms(text: str, *, days_later: int = 0) -> int | None:
    """When a day begins here, as a form gives it (2026-11-26); None: it is none."""
    try:
        day = date.fromisoformat(text) + timedelta(days=days_later)
        return round(datetime(day.year, day.month, day.day).astimezone().timestamp() * 1000)  # local
    except (ValueError, OverflowError, OSError):
        return None


def _local(ms: int) -> datetime:
    return datetime.fromtimestamp(min(max(ms, 0), LAST_MS) / 1000, UTC).astimezone()
