"""From the configuration's `[[sinks]]` to sinks that workers can drive, of whatever kind."""

from __future__ import annotations

import contextlib
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final

from reserve_listener.errors import ConfigError, ReserveListenerError
from reserve_listener.model import SinkFilter
from reserve_listener.protocols import SinkRuntime
from reserve_listener.redact import redact
from reserve_listener.text import visible

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Collection, Iterator
    from pathlib import Path

    from reserve_listener.config import Config, SinkTable
    from reserve_listener.delivery import SinkSpec
    from reserve_listener.net.target import Target
    from reserve_listener.protocols import Sink

SHOWN_CHARS: Final = 300
"""What of a plugin's error is shown."""


def make_sink_spec(
    table: SinkTable,
    write_events: Callable[..., Awaitable[None]],
    *,
    reserved: Collection[Path] = (),
    of: Config | None = None,
    hide: Callable[[str, str], None] | None = None,
) -> SinkSpec:
    """The sink of a `[[sinks]]` table, with its worker's policy. Blocks: it reads secrets and certificates.

    `write_events`: what a log sink writes to. `reserved`: what a file sink never writes to, whatever name it goes by.
    `of`: the configuration that the table is from. `hide`: see `SinkRuntime`. Raises `ConfigError` when a file is amiss.
    """
    from reserve_listener.delivery import SinkSpec  # noqa: PLC0415  # `check` looks sinks over without it
    from reserve_listener.delivery.retry import RetryPolicy  # noqa: PLC0415

    runtime = SinkRuntime(name=table.name, write_events=write_events, reserved=reserved, **_of(of))
    if hide is not None:
        runtime = replace(runtime, hide=hide)
    settings = table.fingerprint()
    sink = _built(table, runtime)
    retry = table.retry
    policy = RetryPolicy(
        base_s=retry.base, cap_s=retry.cap, max_age_s=retry.max_age, max_attempts=retry.max_attempts
    )
    return SinkSpec(sink=sink, policy=policy, settings=settings)


def look_over(table: SinkTable, of: Config | None = None) -> str:
    """What `check` says of a sink; ConfigError, without the sink's name, when it could not start. Blocks; sends nothing."""
    runtime = replace(_idle(table), **_of(of))
    try:
        text = getattr(table.sink_kind, "docs", None) or f"type {table.type}"
        if (check := getattr(table.sink_kind, "check", None)) is not None:
            with _of_plugin(table, "check"):
                text = str(check(table, table.read_secrets(), runtime))
        # What the daemon does at its start finds the rest, such as a proxy in the environment that is none. Never used, it
        # holds nothing that the end of the command does not give back.
        _built(table, runtime)
    except ConfigError as error:
        raise ConfigError(str(error).removeprefix(f'sink "{table.name}": ')) from None
    return text


def target_of(table: SinkTable, of: Config | None = None) -> Target:
    """What `check --online` tries to reach, of a kind that has a `target`. Blocks; ConfigError as above."""
    kind: Any = table.sink_kind
    with _of_plugin(table, "target"):
        target: Target = kind.target(table, table.read_secrets(), replace(_idle(table), **_of(of)))
    return target


def problem_of(sink: Sink) -> str | None:
    """Why a sink cannot work as things are now, if it can tell. Blocks for a few look-ups."""
    problem: Callable[[], str | None] | None = getattr(sink, "problem", None)
    return None if problem is None else problem()


def filter_of(config: SinkTable) -> SinkFilter:
    """What the sink wants to hear."""
    return SinkFilter(
        scope_type=config.scope_type,
        scope_ids=None if config.scope_ids is None else frozenset(config.scope_ids),
        tenants=None if config.tenants is None else frozenset(config.tenants),
        changes_in=config.changes_in,
        events=config.events,
    )


def _built(table: SinkTable, runtime: SinkRuntime) -> Sink:
    with _of_plugin(table, "build"):
        sink = table.sink_kind.build(table, table.read_secrets(), runtime)
        if sink.name != table.name:
            raise ConfigError(
                f'sink "{table.name}": a sink of type "{table.type}" must have the name runtime.name'
            )
    return sink


@contextlib.contextmanager
def _of_plugin(table: SinkTable, what: str) -> Iterator[None]:
    """Whatever goes wrong within, it is said of which sink, and no secret with it."""
    where = f'sink "{table.name}": '
    try:
        yield
    except ConfigError as error:
        raise ConfigError(where + str(error).removeprefix(where)) from error
    except ReserveListenerError:
        raise
    except Exception as error:  # noqa: BLE001  # a plugin may raise anything
        secrets = tuple(secret.get_secret_value() for secret in table.secret_texts())
        text = visible(redact(f"{type(error).__name__}: {error}", secrets), SHOWN_CHARS)
        raise ConfigError(f'{where}type "{table.type}" fails in {what}: {text}') from None


def _of(config: Config | None) -> dict[str, Any]:
    """What a sink is told of the rest of the configuration."""
    if config is None:
        return {}
    page = None if config.status is None else config.status.public_url
    return {"language": config.lark.tells_in, "public_url": page, "app": config.lark}


def _idle(table: SinkTable) -> SinkRuntime:
    async def write_nothing(*_: object) -> None:
        """What a log sink would write to; there is none here."""

    return SinkRuntime(name=table.name, write_events=write_nothing)
