"""The platform's wishes about timing, within reason."""

from __future__ import annotations

import math
from typing import Any

import pytest
from hypothesis import given, strategies as st

from reserve_listener.transports.long_connection.timing import DAY_S, NONCE_LIMIT_S, PING_INTERVAL_S, Timing

KEYS = {
    "PingInterval": "ping_interval_s",
    "ReconnectNonce": "reconnect_nonce_s",
    "ReconnectInterval": "reconnect_interval_s",
}
UNUSABLE: list[Any] = [None, -1, -0.5, math.nan, math.inf, -math.inf, "60", "", True, False, [], {}, [60]]


def test_the_defaults_are_the_sdks() -> None:
    """Before the platform says anything, pings go every 120 s and the nonce is 30 s, as in the SDK."""
    assert Timing() == Timing(ping_interval_s=120.0, reconnect_nonce_s=30.0, reconnect_interval_s=0.0)


@pytest.mark.parametrize(
    ("key", "value", "seconds"),
    [
        ("PingInterval", 30, 30.0),
        ("PingInterval", 7.5, 7.5),
        ("PingInterval", 0, 5.0),
        ("PingInterval", 1, 5.0),
        ("PingInterval", 3600, 120.0),
        ("PingInterval", 10**400, 120.0),
        ("ReconnectNonce", 0, 0.0),
        ("ReconnectNonce", 12, 12.0),
        ("ReconnectNonce", 10**9, 60.0),
        ("ReconnectNonce", 10**400, 60.0),
        ("ReconnectInterval", 0, 0.0),
        ("ReconnectInterval", 120, 120.0),
        ("ReconnectInterval", 10**12, 86_400.0),
        ("ReconnectInterval", 10**400, 86_400.0),
    ],
)
def test_wishes_within_reason(key: str, value: Any, seconds: float) -> None:
    """A wish is followed as far as it is reasonable, however large the number, and moves nothing else."""
    updated = Timing().updated({key: value})
    assert getattr(updated, KEYS[key]) == seconds
    for other in KEYS.values():
        if other != KEYS[key]:
            assert getattr(updated, other) == getattr(Timing(), other)


@pytest.mark.parametrize("key", KEYS)
@pytest.mark.parametrize("value", UNUSABLE, ids=repr)
def test_what_is_no_number_of_seconds_is_ignored(key: str, value: Any) -> None:
    """Null, negative, infinite, a text: what held before goes on holding."""
    before = Timing(ping_interval_s=33.0, reconnect_nonce_s=22.0, reconnect_interval_s=11.0)
    assert before.updated({key: value}) == before


def test_keys_that_mean_nothing_are_ignored() -> None:
    """`ReconnectCount` (we never stop trying) and unknown keys change nothing; neither does an empty answer."""
    assert Timing().updated({"ReconnectCount": 0, "New": 1}) == Timing()
    assert Timing().updated({}) == Timing()


@given(
    config=st.dictionaries(
        st.sampled_from(sorted(KEYS)), st.none() | st.integers() | st.floats() | st.text() | st.booleans()
    )
)
def test_whatever_is_wished_the_times_are_usable(config: dict[str, Any]) -> None:
    """No answer of the platform makes a time that cannot be slept."""
    timing = Timing().updated(config)
    assert PING_INTERVAL_S[0] <= timing.ping_interval_s <= PING_INTERVAL_S[1]
    assert 0 <= timing.reconnect_nonce_s <= NONCE_LIMIT_S
    assert 0 <= timing.reconnect_interval_s <= DAY_S
