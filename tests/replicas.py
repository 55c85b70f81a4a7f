"""Daemons that share a database, as real processes, and a look into that."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from typing import TYPE_CHECKING, Any

import httpx2
import psycopg

from reserve_listener.simulator import patience
from tests.daemon_process import Daemon, running, write_config

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping
    from pathlib import Path

    from reserve_listener.simulator import Simulator

HOLDER = """
SELECT r.pid FROM reserve_listener.leases AS l JOIN reserve_listener.replicas AS r ON r.id = l.holder
WHERE l.name = 'sink:booking'
"""


def configured(
    folder: Path,
    name: str,
    url: str,
    platform: Simulator,
    receiver_url: str,
    *,
    lark: str = "",
    more: str = "",
) -> Path:
    """The configuration of a replica, in a folder of its own."""
    own = folder / name
    own.mkdir(parents=True)
    config = write_config(own, platform, receiver_url, lark=lark, more=more)
    config.write_text(config.read_text().replace(f"sqlite:///{own}/events.db", url))
    return config


@asynccontextmanager
async def replicas(
    configs: list[Path], environs: list[Mapping[str, str]] | None = None, *, first: str = ""
) -> AsyncIterator[list[Daemon]]:
    """One for each configuration, with what is to be in its environment; gone at the end."""
    async with AsyncExitStack() as stack:
        yield [
            await stack.enter_async_context(running(config.parent, config, environ=environ, first=first))
            for config, environ in zip(configs, environs or [{}] * len(configs), strict=True)
        ]


async def checked(daemon: Daemon, path: str) -> int:
    """What a probe (`/livez`, `/readyz`) of a daemon with `[status]` is told."""
    (port, *_) = [line["port"] for line in daemon.log() if line["event"] == "status.listening"]
    async with httpx2.AsyncClient(timeout=patience(5)) as client:
        return (await client.get(f"http://127.0.0.1:{port}{path}")).status_code


async def until_checked(daemon: Daemon, path: str, status: int) -> None:
    """Wait for that."""
    async with asyncio.timeout(patience(30)):
        while await checked(daemon, path) != status:
            await asyncio.sleep(0.05)


def rows(url: str, statement: str, *values: Any) -> list[tuple[Any, ...]]:
    """What the database says, as the daemons see it; committed at once."""
    with psycopg.connect(url, autocommit=True, options="-csearch_path=reserve_listener") as connection:
        cursor = connection.execute(statement.encode(), values)
        return cursor.fetchall() if cursor.description else []


def holder(url: str) -> int:
    """The process that works the http sink; 0: none does, or there are no tables yet."""
    with suppress(psycopg.errors.UndefinedTable):
        return int((rows(url, HOLDER) or [(0,)])[0][0])
    return 0


@asynccontextmanager
async def two_in_turn(
    folder: Path,
    url: str,
    platform: Simulator,
    receiver_url: str,
    *,
    lark: str = "",
    more: str = "",
    first: str = "",
) -> AsyncIterator[tuple[Daemon, Daemon]]:
    """Two that are connected; the first was alone for a moment, so it leads everything. Configurations in `one` and `two`."""
    configs = [
        configured(folder, name, url, platform, receiver_url, lark=lark, more=more) for name in ("one", "two")
    ]
    async with replicas(configs[:1], first=first) as (one,):
        await platform.connected(30)
        async with replicas(configs[1:], first=first) as (two,):
            await platform.connected(30, count=2)
            yield one, two


def expire(url: str) -> None:
    """As if the time were over after which a dead replica's leases run out."""
    rows(url, "UPDATE leases SET until_ms = 0")
