"""Which store a command looks at, also while the configuration is broken or there is none."""

from pathlib import Path
from typing import TYPE_CHECKING

import typer

if TYPE_CHECKING:
    from reserve_listener.config import Located


def locate_store(config: Path | None, *, quiet: bool = False) -> "Located":
    """Where the store is. What is wrong with the configuration is a warning: looking at the store needs no more of it."""
    from reserve_listener.config import locate
    from reserve_listener.sinks.kinds import KINDS
    from reserve_listener.store import backend

    located = locate(KINDS, config)
    if located.problems and not quiet:
        for problem in located.problems:
            typer.echo(f"warning: {problem}", err=True)
        typer.echo(
            f"warning: the configuration is broken; using the store {backend(located.store.url).name}",
            err=True,
        )
    return located
