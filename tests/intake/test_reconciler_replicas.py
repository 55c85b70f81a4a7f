"""Of several daemons that share a store one compares: what becomes of a pass when another is the one."""

from __future__ import annotations

from collections import Counter
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING, Any

import structlog

from reserve_listener.errors import LeaseLostError
from reserve_listener.intake import reconciler
from reserve_listener.simulator import Estate, Simulator
from tests.helpers import until
from tests.intake.asking import running
from tests.intake.comparing import World, asking, said

if TYPE_CHECKING:
    from pathlib import Path

    import pytest

    from reserve_listener.intake.jobs import Job
    from reserve_listener.protocols.store import Store
    from reserve_listener.simulator import Call
    from tests.intake.comparing import Seconds


class Turns:
    """Whether this daemon is the one; it loses that with the answer to the fifth read, and hears of it when it writes."""

    def __init__(self, world: World, monkeypatch: pytest.MonkeyPatch) -> None:
        self.is_ours, self.asked = True, 0
        self._compare = world.store.compare
        monkeypatch.setattr(reconciler, "LEAD_EVERY_S", 0.01)
        monkeypatch.setattr(world.store, "may_reconcile", self._may)
        monkeypatch.setattr(world.store, "compare", self._fenced)
        world.simulator.faults.before_answer = self._answered
        self._world = world

    async def _answered(self, _: Call) -> None:
        self.is_ours = self.is_ours and len(self._world.reads) < 5

    async def _may(self) -> bool:
        self.asked += not self.is_ours
        return self.is_ours

    async def _fenced(self, *args: object, **more: object) -> object:
        if not self.is_ours:
            raise LeaseLostError
        return await self._compare(*args, **more)  # type: ignore[arg-type]

    async def lost(self) -> None:
        """Until it knows."""
        await until(lambda: self.asked > 2)
        self._world.simulator.faults.before_answer = None

    def regain(self) -> None:
        """It is this one again."""
        self.is_ours = True


async def test_a_pass_goes_on_where_the_other_daemon_left_it(
    tmp_path: Path, simulator: Simulator, time: Seconds, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Meanwhile nothing is asked for and nothing is wrong; what is read by then is not read again, and no pass follows."""
    with structlog.testing.capture_logs() as logs:
        async with asking(tmp_path, simulator, time) as world:
            job, turns = await _losing(world, monkeypatch)
            reads = len(world.reads)
            turns.regain()
            await world.over(job)
    assert said(logs).count("reconcile.started") == 1
    assert not [line for line in logs if line["log_level"] in {"warning", "error"}]
    assert reads == 5
    assert sorted(Counter(world.read_ids).values()) == [*[1] * (len(simulator.estate.places) - 1), 2]
    assert job.problem is None


async def test_a_pass_that_the_other_daemon_has_ended_is_over(
    tmp_path: Path, simulator: Simulator, time: Seconds, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is not read once more, and a pass that the other has begun is not ended by this one."""
    async with asking(tmp_path, simulator, time) as world:
        job, turns = await _losing(world, monkeypatch)
        await world.store.end_pass(simulator.app_id)
        await world.store.begin_pass(simulator.app_id)
        turns.regain()
        await world.over(job)
        assert len(world.reads) == 5
        last = await world.store.last_pass(simulator.app_id)
        assert last is not None
        assert last.is_unfinished


async def _losing(world: World, monkeypatch: pytest.MonkeyPatch) -> tuple[Job, Turns]:
    turns = Turns(world, monkeypatch)
    job = world.reconciler.agenda.want("start")
    world.reconciler.begin("start")
    await turns.lost()
    return job, turns


class Led:
    """The store as one of two daemons has it."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self.leads = False

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)

    async def may_reconcile(self) -> bool:
        """See `StoreReadings.may_reconcile`."""
        return self.leads


async def test_daemons_that_take_over_read_no_more_together(
    tmp_path: Path, time: Seconds, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every 15 reads another one has the turn, each with a client of its own that has rested: the platform counts for all."""
    monkeypatch.setattr(reconciler, "LEAD_EVERY_S", 0.01)
    async with (
        Simulator(estate=Estate(rooms=200), clock=time) as simulator,
        World(simulator, time, tmp_path).opened() as world,
    ):
        daemons = [_daemon(world, time, tmp_path) for _ in range(3)]
        time.now_s += 600
        daemons[0][0].leads = True

        async def pass_on(_call: Call) -> None:
            turn = len(world.reads) // 15 % len(daemons)
            for number, (led, _) in enumerate(daemons):
                led.leads = number == turn

        simulator.faults.before_answer = pass_on
        async with AsyncExitStack() as stack:
            for _, other in daemons:
                stack.push_async_callback(other.client.close)
                await stack.enter_async_context(running(other.reconciler))
                other.reconciler.begin("start")
            await until(lambda: len(world.reads) > 190)
        times = [call.at for call in world.reads]
        assert max(sum(at <= one < at + 60 for one in times) for at in times) <= 84
        assert {call.code for call in world.reads} == {0}


def _daemon(world: World, time: Seconds, folder: Path) -> tuple[Led, World]:
    led = Led(world.store)
    another = World(world.simulator, time, folder)
    another.store = led  # it has all of a store
    another.reconciling()
    return led, another
