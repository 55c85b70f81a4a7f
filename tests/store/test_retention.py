"""Retention: what may go goes, what may not stays, and a store at its bound says so and recovers."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest
import structlog

from reserve_listener.errors import StoreError
from reserve_listener.intake.complete import completing
from reserve_listener.model import MIB, EventQuery, Outcome, Verdict
from reserve_listener.store import retention
from reserve_listener.store.retention import Retention
from tests.helpers import NOW_MS, Clock, push as append, small_event, unreadable_event, until

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from reserve_listener.model import IncomingEvent
    from reserve_listener.protocols.store import Store
    from tests.backends import Backend

DAY_MS = 24 * 3600 * 1000


@pytest.fixture
async def store(backend: Backend, clock: Clock) -> AsyncIterator[Store]:
    store = await backend.open("a", now_ms=clock, max_bytes=4 * MIB)
    yield store
    await store.close()


async def no_sleep(_: float) -> None:
    await asyncio.sleep(0)


def keeper(store: Store, clock: Clock, *, days: int = 30) -> Retention:
    return Retention(
        store, keep_ms=days * DAY_MS, now_ms=clock, clock=lambda: clock.now_ms / 1000, sleep=no_sleep
    )


async def fill(
    store: Store, count: int, *, size: int = 1_000, name: str = "e", at_ms: int = NOW_MS
) -> list[Verdict]:
    return await asyncio.gather(
        *(append(store, small_event(f"{name}{n}", size=size, received_ms=at_ms)) for n in range(count))
    )


async def fill_up(store: Store) -> int:
    """Up to the bound; how many fitted, of 10,000 bytes each."""
    count = 0
    while True:
        try:
            await append(store, small_event(f"e{count}", size=10_000))
        except StoreError:
            return count
        count += 1


async def settle(store: Store, seqs: range, state: str = "delivered") -> None:
    await store.settle("a", [Outcome(seq=seq, state=state, attempts=1) for seq in seqs])


def seqs(backend: Backend) -> list[int]:
    return [seq for (seq,) in backend.rows("SELECT seq FROM events ORDER BY seq")]


async def test_only_what_is_old_and_delivered_goes(backend: Backend, store: Store, clock: Clock) -> None:
    """Over several chunks: delivered and unreadable ones of the past go, pending, dead and young ones stay."""
    await fill(store, 2_500, size=10)
    await settle(store, range(1, 2_401))
    await settle(store, range(2_401, 2_451), "dead")
    await append(store, unreadable_event())
    clock.advance(31 * 24 * 3600)
    await fill(store, 10, name="young", at_ms=clock.now_ms)
    await settle(store, range(2_502, 2_512))
    await keeper(store, clock).tidy()
    assert seqs(backend) == [*range(2_401, 2_501), *range(2_502, 2_512)]
    assert await append(store, small_event("young1")) is Verdict.DUPLICATE
    backend.require_sound()


async def test_old_ones_behind_a_chunk_that_must_stay(backend: Backend, store: Store, clock: Clock) -> None:
    """Whole chunks of old dead letters do not end the search for what may go."""
    await fill(store, 3_000, size=10)
    await settle(store, range(1, 2_501), "dead")
    await settle(store, range(2_501, 3_001))
    clock.advance(31 * 24 * 3600)
    await keeper(store, clock).tidy()
    assert seqs(backend) == list(range(1, 2_501))


async def test_at_the_bound_the_oldest_lose_their_content_and_stay_known(
    backend: Backend, store: Store, clock: Clock
) -> None:
    """Young delivered events are stripped, oldest first, down to the mark: known, delivered to nobody, not listed."""
    if backend.shared:
        pytest.skip("how large it may become is the server's business")
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
    stripped = [seq for (seq,) in backend.rows("SELECT seq FROM events WHERE raw IS NULL ORDER BY seq")]
    assert stripped
    assert stripped == list(range(1, len(stripped) + 1))
    assert await append(store, small_event("e0", size=1_000)) is Verdict.DUPLICATE
    assert backend.rows("SELECT count(*) FROM events") == [(3_300,)]
    assert backend.rows("SELECT state, count(*) FROM deliveries WHERE seq > 3000 GROUP BY state") == [
        (0, 200),
        (2, 100),
    ]
    assert backend.rows("SELECT count(*) FROM deliveries WHERE seq = 1") == [(0,)]
    assert await store.operate("replay", EventQuery(event_id="e0")) == 0
    listed = {one.event_id for one in backend.stored()}
    assert "e0" not in listed
    assert len(listed) == 3_300 - len(stripped)


async def test_keys_outlive_their_content_by_48_hours(backend: Backend, store: Store, clock: Clock) -> None:
    """At the bound what is older than 48 h goes altogether, and not a key that is younger."""
    if backend.shared:
        pytest.skip("how large it may become is the server's business")
    await fill(store, 1_400, name="old")
    await settle(store, range(1, 1_401))
    clock.advance(48 * 3600 + 1)
    await fill(store, 1_400, name="young", at_ms=clock.now_ms - 2 * DAY_MS)
    await settle(store, range(1_401, 2_801))
    await keeper(store, clock).tidy()
    left = seqs(backend)
    assert left[0] == 1_001  # one chunk was enough
    assert left[-1400:] == list(range(1_401, 2_801))
    for turn in range(4):
        await fill(store, 300, name=f"more{turn}-", at_ms=clock.now_ms)
        await settle(store, range(2_801, 4_001))
        await keeper(store, clock).tidy()
    assert seqs(backend)[0] == 1_401
    assert await append(store, small_event("young0")) is Verdict.DUPLICATE
    assert await append(store, small_event("old0")) is Verdict.STORED


async def test_unreadable_pushes_count(backend: Backend, store: Store) -> None:
    """A flood of pushes that nobody can read is seen to fill the store, too."""
    if backend.shared:
        pytest.skip("how large it may become is the server's business")
    refused = 0
    for n in range(2_000):
        try:
            await append(store, unreadable_event(b"%d" % n * 500))
        except StoreError:
            refused += 1
    assert refused > 100
    assert store.grown.is_set()
    assert await store.measure() < 1.5 * 4 * MIB


async def test_a_filling_store_is_warned_of_once_an_hour(
    backend: Backend, store: Store, clock: Clock
) -> None:
    """`store.filling` comes at once, again after an hour, and anew after the store was small again."""
    if backend.shared:
        pytest.skip("how large it may become is the server's business")
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


async def test_a_store_that_fails_is_tidied_later(store: Store, clock: Clock) -> None:
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


def told(number: int, *, at_ms: int = NOW_MS, note: str = "") -> IncomingEvent:
    """An event that the history has a row of."""
    body = b'{"data":{"scope_id":"omm_a","time_config":{"max_duration":%d},"note":"%b"}}'
    return small_event(f"t{number}", received_ms=at_ms, created_ms=None, body=body % (number, note.encode()))


async def test_history_outlives_events_and_goes_in_its_turn(backend: Backend, clock: Clock) -> None:
    """Kept for its own time, never less than events; the state of a room stays, and revisions go on."""
    store = await backend.open(now_ms=clock, complete=completing("en"))
    for number in range(3):
        await append(store, told(number))
    clock.advance(31 * 24 * 3600)
    await append(store, told(3, at_ms=clock.now_ms))
    retention = Retention(store, keep_ms=30 * DAY_MS, history_ms=DAY_MS, now_ms=clock, sleep=no_sleep)
    longer = Retention(store, keep_ms=30 * DAY_MS, history_ms=400 * DAY_MS, now_ms=clock, sleep=no_sleep)
    forever = Retention(store, keep_ms=30 * DAY_MS, now_ms=clock, sleep=no_sleep)
    for keeper_, left in ((forever, [1, 2, 3, 4]), (longer, [1, 2, 3, 4]), (retention, [4])):
        await keeper_.tidy()
        assert seqs(backend) == [4]
        assert backend.rows("SELECT seq FROM history ORDER BY seq") == [(seq,) for seq in left]
    assert backend.rows("SELECT revision FROM states") == [(4,)]
    await append(store, told(4, at_ms=clock.now_ms))
    assert backend.rows("SELECT revision FROM history ORDER BY seq") == [(4,), (5,)]
    await store.close()


async def test_at_the_bound_the_oldest_history_goes_after_the_events(backend: Backend, clock: Clock) -> None:
    """When no event can be dropped any more, room is made of history, and pushes are taken."""
    if backend.shared:
        pytest.skip("how large it may become is the server's business")
    store = await backend.open(now_ms=clock, max_bytes=4 * MIB, complete=completing("en"))
    for number in range(120):
        await append(store, told(number, at_ms=clock.now_ms - 4 * DAY_MS, note="x" * 5_000))
    with structlog.testing.capture_logs() as logs:
        await keeper(store, clock, days=2).tidy()
    assert seqs(backend) == []
    assert backend.rows("SELECT count(*) FROM history") == [(120,)]
    number = 120
    while not logs or logs[-1]["event"] != "store.history_pruned_early":
        await append(store, told(number, at_ms=clock.now_ms - 4 * DAY_MS, note="x" * 5_000))
        number += 1
        with structlog.testing.capture_logs() as logs:
            await keeper(store, clock, days=2).tidy()
        logs = [one for one in logs if one["event"] != "store.filling"]
        assert not store.full
    assert await store.measure() <= retention.DROP_TO * 4 * MIB
    rows = backend.rows("SELECT seq FROM history ORDER BY seq")
    assert rows == [(seq,) for seq in range(rows[0][0], number + 1)]
    assert 1 < rows[0][0] < number
    assert backend.rows("SELECT revision FROM states") == [(number,)]
    await store.close()
