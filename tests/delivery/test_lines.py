"""The log's lines on deliveries that arrived: each has one, unless they come in a burst."""

from __future__ import annotations

import logging
from typing import Any

import pytest
import structlog
from structlog.testing import capture_logs

from reserve_listener.delivery.lines import LINES_A_SECOND, Arrivals
from tests.helpers import delivery


class Clock:
    """A clock that is set."""

    now_s = 0.0

    def __call__(self) -> float:
        """What it shows."""
        return self.now_s


def told(lines: list[Any]) -> list[tuple[str, int]]:
    return [(line["event_id"], line.get("more", 0)) for line in lines]


@pytest.fixture(autouse=True)
def at_info() -> Any:
    """What a daemon logs by default."""
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.INFO))
    yield
    structlog.reset_defaults()


def test_each_delivery_has_its_line() -> None:
    """Of those that arrive at once, too; one that a log sink carried is its line itself."""
    with capture_logs() as lines:
        Arrivals("booking", seen=False, clock=Clock()).tell([delivery(1), delivery(2)], 0.0123)
        Arrivals("console", seen=True, clock=Clock()).tell([delivery(3)], 0.1)
    assert [(line["log_level"], line["sink"], line["attempt"], line["duration_s"]) for line in lines] == [
        ("info", "booking", 1, 0.0123),
        ("info", "booking", 1, 0.0123),
    ]


def test_a_burst_does_not_drown_the_log() -> None:
    """So many lines a second; the next one says how many were left out. What had failed before always has its line."""
    clock = Clock()
    arrivals = Arrivals("booking", seen=False, clock=clock)
    with capture_logs() as lines:
        arrivals.tell([delivery(seq) for seq in range(1000)], 0.1)
    assert told(lines) == [(f"e{seq}", 0) for seq in range(LINES_A_SECOND)]
    with capture_logs() as lines:
        arrivals.tell([delivery(1001, attempts=2), delivery(1002)], 0.1)
    assert told(lines) == [("e1001", 1000 - LINES_A_SECOND)]
    clock.now_s = 1.0
    with capture_logs() as lines:
        arrivals.tell([delivery(1003)], 0.1)
    assert told(lines) == [("e1003", 1)]
