"""Clocks that are set while the daemon runs: nothing grows old by it, and nothing waits for it."""

from __future__ import annotations

import asyncio
from functools import partial
from typing import TYPE_CHECKING

import pytest
from hypothesis import given, strategies as st

from reserve_listener.ages import JUMP_MS, JUMPS_KEPT, Ages
from reserve_listener.delivery import Worker
from reserve_listener.delivery.retry import RetryPolicy
from reserve_listener.errors import TransientDeliveryError
from reserve_listener.model import Verdict
from reserve_listener.store.retention import Retention
from tests.delivery.test_worker import working
from tests.helpers import NOW_MS, Clock, ScriptedSink, append, event, small_event, until

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Sequence

    from reserve_listener.model import Delivery
    from reserve_listener.protocols.store import Store

    Opened = Callable[[], Awaitable[Store]]
    from tests.backends import Backend

HOUR_S = 3600
DAY_S = 24 * HOUR_S
POLICY = RetryPolicy(base_s=2 * HOUR_S, cap_s=HOUR_S, max_age_s=3 * DAY_S)


class World:
    """A clock that can be set, and one that cannot."""

    def __init__(self) -> None:
        self.wall, self.running = Clock(), Clock(0)
        self.ages = self.reborn()

    def reborn(self) -> Ages:
        """As another process sees it."""
        return Ages(self.wall, self.running)

    def pass_(self, seconds: float) -> None:
        self.wall.advance(seconds)
        self.running.advance(seconds)

    def set(self, seconds: float) -> None:
        self.wall.advance(seconds)


@pytest.fixture
def world() -> World:
    return World()


@pytest.fixture
async def opened(backend: Backend, world: World) -> AsyncIterator[Opened]:
    """Opens the store, anew if it is open, with the ages of a new process."""
    stores: list[Store] = []

    async def again() -> Store:
        if stores:
            await stores[-1].close()
        world.ages = world.reborn()
        stores.append(await backend.open("scripted", ages=world.ages))
        return stores[-1]

    yield again
    await stores[-1].close()


# -- the ages themselves ---------------------------------------------------------------------------------------------------


def test_time_that_passes_counts_and_a_jump_does_not(world: World) -> None:
    """Two days, a jump of 400 days and another hour are two days and an hour; so are they the other way round."""
    since_ms = world.wall()
    world.pass_(2 * DAY_S)
    world.ages.now_ms()
    world.set(400 * DAY_S)
    world.pass_(HOUR_S)
    assert world.ages.age_ms(since_ms) == (2 * DAY_S + HOUR_S) * 1000
    assert world.ages.ago_ms((2 * DAY_S + HOUR_S) * 1000) == since_ms
    assert world.ages.ago_ms(0) == world.wall()


def test_sleep_and_small_corrections_are_time(world: World) -> None:
    """The machine's sleep is counted by both clocks; what a time server corrects counts as time."""
    since_ms = world.wall()
    world.pass_(30 * DAY_S)  # asleep: nobody asked meanwhile
    world.set(JUMP_MS / 1000)
    assert world.ages.age_ms(since_ms) == 30 * DAY_S * 1000 + JUMP_MS
    assert world.ages.jumps == []


def test_a_jump_that_is_taken_back_leaves_next_to_nothing(world: World) -> None:
    """Ahead by 400 days for an hour, and mended: time that comes again ages what is stored."""
    since_ms = world.wall()
    world.set(400 * DAY_S)
    world.ages.now_ms()
    world.pass_(HOUR_S)
    world.set(-400 * DAY_S)
    world.ages.now_ms()
    world.pass_(500 * DAY_S)
    assert world.ages.age_ms(since_ms) >= 500 * DAY_S * 1000
    assert sum(to_ms - from_ms for from_ms, to_ms in world.ages.jumps) <= HOUR_S * 1000


def test_only_so_many_jumps_are_kept(world: World) -> None:
    """A clock that never stands still costs no memory."""
    for _ in range(JUMPS_KEPT + 50):
        world.set(2 * HOUR_S)
        world.ages.now_ms()
    assert len(world.ages.jumps) == JUMPS_KEPT


@given(st.lists(st.tuples(st.integers(0, 100 * DAY_S), st.integers(-500 * DAY_S, 500 * DAY_S)), max_size=20))
def test_no_setting_of_the_clock_makes_anything_older_than_it_is(steps: list[tuple[int, int]]) -> None:
    """Whatever the clock is set to: an age is never more than what has passed and an hour for each setting."""
    world = World()
    since_ms, allowed_ms = world.wall(), 0
    for passes, moved in steps:
        world.pass_(passes)
        world.ages.now_ms()
        world.set(moved)
        allowed_ms += JUMP_MS
        assert world.ages.age_ms(since_ms) <= world.running() + allowed_ms
        assert world.ages.ago_ms(world.running() + allowed_ms + 1) <= since_ms


# -- what rests on them ----------------------------------------------------------------------------------------------------


async def down(_: Sequence[Delivery]) -> None:
    """A receiver that takes nothing."""
    raise TransientDeliveryError("away", down=False)


async def waiting(backend: Backend, sink: ScriptedSink) -> None:
    """Until an attempt has failed and its row waits."""
    await until(lambda: sink.attempts)
    await until(lambda: backend.stored()[0].deliveries[0].due_ms > 0)


def is_bounded(backend: Backend, world: World) -> bool:
    """Whether the one row waits for no longer than the policy allows."""
    (one,) = backend.stored()
    return one.deliveries[0].due_ms - world.wall() <= POLICY.cap_s * 1000


async def test_a_clock_set_back_while_running_holds_nothing(
    backend: Backend, opened: Opened, world: World
) -> None:
    """Eight hours back: the row is due after its own wait at most, and goes out then."""
    store = await opened()
    sink = ScriptedSink(script=down)
    worker = Worker(sink, store, policy=POLICY, ages=world.ages, jitter=lambda: 1.0)
    store.on_commit, store.on_requeue = worker.wake, worker.requeue
    await append(store, event("e1", received_ms=world.wall()))
    async with working(worker):
        await waiting(backend, sink)
        world.set(-8 * HOUR_S)
        world.ages.now_ms()  # as the heartbeat does
        await until(partial(is_bounded, backend, world))
        sink.script = None
        world.pass_(POLICY.cap_s)
        worker._wake.set()
        await until(lambda: sink.ids == ["e1"])


async def test_a_clock_set_back_while_the_daemon_was_off_holds_nothing(
    backend: Backend, opened: Opened, world: World
) -> None:
    """The next start brings the row forward, and however often it is started again: the wait is not begun anew."""
    store = await opened()
    sink = ScriptedSink(script=down)
    await append(store, event("e1", received_ms=world.wall()))
    async with working(Worker(sink, store, policy=POLICY, ages=world.ages, jitter=lambda: 1.0)):
        await waiting(backend, sink)
    world.set(-8 * HOUR_S)
    for _ in range(3):
        store = await opened()
        async with working(Worker(sink, store, policy=POLICY, ages=world.ages)):
            await until(partial(is_bounded, backend, world))
        world.pass_(POLICY.cap_s / 3)
    sink.script = None
    store = await opened()
    async with working(Worker(sink, store, policy=POLICY, ages=world.ages)):
        await until(lambda: sink.ids == ["e1"])


@pytest.mark.parametrize("restart", ["running", "restarted"])
async def test_a_jump_ahead_makes_no_dead_letters(
    backend: Backend, opened: Opened, world: World, restart: str
) -> None:
    """400 days ahead, with a delivery in hand or after a restart: it is tried again; after `max_age` it is dead."""
    store = await opened()
    sink = ScriptedSink(script=down)
    worker = Worker(sink, store, policy=POLICY, ages=world.ages)
    store.on_commit, store.on_requeue = worker.wake, worker.requeue
    await append(store, event("e1", received_ms=world.wall()))
    async with working(worker):
        await waiting(backend, sink)
        world.set(400 * DAY_S)
        world.ages.now_ms()
        if restart == "running":
            await until(lambda: len(sink.attempts) >= 2)
            await until(lambda: backend.stored()[0].deliveries[0].attempts >= 2)
        else:
            await backend.set_right(store)
    if restart == "restarted":
        store = await opened()
        worker = Worker(sink, store, policy=POLICY, ages=world.ages)
        async with working(worker):
            await until(lambda: len(sink.attempts) >= 2)
            await until(lambda: backend.stored()[0].deliveries[0].attempts >= 2)
    assert backend.stored()[0].deliveries[0].state == "pending"
    worker = Worker(sink, store, policy=POLICY, ages=world.ages)
    world.pass_(POLICY.max_age_s)
    async with working(worker):
        await until(lambda: backend.stored()[0].deliveries[0].state == "dead")


async def test_a_jump_ahead_prunes_nothing_and_forgets_no_event(
    backend: Backend, opened: Opened, world: World
) -> None:
    """What was delivered is kept for as long as it should, and a push of it is known; then it goes."""
    store = await opened()
    await store.set_sinks([])
    assert await append(store, small_event("e1", received_ms=world.wall())) is Verdict.STORED
    retention = Retention(store, keep_ms=30 * DAY_S * 1000, ages=world.ages)
    world.set(400 * DAY_S)
    await retention.tidy()
    assert await append(store, small_event("e1", received_ms=world.wall())) is Verdict.DUPLICATE
    world.pass_(31 * DAY_S)
    await retention.tidy()
    assert backend.stored() == []


async def test_what_was_stored_while_the_clock_was_ahead_ages_once_it_is_right(
    backend: Backend, opened: Opened, world: World
) -> None:
    """1,500 events from next year are received now by the clock that was set back, and go after the usual time."""
    store = await opened()
    await store.set_sinks([])
    await append(store, small_event("before", received_ms=world.wall()))
    world.set(400 * DAY_S)
    world.ages.now_ms()
    await asyncio.gather(
        *(append(store, small_event(f"e{number}", received_ms=world.wall())) for number in range(1_500))
    )
    world.set(-400 * DAY_S)
    world.ages.now_ms()
    await until(lambda: max(one.received_ms for one in backend.stored()) <= world.wall())
    assert len(backend.stored()) == 1_501
    retention = Retention(store, keep_ms=30 * DAY_S * 1000, ages=world.ages)
    world.pass_(31 * DAY_S)
    await retention.tidy()
    assert backend.stored() == []


async def test_a_jump_ahead_is_no_gap(opened: Opened, world: World) -> None:
    """Connected all the time, the daemon does not say that events of 400 days may be lost; a real gap it says."""
    store = await opened()
    await store.know_app("cli_1")
    since_ms = await store.last_connected_ms("cli_1")
    world.set(400 * DAY_S)
    assert await store.know_app("cli_1", gap_since_ms=since_ms, longer_than_ms=7 * HOUR_S * 1000) is None
    since_ms = await store.last_connected_ms("cli_1")
    world.pass_(8 * HOUR_S)
    gap_ms = await store.know_app("cli_1", gap_since_ms=since_ms, longer_than_ms=7 * HOUR_S * 1000)
    assert gap_ms == 8 * HOUR_S * 1000


def test_the_world_begins_where_events_do(world: World) -> None:
    """The helper's own promise: its clock shows the time that events of other tests bear."""
    assert world.wall() == NOW_MS
