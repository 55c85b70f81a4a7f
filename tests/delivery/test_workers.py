"""All workers together: replaced by a reload, drained, put away; whatever a sink or the store does meanwhile."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Any

import pytest
import structlog

from reserve_listener.delivery import SinkSpec, Workers, workers as workers_module
from reserve_listener.delivery.retry import RetryPolicy
from reserve_listener.errors import SinkGoneError, StoreError, TransientDeliveryError
from reserve_listener.simulator import patience
from tests.delivery.test_worker import CountingStore, drained, fill, worker_of
from tests.helpers import ScriptedSink, until

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence

    from reserve_listener.model import Delivery
    from reserve_listener.protocols.store import Store
    from tests.backends import Backend

POLICY = RetryPolicy(max_age_s=1e12)
EVENTS = [(f"{n}", f"omm_{n}") for n in range(4)]


class ClosingSink(ScriptedSink):
    """Counts its ends, and ends as it is told."""

    def __init__(self, name: str, **more: Any) -> None:
        super().__init__(name, **more)
        self.closed = 0
        self.end: Exception | asyncio.Barrier | float | None = None

    async def close(self) -> None:
        self.closed += 1
        if isinstance(self.end, Exception):
            raise self.end
        if isinstance(self.end, asyncio.Barrier):
            await self.end.wait()
        else:
            await asyncio.sleep(self.end or 0)


class Holding:
    """A script that holds attempts back."""

    def __init__(self) -> None:
        self.release = asyncio.Event()

    async def __call__(self, _: Sequence[Delivery]) -> None:
        await self.release.wait()


@pytest.fixture
async def base(backend: Backend) -> AsyncIterator[Store]:
    store = await backend.open("a", "b")
    yield store
    await store.close()


def spec(sink: ScriptedSink, settings: Any = None) -> SinkSpec:
    return SinkSpec(sink=sink, policy=POLICY, settings=settings)


async def drain(workers: Workers, timeout_s: float = 10) -> None:
    async with asyncio.timeout(patience(15)):
        await workers.drain(timeout_s, asyncio.Event())


async def test_a_worker_that_is_kept_does_not_notice_a_reload(base: Store) -> None:
    """Its attempts go on, its sink stays open; the other's attempts end before its sink is closed."""
    kept, other = Holding(), Holding()
    a, b = ClosingSink("a", script=kept), ClosingSink("b", script=other)
    workers = Workers(base)
    await fill(base, *EVENTS)
    workers.start([spec(a, 1), spec(b, 1)])
    await until(lambda: a.attempts and b.attempts)
    worker, leaving = workers.worker("a"), workers.worker("b")
    keeping = workers.unchanged([spec(a, 1), spec(b, 2)])
    assert keeping == {"a"}
    halting = asyncio.create_task(workers.halt(keeping=keeping))
    await until(lambda: leaving and leaving.leaving)
    assert (halting.done(), b.closed) == (False, 0)
    other.release.set()
    await halting
    assert (b.closed, b.ids, len(b.attempts)) == (1, ["0"], 1)
    assert (a.closed, len(a.attempts), a.ids) == (0, 1, [])
    assert (workers.worker("a"), workers.worker("b")) == (worker, None)
    new = ClosingSink("b")
    workers.start([spec(new)])
    kept.release.set()
    await drain(workers)
    assert (len(a.ids), new.ids) == (4, ["1", "2", "3"])
    assert (a.closed, new.closed) == (1, 1)


async def test_only_what_is_equal_and_runs_is_unchanged(base: Store) -> None:
    """Without settings, with others, or without a worker of that name a sink is made anew."""
    workers = Workers(base)
    a, b = spec(ClosingSink("a"), "x"), spec(ClosingSink("b"))
    workers.start([a])
    assert workers.unchanged([a, b]) == {"a"}
    assert workers.unchanged([spec(ClosingSink("a"), "y")]) == set()
    assert workers.unchanged([spec(ClosingSink("a"))]) == set()
    assert workers.unchanged([spec(ClosingSink("b"), "x")]) == set()
    await drain(workers)
    workers.start([b])
    assert workers.unchanged([b]) == set()
    await drain(workers)


async def test_a_stop_during_a_reload_puts_away_what_was_leaving(base: Store) -> None:
    """Cancelled while it waits for an attempt: what leaves is ended and closed all the same, and `drain` ends the rest."""
    a, b = ClosingSink("a"), ClosingSink("b", script=Holding())
    workers = Workers(base)
    await fill(base, *EVENTS)
    workers.start([spec(a), spec(b)])
    await until(lambda: len(a.ids) == 4 and b.attempts)
    leaving = workers.worker("b")
    halting = asyncio.create_task(workers.halt(keeping={"a"}))
    await until(lambda: leaving and leaving.leaving)
    halting.cancel()
    await asyncio.wait([halting])
    assert halting.cancelled()
    assert (a.closed, b.closed) == (0, 1)
    assert set(workers.health()) == {"a"}
    await drain(workers)
    assert (a.closed, b.closed) == (1, 1)
    assert await base.backlog() == {"a": 0, "b": 4}


async def test_drain_during_a_reload_ends_everything(base: Store) -> None:
    """Both at the same time: neither fails, all sinks are closed, nothing runs."""
    a, b = ClosingSink("a", script=Holding()), ClosingSink("b", script=Holding())
    workers = Workers(base)
    await fill(base, *EVENTS)
    workers.start([spec(a), spec(b)])
    await until(lambda: a.attempts and b.attempts)
    leaving = workers.worker("b")
    halting = asyncio.create_task(workers.halt(keeping={"a"}))
    await until(lambda: leaving and leaving.leaving)
    await drain(workers, 0.01)
    await halting
    assert workers.health() == {}
    assert a.closed >= 1
    assert b.closed >= 1
    assert not [task for task in asyncio.all_tasks() if task.get_name().startswith(("worker-", "delivery-"))]


async def test_halt_does_not_wait_for_ever(base: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """An attempt that does not end is broken off, and its event delivered by the next worker."""
    monkeypatch.setattr(workers_module, "HALT_TIMEOUT_S", 0.05)
    a = ClosingSink("a", script=Holding())
    workers = Workers(base)
    await fill(base, *EVENTS)
    workers.start([spec(a)])
    await until(lambda: a.attempts)
    async with asyncio.timeout(patience(5)):
        await workers.halt()
    assert (a.closed, a.ids) == (1, [])
    new = ClosingSink("a")
    workers.start([spec(new)])
    await drain(workers)
    assert len(new.ids) == 4


async def test_what_had_ended_at_the_deadline_is_not_delivered_again(base: Store) -> None:
    """The store cannot take outcomes until the deadline has passed: they are saved at the end, with what ended meanwhile."""
    store: Any = CountingStore(base)
    broken = asyncio.Event()

    async def settle(*args: Any, **values: Any) -> None:
        if not broken.is_set():
            broken.set()
            await asyncio.Event().wait()
        await base.settle(*args, **values)

    async def later(deliveries: Sequence[Delivery]) -> None:
        if deliveries[0].event_id == "3":
            await broken.wait()

    store.settle = settle
    a = ClosingSink("a", max_in_flight=4, script=later)
    workers = Workers(store)
    await fill(base, *EVENTS)
    workers.start([spec(a)])
    await broken.wait()
    await until(lambda: len(a.ids) == 4)
    await drain(workers, 0.01)
    assert await base.backlog() == {"a": 0, "b": 4}
    new = ClosingSink("a")
    await drained(worker_of(new, base))
    assert new.attempts == []


async def test_that_a_sink_is_gone_is_saved_at_the_end(base: Store) -> None:
    """A 410 in the last moment, with a store that fails then: it is disabled at the next start."""
    store = CountingStore(base)
    store.failures["disable_gone"] = 1

    async def gone(_: Sequence[Delivery]) -> None:
        raise SinkGoneError("HTTP 410")

    a = ClosingSink("a", script=gone)
    workers = Workers(store)
    await fill(base, *EVENTS)
    workers.start([spec(a)])
    await drain(workers)
    assert [one.name for one in await base.sinks() if one.disabled_ms is not None] == ["a"]


@pytest.mark.parametrize("hangs", [False, True])
async def test_a_store_that_fails_at_the_end_keeps_nobody_from_ending(
    base: Store, monkeypatch: pytest.MonkeyPatch, *, hangs: bool
) -> None:
    """What cannot be saved is said, and every sink is closed."""
    monkeypatch.setattr(workers_module, "SAVE_TIMEOUT_S", 0.05)
    store: Any = CountingStore(base)

    async def settle(*_: Any, **__: Any) -> None:
        if hangs:
            await asyncio.Event().wait()
        raise StoreError("disk full")

    store.settle = settle
    a, b = ClosingSink("a"), ClosingSink("b")
    workers = Workers(store)
    await fill(base, *EVENTS)
    workers.start([spec(a), spec(b)])
    await until(lambda: a.ids and b.ids)
    with structlog.testing.capture_logs() as logs:
        await drain(workers, 0.05)
    lines = [line for line in logs if line["event"] == "delivery.not_saved"]
    words = "no commit in time" if hangs else "disk full"
    assert sorted((line["sink"], line["error"]) for line in lines) == [("a", words), ("b", words)]
    assert (a.closed, b.closed) == (1, 1)


async def test_a_sink_that_does_not_close_keeps_nobody_from_ending(
    base: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One raises and one hangs: both are said, and the end is not held up for longer than the bound."""
    monkeypatch.setattr(workers_module, "CLOSE_TIMEOUT_S", 0.1)
    a, b = ClosingSink("a"), ClosingSink("b")
    a.end, b.end = OSError("torn"), 3600.0
    workers = Workers(base)
    workers.start([spec(a), spec(b)])
    started = time.monotonic()
    with structlog.testing.capture_logs() as logs:
        await drain(workers)
    assert time.monotonic() - started < patience(2)
    lines = {line["sink"]: line["error"] for line in logs if line["event"] == "delivery.close_failed"}
    assert lines == {"a": "torn", "b": "TimeoutError"}


async def test_sinks_are_closed_side_by_side(base: Store) -> None:
    """Two of which neither ends before the other has begun to end at all."""
    a, b = ClosingSink("a"), ClosingSink("b")
    a.end = b.end = asyncio.Barrier(2)
    workers = Workers(base)
    workers.start([spec(a), spec(b)])
    with structlog.testing.capture_logs() as logs:
        await drain(workers)
    assert not [line for line in logs if line["event"] == "delivery.close_failed"]


def test_the_bounds_of_an_end_are_a_few_seconds() -> None:
    """Longer than the file sink gives its disk, and well below systemd's patience."""
    assert workers_module.SAVE_TIMEOUT_S <= 5
    assert 5 < workers_module.CLOSE_TIMEOUT_S <= 8


async def test_a_worker_that_dies_is_told(base: Store) -> None:
    """`wait_failed` raises its error, or says which ended; not for one that was asked to leave."""

    class Broken(CountingStore):
        async def claim(self, *_: Any, **__: Any) -> Any:
            raise ZeroDivisionError("a defect")

    leaving = Workers(base)
    leaving.start([spec(ClosingSink("a"))])
    told = asyncio.create_task(leaving.wait_failed())
    await drain(leaving)
    await asyncio.sleep(0)
    assert not told.done()
    told.cancel()
    broken = Workers(Broken(base))
    broken.start([spec(ClosingSink("a")), spec(ClosingSink("b"))])
    async with asyncio.timeout(patience(5)):
        with pytest.raises(ZeroDivisionError, match="a defect"):
            await broken.wait_failed()
    await drain(broken)


async def test_a_worker_that_is_cancelled_from_elsewhere_is_told(base: Store) -> None:
    """An end without an error is one all the same."""
    workers = Workers(base)
    workers.start([spec(ClosingSink("a"))])
    await asyncio.sleep(0)
    next(task for task in asyncio.all_tasks() if task.get_name() == "worker-a").cancel()
    async with asyncio.timeout(patience(5)):
        with pytest.raises(RuntimeError, match="worker-a ended unexpectedly"):
            await workers.wait_failed()
    await drain(workers)


async def test_a_second_drain_finds_nothing_to_do(base: Store) -> None:
    """Also one at the same time; and `hurry` ends a drain that would wait."""
    a = ClosingSink("a", script=Holding())
    workers = Workers(base)
    await fill(base, *EVENTS)
    workers.start([spec(a)])
    await until(lambda: a.attempts)
    hurry = asyncio.Event()
    worker = workers.worker("a")
    first = asyncio.create_task(workers.drain(60, hurry))
    await until(lambda: worker and worker.leaving)
    assert not first.done()
    hurry.set()
    async with asyncio.timeout(patience(5)):
        await first
        await workers.drain(60, asyncio.Event())
    assert a.closed == 1


async def test_all_are_woken_told_and_asked(base: Store) -> None:
    """`wake` and `requeue` reach every worker, `disabled` only those that are named; health is by name."""
    a, b = ClosingSink("a"), ClosingSink("b")
    workers = Workers(base)
    workers.start([spec(a), spec(b)], disabled={"b"})
    base.on_commit = workers.wake
    await until(lambda: workers.worker("a") is not None)
    await fill(base, *EVENTS)
    await until(lambda: len(a.ids) == 4)
    assert b.attempts == []
    assert {name: health.state for name, health in workers.health().items()} == {"a": "ok", "b": "disabled"}
    worker = workers.worker("b")
    assert worker is not None
    worker.enable()
    await until(lambda: len(b.ids) == 4)

    async def refuse(_: Sequence[Delivery]) -> None:
        raise TransientDeliveryError("busy", down=False)

    a.script = refuse
    await fill(base, ("last", "omm_last"))
    await until(lambda: workers.health()["a"].state == "failing")
    await until(lambda: workers.health()["a"].next_attempt_ms is not None)
    await base.release("a")
    a.script = None
    workers.requeue()
    await until(lambda: "last" in a.ids)
    await drain(workers)
