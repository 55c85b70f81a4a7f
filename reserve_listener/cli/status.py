"""`reserve-listener status`: how the running daemon is."""

from typing import Any

import typer

from reserve_listener.cli.options import ConfigOption, JsonOption
from reserve_listener.cli.stores import locate_store
from reserve_listener.cli.tables import json_text
from reserve_listener.errors import ReserveListenerError
from reserve_listener.text import visible


def status(config: ConfigOption = None, as_json: JsonOption = False) -> None:
    """Say how the running daemon is: its connection, what is pending, what is wrong.

    Exit code 0 while it is connected and takes pushes, else 1.

    Example: reserve-listener status --json
    """
    from reserve_listener.control import ask

    store = locate_store(config).store.path
    answer = ask(store, {"operation": "status"})
    if answer is None:
        raise ReserveListenerError(f"no daemon runs on the store {store}.")
    typer.echo(json_text(answer) if as_json else _text(answer))
    if not answer["healthy"]:
        raise typer.Exit(1)


def _text(answer: dict[str, Any]) -> str:
    store = answer["store"]
    size = "?" if store["size_mb"] is None else f"{store['size_mb']} of {store['max_size_mb']} MiB"
    lines = [
        ("version", answer["version"]),
        ("running", f"{answer['running_s']} s, process {answer['pid']}"),
        ("connection", answer["connection"]),
        ("pushes", f"answered 500: {answer['problem']}" if answer["problem"] else "taken"),
        ("store", f"{store['path']}, {size}"),
        *(("sink", _sink(sink)) for sink in answer["sinks"]),
        *(("gap", f"{gap['from']} to {gap['to']}: changes may be lost") for gap in answer["gaps"]),
    ]
    return "\n".join(f"{name:<11} {visible(value)}" for name, value in lines)


def _sink(sink: dict[str, Any]) -> str:
    parts = [f"{sink['name']}: {sink['state']}", f"{sink['pending']} pending"]
    if sink["dead_letters"]:
        parts.append(f"{sink['dead_letters']} dead letters")
    if sink["last_error"]:
        since = f"since {sink['failing_since']}: " if sink["failing_since"] else ""
        parts.append(since + sink["last_error"])
    if sink["next_attempt"]:
        parts.append(f"next attempt {sink['next_attempt']}")
    return ", ".join(parts)
