"""`reserve-listener status`: how the running daemon is."""

import json

import typer

from reserve_listener.cli.options import ConfigOption, JsonOption
from reserve_listener.errors import ReserveListenerError


def status(config: ConfigOption = None, as_json: JsonOption = False) -> None:
    """Say how the running daemon is: its connection, what is pending, what is wrong.

    Exit code 0 while it is connected and takes pushes, else 1.

    Example: reserve-listener status --json
    """
    from reserve_listener.config import load
    from reserve_listener.control import ask

    store = load(config, secrets=False).store.path
    answer = ask(store, {"operation": "status"})
    if answer is None:
        raise ReserveListenerError(f"no daemon runs on the store {store}.")
    typer.echo(json.dumps(answer, ensure_ascii=False, indent=2) if as_json else _text(answer))
    if not answer["healthy"]:
        raise typer.Exit(1)


def _text(answer: dict[str, object]) -> str:
    pending = answer["pending"]
    lines = [
        ("version", answer["version"]),
        ("running", f"{answer['running_s']} s, process {answer['pid']}"),
        ("connection", answer["connection"]),
        ("pushes", f"answered 500: {answer['problem']}" if answer["problem"] else "taken"),
        (
            "pending",
            ", ".join(f"{name} {count}" for name, count in pending.items())
            if isinstance(pending, dict)
            else "?",
        ),
    ]
    return "\n".join(f"{name:<11} {value}" for name, value in lines)
