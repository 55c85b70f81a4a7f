"""`reserve-listener check`: whether the daemon could start with this configuration, and what to do if not."""

# Typer reads the types of commands when they run: no `from __future__ import annotations`. pydantic is imported when
# a command runs, so that --help stays fast.
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Final

import typer

from reserve_listener.cli.options import ConfigOption
from reserve_listener.errors import ConfigError
from reserve_listener.text import visible_lines

if TYPE_CHECKING:
    from collections.abc import Iterator

    from reserve_listener.cli.checks.findings import Finding

_MARKS: Final = {"ok": "✓", "warn": "!", "fail": "✗"}
_PLAIN_MARKS: Final = {"ok": "ok  ", "warn": "warn", "fail": "FAIL"}


def check(config: ConfigOption = None) -> None:
    """Check the configuration, its secrets, and the places that the daemon writes to. Nothing is changed or sent.

    Exits with 0 when all is well and with 78 when not.

    Example: reserve-listener check -c config.toml
    """
    from reserve_listener.cli.checks.findings import exit_code

    findings = list(_findings(config))
    marks = _MARKS if _takes_symbols() else _PLAIN_MARKS
    width = max(len(finding.where) for finding in findings)
    for finding in findings:
        typer.echo(f"{marks[finding.level]} {finding.where:<{width}}  {visible_lines(finding.text)}")
    if code := exit_code(findings):
        raise typer.Exit(code)


def _takes_symbols() -> bool:
    return sys.stdout.isatty() and (sys.stdout.encoding or "").lower().replace("-", "") == "utf8"


def _findings(path: Path | None) -> "Iterator[Finding]":
    from reserve_listener.cli.checks import offline
    from reserve_listener.cli.checks.findings import Finding, WrongError, within
    from reserve_listener.config import load_explained

    try:
        loaded = within(lambda: load_explained(path))
    except (ConfigError, WrongError) as error:
        for line in str(error).splitlines():
            yield Finding(where="configuration", level="fail", what=line, do=getattr(error, "do", ""))
        return
    yield from offline.findings(loaded)
