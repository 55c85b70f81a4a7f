"""The exec sink: its settings and how it is made (`kind`), the sink itself (`sink`), one run of its command (`run`)."""

from reserve_listener.sinks.exec.kind import KIND

__all__ = ["KIND"]
