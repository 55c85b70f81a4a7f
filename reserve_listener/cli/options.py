"""Options that several commands share."""

# No `from __future__ import annotations` here and in the commands: Typer reads the types when they run.
from pathlib import Path
from typing import Annotated

import typer

ConfigOption = Annotated[
    Path | None,
    typer.Option(
        "--config",
        "-c",
        metavar="FILE",
        help="The configuration file. Without it: $RESERVE_LISTENER_CONFIG, ./config.toml, "
        "/etc/reserve-listener/config.toml.",
    ),
]
UnusedConfigOption = Annotated[
    Path | None,
    typer.Option(
        "--config", "-c", metavar="FILE", help="Accepted after any command; this one does not read it."
    ),
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON, for programs.")]
