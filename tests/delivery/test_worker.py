"""One sink's worker, over a real store, with a sink that does as it is told and a clock that does too."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from contextlib import asynccontextmanager
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest
import structlog

from reserve_listener.delivery import Worker, worker as worker_module
from reserve_listener.delivery.retry import RetryPolicy
from reserve_listener.errors import (
    DeliveryError,
    MisconfiguredSinkError,
    PartlyDeliveredError,
    PermanentDeliveryError,
    SinkGoneError,
    StoreError,
    TransientDeliveryError,
)
from reserve_listener.model import EventQuery, Verdict
from reserve_listener.simulator import patience
from tests.helpers import NOW_MS, Clock, ScriptedSink, append, event, until

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Sequence

    from reserve_listener.model import Delivery
    from reserve_listener.protocols.store import Store
    from tests.backends import Backend

QUICK = RetryPolicy(base_s=0.001, cap_s=0.002)
SHAPES = [(1, 1), (1, 8), (20, 1), (5, 4)]
"""batch_size, max_in_flight"""
CALLS = ["claim", "claim_scopes", "settle", "release"]


class CountingStore:
    """The real store, with its calls counted and, when told, failing."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self.calls: Counter[str] = Counter()
        self.failures: dict[str, int] = {}

    def _call(self, name: str) -> None:
        self.calls[name] += 1
        if self.failures.get(name):
            self.failures[name] -= 1
            raise StoreError("database or disk is full")

    def project(self, events: Any, *, number: int | None = None) -> Any:
        return self._store.project(events, number=number)

    def holds(self, sink: str) -> int:
        return self._store.holds(sink)

    def __getattr__(self, name: str) -> Any:
        async def call(*args: Any, **values: Any) -> Any:
            self._call(name)
            return await getattr(self._store, name)(*args, **values)

        return call


@pytest.fixture
async def base(backend: Backend) -> AsyncIterator[Store]:
    store = await backend.open("scripted")
    yield store
    await store.close()


@pytest.fixture
def store(base: Store) -> CountingStore:
    return CountingStore(base)


@pytest.fixture(autouse=True)
def quick_pause(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(worker_module, "STORE_PAUSE_S", 0.01)


@asynccontextmanager
async def working(worker: Worker) -> AsyncIterator[asyncio.Task[None]]:
    """The worker as a task that is gone at the end, and that fails the test when it failed."""
    task = asyncio.create_task(worker.run())
    try:
        async with asyncio.timeout(patience(60)):
            yield task
    finally:
        if not task.done():
            task.cancel()
        await asyncio.wait([task])
        if not task.cancelled():
            task.result()


async def asleep(worker: Worker, also: Callable[[], bool] = lambda: True) -> None:
    """Until the worker waits to be woken, whatever its attempts do; `also`: and this holds as well."""
    quiet = 0
    async with asyncio.timeout(patience(10)):
        while quiet < 10:
            await asyncio.sleep(0.001)
            looking = worker._wake.is_set() or worker._next_look is not None or not _waits(worker)
            quiet = 0 if looking or not also() else quiet + 1


def _waits(worker: Worker) -> bool:
    """Whether it is in `_wait`: it waits to be woken for the end of a commit, too."""
    for task in asyncio.all_tasks():
        at: Any = task.get_coro()
        while (frame := getattr(at, "cr_frame", None)) is not None:
            if frame.f_code is Worker._wait.__code__ and frame.f_locals["self"] is worker:
                return True
            at = at.cr_await
    return False


async def drained(worker: Worker) -> None:
    worker.drain()
    async with asyncio.timeout(patience(60)):
        await worker.run()


async def fill(store: Store, *events: tuple[str, str], received_ms: int = NOW_MS) -> None:
    verdicts = await asyncio.gather(
        *(append(store, event(event_id, scope, received_ms=received_ms)) for event_id, scope in events)
    )
    assert set(verdicts) == {Verdict.STORED}


def worker_of(sink: ScriptedSink, store: Any, *, policy: RetryPolicy = QUICK, **more: Any) -> Worker:
    more.setdefault("now_ms", Clock())
    return Worker(sink, store, policy=policy, jitter=lambda: 0.5, **more)


def realtime(sink: ScriptedSink, store: Any, policy: RetryPolicy = QUICK) -> Worker:
    """A worker with the real clock, for what waits for real (milliseconds)."""
    return Worker(sink, store, policy=RetryPolicy(base_s=policy.base_s, cap_s=policy.cap_s, max_age_s=1e12))


def states(backend: Backend) -> dict[str, tuple[str, int, str | None]]:
    return {
        one.event_id: (one.deliveries[0].state, one.deliveries[0].attempts, one.deliveries[0].last_error)
        for one in backend.stored()
    }


def by_scope(sink: ScriptedSink) -> list[list[str]]:
    return sorted(sink.delivered.values())


@pytest.mark.parametrize(("batch_size", "max_in_flight"), SHAPES)
async def test_everything_is_delivered_once_and_in_order(
    base: Store, store: CountingStore, batch_size: int, max_in_flight: int
) -> None:
    """300 events of 7 scopes at attempts of random length: each once, in order per scope, never two of one at a time."""
    dice = random.Random(1)

    async def dawdle(_: Sequence[Delivery]) -> None:
        for _turn in range(dice.randrange(4)):
            await asyncio.sleep(0)

    sink = ScriptedSink(batch_size=batch_size, max_in_flight=max_in_flight, script=dawdle)
    await fill(base, *((f"{n:03}", f"omm_{n % 7}") for n in range(300)))
    await drained(worker_of(sink, store))
    assert by_scope(sink) == [[f"{n:03}" for n in range(scope, 300, 7)] for scope in range(7)]
    assert sink.overlaps == []
    assert sink.most_at_once > 1 if max_in_flight > 1 else sink.most_at_once == 1
    assert max(map(len, sink.attempts)) <= batch_size
    assert await base.backlog() == {"scripted": 0}


@pytest.mark.parametrize(("batch_size", "max_in_flight"), SHAPES)
async def test_order_per_scope_holds_over_random_failures(
    backend: Backend, base: Store, store: CountingStore, batch_size: int, max_in_flight: int
) -> None:
    """A third of the attempts fails: still everything once, in order per scope, and every failure was persisted."""
    dice = random.Random(2)

    async def waver(_: Sequence[Delivery]) -> None:
        await asyncio.sleep(0)
        if dice.random() < 1 / 3:
            raise TransientDeliveryError("not now", down=False)

    sink = ScriptedSink(batch_size=batch_size, max_in_flight=max_in_flight, script=waver)
    worker = realtime(sink, store)
    base.on_commit = worker.wake
    async with working(worker):
        for start in range(0, 120, 30):
            await fill(base, *((f"{n:03}", f"omm_{n % 5}") for n in range(start, start + 30)))
        await until(lambda: len(sink.ids) == 120, 20)
        await until(lambda: all(state == "delivered" for state, *_ in states(backend).values()))
    assert by_scope(sink) == [[f"{n:03}" for n in range(scope, 120, 5)] for scope in range(5)]
    assert sink.overlaps == []
    made = Counter(event_id for attempt in sink.attempts for event_id in attempt)
    assert {event_id: attempts for event_id, (_, attempts, _) in states(backend).items()} == made


@pytest.mark.parametrize(("batch_size", "max_in_flight"), [(1, 1), (1, 8)])
async def test_a_failing_event_holds_back_its_own_scope_only(
    backend: Backend, base: Store, store: CountingStore, batch_size: int, max_in_flight: int
) -> None:
    """While a1 fails, a2 and a3 are not even tried, and everything else is delivered."""

    async def refuse(deliveries: Sequence[Delivery]) -> None:
        if deliveries[0].event_id == "a1":
            raise TransientDeliveryError("down")

    sink = ScriptedSink(batch_size=batch_size, max_in_flight=max_in_flight, script=refuse)
    await fill(base, ("a1", "A"), ("a2", "A"), ("b1", "B"), ("a3", "A"), ("c1", "C"), ("b2", "B"))
    await drained(worker_of(sink, store, policy=RetryPolicy(base_s=60)))
    assert sorted(sink.ids) == ["b1", "b2", "c1"]
    assert sorted(sink.attempts) == [("a1",), ("b1",), ("b2",), ("c1",)]
    assert states(backend)["a1"] == ("pending", 1, "down")
    assert states(backend)["a2"] == ("pending", 0, None)


async def test_a_slow_scope_with_a_long_queue_does_not_hold_back_others(
    base: Store, store: CountingStore
) -> None:
    """With 300 events behind an attempt that hangs, a new event of another scope goes out at once, and its retry too."""
    release = asyncio.Event()
    failures = ["b1"]

    async def hang(deliveries: Sequence[Delivery]) -> None:
        if deliveries[0].event_id == "a000":
            await release.wait()
        if deliveries[0].event_id in failures:
            failures.clear()
            raise TransientDeliveryError("once")

    sink = ScriptedSink(max_in_flight=4, script=hang)
    worker = realtime(sink, store)
    base.on_commit = worker.wake
    await fill(base, *((f"a{n:03}", "A") for n in range(300)))
    async with working(worker):
        await until(lambda: sink.attempts)
        await fill(base, ("b1", "B"))
        await until(lambda: sink.ids == ["b1"], 5)
        assert sink.attempts == [("a000",), ("b1",), ("b1",)]
        release.set()
        await until(lambda: len(sink.ids) == 301)
    assert [ids[0] for ids in by_scope(sink)] == ["a000", "b1"]
    assert sink.overlaps == []


async def test_what_waits_behind_a_slow_scope_stays_in_the_store(base: Store, store: CountingStore) -> None:
    """However long the queue behind an attempt that hangs, the worker holds none of it in memory and rests."""
    release = asyncio.Event()

    async def hang(_: Sequence[Delivery]) -> None:
        await release.wait()

    sink = ScriptedSink(max_in_flight=2, script=hang)
    worker = realtime(sink, store)
    await fill(base, *((f"a{n:03}", "A") for n in range(300)))
    async with working(worker):
        await until(lambda: worker._pending.at_end)
        await asleep(worker)
        calls = store.calls.copy()
        await asyncio.sleep(0.05)
        assert store.calls == calls
        assert len(worker._pending.ready) == 0


async def test_a_batch_that_fails_comes_back_whole_and_in_order(base: Store, store: CountingStore) -> None:
    """In batch mode the whole batch is tried again, in the same order, ahead of what came later."""
    failures = iter([TransientDeliveryError("once")])

    async def once(_: Sequence[Delivery]) -> None:
        for failure in failures:
            raise failure

    sink = ScriptedSink(batch_size=3, script=once)
    worker = realtime(sink, store)
    await fill(base, *((f"a{n}", "A") for n in range(5)))
    async with working(worker):
        await until(lambda: len(sink.ids) == 5)
    assert sink.attempts[0] == ("a0", "a1", "a2")
    assert sink.ids == [f"a{n}" for n in range(5)]


async def test_each_delivery_of_a_batch_may_come_to_something_else(
    backend: Backend, base: Store, store: CountingStore
) -> None:
    """What was delivered is settled, what was refused is dead, and only what failed comes again, ahead of its scope's next."""
    once = ["b1"]

    async def differ(deliveries: Sequence[Delivery]) -> None:
        errors: list[DeliveryError | None] = []
        for one in deliveries:
            if one.event_id == "c1":
                errors.append(PermanentDeliveryError("HTTP 422: no"))
            elif one.event_id in once:
                once.remove(one.event_id)
                errors.append(TransientDeliveryError("once"))
            else:
                errors.append(None)
        if any(errors):
            for one, error in zip(deliveries, errors, strict=True):
                if error is None:
                    sink.delivered[one.scope].append(one.event_id)
            raise PartlyDeliveredError(errors)

    sink = ScriptedSink(batch_size=4, script=differ, one_per_scope=True)
    worker = realtime(sink, store)
    await fill(base, ("a1", "A"), ("b1", "B"), ("c1", "C"), ("b2", "B"), ("a2", "A"))
    async with working(worker):
        await until(lambda: len(sink.ids) == 4)
        await asleep(worker)
    assert sink.attempts[0] == ("a1", "b1", "c1")
    assert by_scope(sink) == [["a1", "a2"], ["b1", "b2"]]
    found = states(backend)
    assert found["c1"] == ("dead", 1, "HTTP 422: no")
    assert found["b1"] == ("delivered", 2, None)
    assert {found[one][:2] for one in ("a1", "a2", "b2")} == {("delivered", 1)}
    assert worker.meter.outcomes == {"delivered": 4, "dead": 1, "retry": 1}


async def test_a_sink_that_tells_of_too_few_loses_nothing(base: Store, store: CountingStore) -> None:
    """A plugin's mistake is a failure of the whole batch, in words, and no end of the worker."""

    async def too_few(deliveries: Sequence[Delivery]) -> None:
        if len(sink.attempts) == 1:
            raise PartlyDeliveredError([None] * (len(deliveries) - 1))

    sink = ScriptedSink(batch_size=3, script=too_few)
    worker = realtime(sink, store)
    await fill(base, *((f"{one}1", one) for one in "ABC"))
    with structlog.testing.capture_logs() as logs:
        async with working(worker):
            await until(lambda: len(sink.ids) == 3)
    said = [line["error"] for line in logs if line["event"] == "delivery.retry"]
    assert said == ["the sink told of 2 deliveries; it had 3"] * 3


async def test_a_permanent_error_is_a_dead_letter_and_releases_the_scope(
    backend: Backend, base: Store, store: CountingStore
) -> None:
    """The refused event is dead with the receiver's words, and the next of its scope follows at once."""

    async def refuse(deliveries: Sequence[Delivery]) -> None:
        if deliveries[0].event_id == "a1":
            raise PermanentDeliveryError("HTTP 422: no")

    sink = ScriptedSink(script=refuse)
    await fill(base, ("a1", "A"), ("a2", "A"))
    with structlog.testing.capture_logs() as logs:
        await drained(worker_of(sink, store))
    assert sink.ids == ["a2"]
    assert states(backend) == {"a1": ("dead", 1, "HTTP 422: no"), "a2": ("delivered", 1, None)}
    errors = [line for line in logs if line["log_level"] == "error"]
    assert errors[0].pop("duration_s") >= 0
    assert errors == [
        {
            "event": "delivery.dead_letter",
            "log_level": "error",
            "sink": "scripted",
            "event_id": "a1",
            "scope_type": "room",
            "scope_id": "A",
            "attempt": 1,
            "outcome": "dead",
            "status": None,
            "error": "HTTP 422: no",
        }
    ]


async def test_what_fails_after_a_refusal_or_a_pause_fails_since_then(
    base: Store, store: CountingStore
) -> None:
    """A refused event, or a sink that was disabled, hours ago is not since when deliveries fail now."""
    clock, later = Clock(), TransientDeliveryError("HTTP 503", down=False)
    ends = [PermanentDeliveryError("HTTP 400"), later, later]

    async def end(_: Any) -> None:
        raise ends.pop(0)

    sink = ScriptedSink(script=end)
    worker = worker_of(sink, store, now_ms=clock, policy=RetryPolicy(base_s=60, cap_s=60, max_age_s=1e9))
    async with working(worker):
        await fill(base, ("refused", "a"))
        worker.wake()
        await until(lambda: worker.health.last_error == "HTTP 400")
        clock.advance(6 * 3600)
        await fill(base, ("late", "b"))
        worker.wake()
        await until(lambda: worker.health.last_error == "HTTP 503")
        failing_ms = clock()
        assert worker.health.failing_since_ms == failing_ms
        worker.disable()
        clock.advance(3 * 24 * 3600)
        worker.enable()
        assert worker.health.failing_since_ms == clock()
        enabled_ms = clock()
        clock.advance(60)
        worker.wake()
        await until(lambda: not ends)
        await asleep(worker)
        assert worker.health.failing_since_ms == enabled_ms


async def test_a_misconfigured_sink_is_retried_until_max_age(
    backend: Backend, base: Store, store: CountingStore
) -> None:
    """Attempt after attempt fails for a whole max_age without a dead letter; only then it is one."""
    clock = Clock()

    async def refuse(_: Sequence[Delivery]) -> None:
        raise MisconfiguredSinkError("HTTP 401")

    sink = ScriptedSink(script=refuse)
    policy = RetryPolicy(max_age_s=1200, max_attempts=2)
    await fill(base, ("a1", "A"), received_ms=NOW_MS)
    while clock.now_ms < NOW_MS + 1_200_000:
        await drained(worker_of(sink, store, policy=policy, now_ms=clock))
        assert states(backend)["a1"][0] == "pending"
        clock.now_ms = backend.stored()[0].deliveries[0].due_ms
    assert len(sink.attempts) >= 4
    await drained(worker_of(sink, store, policy=policy, now_ms=clock))
    assert states(backend)["a1"][0] == "dead"


async def test_a_defect_of_a_sink_is_retried_and_logged_with_its_traceback(
    backend: Backend, base: Store, store: CountingStore
) -> None:
    """An exception that no sink should raise costs one attempt and neither the event nor the worker."""
    errors: list[Exception] = [ValueError("a defect"), KeyError()]

    async def broken(_: Sequence[Delivery]) -> None:
        if errors:
            raise errors.pop(0)

    sink = ScriptedSink(script=broken)
    await fill(base, ("a1", "A"))
    with structlog.testing.capture_logs() as logs:
        async with working(realtime(sink, store)):
            await until(lambda: sink.ids == ["a1"])
            await until(lambda: states(backend)["a1"] == ("delivered", 3, None))
    lines = [line for line in logs if line["event"] == "delivery.retry"]
    assert [line["error"] for line in lines] == ["a defect", "KeyError"]
    assert all(line["exc_info"] for line in lines)


async def test_drain_delivers_what_is_due_and_leaves_the_rest(base: Store, store: CountingStore) -> None:
    """Drain returns when nothing is due any more: what waits for a later time stays in the store."""
    clock = Clock()
    failing = {"a1"}

    async def refuse(deliveries: Sequence[Delivery]) -> None:
        if deliveries[0].event_id in failing:
            raise TransientDeliveryError("down")

    sink = ScriptedSink(script=refuse)
    await fill(base, ("a1", "A"), ("b1", "B"))
    await drained(worker_of(sink, store, policy=RetryPolicy(base_s=60), now_ms=clock))
    assert (sink.ids, await base.backlog()) == (["b1"], {"scripted": 1})
    failing.clear()
    await drained(worker_of(sink, store, now_ms=clock))
    assert sink.ids == ["b1"]
    clock.advance(120)
    await drained(worker_of(sink, store, now_ms=clock))
    assert (sorted(sink.ids), await base.backlog()) == (["a1", "b1"], {"scripted": 0})


async def test_drain_waits_for_attempts_under_way(
    backend: Backend, base: Store, store: CountingStore
) -> None:
    """An attempt that has begun is ended and settled before `run` returns."""
    release = asyncio.Event()

    async def hang(_: Sequence[Delivery]) -> None:
        await release.wait()

    sink = ScriptedSink(script=hang)
    await fill(base, ("a1", "A"))
    worker = worker_of(sink, store)
    async with working(worker) as task:
        await until(lambda: sink.attempts)
        worker.drain()
        await asyncio.wait([task], timeout=0.02)
        assert not task.done()
        release.set()
        await task
    assert states(backend)["a1"] == ("delivered", 1, None)


async def test_an_attempt_that_was_broken_off_is_made_again(
    backend: Backend, base: Store, store: CountingStore
) -> None:
    """Cancelling the worker cancels its attempts; nothing is settled, and the next worker delivers."""
    cancelled = asyncio.Event()

    async def hang(_: Sequence[Delivery]) -> None:
        try:
            await asyncio.Event().wait()
        finally:
            cancelled.set()

    sink = ScriptedSink(script=hang)
    await fill(base, ("a1", "A"), ("a2", "A"))
    async with working(worker_of(sink, store)) as task:
        await until(lambda: sink.attempts)
        task.cancel()
        await asyncio.wait([task])
        assert task.cancelled()
    assert cancelled.is_set()
    assert states(backend)["a1"] == ("pending", 0, None)
    sink.script = None
    await drained(worker_of(sink, store))
    assert sink.ids == ["a1", "a2"]


async def test_a_failing_settle_is_repeated_without_delivering_again(
    base: Store, store: CountingStore
) -> None:
    """While outcomes cannot be stored they stay in hand: each event goes out once, and settles when it can."""
    store.failures["settle"] = 3
    sink = ScriptedSink(max_in_flight=2)
    await fill(base, ("a1", "A"), ("a2", "A"), ("b1", "B"))
    with structlog.testing.capture_logs() as logs:
        await drained(worker_of(sink, store))
    assert sorted(sink.attempts) == [("a1",), ("a2",), ("b1",)]
    assert await base.backlog() == {"scripted": 0}
    assert [line["event"] for line in logs if line["log_level"] == "error"] == ["delivery.store_failed"] * 3


async def test_a_store_that_fails_is_left_alone_for_a_while(
    base: Store, store: CountingStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever wakes the worker meanwhile, also when it is to end: it would fill the log, and a core."""
    monkeypatch.setattr(worker_module, "STORE_PAUSE_S", 3600)
    store.failures["settle"] = 1_000
    worker = worker_of(ScriptedSink(), store)
    await fill(base, ("a1", "A"))
    with structlog.testing.capture_logs() as logs:
        async with working(worker) as task:
            await until(lambda: store.failures["settle"] < 1_000)
            worker.drain()
            for _ in range(100):
                await asyncio.sleep(0)
            task.cancel()
    assert [line["event"] for line in logs if line["log_level"] == "error"] == ["delivery.store_failed"]


async def test_a_failed_attempt_that_cannot_be_stored_still_holds_back_its_scope(
    base: Store, store: CountingStore
) -> None:
    """With the settle of a failure failing, the next event of the scope does not overtake."""
    store.failures["settle"] = 5
    failures = ["a1"]

    async def once(deliveries: Sequence[Delivery]) -> None:
        if deliveries[0].event_id in failures:
            failures.clear()
            raise TransientDeliveryError("once")

    sink = ScriptedSink(max_in_flight=4, script=once)
    await fill(base, ("a1", "A"), ("a2", "A"), ("a3", "A"))
    async with working(realtime(sink, store)):
        await until(lambda: len(sink.ids) == 3)
    assert sink.ids == ["a1", "a2", "a3"]


class HeldStore(CountingStore):
    """Commits no outcome until told."""

    def __init__(self, store: Store) -> None:
        super().__init__(store)
        self.may_settle = asyncio.Event()
        self.log: list[str] = []

    async def settle(self, *args: Any) -> None:
        self.log.append("settle")
        await self.may_settle.wait()
        await self._store.settle(*args)

    async def claim(self, *args: Any, **values: Any) -> Any:
        self.log.append("claim")
        return await self._store.claim(*args, **values)


async def test_what_is_ready_is_carried_while_outcomes_are_being_committed(base: Store) -> None:
    """A store that is busy with much else does not hold up deliveries that are in hand."""
    store, sink = HeldStore(base), ScriptedSink(batch_size=2)
    await fill(base, *((f"e{number}", f"omm_{number}") for number in range(8)))
    worker = worker_of(sink, store)
    async with working(worker):
        await until(lambda: len(sink.ids) == 8)
        assert store.log == ["claim", "settle"]
        store.may_settle.set()
        await asleep(worker)
    assert set((await base.backlog()).values()) == {0}


@pytest.mark.parametrize("commits", [0, 1, 2, 5])
async def test_what_a_kill_may_repeat_is_bounded(base: Store, commits: int) -> None:
    """Of what is delivered and not noted yet there are at most twelve times what may be on its way, however long a commit takes."""
    store, sink = HeldStore(base), ScriptedSink(max_in_flight=4)
    await fill(base, *((f"e{number}", f"omm_{number}") for number in range(400)))
    noted = 0

    async def settle(*args: Any) -> None:
        nonlocal noted
        store.log.append("settle")
        if store.log.count("settle") > commits:
            await store.may_settle.wait()
        await base.settle(*args)
        noted += len(args[1])

    store.settle = settle  # type: ignore[method-assign]
    worker = worker_of(sink, store)
    async with working(worker):
        await until(lambda: store.log.count("settle") > commits and not worker._pending.ready)
        await until(lambda: not worker._attempts)
        assert 4 < len(sink.ids) - noted <= 12 * 4
        store.may_settle.set()
        await until(lambda: len(sink.ids) >= 400)
        await asleep(worker)
    assert len(sink.ids) == 400


async def test_what_fails_while_outcomes_are_being_committed_is_committed_before_a_claim(base: Store) -> None:
    """No claim runs between a failure and its commit, whenever the attempt was made."""

    async def script(deliveries: Sequence[Delivery]) -> None:
        if deliveries[0].event_id == "e3":
            raise PermanentDeliveryError("no")

    store, sink = HeldStore(base), ScriptedSink(script=script)
    await fill(base, *((f"e{number}", f"omm_{number}") for number in range(6)))
    worker = worker_of(sink, store)
    async with working(worker):
        await until(lambda: len(sink.attempts) == 4)
        assert store.log == ["claim", "settle"]
        store.may_settle.set()
        await asleep(worker)
    assert store.log[:4] == ["claim", "settle", "settle", "claim"]


@pytest.mark.parametrize("call", ["claim", "claim_scopes"])
async def test_a_failing_read_is_repeated(base: Store, store: CountingStore, call: str) -> None:
    """A store that cannot be read for a while stops the worker for a while and not for good."""
    store.failures[call] = 3
    sink = ScriptedSink()
    worker = realtime(sink, store)
    base.on_commit = worker.wake
    await fill(base, ("a1", "A"), ("a2", "A"))  # of one scope: the second is claimed by it
    async with working(worker):
        await until(lambda: store.failures[call] == 0)
        await until(lambda: sink.ids == ["a1", "a2"])


async def test_an_idle_worker_sleeps(backend: Backend, base: Store, store: CountingStore) -> None:
    """With nothing to do there is neither a store call nor a wake-up: the loop has no timer and no task to run."""
    sink = ScriptedSink()
    worker = worker_of(sink, store)
    base.on_commit = worker.wake
    turns = 0
    turn = worker._turn

    async def counted() -> None:
        nonlocal turns
        turns += 1
        await turn()

    worker._turn = counted  # type: ignore[method-assign]
    async with working(worker):
        await until(lambda: store.calls["claim"])
        await asleep(worker)
        before = (turns, store.calls.copy())
        for _ in range(200):
            await asyncio.sleep(0.001)
        assert (turns, store.calls) == before
        await fill(base, ("a1", "A"))
        await until(lambda: sink.ids == ["a1"])
        await until(lambda: states(backend)["a1"][0] == "delivered")
    assert turns < before[0] + 10


async def test_no_busy_loop_while_a_retry_is_in_flight_or_waits(base: Store, store: CountingStore) -> None:
    """While an attempt hangs, a retry waits and others are held back, the store is left alone."""
    hanging = asyncio.Event()

    async def hang(deliveries: Sequence[Delivery]) -> None:
        if deliveries[0].attempts == 0:
            raise TransientDeliveryError("once", retry_after=0.001 if deliveries[0].event_id == "a1" else 60)
        hanging.set()
        await asyncio.Event().wait()

    sink = ScriptedSink(max_in_flight=4, script=hang)
    await fill(base, ("a1", "A"), ("a2", "A"), ("b1", "B"), ("b2", "B"))
    worker = realtime(sink, store)
    async with working(worker):
        async with asyncio.timeout(patience(5)):
            await hanging.wait()
        await asleep(worker)
        before = store.calls.copy()
        for _ in range(200):
            await asyncio.sleep(0.001)
        assert store.calls == before
        assert sum(before.values()) < 30


async def test_a_wake_during_a_claim_is_not_lost(base: Store, store: CountingStore) -> None:
    """An event that is stored while the worker looks into the store is delivered, whatever the interleaving."""
    sink = ScriptedSink(max_in_flight=3)
    worker = worker_of(sink, store)
    base.on_commit = worker.wake
    dice = random.Random(3)

    def delivered(count: int) -> bool:
        return len(sink.ids) == count

    async with working(worker):
        for number in range(200):
            await fill(base, (f"e{number:03}", f"omm_{number % 2}"))
            for _ in range(dice.randrange(6)):
                await asyncio.sleep(0)
            if number % 20 == 0:
                await until(partial(delivered, number + 1), 5)
        await until(lambda: len(sink.ids) == 200)


async def test_a_retry_is_found_when_the_clock_was_set_back(
    backend: Backend, base: Store, store: CountingStore
) -> None:
    """The clock jumps back an hour during an attempt that fails: the retry comes when its time has come all the same."""
    clock = Clock()
    failures = ["a1"]

    async def once(_: Sequence[Delivery]) -> None:
        if failures:
            failures.clear()
            await asleep(worker)  # it has found the store empty
            clock.advance(-3600)
            raise TransientDeliveryError("once")

    sink = ScriptedSink(max_in_flight=2, script=once)
    await fill(base, ("a1", "A"))
    worker = worker_of(sink, store, policy=RetryPolicy(base_s=0.01), now_ms=clock)
    async with working(worker):
        await until(lambda: not failures)
        await until(lambda: states(backend)["a1"][1] == 1)
        clock.advance(1)
        await until(lambda: sink.ids == ["a1"], 5)


async def paused(worker: Worker) -> None:
    worker.disable()
    await asyncio.sleep(0)
    worker.enable()


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize(("batch_size", "max_in_flight"), SHAPES)
async def test_nothing_starves_whatever_happens(
    base: Store, store: CountingStore, batch_size: int, max_in_flight: int, seed: int
) -> None:
    """Failures of all kinds, jumps of the clock, replays, pauses and a failing store: all is delivered, in order at first."""
    dice, clock = random.Random(seed), Clock()
    rough = True

    async def script(_: Sequence[Delivery]) -> None:
        await asyncio.sleep(dice.choice([0, 0.0005]))
        if rough and dice.random() < 0.4:
            wish = dice.choice([None, None, 0.5, 4000])
            raise TransientDeliveryError("no", down=dice.random() < 0.7, retry_after=wish)

    sink = ScriptedSink(batch_size=batch_size, max_in_flight=max_in_flight, script=script)
    worker = worker_of(sink, store, policy=RetryPolicy(base_s=5, max_age_s=1e12), now_ms=clock)
    base.on_commit, base.on_requeue = worker.wake, worker.requeue
    replays, count = 0, 0
    async with working(worker):
        while count < 300:
            scopes = [f"omm_{dice.randrange(9)}" for _ in range(dice.randrange(1, 12))]
            await fill(base, *((f"{count + n:03}", scope) for n, scope in enumerate(scopes)))
            count += len(scopes)
            happens = dice.randrange(7)
            if happens == 0:
                replays += await base.operate("replay", EventQuery(event_id=f"{dice.randrange(count):03}"))
            elif happens == 1:
                clock.advance(dice.choice([-24 * 400, -1, 1, 24 * 400]) * 3600)
            elif happens == 2:
                await paused(worker)
            elif happens == 3:
                store.failures[dice.choice(CALLS)] = dice.randrange(1, 3)
            clock.advance(dice.choice([0, 1, 70]))
            worker._wake.set()
            await asyncio.sleep(dice.choice([0, 0.001, 0.005]))
        rough = False
        async with asyncio.timeout(patience(20)):
            while (await base.backlog())["scripted"]:
                clock.advance(3600)
                worker._wake.set()
                await asyncio.sleep(0.002)
    assert len(sink.ids) == count + replays
    first = [list(dict.fromkeys(ids)) for ids in sink.delivered.values()]
    assert first == [sorted(ids) for ids in first]
    assert sum(map(len, first)) == count
    assert sink.overlaps == []


@pytest.mark.parametrize("which", ["claim", "claim_scopes"])
async def test_a_replay_during_a_claim_is_not_lost(base: Store, store: CountingStore, which: str) -> None:
    """What a claim found before the replay counts no more: the event goes out again."""
    sink = ScriptedSink()
    worker = worker_of(sink, store)
    await fill(base, ("old", "A"), ("a1", "B"))
    base.on_commit, base.on_requeue = worker.wake, worker.requeue
    inner = getattr(base, which)
    replayed: list[int] = []

    async def replaying(*args: Any, **values: Any) -> Any:
        found = await inner(*args, **values)
        if "old" in sink.ids and not replayed:
            replayed.append(1)
            assert await base.operate("replay", EventQuery(event_id="old")) == 1
        return found

    setattr(base, which, replaying)
    async with working(worker):
        await until(lambda: "a1" in sink.ids)
        await fill(base, *((f"b{n}", "B") for n in range(3)))
        await until(lambda: sink.ids.count("old") == 2)
        await until(lambda: len(sink.ids) == 6)


async def test_older_events_of_a_scope_go_first_when_a_claim_had_no_place_for_them(
    backend: Backend, base: Store, store: CountingStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With bodies so large that a claim of scopes is full before its time, no newer event overtakes."""
    backend.tune(monkeypatch, claim_bytes=1)
    dice = random.Random(4)

    async def dawdle(_: Sequence[Delivery]) -> None:
        for _turn in range(dice.randrange(9)):
            await asyncio.sleep(0.0005)

    sink = ScriptedSink(max_in_flight=8, script=dawdle)
    worker = worker_of(sink, store)
    base.on_commit = worker.wake
    async with working(worker):
        for start in range(0, 120, 40):
            await fill(base, *((f"{n:03}", f"omm_{n % 4}") for n in range(start, start + 40)))
            await asyncio.sleep(0.01)
        await until(lambda: len(sink.ids) == 120)
    assert by_scope(sink) == [[f"{n:03}" for n in range(scope, 120, 4)] for scope in range(4)]


async def test_an_event_stored_while_a_claim_comes_back_is_found(base: Store, store: CountingStore) -> None:
    """The claim has seen the end, the wake came before its answer: the worker looks once more."""
    sink = ScriptedSink()
    worker = worker_of(sink, store)
    base.on_commit = worker.wake
    inner = base.claim
    late: list[int] = []

    async def claim(*args: Any, **values: Any) -> Any:
        found = await inner(*args, **values)
        if not late:
            late.append(1)
            await fill(base, ("late", "A"))
        return found

    base.claim = claim  # type: ignore[method-assign]
    async with working(worker):
        await until(lambda: sink.ids == ["late"], 5)


@pytest.mark.parametrize(("batch_size", "max_in_flight"), SHAPES)
async def test_a_scope_that_never_rests_does_not_starve_others(
    base: Store, store: CountingStore, batch_size: int, max_in_flight: int
) -> None:
    """With an endless queue in one scope, refilled faster than it is carried, a new event of another goes out soon."""
    sink = ScriptedSink(batch_size=batch_size, max_in_flight=max_in_flight)
    worker = realtime(sink, store)
    base.on_commit = worker.wake
    hot = 0

    async def flood() -> None:
        nonlocal hot
        while True:
            await fill(base, *((f"hot {hot + n}", f"hot{n % 3}") for n in range(30)))
            hot += 30

    async with working(worker):
        flooding = asyncio.create_task(flood())
        await until(lambda: len(sink.ids) > 100)
        await fill(base, ("cold", "C"))
        await until(lambda: "cold" in sink.ids, 20)
        assert sink.ids.index("cold") < hot  # the flood went on
        flooding.cancel()
        await asyncio.wait([flooding])


# -- the pace -----------------------------------------------------------------------------------------------------------------


async def test_events_that_keep_coming_share_a_look(base: Store, store: CountingStore) -> None:
    """The first event is looked for at once, what follows soon after together; each arrives, in order."""
    sink = ScriptedSink(batch_size=500)
    worker = worker_of(sink, store)
    base.on_commit = worker.wake
    async with working(worker):
        await until(lambda: store.calls["claim"] == 1)  # what was there at the start
        for number in range(100):
            await fill(base, (f"e{number}", f"omm_{number}"))
        await until(lambda: len(sink.ids) == 100)
        assert sink.ids == [f"e{number}" for number in range(100)]
        assert store.calls["claim"] < 50


async def test_an_event_after_a_pause_is_looked_for_at_once(
    base: Store, store: CountingStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However slow the pace: the first after a pause, and what is left when the daemon drains, do not wait for it."""
    monkeypatch.setattr(worker_module, "PACE_S", 3600.0)
    sink = ScriptedSink()
    worker = worker_of(sink, store)
    base.on_commit = worker.wake
    async with working(worker) as running:
        await fill(base, ("first", "omm_1"))
        await until(lambda: sink.ids == ["first"])
        await fill(base, ("second", "omm_1"))
        await until(lambda: worker._next_look is not None)
        assert sink.ids == ["first"]
        worker.drain()
        await running
    assert sink.ids == ["first", "second"]


@pytest.mark.parametrize("window_s", [0.05, 3600.0])
async def test_a_sink_with_a_window_gets_what_comes_within_it_together(
    base: Store, store: CountingStore, window_s: float
) -> None:
    """From the first event on, two of one room included. What is there at the start, and at the end, does not wait."""
    sink = ScriptedSink(batch_size=50)
    sink.window_s = window_s  # type: ignore[attr-defined]
    await fill(base, ("old", "omm_0"))
    worker = worker_of(sink, store)
    base.on_commit = worker.wake
    async with working(worker) as running:
        await until(lambda: sink.ids == ["old"])
        new = [f"e{number}" for number in range(5)]
        await fill(base, *((each, f"omm_{number // 2}") for number, each in enumerate(new)))
        if window_s > 1:
            await until(lambda: worker._next_look is not None)
            assert sink.ids == ["old"]
            worker.drain()
            await running
        await until(lambda: sink.ids == ["old", *new])
    assert sink.attempts == [("old",), tuple(new)]


@pytest.mark.parametrize(
    "error",
    [TransientDeliveryError, MisconfiguredSinkError, PermanentDeliveryError, SinkGoneError, ValueError],
)
async def test_a_secret_that_a_sink_quotes_is_kept_nowhere(
    store: CountingStore, base: Store, error: type[Exception]
) -> None:
    """Not with the delivery, its attempts or the sink, whatever kind of error has it; what else it says is kept."""

    async def quote(_: object) -> None:
        raise error("401 for s3cr3t")

    await append(base, event(event_id="one"))
    sink = ScriptedSink(script=quote)
    worker = Worker(
        sink, store, policy=RetryPolicy(base_s=60), redact=lambda text: text.replace("s3cr3t", "***")
    )
    async with working(worker):
        await until(lambda: worker.health.last_error is not None and store.calls["settle"] > 0)
        await asleep(worker)
    kept = repr((await base.insight("cli_a", gaps_since_ms=0), worker.health, await base.sinks()))
    assert "401 for ***" in kept
    assert "s3cr3t" not in kept
