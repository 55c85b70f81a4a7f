"""reserve-listener: hears every change of a meeting room's reservation limits and carries it on, durably."""

__version__ = "0.1.0"
