"""What `reconcile` says of a comparison that goes on."""

from __future__ import annotations

from typing import Any

import pytest

from reserve_listener.cli import reconcile
from reserve_listener.web.answers import Comparison

NOTHING: dict[str, Any] = {
    "id": "1",
    "state": "waiting",
    "dry_run": False,
    "total": 0,
    "done": 0,
    "differences": 0,
    "gone": 0,
    "not_read": 0,
    "problem": None,
    "hint": None,
    "found": [],
    "more": False,
}


@pytest.mark.parametrize(
    ("so_far", "text"),
    [
        ({}, "waiting for its turn."),
        ({"ahead": 12}, "waiting for its turn: another comparison has 12 left to read."),
        (
            {"state": "running", "total": 4, "done": 1, "differences": 1, "gone": 1},
            "1 of 4 compared, 1 differs; 1 no longer exists.",
        ),
        (
            {"state": "failed", "total": 4, "done": 4, "not_read": 2, "gone": 2},
            "4 of 4 compared, 0 differ; 2 no longer exist; 2 could not be read.",
        ),
        ({"state": "done"}, "0 of 0 compared, 0 differ."),
    ],
)
def test_how_far_it_is(so_far: dict[str, Any], text: str) -> None:
    """While it waits it says for whom; at the end also of how many it knows nothing."""
    assert reconcile._summary(Comparison(**(NOTHING | so_far))) == text
