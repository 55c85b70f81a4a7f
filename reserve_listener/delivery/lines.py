"""The one line that is logged of each delivery: which, to what sink, what came of it, and when it is tried again."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any, Final

import msgspec
import structlog

from reserve_listener.clock import rfc3339
from reserve_listener.errors import DeliveryError, MisconfiguredSinkError
from reserve_listener.model import DEAD, PENDING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from reserve_listener.model import Delivery, Outcome

log = structlog.get_logger("delivery")


class _Data(msgspec.Struct, gc=False):
    scope_type: Any = None


class _Body(msgspec.Struct, gc=False):
    subject: Any = None
    data: _Data = msgspec.field(default_factory=_Data)


_decode: Final = msgspec.json.Decoder(_Body).decode


def tell_delivered(sink: str, deliveries: Sequence[Delivery], took_s: float) -> None:
    """At once: for those who look closely. After failures: somebody may be waiting for it."""
    if log.is_enabled_for(logging.DEBUG) or any(delivery.attempts for delivery in deliveries):
        for delivery in deliveries:
            tell = log.info if delivery.attempts else log.debug
            attempt = delivery.attempts + 1
            facts = _facts(sink, delivery) | {"attempt": attempt, "outcome": "delivered", "status": None}
            tell("delivery.done", **facts, duration_s=round(took_s, 4))


def tell_failed(
    sink: str, delivery: Delivery, outcome: Outcome, error: Exception, *, probing: bool, now_ms: int
) -> None:
    """What is tried again, and when, or given up. A defect of ours has its traceback."""
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
