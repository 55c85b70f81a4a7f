"""What is measured: each function is one row, or a few, of the table in docs/performance.md."""

from __future__ import annotations

import asyncio
import sqlite3
import statistics
import subprocess
import sys
import time
from contextlib import asynccontextmanager, closing
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Final

import organisation
from clients import BLIND, FILES, NODE, OURS, PEERS, PYTHON, UNDISTURBED, started

from reserve_listener.simulator import Answer, Estate, HttpServer, Receiver, Simulator
from reserve_listener.store import open_store

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence

    import psutil
    from clients import Started

CLIENTS: Final = (OURS, NODE, PYTHON, BLIND)
IN_FLIGHT: Final = (1, 64, 512)
DEADLINE_S: Final = 3.0
"""An answer later than that is too late: the platform pushes the event again."""

Figures = dict[str, float]

EMPTY_TYPER: Final = "import typer; app = typer.Typer(); app.command()(lambda: None); app()"

HTTP: Final = """
[[sinks]]
name = "hook"
type = "http"
url = "{url}"
max_in_flight = {in_flight}
"""

FILL: Final = """
WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < :count)
INSERT INTO events (tenant_key, event_id, scope, created_ms, received_ms, raw, body)
SELECT 't1', lower(hex(randomblob(16))), 1 + i % 10000, :now_ms, :now_ms, zeroblob(40), zeroblob(40) FROM n
"""
FILL_SCOPES: Final = """
WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 10000)
INSERT INTO scopes (tenant_key, scope_type, scope_id) SELECT 't1', 'room', 'old_' || i FROM n
"""
FILL_DELIVERIES: Final = """
INSERT INTO deliveries (seq, sink, scope, state, attempts, settled_ms)
SELECT e.seq, k.id, e.scope, 1, 1, :now_ms FROM events AS e JOIN sinks AS k ORDER BY 1, 2
"""


@asynccontextmanager
async def steady(
    client: str, rooms: int, cores: set[int], node: Path | None = None
) -> AsyncIterator[tuple[Simulator, Started]]:
    """A client and a platform with so many rooms, all of which ours knows."""
    async with organisation.platform(rooms) as platform:
        prepare = partial(organisation.make_known, platform=platform) if client == OURS else None
        async with started(
            client, platform, cores, node=node, sinks=FILES + UNDISTURBED, prepare=prepare
        ) as running:
            yield platform, running


async def start(client: str, cores: set[int], node: Path | None) -> Figures:
    """How long it takes to connect for the first time, and the memory it takes once it is at rest."""
    async with Simulator() as platform, started(client, platform, cores, node=node) as running:
        await asyncio.sleep(5)
        return {"ready_s": running.ready_s, "idle_mib": running.process.memory_info().rss / 2**20}


async def answers(client: str, events: int, cores: set[int], node: Path | None) -> Figures:
    """One client: its answers a second, and a burst."""
    async with steady(client, events, cores, node) as (platform, running):
        figures: Figures = {}
        before = min(events, 500)
        await push(platform, before, 64)  # warm
        for in_flight in IN_FLIGHT:
            if client == OURS:  # each begins at rest: what one leaves behind is no part of the next
                await _written(running.folder, before)
            count = events if in_flight > 1 else max(events // 10, 20)
            figures[f"per_s_{in_flight}"], elapsed = await push(platform, count, in_flight)
            before += count
            if in_flight == 1:
                figures["p50_ms_1"] = statistics.median(elapsed) * 1000
        if client == OURS:
            await _written(running.folder, before)
        begun = time.perf_counter()
        _, elapsed = await push(platform, events, events)
        last = max(elapsed)
        figures["burst_s"] = last
        figures["burst_late"] = float(sum(each > DEADLINE_S for each in elapsed))
        if client == OURS:
            await _written(running.folder, before + events)
            figures["burst_file_s"] = time.perf_counter() - begun
            figures["burst_file_ratio"] = figures["burst_file_s"] / last
            figures["commit_ms"] = await asyncio.to_thread(commit_p50_ms, running.folder)
        return figures


async def sustained(client: str, events: int, cores: set[int], node: Path | None) -> Figures:
    """Ten times as many events, one portion after another: what is put off behind the answers comes due while they go on."""
    async with steady(client, events, cores, node) as (platform, running):
        await push(platform, min(events, 500), 64)  # warm
        before = _lines(running.folder)
        begun = time.perf_counter()
        for _ in range(10):
            await push(platform, events, 512)
        last = time.perf_counter()
        figures = {"sustained_per_s": 10 * events / (last - begun)}
        if client == OURS:
            await _written(running.folder, before + 10 * events)
            figures["sustained_file_s"] = time.perf_counter() - last
            figures["sustained_mib"] = running.process.memory_info().rss / 2**20
        return figures


async def _written(folder: Path, lines: int) -> None:
    """Until the file sink has written so many."""
    found = 0
    with (folder / "events.jsonl").open("rb") as file:
        async with asyncio.timeout(120):
            while (found := found + file.read().count(b"\n")) < lines:  # noqa: ASYNC110  # another process sets no event
                await asyncio.sleep(0.01)


async def push(
    platform: Simulator, count: int, in_flight: int, room_ids: Sequence[str] | None = None
) -> tuple[float, list[float]]:
    """Events a second, and how long each answer took. Of the platform's rooms, or of these."""
    room_ids = room_ids or [room.id for room in platform.estate.rooms]
    envelopes = list(organisation.changes(room_ids, count))
    begun = time.perf_counter()
    pushes = await platform.push_many(envelopes, in_flight=in_flight, retry=False)
    took = time.perf_counter() - begun
    codes = {each.code for each in pushes}
    assert codes == {200}, codes
    return count / took, [each.attempts[-1].elapsed for each in pushes]


def _lines(folder: Path) -> int:
    path = folder / "events.jsonl"
    return path.read_bytes().count(b"\n") if path.exists() else 0


def commit_p50_ms(folder: Path, commits: int = 300) -> float:
    """What one commit costs on this disk: a row, WAL, synchronous=FULL, and nothing else."""
    took = []
    with closing(sqlite3.connect(folder / "bare.db", isolation_level=None)) as connection:
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = FULL")
        connection.execute("CREATE TABLE rows (body BLOB)")
        for _ in range(commits):
            begun = time.perf_counter()
            connection.execute("BEGIN IMMEDIATE")
            connection.execute("INSERT INTO rows VALUES (?)", (b"x" * 1500,))
            connection.execute("COMMIT")
            took.append(time.perf_counter() - begun)
    return statistics.median(took) * 1000


async def idle_cpu(seconds: float, cores: set[int]) -> Figures:
    """Of one core, in percent, while connected and nothing happens."""
    few = Estate(rooms=1, depth=1)  # all are compared at once, and nothing is left to be done
    async with Simulator(estate=few) as platform, started(OURS, platform, cores) as running:
        await asyncio.sleep(min(seconds, 5))  # what the start leaves to be done
        before = _cpu_s(running.process)
        await asyncio.sleep(seconds)
        return {"idle_cpu_percent": (_cpu_s(running.process) - before) / seconds * 100}


def _cpu_s(process: psutil.Process) -> float:
    # As the kernel counts it in nanoseconds; user and system time come in ticks of 10 ms.
    total = 0
    for task in Path(f"/proc/{process.pid}/task").iterdir():
        total += int((task / "schedstat").read_text().split()[0])
    return total / 1e9


async def http_sink(events: int, cores: set[int], in_flight: int = 16) -> Figures:
    """Deliveries a second to a receiver that takes 20 ms, against a bare loop that posts as many at a time."""
    receiver = Receiver(Answer(delay=0.02))
    async with HttpServer(receiver) as server, organisation.platform(events) as platform:
        sinks = HTTP.replace("{url}", f"{server.url}/").replace("{in_flight}", str(in_flight))
        known = partial(organisation.make_known, platform=platform)
        async with started(OURS, platform, cores, sinks=sinks + UNDISTURBED, prepare=known):
            begun = time.perf_counter()
            await push(platform, events, 512)
            await receiver.wait_for(events, timeout=120)
            ours = events / (time.perf_counter() - begun)
        bare = await asyncio.create_subprocess_exec(
            *(sys.executable, str(PEERS / "post.py"), f"{server.url}/", str(in_flight), str(events)),
            stdout=subprocess.PIPE,
        )
        output, _ = await bare.communicate()
    return {"http_per_s": ours, "http_bare_per_s": float(output), "http_bound_per_s": in_flight / 0.02}


async def filled_store(held: int, events: int, cores: set[int]) -> Figures:
    """Events a second at 64 in flight with an empty store, and with one that holds so many."""

    async def rate(fill_with: int) -> float:
        async with organisation.platform(events) as platform:

            async def prepare(folder: Path) -> None:
                await organisation.make_known(folder, platform)
                if fill_with:
                    await asyncio.to_thread(fill, folder / "events.db", fill_with)

            async with started(OURS, platform, cores, sinks=FILES + UNDISTURBED, prepare=prepare):
                await push(platform, min(events, 500), 64)
                return statistics.median([(await push(platform, events, 64))[0] for _ in range(3)])

    return {"per_s_empty": await rate(0), "per_s_filled": await rate(held)}


async def first_sight(events: int, cores: set[int]) -> Figures:
    """Answers by a daemon that has never heard of the rooms, and by one that compares each event with what it knows."""
    figures: Figures = {}
    for name, known in (("first", False), ("known", True)):
        async with organisation.platform(events) as platform:
            prepare = partial(organisation.make_known, platform=platform) if known else None
            unasked = UNDISTURBED + "names = false\n"
            async with started(OURS, platform, cores, sinks=FILES + unasked, prepare=prepare):
                _, elapsed = await push(platform, max(events // 10, 20), 1)
                figures[f"p50_ms_{name}"] = statistics.median(elapsed) * 1000
    return figures


def fill(path: Path, count: int) -> None:
    """Add so many events to this store, all delivered."""

    async def made() -> None:
        store = await open_store(f"sqlite:///{path}", ["console", "audit"])
        await store.close()

    asyncio.run(made())
    values = {"count": count, "now_ms": time.time_ns() // 1_000_000}
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute("PRAGMA synchronous = OFF")
        connection.execute("BEGIN")
        connection.execute(FILL_SCOPES)
        connection.execute(FILL, values)
        connection.execute(FILL_DELIVERIES, values)
        connection.execute("COMMIT")


async def memory(events: int, cores: set[int]) -> Figures:
    """Memory after a tenth of so many events, and after all of them."""
    portion = min(events // 10, 10_000)
    async with steady(OURS, portion, cores) as (platform, running):
        sizes: dict[int, float] = {}
        for number in range(portion, events + 1, portion):
            await push(platform, portion, 512)
            sizes[number] = running.process.memory_info().rss / 2**20
        return {"memory_mib_before": sizes[events // 10], "memory_mib_after": sizes[events]}


def help_s(runs: int) -> Figures:
    """`--help`, and an empty Typer app, in turn."""
    commands = {
        "help_s": [sys.executable, "-m", "reserve_listener", "--help"],
        "help_typer_s": [sys.executable, "-c", EMPTY_TYPER, "--help"],
    }
    took: dict[str, list[float]] = {name: [] for name in commands}
    for _ in range(runs):
        for name, arguments in commands.items():
            begun = time.perf_counter()
            subprocess.run(arguments, check=True, stdout=subprocess.DEVNULL)
            took[name].append(time.perf_counter() - begun)
    return {name: statistics.median(each) for name, each in took.items()}
