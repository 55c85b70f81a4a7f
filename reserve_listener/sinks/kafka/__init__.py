"""The kafka sink: its settings and how it is made (`kind`), the sink itself (`sink`), its client (`producing`)."""

from reserve_listener.sinks.kafka.kind import KIND

__all__ = ["KIND"]
