"""The transports: bytes from the platform to intake."""
