"""reserve-listener: receives every change to a meeting room's reservation limits and delivers it durably."""

__version__ = "0.1.0"
