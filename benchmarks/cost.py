"""What an event costs in CPU time, by thread, and the least that could be had by other means.

The floors are the parts that nothing can be left out of, each alone and bare: frames, payload and answer; a commit of what came
at once; and SQLite given the same rows by the same statements, all known beforehand. Nothing is decided, compared or delivered
there. Run it with `python benchmarks/cost.py`; `--quick` is the short form that CI runs to see that it works.
"""

from __future__ import annotations

import argparse
import asyncio
import sqlite3
import statistics
import tempfile
import time
from collections import Counter, deque
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import msgspec
import organisation
from clients import OURS, pin
from rows import push, steady

from reserve_listener.intake import fast_path
from reserve_listener.lark import frames
from reserve_listener.model import IncomingEvent, Verdict
from reserve_listener.simulator import Estate
from reserve_listener.store import open_store
from reserve_listener.store.shared import history, sql
from reserve_listener.store.shared.rows import insert
from reserve_listener.transports.long_connection.frame_handler import FrameHandler

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

EVENTS: Final = 10_000
ROUNDS: Final = 5
AT_ONCE: Final = 2_048
"""Events in one projection under load."""
IN_A_COMMIT: Final = 11
"""Events that share a commit of the inbox with 64 in flight."""

Costs = dict[str, float]


async def by_thread(events: int, in_flight: int, cores: set[int]) -> Costs:
    """Microseconds for each event of a daemon at work, until all is delivered."""
    async with steady(OURS, events, cores) as (platform, running):
        await push(platform, min(events, 500), 64)
        await asyncio.sleep(1)
        before = _cpu_us(running.process.pid)
        await push(platform, events, in_flight)
        await asyncio.sleep(2)
        after = _cpu_us(running.process.pid)
        # The threads have no names for the kernel: they are known by the order of their beginning.
        return {
            f"thread {place}": (after[thread] - before[thread]) / events
            for place, thread in enumerate(sorted(before))
            if after[thread] - before[thread] > events / 2
        }


def _cpu_us(pid: int) -> Counter[int]:
    tasks = Path(f"/proc/{pid}/task").iterdir()
    return Counter(
        {int(task.name): int((task / "schedstat").read_text().split()[0]) // 1000 for task in tasks}
    )


def timed(work: Callable[[], object], events: int) -> float:
    """Microseconds of CPU time for each of so many events."""
    begun = time.thread_time()
    work()
    return (time.thread_time() - begun) * 1e6 / events


def frames_floor(payloads: Sequence[bytes]) -> float:
    """A frame read, its payload read by its types, the answer written; no socket, no store."""
    messages = [
        frames.encode(
            frames.new(
                service=1,
                method=frames.DATA,
                headers={
                    "type": "event",
                    "message_id": f"m-{number}",
                    "sum": "1",
                    "seq": "0",
                    "trace_id": "t",
                },
                payload=payload,
            )
        )
        for number, payload in enumerate(payloads)
    ]
    sent: list[bytes] = []

    def accept(raw: bytes, answer: Callable[[Verdict], None]) -> None:
        fast_path.read(raw, received_ms=1)
        answer(Verdict.STORED)

    handler = FrameHandler(accept, sent.append, lambda _config: None)
    return timed(lambda: deque(map(handler.handle, messages), maxlen=0), len(messages))


def inbox_floor(events: Sequence[IncomingEvent], folder: Path) -> float:
    """A row for each few events, on the disk before the next."""
    encode = msgspec.msgpack.Encoder().encode
    with closing(sqlite3.connect(folder / "inbox.db", isolation_level=None)) as connection:
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = FULL")
        connection.execute("CREATE TABLE batches (number INTEGER PRIMARY KEY, events BLOB)")

        def work() -> None:
            for place in range(0, len(events), IN_A_COMMIT):
                connection.execute("BEGIN IMMEDIATE")
                batch = encode(events[place : place + IN_A_COMMIT])
                connection.execute("INSERT INTO batches (events) VALUES (?)", (batch,))
                connection.execute("COMMIT")

        return timed(work, len(events))


async def store_floor(events: Sequence[IncomingEvent], folder: Path) -> float:
    """The rows that a store has made of the events, put into another one; and settled, as two sinks do."""
    for name in ("made.db", "bare.db"):
        store = await open_store(f"sqlite:///{folder}/{name}", ["console", "audit"])
        if name == "made.db":
            await store.project(events)
        await store.close()
    with closing(sqlite3.connect(folder / "made.db")) as made:
        tables = {
            statement: made.execute(f"SELECT {_columns(statement)} FROM {table} ORDER BY 1").fetchall()
            for statement, table in (
                (sql.APPEND_EVENTS, "events"),
                (sql.ADD_DELIVERIES, "deliveries"),
                (history.KEEP_STATES, "states"),
                (history.ADD_HISTORY, "history"),
            )
        }
        scopes = made.execute("SELECT * FROM scopes").fetchall()
    with closing(sqlite3.connect(folder / "bare.db", isolation_level=None)) as connection:
        connection.execute("PRAGMA synchronous = FULL")
        connection.execute("PRAGMA cache_size = -16384")
        connection.executemany("INSERT INTO scopes VALUES (?, ?, ?, ?)", scopes)
        return timed(lambda: _put_in(connection, tables, len(events)), len(events))


def _columns(statement: str) -> str:
    return statement.partition("(")[2].partition(")")[0]


def _put_in(connection: sqlite3.Connection, tables: dict[str, list[Any]], events: int) -> None:
    for place in range(0, events, AT_ONCE):
        connection.execute("BEGIN IMMEDIATE")
        for statement, rows in tables.items():
            each = len(rows) // events
            insert(connection, statement, rows[place * each : (place + AT_ONCE) * each])
        connection.execute("COMMIT")
        seqs = [row[0] for row in tables[sql.APPEND_EVENTS][place : place + AT_ONCE]]
        connection.execute("BEGIN IMMEDIATE")
        for sink in (1, 2):
            connection.execute(sql.SETTLE_DELIVERED, (1, 1, msgspec.json.encode(seqs).decode(), sink))
        connection.execute("COMMIT")


async def floors(count: int) -> Costs:
    """Each by itself."""
    rooms = [room.id for room in Estate(rooms=count, depth=3).rooms]
    payloads = [msgspec.json.encode(push) for push in organisation.changes(rooms, count)]
    events = [event for raw in payloads if (event := fast_path.read(raw, received_ms=1)) is not None]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        return {
            "frame, payload and answer": frames_floor(payloads),
            "inbox, a bare commit for some": inbox_floor(events, folder),
            "store, bare rows": await store_floor(events, folder),
        }


async def main() -> None:
    """Print the medians."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true")
    quick = parser.parse_args().quick
    events, rounds = (300, 1) if quick else (EVENTS, ROUNDS)
    _, cores = pin()
    found: dict[str, list[float]] = {}
    for _ in range(rounds):
        costs = await floors(events)
        for in_flight in (64,) if quick else (64, 512):
            threads = await by_thread(events, in_flight, cores)
            costs |= {f"{in_flight} in flight, {name}": cost for name, cost in threads.items()}
        for name, cost in costs.items():
            found.setdefault(name, []).append(cost)
    for name, each in found.items():
        print(f"{name:>34} {statistics.median(each):6.1f} µs ({min(each):.1f} to {max(each):.1f})")


if __name__ == "__main__":
    asyncio.run(main())
