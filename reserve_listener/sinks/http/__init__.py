"""The http sink: its settings and how it is made (`kind`), the sink itself (`sink`), the platform's own form (`feishu`)."""

from reserve_listener.sinks.http.kind import KIND

__all__ = ["KIND"]
