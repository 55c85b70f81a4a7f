"""`reserve-listener version`."""

import typer

from reserve_listener.cli.options import JsonOption, UnusedConfigOption


def version(as_json: JsonOption = False, _config: UnusedConfigOption = None) -> None:
    """Print version numbers. Those of reserve-listener and of what it builds on.

    Example: reserve-listener version
    """
    import json
    import platform
    import sqlite3
    from importlib.metadata import version as version_of

    from reserve_listener import __version__

    versions = {
        "reserve-listener": __version__,
        "lark-oapi": version_of("lark-oapi"),
        "python": platform.python_version(),
        "sqlite": sqlite3.sqlite_version,
    }
    if as_json:
        typer.echo(json.dumps(versions))
        return
    for name, number in versions.items():
        typer.echo(f"{name} {number}")
