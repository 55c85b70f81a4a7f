"""What replicas on one PostgreSQL do: events a second and CPU time an event, beside SQLite and beside bare inserts.

Daemons, database and platform share the machine's cores: on two of them more replicas cannot do more than one, and the table
says who used how much. The database flushes to the disk, as SQLite does. Run it with `python benchmarks/replicas.py`; `--quick`
is the short form that CI runs to see that it works.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import statistics
import sys
import tempfile
import time
from collections import Counter
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import msgspec
import organisation
import psutil
import psycopg
from clients import FILES, LARK, UNASKED
from rows import push

from reserve_listener.intake import fast_path
from reserve_listener.intake.complete import completing
from reserve_listener.intake.directory import Directory
from reserve_listener.simulator import Estate
from reserve_listener.simulator.postgres import PostgresServer, embedded, installed
from reserve_listener.store import open_store

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence

    from reserve_listener.model import IncomingEvent
    from reserve_listener.protocols.store import Store
    from reserve_listener.simulator import Simulator

REPLICAS: Final = (1, 2, 4)
ROOMS: Final = 1_000
BATCH: Final = 64
"""Events that are stored together in the comparison with bare inserts."""
STORED: Final = 1_000_000
DURABLE: Final = ("max_connections=200", "shared_buffers=256MB")
LOOK_S: Final = 0.02
SINKS: Final = ("console", "audit")

STORE: Final = """
[store]
url = "{store}"
"""

TABLES: Final = {
    "events": "seq, tenant_key, event_id, scope, created_ms, received_ms, raw, body",
    "deliveries": "seq, sink, scope",
    "history": "seq, scope, event_id, created_ms, received_ms, revision, changes, config, summary, origin",
}

FILL: Final = (
    "INSERT INTO scopes (tenant_key, scope_type, scope_id) SELECT 'old', 'room', 'old_' || i FROM generate_series(1, 10000) AS i",
    (
        "INSERT INTO events (seq, tenant_key, event_id, scope, created_ms, received_ms, raw, body) SELECT nextval('events_seq'),"
        " 'old', md5(i::text), 1 + i % 10000, 1, {now}, decode(repeat('7b7d', 200), 'hex'), decode(repeat('7b7d', 200), 'hex')"
        " FROM generate_series(1, {count}) AS i"
    ),
    (
        "INSERT INTO deliveries (seq, sink, scope, state, attempts, settled_ms) SELECT e.seq, k.id, e.scope, 1, 1, {now}"
        " FROM events AS e CROSS JOIN sinks AS k"
    ),
    (
        "INSERT INTO history (seq, scope, event_id, created_ms, received_ms, revision, config, summary)"
        " SELECT seq, scope, event_id, 1, {now}, 1, '{{}}', 'none' FROM events"
    ),
)

WAITS: Final = """
SELECT coalesce(wait_event_type || ' ' || wait_event, 'works') FROM pg_stat_activity
WHERE state = 'active' AND pid <> pg_backend_pid()
"""


class Cpu(NamedTuple):
    """Seconds of CPU time."""

    daemons: float
    database: float
    platform: float

    @classmethod
    def now(cls, daemons: Sequence[psutil.Process], database: int) -> Cpu:
        """So far."""
        server = psutil.Process(database) if database else None
        backends = [server, *server.children()] if server else []
        return cls(_cpu_s(daemons), _cpu_s(backends), time.process_time())


def _cpu_s(processes: Sequence[psutil.Process]) -> float:
    total = 0.0
    for process in processes:
        try:
            used = process.cpu_times()
        except psutil.NoSuchProcess:
            continue
        total += used.user + used.system
    return total


class Databases:
    """Empty ones of one server."""

    def __init__(self, server: PostgresServer) -> None:
        self.server = server
        self._made = 0

    def new(self) -> str:
        """The URL of one."""
        self._made += 1
        name = f"bench{self._made}"
        with psycopg.connect(self.server.url(), autocommit=True) as connection:
            connection.execute(f"CREATE DATABASE {name}".encode())
        return self.server.url(name)


class Running(NamedTuple):
    """Connected daemons, and where each has its file."""

    processes: list[psutil.Process]
    folders: list[Path]

    def written(self) -> int:
        """Lines in all their files: each event is in one of them."""
        files = [folder / "events.jsonl" for folder in self.folders]
        return sum(file.read_bytes().count(b"\n") for file in files if file.exists())


@asynccontextmanager
async def daemons(count: int, platform: Simulator, store: str) -> AsyncIterator[Running]:
    """So many, connected. `store`: its URL, maybe with a place for a folder."""
    async with AsyncExitStack() as stack:
        running = Running([], [])
        for _ in range(count):
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory(dir=os.environ.get("BENCH_DIR"))))
            values = {"app_id": platform.app_id, "app_secret": platform.app_secret, "domain": platform.domain}
            text = LARK + STORE + UNASKED + FILES
            config = text.format(**values, store=store.format(folder=folder), folder=folder)
            (folder / "config.toml").write_text(config)
            running.folders.append(folder)
            running.processes.append(psutil.Process(await _start(folder, stack)))
        await platform.connected(60, count=count)
        yield running


async def _start(folder: Path, stack: AsyncExitStack) -> int:
    command = [sys.executable, "-m", "reserve_listener", "run", "-c", str(folder / "config.toml")]
    out = stack.enter_context((folder / "out").open("wb"))
    process = await asyncio.create_subprocess_exec(*command, stdout=out, stderr=out)

    async def stop() -> None:
        process.terminate()
        await process.wait()

    stack.push_async_callback(stop)
    return process.pid


async def at_work(count: int, events: int, in_flight: int, databases: Databases | None) -> dict[str, Any]:
    """Daemons that hear and deliver; without databases one on SQLite."""
    url = databases.new() if databases else "sqlite:///{folder}/events.db"
    server = databases.server.pid if databases else 0
    async with organisation.platform(ROOMS) as platform, daemons(count, platform, url) as running:
        await push(platform, 2 * ROOMS, 64)  # warm: every room is known
        await _until_written(running, 2 * ROOMS)
        seen: Counter[str] = Counter()
        watching = asyncio.create_task(_watch(url, seen)) if databases else None
        before, begun = Cpu.now(running.processes, server), time.perf_counter()
        per_s, times = await push(platform, events, in_flight)
        await _until_written(running, 2 * ROOMS + events)
        took, after = time.perf_counter() - begun, Cpu.now(running.processes, server)
        if watching is not None:
            watching.cancel()
            await asyncio.wait([watching])
    used = zip(Cpu._fields, before, after, strict=True)
    return {
        "store": "PostgreSQL" if databases else "SQLite",
        "replicas": count,
        "in_flight": in_flight,
        "answered_per_s": round(per_s),
        "p50_ms": round(statistics.median(times) * 1000, 1),
        "delivered_per_s": round(events / took),
        "cpu_us_an_event": {name: round((after - before) / events * 1e6) for name, before, after in used},
        "backends_wait_for": _shares(seen),
    }


async def _until_written(running: Running, lines: int) -> None:
    async with asyncio.timeout(300):
        while running.written() < lines:  # noqa: ASYNC110  # another process sets no event
            await asyncio.sleep(0.05)


async def _watch(url: str, seen: Counter[str]) -> None:
    """What the backends are seen at, again and again."""
    async with await psycopg.AsyncConnection.connect(url, autocommit=True) as connection:
        while True:
            cursor = await connection.execute(WAITS)
            seen.update(what for (what,) in await cursor.fetchall())
            await asyncio.sleep(LOOK_S)


def _shares(seen: Counter[str]) -> dict[str, str]:
    total = sum(seen.values())
    return {what: f"{count / total:.0%}" for what, count in seen.most_common(5)}


# -- the way into the store, against bare inserts ------------------------------------------------------------------------------


async def stored(store: Store, events: Sequence[IncomingEvent]) -> tuple[float, float]:
    """Events a second, and microseconds of this process's CPU time for each; a batch after the other."""
    begun, cpu = time.perf_counter(), time.process_time()
    for place in range(0, len(events), BATCH):
        await store.project(events[place : place + BATCH])
    return len(events) / (time.perf_counter() - begun), (time.process_time() - cpu) / len(events) * 1e6


def bare(made: str, url: str) -> tuple[float, float]:
    """The same of a loop that puts the rows of one store into another one: all known beforehand, a pipeline and a commit a batch."""
    with psycopg.connect(made) as source, psycopg.connect(url) as target:
        rows = {
            table: source.execute(
                f"SELECT {columns} FROM reserve_listener.{table} WHERE seq > 0 ORDER BY seq".encode()
            ).fetchall()
            for table, columns in TABLES.items()
        }
        copied = source.execute("SELECT * FROM reserve_listener.scopes").fetchall()
        target.cursor().executemany(
            "INSERT INTO reserve_listener.scopes OVERRIDING SYSTEM VALUE VALUES (%s, %s, %s, %s)", copied
        )
        target.commit()
        statements = {table: _insert(table, columns).encode() for table, columns in TABLES.items()}
        events = len(rows["events"])
        begun, cpu = time.perf_counter(), time.process_time()
        for place in range(0, events, BATCH):
            with target.transaction(), target.pipeline(), target.cursor() as cursor:
                for table, found in rows.items():
                    each = len(found) // events
                    cursor.executemany(statements[table], found[place * each : (place + BATCH) * each])
        return events / (time.perf_counter() - begun), (time.process_time() - cpu) / events * 1e6


def _insert(table: str, columns: str) -> str:
    marks = ", ".join(["%s"] * (columns.count(",") + 1))
    return f"INSERT INTO reserve_listener.{table} ({columns}) VALUES ({marks})"


async def opened(url: str) -> Store:
    """A store that compares and tells as a daemon's does."""
    directory = Directory()
    return await open_store(url, SINKS, complete=completing("en", directory), directory=directory)


def incoming(count: int) -> list[IncomingEvent]:
    """So many events."""
    rooms = [room.id for room in Estate(rooms=ROOMS, depth=3).rooms]
    now_ms = time.time_ns() // 1_000_000
    read = (
        fast_path.read(msgspec.json.encode(push), received_ms=now_ms)
        for push in organisation.changes(rooms, count)
    )
    return [event for event in read if event is not None]


def fill(url: str, count: int) -> None:
    """A closed store gets a past."""
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("SET search_path = reserve_listener")
        for statement in FILL:
            connection.execute(statement.format(count=count, now=time.time_ns() // 1_000_000).encode())
        connection.execute("VACUUM ANALYZE")


async def into_the_store(events: int, held: int, databases: Databases) -> dict[str, Any]:
    """Alone, with one batch at a time: empty, against bare inserts, and with so many events stored before."""
    found: dict[str, Any] = {"events": events, "batch": BATCH, "held": held}
    urls = {"empty": databases.new(), "bare": databases.new(), "held": databases.new()}
    for url in urls.values():
        await (await opened(url)).close()
    await asyncio.to_thread(fill, urls["held"], held)
    for name in ("empty", "held"):
        store = await opened(urls[name])
        await stored(store, incoming(ROOMS))  # warm
        per_s, cpu_us = await stored(store, incoming(events))
        await store.close()
        found[name] = {"per_s": round(per_s), "cpu_us": round(cpu_us)}
    per_s, cpu_us = await asyncio.to_thread(bare, urls["empty"], urls["bare"])
    found["bare"] = {"per_s": round(per_s), "cpu_us": round(cpu_us)}
    found["of_bare"] = round(found["empty"]["per_s"] / per_s, 2)
    found["held_of_empty"] = round(found["held"]["per_s"] / found["empty"]["per_s"], 2)
    return found


async def main() -> None:
    """Print each as a line of JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="few of everything, to see that it works")
    quick = parser.parse_args().quick
    programs = installed() or embedded()
    if programs is None:
        print(
            "the replicas' benchmark is left out: it needs PostgreSQL (apt install postgresql)",
            file=sys.stderr,
        )
        return
    events, held = (300, 2_000) if quick else (20_000, STORED)
    server = PostgresServer(
        programs, options=DURABLE, within=Path(os.environ.get("BENCH_DIR") or tempfile.gettempdir())
    )
    try:
        await asyncio.to_thread(server.start)
        databases = Databases(server)
        print(json_line({"store": await into_the_store(events, held, databases)}))
        for in_flight in (64,) if quick else (64, 512):
            print(json_line(await at_work(1, events, in_flight, None)))
            for count in (1, 2) if quick else REPLICAS:
                print(json_line(await at_work(count, events, in_flight, databases)))
    finally:
        server.stop()


def json_line(found: dict[str, Any]) -> str:
    """For programs and for people."""
    return msgspec.json.encode(found).decode()


if __name__ == "__main__":
    asyncio.run(main())
