"""`reserve-listener config`: what can be configured, and what is."""

# Typer reads the types of commands when they run: no `from __future__ import annotations`. pydantic is imported when
# a command runs, so that --help stays fast.
import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from reserve_listener.cli.config_init import (
    AppIdOption,
    DomainOption,
    SecretFileOption,
    write_first_configuration,
)
from reserve_listener.cli.options import ConfigOption, JsonOption, UnusedConfigOption
from reserve_listener.cli.shipped import shipped
from reserve_listener.cli.toml import toml_value

if TYPE_CHECKING:
    from collections.abc import Iterator

    from reserve_listener.config import Loaded, Setting

PROGRAM = "/opt/reserve-listener/bin/reserve-listener"
HIDDEN_FROM_UNITS = ("/home", "/root", "/run/user", "/tmp", "/var/tmp")  # noqa: S108  # not used, only compared
"""What `ProtectHome=` and `PrivateTmp=` keep from a unit."""

config_app = typer.Typer(
    help="Create or show a configuration.",
    epilog="Example: reserve-listener config init",
    no_args_is_help=True,
)


@config_app.command()
def init(
    config: Annotated[
        Path, typer.Option("--config", "-c", metavar="FILE", help="The file to create.", show_default=True)
    ] = Path("config.toml"),
    app_id: AppIdOption = None,
    app_secret_file: SecretFileOption = None,
    domain: DomainOption = None,
    example: Annotated[
        bool, typer.Option("--example", help="Only print an example that explains every key.")
    ] = False,
) -> None:
    """Create a first configuration, with comments, and show the next steps.

    On a terminal it asks for the app's ID and secret, and for the region; elsewhere, pass them as options.
    It never overwrites an existing file.

    \b
    Examples:
      reserve-listener config init
      reserve-listener config init --app-id cli_a1b2c3d4e5f6 --app-secret-file ./app_secret --domain lark
      reserve-listener config init --example | less
    """
    if example:
        typer.echo(shipped("config.example.toml"), nl=False)
    else:
        write_first_configuration(config, app_id, app_secret_file, domain)


@config_app.command()
def unit(
    template: Annotated[
        bool, typer.Option("--template", help="Print the template for several apps on one host instead.")
    ] = False,
    _config: UnusedConfigOption = None,
) -> None:
    """Print the systemd unit: sandboxed, with the app's secret as a credential. It starts the program that prints it.

    Example: reserve-listener config unit > /etc/systemd/system/reserve-listener.service
    """
    import sys

    name = "reserve-listener@.service" if template else "reserve-listener.service"
    here = Path(sys.prefix) / "bin/reserve-listener"
    hidden = any(here.is_relative_to(folder) for folder in HIDDEN_FROM_UNITS)
    program = PROGRAM if hidden or not here.exists() else str(here)
    typer.echo(shipped(f"systemd/{name}").replace(PROGRAM, program), nl=False)
    if hidden:
        typer.echo(
            f"note: the unit starts {PROGRAM}, since it cannot see {here}; install it there (docs/service.md).",
            err=True,
        )


@config_app.command()
def schema(_config: UnusedConfigOption = None) -> None:
    """Print the JSON Schema of the configuration file, for editors and validators.

    Example: reserve-listener config schema > reserve-listener.schema.json
    """
    from reserve_listener.config import json_schema
    from reserve_listener.sinks.kinds import KINDS

    typer.echo(json.dumps(json_schema(KINDS), indent=2, ensure_ascii=False))


@config_app.command()
def show(config: ConfigOption = None, as_json: JsonOption = False) -> None:
    """Print the configuration in effect and where each value comes from. Secrets are not read; they appear as ********.

    Example: reserve-listener config show -c /etc/reserve-listener/config.toml
    """
    from reserve_listener.config import load_explained, settings
    from reserve_listener.sinks.kinds import KINDS

    loaded = load_explained(KINDS, config, secrets=False)
    if as_json:
        typer.echo(json.dumps(_as_json(loaded, list(settings(loaded))), indent=2))
        return
    for line in _as_toml(loaded, list(settings(loaded))):
        typer.echo(line)


def _as_json(loaded: "Loaded", items: "list[Setting]") -> dict[str, object]:
    """`{"file", "config": {section: {key: value}, "sinks": [...]}, "origins": {"lark.app_id": "file"}}`."""
    tables: dict[str, object] = {}
    for section, index, rows in _tables(items):
        table = {row.key: row.value for row in rows}
        if index is None:
            tables[section] = table
        else:
            sinks = tables.setdefault(section, [])
            assert isinstance(sinks, list)  # noqa: S101 - for the type checker: made in the line above
            sinks.append(table)
    return {
        "file": str(loaded.file) if loaded.file else None,
        "config": tables,
        "origins": {item.path: item.origin for item in items},
    }


def _as_toml(loaded: "Loaded", items: "list[Setting]") -> "Iterator[str]":
    yield f"# file: {json.dumps(str(loaded.file)) if loaded.file else 'none found; defaults and environment only'}"
    for section, index, rows in _tables(items):
        yield ""
        yield f"[{section}]" if index is None else f"[[{section}]]"
        yield from map(_toml_line, rows)


def _tables(items: "list[Setting]") -> "list[tuple[str, int | None, list[Setting]]]":
    """The settings by table, in their order."""
    tables: dict[tuple[str, int | None], list[Setting]] = {}
    for item in items:
        tables.setdefault((item.section, item.index), []).append(item)
    return [(section, index, rows) for (section, index), rows in tables.items()]


def _toml_line(item: "Setting") -> str:
    if item.value is None:
        return f"# {item.key} is not set"
    line = f"{item.key} = {toml_value(item.value)}  # {item.origin}"
    # A secret that was read from a file stands beside the key of that file, and one of them is all that may be given.
    return f"# {line}" if item.origin == f"{item.section}.{item.key}_file" else line
