"""Asking daemons that share a store, wherever they run: through the store."""

import time
from typing import TYPE_CHECKING, TypeVar

import typer

from reserve_listener.errors import ReserveListenerError
from reserve_listener.text import visible

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from contextlib import AbstractContextManager

    from reserve_listener.model import Answer, Replica
    from reserve_listener.protocols.backend import Asking

LOOK_S = 0.2
"""How often it is looked for answers."""

OBEYED_S = 10.0
"""Whoever is asked obeys within 5 s: it looks every 3 s, and at once when it is told."""

NO_DAEMON = 3

T = TypeVar("T")


def asking(store: str) -> "AbstractContextManager[Asking] | None":
    """To ask all daemons of this store; None: there is one, which listens on this machine."""
    from reserve_listener.store import backend

    return backend(store).asking()


def living(line: "Asking", store: str) -> "list[Replica]":
    """All of them; exit code 3 if there is none."""
    from reserve_listener.store import backend

    if not (found := line.replicas()):
        typer.echo(f"error: no daemon runs on the store {backend(store).name}.", err=True)
        raise typer.Exit(NO_DAEMON)
    return found


def named(replicas: "list[Replica]", beginning: str) -> "Replica":
    """The one whose id is that, or begins with it."""
    found = [one for one in replicas if one.id == beginning] or [
        one for one in replicas if one.id.startswith(beginning)
    ]
    if len(found) == 1:
        return found[0]
    what = "no replica has an id that begins" if not found else f"{len(found)} replicas have ids that begin"
    known = ", ".join(visible(one.id) for one in replicas)
    raise ReserveListenerError(f'{what} with "{visible(beginning)}". These run: {known}.')


def called(replica: "Replica") -> str:
    """A replica, for people."""
    return f"{visible(replica.host)} (process {replica.pid})"


def understood(answer: "Answer", kind: type[T]) -> T:
    """What it says. Raises `ReserveListenerError` for what is refused."""
    import msgspec

    from reserve_listener.web.answers import Refusal

    try:
        refusal = msgspec.json.decode(answer.content, type=Refusal)
    except msgspec.ValidationError:
        return msgspec.json.decode(answer.content, type=kind)
    raise ReserveListenerError(refusal.refused)


def heard(
    line: "Asking", request: int, asked: "Iterable[Replica]", wait_s: float
) -> "Iterator[Answer | Replica]":
    """Each answer as it comes; and whoever of them does not live any more. Ends by itself after `wait_s`."""
    expected = {one.id: one for one in asked}
    after: set[int] = set()
    deadline = time.monotonic() + wait_s
    while expected and time.monotonic() < deadline:
        for answer in line.answers(request):  # in what order they were committed is not known
            if answer.number not in after:
                after.add(answer.number)
                yield answer
        alive = {one.id for one in line.replicas()}
        for one in [one for one in expected if one not in alive]:
            yield expected.pop(one)
        time.sleep(LOOK_S)
