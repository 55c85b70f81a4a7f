"""The circuit breaker, alone and in a worker over a real store."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest
import structlog
from hypothesis import given, strategies as st

from reserve_listener.delivery import Worker, worker as worker_module
from reserve_listener.delivery.breaker import THRESHOLD, Breaker
from reserve_listener.delivery.retry import RetryPolicy
from reserve_listener.errors import (
    DeliveryError,
    MisconfiguredSinkError,
    PermanentDeliveryError,
    SinkGoneError,
    StoreError,
    TransientDeliveryError,
)
from reserve_listener.model import EventQuery
from reserve_listener.simulator import patience
from tests.delivery.test_worker import (
    SHAPES,
    CountingStore,
    asleep,
    by_scope,
    drained,
    fill,
    states,
    worker_of,
    working,
)
from tests.helpers import NOW_MS, Clock, ScriptedSink, until

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence

    from reserve_listener.model import Delivery
    from reserve_listener.protocols.store import Store
    from tests.backends import Backend

HOURLY = RetryPolicy(base_s=3600, cap_s=3600)
DOWN = TransientDeliveryError("refused")


@pytest.fixture
async def base(backend: Backend) -> AsyncIterator[Store]:
    store = await backend.open("scripted", "other")
    yield store
    await store.close()


@pytest.fixture
def store(base: Store) -> CountingStore:
    return CountingStore(base)


@pytest.fixture(autouse=True)
def quick_pause(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(worker_module, "STORE_PAUSE_S", 0.01)


class Receiver:
    """What the sink's far side does: one error for all, or none; may hold attempts back."""

    def __init__(self, error: Exception | None = DOWN) -> None:
        self.error = error
        self.errors: dict[str, Exception] = {}
        self.holding: asyncio.Event | None = None

    async def __call__(self, deliveries: Sequence[Delivery]) -> None:
        if self.holding is not None:
            await self.holding.wait()
        error = self.errors.get(deliveries[0].event_id, self.error)
        if error is not None:
            raise error


async def rest(worker: Worker) -> None:
    """Until the worker sleeps and has nothing under way."""
    await asleep(worker, lambda: not (worker._attempts or worker._unsettled or worker._release))


async def look(worker: Worker) -> None:
    """As when its timer had run out."""
    worker._wake.set()
    await rest(worker)


class Turns:
    """Counts a worker's turns."""

    def __init__(self, worker: Worker) -> None:
        self.count = 0
        self._turn = worker._turn
        worker._turn = self  # type: ignore[method-assign]

    async def __call__(self) -> None:
        self.count += 1
        await self._turn()


async def assert_rests(turns: Turns, store: CountingStore) -> None:
    before = (turns.count, store.calls.copy())
    for _ in range(200):
        await asyncio.sleep(0.0005)
    assert (turns.count, store.calls) == before


def named(logs: list[Any], *events: str) -> list[str]:
    return [line["event"] for line in logs if line["event"] in {f"delivery.{event}" for event in events}]


# -- alone ------------------------------------------------------------------------------------------------------------------


def failed(breaker: Breaker, times: int, *, now_ms: int = NOW_MS, probing: bool = False) -> list[bool]:
    return [breaker.down(DOWN, now_ms=now_ms, jitter=1.0, probing=probing) for _ in range(times)]


def test_it_opens_at_the_fifth_failure_in_a_row() -> None:
    """A success between starts the count anew; opening is told once, closing too."""
    breaker = Breaker(RetryPolicy())
    assert THRESHOLD == 5
    assert failed(breaker, 4) == [False] * 4
    assert not breaker.up()
    assert failed(breaker, 5) == [False] * 4 + [True]
    assert failed(breaker, 1, probing=True) == [False]
    assert breaker.up()
    assert not breaker.up()
    assert failed(breaker, 5) == [False] * 4 + [True]


def test_probes_follow_the_policys_pace_up_to_a_minute() -> None:
    """2, 4, 8 … 60 s from the opening on, and from the beginning again after it was closed."""
    breaker = Breaker(RetryPolicy(base_s=1, cap_s=3600))
    for _ in range(2):
        failed(breaker, 5)
        delays = [breaker.probe_ms - NOW_MS]
        for _ in range(6):
            failed(breaker, 1, probing=True)
            delays.append(breaker.probe_ms - NOW_MS)
        assert delays == [2000, 4000, 8000, 16000, 32000, 60000, 60000]
        breaker.up()


@given(late_ms=st.integers(0, 100_000), wish_s=st.none() | st.floats(0, 300))
def test_what_had_begun_before_moves_the_probe_only_as_the_receiver_wishes(
    late_ms: int, wish_s: float | None
) -> None:
    """An attempt that fails while it is open puts off the probe for its `Retry-After`, and never brings it forward."""
    breaker = Breaker(RetryPolicy(base_s=1))
    failed(breaker, 5)
    probe_ms = breaker.probe_ms
    late = TransientDeliveryError("busy", retry_after=wish_s)
    assert not breaker.down(late, now_ms=NOW_MS + late_ms, jitter=1.0, probing=False)
    assert breaker.probe_ms == max(probe_ms, NOW_MS + late_ms + round((wish_s or 0) * 1000))


def test_a_probe_is_due_at_its_time_and_when_the_clock_was_set_back() -> None:
    """Not a millisecond before; with a clock that stands before the last probe at once."""
    breaker = Breaker(RetryPolicy(base_s=1))
    failed(breaker, 5)
    assert [breaker.may_probe(NOW_MS + ms) for ms in (0, 1999, 2000, 10**12)] == [False, False, True, True]
    assert [breaker.may_probe(NOW_MS - ms) for ms in (1, 3_600_000)] == [True, True]
    failed(breaker, 1, now_ms=NOW_MS - 3_600_000, probing=True)
    assert not breaker.may_probe(NOW_MS - 3_600_000)


# -- in a worker ------------------------------------------------------------------------------------------------------------


async def opened(worker: Worker, base: Store, count: int = 20, scopes: int = 10) -> None:
    await fill(base, *((f"{n:03}", f"omm_{n % scopes}") for n in range(count)))
    worker.wake()
    await until(lambda: worker._breaker.is_open)
    await rest(worker)


@pytest.mark.parametrize(("batch_size", "max_in_flight"), SHAPES)
async def test_down_probed_and_up_again(
    backend: Backend, base: Store, store: CountingStore, batch_size: int, max_in_flight: int
) -> None:
    """One probe of one event at each time for it and nothing between; after the first success all goes out in order."""
    clock, receiver = Clock(), Receiver()
    sink = ScriptedSink(batch_size=batch_size, max_in_flight=max_in_flight, script=receiver)
    worker = worker_of(sink, store, policy=HOURLY, now_ms=clock)
    with structlog.testing.capture_logs() as logs:
        async with working(worker):
            await opened(worker, base, 240, 120)
            before = len(sink.attempts)
            assert before <= THRESHOLD + max_in_flight - 1
            assert worker.health.state == "down"
            assert worker.health.next_attempt_ms == worker._breaker.probe_ms
            for number in range(1, 31):
                assert 0 < worker._breaker.probe_ms - clock.now_ms <= 60_000
                await look(worker)
                clock.now_ms = worker._breaker.probe_ms
                await look(worker)
                assert len(sink.attempts) == before + number
                assert len(sink.attempts[-1]) == 1
            receiver.error = None
            clock.now_ms = worker._breaker.probe_ms
            worker._wake.set()
            await until(lambda: len(sink.ids) == 240)
            async with asyncio.timeout(patience(10)):
                while (await base.backlog())["scripted"]:  # what has arrived is not settled yet
                    await asyncio.sleep(0.005)
            assert worker.health.state == "ok"
    assert by_scope(sink) == sorted([f"{n:03}", f"{n + 120:03}"] for n in range(120))
    assert max(len(attempt) for attempt in sink.attempts[-8:]) > 1 or batch_size == 1
    assert named(logs, "sink_down", "sink_up") == ["delivery.sink_down", "delivery.sink_up"]
    assert len(named(logs, "probe_failed")) == 30
    line = next(line for line in logs if line["event"] == "delivery.sink_down")
    assert (line["sink"], line["error"], line["delay_s"]) == ("scripted", "refused", 45.0)
    line = next(line for line in logs if line["event"] == "delivery.probe_failed")
    assert (line["sink"], line["error"], line["delay_s"]) == ("scripted", "refused", 45.0)
    counted = sum(made for _, made, _ in states(backend).values())
    assert counted == 240 + sum(len(attempt) for attempt in sink.attempts[:before])
    assert await base.backlog() == {"other": 240, "scripted": 0}


@pytest.mark.parametrize(
    "error",
    [
        TransientDeliveryError("HTTP 429", down=False),
        MisconfiguredSinkError("HTTP 401"),
        PermanentDeliveryError("HTTP 422"),
    ],
)
async def test_a_refusal_does_not_open_it_and_closes_it(
    base: Store, store: CountingStore, error: DeliveryError
) -> None:
    """An answer says that the receiver is up, whatever it says: every event is tried, also when it was down before."""
    clock, receiver = Clock(), Receiver(error)
    sink = ScriptedSink(max_in_flight=4, script=receiver)
    worker = worker_of(sink, store, policy=HOURLY, now_ms=clock)
    async with working(worker):
        await fill(base, *((f"a{n}", f"omm_a{n}") for n in range(12)))
        worker.wake()
        await until(lambda: len(sink.attempts) == 12)
        await rest(worker)
        failing = "misconfigured" if isinstance(error, MisconfiguredSinkError) else "failing"
        assert worker.health.state == failing
        receiver.error = DOWN
        await opened(worker, base)
        receiver.error = error
        seen = len(sink.attempts)
        clock.now_ms = worker._breaker.probe_ms
        await look(worker)
        assert worker.health.state == failing
        assert len(sink.attempts) > seen + 5


async def test_probes_eat_no_attempts(backend: Backend, base: Store, store: CountingStore) -> None:
    """With `max_attempts` 3 and a hundred probes nothing is a dead letter."""
    clock, receiver = Clock(), Receiver()
    policy = RetryPolicy(max_attempts=3, max_age_s=1e9)
    sink = ScriptedSink(script=receiver)
    worker = worker_of(sink, store, policy=policy, now_ms=clock)
    async with working(worker):
        await opened(worker, base, 5, 5)
        for _ in range(100):
            clock.now_ms = worker._breaker.probe_ms
            await look(worker)
        assert len(sink.attempts) == 105
        assert {(state, made) for state, made, _ in states(backend).values()} == {("pending", 1)}


async def test_attempts_that_were_under_way_when_it_opened(base: Store, store: CountingStore) -> None:
    """They end as they end; what of them fails waits for the breaker's pace, not for an hour, and nothing is probed before."""
    clock, receiver = Clock(), Receiver()
    receiver.errors = {
        f"{n:03}": TransientDeliveryError("late", retry_after=90) if n == 7 else DOWN for n in range(8)
    }
    holds = {f"{n:03}": asyncio.Event() for n in range(8)}

    async def hold(deliveries: Sequence[Delivery]) -> None:
        if (event_id := deliveries[0].event_id) in holds:
            await holds[event_id].wait()
        await receiver(deliveries)

    sink = ScriptedSink(max_in_flight=8, script=hold)
    worker = worker_of(sink, store, policy=HOURLY, now_ms=clock)
    turns = Turns(worker)
    async with working(worker):
        await fill(base, *((f"{n:03}", f"omm_{n}") for n in range(12)))
        await until(lambda: len(sink.attempts) == 8)
        for n in range(5):
            holds[f"{n:03}"].set()
        await until(lambda: worker._breaker.is_open)
        clock.advance(50)  # the probe's time has come, and three attempts still hang
        worker.wake()
        await asleep(worker)
        await assert_rests(turns, store)
        assert len(sink.attempts) == 8
        assert worker.health.next_attempt_ms is not None
        for hold_of in holds.values():
            hold_of.set()
        await rest(worker)
        assert len(sink.attempts) == 8
        assert worker._breaker.probe_ms == clock.now_ms + 90_000
        assert worker._pending.next_due_ms is None
        receiver.error, receiver.errors = None, {}
        clock.advance(90)
        await look(worker)
        assert len(sink.ids) == 12


async def test_what_is_ready_when_late_failures_put_off_the_probe_is_probed_with(
    base: Store, store: CountingStore
) -> None:
    """The only event that is left, in hand already, goes out at the time that a late answer wished for."""
    clock = Clock()
    hold = asyncio.Event()

    async def script(deliveries: Sequence[Delivery]) -> None:
        if deliveries[0].event_id in {"5", "6", "7"}:
            await hold.wait()
            raise TransientDeliveryError("late", retry_after=90)
        if deliveries[0].event_id != "8":
            raise DOWN

    sink = ScriptedSink(max_in_flight=8, script=script)
    worker = worker_of(sink, store, policy=RetryPolicy(base_s=3600, max_attempts=1), now_ms=clock)
    await fill(base, *((f"{n}", f"omm_{n}") for n in range(9)))
    async with working(worker):
        await until(lambda: worker._breaker.is_open and len(worker._attempts) == 3)
        clock.advance(50)
        worker._wake.set()
        await until(lambda: worker._pending.ready and worker._pending.at_end)
        hold.set()
        await rest(worker)
        assert worker.health.next_attempt_ms == clock.now_ms + 90_000
        clock.advance(90)
        await look(worker)
        assert sink.ids == ["8"]


async def test_a_probe_that_fails_after_the_sink_was_enabled_is_an_attempt(
    backend: Backend, base: Store, store: CountingStore
) -> None:
    """A person closed the breaker meanwhile: the failure counts like any other and waits for its own time."""
    clock, receiver = Clock(), Receiver()
    sink = ScriptedSink(script=receiver)
    worker = worker_of(sink, store, policy=HOURLY, now_ms=clock)
    async with working(worker):
        await opened(worker, base, 5, 5)
        receiver.holding = asyncio.Event()
        clock.now_ms = worker._breaker.probe_ms
        worker._wake.set()
        await until(lambda: worker._attempts)
        probed = sink.attempts[-1][0]
        worker.enable()
        await asleep(worker)
        receiver.holding.set()
        await until(lambda: states(backend)[probed][1] == 2)
        assert sink.attempts.count((probed,)) == 2


async def test_the_breakers_pace_holds_when_only_late_failures_are_left(
    backend: Backend, base: Store, store: CountingStore
) -> None:
    """With all but what failed after the opening dead, the next probe comes within a minute all the same."""
    clock, receiver = Clock(), Receiver()
    hold = asyncio.Event()

    async def script(deliveries: Sequence[Delivery]) -> None:
        if deliveries[0].event_id == "late":
            await hold.wait()
        await receiver(deliveries)

    sink = ScriptedSink(max_in_flight=6, script=script)
    policy = RetryPolicy(base_s=3600, max_age_s=1000)
    worker = worker_of(sink, store, policy=policy, now_ms=clock)
    too_old_ms = NOW_MS - 1_000_001  # given up at once
    await fill(base, *((f"{n}", f"omm_{n}") for n in range(5)), received_ms=too_old_ms)
    await fill(base, ("late", "omm_late"))
    async with working(worker):
        await until(lambda: worker._breaker.is_open and len(worker._attempts) == 1)
        hold.set()
        await rest(worker)
        assert min(states(backend).values())[:2] == ("dead", 1)
        receiver.error = None
        clock.advance(60)
        await look(worker)
        assert sink.ids == ["late"]


async def test_it_rests_while_it_is_open_and_nothing_is_pending(base: Store, store: CountingStore) -> None:
    """Open with an empty store: no timer, no probe; the next event is the probe."""
    clock, receiver = Clock(), Receiver()
    sink = ScriptedSink(max_in_flight=8, script=receiver)
    policy = RetryPolicy(base_s=3600, max_attempts=1)
    worker = worker_of(sink, store, policy=policy, now_ms=clock)
    base.on_commit = worker.wake
    turns = Turns(worker)
    async with working(worker):
        await opened(worker, base, 5, 5)
        assert (await base.backlog())["scripted"] == 0
        await assert_rests(turns, store)
        clock.advance(61)
        await look(worker)
        assert (worker.health.state, worker.health.next_attempt_ms) == ("down", None)
        await assert_rests(turns, store)
        receiver.error = None
        await fill(base, ("new", "omm_new"))
        await until(lambda: sink.ids == ["new"])


@pytest.mark.parametrize("count", [5, 40])
async def test_it_rests_while_it_is_open_and_all_waits(base: Store, store: CountingStore, count: int) -> None:
    """Between probes, and while a probe hangs past the next probe's time, there is no turn and no call."""
    clock, receiver = Clock(), Receiver()
    sink = ScriptedSink(max_in_flight=4, script=receiver)
    worker = worker_of(sink, store, policy=HOURLY, now_ms=clock)
    turns = Turns(worker)
    async with working(worker):
        await opened(worker, base, count, 5)
        await assert_rests(turns, store)
        calls = store.calls.copy()
        for _ in range(50):
            worker.wake()
            await asyncio.sleep(0.0005)
        assert store.calls == calls
        receiver.holding = asyncio.Event()
        clock.now_ms = worker._breaker.probe_ms
        worker._wake.set()
        await until(lambda: worker._attempts)
        await asleep(worker)
        clock.advance(7200)
        worker._wake.set()
        await asleep(worker)
        await assert_rests(turns, store)
        assert len(worker._attempts) == 1
        assert worker.health.next_attempt_ms is not None
        receiver.holding.set()
        await rest(worker)
        assert worker._breaker.is_open


async def test_no_busy_loop_when_a_retry_is_due_and_there_is_no_place(
    backend: Backend, base: Store, store: CountingStore
) -> None:
    """All places taken by attempts that hang, more of it ready, and a retry whose time has come: the worker rests."""
    clock, receiver = Clock(), Receiver(None)
    receiver.errors = {"first": TransientDeliveryError("busy", down=False)}
    sink = ScriptedSink(max_in_flight=2, script=receiver)
    worker = worker_of(sink, store, policy=RetryPolicy(base_s=60), now_ms=clock)
    base.on_commit = worker.wake
    turns = Turns(worker)
    async with working(worker):
        await fill(base, ("first", "omm_first"))
        await until(lambda: states(backend)["first"][1] == 1)
        receiver.holding = asyncio.Event()
        receiver.errors = {}
        await fill(base, *((f"{n}", f"omm_{n}") for n in range(9)))
        await until(lambda: len(worker._attempts) == 2)
        clock.advance(3600)
        worker._wake.set()
        await asleep(worker)
        await assert_rests(turns, store)
        receiver.holding.set()
        await until(lambda: len(sink.ids) == 10)


@pytest.mark.parametrize("scopes", [1, 5])
async def test_drain_with_an_open_breaker_returns_at_once(
    base: Store, store: CountingStore, scopes: int
) -> None:
    """Nothing is tried again and everything stays; when a probe is due it is made, and all goes out if it succeeds."""
    clock, receiver = Clock(), Receiver()
    sink = ScriptedSink(script=receiver)
    worker = worker_of(sink, store, policy=RetryPolicy(base_s=0.001, max_age_s=1e9), now_ms=clock)
    async with working(worker) as task:
        await fill(base, *((f"{n}", f"omm_{n % scopes}") for n in range(10)))
        worker.wake()
        for _ in range(20):
            clock.advance(1)
            await look(worker)
        assert worker._breaker.is_open
        made = len(sink.attempts)
        worker.drain()
        async with asyncio.timeout(patience(5)):
            await task
    assert len(sink.attempts) == made
    assert (await base.backlog())["scripted"] == 10


@pytest.mark.parametrize("up", [True, False])
async def test_drain_with_a_probe_that_is_due(base: Store, store: CountingStore, *, up: bool) -> None:
    """It is made: when it succeeds everything goes out, when not the worker ends."""
    clock, receiver = Clock(), Receiver()
    sink = ScriptedSink(script=receiver)
    worker = worker_of(sink, store, policy=HOURLY, now_ms=clock)
    async with working(worker) as task:
        await opened(worker, base)
        made = len(sink.attempts)
        receiver.error = None if up else DOWN
        clock.now_ms = worker._breaker.probe_ms
        worker.drain()
        async with asyncio.timeout(patience(5)):
            await task
    assert (len(sink.attempts) - made, len(sink.ids)) == ((20, 20) if up else (1, 0))


async def test_what_grows_too_old_while_it_is_down_is_given_up_in_bulk(
    base: Store, store: CountingStore
) -> None:
    """Six thousand events expire with one probe and in one line of the log; younger ones stay and are delivered."""
    clock, receiver = Clock(), Receiver()
    sink = ScriptedSink(script=receiver)
    policy = RetryPolicy(base_s=60, max_age_s=1000)
    worker = worker_of(sink, store, policy=policy, now_ms=clock)
    await fill(base, *((f"{n}", f"omm_{n % 50}") for n in range(6_000)))
    await fill(base, *((f"new{n}", f"omm_{n}") for n in range(5)), received_ms=NOW_MS + 900_000)
    with structlog.testing.capture_logs() as logs:
        async with working(worker):
            await until(lambda: worker._breaker.is_open)
            await rest(worker)
            clock.advance(1001)
            await look(worker)
            await until(lambda: named(logs, "expired"))
            assert len(sink.attempts) == 6
            receiver.error = None
            clock.now_ms = worker._breaker.probe_ms
            worker._wake.set()
            await until(lambda: len(sink.ids) == 5)
            await rest(worker)
    line = next(line for line in logs if line["event"] == "delivery.expired")
    assert (line["events"], line["error"]) == (6_000, "refused (given up after 1000 s)")
    assert (await base.backlog())["scripted"] == 0


async def test_what_is_too_old_is_tried_once_the_sink_is_up(base: Store, store: CountingStore) -> None:
    """Nothing is given up unseen after a probe that succeeded."""
    clock, receiver = Clock(), Receiver()
    sink = ScriptedSink(script=receiver)
    worker = worker_of(sink, store, policy=RetryPolicy(base_s=60, max_age_s=1000), now_ms=clock)
    async with working(worker):
        await opened(worker, base)
        receiver.error = None
        clock.advance(5000)
        await look(worker)
        assert len(sink.ids) == 20


@pytest.mark.parametrize("hours", [-24 * 400, -30, -1, 1, 30, 24 * 400])
async def test_probes_go_on_when_the_clock_is_set(base: Store, store: CountingStore, hours: int) -> None:
    """Set back or ahead by an hour or a year while the breaker is open: the next look, within a minute, probes."""
    clock, receiver = Clock(), Receiver()
    sink = ScriptedSink(script=receiver)
    policy = RetryPolicy(base_s=3600, max_age_s=1e12)
    worker = worker_of(sink, store, policy=policy, now_ms=clock)
    async with working(worker):
        await opened(worker, base, 5, 5)
        clock.now_ms = worker._breaker.probe_ms
        await look(worker)
        made = len(sink.attempts)
        clock.advance(hours * 3600)
        await look(worker)
        assert len(sink.attempts) == made + 1
        assert 0 < worker._breaker.probe_ms - clock.now_ms <= 60_000
        receiver.error = None
        clock.now_ms = worker._breaker.probe_ms
        await look(worker)
        assert len(sink.ids) == 5


async def test_a_lone_event_is_probed_with_when_the_clock_was_set_back(
    base: Store, store: CountingStore
) -> None:
    """Its own due time lies in what is the future now, and does not hold up the probe."""
    clock, receiver = Clock(), Receiver()
    sink = ScriptedSink(script=receiver)
    worker = worker_of(sink, store, policy=RetryPolicy(base_s=60, max_age_s=1e12), now_ms=clock)
    await fill(base, ("one", "omm_one"))
    async with working(worker):
        for _ in range(10):
            clock.advance(3600)
            await look(worker)
        assert worker._breaker.is_open
        receiver.error = None
        clock.advance(-7200)
        await look(worker)
        assert sink.ids == ["one"]


async def test_it_opens_and_closes_many_times(base: Store, store: CountingStore) -> None:
    """Ten times down and up with failures of the store between: each event once, in order per scope."""
    clock, receiver = Clock(), Receiver()
    sink = ScriptedSink(max_in_flight=3, script=receiver)
    worker = worker_of(sink, store, policy=RetryPolicy(base_s=10, max_age_s=1e9), now_ms=clock)
    with structlog.testing.capture_logs() as logs:
        async with working(worker):
            for number in range(10):
                receiver.error = DOWN
                events = [(f"{number}-{n:02}", f"omm_{n % 6}") for n in range(18)]
                await fill(base, *events)
                worker.wake()
                await until(lambda: worker._breaker.is_open)
                store.failures.update(release=1, settle=1, claim_scopes=1)
                await rest(worker)
                receiver.error = None
                clock.now_ms = worker._breaker.probe_ms
                worker._wake.set()
                total = 18 * (number + 1)
                async with asyncio.timeout(patience(10)):
                    while len(sink.ids) < total:
                        await asyncio.sleep(0.002)
                await rest(worker)
    assert by_scope(sink) == sorted(
        [f"{number}-{n:02}" for number in range(10) for n in range(scope, 18, 6)] for scope in range(6)
    )
    assert named(logs, "sink_down", "sink_up") == ["delivery.sink_down", "delivery.sink_up"] * 10


# -- gone, disabled and enabled ---------------------------------------------------------------------------------------------


async def disabled_names(base: Store) -> set[str]:
    return {one.name for one in await base.sinks() if one.disabled_ms is not None}


@pytest.mark.parametrize("fails", [0, 3])
async def test_a_sink_that_is_gone_is_disabled_and_keeps_everything(
    backend: Backend, base: Store, store: CountingStore, fails: int
) -> None:
    """410: nothing more is tried, no attempt counts, the store knows of it, another sink goes on; enabled, all goes out."""
    receiver = Receiver(SinkGoneError("HTTP 410"))
    sink, other = ScriptedSink(max_in_flight=3, script=receiver), ScriptedSink("other")
    worker, beside = worker_of(sink, store), worker_of(other, store)
    store.failures["disable_gone"] = fails
    turns = Turns(worker)
    await fill(base, *((f"{n:02}", f"omm_{n % 5}") for n in range(20)))
    with structlog.testing.capture_logs() as logs:
        async with working(worker), working(beside):
            await until(lambda: len(other.ids) == 20)
            await until(lambda: not worker._attempts and worker._gone is None and sink.attempts)
            await rest(worker)
            assert len(sink.attempts) == 3
            assert {(state, made) for state, made, _ in states(backend).values()} == {("pending", 0)}
            assert await disabled_names(base) == {"scripted"}
            assert worker.health.state == "disabled"
            assert worker.health.next_attempt_ms is None
            await assert_rests(turns, store)
            for _ in range(20):
                worker.wake()
                await asyncio.sleep(0.001)
            assert len(sink.attempts) == 3
            again = ScriptedSink()
            await drained(worker_of(again, store, disabled=True))
            assert again.attempts == []
            receiver.error = None
            await base.enable_sink("scripted")
            worker.enable()
            await until(lambda: len(sink.ids) == 20)
            await rest(worker)
            assert worker.health.state == "ok"
    assert by_scope(sink) == [[f"{n:02}" for n in range(scope, 20, 5)] for scope in range(5)]
    assert named(logs, "sink_disabled") == ["delivery.sink_disabled"]
    assert await disabled_names(base) == set()


async def test_ages_stand_still_while_a_sink_is_disabled(backend: Backend) -> None:
    """A claim that was under way when the sink was disabled does not carry the old age past the pause."""
    clock = Clock()
    store = await backend.open("scripted", now_ms=clock)
    receiver = Receiver(None)
    sink = ScriptedSink(script=receiver)
    worker = worker_of(sink, store, policy=RetryPolicy(base_s=1, max_age_s=1000), now_ms=clock)
    await fill(store, *((f"{n}", f"omm_{n}") for n in range(4)))
    claim = store.claim
    claiming = asyncio.Event()
    released = asyncio.Event()

    async def slow(*args: Any, **values: Any) -> Any:
        found = await claim(*args, **values)
        claiming.set()
        await released.wait()
        return found

    store.claim = slow  # type: ignore[method-assign]
    async with working(worker):
        await claiming.wait()
        await store.disable_sink("scripted", "by hand")
        worker.disable()
        released.set()
        await rest(worker)
        assert not worker._pending.ready
        assert sink.attempts == []
        clock.advance(5000)
        receiver.error = TransientDeliveryError("busy", down=False)
        await store.enable_sink("scripted")
        worker.enable()
        await until(lambda: len(sink.attempts) == 4)
        await rest(worker)
        await store.close()
    assert {state for state, *_ in states(backend).values()} == {"pending"}


async def test_disabled_with_attempts_under_way(base: Store, store: CountingStore) -> None:
    """They finish and are settled; what was ready is put back, and the worker rests until it is enabled."""
    receiver = Receiver(None)
    receiver.holding = asyncio.Event()
    sink = ScriptedSink(max_in_flight=2, script=receiver)
    worker = worker_of(sink, store)
    turns = Turns(worker)
    await fill(base, *((f"{n}", f"omm_{n}") for n in range(10)))
    async with working(worker):
        await until(lambda: len(sink.attempts) == 2 and worker._pending.ready)
        worker.disable()
        await asleep(worker)
        assert not worker._pending.ready
        await assert_rests(turns, store)
        receiver.holding.set()
        await until(lambda: len(sink.ids) == 2)
        await rest(worker)
        assert (await base.backlog())["scripted"] == 8
        worker.enable()
        await until(lambda: len(sink.ids) == 10)
    assert sink.attempts.count(("0",)) == 1


async def test_enabled_while_it_was_down_everything_is_tried_at_once(
    base: Store, store: CountingStore
) -> None:
    """A person knows that it is back: not even what the receiver put off for an hour waits."""
    clock, receiver = Clock(), Receiver()
    sink = ScriptedSink(script=receiver)
    worker = worker_of(sink, store, policy=HOURLY, now_ms=clock)
    async with working(worker):
        await opened(worker, base, 5, 5)
        receiver.error = TransientDeliveryError("maintenance", retry_after=3600)
        clock.now_ms = worker._breaker.probe_ms
        await look(worker)
        assert worker._breaker.probe_ms == clock.now_ms + 3_600_000
        worker.disable()
        await rest(worker)
        receiver.error = None
        worker.enable()
        await until(lambda: len(sink.ids) == 5)


# -- the store fails --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("times", [1, 6])
@pytest.mark.parametrize("call", ["claim", "claim_scopes", "settle", "release", "dead_letter_expired"])
async def test_every_call_of_the_store_may_fail(
    backend: Backend, base: Store, store: CountingStore, call: str, times: int
) -> None:
    """Down, something too old, and up again, while the store fails: it is repeated until it is done."""
    clock, receiver = Clock(), Receiver()
    sink = ScriptedSink(max_in_flight=3, script=receiver)
    worker = worker_of(sink, store, policy=RetryPolicy(base_s=60, max_age_s=1000), now_ms=clock)
    store.failures[call] = times
    await fill(base, *((f"old{n}", f"omm_{n}") for n in range(7)))
    await fill(base, *((f"{n:02}", f"omm_{n % 7}") for n in range(21)), received_ms=NOW_MS + 900_000)
    async with working(worker):
        await until(lambda: worker._breaker.is_open)
        await rest(worker)
        await until(lambda: worker._breaker.is_open and not worker._release and not worker._attempts)
        clock.advance(1001)
        worker._wake.set()
        await until(lambda: sum(state == "dead" for state, *_ in states(backend).values()) == 7)
        await rest(worker)
        receiver.error = None
        clock.now_ms = worker._breaker.probe_ms
        worker._wake.set()
        await until(lambda: len(sink.ids) == 21)
        await rest(worker)
        await until(lambda: not store.failures[call])
    assert by_scope(sink) == [[f"{n:02}" for n in range(scope, 21, 7)] for scope in range(7)]
    assert (await base.backlog())["scripted"] == 0


# -- strangers --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("pending", [0, 5_000])
@pytest.mark.slow
async def test_a_sink_that_is_down_for_a_day_delays_no_other(
    base: Store, store: CountingStore, pending: int
) -> None:
    """With an hour-long policy and thousands waiting for it, the other sink has each new event after a few looks."""
    clock = Clock()
    failing, healthy = ScriptedSink(max_in_flight=16, script=Receiver()), ScriptedSink("other")
    counted = CountingStore(base)
    worker = worker_of(failing, store, policy=HOURLY, now_ms=clock)
    beside = worker_of(healthy, counted, now_ms=clock)
    if pending:
        await fill(base, *((f"p{n}", f"omm_{n % 500}") for n in range(pending)))
    async with working(worker), working(beside):
        await until(lambda: len(healthy.ids) == pending, timeout_s=30)
        base.on_commit = lambda: (worker.wake(), beside.wake())[0]  # type: ignore[func-returns-value]
        for minute in range(0, 24 * 60, 15):
            clock.advance(15 * 60)
            before = counted.calls.copy()
            await fill(base, (f"m{minute}", f"omm_{minute % 7}"))
            event_id = f"m{minute}"
            async with asyncio.timeout(patience(5)):
                while (event_id,) not in healthy.attempts[-1:]:
                    await asyncio.sleep(0)
            assert (counted.calls - before).total() <= 4
        await until(lambda: len(healthy.ids) == pending + 96)
        assert worker.health.state == "down"
        assert beside.health.state == "ok"
        assert (await base.backlog())["scripted"] == min(10_000, pending + 96)


async def test_a_dead_letter_that_is_tried_again_does_not_wait_for_another_of_its_scope(
    base: Store, store: CountingStore
) -> None:
    """An older event, replayed while a newer one of its scope is under way, goes out though the newer one fails."""
    clock, receiver = Clock(), Receiver(None)
    sink = ScriptedSink(script=receiver)
    worker = worker_of(sink, store, policy=HOURLY, now_ms=clock)
    base.on_commit, base.on_requeue = worker.wake, worker.requeue
    await fill(base, ("old", "A"))
    async with working(worker):
        await until(lambda: sink.ids == ["old"])
        await rest(worker)
        receiver.holding = asyncio.Event()
        receiver.errors = {"new": TransientDeliveryError("busy", down=False)}
        await fill(base, ("new", "A"))
        await until(lambda: worker._attempts)
        await base.operate("replay", EventQuery(event_id="old", sink="scripted"))
        await asleep(worker)
        receiver.holding.set()
        await until(lambda: sink.ids == ["old", "old"])


def test_a_store_error_is_no_delivery_error() -> None:
    """What a store raises never counts as the sink's failure."""
    assert not issubclass(StoreError, DeliveryError)
