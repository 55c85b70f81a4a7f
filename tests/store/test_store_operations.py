"""What people do to many rows: all that match and nothing else, in chunks, with pushes answered between."""

from __future__ import annotations

import asyncio
from contextlib import nullcontext
from functools import partial
from typing import TYPE_CHECKING

import pytest

from reserve_listener import store as stores
from reserve_listener.errors import StoreError, StoreInUseError
from reserve_listener.model import EventQuery, Outcome, SinkFilter, Verdict
from tests.helpers import NOW_MS, Clock, append, event, small_event

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from reserve_listener.protocols.store import Store
    from tests.backends import Backend

HOUR_MS = 3_600_000


@pytest.fixture
async def store(backend: Backend, clock: Clock) -> AsyncIterator[Store]:
    store = await backend.open("a", "b", now_ms=clock)
    yield store
    await store.close()


async def fill(store: Store, count: int, *, scopes: int = 10) -> None:
    """Events e0, e1 and so on, a second apart, in turn for omm_0, omm_1 and so on."""
    verdicts = await asyncio.gather(
        *(
            append(store, small_event(f"e{n}", f"omm_{n % scopes}", received_ms=NOW_MS + n * 1000))
            for n in range(count)
        )
    )
    assert set(verdicts) == {Verdict.STORED}


async def kill(store: Store, sink: str, count: int) -> None:
    outcomes = [Outcome(seq=seq, state="dead", attempts=3, error="no") for seq in range(1, count + 1)]
    await store.settle(sink, outcomes)


def by_state(backend: Backend, sink: str) -> dict[int, int]:
    """How many deliveries of a sink are in each state."""
    whose = f"JOIN sinks AS k ON k.id = d.sink WHERE k.name = '{sink}'"
    return dict(backend.rows(f"SELECT d.state, count(*) FROM deliveries AS d {whose} GROUP BY d.state"))


async def counted_requeues(store: Store) -> list[None]:
    calls: list[None] = []
    store.on_requeue = lambda: calls.append(None)
    return calls


@pytest.mark.parametrize(("operation", "after"), [("retry", {0: 2_500}), ("drop", {})])
async def test_more_than_a_chunk_of_dead_letters(
    backend: Backend, store: Store, operation: str, after: dict[int, int]
) -> None:
    """All of 2,500 dead letters are retried or dropped, counted once, and nothing of the other sink is touched."""
    await fill(store, 2_500)
    await kill(store, "a", 2_500)
    await kill(store, "b", 1_000)
    backend.leave_others_alone(store)
    requeues = await counted_requeues(store)
    assert await store.operate(operation, EventQuery(sink="a")) == 2_500
    assert (by_state(backend, "a"), by_state(backend, "b")) == (after, {0: 1_500, 2: 1_000})
    assert requeues == [None]
    assert await store.operate(operation, EventQuery(sink="a")) == 0
    assert requeues == [None]


@pytest.mark.parametrize("operation", ["retry", "drop", "replay"])
@pytest.mark.parametrize(
    ("filters", "matching"),
    [
        (EventQuery(), set(range(220))),
        (EventQuery(scope_id="omm_3"), set(range(3, 220, 10))),
        (EventQuery(event_id="e219"), {219}),
        (EventQuery(since_ms=NOW_MS + 150_000), set(range(150, 220))),
        (EventQuery(scope_id="omm_3", since_ms=NOW_MS + 150_000), set(range(153, 220, 10))),
        (EventQuery(scope_id="omm_3", event_id="e4"), set()),
        (EventQuery(sink="no such sink"), set()),
    ],
)
async def test_filters(
    backend: Backend,
    store: Store,
    monkeypatch: pytest.MonkeyPatch,
    *,
    operation: str,
    filters: EventQuery,
    matching: set[int],
) -> None:
    """Every filter that is given has to fit, also beyond the first chunk, where nothing matched."""
    backend.tune(monkeypatch, chunk_rows=100)
    await fill(store, 220)
    await kill(store, "a", 220)
    await kill(store, "b", 220)
    assert await store.operate(operation, filters) == 2 * len(matching)
    rows = backend.rows("SELECT seq FROM deliveries WHERE state = 2 AND sink = 1")
    assert {seq - 1 for (seq,) in rows} == set(range(220)) - matching
    untouched = EventQuery(sink="a", scope_id=filters.scope_id)
    assert filters.sink or await store.operate("drop", untouched) >= 0


async def test_replay_respects_routes(backend: Backend, store: Store) -> None:
    """Each sink gets again what its route takes (type, scopes, tenants), and what is pending stays as it is."""
    await store.close()
    filters_by_sink = {
        "a": SinkFilter(scope_type="level"),
        "b": SinkFilter(scope_ids=frozenset({"omm_1"})),
        "c": SinkFilter(tenants=frozenset({"t2"})),
        "d": SinkFilter(
            scope_type="room", scope_ids=frozenset({"omm_1", "omm_2"}), tenants=frozenset({"t1"})
        ),
    }
    store = await backend.open(*filters_by_sink)
    for n, (scope, tenant) in enumerate([("omm_1", "t1"), ("omm_2", "t1"), ("omm_1", "t2"), ("omm_3", "t2")]):
        await append(store, event(f"e{n}", scope, tenant=tenant))
    outcomes = [Outcome(seq=seq, state="delivered", attempts=1) for seq in range(1, 5)]
    for sink in filters_by_sink:
        await store.settle(sink, outcomes)
    await store.set_sinks(list(filters_by_sink), filters_by_sink)
    assert await store.operate("replay", EventQuery()) == 2 + 2 + 2
    assert await store.backlog() == {"a": 0, "b": 2, "c": 2, "d": 2}
    assert await store.operate("replay", EventQuery()) == 0
    assert await store.operate("replay", EventQuery(sink="a")) == 0
    await store.close()


async def test_an_unreadable_event_is_not_replayed(backend: Backend, store: Store) -> None:
    """There is nothing that a sink could get of it."""
    await append(store, small_event("e1"))
    backend.rows("UPDATE events SET body = NULL")
    assert await store.operate("replay", EventQuery()) == 0


async def test_what_dies_again_meanwhile_is_not_retried_once_more(
    backend: Backend, store: Store, clock: Clock
) -> None:
    """A worker that gives up between two chunks does not keep the operation going, whatever its clock says."""
    await fill(store, 2_500)
    await kill(store, "a", 2_500)
    retrying = asyncio.create_task(store.operate("retry", EventQuery()))
    deaths = 0
    clock.advance(-5)
    while not retrying.done():
        found = await store.claim(
            "a", limit=500, per_scope=100, now_ms=NOW_MS, after_seq=None, skipping=frozenset()
        )
        await store.settle("a", [Outcome.dead(one, error="again") for one in found.deliveries])
        deaths += len(found.deliveries)
    assert await retrying == 2_500
    assert deaths > 0
    assert by_state(backend, "a").get(2, 0) == deaths


async def test_a_dead_letter_of_the_future_is_retried(store: Store, clock: Clock) -> None:
    """What was given up while the clock was ahead does not have to wait until that time has come."""
    await fill(store, 3)
    clock.advance(86_400)
    await kill(store, "a", 3)
    clock.advance(-86_400)
    assert await store.operate("retry", EventQuery(sink="a")) == 3


async def test_an_age_begins_anew_with_a_retry_or_a_replay(store: Store, clock: Clock) -> None:
    """What a person puts in again is not given up at once for being old."""
    await fill(store, 2)
    await store.settle(
        "a", [Outcome(seq=1, state="dead", attempts=9), Outcome(seq=2, state="delivered", attempts=1)]
    )
    clock.advance(10 * 24 * 3600)
    assert await store.operate("retry", EventQuery(sink="a")) == 1
    assert await store.operate("replay", EventQuery(sink="a", event_id="e1")) == 1
    found = await store.claim(
        "a", limit=5, per_scope=5, now_ms=clock.now_ms, after_seq=None, skipping=frozenset()
    )
    assert [(one.attempts, one.received_ms) for one in found.deliveries] == [(0, clock.now_ms)] * 2


@pytest.mark.parametrize("operation", ["retry", "drop", "replay"])
async def test_pushes_are_answered_between_chunks(
    backend: Backend, store: Store, operation: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An operation on 2,000 rows is many commits, and pushes of that time do not wait for its end."""
    backend.tune(monkeypatch, chunk_rows=50)
    await fill(store, 2_000)
    await kill(store, "a", 2_000)
    working = asyncio.create_task(store.operate(operation, EventQuery(sink="a")))
    answered = 0
    while not working.done():
        assert await append(store, event(f"new{answered}")) is Verdict.STORED
        answered += 1
    assert await working == 2_000
    assert answered >= 10


async def test_the_dead_of_a_sink_that_is_gone(backend: Backend, store: Store) -> None:
    """They are not retried, since nobody would deliver them, but they can be dropped."""
    await fill(store, 1_500)
    await store.close()
    again = await backend.open("a", now_ms=Clock())
    assert await again.operate("retry", EventQuery()) == 0
    assert await again.operate("drop", EventQuery(sink="b")) == 1_500
    await again.close()


# -- what has become too old ------------------------------------------------------------------------------------------------


async def test_what_is_too_old_is_buried_behind_what_was_put_in_again(
    backend: Backend, store: Store, clock: Clock
) -> None:
    """A young one at the front (replayed by hand), with whole windows of delivered ones behind it, hides nothing."""
    await fill(store, 12_000)
    await store.settle("a", [Outcome(seq=seq, state="delivered", attempts=1) for seq in range(1, 11_990)])
    clock.advance(10 * 24 * 3600)
    assert await store.operate("replay", EventQuery(sink="a", event_id="e0")) == 1
    before_ms = clock.now_ms - 3 * 24 * HOUR_MS
    assert await store.dead_letter_expired("a", before_ms=before_ms, error="down") == 11
    assert by_state(backend, "a")[0] == 1


async def test_burying_ends_with_the_first_young_window(store: Store, clock: Clock) -> None:
    """What came within the age is left alone, and a pause moves the beginning of the age."""
    await fill(store, 100)
    clock.advance(50)
    assert await store.disable_sink("a", "away")
    clock.advance(3600)
    assert await store.enable_sink("a")
    assert await store.dead_letter_expired("a", before_ms=NOW_MS + HOUR_MS + 50_000, error="down") == 50
    assert await store.dead_letter_expired("b", before_ms=NOW_MS + 50_000, error="down") == 50


async def test_two_pauses_of_one_moment_are_one(store: Store, clock: Clock) -> None:
    """Disabled, enabled and disabled again within a millisecond, the long time counts."""
    await fill(store, 1)
    for seconds in (0, 3600):
        assert await store.disable_sink("a", "away")
        clock.advance(seconds)
        assert await store.enable_sink("a")
    found = await store.claim(
        "a", limit=5, per_scope=5, now_ms=clock.now_ms, after_seq=None, skipping=frozenset()
    )
    assert [one.received_ms for one in found.deliveries] == [NOW_MS + HOUR_MS]


# -- a stopped store --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("operation", "dead"), [("retry", 0), ("drop", 0), ("replay", 0)])
async def test_the_same_on_a_stopped_store(backend: Backend, store: Store, operation: str, dead: int) -> None:
    """Under the lock, in chunks, with filters and routes; while a daemon runs it is refused."""
    stopped = stores.backend(backend.url)
    await fill(store, 2_500)
    await kill(store, "a", 2_500)
    with nullcontext() if backend.shared else pytest.raises(StoreInUseError):
        assert stopped.operate(operation, EventQuery(sink="none"), {}) == 0
    await store.close()
    assert stopped.operate(operation, EventQuery(sink="a", event_id="e7"), {}) == 1
    assert stopped.operate(operation, EventQuery(sink="a"), {"a": SinkFilter(tenants=frozenset())}) == (
        0 if operation == "replay" else 2_499
    )
    if operation == "replay":
        assert stopped.operate(operation, EventQuery(sink="a"), {}) == 2_499
    assert backend.rows("SELECT count(*) FROM deliveries WHERE state = 2") == [(dead,)]


async def test_disabling_on_a_stopped_store(backend: Backend, store: Store, clock: Clock) -> None:
    """A daemon that starts afterwards finds the sink disabled, keeps its rows, and the time between does not count."""
    stopped = stores.backend(backend.url)
    await fill(store, 1)
    await store.close()
    assert stopped.disable_sink("a", "by hand")
    assert not stopped.disable_sink("a", "twice")
    again = await backend.open("a", "b", now_ms=clock)
    (first, _) = await again.sinks()
    assert first.disabled_ms is not None
    assert (first.disabled_reason, first.pending) == ("by hand", 1)
    with nullcontext() if backend.shared else pytest.raises(StoreInUseError):
        stopped.enable_sink("none")
    await again.close()
    backend.rows("UPDATE sinks SET disabled_ms = disabled_ms - 3600000 WHERE name = 'a'")
    assert stopped.enable_sink("a")
    assert not stopped.enable_sink("a")
    third = await backend.open("a", "b", now_ms=clock)
    found = await third.claim("a", limit=5, per_scope=5, now_ms=clock.now_ms, after_seq=None, skipping=())
    assert [one.received_ms >= NOW_MS + HOUR_MS for one in found.deliveries] == [True]
    await third.close()


def test_nothing_to_act_on(backend: Backend) -> None:
    """Without a store they say so and make none."""
    stopped = stores.backend(backend.url)
    for act in (partial(stopped.disable_sink, "a", "why"), partial(stopped.enable_sink, "a")):
        with pytest.raises(StoreError, match="no store"):
            act()
    assert not any(file.exists() for file in stopped.files)


async def test_dead_letters_of_a_removed_sink_are_counted_until_they_are_dropped(
    backend: Backend, store: Store
) -> None:
    """What it had not got is dead, too; after that nothing of it is told any more."""
    await fill(store, 3)
    await store.settle("b", [Outcome(seq=1, state="dead", attempts=1)])
    await store.set_sinks(["a"], {})
    await store.dead_letter_removed()
    with stores.open_reader(backend.url) as reader:
        waiting = {sink.name: sink for sink in reader.backlog(NOW_MS).sinks}
        assert (waiting["a"].configured, waiting["a"].pending, waiting["a"].dead) == (True, 3, 0)
        assert (waiting["b"].configured, waiting["b"].pending, waiting["b"].dead) == (False, 0, 3)
        await store.operate("drop", EventQuery(sink="b"))
        assert [sink.name for sink in reader.backlog(NOW_MS).sinks] == ["a"]
