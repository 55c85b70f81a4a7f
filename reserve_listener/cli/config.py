"""`reserve-listener config`: what can be configured, and what is."""

# Typer reads the types of commands when they run: no `from __future__ import annotations`. pydantic is imported when
# a command runs, so that --help stays fast.
import json
from typing import TYPE_CHECKING, Any

import typer

from reserve_listener.cli.options import ConfigOption, JsonOption

if TYPE_CHECKING:
    from collections.abc import Iterator

    from reserve_listener.config import Loaded, Setting

config_app = typer.Typer(help="Say what can be configured, and what is.", no_args_is_help=True)


@config_app.command()
def schema() -> None:
    """Print the JSON Schema of the configuration file, for editors and checkers.

    Example: reserve-listener config schema > reserve-listener.schema.json
    """
    from reserve_listener.config import json_schema

    typer.echo(json.dumps(json_schema(), indent=2, ensure_ascii=False))


@config_app.command()
def show(config: ConfigOption = None, as_json: JsonOption = False) -> None:
    """Print the configuration in effect, where each key comes from, and secrets as ********.

    Example: reserve-listener config show -c /etc/reserve-listener/config.toml
    """
    from reserve_listener.config import load_explained, settings

    loaded = load_explained(config)
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
    line = f"{item.key} = {_toml_value(item.value)}  # {item.origin}"
    # A secret that was read from a file stands beside the key of that file, and one of them is all that may be given.
    return f"# {line}" if item.origin == f"{item.section}.{item.key}_file" else line


def _toml_value(value: Any) -> str:
    if isinstance(value, str):
        # A string of JSON is one of TOML but for DEL, which TOML wants escaped.
        return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, list):
        return f"[{', '.join(map(_toml_value, value))}]"
    if isinstance(value, dict):
        pairs = ", ".join(f"{_toml_value(key)} = {_toml_value(each)}" for key, each in value.items())
        return f"{{ {pairs} }}"
    return str(int(value) if value == int(value) else value)
