"""`reserve-listener reconnect`: have the running daemon connect anew."""

from typing import TYPE_CHECKING, Annotated

import typer

from reserve_listener.cli.asking import (
    LOOK_S,
    NO_DAEMON,
    OBEYED_S,
    asking,
    called,
    heard,
    living,
    named,
    understood,
)
from reserve_listener.cli.options import ConfigOption
from reserve_listener.cli.stores import locate_store
from reserve_listener.errors import ReserveListenerError
from reserve_listener.text import visible

if TYPE_CHECKING:
    from collections.abc import Iterable

    from reserve_listener.model import Answer, Replica
    from reserve_listener.protocols.backend import Asking
    from reserve_listener.web.answers import Reconnected, Status

WAIT_S = 15.0
"""As long as an attempt may take: the endpoint's answer and the handshake."""

ReplicaOption = Annotated[
    str | None,
    typer.Option(
        "--replica",
        metavar="ID",
        help="Only this one of the daemons that share the store: its id as `status --json` shows it, or the id's beginning.",
    ),
]


def reconnect(config: ConfigOption = None, replica: ReplicaOption = None) -> None:
    """Make the running daemon connect now. Ends the wait for its next attempt, or replaces a working connection.

    Nothing is lost: the platform retries what has not been answered by then. Where daemons share a store on PostgreSQL, all
    of them reconnect, on any machine, or the one that `--replica` names. Exit codes: 0 connected, 1 not within 15 seconds
    (it keeps trying), 3 no daemon is running.

    Example: reserve-listener reconnect
    """
    from reserve_listener.clock import now_ms, rfc3339
    from reserve_listener.store import backend
    from reserve_listener.web.answers import Reconnecting
    from reserve_listener.web.client import post

    store = locate_store(config).store.url
    if (shared := asking(store)) is not None:
        with shared as line:
            _all(line, store, replica)
        return
    if replica is not None:
        raise typer.BadParameter("this store has one daemon.", param_hint="--replica")
    asked = rfc3339(now_ms())
    answer = post(store, "/reconnect", Reconnecting)
    if answer is None:
        typer.echo(f"error: no daemon runs on the store {backend(store).name}.", err=True)
        raise typer.Exit(NO_DAEMON)
    found = _outcome(store, asked)
    if found is None or found.connection is None:
        raise ReserveListenerError("the daemon ended in the meantime; its log says why.")
    if found.connection.state != "connected":
        raise ReserveListenerError(_why(found))
    typer.echo(f"Connected (before: {answer.was}).")


def _all(line: "Asking", store: str, beginning: str | None) -> None:
    """Those that share the store, or one of them. Exit code 1 if one is not connected in the end."""
    asked = living(line, store)
    if beginning is not None:
        asked = [named(asked, beginning)]
    request = line.ask("reconnect", b"{}", None if beginning is None else asked[0].id)
    outcome = _Outcome(asked)
    for said in heard(line, request, asked, OBEYED_S + WAIT_S):
        outcome.hear(said)
        if not outcome.left:
            break
    outcome.say_left()
    if outcome.has_failed:
        raise typer.Exit(1)


class _Outcome:
    """What each of several says; it is printed as it comes."""

    def __init__(self, asked: "Iterable[Replica]") -> None:
        self.left = {one.id: one for one in asked}
        self.has_failed = False
        self._obeyed: set[str] = set()

    def hear(self, said: "Answer | Replica") -> None:
        """An answer, or that one has ended."""
        from reserve_listener.model import Replica

        if isinstance(said, Replica):
            if self.left.pop(said.id, None) is not None:
                typer.echo(f"{called(said)}: has ended.", err=True)
        elif said.replica in self.left:
            self._answered(self.left[said.replica], said)

    def _answered(self, replica: "Replica", answer: "Answer") -> None:
        from reserve_listener.web.answers import Reconnected

        try:
            found = understood(answer, Reconnected)
        except ReserveListenerError as error:
            self.has_failed = True
            del self.left[replica.id]
            typer.echo(f"{called(replica)}: {error}", err=True)
            return
        self._obeyed.add(replica.id)
        if found.state is not None:
            del self.left[replica.id]
            self.has_failed |= found.state != "connected"
            _say(replica, found)

    def say_left(self) -> None:
        """Those that have said nothing in time."""
        for one in self.left.values():
            self.has_failed = True
            what = "is still connecting" if one.id in self._obeyed else "does not answer"
            typer.echo(f"{called(one)}: {what}.", err=True)


def _say(replica: "Replica", found: "Reconnected") -> None:
    hint = f"\n  → {visible(found.hint)}" if found.hint else ""
    if found.state == "connected":
        typer.echo(f"{called(replica)}: connected (before: {visible(found.was)}).")
    else:
        typer.echo(f"{called(replica)}: {visible(found.text)}{hint}", err=True)


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
