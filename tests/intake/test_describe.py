"""The sentence of an event: the limits in a glance, whatever the event holds."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, strategies as st

from reserve_listener.intake.describe import describe

LIMITS = {
    "approve_config": {"approval_switch": 1, "approval_condition": "all"},
    "time_config": {
        "time_switch": 1,
        "days_in_advance": 30,
        "start_time": 27900,
        "end_time": 86400,
        "max_duration": 2,
    },
    "reserve_scope_config": {"allow_all_users": 0, "allow_users": [{}, {}], "allow_depts": [{}]},
}
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: (
        st.lists(inner) | st.dictionaries(st.sampled_from(["approval_switch", "allow_users", "x"]), inner)
    ),
)


@pytest.mark.parametrize(
    ("data", "sentence"),
    [
        (LIMITS, "approval all · 30 days ahead · 07:45-24:00 · at most 2 h · 2 people, 1 departments"),
        ({}, "approval off · 0 people, 0 departments"),
        ({"reserve_scope_config": {"allow_all_users": 1}}, "approval off · everyone"),
    ],
)
def test_the_limits_in_a_glance(data: dict[str, Any], sentence: str) -> None:
    """Approval, time and people, in that order."""
    assert describe(data) == sentence


@given(data=JSON | st.dictionaries(st.sampled_from(sorted(LIMITS)), JSON))
def test_there_is_always_a_sentence(data: Any) -> None:
    """An event whose keys hold something else than the platform says must not stop a sink."""
    assert describe(data).startswith("approval ")
