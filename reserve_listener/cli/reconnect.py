"""`reserve-listener reconnect`: have the running daemon connect anew."""

from typing import TYPE_CHECKING

import typer

from reserve_listener.cli.options import ConfigOption
from reserve_listener.cli.stores import locate_store
from reserve_listener.errors import ReserveListenerError

if TYPE_CHECKING:
    from reserve_listener.web.answers import Status

WAIT_S = 15.0
"""As long as an attempt may take: the endpoint's answer and the handshake."""

LOOK_S = 0.2
NO_DAEMON = 3


def reconnect(config: ConfigOption = None) -> None:
    """Make the running daemon connect now. Ends the wait for its next attempt, or replaces a working connection.

    Nothing is lost: the platform retries what has not been answered by then. Exit codes: 0 connected, 1 not within
    15 seconds (it keeps trying), 3 no daemon is running.

    Example: reserve-listener reconnect
    """
    from reserve_listener.clock import now_ms, rfc3339
    from reserve_listener.store import backend
    from reserve_listener.web.answers import Reconnecting
    from reserve_listener.web.client import post

    store = locate_store(config).store.url
    asked = rfc3339(now_ms())
    answer = post(store, "/reconnect", Reconnecting)
    if answer is None:
        typer.echo(f"error: no daemon runs on the store {backend(store).name}.", err=True)
        raise typer.Exit(NO_DAEMON)
    found = _outcome(store, asked)
    if found is None or found.connection is None:
        raise ReserveListenerError("the daemon has ended meanwhile; its log says why.")
    if found.connection.state != "connected":
        raise ReserveListenerError(_why(found))
    typer.echo(f"Connected (before: {answer.was}).")


def _why(found: "Status") -> str:
    """Why it is not connected, and what to do about it, as `status` has it."""
    lines = [found.connection.text if found.connection else ""]
    for reason in found.reasons:
        if reason.part == "connection":
            lines = [reason.reason, *([f"  → {reason.hint}"] if reason.hint else [])]
    return "\n".join(lines)


def _outcome(store: str, asked: str) -> "Status | None":
    """What the new attempt comes to: connected, or waiting for the next. What it is at last, if it takes too long."""
    import time

    from reserve_listener.web.answers import Status
    from reserve_listener.web.client import STATUS_TIMEOUT_S, get

    deadline = time.monotonic() + WAIT_S
    while True:
        found = get(store, "/status", Status, timeout_s=STATUS_TIMEOUT_S)
        connection = found.connection if found else None
        if connection is None or time.monotonic() > deadline:
            return found
        if connection.state in {"connected", "waiting"} and (connection.since or "") >= asked:
            return found
        time.sleep(LOOK_S)
