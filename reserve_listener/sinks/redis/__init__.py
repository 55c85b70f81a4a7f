"""The redis sink: its settings and how it is made (`kind`), the sink itself (`sink`)."""

from reserve_listener.sinks.redis.kind import KIND

__all__ = ["KIND"]
