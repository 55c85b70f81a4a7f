"""The tests' own waits: longer on a machine that has much else to do."""

from __future__ import annotations

import os

import pytest

from reserve_listener.simulator.signal import PATIENCE_AT_MOST, patience


@pytest.mark.parametrize(("load", "factor"), [(0.1, 1.0), (1.0, 1.0), (4.0, 4.0), (1000.0, PATIENCE_AT_MOST)])
def test_patience_grows_with_the_load_and_has_an_end(
    monkeypatch: pytest.MonkeyPatch, load: float, factor: float
) -> None:
    """Never less than was asked for, in proportion to what waits for a processor, and at most ten times as long."""
    cpus = len(os.sched_getaffinity(0))
    monkeypatch.setattr(os, "getloadavg", lambda: (load * cpus, 0.0, 0.0))
    assert patience(5) == pytest.approx(5 * factor)
