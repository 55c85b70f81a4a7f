"""The amqp sink: its settings and how it is made (`kind`), the sink itself (`sink`), its connection (`link`)."""

from reserve_listener.sinks.amqp.kind import KIND

__all__ = ["KIND"]
