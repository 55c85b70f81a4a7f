"""Of several daemons that share a store one compares: what becomes of a pass when another is the one."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

import structlog

from reserve_listener.errors import LeaseLostError
from reserve_listener.intake import reconciler
from tests.helpers import until
from tests.intake.comparing import asking, said

if TYPE_CHECKING:
    from pathlib import Path

    import pytest

    from reserve_listener.intake.jobs import Job
    from reserve_listener.simulator import Call, Simulator
    from tests.intake.comparing import Seconds, World


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
