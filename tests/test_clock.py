"""The time of day as it is written."""

from __future__ import annotations

from datetime import datetime

import pytest
from hypothesis import given, strategies as st

from reserve_listener.clock import now_ms, rfc3339


@pytest.mark.parametrize(
    ("milliseconds", "text"),
    [
        (1_608_725_989_000, "2020-12-23T12:19:49.000Z"),
        (0, "1970-01-01T00:00:00.000Z"),
        (7, "1970-01-01T00:00:00.007Z"),
    ],
)
def test_times_are_utc_with_milliseconds(milliseconds: int, text: str) -> None:
    """Always the same width, so that they sort as texts."""
    assert rfc3339(milliseconds) == text


@given(st.integers(0, 10**14 - 1))
def test_a_time_is_read_back_as_it_was(milliseconds: int) -> None:
    """Nothing is lost between a number and its text."""
    assert round(datetime.fromisoformat(rfc3339(milliseconds)).timestamp() * 1000) == milliseconds


def test_now_is_a_time_of_this_century() -> None:
    """Milliseconds, neither seconds nor microseconds."""
    assert 1_700_000_000_000 < now_ms() < 4_000_000_000_000
