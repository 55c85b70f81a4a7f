"""What a claim costs: the same, however much waits. Counted in steps of SQLite's machine, which no busy machine changes."""

from __future__ import annotations

import tracemalloc
from collections import defaultdict
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import pytest

from benchmarks import backlog
from reserve_listener.delivery.pending import Pending
from reserve_listener.store.shared import claiming
from reserve_listener.store.sqlite.store import SqliteStore
from tests.helpers import NOW_MS, append, event

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import AsyncIterator
    from pathlib import Path

    from reserve_listener.model import Delivery

STEP = 100
FEW, MANY = 1_000, 200_000


class Steps:
    """Counts what SQLite does on the writer's connection, a hundred steps at a time."""

    def __init__(self) -> None:
        self.count = 0

    def __call__(self) -> int:
        self.count += STEP
        return 0

    def taken(self) -> int:
        """Since the last time."""
        count, self.count = self.count, 0
        return count


@asynccontextmanager
async def opened(path: Path) -> AsyncIterator[tuple[SqliteStore, Steps]]:
    store, steps = SqliteStore(path), Steps()
    await store.open(backlog.SINKS)
    await store._writer.submit(lambda c: c.set_progress_handler(steps, STEP), writes=False)
    steps.taken()
    try:
        yield store, steps
    finally:
        await store.close()


async def carried(
    store: SqliteStore, pending: Pending, events: int, *, sink: str = "a", slots: int = 4
) -> list[Delivery]:
    """So many events, or all there are, claimed and settled as a worker does."""
    done: list[Delivery] = []
    while len(done) < events and (pending.unfinished or pending.ready):
        await backlog.claim(store, sink, pending, slots=slots)
        done += await backlog.settle(store, sink, pending)
    return done


async def execute(store: SqliteStore, statement: str, *values: Any) -> int:
    def work(connection: sqlite3.Connection) -> int:
        return connection.execute(statement, values).rowcount

    return int(await store._writer.submit(work, writes=True))


@pytest.mark.parametrize("scopes", [1, 50, None])
async def test_an_event_costs_the_same_however_many_wait(tmp_path: Path, scopes: int | None) -> None:
    """Steps for a claimed and settled event at 200,000 pending are at most twice those at 1,000, once all was looked at."""
    costs = {}
    for count in (FEW, MANY):
        path = tmp_path / f"{count}.db"
        await backlog.build(path, count, scopes=scopes or count)
        async with opened(path) as (store, steps):
            pending = Pending()
            await carried(store, pending, 1)
            while scopes == 1 and not pending.at_end:  # with more it would be all of them
                await carried(store, pending, 1)
            steps.taken()
            events = await carried(store, pending, 300)
            costs[count] = steps.taken() / len(events)
    assert costs[MANY] <= 2 * costs[FEW] + STEP, costs


async def test_a_claim_looks_at_a_window(tmp_path: Path) -> None:
    """One scope with 200,000 pending: finding the first costs a few steps a row, and each claim then a window's."""
    path = tmp_path / "events.db"
    window = 2 * 18 * claiming.WINDOW_SEQS  # rows of two sinks; three dozen steps for one that is pending
    await backlog.build(path, MANY, scopes=1)
    async with opened(path) as (store, steps):
        pending, claims = Pending(), []
        while not pending.at_end:
            steps.taken()
            await backlog.claim(store, "a", pending, slots=4)
            claims.append(steps.taken())
            await backlog.settle(store, "a", pending)
    assert claims[0] <= 8 * MANY + window
    assert max(claims[1:]) <= window
    assert len(claims) <= MANY / claiming.WINDOW_SEQS + 1


@pytest.mark.parametrize(("count", "claim_bytes"), [(12_000, claiming.CLAIM_BYTES), (2_000, 300)])
async def test_order_within_a_scope_over_a_large_backlog(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, count: int, claim_bytes: int
) -> None:
    """Few scopes, windows that overlap what is behind, claims that large bodies cut short: oldest first, each once."""
    monkeypatch.setattr(claiming, "CLAIM_BYTES", claim_bytes)
    path = tmp_path / "events.db"
    await backlog.build(path, count, scopes=7)
    async with opened(path) as (store, _):
        done = await carried(store, Pending(), count, slots=64)
    by_scope: dict[int, list[int]] = defaultdict(list)
    for one in done:
        by_scope[one.scope].append(one.seq)
    assert sorted(one.seq for one in done) == list(range(1, count + 1))
    assert all(seqs == sorted(seqs) for seqs in by_scope.values())


async def test_one_stuck_delivery_before_many_delivered_ones(tmp_path: Path) -> None:
    """After a restart the way from the stuck one to the newest is walked once, in bounded claims, and then costs nothing."""
    path = tmp_path / "events.db"
    await backlog.build(path, MANY, scopes=50)
    async with opened(path) as (store, steps):
        await execute(store, "UPDATE deliveries SET state = 1 WHERE sink = 1 AND seq > 1")
        await execute(store, "UPDATE deliveries SET due_ms = ? WHERE sink = 1 AND seq = 1", NOW_MS + 60_000)
        pending, claims = Pending(), []
        while not pending.at_end:
            steps.taken()
            await backlog.claim(store, "a", pending, slots=4)
            claims.append(steps.taken())
        assert not pending.ready
        assert len(claims) <= MANY / claiming.WINDOW_SEQS + 1
        assert max(claims) <= 2 * 12 * claiming.WINDOW_SEQS  # rows of two sinks, a dozen steps each
        await append(store, event("new", scope="omm_new"))
        pending.at_end = False
        steps.taken()
        await backlog.claim(store, "a", pending, slots=4)
        assert [one.event_id for one in pending.ready] == ["new"]
        assert steps.taken() <= 10 * STEP


async def test_a_sink_that_is_down_costs_the_others_nothing(tmp_path: Path) -> None:
    """With 10,000 scopes of one sink waiting, another's events cost what they cost without."""
    costs = []
    for waiting in (False, True):
        path = tmp_path / f"{waiting}.db"
        await backlog.build(path, 10_000, scopes=10_000)
        async with opened(path) as (store, steps):
            down = Pending()
            if waiting:
                await execute(store, "UPDATE deliveries SET due_ms = ? WHERE sink = 1", NOW_MS + 60_000)
                while not down.at_end:
                    await backlog.claim(store, "a", down, slots=4)
                assert len(down.skipping) == 10_000
            steps.taken()
            events = await carried(store, Pending(), 300, sink="b")
            costs.append(steps.taken() / len(events))
            if waiting:  # and a new event of the sink that is down is found at no more
                await append(store, event("new", scope="omm_new"))
                down.at_end = False
                steps.taken()
                await backlog.claim(store, "a", down, slots=4)
                assert [one.event_id for one in down.ready] == ["new"]
                assert steps.taken() <= 10 * STEP
    assert costs[1] <= 1.5 * costs[0] + STEP, costs


async def test_the_memory_of_claims_is_bounded(tmp_path: Path) -> None:
    """Claims over 200,000 pending events hold what they hand out and a window's rows at the most, in Python's memory."""
    path = tmp_path / "events.db"
    await backlog.build(path, MANY, scopes=1)
    async with opened(path) as (store, _):
        pending = Pending()
        tracemalloc.start()
        try:
            while not pending.at_end:
                await carried(store, pending, 1)
            _, peak = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
    assert peak < 4 * 2**20


async def test_a_claim_leaves_no_cursor_open(tmp_path: Path) -> None:
    """After a claim that stopped half way the WAL can be emptied: nothing still reads from it."""
    path = tmp_path / "events.db"
    await backlog.build(path, FEW, scopes=FEW)
    async with opened(path) as (store, _):
        await append(store, event("new"))
        found = await store.claim(
            "a", limit=2, per_scope=1, now_ms=NOW_MS, after_seq=None, skipping=frozenset()
        )
        assert len(found.deliveries) == 2

        def checkpoint(connection: sqlite3.Connection) -> tuple[int, int, int]:
            row: tuple[int, int, int] = connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
            return row

        assert await store._writer.submit(checkpoint, writes=False) == (0, 0, 0)
