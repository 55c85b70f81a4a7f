"""The nats sink: its settings and how it is made (`kind`), the sink itself (`sink`), its connection (`link`)."""

from reserve_listener.sinks.nats.kind import KIND

__all__ = ["KIND"]
