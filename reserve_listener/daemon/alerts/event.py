"""An alert as sinks receive it: a CloudEvent, handed to `Sink.deliver` like any other event."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Any

import msgspec

from reserve_listener.clock import rfc3339
from reserve_listener.model import ALERT_TYPE, Delivery

if TYPE_CHECKING:
    from reserve_listener.daemon.alerts.journal import Alert


def delivery_of(alert: Alert, app_id: str, attempts: int = 0) -> Delivery:
    """The same event for each attempt, before and after a restart. Source and subject together name the alert."""
    source = f"/apps/{app_id}" + ("" if alert.sink is None else f"/sinks/{alert.sink}")
    event_id = _id(source, alert.alert, alert.state, alert.since_ms, alert.told_ms)
    event = {
        "specversion": "1.0",
        "id": event_id,
        "source": source,
        "type": ALERT_TYPE,
        "subject": alert.alert,
        "time": rfc3339(alert.told_ms),
        "datacontenttype": "application/json",
        "data": {
            "alert": alert.alert,
            "state": alert.state,
            "since": rfc3339(alert.since_ms),
            "summary": alert.summary,
            "detail": alert.detail,
        },
    }
    body = msgspec.json.encode(event)
    return Delivery(
        seq=0,
        event_id=event_id,
        scope=0,
        attempts=attempts,
        received_ms=alert.told_ms,
        body=body,
        raw=body,  # the platform has not sent anything: a sink that carries `raw` carries the alert
    )


def _id(*parts: Any) -> str:
    return f"alert-{hashlib.sha256(repr(parts).encode()).hexdigest()[:32]}"
