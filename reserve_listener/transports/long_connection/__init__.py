"""The long connection: the only place that knows the SDK."""
