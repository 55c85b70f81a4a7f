"""The time of day, as the store and the log count and write it. A leaf: everybody may use it."""

from __future__ import annotations

import re
import time
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import Final

_UNITS_S: Final = {"s": 1, "m": 60, "h": 3600, "d": 86_400}

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)


def now_ms() -> int:
    """Milliseconds since the epoch."""
    return time.time_ns() // 1_000_000


def wall_ms(monotonic_s: float) -> int:
    """A moment of the monotonic clock as the time of day."""
    return now_ms() + round((monotonic_s - time.monotonic()) * 1000)


def rfc3339(milliseconds: int) -> str:
    """`2020-12-23T12:19:49.000Z`: UTC, always with milliseconds."""
    return f"{_second(milliseconds // 1000)}.{milliseconds % 1000:03d}Z"


@lru_cache(maxsize=256)  # events of one change are of the same few seconds
def _second(seconds: int) -> str:
    return f"{_EPOCH + timedelta(seconds=seconds):%Y-%m-%dT%H:%M:%S}"


def zone_of(local: datetime) -> str:
    """`UTC+8`: short names of zones mean several."""
    minutes = round((local.utcoffset() or timedelta()).total_seconds() / 60)
    if not minutes:
        return "UTC"
    hours, rest = divmod(abs(minutes), 60)
    return f"UTC{'+' if minutes > 0 else '−'}{hours}{f':{rest:02d}' if rest else ''}"  # noqa: RUF001  # a minus


def moment_ms(text: str) -> int:
    """A moment that a person names: a span before now (`30m`), or RFC 3339; without a zone the local one.

    Raises `ValueError` with a sentence.
    """
    if match := re.fullmatch(r"(\d{1,9})([smhd])", text, re.ASCII):
        return now_ms() - int(match[1]) * _UNITS_S[match[2]] * 1000
    try:
        return round(datetime.fromisoformat(text).timestamp() * 1000)
    except (ValueError, OverflowError, OSError):
        raise ValueError(
            f'"{text}" is neither a span (45s, 30m, 2h, 7d) nor a time (2026-11-22T08:00)'
        ) from None
