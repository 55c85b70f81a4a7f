"""When to retry: pure functions that return data, which the store then keeps as a row."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from datetime import UTC
from email.utils import parsedate_to_datetime
from typing import Final

from reserve_listener.errors import MisconfiguredSinkError, PermanentDeliveryError, TransientDeliveryError
from reserve_listener.model import Delivery, Outcome

PROBE_CAP_S: Final = 60.0
"""The longest time between two probes of a sink that is down."""

MISCONFIGURED_DELAY_S: Final = 300.0
"""How long to leave a misconfigured sink alone."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RetryPolicy:
    """Exponential backoff with jitter, from `base_s` to `cap_s`, until `max_age_s` in the store or `max_attempts` is reached."""

    base_s: float = 1.0
    cap_s: float = 3600.0
    max_age_s: float = 3 * 24 * 3600.0
    max_attempts: int | None = None

    @property
    def max_age_ms(self) -> int:
        """How old an event may get before it is given up."""
        return round(self.max_age_s * 1000)

    @property
    def longest_wait_ms(self) -> int:
        """The longest time for which a delivery is put off."""
        return math.ceil(self.cap_s * 1000)


def decide(
    policy: RetryPolicy,
    delivery: Delivery,
    error: Exception,
    *,
    text: str | None = None,
    now_ms: int,
    jitter: float,
    before_ms: int | None = None,
) -> Outcome:
    """The outcome of a failed attempt. `jitter`: a random number from 0 to 1.

    An event that was stored before `before_ms` is too old. By default that is `now_ms` less the policy's `max_age_s`; it
    differs if the clock has jumped. An error other than a `DeliveryError` is a bug of ours and treated as one that may pass.
    `text`: what to keep of the error, by default its own text.
    """
    text = text or str(error) or type(error).__name__
    if isinstance(error, PermanentDeliveryError):
        return Outcome.dead(delivery, error=text)
    attempts = delivery.attempts + 1
    misconfigured = isinstance(error, MisconfiguredSinkError)
    if policy.max_attempts is not None and attempts >= policy.max_attempts and not misconfigured:
        return Outcome.dead(delivery, error=f"{text} (given up after {attempts} attempts)")
    if before_ms is None:
        before_ms = now_ms - policy.max_age_ms
    left_s = (delivery.received_ms - before_ms) / 1000
    if left_s <= 0:
        return Outcome.dead(delivery, error=f"{text} (given up after {policy.max_age_s:g} s)")
    delay_s = _delay_s(policy, error, attempts, jitter, left_s)
    return Outcome.retry(delivery, due_ms=now_ms + math.ceil(delay_s * 1000), error=text)


def is_down(error: Exception | None) -> bool:
    """Whether this end of an attempt means that the whole sink is down. A sink that refuses an event is up."""
    return isinstance(error, TransientDeliveryError) and error.down


def retry_delay_s(policy: RetryPolicy, error: Exception, *, attempts: int, jitter: float) -> float:
    """How long to wait after that many attempts at something that is not given up at a certain age."""
    return _delay_s(policy, error, attempts, jitter, math.inf)


def probe_delay_s(policy: RetryPolicy, error: Exception, *, probes: int, jitter: float) -> float:
    """How long to leave a sink alone that is down, after that many probes: the policy's delay, at most `PROBE_CAP_S`."""
    pace = replace(policy, cap_s=min(policy.cap_s, PROBE_CAP_S))
    return max(_delay_s(pace, error, probes + 1, jitter, math.inf), wished_s(policy, error))


def wished_s(policy: RetryPolicy, error: Exception) -> float:
    """How long the receiver asks to be left alone, at most the cap."""
    wish_s = error.retry_after if isinstance(error, TransientDeliveryError) else None
    return max(0.0, min(wish_s or 0.0, policy.cap_s))


def _delay_s(policy: RetryPolicy, error: Exception, attempts: int, jitter: float, left_s: float) -> float:
    """The last attempt is made at `max_age_s`, no earlier. `left_s` bounds our own delay, not the one the receiver asks for."""
    if isinstance(error, MisconfiguredSinkError):
        ceiling = min(policy.cap_s, MISCONFIGURED_DELAY_S)
    else:
        # The exponent is bounded: 2**1100 is no float.
        ceiling = min(policy.cap_s, policy.base_s * 2.0 ** min(attempts, 60))
    delay_s = min(ceiling / 2 + jitter * ceiling / 2, left_s)
    return max(delay_s, wished_s(policy, error))


def retry_after_s(text: str | None, *, now_s: float) -> float | None:
    """`Retry-After` in seconds from now, from a number or an HTTP date (RFC 9110, 10.2.3); None if it is neither."""
    if text is None:
        return None
    value = text.strip()
    if value.isascii() and value.isdigit():
        return float(value[:12])
    try:
        date = parsedate_to_datetime(value)
        # One without a zone ("-0000") is meant in UTC, not in the zone of this machine.
        return max(0.0, (date if date.tzinfo else date.replace(tzinfo=UTC)).timestamp() - now_s)
    except (ValueError, OverflowError):
        return None
