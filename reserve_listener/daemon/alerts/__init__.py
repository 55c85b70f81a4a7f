"""Alerts: troubles that a person should look at, announced when they begin, when they end, and now and then while they last.

They bypass the store, which may be broken itself: `watch` asks the daemon's parts, `conditions` decides which troubles there
are, `journal` decides what to announce, and each sink's `outbox` delivers it.
"""
