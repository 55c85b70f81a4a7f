"""What an event costs (claim and settle, in the writer's thread) while few or many wait: it should not matter how many.

Run it with `python benchmarks/backlog.py`; `--quick` is the short form that CI runs to see that it works.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import sqlite3
import tempfile
import time
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Final

import psutil

from reserve_listener.delivery.pending import Pending
from reserve_listener.model import Outcome
from reserve_listener.store import open_store

if TYPE_CHECKING:
    from reserve_listener.model import Delivery
    from reserve_listener.protocols.store import StoreQueue

NOW_MS: Final = 1_790_000_000_000
SINKS: Final = ("a", "b")

EVENTS: Final = """
WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < :count)
INSERT INTO events (tenant_key, event_id, scope, created_ms, received_ms, raw, body)
SELECT 't1', 'e' || i, 1 + i % :scopes, :now_ms, :now_ms, zeroblob(:size), zeroblob(:size) FROM n
"""

SCOPES: Final = """
WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < :scopes)
INSERT INTO scopes (tenant_key, scope_type, scope_id) SELECT 't1', 'room', 'omm_' || i FROM n
"""

DELIVERIES: Final = """
INSERT INTO deliveries (seq, sink, scope) SELECT e.seq, k.id, e.scope FROM events AS e JOIN sinks AS k ORDER BY 1, 2
"""


async def build(path: Path, count: int, *, scopes: int, size: int = 40) -> None:
    """A store in which `count` events wait for both sinks, spread over so many scopes."""
    store = await open_store(f"sqlite:///{path}", SINKS)
    await store.close()
    values = {"count": count, "scopes": scopes, "now_ms": NOW_MS, "size": size}
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute("PRAGMA synchronous = OFF")
        connection.execute("BEGIN")
        connection.execute(SCOPES, values)
        connection.execute(EVENTS, values)
        connection.execute(DELIVERIES)
        connection.execute("COMMIT")


async def claim(store: StoreQueue, sink: str, pending: Pending, *, slots: int, per_scope: int = 1) -> None:
    """As a worker does: first scopes whose turn it is again, then what is new."""
    limit = 4 * slots
    pending.mature(NOW_MS)
    if scopes := list(pending.claimable(limit)):
        found = await store.claim_scopes(sink, scopes, limit=limit, per_scope=per_scope, now_ms=NOW_MS)
        pending.take(found, asked=scopes)
    if slots <= len(pending.ready) or pending.at_end:
        return
    found = await store.claim(
        sink,
        limit=limit,
        per_scope=per_scope,
        now_ms=NOW_MS,
        after_seq=pending.cursor,
        skipping=pending.skipping,
    )
    pending.cursor, pending.at_end = found.seen_seq, found.at_end
    pending.take(found)


async def settle(store: StoreQueue, sink: str, pending: Pending) -> list[Delivery]:
    """All that is in hand was delivered."""
    done = list(pending.ready)
    pending.ready.clear()
    if done:
        await store.settle(sink, [Outcome.delivered(one) for one in done])
        pending.settled(one.seq for one in done)
    return done


async def measure(folder: Path, count: int, *, scopes: int, slots: int, events: int) -> tuple[float, float]:
    """Microseconds an event, and how many MiB the process grew meanwhile."""
    path = folder / f"{count}-{scopes}-{slots}.db"
    await build(path, count, scopes=scopes, size=700)
    with path.open("rb") as file:
        os.fsync(file)
    store = await open_store(f"sqlite:///{path}", SINKS)
    process = psutil.Process()
    before = process.memory_info().rss
    pending, done = Pending(), 0
    begun = time.perf_counter()
    while done < events:
        await claim(store, "a", pending, slots=slots)
        done += len(await settle(store, "a", pending))
    took = time.perf_counter() - begun
    grown = process.memory_info().rss - before
    await store.close()
    path.unlink()
    return took / done * 1e6, grown / 2**20


async def main(*, quick: bool) -> None:
    """Print the table."""
    counts = (100, 1_000) if quick else (1_000, 10_000, 200_000)
    print(f"{'pending':>10} {'scopes':>10} {'slots':>6} {'us/event':>10} {'grown MiB':>10}")
    with tempfile.TemporaryDirectory() as folder:
        for slots in (1, 16):
            for spread in (1, 100, None):
                for count in counts:
                    scopes = count if spread is None else spread
                    events = min(count, 100 if quick else 1_000)
                    cost, grown = await measure(
                        Path(folder), count, scopes=scopes, slots=slots, events=events
                    )
                    print(f"{count:10} {scopes:10} {slots:6} {cost:10.0f} {grown:10.1f}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="few events: only to see that it works")
    asyncio.run(main(quick=parser.parse_args().quick))
