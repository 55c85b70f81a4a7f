"""A marked event that tries a sink, for `sinks test`: the running daemon sends it, or the command itself without one."""

from __future__ import annotations

import time
import uuid
from typing import TYPE_CHECKING

import msgspec

from reserve_listener.daemon.alerts.event import delivery_of
from reserve_listener.daemon.alerts.journal import Alert
from reserve_listener.errors import DeliveryError
from reserve_listener.intake import normalize
from reserve_listener.model import EVENT_TYPE, Delivery
from reserve_listener.web.answers import SampleResult

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence


def sample_delivery(app_id: str, now_ms: int, *, is_alert: bool = False) -> Delivery:
    """A marked event (`test` is true, the id begins with "test-") to try a sink with. Nothing of it is stored."""
    if is_alert:
        return sample_alert(app_id, now_ms)
    event_id = f"test-{uuid.uuid4()}"
    envelope = {
        "schema": "2.0",
        "header": {
            "event_id": event_id,
            "event_type": EVENT_TYPE,
            "create_time": str(now_ms),
            "app_id": app_id,
            "tenant_key": "test",
        },
        "event": {
            "scope_id": "omm_test",
            "scope_type": 2,
            "time_config": {"time_switch": 1, "days_in_advance": 30, "opening_hour": "27900"},
        },
    }
    raw = msgspec.json.encode(envelope)
    event = normalize.incoming(raw, envelope, received_ms=now_ms)
    body = msgspec.json.encode(msgspec.json.decode(event.body or b"{}") | {"test": True})
    return Delivery(
        seq=0, event_id=event_id, scope=0, attempts=0, received_ms=now_ms, body=body, raw=event.raw
    )


def sample_alert(app_id: str, now_ms: int) -> Delivery:
    """The same for a sink that carries alerts only: its subject is "test", which no alert has."""
    alert = Alert(
        alert="test",
        is_firing=True,
        since_ms=now_ms,
        told_ms=now_ms,
        summary="This is a test: nothing is wrong.",
        detail="Sent by: reserve-listener sinks test",
    )
    delivery = delivery_of(alert, app_id)
    event_id = f"test-{uuid.uuid4()}"
    body = msgspec.json.encode(msgspec.json.decode(delivery.body) | {"id": event_id, "test": True})
    return msgspec.structs.replace(delivery, event_id=event_id, body=body, raw=body)


async def send_test_event(
    deliver: Callable[[Sequence[Delivery]], Awaitable[None]],
    delivery: Delivery,
    *,
    redact: Callable[[str], str],
) -> SampleResult:
    """Deliver this one now, outside of any schedule, and say what came of it, without a secret that the sink quotes."""
    started = time.monotonic()
    try:
        await deliver([delivery])
        error = None
    except DeliveryError as failure:
        error = redact(str(failure))
    except Exception as failure:  # noqa: BLE001  # a plugin may raise anything
        error = redact(f"{type(failure).__name__}: {failure}")
    return SampleResult(
        delivered=error is None,
        problem=error,
        event_id=delivery.event_id,
        took_s=round(time.monotonic() - started, 3),
    )
