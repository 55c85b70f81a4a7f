"""The log sink: each event is a line of the daemon's own log, whatever the log level."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import msgspec

from reserve_listener.config.section import Section
from reserve_listener.errors import TransientDeliveryError
from reserve_listener.model import ALERT_TYPE

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping, Sequence

    from reserve_listener.model import Delivery
    from reserve_listener.protocols import SinkRuntime


class _Body(msgspec.Struct, gc=False):
    """What a line names of an event; the data stays as it stands in the store."""

    id: Any
    source: Any
    subject: Any
    data: msgspec.Raw
    type: Any = None
    time: Any = None


_decode = msgspec.json.Decoder(_Body).decode


class _Data(msgspec.Struct, gc=False):
    scope_type: Any = None
    scope_name: Any = None
    summary: Any = None
    """Absent in an event that an older version has sealed."""


_decode_data = msgspec.json.Decoder(_Data).decode


class LogSink:
    """Hands events to `write`, which returns when the lines are out and raises `OSError` when they cannot be."""

    batch_size = 1_000
    """Some milliseconds of the loop. With 200 a log fell behind in a long burst: outcomes are committed no faster."""
    max_in_flight = 1
    needs_raw = False
    is_log = True
    """The log has no second line on what is carried to it."""

    def __init__(self, name: str, write: Callable[[Sequence[dict[str, Any]]], Awaitable[None]]) -> None:
        self.name = name
        self._write = write

    async def deliver(self, deliveries: Sequence[Delivery]) -> None:
        """See `protocols.Sink.deliver`."""
        lines = [log_line(self.name, delivery.body) for delivery in deliveries]
        try:
            await self._write(lines)
        except OSError as error:
            raise TransientDeliveryError(f"the log cannot be written: {error.strerror or error}") from error

    async def close(self) -> None:
        """Nothing is held."""


def log_line(sink: str, body: bytes) -> dict[str, Any]:
    """The CloudEvents JSON as the key-values of a log line: what matters first, the data whole (`msgspec.Raw`)."""
    event = _decode(body)
    if event.type == ALERT_TYPE:
        return {"event": "alert.delivered", "sink": sink, **msgspec.json.decode(event.data)}
    told = _decode_data(event.data)
    named = {} if told.scope_name is None else {"scope_name": told.scope_name}
    return {
        "event": "reserve_config.updated",
        "sink": sink,
        "scope_type": told.scope_type,
        "scope_id": event.subject,
        **named,
        "summary": told.summary,
        "event_id": event.id,
        "source": event.source,
        "time": event.time,
        "data": event.data,
    }


class LogSettings(Section):
    """A sink that writes events to the daemon's log."""


class LogKind:
    """See `protocols.SinkKind`."""

    name: Final = "log"
    settings: Final = LogSettings
    docs: Final = "the daemon's log"

    def build(self, _settings: LogSettings, _secrets: Mapping[str, Any], runtime: SinkRuntime) -> LogSink:
        """See `protocols.SinkKind.build`."""
        return LogSink(runtime.name, runtime.write_events)


KIND: Final = LogKind()
