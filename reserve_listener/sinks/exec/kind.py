"""`type = "exec"`."""

from __future__ import annotations

import os
import shutil
from typing import TYPE_CHECKING, Annotated, Any, Final

from pydantic import AfterValidator, Field

from reserve_listener.config import values
from reserve_listener.config.section import Section
from reserve_listener.config.shown import is_secret_value, quoted, suggests_secret
from reserve_listener.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from reserve_listener.protocols import SinkRuntime
    from reserve_listener.sinks.exec.sink import ExecSink

SHORTEST_SECRET: Final = 8
"""A value in `env` that is shorter is not masked: it would garble every text."""


def _command(words: tuple[str, ...]) -> tuple[str, ...]:
    if not words[0]:
        raise ValueError("must begin with a program")
    if any("\0" in word for word in words):
        raise ValueError("must not contain NUL characters")
    return words


def _env(variables: dict[str, str]) -> dict[str, str]:
    for name, value in variables.items():
        if not name or "=" in name or "\0" in name:
            raise ValueError(f"{quoted(name)} cannot be the name of a variable")
        if "\0" in value:
            raise ValueError(f"the value of {quoted(name)} must not contain NUL characters")
    return variables


class ExecSettings(Section):
    """A sink that runs a command for each event, with the event on its standard input."""

    command: Annotated[tuple[str, ...], Field(min_length=1), AfterValidator(_command)] = Field(
        description="The program and its arguments, as they are: no shell reads them."
    )
    timeout: values.Seconds = Field(
        default=30.0, description="Seconds after which the command, and all that it started, is killed."
    )
    env: Annotated[dict[str, str], AfterValidator(_env)] = Field(
        default_factory=dict,
        description="The command's environment, beside PATH and LANG: names and values.",
    )
    max_in_flight: values.InFlight = Field(
        default=1, description="How many commands may run at once, never two for the same room or level."
    )


class ExecKind:
    """See `protocols.SinkKind`."""

    name: Final = "exec"
    settings: Final = ExecSettings
    docs: Final = "runs a command for each event"

    def build(self, settings: ExecSettings, secrets: Mapping[str, Any], runtime: SinkRuntime) -> ExecSink:
        """See `protocols.SinkKind.build`."""
        from reserve_listener.sinks.exec.sink import ExecSink  # noqa: PLC0415  # settings are looked at without it

        return ExecSink(
            runtime.name,
            settings.command,
            environment=environment(settings),
            timeout_s=settings.timeout,
            max_in_flight=settings.max_in_flight,
            secrets=tuple(self.masks(settings, secrets)),
        )

    def masks(self, settings: ExecSettings, _secrets: Mapping[str, Any]) -> Iterator[str]:
        """The variables that are nobody's business, by their names or by how their values look."""
        for name, value in settings.env.items():
            if len(value) >= SHORTEST_SECRET and (suggests_secret(name) or is_secret_value(value)):
                yield value

    def check(self, settings: ExecSettings, _secrets: Mapping[str, Any], _runtime: SinkRuntime) -> str:
        """Whether the program is there and may be run; it is not run."""
        program = settings.command[0]
        found = shutil.which(program, path=environment(settings)["PATH"])
        if found is None:
            where = "" if "/" in program else f" in PATH ({environment(settings)['PATH']})"
            raise ConfigError(
                f"command: there is no {quoted(program)}{where} that this user may execute; check its path and mode"
            )
        return f"runs {found}: not tried; `sinks test` runs it"


def environment(settings: ExecSettings) -> dict[str, str]:
    """All that the command gets to know. Events are UTF-8, so without a LANG it is told that."""
    ours = {"PATH": os.environ.get("PATH", os.defpath), "LANG": os.environ.get("LANG", "C.UTF-8")}
    return ours | settings.env


KIND: Final = ExecKind()
