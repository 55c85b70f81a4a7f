"""Several replicas on one database: who appends, who delivers, and what one that is dead, or thought so, may still do."""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING

import pytest

from reserve_listener import store as stores
from reserve_listener.delivery.retry import RetryPolicy
from reserve_listener.delivery.worker import Worker
from reserve_listener.intake.complete import completing
from reserve_listener.model import EventQuery, Outcome, Verdict
from reserve_listener.store import open_reader, open_store
from reserve_listener.store.postgres.store import PostgresStore
from tests.backends import OnPostgres, made
from tests.bouncer import pooled, pooling
from tests.helpers import NOW_MS, ScriptedSink, append, event, until

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator
    from pathlib import Path

    from reserve_listener.model import IncomingEvent
    from reserve_listener.protocols.store import Store

REPLICAS = 3


@pytest.fixture(scope="module", params=["straight", "pooled"])
def way(request: pytest.FixtureRequest) -> Iterator[Callable[[str], str]]:
    """To the database: straight, or through a pooler that gives each transaction another connection and keeps no LISTEN."""
    if request.param == "straight":
        yield str
        return
    with pooling():
        yield pooled


@pytest.fixture
def backend(tmp_path: Path, way: Callable[[str], str]) -> Iterator[OnPostgres]:
    """A database of its own."""
    for one in made("postgres", tmp_path):
        assert isinstance(one, OnPostgres)
        one.url = way(one.url)
        yield one


@pytest.fixture
async def replicas(backend: OnPostgres) -> AsyncIterator[list[Store]]:
    """Each with its own threads and connections, as in processes of their own."""
    opened = [await open_store(backend.url, ["a"], complete=completing("en")) for _ in range(REPLICAS)]
    yield opened
    for store in opened:
        await store.close()


def inside(store: Store) -> PostgresStore:
    """What only tests know."""
    assert isinstance(store, PostgresStore)
    return store


async def claimed(store: Store) -> list[str]:
    """The ids of what this replica is given."""
    found = await store.claim("a", limit=99, per_scope=99, now_ms=NOW_MS, after_seq=None, skipping=())
    return [one.event_id for one in found.deliveries]


async def taken_over(store: Store) -> None:
    """Until this replica works the sink."""
    await until(lambda: store.holds("a") != 0)


async def stand_still(store: Store) -> None:
    """It beats no more: as if it were frozen. A beat that has begun is over."""
    beating = inside(store)._beating
    assert beating is not None
    beating.cancel()
    await asyncio.wait([beating])
    await inside(store)._keeper.submit(lambda _connection: None, writes=False)


def expire(backend: OnPostgres) -> None:
    """The database's time goes by: every lease has run out."""
    backend.rows("UPDATE leases SET until_ms = 0")


async def test_replicas_append_at_once_and_the_history_is_one(
    backend: OnPostgres, replicas: list[Store]
) -> None:
    """Rooms that all hear of at the same time, and pushes that come twice: revisions have no gap, each body continues the last."""

    async def hear(number: int) -> list[Verdict]:
        store = replicas[number % REPLICAS]
        pushes: list[IncomingEvent] = [
            event(f"e{n}", f"omm_{n % 3}", received_ms=NOW_MS + n) for n in range(number, 120, 7)
        ]
        return [await append(store, push) for push in pushes]

    verdicts = await asyncio.gather(*(hear(number % 7) for number in range(14)))
    assert sum(one is Verdict.DUPLICATE for some in verdicts for one in some) == 120
    with open_reader(backend.url) as reader:
        for scope in ("omm_0", "omm_1", "omm_2"):
            entries = [one for one in reader.history(scope) if one.revision is not None][::-1]
            assert [one.revision for one in entries] == [*range(1, len(entries) + 1)]
            assert [one.changes is None for one in entries] == [True, *[False] * (len(entries) - 1)]
            assert [one.created_ms for one in entries] == sorted(one.created_ms or 0 for one in entries)
        assert len(reader.events(limit=500)) == 120


async def test_nothing_comes_in_before_what_was_seen(backend: OnPostgres, replicas: list[Store]) -> None:
    """A reader that follows while three replicas append misses nothing: numbers come in the order of the commits."""
    seen: list[str] = []

    def follow() -> None:
        after = 0
        with open_reader(backend.url) as reader:
            while len(seen) < 150:
                for one in reader.events_after(after, EventQuery(), limit=20):
                    seen.append(one.event_id)
                    after = one.seq

    following = asyncio.create_task(asyncio.to_thread(follow))
    await asyncio.gather(
        *(append(replicas[n % REPLICAS], event(f"e{n}", f"omm_{n % 11}")) for n in range(150))
    )
    await following
    assert sorted(seen) == sorted(f"e{n}" for n in range(150))


async def test_one_replica_works_a_sink_until_it_stops(replicas: list[Store]) -> None:
    """Only the first is given deliveries; when it stops, another goes on at once."""
    first, *others = replicas
    for one in ("e1", "e2"):
        await append(others[0], event(one))
    assert [bool(store.holds("a")) for store in replicas] == [True, False, False]
    assert await claimed(first) == ["e1", "e2"]
    assert [await claimed(store) for store in others] == [[], []]
    await first.close()
    await until(lambda: any(store.holds("a") for store in others))
    found = [await claimed(store) for store in others]
    assert sorted(found) == [[], ["e1", "e2"]]


async def test_a_stale_owner_settles_nothing(backend: OnPostgres, replicas: list[Store]) -> None:
    """One whose lease another has taken still believes in it: it is given nothing, and its outcome is not written."""
    first, second, third = replicas
    await append(first, event("e1"))
    await stand_still(first)
    await stand_still(third)  # else it might be the one that takes over
    expire(backend)
    inside(second)._beat_now.set()
    await taken_over(second)
    assert first.holds("a") != 0
    assert await claimed(first) == []
    await first.settle("a", [Outcome(seq=1, state="delivered", attempts=1)])
    assert backend.rows("SELECT state, attempts FROM deliveries") == [(0, 0)]
    await second.settle("a", [Outcome(seq=1, state="delivered", attempts=1)])
    assert backend.rows("SELECT state, attempts FROM deliveries") == [(1, 1)]


async def test_a_worker_that_was_frozen_starts_nothing(replicas: list[Store]) -> None:
    """What it had claimed and not begun is let go when the lease has run out while it did not run."""
    first = replicas[0]
    for n in range(4):
        await append(first, event(f"e{n}", f"omm_{n}"))
    held, now_ms = asyncio.Event(), inside(first).member.running_ms()

    async def hold(_: object) -> None:
        held.set()
        inside(first).member.running_ms = lambda: now_ms + 60_000  # it wakes a minute later
        inside(first)._beating.cancel()  # type: ignore[union-attr]

    sink = ScriptedSink("a", script=hold)
    worker = Worker(sink, first, policy=RetryPolicy(), now_ms=lambda: NOW_MS)
    running = asyncio.create_task(worker.run())
    await held.wait()
    await until(lambda: not worker._attempts and not worker._unsettled)
    assert sink.attempts == [("e0",)]
    running.cancel()
    await asyncio.wait([running])


async def test_others_hear_of_what_a_command_does(backend: OnPostgres, replicas: list[Store]) -> None:
    """A sink that a command disables is given nothing by any replica; enabled, all look anew."""
    first = replicas[0]
    await append(first, event("e1"))
    door = stores.backend(backend.url)
    assert door.disable_sink("a", "by hand")
    assert await claimed(first) == []
    looked: list[None] = []
    first.on_requeue = lambda: looked.append(None)
    assert door.enable_sink("a")
    await until(lambda: bool(looked))
    assert await claimed(first) == ["e1"]


async def test_what_a_command_retries_is_delivered(backend: OnPostgres, replicas: list[Store]) -> None:
    """A dead letter that is pending again, or a replay, is looked for by the replica that had done with it."""
    first = replicas[0]
    await append(first, event("e1"))
    await first.settle("a", [Outcome(seq=1, state="dead", attempts=1, error="no")])
    await until(lambda: inside(first)._seen.newest)
    looked = asyncio.Event()
    first.on_requeue = looked.set
    assert stores.backend(backend.url).operate("retry", EventQuery(), None) == 1
    async with asyncio.timeout(20):
        await looked.wait()
    assert await claimed(first) == ["e1"]


async def test_the_pause_of_a_sink_counts_for_all(backend: OnPostgres, replicas: list[Store]) -> None:
    """Enabled by another, the time between is left out of the age that the worker of the sink is told."""
    first = replicas[0]
    await append(first, event("e1"))
    door = stores.backend(backend.url)
    door.disable_sink("a", "by hand")
    backend.rows(f"UPDATE sinks SET disabled_ms = {NOW_MS + 1_000}")
    door.enable_sink("a")
    (pause,) = backend.rows("SELECT to_ms - from_ms FROM pauses")
    found = await first.claim("a", limit=9, per_scope=9, now_ms=NOW_MS, after_seq=None, skipping=())
    assert [one.received_ms for one in found.deliveries] == [NOW_MS + pause[0]]


async def test_status_tells_of_all_replicas(backend: OnPostgres, replicas: list[Store]) -> None:
    """Each with what it leads; one that has stopped is gone."""
    found = (await replicas[1].insight("app", gaps_since_ms=0)).replicas
    assert {one.id for one in found} == {inside(store).member.id for store in replicas}
    leads = {one.id: one.leads for one in found}
    assert leads[inside(replicas[0]).member.id] == ["alerts", "reconcile", "retention", "sink:a"]
    assert leads[inside(replicas[1]).member.id] == []
    await replicas[2].close()
    with open_reader(backend.url) as reader:
        assert len(reader.insight(gaps_since_ms=0).replicas) == REPLICAS - 1


async def test_a_batch_wakes_the_others(replicas: list[Store]) -> None:
    """Deliveries that one replica adds are looked for by the one that works the sink, without waiting for a beat."""
    woken = asyncio.Event()
    replicas[0].on_commit = woken.set
    await until(lambda: inside(replicas[0])._listening is not None)
    await append(replicas[1], event("e1"))
    async with asyncio.timeout(20):
        await woken.wait()


async def test_a_sink_that_only_another_has_stays(backend: OnPostgres, replicas: list[Store]) -> None:
    """A replica that starts without it removes nothing: its deliveries wait for who has it."""
    await append(replicas[0], event("e1"))
    other = await open_store(backend.url, ["b"])
    await other.close()
    assert backend.rows("SELECT state FROM deliveries") == [(0,)]
    assert json.loads(json.dumps(backend.rows("SELECT name FROM sinks WHERE configured ORDER BY name"))) == [
        ["a"],
        ["b"],
    ]


async def test_what_is_done_by_one_of_all_is_done_by_one(replicas: list[Store]) -> None:
    """Reconciling and retention have one replica each, and another when that is gone."""
    assert [await store.may_reconcile() for store in replicas] == [True, False, False]
    await append(replicas[0], event("e1"))
    await replicas[0].settle("a", [Outcome(seq=1, state="delivered", attempts=1)])
    late = NOW_MS + 10**9
    assert (await replicas[1].prune(0, late, strip=False)).events == 0
    assert (await replicas[0].prune(0, late, strip=False)).events == 1
    await replicas[0].close()
    for _ in range(400):
        if any([await store.may_reconcile() for store in replicas[1:]]):
            return
        await asyncio.sleep(0.05)
    pytest.fail("nobody reconciles")
