"""What a person gets who asks for a comparison."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest
import structlog

from reserve_listener.daemon.comparisons import comparison_of
from reserve_listener.errors import NotFoundError, ReserveListenerError
from reserve_listener.intake.agenda import JOBS_KEPT
from reserve_listener.intake.jobs import Target
from reserve_listener.simulator import ApiFault, Simulator
from tests.helpers import until
from tests.intake import asking as shared
from tests.intake.comparing import LIMITS, Seconds, World, asking, change

if TYPE_CHECKING:
    from pathlib import Path

    from reserve_listener.simulator import Call


async def test_a_person_asks_for_some(tmp_path: Path, simulator: Simulator, time: Seconds) -> None:
    """These are read at once, beside a pass; what is only tried out is found again; what nobody knows is said."""
    room, other = simulator.estate.rooms[:2]
    async with asking(tmp_path, simulator, time) as world:
        await world.pass_over()
        change(simulator, room, 3)
        time.now_s += 60
        before = len(world.read_ids)
        tried = await world.reconciler.ask([room.id, other.id], dry_run=True)
        await world.over(tried)
        assert world.history(room) == []
        asked = await world.reconciler.ask([room.id, other.id], dry_run=False)
        await world.over(asked)
        assert sorted(world.read_ids[before:]) == sorted([room.id, other.id] * 2)
        assert [entry.event_id for entry in tried.found] == [entry.event_id for entry in world.history(room)]
        assert world.reconciler.agenda.job(asked.id) is asked
        with pytest.raises(NotFoundError, match="omm_nobody"):
            await world.reconciler.ask([room.id, "omm_nobody"], dry_run=False)
        with pytest.raises(NotFoundError):
            world.reconciler.agenda.job("x")


async def test_a_person_who_asks_for_all_has_everything_read_from_then_on(
    tmp_path: Path, simulator: Simulator, time: Seconds
) -> None:
    """What a pass has read before is read again by another, after it; who waits sees what both find from then on, once."""
    early, before, after = simulator.estate.rooms[:3]
    async with asking(tmp_path, simulator, time) as world:
        await world.pass_over()
        change(simulator, early, 2)
        time.now_s += 60
        held = asyncio.Event()
        read: list[str] = []

        async def hold(call: Call) -> None:
            read.append(call.query.get("scope_id", ""))
            if before.id in read and not held.is_set():
                held.set()
                await asyncio.sleep(0.05)

        running = world.reconciler.agenda.want("start")
        world.reconciler.begin("start")
        simulator.faults.before_answer = hold
        await held.wait()
        await until(lambda: before.id in read and running.done)
        change(simulator, before, 3)
        change(simulator, after, 4)
        time.now_s += 10
        job = await world.reconciler.ask(None, dry_run=False)
        assert job is not running
        assert await world.reconciler.ask(None, dry_run=False) is job
        assert world.reconciler.agenda.ahead(job) == len(running.left)
        await world.over(job)
        assert job.done == job.total
        assert {entry.scope.scope_id for entry in job.found} >= {before.id, after.id}
        assert len(job.found) == job.differences + job.before
        assert running.ended_ms is not None
        assert running.ended_ms <= job.started_ms


async def test_a_person_hears_of_what_is_found_while_an_older_pass_is_finished(
    tmp_path: Path, simulator: Simulator, time: Seconds
) -> None:
    """Asked before that has begun again, just after a start: it is part of all that is read from then on."""
    room = simulator.estate.rooms[0]
    async with asking(tmp_path, simulator, time) as world:
        await world.pass_over()
        await world.over(await world.reconciler.ask([room.id], dry_run=False))  # it is the last then
        time.now_s += 60
        job = world.reconciler.agenda.want("start")
        world.reconciler.begin("start")
        await until(lambda: job.done)
        simulator.faults.api.append(ApiFault(path=LIMITS, status=502))
        assert Target("room", room.id) in job.left
    simulator.faults.api.clear()
    change(simulator, room, 3)
    time.now_s += 60
    with structlog.testing.capture_logs() as logs:
        async with World(simulator, time, tmp_path).opened() as world:
            asked = world.reconciling()
            job = await asked.ask(None, dry_run=False)
            async with shared.running(asked):
                await world.over(job)
            assert [entry.scope.scope_id for entry in job.found] == [room.id]
            assert comparison_of(job, 0, world.directory).differences == 1
    done = [line for line in logs if line["event"] == "reconcile.done"]
    assert [(line["why"], line["differences"]) for line in done] == [("resume", 1), ("request", 0)]


async def test_the_lines_of_a_person_who_joins_after_a_restart_agree_with_the_sum(
    tmp_path: Path, simulator: Simulator, time: Seconds
) -> None:
    """What an earlier life has found is in the status, and in no line of theirs."""
    first, *_, last = simulator.estate.rooms
    async with asking(tmp_path, simulator, time) as world:
        await world.pass_over()
        time.now_s += 60
        for room in (first, last):
            change(simulator, room, 3)
        job = world.reconciler.agenda.want("start")
        world.reconciler.begin("start")
        await until(lambda: job.differences)
        simulator.faults.api.append(ApiFault(path=LIMITS, status=502))
        found = job.differences
        assert job.left
    simulator.faults.api.clear()
    async with asking(tmp_path, simulator, time) as world:
        time.now_s += 60
        world.reconciler.begin("start")
        job = await world.reconciler.ask(None, dry_run=False)
        await world.over(job)
        told = comparison_of(job, 0, world.directory)
        assert (told.state, told.differences, len(told.found)) == ("done", len(job.found), len(job.found))
        assert told.differences <= 2 - found
        assert (len(world.history(first)), len(world.history(last))) == (1, 1)


async def test_only_so_many_persons_wait(tmp_path: Path, simulator: Simulator, time: Seconds) -> None:
    """Beyond that the next one is told; the others have their turn."""
    async with asking(tmp_path, simulator, time) as world:
        await world.pass_over()
        room = simulator.estate.rooms[0]
        simulator.faults.api.append(ApiFault(path=LIMITS, status=502))
        jobs = [await world.reconciler.ask([room.id], dry_run=True) for _ in range(JOBS_KEPT)]
        with pytest.raises(ReserveListenerError, match="waiting already"):
            await world.reconciler.ask([room.id], dry_run=True)
        simulator.faults.api.clear()
        for job in jobs:
            await world.over(job)
            assert world.reconciler.agenda.job(job.id) is job


async def test_a_person_who_asks_for_all_joins_the_pass(
    tmp_path: Path, simulator: Simulator, time: Seconds
) -> None:
    """One is enough for both; only trying out has its own."""
    async with asking(tmp_path, simulator, time) as world:
        world.reconciler.begin("start")
        job = await world.reconciler.ask(None, dry_run=False)
        assert await world.reconciler.ask(None, dry_run=False) is job
        dry = await world.reconciler.ask(None, dry_run=True)
        await world.over(job)
        await world.over(dry)
        assert (dry.total, dry.differences) == (job.total, 0)
        assert len(world.read_ids) == 2 * job.total
        later = await world.reconciler.ask(None, dry_run=False)
        assert later is not job
        await world.over(later)
