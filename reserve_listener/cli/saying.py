"""How the demo speaks: in colours where there are any."""

import sys

import typer

from reserve_listener.text import colourful


def say(text: str) -> None:
    """A line, or some."""
    typer.echo(text, color=colourful(sys.stdout))


def bold(text: str) -> str:
    """What it is about."""
    return typer.style(text, bold=True)


def dim(text: str) -> str:
    """What is only to be waited for."""
    return typer.style(text, dim=True)


def green(text: str) -> str:
    """Well."""
    return typer.style(text, fg=typer.colors.GREEN)


def red(text: str) -> str:
    """Not well."""
    return typer.style(text, fg=typer.colors.RED)


def mark(well: bool) -> str:
    """A tick or a cross."""
    return green("✓") if well else red("✗")
