"""Retention and the files: the bound to the byte, pages that are used again, a log that is given back, a store half rebuilt."""

from __future__ import annotations

import asyncio
import sqlite3
from typing import TYPE_CHECKING, Any

import pytest

from reserve_listener.errors import StoreError
from reserve_listener.intake.complete import completing
from reserve_listener.model import MIB, Verdict
from reserve_listener.store import retention
from reserve_listener.store.sqlite import schema
from reserve_listener.store.sqlite.store import SqliteStore
from tests.helpers import Clock, push as append, small_event, stored, until
from tests.store.test_retention import fill, fill_up, keeper, settle, told

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path


@pytest.fixture
async def store(path: Path, clock: Clock) -> AsyncIterator[SqliteStore]:
    store = SqliteStore(path, now_ms=clock, max_bytes=4 * MIB)
    await store.open(["a"])
    yield store
    await store.close()


async def query(store: SqliteStore, statement: str) -> list[Any]:
    """By the connection that writes."""
    rows: list[Any] = await store._writer.submit(lambda c: c.execute(statement).fetchall(), writes=False)
    return rows


async def test_beyond_the_bound_pushes_are_refused_until_there_is_room(
    store: SqliteStore, clock: Clock
) -> None:
    """With nothing that may go, `receive` and `problem` say what to do; delivered or dropped rows make room again."""
    count = await fill_up(store)
    with pytest.raises(StoreError, match=r"store\.max_size_mb"):
        await append(store, small_event("too much", size=20_000))
    store._grow(20_000)
    assert "reached store.max_size_mb" in (store.problem or "")
    await keeper(store, clock).tidy()
    assert await query(store, "SELECT count(*) FROM deliveries WHERE state = 0") == [(count,)]
    await settle(store, range(1, count // 2))
    await keeper(store, clock).tidy()
    assert store.problem is None
    assert await append(store, small_event("room", size=10_000)) is Verdict.STORED
    assert await append(store, small_event("e0", size=10_000)) is Verdict.DUPLICATE


async def test_while_pushes_are_refused_it_looks_more_often(
    store: SqliteStore, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A sink that is mended makes room, and the store takes pushes soon and not only after the next full round."""
    monkeypatch.setattr(retention, "FULL_ROUND_S", 0.02)
    count = await fill_up(store)
    store._grow(20_000)
    assert store.full
    task = asyncio.create_task(keeper(store, clock).run())
    try:
        await until(lambda: not store.grown.is_set())
        store._grow(200_000)
        await settle(store, range(1, count))
        await until(lambda: not store.full)
        assert await append(store, small_event("room")) is Verdict.STORED
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


@pytest.mark.slow
async def test_the_wal_stays_small_and_pages_are_used_again(path: Path, clock: Clock) -> None:
    """50,000 events that come, are delivered and pruned leave a file of one round's size and a WAL within its limit."""
    store = SqliteStore(path, now_ms=clock)
    await store.open(["a"])
    keeping = keeper(store, clock, days=2)
    sizes, wal, first = [], 0, 1
    for turn in range(10):
        await fill(store, 5_000, size=200, name=f"t{turn}-", at_ms=clock.now_ms)
        await settle(store, range(first, first + 5_000))
        first += 5_000
        wal = max(wal, path.with_name("events.db-wal").stat().st_size)
        clock.advance(3 * 24 * 3600)
        await keeping.tidy()
        sizes.append((await query(store, "PRAGMA page_count"))[0][0])
    assert await query(store, "SELECT count(*) FROM events") == [(0,)]
    assert max(sizes) <= 1.2 * sizes[0]
    assert wal <= schema.WAL_LIMIT_BYTES + 4 * MIB
    await store.close()
    assert stored(path) == []


async def test_the_log_counts_and_is_given_back_when_room_is_short(store: SqliteStore, path: Path) -> None:
    """A reader that stands still makes the log grow: it counts for the bound and for `status`; without one it is emptied."""
    log = path.with_name("events.db-wal")
    reader = sqlite3.connect(path, isolation_level=None)
    reader.execute("BEGIN")
    reader.execute("SELECT count(*) FROM events").fetchone()
    try:
        for number in range(60):
            await fill(store, 5, size=2_000, name=f"r{number}-")
        log_bytes = log.stat().st_size
        assert log_bytes > 2 * MIB
        assert await store.measure() > log_bytes
        assert (await store.insight("cli_1", gaps_since_ms=0)).size_bytes == store._size_bytes
    finally:
        reader.close()
    assert await store.measure() < 2 * MIB
    assert log.stat().st_size == 0
    assert await append(store, small_event("after")) is Verdict.STORED


async def test_nothing_is_dropped_before_the_history_is_made_of_it(path: Path, clock: Clock) -> None:
    """An older store's events are looked at first."""
    store = SqliteStore(path, now_ms=clock, complete=completing("en"))
    await store.open([])
    await append(store, told(1))
    clock.advance(31 * 24 * 3600)
    store._unbuilt = True
    await keeper(store, clock).tidy()
    assert await query(store, "SELECT seq FROM events") == [(1,)]
    store._unbuilt = False
    await keeper(store, clock).tidy()
    assert await query(store, "SELECT seq FROM events") == []
    await store.close()
