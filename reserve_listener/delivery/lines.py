"""The one log line for each delivery attempt: which event, to which sink, how it went, and when it will be retried."""

from __future__ import annotations

import logging
import time
from typing import TYPE_CHECKING, Any, Final

import msgspec
import structlog

from reserve_listener.clock import rfc3339
from reserve_listener.errors import DeliveryError, MisconfiguredSinkError
from reserve_listener.model import DEAD, PENDING

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from reserve_listener.model import Delivery, Outcome

log = structlog.get_logger("delivery")


class _Data(msgspec.Struct, gc=False):
    scope_type: Any = None


class _Body(msgspec.Struct, gc=False):
    subject: Any = None
    data: _Data = msgspec.field(default_factory=_Data)


LINES_A_SECOND: Final = 20
"""For each sink. Changes made by hand come one by one; a bulk change brings thousands, and journald keeps 10,000 lines in 30 s."""

_decode: Final = msgspec.json.Decoder(_Body).decode


class Arrivals:
    """The lines for successful deliveries. In a burst not every one gets a line: the log would drown, and the journal drop lines."""

    def __init__(self, sink: str, *, seen: bool, clock: Callable[[], float] = time.monotonic) -> None:
        """`seen`: the sink itself writes to the log, so the event is there already."""
        self._sink = sink
        self._seen = seen
        self._clock = clock
        self._since_s = float("-inf")
        self._every = False
        self._told = 0
        self._untold = 0

    def tell(self, deliveries: Sequence[Delivery], took_s: float) -> None:
        """Log a line for each. `more` in a line: how many that arrived at the first attempt got none."""
        if self._clock() - self._since_s >= 1:
            self._since_s, self._told = self._clock(), 0
            self._every = log.is_enabled_for(logging.DEBUG)  # asking takes as long as a few deliveries
        for delivery in deliveries:
            if delivery.attempts or self._every:
                self._write(log.info if delivery.attempts else log.debug, delivery, took_s)
            elif not self._seen and self._told < LINES_A_SECOND:
                self._told += 1
                self._write(log.info, delivery, took_s)
            elif not self._seen:
                self._untold += 1

    def _write(self, write: Callable[..., None], delivery: Delivery, took_s: float) -> None:
        more = {"more": self._untold} if self._untold else {}
        self._untold = 0
        facts = _facts(self._sink, delivery) | {"attempt": delivery.attempts + 1, "outcome": "delivered"}
        write("delivery.done", **facts, status=None, duration_s=round(took_s, 4), **more)


def tell_failed(
    sink: str, delivery: Delivery, outcome: Outcome, error: Exception, *, probing: bool, now_ms: int
) -> None:
    """Log a failed attempt: when it will be retried, or that it was given up. A bug of ours gets its traceback."""
    record = outcome.attempt
    facts = _facts(sink, delivery) | {"attempt": outcome.attempts}
    if record is not None:
        duration_s = record.took_ms / 1000
        facts |= {"outcome": record.outcome, "status": record.status, "duration_s": duration_s}
    facts["error"] = outcome.error
    if outcome.state == PENDING and outcome.due_ms:
        facts |= {"delay_s": (outcome.due_ms - now_ms) / 1000, "next_attempt": rfc3339(outcome.due_ms)}
    if outcome.state == DEAD:
        log.error("delivery.dead_letter", **facts)
    elif probing:
        log.warning("delivery.probe_failed", **facts)
    elif isinstance(error, MisconfiguredSinkError):
        log.error("delivery.sink_misconfigured", **facts)
    else:
        log.warning("delivery.retry", **facts, exc_info=None if isinstance(error, DeliveryError) else error)


def _facts(sink: str, delivery: Delivery) -> dict[str, Any]:
    scope_type, scope_id = _scope(delivery.body)
    return {"sink": sink, "event_id": delivery.event_id, "scope_type": scope_type, "scope_id": scope_id}


def _scope(body: bytes) -> tuple[Any, Any]:
    try:
        event = _decode(body)
    except msgspec.DecodeError:  # whatever it is, the line is the last thing that should fail
        return None, None
    return event.data.scope_type, event.subject
