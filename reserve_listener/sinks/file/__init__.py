"""The file sink: its settings and how it is made (`kind`), the sink itself (`sink`), what rotates its files."""

from reserve_listener.sinks.file.kind import KIND

__all__ = ["KIND"]
