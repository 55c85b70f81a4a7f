"""`reserve-listener sinks`: where events go, and the state of each sink."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from reserve_listener.cli.listing import Column, json_text, print_list
from reserve_listener.cli.options import ConfigOption, JsonOption
from reserve_listener.cli.stores import locate_store
from reserve_listener.clock import now_ms
from reserve_listener.errors import NoAnswerError, ReserveListenerError
from reserve_listener.text import visible

if TYPE_CHECKING:
    from reserve_listener.config import Located
    from reserve_listener.web.answers import SampleResult, Status

sinks_app = typer.Typer(
    help="List the sinks, where events go; test, disable or enable one.",
    epilog="Example: reserve-listener sinks list",
    no_args_is_help=True,
)

NameArgument = Annotated[str, typer.Argument(metavar="NAME", help="The sink's name in the configuration.")]

COLUMNS = (
    Column("sink", lambda row: row["name"]),
    Column("state", lambda row: row["state"]),
    Column("pending", lambda row: str(row["pending"])),
    Column("dead letters", lambda row: str(row["dead_letters"])),
    Column("next attempt", lambda row: row["next_attempt"], "time"),
    Column("last error", lambda row: row["last_error"]),
)


@sinks_app.command("list")
def list_sinks(config: ConfigOption = None, as_json: JsonOption = False) -> None:
    """List the sinks: the state of each, how much is waiting for it, and why its last attempt failed.

    If no daemon is running, show what the store knows about them.

    Example: reserve-listener sinks list
    """
    from msgspec import to_builtins

    from reserve_listener.web.answers import Status
    from reserve_listener.web.client import STATUS_TIMEOUT_S, get

    store = locate_store(config).store.url
    try:
        answer = get(store, "/status", Status, timeout_s=STATUS_TIMEOUT_S)
    except NoAnswerError as error:
        typer.echo(f"warning: {error}; this is what the store knows", err=True)
        answer = None
    found = answer or _stored(store)
    silence = [one.reason for one in found.reasons if one.part == "store"]
    if silence and found.store.size_mb is None:
        raise ReserveListenerError(f"which sinks there are is not known: {silence[0]}")
    rows = to_builtins(found.sinks)
    print_list(rows, COLUMNS, as_json=as_json, nothing="No sinks.")


@sinks_app.command("test")
def try_sink_now(name: NameArgument, config: ConfigOption = None, as_json: JsonOption = False) -> None:
    """Send a marked sample event to one sink now and show the result. Nothing of it is stored.

    A sink with `events = false` is sent a sample alert. The running daemon sends it, with its own credentials; if none is running, this command does. The event has
    `"test": true`, and its ID begins with "test-". Exit codes: 0 the sink accepted it, 1 it did not.

    Example: reserve-listener sinks test booking
    """
    from msgspec import to_builtins

    from reserve_listener.web.answers import SampleResult
    from reserve_listener.web.client import post

    located = locate_store(config)
    _require_sink(located, name)
    answer = post(located.store.url, f"/sinks/{name}/test", SampleResult) or _try_here(config, name)
    if as_json:
        typer.echo(json_text(to_builtins(answer)))
    elif answer.delivered:
        typer.echo(f"{name} accepted the event {answer.event_id} in {answer.took_s} s.")
    if not answer.delivered:
        if not as_json:
            raise ReserveListenerError(f"{name} did not accept the event: {visible(answer.problem or '')}")
        raise typer.Exit(1)


@sinks_app.command("disable")
def disable_sink(name: NameArgument, config: ConfigOption = None) -> None:
    """Stop sending to a sink. Its deliveries wait in the store, without ageing, until you enable it again.

    Example: reserve-listener sinks disable booking
    """
    from reserve_listener.store import backend

    changed = _switch(
        config, name, "disable", lambda url: backend(url).disable_sink(name, "disabled by hand")
    )
    typer.echo(f"{name} is disabled; its deliveries wait." if changed else f"{name} was already disabled.")


@sinks_app.command("enable")
def enable_sink(name: NameArgument, config: ConfigOption = None) -> None:
    """Resume sending to a sink that was disabled, by hand or because its receiver answered that it is gone (HTTP 410).

    Example: reserve-listener sinks enable booking
    """
    from reserve_listener.store import backend

    changed = _switch(config, name, "enable", lambda url: backend(url).enable_sink(name))
    typer.echo(f"{name} is enabled." if changed else f"{name} was not disabled.")


def _switch(config: Path | None, name: str, operation: str, here: Any) -> bool:
    from reserve_listener.web.answers import Changed
    from reserve_listener.web.client import post

    located = locate_store(config)
    _require_sink(located, name)
    answer = post(located.store.url, f"/sinks/{name}/{operation}", Changed)
    return bool(here(located.store.url)) if answer is None else answer.changed


def _require_sink(located: "Located", name: str) -> None:
    """An error for a name that the configuration does not know; while there is none to ask, that the store does not."""
    from reserve_listener.cli.filters import require_sink
    from reserve_listener.store import open_reader

    if located.config is None:
        with open_reader(located.store.url) as reader:
            require_sink(reader, name)
        return
    names = [sink.name for sink in located.config.sinks]
    if name not in names:
        raise ReserveListenerError(f'there is no sink "{name}"; the configuration has {", ".join(names)}.')


def _try_here(config: Path | None, name: str) -> "SampleResult":
    """What the daemon would do, in this process."""
    import asyncio

    import msgspec

    from reserve_listener.config import load
    from reserve_listener.config.files import ours
    from reserve_listener.config.sinks import for_alerts_only
    from reserve_listener.daemon.trial import sample_delivery, send_test_event
    from reserve_listener.net.resolver import Loop
    from reserve_listener.redact import redact
    from reserve_listener.sinks.kinds import KINDS
    from reserve_listener.sinks.registry import make_sink_spec

    settings = load(KINDS, config)
    table = next(sink for sink in settings.sinks if sink.name == name)
    secrets = tuple(settings.secret_texts())

    _log_to_stderr(secrets)

    async def write(lines: Any) -> None:
        for line in lines:
            typer.echo(msgspec.json.encode(line))

    async def run() -> "SampleResult":
        reserved = [path for path, _ in ours(settings)]
        sink = make_sink_spec(table, write, reserved=reserved, of=settings).sink
        try:
            sample = sample_delivery(settings.lark.app_id, now_ms(), is_alert=for_alerts_only(table))
            return await send_test_event(sink.deliver, sample, redact=lambda text: redact(text, secrets))
        finally:
            await sink.close()

    with asyncio.Runner(loop_factory=Loop) as runner:
        return runner.run(run())


def _log_to_stderr(secrets: tuple[str, ...]) -> None:
    """What a sink says beside its result, from warnings on: standard output is for the result alone."""
    import logging
    import sys

    import structlog

    from reserve_listener.redact import redact

    def masked(_logger: Any, _name: str, event: Any) -> dict[str, Any]:
        return {
            key: redact(value, secrets) if isinstance(value, str) else value for key, value in event.items()
        }

    structlog.configure(
        processors=[
            structlog.processors.add_log_level,
            masked,
            structlog.processors.KeyValueRenderer(key_order=["level", "event"]),
        ],
        wrapper_class=structlog.make_filtering_bound_logger(logging.WARNING),
        logger_factory=structlog.PrintLoggerFactory(file=sys.stderr),
    )


def _stored(url: str) -> "Status":
    """What the store knows, and replicas on other machines have told it."""
    from reserve_listener.daemon.elsewhere import without_answer
    from reserve_listener.store import backend, open_reader

    with open_reader(url) as store:
        return without_answer(backend(url).name, store.insight(gaps_since_ms=0))
