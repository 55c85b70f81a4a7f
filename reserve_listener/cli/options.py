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
        help="The configuration file. Default: $RESERVE_LISTENER_CONFIG, ./config.toml or "
        "/etc/reserve-listener/config.toml, whichever comes first.",
    ),
]
UnusedConfigOption = Annotated[
    Path | None,
    typer.Option(
        "--config", "-c", metavar="FILE", help="Accepted for consistency; this command does not use it."
    ),
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON, for programs.")]
