"""When to try again, and when to give up."""

from __future__ import annotations

import math

from hypothesis import assume, given, strategies as st

from reserve_listener.errors import MisconfiguredSinkError, PermanentDeliveryError, TransientDeliveryError
from reserve_listener.model import DEAD, PENDING
from reserve_listener.retry import MISCONFIGURED_DELAY_S, RETRY_AFTER_LIMIT_S, RetryPolicy, decide
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


@given(attempts=attempts_made, chance=chances, base_s=st.floats(0.01, 60), cap_s=st.floats(60, 7200))
def test_the_delay_lies_between_half_the_ceiling_and_the_ceiling(
    attempts: int, chance: float, base_s: float, cap_s: float
) -> None:
    """For any number of attempts the delay is half to whole of base * 2**attempts, and never over the cap."""
    policy = RetryPolicy(base_s=base_s, cap_s=cap_s, max_age_s=1e9)
    outcome = decide(
        policy, delivery(attempts=attempts), TransientDeliveryError("x"), now_ms=NOW_MS, chance=chance
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
        decide(policy, delivery(attempts=made), TransientDeliveryError("x"), now_ms=NOW_MS, chance=0.0).due_ms
        - NOW_MS
        for made in range(8)
    ]
    assert delays == [1000, 2000, 4000, 8000, 16000, 30000, 30000, 30000]


@given(wish=st.floats(0, 1e9), chance=chances, attempts=attempts_made)
def test_the_receivers_wish_is_kept_up_to_a_day(wish: float, chance: float, attempts: int) -> None:
    """Nothing is sent before `retry_after`, and a wish for longer than a day counts as a day."""
    error = TransientDeliveryError("busy", retry_after=wish)
    outcome = decide(FOREVER, delivery(attempts=attempts), error, now_ms=NOW_MS, chance=chance)
    delay_s = (outcome.due_ms - NOW_MS) / 1000
    assert delay_s >= min(wish, RETRY_AFTER_LIMIT_S)
    assert delay_s <= max(min(wish, RETRY_AFTER_LIMIT_S), FOREVER.cap_s) + 0.001


def test_a_wish_that_is_no_number_is_no_wish() -> None:
    """Infinite counts as a day; not-a-number, negative and none count as nothing."""
    delays = [
        decide(
            FOREVER,
            delivery(),
            TransientDeliveryError("busy", retry_after=wish),
            now_ms=NOW_MS,
            chance=0.0,
        ).due_ms
        - NOW_MS
        for wish in (math.inf, math.nan, -5.0, None)
    ]
    assert delays == [86_400_000, 1000, 1000, 1000]


@given(policy=policies, attempts=attempts_made, age_ms=ages_ms, chance=chances)
def test_given_up_exactly_when_too_old_or_tried_too_often(
    policy: RetryPolicy, attempts: int, age_ms: int, chance: float
) -> None:
    """Dead at `max_age` counted from `received_ms`, or at `max_attempts`; pending in every other case."""
    assume(abs(age_ms - policy.max_age_s * 1000) > 2)
    one = delivery(attempts=attempts, received_ms=NOW_MS - age_ms)
    outcome = decide(policy, one, TransientDeliveryError("x"), now_ms=NOW_MS, chance=chance)
    too_old = age_ms > policy.max_age_s * 1000
    too_often = policy.max_attempts is not None and attempts + 1 >= policy.max_attempts
    assert (outcome.state == DEAD) == (too_old or too_often)
    if outcome.state == DEAD:
        assert "given up after" in (outcome.error or "")
    else:
        assert outcome.due_ms > NOW_MS


@given(policy=policies, attempts=attempts_made, age_ms=ages_ms, chance=chances)
def test_a_misconfigured_sink_buries_nothing_before_max_age(
    policy: RetryPolicy, attempts: int, age_ms: int, chance: float
) -> None:
    """Whatever `max_attempts` says, a sink that is set up wrongly loses events only to their age, and is left alone."""
    assume(age_ms < policy.max_age_s * 1000 - 2)
    one = delivery(attempts=attempts, received_ms=NOW_MS - age_ms)
    outcome = decide(policy, one, MisconfiguredSinkError("HTTP 404"), now_ms=NOW_MS, chance=chance)
    left_s = policy.max_age_s - age_ms / 1000
    assert outcome.state == PENDING
    low = min(policy.cap_s, MISCONFIGURED_DELAY_S) / 2
    assert min(low, left_s) - 0.001 <= (outcome.due_ms - NOW_MS) / 1000 <= MISCONFIGURED_DELAY_S + 0.001


def test_the_last_attempt_comes_at_max_age() -> None:
    """With ten seconds of its age left, an event is tried once more after ten seconds, then given up."""
    policy = RetryPolicy(base_s=600, cap_s=3600, max_age_s=100)
    error = TransientDeliveryError("down")
    once_more = decide(policy, delivery(received_ms=NOW_MS - 90_000), error, now_ms=NOW_MS, chance=1.0)
    assert (once_more.state, once_more.due_ms) == (PENDING, NOW_MS + 10_000)
    given_up = decide(policy, delivery(received_ms=NOW_MS - 100_000), error, now_ms=NOW_MS, chance=1.0)
    assert (given_up.state, given_up.error) == (DEAD, "down (given up after 100 s)")


@given(policy=policies, attempts=attempts_made, age_ms=ages_ms, chance=chances)
def test_a_permanent_error_is_final_at_once(
    policy: RetryPolicy, attempts: int, age_ms: int, chance: float
) -> None:
    """A permanent error makes a dead letter whatever the policy, with the error's own words."""
    one = delivery(attempts=attempts, received_ms=NOW_MS - age_ms)
    outcome = decide(policy, one, PermanentDeliveryError("HTTP 400"), now_ms=NOW_MS, chance=chance)
    assert (outcome.state, outcome.error, outcome.attempts) == (DEAD, "HTTP 400", attempts + 1)


def test_an_error_without_words_is_named_by_its_type() -> None:
    """A defect of a sink is retried, and an empty message still says something."""
    outcome = decide(FOREVER, delivery(), KeyError(), now_ms=NOW_MS, chance=0.5)
    assert (outcome.state, outcome.error) == (PENDING, "KeyError")


def test_a_clock_set_back_does_not_age_an_event() -> None:
    """An event received in what is now the future is retried as a new one."""
    one = delivery(received_ms=NOW_MS + 3_600_000)
    outcome = decide(RetryPolicy(), one, TransientDeliveryError("x"), now_ms=NOW_MS, chance=1.0)
    assert (outcome.state, outcome.due_ms) == (PENDING, NOW_MS + 2000)
