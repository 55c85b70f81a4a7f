"""`reserve-listener run`: the daemon."""

from enum import StrEnum
from typing import Annotated

import typer

from reserve_listener.cli.options import ConfigOption
from reserve_listener.errors import ReserveListenerError

DEFECT_HINT = "please report this bug with this line; nothing that was answered is lost, and a restart resumes from there"


class LogLevel(StrEnum):
    """What the daemon logs."""

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
            help="The lowest level to log; overrides log.level. A log sink's events are always written."
        ),
    ] = None,
    log_format: Annotated[
        LogFormat, typer.Option(help="auto: coloured on a terminal, JSON lines otherwise.")
    ] = LogFormat.auto,
) -> None:
    """Run the daemon until SIGTERM or Ctrl-C.

    Logs go to standard output. Ctrl-C finishes deliveries first; press it again to exit at once. Either way, nothing is lost.
    SIGHUP applies a changed configuration, if it is valid.

    Exit codes: 0 stopped as asked, 75 the store is in use, 77 the platform refuses the app, 78 the configuration is wrong.

    Example: reserve-listener run -c config.toml
    """
    import asyncio

    from reserve_listener.daemon import runtime
    from reserve_listener.net import descriptors

    runtime.keep_memory_private()
    runtime.starting()
    descriptors.raise_limit()
    from reserve_listener.daemon.signals import Hangup, Signals
    from reserve_listener.net import proxies
    from reserve_listener.observability.logs import Logs, log_uncaught

    hangup = Hangup.of_this_start()
    hangup.prepare()
    logs = Logs(
        level=log_level.value if log_level else "info",
        level_fixed=log_level is not None,
        log_format=log_format.value,
        secrets=tuple(proxies.secret_texts()),
    )
    log_uncaught()
    try:
        from reserve_listener.config import load
        from reserve_listener.daemon.app import App
        from reserve_listener.net.resolver import Loop
        from reserve_listener.sinks.kinds import KINDS

        settings = load(KINDS, config)
        for secret in settings.secret_texts():
            logs.hide(secret)
        logs.set_level(settings.log.level)

        async def serve() -> None:
            signals = Signals(hangup)
            signals.install()
            await App(settings, logs=logs, reload=lambda: load(KINDS, config)).run(signals)

        with asyncio.Runner(loop_factory=Loop) as runner:
            runner.run(serve())
    except ReserveListenerError as error:
        _log_failure(error.exit_code, str(error), error.hint)
        raise
    except KeyboardInterrupt:
        _log_failure(1, "interrupted while starting", ReserveListenerError.hint)
        raise ReserveListenerError("interrupted while starting.") from None
    except Exception as defect:
        _log_failure(1, f"a bug: {type(defect).__name__}: {defect}", DEFECT_HINT, defect)
        raise ReserveListenerError(
            f"stopped by a bug ({type(defect).__name__}); see the log for details. Nothing that was answered is lost."
        ) from defect
    finally:
        logs.close()


def _log_failure(exit_code: int, reason: str, hint: str, defect: Exception | None = None) -> None:
    """The last line of a daemon that did not end as asked; with the traceback of a defect."""
    import structlog

    log = structlog.get_logger("daemon")
    log.error("daemon.failed", exit_code=exit_code, reason=reason, hint=hint, exc_info=defect)
