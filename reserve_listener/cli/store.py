"""`reserve-listener store`: the store as files."""

from pathlib import Path
from typing import Annotated

import typer

from reserve_listener.cli.options import ConfigOption
from reserve_listener.cli.stores import locate_store

store_app = typer.Typer(
    help="Back up the store.",
    epilog="Example: reserve-listener store backup /var/backups/reserve-listener/monday",
    no_args_is_help=True,
)


@store_app.callback()
def _store() -> None:
    """A group, although it has one command."""


@store_app.command()
def backup(
    folder: Annotated[
        Path, typer.Argument(metavar="DIR", help="Where the copy goes. Created if it is not there.")
    ],
    config: ConfigOption = None,
) -> None:
    """Copy the store into a folder, also while the daemon runs.

    The copy has everything that was answered before the command began. Nothing is overwritten. To restore it, stop the
    daemon and put both files in the place of the store.

    Example: reserve-listener store backup /var/backups/reserve-listener/monday
    """
    from reserve_listener.model import MIB
    from reserve_listener.store import backend

    for copy in backend(locate_store(config).store.url).back_up(folder):
        typer.echo(f"{copy}  {copy.stat().st_size / MIB:.1f} MiB")
