"""`reserve-listener reconcile`: have the running daemon compare limits with the platform's, and wait for what it finds."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated, NoReturn

import typer

from reserve_listener.cli.asking import LOOK_S, NO_DAEMON, OBEYED_S, asking, living, understood
from reserve_listener.cli.listing import at_terminal, json_text, short_id
from reserve_listener.cli.options import ConfigOption, JsonOption
from reserve_listener.cli.stores import locate_store
from reserve_listener.errors import ReserveListenerError
from reserve_listener.text import visible

if TYPE_CHECKING:
    from reserve_listener.protocols.backend import Asking
    from reserve_listener.web.answers import Comparison, HistoryRow, ReconcileRequest

SAID_EVERY_S = 30.0
"""How often a line says how far it is, where there is no bar."""

TAKEN_OVER_S = 30.0
"""So long it may take until another replica is the one that compares, and obeys."""

INTERRUPTED = 130

ScopesArgument = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="[SCOPE]...",
        help="Rooms or levels: their names or scope_ids, or unambiguous beginnings of either. All if none are given.",
    ),
]


def reconcile(
    scopes: ScopesArgument = None,
    config: ConfigOption = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Only say what differs; store and deliver nothing.")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Compare the limits of rooms and levels with the platform's, now, and print what differs from what is known.

    A difference becomes an event and is delivered like any other. The daemon compares 80 rooms and levels a minute
    (rooms.requests_per_minute). Ctrl-C ends only this command; the daemon continues. Where daemons share a store on
    PostgreSQL, one of them compares, on any machine. Exit codes: 0 compared, 1 something could not be read, 3 no daemon is
    running.

    Example: reserve-listener reconcile omm_3c5dd7e09b --dry-run
    """
    store = locate_store(config).store.url
    try:
        with _begun(store, scopes or [], dry_run=dry_run) as look:
            found, last = _followed(look, quiet=as_json)
    except KeyboardInterrupt:
        typer.echo("The daemon continues; `reserve-listener status` shows its progress.", err=True)
        raise typer.Exit(INTERRUPTED) from None
    if as_json:
        from msgspec import to_builtins

        typer.echo(json_text([to_builtins(one) for one in found]))
    typer.echo(_summary(last), err=True)
    if last.state == "failed" or last.stuck:
        _fail(last)


def _require_daemon(store: str) -> None:
    from msgspec import Raw

    from reserve_listener.store import backend
    from reserve_listener.web.client import STATUS_TIMEOUT_S, get

    if get(store, "/status", Raw, timeout_s=STATUS_TIMEOUT_S) is None:
        typer.echo(f"error: no daemon runs on the store {backend(store).name}.", err=True)
        raise typer.Exit(NO_DAEMON)


@contextmanager
def _begun(store: str, scopes: list[str], *, dry_run: bool) -> "Iterator[Look]":
    """Ask for it; how far it is, from then on."""
    from reserve_listener.web.answers import Comparison, Reconciling
    from reserve_listener.web.client import get, post

    if (shared := asking(store)) is not None:
        with shared as line:
            living(line, store)
            yield _Shared(line, _asked(store, scopes, dry_run=dry_run))
        return
    _require_daemon(store)
    answer = post(store, "/reconcile", Reconciling, _asked(store, scopes, dry_run=dry_run)) or _ended()

    def look(after: int) -> Comparison:
        return get(store, f"/reconcile/{answer.id}?after={after}", Comparison) or _ended()

    yield look


def _asked(store: str, scopes: list[str], *, dry_run: bool) -> "ReconcileRequest":
    from reserve_listener.cli.known import scope_id_of
    from reserve_listener.store import open_reader
    from reserve_listener.web.answers import ReconcileRequest

    with open_reader(store) as reader:
        scope_ids = [scope_id_of(reader, scope) for scope in scopes]
    return ReconcileRequest(scopes=scope_ids, all=not scope_ids, dry_run=dry_run)


class _Shared:
    """What the one of several daemons says that compares: each answer once, and between two the last, with nothing new."""

    def __init__(self, line: "Asking", asked: "ReconcileRequest") -> None:
        from msgspec import json

        self._line = line
        self._content = json.encode(asked)
        self._request = 0
        self._number = 0
        self._who = ""
        self._last = self._first()

    def _first(self) -> "Comparison":
        """It may be that none compares just now: the one that did was killed. The next one is known within 18 s."""
        deadline = time.monotonic() + TAKEN_OVER_S
        while time.monotonic() < deadline:
            self._request = self._line.ask("reconcile", self._content, None)
            until = time.monotonic() + OBEYED_S
            while time.monotonic() < until:
                if (found := self._next()) is not None:
                    self._last = found
                    self._number = 0  # to be told once more, when it is asked for
                    return found
                time.sleep(LOOK_S)
        raise ReserveListenerError(
            "no replica compares limits now. `reserve-listener status` shows what they do."
        )

    def _next(self) -> "Comparison | None":
        from reserve_listener.web.answers import Comparison

        for answer in self._line.answers(self._request, self._number):
            self._number, self._who = answer.number, answer.replica
            return understood(answer, Comparison)
        return None

    def __call__(self, _after: int) -> "Comparison":
        from msgspec.structs import replace

        if (found := self._next()) is not None:
            self._last = found
            return found
        if self._who not in {one.id for one in self._line.replicas()}:
            _ended()
        time.sleep(LOOK_S)
        return replace(self._last, found=[])


def _followed(look: "Look", *, quiet: bool) -> "tuple[list[HistoryRow], Comparison]":
    """Wait for it and print each difference as it is found; all of them, and how it ended."""
    found: list[HistoryRow] = []
    with _showing(quiet=quiet) as (say, show):
        while True:
            now = look(len(found))
            for difference in now.found:
                say(_line(difference))
            found += now.found
            show(now)
            if not now.more and (now.state in {"done", "failed"} or now.stuck):
                return found, now
            if not now.more:
                time.sleep(LOOK_S)


Look = Callable[[int], "Comparison"]
"""How far it is, and what was found after so many differences."""
Say = Callable[[str], None]
Show = Callable[["Comparison"], None]


@contextmanager
def _showing(*, quiet: bool) -> Iterator[tuple[Say, Show]]:
    """How differences are printed, and how far it is: a bar below them on a terminal, lines on standard error elsewhere."""
    if at_terminal() and not quiet:
        with _bar() as shown:
            yield shown
        return
    said_s = time.monotonic()
    troubled: str | None = None

    def show(now: "Comparison") -> None:
        nonlocal said_s, troubled
        if now.problem != troubled and now.state == "waiting" and now.problem is not None:
            typer.echo(f"note: {visible(now.problem)}", err=True)
        troubled = now.problem
        if time.monotonic() - said_s >= SAID_EVERY_S:
            said_s = time.monotonic()
            typer.echo(_progress(now), err=True)

    yield (lambda _line: None) if quiet else typer.echo, show


@contextmanager
def _bar() -> Iterator[tuple[Say, Show]]:
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description}", markup=False), BarColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(), transient=True, refresh_per_second=4) as progress:
        task = progress.add_task("waiting", total=None)

        def say(line: str) -> None:
            progress.console.print(line, markup=False, highlight=False, soft_wrap=True)

        def show(now: "Comparison") -> None:
            text = visible(now.problem) if now.problem and now.state == "waiting" else _progress(now)
            progress.update(task, description=text, total=now.total or None, completed=now.done)

        yield say, show


def _line(difference: "HistoryRow") -> str:
    name, summary = difference.scope_name, visible(difference.summary)
    if not at_terminal():
        return "\t".join([visible(difference.scope_id), visible(name or ""), summary])
    scope_id = short_id(visible(difference.scope_id))
    return f"{f'{visible(name)} ({scope_id})' if name else scope_id}: {summary}"


def _progress(now: "Comparison") -> str:
    if now.state == "waiting" and not now.total:
        ahead = f": another comparison has {now.ahead} left to read" if now.ahead else ""
        return f"waiting for its turn{ahead}"
    return f"{now.done} of {now.total} compared, {_differ(now.differences)}"


def _summary(last: "Comparison") -> str:
    parts = [_progress(last)]
    if last.gone:
        parts.append(f"{last.gone} no longer exist" if last.gone > 1 else "1 no longer exists")
    if last.not_read:
        parts.append(f"{last.not_read} could not be read")
    if last.dry_run:
        parts.append("nothing was stored")
    return f"{'; '.join(parts)}."


def _differ(number: int) -> str:
    return "1 differs" if number == 1 else f"{number} differ"


def _fail(last: "Comparison") -> NoReturn:
    raise ReserveListenerError(f"{last.problem}{f'. {last.hint}' if last.hint else ''}.")


def _ended() -> NoReturn:
    raise ReserveListenerError(
        "the daemon ended in the meantime; it continues the comparison when it is started again."
    )
