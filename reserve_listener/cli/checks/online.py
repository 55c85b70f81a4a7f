"""Checks over the network: the platform, and whether each sink and the push monitor can be reached. Nothing is sent."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Final

from reserve_listener.cli.checks import platform
from reserve_listener.cli.checks.findings import Finding, WrongError, within
from reserve_listener.cli.checks.reach import reach
from reserve_listener.config import certificates
from reserve_listener.errors import ConfigError
from reserve_listener.net import proxies
from reserve_listener.net.reaching import UnreachableError
from reserve_listener.net.resolver import Loop
from reserve_listener.net.target import Target
from reserve_listener.redact import redact
from reserve_listener.sinks.registry import target_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from reserve_listener.config import Config, HeartbeatConfig, SinkTable

TIMEOUT_S: Final = 60.0
"""For all of it, which goes on side by side. The deadlines of the steps, one after the other, come to some 50 s."""


def findings(config: Config) -> list[Finding]:
    """Ask everybody at the same time. What they answer is foreign, and may quote a secret."""
    try:
        secrets = (*within(config.secret_texts), *proxies.secret_texts())
        found = within(lambda: _run(config), TIMEOUT_S)
    except WrongError as error:
        advice = "try again, and look at this machine's network"
        return [
            Finding(where="online", level="fail", what=str(error), do=advice, exit_code=platform.UNREACHED)
        ]
    return [replace(one, what=redact(one.what, secrets)) for one in found]


def _run(config: Config) -> list[Finding]:
    with asyncio.Runner(loop_factory=Loop) as runner:
        return runner.run(_ask_all(config))


async def _ask_all(config: Config) -> list[Finding]:
    sinks = [sink for sink in config.sinks if hasattr(sink.sink_kind, "target")]
    heartbeats = [] if config.heartbeat is None else [config.heartbeat]
    found = await asyncio.gather(
        platform.look(config),
        *(_sink(sink, config) for sink in sinks),
        *(_try("heartbeat", _monitor(one)) for one in heartbeats),
    )
    return [finding for each in found for finding in each]


async def _sink(sink: SinkTable, config: Config) -> list[Finding]:
    return await _try(f'sink "{sink.name}"', partial(target_of, sink, config))


def _monitor(heartbeat: HeartbeatConfig) -> Callable[[], Target]:
    """The push monitor's address. It is not asked, which would tell it that a daemon is well."""

    def target() -> Target:
        url = "" if heartbeat.url is None else heartbeat.url.get_secret_value()
        return Target(
            url=url,
            setting="heartbeat.url_file",
            proxy=proxies.decide(url, setting=None, key="heartbeat.url_file"),
            proxy_key="HTTPS_PROXY",
            tls=certificates.trusted() if url.startswith("https:") else None,
        )

    return target


async def _try(where: str, target: Callable[[], Target]) -> list[Finding]:
    """Whether this address can be reached. `target` may block."""
    try:
        what = await reach(await asyncio.to_thread(target))
    except ConfigError:
        return []  # said before
    except UnreachableError as error:
        return [
            Finding(where=where, level="fail", what=str(error), do=error.hint, exit_code=platform.UNREACHED)
        ]
    return [Finding(where=where, what=what)]
