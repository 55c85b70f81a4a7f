"""`reserve-listener run`: the daemon."""

from enum import StrEnum
from typing import Annotated

import typer

from reserve_listener.cli.options import ConfigOption
from reserve_listener.errors import ReserveListenerError


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
        LogLevel | None,
        typer.Option(
            help="The least serious lines that are written; goes over log.level. A log sink's events always are."
        ),
    ] = None,
    log_format: Annotated[
        LogFormat, typer.Option(help="auto: colourful on a terminal, JSON lines otherwise.")
    ] = LogFormat.auto,
) -> None:
    """Run the daemon until SIGTERM or Ctrl-C.

    Logs go to standard output. Ctrl-C finishes deliveries first; a second one leaves at once, losing nothing.
    SIGHUP applies a changed configuration, if it is a good one.

    Exit codes: 0 stopped as asked, 75 the store is in use, 77 the platform refuses the app, 78 configuration wrong.

    Example: reserve-listener run -c config.toml
    """
    import asyncio

    from reserve_listener import interpreter

    interpreter.starting()
    from reserve_listener import proxies
    from reserve_listener.signals import Signals, ignore_early_reload

    ignore_early_reload()
    from reserve_listener.app import App
    from reserve_listener.config import load
    from reserve_listener.observability.logs import Logs

    settings = load(config)
    logs = Logs(
        level=log_level.value if log_level else settings.log.level,
        level_fixed=log_level is not None,
        log_format=log_format.value,
        secrets=(*settings.secret_texts(), *proxies.secret_texts()),
    )

    async def serve() -> None:
        signals = Signals()
        signals.install()
        await App(settings, logs=logs, reload=lambda: load(config)).run(signals)

    try:
        asyncio.run(serve())
    except ReserveListenerError:
        raise
    except Exception as error:
        _log_defect(error)
        raise ReserveListenerError(
            f"stopped by a defect ({type(error).__name__}): the log holds the details. Nothing that was answered is lost."
        ) from error
    finally:
        logs.close()


def _log_defect(error: Exception) -> None:
    """A defect of ours, with its traceback, in the log and not on the terminal."""
    import structlog

    structlog.get_logger("daemon").critical("daemon.failed", error=str(error), exc_info=error)
