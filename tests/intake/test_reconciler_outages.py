"""What goes wrong while limits are read: what is wrong with everything is waited out, what is wrong with a room is told."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

import pytest
import structlog

from reserve_listener.daemon.comparisons import comparison_of
from reserve_listener.errors import StoreError
from reserve_listener.intake.jobs import TRIES
from reserve_listener.simulator import ApiFault, Estate, Simulator
from tests.helpers import until
from tests.intake.comparing import CALLS, LIMITS, Seconds, asking, change, held_up, job_size, said, spoiling

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.parametrize(
    "fault",
    [
        ApiFault(path=LIMITS, status=502),
        ApiFault(path=LIMITS, status=500, code=121001),
        ApiFault(path=LIMITS, body=b'{"code": 0}'),
        ApiFault(path=LIMITS, body=b"garbage"),
    ],
    ids=["gateway", "internal", "no data", "garbage"],
)
async def test_a_scope_that_fails_holds_no_other_up(
    tmp_path: Path, simulator: Simulator, time: Seconds, fault: ApiFault
) -> None:
    """Others are answered meanwhile, so it is what is wrong: it is given up, the pass ends, and says of how many it knows nothing."""
    async with asking(tmp_path, simulator, time) as world:
        spoiling(simulator, fault, *simulator.estate.rooms[:2])
        job = await world.pass_over()
        assert (job.failed, job.done, job.gone) == (2, job.total, 0)
        assert job.unread is not None
        assert Counter(world.read_ids)[simulator.estate.rooms[0].id] == TRIES * CALLS
        assert len(world.known()) == job.total - 2


async def test_the_last_rooms_of_a_pass_may_be_what_is_wrong(
    tmp_path: Path, simulator: Simulator, time: Seconds
) -> None:
    """Nobody else is left to be read, so one is read that was answered: the pass ends, and so does what a person asks for."""
    last = simulator.estate.rooms[-5:]
    async with asking(tmp_path, simulator, time) as world:
        await world.pass_over()
        for room in last:
            await world.over(await world.reconciler.ask([room.id], dry_run=False))
            time.now_s += 1
        spoiling(simulator, ApiFault(path=LIMITS, status=502), *last)
        job = await world.pass_over()
        assert (job.failed, job.done) == (len(last), job.total)
        asked = await world.reconciler.ask([last[0].id], dry_run=False)
        await world.over(asked)
        assert (asked.failed, asked.unread is None) == (1, False)


async def test_one_room_of_which_the_platform_says_that_it_failed(
    tmp_path: Path, simulator: Simulator, time: Seconds
) -> None:
    """There is nobody to compare it with, but the answer is about this call: a person does not wait for ever."""
    async with asking(tmp_path, simulator, time) as world:
        await world.pass_over()
        room = simulator.estate.rooms[0]
        spoiling(simulator, ApiFault(path=LIMITS, status=500, code=121001), room)
        job = await world.reconciler.ask([room.id], dry_run=False)
        await world.over(job)
        assert (job.failed, job.done) == (1, 1)
        assert job.unread is not None
        assert "121001" in job.unread[0]


@pytest.mark.parametrize(
    "fault",
    [
        ApiFault(path=LIMITS, status=502),
        ApiFault(path=LIMITS, cut=True),
        ApiFault(path=LIMITS, status=500, code=121001),
        ApiFault(path=LIMITS, status=400, code=1000040345, msg="system busy"),
        ApiFault.too_often(path=LIMITS, reset_s=100),
        ApiFault.token_refused(path=LIMITS),
        ApiFault(path=LIMITS, headers={"date": "yesterday"}),
        ApiFault(path=LIMITS, body=b"<html>log in first</html>"),
    ],
    ids=["gateway", "network", "internal", "busy", "rate limit", "token", "date", "portal"],
)
async def test_what_is_wrong_with_everything_counts_against_no_scope(
    tmp_path: Path, time: Seconds, fault: ApiFault
) -> None:
    """However long it lasts, the pass waits; then it goes on and reads every one."""
    async with (
        Simulator(estate=Estate(rooms=2, depth=1), clock=time) as simulator,
        asking(tmp_path, simulator, time) as world,
    ):
        await world.pass_over()
        change(simulator, simulator.estate.rooms[0], 3)
        time.now_s += 60
        job = world.reconciler.agenda.want("start")
        spoiling(simulator, fault)
        world.reconciler.begin("start")
        await until(lambda: held_up(world, job) > TRIES * job_size(simulator))
        assert (job.done, job.failed, job.ended_ms) == (0, 0, None)
        assert job.problem is not None
        simulator.faults.api.clear()
        await world.over(job)
        assert (job.failed, job.done, job.differences) == (0, job.total, 1)


async def test_a_store_that_fails_counts_against_no_scope(
    tmp_path: Path, time: Seconds, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What could be asked but not be kept is asked again, once the store works."""

    def broken(*_: object, **__: object) -> None:
        raise StoreError("the disk is full")

    async with (
        Simulator(estate=Estate(rooms=2, depth=1), clock=time) as simulator,
        asking(tmp_path, simulator, time) as world,
    ):
        await world.pass_over()
        time.now_s += 60
        with monkeypatch.context() as patch:
            patch.setattr(world.store, "compare", broken)
            job = world.reconciler.agenda.want("start")
            world.reconciler.begin("start")
            await until(lambda: held_up(world, job) >= TRIES * job_size(simulator))
            assert (job.done, job.failed, job.problem) == (0, 0, "the disk is full")
        await world.over(job)
        assert (job.failed, job.done) == (0, job.total)


async def test_a_restart_during_an_outage_goes_on_where_it_was(
    tmp_path: Path, simulator: Simulator, time: Seconds
) -> None:
    """What was read before it stays read, and nothing is given up by either life."""
    read = job_size(simulator) // 2
    async with asking(tmp_path, simulator, time) as world:
        await world.heard(simulator.estate.rooms[0])
        job = world.reconciler.agenda.want("start")
        world.reconciler.begin("start")
        await until(lambda: job.done >= read)
        spoiling(simulator, ApiFault(path=LIMITS, status=502))
        await until(lambda: held_up(world, job) >= 3 * TRIES)
        read = job.done
    async with asking(tmp_path, simulator, time) as world:
        time.now_s += 60
        wanted = world.reconciler.agenda.want("start")
        world.reconciler.begin("start")
        await until(lambda: world.reconciler.agenda.running)
        resumed = world.reconciler.agenda.running
        assert resumed is not None
        await until(lambda: held_up(world, resumed) >= 3 * TRIES)
        assert (resumed.why, resumed.done, resumed.failed) == ("resume", read, 0)
        simulator.faults.api.clear()
        await world.over(resumed)
        await world.over(wanted)
        assert (resumed.failed, wanted.failed, wanted.done) == (0, 0, wanted.total)


async def test_what_could_not_be_read_is_remembered_over_a_restart(
    tmp_path: Path, simulator: Simulator, time: Seconds
) -> None:
    """The pass that is gone on with knows of how many it knows nothing, and what it had found."""
    changed = simulator.estate.rooms[1]
    async with asking(tmp_path, simulator, time) as world:
        await world.pass_over()
        change(simulator, changed, 3)
        time.now_s += 60
        spoiling(simulator, ApiFault(path=LIMITS, status=404, code=121005), simulator.estate.rooms[0])
        job = world.reconciler.agenda.want("start")
        world.reconciler.begin("start")
        await until(lambda: job.failed and job.differences)
        spoiling(simulator, ApiFault(path=LIMITS, status=502))
        left = len(job.left)
        assert left
    simulator.faults.api.clear()
    with structlog.testing.capture_logs() as logs:
        async with asking(tmp_path, simulator, time) as world:
            await world.pass_over()
    done = [line for line in logs if line["event"] == "reconcile.done"]
    assert [(one["why"], one["not_read"], one["differences"]) for one in done] == [
        ("resume", 1, 1),
        ("start", 0, 0),
    ]


async def test_a_missing_permission_ends_what_a_person_waits_for(
    tmp_path: Path, simulator: Simulator, time: Seconds
) -> None:
    """It is said once, with its name; the pass waits, and goes on once it is given."""
    simulator.faults.missing_permissions.add("vc:room:readonly")
    with structlog.testing.capture_logs() as logs:
        async with asking(tmp_path, simulator, time) as world:
            world.reconciler.begin("start")
            await until(lambda: said(logs))
            job = await world.reconciler.ask(None, dry_run=True)
            await world.over(job)
            assert job.problem is not None
            assert "vc:room:readonly" in f"{job.problem} {job.hint}"
            current = world.reconciler.agenda.current
            assert current is not None
            assert current.ended_ms is None
            assert "vc:room:readonly" in f"{current.problem}"
            simulator.faults.missing_permissions.clear()
            assert (
                await world.reconciler.ask(None, dry_run=False) is current
            )  # and does not wait for ten minutes
            await world.over(current)
            assert (current.problem, current.done) == (None, len(simulator.estate.places))
    assert said(logs) == ["reconcile.unavailable", "reconcile.started", "reconcile.done"]
    assert logs[0]["permissions"]


async def test_a_walk_that_fails_holds_up_nothing_that_is_known(
    tmp_path: Path, simulator: Simulator, time: Seconds
) -> None:
    """The limits are read all the same, and what is new once it can be listed; if it can't, who waits hears of that."""
    async with asking(tmp_path, simulator, time) as world:
        await world.pass_over()
        room = simulator.estate.rooms[0]
        change(simulator, room, 3)
        new = simulator.estate.add("new", simulator.estate.root)
        simulator.faults.api.append(ApiFault(path="/vc/v1/room_levels", status=502))
        job = await world.pass_over()
        assert [entry.scope.scope_id for entry in job.found] == [room.id]
        assert (job.done, job.total, job.failed) == (job.total, len(world.known()), 0)
        assert new.id not in world.known()
        assert "could not be listed" in (job.problem or "")
        assert comparison_of(job, 0, world.directory).state == "failed"

        change(simulator, room, 4)
        time.now_s += 60
        again = world.reconciler.agenda.want("start")
        world.reconciler.begin("start")
        await until(lambda: again.found)
        simulator.faults.api.clear()
        await world.over(again)
        assert (again.problem, again.failed) == (None, 0)
        assert new.id in world.known()


async def test_nothing_known_and_nothing_listed_is_no_pass(
    tmp_path: Path, simulator: Simulator, time: Seconds
) -> None:
    """At the first start the baseline waits for the list, however long that takes."""
    async with asking(tmp_path, simulator, time) as world:
        simulator.faults.api.append(ApiFault(path="/vc/v1/room", status=502))
        job = world.reconciler.agenda.want("start")
        world.reconciler.begin("start")
        await until(lambda: held_up(world, job) >= TRIES)
        assert (job.is_begun, job.ended_ms, await world.store.last_pass(simulator.app_id)) == (
            False,
            None,
            None,
        )
        simulator.faults.api.clear()
        await world.over(job)
        assert len(world.known()) == len(simulator.estate.places)
