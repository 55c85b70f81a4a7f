"""`reserve-listener completion`: completion of commands and options by the shell."""

import os
from enum import StrEnum
from typing import Annotated

import typer

from reserve_listener.cli.options import UnusedConfigOption

PROGRAM = "reserve-listener"
VARIABLE = "_RESERVE_LISTENER_COMPLETE"
"""What the shell's script sets when it asks for words; the name is Typer's rule."""


class Shell(StrEnum):
    """What Typer can complete for."""

    bash = "bash"
    zsh = "zsh"
    fish = "fish"


def completion(
    shell: Annotated[Shell, typer.Argument(help="The shell to print the script for.")],
    _config: UnusedConfigOption = None,
) -> None:
    """Print a shell completion script. With it, your shell completes commands and options.

    \b
    Examples:
      eval "$(reserve-listener completion bash)"     in ~/.bashrc
      eval "$(reserve-listener completion zsh)"      in ~/.zshrc, after compinit
      reserve-listener completion fish > ~/.config/fish/completions/reserve-listener.fish
    """
    from typer._completion_shared import get_completion_script

    typer.echo(get_completion_script(prog_name=PROGRAM, complete_var=VARIABLE, shell=shell.value))


def answer_the_shell() -> None:
    """Prepare to answer with words if this run is one of those scripts' asking."""
    if VARIABLE in os.environ:
        from typer._completion_classes import completion_init

        completion_init()
