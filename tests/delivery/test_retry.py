"""When to try again, and when to give up."""

from __future__ import annotations

import math

import pytest
from hypothesis import assume, given, strategies as st

from reserve_listener.ages import LONGEST_WAIT_MS
from reserve_listener.config.values import DAY_S
from reserve_listener.delivery.retry import (
    MISCONFIGURED_DELAY_S,
    PROBE_CAP_S,
    RetryPolicy,
    decide,
    is_down,
    probe_delay_s,
    wished_s,
)
from reserve_listener.errors import (
    MisconfiguredSinkError,
    PermanentDeliveryError,
    SinkGoneError,
    TransientDeliveryError,
)
from reserve_listener.model import DEAD, PENDING
from tests.helpers import NOW_MS, delivery

chances = st.floats(0, 1)
policies = st.builds(
    RetryPolicy,
    base_s=st.floats(0.01, 60),
    cap_s=st.floats(60, 7200),
    max_age_s=st.floats(1, 10 * 86_400),
    max_attempts=st.none() | st.integers(1, 50),
)
attempts_made = st.integers(0, 5_000)
ages_ms = st.integers(0, 20 * 86_400_000)
FOREVER = RetryPolicy(max_age_s=1e9)


@given(attempts=attempts_made, jitter=chances, base_s=st.floats(0.01, 60), cap_s=st.floats(60, 7200))
def test_the_delay_lies_between_half_the_ceiling_and_the_ceiling(
    attempts: int, jitter: float, base_s: float, cap_s: float
) -> None:
    """For any number of attempts the delay is half to whole of base * 2**attempts, and never over the cap."""
    policy = RetryPolicy(base_s=base_s, cap_s=cap_s, max_age_s=1e9)
    outcome = decide(
        policy, delivery(attempts=attempts), TransientDeliveryError("x"), now_ms=NOW_MS, jitter=jitter
    )
    delay_s = (outcome.due_ms - NOW_MS) / 1000
    ceiling = min(cap_s, base_s * 2.0 ** min(attempts + 1, 60))
    assert outcome.state == PENDING
    assert outcome.attempts == attempts + 1
    assert ceiling / 2 - 0.001 <= delay_s <= min(ceiling, cap_s) + 0.001


def test_the_first_delays_double_from_the_base_to_the_cap() -> None:
    """Without jitter's upper half the delays are 1, 2, 4 … 32 s, then half the cap for ever."""
    policy = RetryPolicy(base_s=1, cap_s=60)
    delays = [
        decide(policy, delivery(attempts=made), TransientDeliveryError("x"), now_ms=NOW_MS, jitter=0.0).due_ms
        - NOW_MS
        for made in range(8)
    ]
    assert delays == [1000, 2000, 4000, 8000, 16000, 30000, 30000, 30000]


@given(wish=st.floats(0, 1e9), jitter=chances, attempts=attempts_made)
def test_the_receivers_wish_is_kept_up_to_the_cap(wish: float, jitter: float, attempts: int) -> None:
    """Nothing is sent before `retry_after`, and a wish for longer than the cap counts as the cap."""
    error = TransientDeliveryError("busy", retry_after=wish)
    outcome = decide(FOREVER, delivery(attempts=attempts), error, now_ms=NOW_MS, jitter=jitter)
    delay_s = (outcome.due_ms - NOW_MS) / 1000
    assert min(wish, FOREVER.cap_s) <= delay_s <= FOREVER.cap_s + 0.001


def test_a_wish_that_is_no_number_is_no_wish() -> None:
    """Infinite counts as the cap; not-a-number, negative and none count as nothing."""
    delays = [
        decide(
            FOREVER,
            delivery(),
            TransientDeliveryError("busy", retry_after=wish),
            now_ms=NOW_MS,
            jitter=0.0,
        ).due_ms
        - NOW_MS
        for wish in (math.inf, math.nan, -5.0, None)
    ]
    assert delays == [3_600_000, 1000, 1000, 1000]


@given(policy=policies, attempts=attempts_made, age_ms=ages_ms, jitter=chances)
def test_given_up_exactly_when_too_old_or_tried_too_often(
    policy: RetryPolicy, attempts: int, age_ms: int, jitter: float
) -> None:
    """Dead at `max_age` counted from `received_ms`, or at `max_attempts`; pending in every other case."""
    assume(abs(age_ms - policy.max_age_s * 1000) > 2)
    one = delivery(attempts=attempts, received_ms=NOW_MS - age_ms)
    outcome = decide(policy, one, TransientDeliveryError("x"), now_ms=NOW_MS, jitter=jitter)
    too_old = age_ms > policy.max_age_s * 1000
    too_often = policy.max_attempts is not None and attempts + 1 >= policy.max_attempts
    assert (outcome.state == DEAD) == (too_old or too_often)
    if outcome.state == DEAD:
        assert "given up after" in (outcome.error or "")
    else:
        assert outcome.due_ms > NOW_MS


@given(policy=policies, attempts=attempts_made, age_ms=ages_ms, jitter=chances)
def test_a_misconfigured_sink_buries_nothing_before_max_age(
    policy: RetryPolicy, attempts: int, age_ms: int, jitter: float
) -> None:
    """Whatever `max_attempts` says, a sink that is set up wrongly loses events only to their age, and is left alone."""
    assume(age_ms < policy.max_age_s * 1000 - 2)
    one = delivery(attempts=attempts, received_ms=NOW_MS - age_ms)
    outcome = decide(policy, one, MisconfiguredSinkError("HTTP 404"), now_ms=NOW_MS, jitter=jitter)
    left_s = policy.max_age_s - age_ms / 1000
    assert outcome.state == PENDING
    low = min(policy.cap_s, MISCONFIGURED_DELAY_S) / 2
    assert min(low, left_s) - 0.001 <= (outcome.due_ms - NOW_MS) / 1000 <= MISCONFIGURED_DELAY_S + 0.001


def test_the_last_attempt_comes_at_max_age() -> None:
    """With ten seconds of its age left, an event is tried once more after ten seconds, then given up."""
    policy = RetryPolicy(base_s=600, cap_s=3600, max_age_s=100)
    error = TransientDeliveryError("down")
    once_more = decide(policy, delivery(received_ms=NOW_MS - 90_000), error, now_ms=NOW_MS, jitter=1.0)
    assert (once_more.state, once_more.due_ms) == (PENDING, NOW_MS + 10_000)
    given_up = decide(policy, delivery(received_ms=NOW_MS - 100_000), error, now_ms=NOW_MS, jitter=1.0)
    assert (given_up.state, given_up.error) == (DEAD, "down (given up after 100 s)")


@given(policy=policies, attempts=attempts_made, age_ms=ages_ms, jitter=chances)
def test_a_permanent_error_is_final_at_once(
    policy: RetryPolicy, attempts: int, age_ms: int, jitter: float
) -> None:
    """A permanent error makes a dead letter whatever the policy, with the error's own words."""
    one = delivery(attempts=attempts, received_ms=NOW_MS - age_ms)
    outcome = decide(policy, one, PermanentDeliveryError("HTTP 400"), now_ms=NOW_MS, jitter=jitter)
    assert (outcome.state, outcome.error, outcome.attempts) == (DEAD, "HTTP 400", attempts + 1)


def test_an_error_without_words_is_named_by_its_type() -> None:
    """A defect of a sink is retried, and an empty message still says something."""
    outcome = decide(FOREVER, delivery(), KeyError(), now_ms=NOW_MS, jitter=0.5)
    assert (outcome.state, outcome.error) == (PENDING, "KeyError")


def test_a_clock_set_back_does_not_age_an_event() -> None:
    """An event received in what is now the future is retried as a new one."""
    one = delivery(received_ms=NOW_MS + 3_600_000)
    outcome = decide(RetryPolicy(), one, TransientDeliveryError("x"), now_ms=NOW_MS, jitter=1.0)
    assert (outcome.state, outcome.due_ms) == (PENDING, NOW_MS + 2000)


@given(
    base_s=st.floats(0.01, 7200),
    cap_s=st.floats(0.01, 7200),
    probes=st.integers(0, 5_000),
    jitter=chances,
    max_age_s=st.floats(1, 1e6),
    max_attempts=st.none() | st.integers(1, 50),
)
def test_a_sink_that_is_down_is_probed_at_the_policys_pace_but_once_a_minute_at_least(
    *, base_s: float, cap_s: float, probes: int, jitter: float, max_age_s: float, max_attempts: int | None
) -> None:
    """Half to whole of base * 2**probes, never over the cap and a minute; ages and numbers of attempts play no part."""
    policy = RetryPolicy(base_s=base_s, cap_s=cap_s, max_age_s=max_age_s, max_attempts=max_attempts)
    delay_s = probe_delay_s(policy, TransientDeliveryError("x"), probes=probes, jitter=jitter)
    ceiling = min(cap_s, PROBE_CAP_S, base_s * 2.0 ** min(probes + 1, 60))
    assert ceiling / 2 <= delay_s <= ceiling
    assert PROBE_CAP_S == 60.0


@given(wish=st.none() | st.floats(), probes=st.integers(0, 100), jitter=chances)
def test_a_probe_comes_no_sooner_than_the_receiver_wishes(
    wish: float | None, probes: int, jitter: float
) -> None:
    """`Retry-After` counts for probes too, up to the policy's cap; without a usable one the pace is what it is."""
    policy = RetryPolicy(cap_s=7200)
    error = TransientDeliveryError("busy", retry_after=wish)
    pace_s = probe_delay_s(policy, TransientDeliveryError("busy"), probes=probes, jitter=jitter)
    wished = wished_s(policy, error)
    assert probe_delay_s(policy, error, probes=probes, jitter=jitter) == max(pace_s, wished)
    assert 0 <= wished <= policy.cap_s
    if wish is not None and 0 <= wish <= policy.cap_s:
        assert wished == wish


@pytest.mark.parametrize(
    ("error", "down"),
    [
        (TransientDeliveryError("refused"), True),
        (TransientDeliveryError("HTTP 429", down=False), False),
        (MisconfiguredSinkError("HTTP 401"), False),
        (PermanentDeliveryError("HTTP 422"), False),
        (SinkGoneError("HTTP 410"), False),
        (ValueError("a defect"), False),
        (None, False),
    ],
)
def test_only_what_a_sink_says_of_itself_as_a_whole_means_down(
    error: Exception | None, *, down: bool
) -> None:
    """A refusal, a defect of ours and a success say that it is up."""
    assert is_down(error) is down
    assert wished_s(RetryPolicy(), error or ValueError()) == 0.0


def test_no_delay_is_longer_than_the_longest_wait() -> None:
    """What is put off by a day, the longest cap there is, is not taken for the work of a wrong clock."""
    assert DAY_S * 1000 < LONGEST_WAIT_MS
