"""File sinks of replicas: together they have each event once, whoever is stopped, and whoever is killed costs what it was at."""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from typing import TYPE_CHECKING

import pytest

from reserve_listener.simulator import HttpServer, Simulator, sample_event
from tests.conftest import NO_WAITS
from tests.daemon_process import Daemon, until
from tests.postgres import SERVER
from tests.replicas import configured, expire, replicas, rows

if TYPE_CHECKING:
    from pathlib import Path

NAMES = ("one", "two", "three")
HOLDER = """
SELECT r.pid FROM leases AS l JOIN replicas AS r ON r.id = l.holder
WHERE l.name = 'sink:audit' AND l.until_ms > (extract(epoch FROM clock_timestamp()) * 1000)::bigint
"""


@pytest.mark.parametrize("is_shared", [False, True], ids=["a file each", "the same file"])
async def test_replicas_write_each_event_once(tmp_path: Path, server: HttpServer, *, is_shared: bool) -> None:
    """One stops under load and nothing is repeated; the next is killed under load, and at most what it had begun to write is."""
    url = SERVER.database()
    async with Simulator(retry_delays=[0.3] * 100, client_config=dict(NO_WAITS)) as platform:
        configs = [configured(tmp_path, name, url, platform, server.url) for name in NAMES]
        if is_shared:
            for config in configs:
                config.write_text(
                    config.read_text().replace(f"{config.parent}/events.jsonl", f"{tmp_path}/all")
                )
        files = [tmp_path / "all"] if is_shared else [config.parent / "events.jsonl" for config in configs]
        async with replicas(configs) as daemons:
            await platform.connected(30, count=len(NAMES))
            await pushed(platform, "before")
            stopped = await working(url, daemons)
            pushing = asyncio.create_task(pushed(platform, "stopped"))
            assert await stopped.stop() == 0
            await pushing
            await until(lambda: written(url))
            assert set(lines(files).values()) == {1}
            killed = await working(url, daemons)
            pushing = asyncio.create_task(pushed(platform, "killed"))
            await until(lambda: any(one.startswith("killed") for one in lines(files)))
            killed.process.kill()
            await killed.process.wait()
            expire(url)
            await pushing
            await pushed(platform, "after")
            await until(lambda: written(url))
            found = lines(files)
            last = await working(url, daemons)
            assert await last.stop() == 0
    assert {stopped.folder, killed.folder, last.folder} == {config.parent for config in configs}
    assert {one for (one,) in rows(url, "SELECT event_id FROM events")} == set(found)
    repeated = {one for one, times in found.items() if times > 1}
    assert {one.rpartition("-")[0] for one in repeated} <= {"killed"}
    if not is_shared:
        assert repeated <= set(killed.file_ids())
        assert repeated <= set(last.file_ids())
        assert max(found.values()) <= 2


async def pushed(platform: Simulator, when: str) -> None:
    """Forty events, ten at a time, all of them answered."""
    for start in range(0, 40, 10):
        numbers = range(start, start + 10)
        await platform.push_many(
            [sample_event(event_id=f"{when}-{n}", scope_id=f"omm_{n % 3}") for n in numbers]
        )
    await platform.until(lambda: {f"{when}-{n}" for n in range(40)} <= set(platform.acknowledged), 60)


async def working(url: str, daemons: list[Daemon]) -> Daemon:
    """The replica that works the file sink."""
    found: list[Daemon] = []

    def look() -> bool:
        pids = {pid for (pid,) in rows(url, HOLDER)}
        found[:] = [one for one in daemons if one.process.pid in pids]
        return bool(found)

    await until(look)
    return found[0]


def written(url: str) -> bool:
    """Whether the file sinks have got everything."""
    pending = "SELECT 1 FROM deliveries AS d JOIN sinks AS s ON s.id = d.sink WHERE s.name = 'audit' AND d.state = 0"
    return not rows(url, pending)


def lines(files: list[Path]) -> Counter[str]:
    """How often each event is in them; all lines are whole, but for the one that is just being written."""
    found = [line for file in files if file.exists() for line in file.read_bytes().split(b"\n")[:-1]]
    return Counter(json.loads(line)["id"] for line in found)
