"""The log sink: each event is a line of the daemon's own log, whatever the log level."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec

from reserve_listener.errors import TransientDeliveryError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from reserve_listener.model import Delivery

_decode = msgspec.json.Decoder().decode


class LogSink:
    """Hands events to `write`, which returns when the lines are out and raises `OSError` when they cannot be."""

    batch_size = 200
    max_in_flight = 1
    needs_raw = False

    def __init__(self, name: str, write: Callable[[Sequence[dict[str, Any]]], Awaitable[None]]) -> None:
        self.name = name
        self._write = write

    async def deliver(self, deliveries: Sequence[Delivery]) -> None:
        """See `protocols.Sink.deliver`."""
        lines = [log_line(self.name, _decode(delivery.body)) for delivery in deliveries]
        try:
            await self._write(lines)
        except OSError as error:
            raise TransientDeliveryError(f"the log cannot be written: {error.strerror or error}") from error

    async def close(self) -> None:
        """Nothing is held."""


def log_line(sink: str, event: dict[str, Any]) -> dict[str, Any]:
    """The CloudEvents object as the key-values of a log line: what matters first, the data whole."""
    data = event["data"]
    return {
        "event": "reserve_config.updated",
        "sink": sink,
        "scope_type": data.get("scope_type"),
        "scope_id": event["subject"],
        "event_id": event["id"],
        "source": event["source"],
        "time": event.get("time"),
        "data": data,
    }
