"""`reserve-listener run`: the daemon."""

from enum import StrEnum
from typing import Annotated

import typer

from reserve_listener.cli.options import ConfigOption


class LogLevel(StrEnum):
    """What the daemon says of itself."""

    debug = "debug"
    info = "info"
    warning = "warning"
    error = "error"


class LogFormat(StrEnum):
    """How it is written."""

    auto = "auto"
    console = "console"
    json = "json"


def run(
    config: ConfigOption = None,
    log_level: Annotated[
        LogLevel,
        typer.Option(help="The least serious lines that are written. Events of a log sink always are."),
    ] = LogLevel.info,
    log_format: Annotated[
        LogFormat, typer.Option(help="auto: colourful on a terminal, JSON lines otherwise.")
    ] = LogFormat.auto,
) -> None:
    """Run the daemon until SIGTERM or Ctrl-C.

    Logs go to standard output. Ctrl-C finishes deliveries first; a second one leaves at once, losing nothing.

    Exit codes: 0 stopped as asked, 75 the store is in use, 77 the platform refuses the app, 78 configuration wrong.

    Example: reserve-listener run -c config.toml
    """
    import asyncio

    from reserve_listener.app import App, StopSignals
    from reserve_listener.config import load
    from reserve_listener.observability.logs import Logs

    settings = load(config)
    logs = Logs(level=log_level.value, log_format=log_format.value, secrets=settings.secret_texts())

    async def serve() -> None:
        signals = StopSignals()
        signals.install()
        await App(settings, write_events=logs.write_events).run(signals)

    try:
        asyncio.run(serve())
    finally:
        logs.close()
