"""Alerts: what a person should look at, told when it begins, when it ends, and from time to time while it lasts.

They do not go through the store, which may be what is broken: `watch` asks the daemon's parts, `conditions` says what holds,
`journal` decides what is told, and an `outbox` for each sink carries it there.
"""
