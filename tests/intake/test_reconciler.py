"""Reconciling over the simulator's API, our own client and a real store: what is read, and when."""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from typing import TYPE_CHECKING

import pytest
import structlog

from reserve_listener.errors import ReserveListenerError
from reserve_listener.simulator import Estate, Simulator, patience
from tests.helpers import until
from tests.intake.comparing import Seconds, World, asking, change, said, stopping_after

if TYPE_CHECKING:
    from pathlib import Path

    from reserve_listener.simulator import Call


@pytest.mark.parametrize("turns", range(5))
async def test_a_stop_is_heard_just_as_a_pass_begins(tmp_path: Path, time: Seconds, turns: int) -> None:
    """However few turns of the loop lie between the two."""
    async with (
        Simulator(estate=Estate(rooms=1, depth=1), clock=time) as simulator,
        World(simulator, time, tmp_path).opened() as world,
    ):
        running = asyncio.create_task(world.reconciling().run())
        await asyncio.sleep(0)
        world.reconciler.begin("start")
        for _ in range(turns):
            await asyncio.sleep(0)
        running.cancel()
        await asyncio.wait([running], timeout=patience(10))
        assert running.cancelled()


async def test_the_first_pass_is_the_baseline_and_the_next_finds_what_was_missed(
    tmp_path: Path, time: Seconds
) -> None:
    """Of 40 rooms 3 were changed while away: three events with the right changes, to be delivered, and nothing else."""
    with structlog.testing.capture_logs() as logs:
        async with (
            Simulator(estate=Estate(rooms=40), clock=time) as simulator,
            asking(tmp_path, simulator, time) as world,
        ):
            first = await world.pass_over()
            places = simulator.estate.places
            assert sorted(world.read_ids) == sorted(place.id for place in places)
            assert world.known().keys() == {place.id for place in places}
            assert (first.total, first.done, first.differences) == (len(places), len(places), 0)
            assert await world.store.backlog() == {"a": 0}
            changed = simulator.estate.rooms[3:6]
            for number, room in enumerate(changed):
                change(simulator, room, 2 + number)
            job = await world.pass_over("gap")
            assert {entry.scope.scope_id for entry in job.found} == {room.id for room in changed}
            for number, room in enumerate(changed):
                (entry,) = world.history(room)
                (told,) = json.loads(entry.changes or "")
                assert (entry.origin, entry.revision, told["after"]) == ("reconcile", 1, 2 + number)
            assert await world.store.backlog() == {"a": 3}
            assert (await world.pass_over()).differences == 0
    done = [line for line in logs if line["event"] == "reconcile.done"]
    assert [(line["why"], line["differences"]) for line in done] == [("start", 0), ("gap", 3), ("start", 0)]
    assert sorted(done[1]["changed"]) == sorted(room.id for room in changed)


async def test_calls_keep_to_the_pace(tmp_path: Path, time: Seconds) -> None:
    """In no minute more than ten above 80, by the platform's own count; and it is used."""
    async with (
        Simulator(estate=Estate(rooms=250), clock=time) as simulator,
        asking(tmp_path, simulator, time) as world,
    ):
        await world.pass_over()
        times = [call.at for call in world.reads]
        assert len(times) > 250
        busiest = max(sum(at <= one < at + 60 for one in times) for at in times)
        assert 75 <= busiest <= 90
        assert {call.code for call in world.reads} == {0}


async def test_a_restart_goes_on_where_it_was(tmp_path: Path, simulator: Simulator, time: Seconds) -> None:
    """What is read is not read again, until the pass is over; since some of it was read before the start, a new one follows."""
    places = {place.id for place in simulator.estate.places}
    with structlog.testing.capture_logs() as logs:
        async with asking(tmp_path, simulator, time) as world:
            held = stopping_after(simulator, 5)
            world.reconciler.begin("start")
            await held.wait()
        simulator.faults.before_answer = None
        read_before = set(world.read_ids)
        async with asking(tmp_path, simulator, time) as world:
            job = await world.pass_over()
            reads = world.read_ids
        assert job.why == "start"
    once = Counter(reads)
    assert set(once) == places
    assert sum(once.values()) == 2 * len(places) + 1  # and the one that was cut off
    assert len(read_before) == 5
    started = [line for line in logs if line["event"] == "reconcile.started"]
    assert [(line["why"], line["done"]) for line in started] == [("start", 0), ("resume", 4), ("start", 0)]


async def test_a_pass_that_has_read_nothing_begins_again(
    tmp_path: Path, simulator: Simulator, time: Seconds
) -> None:
    """After a restart as well as after a gap: it need not be made twice."""
    with structlog.testing.capture_logs() as logs:
        async with asking(tmp_path, simulator, time) as world:
            held = stopping_after(simulator, 1)
            world.reconciler.begin("start")
            await held.wait()
        simulator.faults.before_answer = None
        async with asking(tmp_path, simulator, time) as world:
            await world.pass_over()
        assert len(world.read_ids) == len(simulator.estate.places) + 1
    assert [line["why"] for line in logs if line["event"] == "reconcile.started"] == ["start", "start"]


async def test_the_oldest_look_comes_first(tmp_path: Path, simulator: Simulator, time: Seconds) -> None:
    """A room that was asked for lately is the last of the next pass, a new one the first."""
    async with asking(tmp_path, simulator, time) as world:
        await world.pass_over()
        time.now_s += 60
        room = simulator.estate.rooms[4]
        await world.over(await world.reconciler.ask([room.id], dry_run=False))
        simulator.admin.add("new", simulator.estate.root, push=False)
        before = len(world.read_ids)
        await world.pass_over()
        order = world.read_ids[before:]
    assert (order[0], order[-1]) == (simulator.estate.rooms[-1].id, room.id)


async def test_a_push_while_its_scope_is_read(tmp_path: Path, simulator: Simulator, time: Seconds) -> None:
    """The answer is from before it, and does not turn it back: the scope is read again, and the two agree."""
    async with asking(tmp_path, simulator, time) as world:
        await world.pass_over()
        room = simulator.estate.rooms[0]

        async def push_now(call: Call) -> None:
            if call.query.get("scope_id") == room.id:
                simulator.faults.before_answer = None
                change(simulator, room, 3)
                await world.heard(room, seconds_ago=0)
                time.now_s += 10

        simulator.faults.before_answer = push_now
        before = len(world.read_ids)
        job = await world.pass_over()
        assert Counter(world.read_ids[before:])[room.id] == 2
        assert (job.differences, job.failed) == (0, 0)
        assert [entry.origin for entry in world.history(room)] == [None]
        assert world.known()[room.id]["time_config"]["max_duration"] == 3


async def test_a_push_just_after_the_read_has_it_read_again(
    tmp_path: Path, simulator: Simulator, time: Seconds
) -> None:
    """By itself, and soon; of a change that was made since and is not heard of, that tells."""
    async with asking(tmp_path, simulator, time) as world:
        await world.pass_over()
        room = simulator.estate.rooms[0]
        before = len(world.read_ids)
        change(simulator, room, 3)
        await world.over(await world.reconciler.ask([room.id], dry_run=False))
        change(simulator, room, 4)
        await world.heard(room, seconds_ago=0)
        change(simulator, room, 5)
        time.now_s += 10
        await until(lambda: len(world.read_ids) == before + 2)
        await until(lambda: world.known()[room.id]["time_config"]["max_duration"] == 5)
        assert [entry.origin for entry in world.history(room)] == ["reconcile", None, "reconcile"]


async def test_what_was_heard_before_its_first_read_is_compared(
    tmp_path: Path, simulator: Simulator, time: Seconds
) -> None:
    """A difference is delivered, also in the first pass; what agrees is not."""
    changed, same = simulator.estate.rooms[:2]
    async with asking(tmp_path, simulator, time) as world:
        await world.heard(changed)
        await world.heard(same)
        change(simulator, changed, 3)
        job = await world.pass_over()
        assert [entry.scope.scope_id for entry in job.found] == [changed.id]
        assert [entry.revision for entry in world.history(changed)] == [2, 1]
        assert [entry.revision for entry in world.history(same)] == [1]


async def test_a_room_that_is_gone_is_marked_and_left_alone(
    tmp_path: Path, simulator: Simulator, time: Seconds
) -> None:
    """Its limits stay known. Of an id that was never read under this type the platform's answer says nothing."""
    async with asking(tmp_path, simulator, time) as world:
        await world.pass_over()
        removed, stranger = simulator.estate.rooms[:2]
        simulator.admin.remove(removed, push=False)
        await world.heard(stranger)
        job = await world.pass_over()
        assert (job.gone, job.failed) == (1, 0)
        assert world.directory.is_gone("room", removed.id)
        assert removed.id in world.known()
        before = len(world.read_ids)
        await world.pass_over()
        assert removed.id not in world.read_ids[before:]


async def test_an_id_that_was_never_answered_is_not_gone(
    tmp_path: Path, simulator: Simulator, time: Seconds
) -> None:
    """126001 may also say that id and type do not match: it is said once, and asked for again in the next pass."""
    hidden = Estate(rooms=1, seed=9).rooms[0]
    with structlog.testing.capture_logs() as logs:
        async with asking(tmp_path, simulator, time) as world:
            await world.heard(hidden)
            job = await world.pass_over()
            assert (job.gone, job.failed) == (0, 1)
            assert not world.directory.is_gone("room", hidden.id)
            assert (await world.pass_over()).failed == 1
    assert said(logs).count("reconcile.not_read") == 1
    (line,) = [line for line in logs if line["event"] == "reconcile.not_read"]
    assert (line["scope_id"], "126001" in line["error"]) == (hidden.id, True)


async def test_a_room_that_was_marked_gone_is_there_again_once_it_is_read(
    tmp_path: Path, simulator: Simulator, time: Seconds
) -> None:
    """A person asks for it by its id, and it has limits; only to try it out changes nothing."""
    async with asking(tmp_path, simulator, time) as world:
        await world.pass_over()
        room = simulator.estate.rooms[0]
        await world.store.mark_gone("room", room.id)
        await world.over(await world.reconciler.ask([room.id], dry_run=True))
        assert world.directory.is_gone("room", room.id)
        await world.over(await world.reconciler.ask([room.id], dry_run=False))
        assert not world.directory.is_gone("room", room.id)
        before = len(world.read_ids)
        await world.pass_over()
        assert room.id in world.read_ids[before:]


async def test_when_all_were_last_compared_is_known_after_a_restart(
    tmp_path: Path, simulator: Simulator, time: Seconds
) -> None:
    """Also while the next pass is under way."""
    async with asking(tmp_path, simulator, time) as world:
        await world.pass_over()
        ended_ms = world.meter.reconciled_ms
        assert ended_ms is not None
        held = stopping_after(simulator, 1)
        world.reconciler.begin("start")
        await held.wait()
    simulator.faults.before_answer = None
    async with asking(tmp_path, simulator, time) as world:
        await until(lambda: world.meter.reconciled_ms is not None)
        assert world.meter.reconciled_ms == ended_ms


async def test_several_tenants_turn_it_off(tmp_path: Path, simulator: Simulator, time: Seconds) -> None:
    """Nobody could say whose limits the API tells; it is said once, and to whoever asks."""
    with structlog.testing.capture_logs() as logs:
        async with asking(tmp_path, simulator, time) as world:
            await world.heard(simulator.estate.rooms[0])
            await world.heard(simulator.estate.rooms[0], tenant="t2")
            world.reconciler.begin("start")
            await until(lambda: world.reconciler.off)
            with pytest.raises(ReserveListenerError, match="several tenants"):
                await world.reconciler.ask(None, dry_run=False)
            world.reconciler.begin("gap")
            world.reconciler.doubt()
    assert said(logs) == ["reconcile.started", "reconcile.off"]


async def test_a_pass_comes_about_daily(tmp_path: Path, simulator: Simulator, time: Seconds) -> None:
    """Counted from the beginning of the last."""
    async with asking(tmp_path, simulator, time) as world:
        await world.pass_over()
        change(simulator, simulator.estate.rooms[0], 3)
        assert world.reconciler.next_s == pytest.approx(time.now_s + 86_400, abs=120)
        time.now_s += 86_400
        world.reconciler.doubt()  # it looks at the clock when something happens
        await until(lambda: world.history(simulator.estate.rooms[0]))
