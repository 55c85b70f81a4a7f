"""`reserve-listener check`: whether the daemon could start with this configuration, and what to do if not."""

# Typer reads the types of commands when they run: no `from __future__ import annotations`. pydantic is imported when
# a command runs, so that --help stays fast.
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

import typer

from reserve_listener.cli.options import ConfigOption
from reserve_listener.errors import ConfigError
from reserve_listener.text import visible_lines

if TYPE_CHECKING:
    from collections.abc import Iterator

    from reserve_listener.cli.checks.findings import Finding

_MARKS: Final = {"ok": "✓", "warn": "!", "fail": "✗"}
_PLAIN_MARKS: Final = {"ok": "ok  ", "warn": "warn", "fail": "FAIL"}


def check(
    config: ConfigOption = None,
    online: Annotated[
        bool,
        typer.Option(
            "--online",
            help="Also ask the platform, using the app's secret, and try to reach each sink's host.",
        ),
    ] = False,
) -> None:
    """Check the configuration and its secrets. Changes nothing.

    Also checks the places that the daemon writes to.

    With --online, it also asks the platform, without connecting, whether it accepts the app and how many other clients of
    the app are connected, and it tries to reach each sink's host. It sends no events.

    Exit codes: 0 all is well (warnings allowed), 78 the configuration is wrong, 77 the platform refuses the app,
    1 something cannot be reached.

    Example: reserve-listener check -c config.toml --online
    """
    from reserve_listener.cli.checks.findings import exit_code

    findings = list(_findings(config, online=online))
    marks = _MARKS if _takes_symbols() else _PLAIN_MARKS
    width = max(len(finding.where) for finding in findings)
    for finding in findings:
        typer.echo(f"{marks[finding.level]} {finding.where:<{width}}  {visible_lines(finding.text)}")
    if code := exit_code(findings):
        raise typer.Exit(code)


def _takes_symbols() -> bool:
    return sys.stdout.isatty() and (sys.stdout.encoding or "").lower().replace("-", "") == "utf8"


def _findings(path: Path | None, *, online: bool) -> "Iterator[Finding]":
    from reserve_listener.cli.checks import offline
    from reserve_listener.cli.checks.findings import Finding, WrongError, within
    from reserve_listener.config import load_explained

    try:
        loaded = within(lambda: load_explained(path))
    except (ConfigError, WrongError) as error:
        for line in str(error).splitlines():
            yield Finding(where="configuration", level="fail", what=line, do=getattr(error, "do", ""))
        return
    yield from offline.findings(loaded, online=online)
    if online:
        from reserve_listener.cli.checks import online as asked

        yield from asked.findings(loaded.config)
