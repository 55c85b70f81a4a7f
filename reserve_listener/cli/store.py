"""`reserve-listener store`: the store as a whole, backed up or moved."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from reserve_listener.cli.listing import at_terminal
from reserve_listener.cli.options import ConfigOption, UnusedConfigOption
from reserve_listener.cli.stores import locate_store

if TYPE_CHECKING:
    from reserve_listener.store.copying import Progress

INTERRUPTED = 130
SAID_EVERY_S = 30.0
"""How often a line says how far it is, where there is no bar."""

Show = Callable[["Progress"], None]

store_app = typer.Typer(
    help="Back up the store, or move it to another database.",
    epilog="Example: reserve-listener store backup /var/backups/reserve-listener/monday",
    no_args_is_help=True,
)


@store_app.command()
def backup(
    folder: Annotated[
        Path, typer.Argument(metavar="DIR", help="The folder for the copy; created if it does not exist.")
    ],
    config: ConfigOption = None,
) -> None:
    """Copy the store to a folder; the daemon may be running.

    The copy has everything that was answered before the command began. Nothing is overwritten. To restore it, stop the
    daemon and replace the store's files with the copies.

    Example: reserve-listener store backup /var/backups/reserve-listener/monday
    """
    from reserve_listener.model import MIB
    from reserve_listener.store import backend

    for copy in backend(locate_store(config).store.url).back_up(folder):
        typer.echo(f"{copy}  {copy.stat().st_size / MIB:.1f} MiB")


@store_app.command()
def copy(
    source: Annotated[
        str,
        typer.Argument(
            metavar="FROM",
            help="URL of the store, as in store.url; with postgresql://, ?password_file=FILE keeps its password out of sight.",
        ),
    ],
    target: Annotated[
        str, typer.Argument(metavar="TO", help="URL of the new store. There must be none yet.")
    ],
    _config: UnusedConfigOption = None,
) -> None:
    """Copy a whole store from SQLite to PostgreSQL, or back.

    Stop the daemons first; FROM is not changed. If the command is interrupted, run it again: it continues where it
    stopped, and no daemon accepts an unfinished copy. At the end it compares both stores and prints the number of rows
    and the checksum of each table.

    Exit codes: 0 copied and compared, 1 failed, 75 a daemon is using one of the stores, 78 a URL, or what it names, is wrong.

    Example: reserve-listener store copy sqlite:///events.db postgresql://rl@db.example/rooms
    """
    from reserve_listener.store.copying import copy as copy_store

    try:
        with _showing() as show:
            found = copy_store(source, target, show)
    except KeyboardInterrupt:
        typer.echo("Interrupted. Run the same command again to continue.", err=True)
        raise typer.Exit(INTERRUPTED) from None
    width = max(map(len, found)) if at_terminal() else 0
    for name, table in found.items():
        line = (
            f"{name:{width}}  {table.rows:>12,}  {table.checksum}"
            if width
            else f"{name}\t{table.rows}\t{table.checksum}"
        )
        typer.echo(line)
    typer.echo("Everything was copied. Set store.url to the new store, then start the daemon.", err=True)


@contextmanager
def _showing() -> Iterator[Show]:
    """How far it is: a bar on a terminal, lines on standard error elsewhere."""
    if at_terminal():
        with _bar() as shown:
            yield shown
        return
    said_s = time.monotonic()

    def show(now: "Progress") -> None:
        nonlocal said_s
        if time.monotonic() - said_s >= SAID_EVERY_S:
            said_s = time.monotonic()
            typer.echo(_progress(now), err=True)

    yield show


@contextmanager
def _bar() -> Iterator[Show]:
    from rich.console import Console
    from rich.progress import BarColumn, Progress as Bar, TextColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description}", markup=False), BarColumn(), TimeRemainingColumn())
    with Bar(*columns, console=Console(), transient=True, refresh_per_second=4) as bar:
        task = bar.add_task("", total=None)
        yield lambda now: bar.update(task, description=_progress(now), total=now.total, completed=now.done)


def _progress(now: "Progress") -> str:
    return f"{now.done} of {now.total} rows {now.doing} ({now.table})"
