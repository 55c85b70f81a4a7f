"""`reserve-listener check`: whether the daemon could start with this configuration, and what to do if not."""

# Typer reads the types of commands when they run: no `from __future__ import annotations`. pydantic is imported when
# a command runs, so that --help stays fast.
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

import typer

from reserve_listener.cli.listing import LONGEST_CELL, at_terminal
from reserve_listener.cli.options import ConfigOption
from reserve_listener.errors import ConfigError
from reserve_listener.text import visible, visible_lines

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from reserve_listener.cli.checks.findings import Finding

_MARKS: Final = {"ok": "✓", "warn": "!", "fail": "✗"}
_WORDS: Final = {"ok": "ok", "warn": "warn", "fail": "FAIL"}


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
    the app are connected, and it tries to reach each sink's host and the push monitor. It sends nothing to them.

    Exit codes: 0 all is well (warnings allowed), 78 the configuration is wrong, 77 the platform refuses the app,
    1 something cannot be reached.

    Example: reserve-listener check -c config.toml --online
    """
    from reserve_listener.cli.checks.findings import exit_code

    findings = list(_findings(config, online=online))
    for line in _for_persons(findings) if at_terminal() else _for_programs(findings):
        typer.echo(line)
    if code := exit_code(findings):
        raise typer.Exit(code)


def _for_persons(findings: "Sequence[Finding]") -> "Iterator[str]":
    utf8 = (sys.stdout.encoding or "").lower().replace("-", "") == "utf8"
    marks = _MARKS if utf8 else _WORDS
    mark_width = max(map(len, marks.values()))
    width = max(len(finding.where) for finding in findings)
    for finding in findings:
        mark = f"{marks[finding.level]:<{mark_width}}"
        yield f"{mark} {finding.where:<{width}}  {visible_lines(finding.text)}"


def _for_programs(findings: "Sequence[Finding]") -> "Iterator[str]":
    for finding in findings:
        yield "\t".join((_WORDS[finding.level], visible(finding.where), visible(finding.text, LONGEST_CELL)))


def _findings(path: Path | None, *, online: bool) -> "Iterator[Finding]":
    from reserve_listener.cli.checks import offline
    from reserve_listener.cli.checks.findings import Finding, WrongError, within
    from reserve_listener.config import load_explained
    from reserve_listener.sinks.kinds import KINDS

    try:
        loaded = within(lambda: load_explained(KINDS, path))
    except (ConfigError, WrongError) as error:
        for line in str(error).splitlines():
            yield Finding(
                where="configuration",
                level="fail",
                what=line.removeprefix("configuration: "),
                do=getattr(error, "do", ""),
            )
        return
    yield from offline.findings(loaded, online=online)
    if online:
        from reserve_listener.cli.checks import online as asked

        yield from asked.findings(loaded.config)
