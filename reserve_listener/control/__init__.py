"""How other commands ask a running daemon: HTTP over a Unix socket beside its store.

`answers` is what travels, `api` the paths, `server` and `client` the two ends. Nothing is imported here: the client's
commands must not pay for the server.
"""
