"""An hour's worth of reconnects and events in minutes: memory, descriptors and threads stay where they were."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import psutil
import pytest

from reserve_listener.simulator import Faults, HttpServer, Receiver, Simulator, sample_event
from tests.conftest import NO_WAITS
from tests.daemon_process import running, until, write_config

if TYPE_CHECKING:
    from pathlib import Path

MIB = 1024 * 1024


def _descriptors(process: psutil.Process) -> int:
    """How many are open; the daemon lets nobody but root look (PR_SET_DUMPABLE)."""
    return process.num_fds() if os.geteuid() == 0 else 0


@pytest.mark.parametrize(
    ("reconnects", "events_each"), [(40, 10), pytest.param(500, 40, marks=pytest.mark.long)]
)
async def test_reconnects_leak_nothing(tmp_path: Path, reconnects: int, events_each: int) -> None:
    """Hundreds of lost connections, closed and reset in turn, and thousands of events: the process stays as it was."""
    async with Simulator(client_config=NO_WAITS) as platform, HttpServer(Receiver()) as server:
        config = write_config(tmp_path, platform, server.url, lark="liveness_timeout = 600")
        config.write_text(config.read_text().replace("backoff_cap = 0.2", "backoff_cap = 0.06"))
        async with running(tmp_path, config, "--log-level", "error", anew=True) as daemon:
            process = psutil.Process(daemon.process.pid)
            warm = reconnects // 4
            lines = []
            for number in range(reconnects):
                await platform.connected(20)
                await platform.push_many(sample_event(scope_id=f"omm_{n % 50}") for n in range(events_each))
                await platform.drop(abort=bool(number % 2))
                if number >= warm and number % 10 == 0:
                    await platform.connected(20)
                    await until(lambda: daemon.pending() == 0)
                    lines.append((process.memory_info().rss, _descriptors(process), process.num_threads()))
            rss, files, threads = zip(*lines, strict=True)
            print(f"rss MiB {[each // MIB for each in rss]} descriptors {files} threads {threads}")
            assert max(rss) - min(rss) < 12 * MIB
            await platform.connected(20)
            await until(lambda: _descriptors(process) <= min(files) + 3)
            assert len(set(threads)) <= 2  # the pool of 8 may still grow by one
            assert len(platform.acknowledged) == reconnects * events_each
            assert await daemon.stop() == 0


async def test_a_flapping_link_loses_nothing(tmp_path: Path) -> None:
    """A link that drops again and again: what is pushed in between arrives in the end, once."""
    faults = Faults(drop_every=0.3)
    async with (
        Simulator(client_config=NO_WAITS, faults=faults, retry_delays=(0.2,) * 100) as platform,
        HttpServer(Receiver()) as server,
    ):
        config = write_config(tmp_path, platform, server.url)
        async with running(tmp_path, config) as daemon:
            pushed = 0
            while platform.connects < 8:
                await platform.connected(20)
                await platform.push_many(sample_event() for _ in range(5))
                pushed += 5
            platform.faults.drop_every = 0
            await platform.until(lambda: len(platform.acknowledged) == pushed, 20)
            await until(lambda: daemon.pending() == 0)
            assert sorted(daemon.file_ids()) == sorted(platform.acknowledged)
            assert await daemon.stop() == 0
