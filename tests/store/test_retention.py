"""Retention: what may go goes, what may not stays, and a store at its bound says so and recovers."""

from __future__ import annotations

import asyncio
import sqlite3
from typing import TYPE_CHECKING, Any

import pytest
import structlog

from reserve_listener.errors import StoreError
from reserve_listener.intake.complete import completing
from reserve_listener.model import EventQuery, Outcome, Verdict
from reserve_listener.store import retention
from reserve_listener.store.retention import Retention
from reserve_listener.store.sqlite import schema
from reserve_listener.store.sqlite.reader import SqliteReader
from reserve_listener.store.sqlite.store import SqliteStore
from tests.helpers import NOW_MS, Clock, push as append, small_event, stored, unreadable_event, until

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from reserve_listener.model import IncomingEvent

DAY_MS = 24 * 3600 * 1000
MIB = 1024 * 1024


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "events.db"


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
async def store(path: Path, clock: Clock) -> AsyncIterator[SqliteStore]:
    store = SqliteStore(path, now_ms=clock, max_bytes=4 * MIB)
    await store.open(["a"])
    yield store
    await store.close()


async def no_sleep(_: float) -> None:
    await asyncio.sleep(0)


def keeper(store: SqliteStore, clock: Clock, *, days: int = 30) -> Retention:
    return Retention(
        store, keep_ms=days * DAY_MS, now_ms=clock, clock=lambda: clock.now_ms / 1000, sleep=no_sleep
    )


async def fill(
    store: SqliteStore, count: int, *, size: int = 1_000, name: str = "e", at_ms: int = NOW_MS
) -> list[Verdict]:
    return await asyncio.gather(
        *(append(store, small_event(f"{name}{n}", size=size, received_ms=at_ms)) for n in range(count))
    )


async def fill_up(store: SqliteStore) -> int:
    """Up to the bound; how many fitted, of 10,000 bytes each."""
    count = 0
    while True:
        try:
            await append(store, small_event(f"e{count}", size=10_000))
        except StoreError:
            return count
        count += 1


async def settle(store: SqliteStore, seqs: range, state: str = "delivered") -> None:
    await store.settle("a", [Outcome(seq=seq, state=state, attempts=1) for seq in seqs])


async def query(store: SqliteStore, statement: str) -> list[Any]:
    def work(connection: sqlite3.Connection) -> list[Any]:
        return connection.execute(statement).fetchall()

    rows: list[Any] = await store._writer.submit(work, writes=False)
    return rows


async def seqs(store: SqliteStore) -> list[int]:
    return [seq for (seq,) in await query(store, "SELECT seq FROM events ORDER BY seq")]


async def test_only_what_is_old_and_delivered_goes(store: SqliteStore, clock: Clock) -> None:
    """Over several chunks: delivered and unreadable ones of the past go, pending, dead and young ones stay."""
    await fill(store, 2_500, size=10)
    await settle(store, range(1, 2_401))
    await settle(store, range(2_401, 2_451), "dead")
    await append(store, unreadable_event())
    clock.advance(31 * 24 * 3600)
    await fill(store, 10, name="young", at_ms=clock.now_ms)
    await settle(store, range(2_502, 2_512))
    await keeper(store, clock).tidy()
    assert await seqs(store) == [*range(2_401, 2_501), *range(2_502, 2_512)]
    assert await append(store, small_event("young1")) is Verdict.DUPLICATE
    assert await query(store, "PRAGMA foreign_key_check") == []


async def test_old_ones_behind_a_chunk_that_must_stay(store: SqliteStore, clock: Clock) -> None:
    """Whole chunks of old dead letters do not end the search for what may go."""
    await fill(store, 3_000, size=10)
    await settle(store, range(1, 2_501), "dead")
    await settle(store, range(2_501, 3_001))
    clock.advance(31 * 24 * 3600)
    await keeper(store, clock).tidy()
    assert await seqs(store) == list(range(1, 2_501))


async def test_at_the_bound_the_oldest_lose_their_content_and_stay_known(
    store: SqliteStore, path: Path, clock: Clock
) -> None:
    """Young delivered events are stripped, oldest first, down to the mark: known, delivered to nobody, not listed."""
    await fill(store, 3_300)
    await settle(store, range(1, 3_001))
    await settle(store, range(3_001, 3_101), "dead")
    before = await store.measure()
    assert before > retention.DROP_AT * 4 * MIB
    with structlog.testing.capture_logs() as logs:
        await keeper(store, clock).tidy()
    after = await store.measure()
    assert 0.5 * 4 * MIB < after <= retention.DROP_TO * 4 * MIB
    assert [one["event"] for one in logs] == ["store.pruned_early", "store.filling"]
    stripped = [seq for (seq,) in await query(store, "SELECT seq FROM events WHERE raw IS NULL ORDER BY seq")]
    assert stripped
    assert stripped == list(range(1, len(stripped) + 1))
    assert await append(store, small_event("e0", size=1_000)) is Verdict.DUPLICATE
    assert await query(store, "SELECT count(*) FROM events") == [(3_300,)]
    assert await query(store, "SELECT state, count(*) FROM deliveries WHERE seq > 3000 GROUP BY state") == [
        (0, 200),
        (2, 100),
    ]
    assert await query(store, "SELECT count(*) FROM deliveries WHERE seq = 1") == [(0,)]
    assert await store.operate("replay", EventQuery(event_id="e0")) == 0
    listed = {one.event_id for one in stored(path)}
    assert "e0" not in listed
    assert len(listed) == 3_300 - len(stripped)


async def test_keys_outlive_their_content_by_48_hours(store: SqliteStore, clock: Clock) -> None:
    """At the bound what is older than 48 h goes altogether, and not a key that is younger."""
    await fill(store, 1_400, name="old")
    await settle(store, range(1, 1_401))
    clock.advance(48 * 3600 + 1)
    await fill(store, 1_400, name="young", at_ms=clock.now_ms - 2 * DAY_MS)
    await settle(store, range(1_401, 2_801))
    await keeper(store, clock).tidy()
    left = await seqs(store)
    assert left[0] == 1_001  # one chunk was enough
    assert left[-1400:] == list(range(1_401, 2_801))
    for turn in range(4):
        await fill(store, 300, name=f"more{turn}-", at_ms=clock.now_ms)
        await settle(store, range(2_801, 4_001))
        await keeper(store, clock).tidy()
    assert (await seqs(store))[0] == 1_401
    assert await append(store, small_event("young0")) is Verdict.DUPLICATE
    assert await append(store, small_event("old0")) is Verdict.STORED


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


async def test_unreadable_pushes_count(store: SqliteStore) -> None:
    """A flood of pushes that nobody can read is seen to fill the store, too."""
    refused = 0
    for n in range(2_000):
        try:
            await append(store, unreadable_event(b"%d" % n * 500))
        except StoreError:
            refused += 1
    assert refused > 100
    assert store.grown.is_set()
    assert await store.measure() < 1.5 * 4 * MIB


async def test_a_filling_store_is_warned_of_once_an_hour(store: SqliteStore, clock: Clock) -> None:
    """`store.filling` comes at once, again after an hour, and anew after the store was small again."""
    await fill(store, 2_800)
    keeping = keeper(store, clock)
    with structlog.testing.capture_logs() as logs:
        for _ in range(7):
            await keeping.tidy()
            clock.advance(600)
        assert [one["event"] for one in logs] == ["store.filling"] * 2
        logs.clear()
        await settle(store, range(1, 2_801))
        clock.advance(40 * 24 * 3600)
        await keeping.tidy()
        await fill(store, 2_800, name="more", at_ms=clock.now_ms)
        await keeping.tidy()
    assert [one["event"] for one in logs] == ["store.pruned", "store.filling"]


async def test_a_store_that_fails_is_tidied_later(store: SqliteStore, clock: Clock) -> None:
    """An error of the medium is logged and the task lives."""
    failed: list[None] = []

    def fail(*_: Any, **__: Any) -> Any:
        failed.append(None)
        raise StoreError("no")

    keeping = keeper(store, clock)
    store.prune = fail  # type: ignore[method-assign]
    with structlog.testing.capture_logs() as logs:
        task = asyncio.create_task(keeping.run())
        await until(lambda: failed)
        store.grown.set()
        await until(lambda: len(failed) == 2)
    assert not task.done()
    assert [one["event"] for one in logs] == ["store.not_tidied"] * 2
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
    with SqliteReader(path) as reader:
        assert reader.events(limit=5) == []


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


def told(number: int, *, at_ms: int = NOW_MS, note: str = "") -> IncomingEvent:
    """An event that the history has a row of."""
    body = b'{"data":{"scope_id":"omm_a","time_config":{"max_duration":%d},"note":"%b"}}'
    return small_event(f"t{number}", received_ms=at_ms, created_ms=None, body=body % (number, note.encode()))


async def test_history_outlives_events_and_goes_in_its_turn(path: Path, clock: Clock) -> None:
    """Kept for its own time, never less than events; the state of a room stays, and revisions go on."""
    store = SqliteStore(path, now_ms=clock, complete=completing("en"))
    await store.open([])
    for number in range(3):
        await append(store, told(number))
    clock.advance(31 * 24 * 3600)
    await append(store, told(3, at_ms=clock.now_ms))
    retention = Retention(store, keep_ms=30 * DAY_MS, history_ms=DAY_MS, now_ms=clock, sleep=no_sleep)
    longer = Retention(store, keep_ms=30 * DAY_MS, history_ms=400 * DAY_MS, now_ms=clock, sleep=no_sleep)
    forever = Retention(store, keep_ms=30 * DAY_MS, now_ms=clock, sleep=no_sleep)
    for keeper_, left in ((forever, [1, 2, 3, 4]), (longer, [1, 2, 3, 4]), (retention, [4])):
        await keeper_.tidy()
        assert await seqs(store) == [4]
        assert await query(store, "SELECT seq FROM history ORDER BY seq") == [(seq,) for seq in left]
    assert await query(store, "SELECT revision FROM states") == [(4,)]
    await append(store, told(4, at_ms=clock.now_ms))
    assert await query(store, "SELECT revision FROM history ORDER BY seq") == [(4,), (5,)]
    await store.close()


async def test_at_the_bound_the_oldest_history_goes_after_the_events(path: Path, clock: Clock) -> None:
    """When no event can be dropped any more, room is made of history, and pushes are taken."""
    store = SqliteStore(path, now_ms=clock, max_bytes=4 * MIB, complete=completing("en"))
    await store.open([])
    for number in range(120):
        await append(store, told(number, at_ms=clock.now_ms - 4 * DAY_MS, note="x" * 5_000))
    with structlog.testing.capture_logs() as logs:
        await keeper(store, clock, days=2).tidy()
    assert await seqs(store) == []
    assert await query(store, "SELECT count(*) FROM history") == [(120,)]
    number = 120
    while not logs or logs[-1]["event"] != "store.history_pruned_early":
        await append(store, told(number, at_ms=clock.now_ms - 4 * DAY_MS, note="x" * 5_000))
        number += 1
        with structlog.testing.capture_logs() as logs:
            await keeper(store, clock, days=2).tidy()
        logs = [one for one in logs if one["event"] != "store.filling"]
        assert not store.full
    assert await store.measure() <= retention.DROP_TO * 4 * MIB
    rows = await query(store, "SELECT seq FROM history ORDER BY seq")
    assert rows == [(seq,) for seq in range(rows[0][0], number + 1)]
    assert 1 < rows[0][0] < number
    assert await query(store, "SELECT revision FROM states") == [(number,)]
    await store.close()


async def test_nothing_is_dropped_before_the_history_is_made_of_it(path: Path, clock: Clock) -> None:
    """An older store's events are looked at first."""
    store = SqliteStore(path, now_ms=clock, complete=completing("en"))
    await store.open([])
    await append(store, told(1))
    clock.advance(31 * 24 * 3600)
    store._unbuilt = True
    await keeper(store, clock).tidy()
    assert await seqs(store) == [1]
    store._unbuilt = False
    await keeper(store, clock).tidy()
    assert await seqs(store) == []
    await store.close()
