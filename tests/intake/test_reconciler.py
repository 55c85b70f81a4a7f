"""Reconciling over the simulator's API, our own client and a real store: what is read, when, and what goes wrong."""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final

import msgspec
import pytest
import structlog

from reserve_listener.daemon.comparisons import comparison_of
from reserve_listener.errors import NotFoundError, ReserveListenerError, StoreError
from reserve_listener.intake import normalize, troubles
from reserve_listener.intake.agenda import JOBS_KEPT
from reserve_listener.intake.jobs import TRIES, Target
from reserve_listener.intake.reconcile import comparing
from reserve_listener.intake.reconciler import MEANWHILE, Reconciler
from reserve_listener.meters import RoomsMeter
from reserve_listener.simulator import ApiFault, Estate, Simulator, patience, sample_event
from reserve_listener.store import open_reader
from tests.helpers import push, until
from tests.intake import asking as shared

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from reserve_listener.intake.jobs import Job
    from reserve_listener.model import HistoryEntry, IncomingEvent
    from reserve_listener.simulator import Call, Place

LIMITS = "/reserve_scope"
TENANT = "t1"
BEGAN_S = 1_790_000_000.0


class Seconds:
    """Time that passes only when somebody waits for it, or a call is made; the platform's and ours are the same."""

    def __init__(self) -> None:
        self.now_s = BEGAN_S

    def __call__(self) -> float:
        return self.now_s

    def ms(self) -> int:
        return round(self.now_s * 1000)

    async def sleep(self, seconds: float) -> None:
        self.now_s += seconds
        await asyncio.sleep(0)


class World(shared.World):
    """With who compares the two."""

    def __init__(self, simulator: Simulator, time: Seconds, folder: Path) -> None:
        super().__init__(simulator, folder, now_ms=time.ms, clock=time, sleep=time.sleep)
        self.time = time
        self.meter = RoomsMeter()
        self.troubles = troubles.Troubles("reconcile", MEANWHILE)

    def reconciling(self, **more: Any) -> Reconciler:
        """Who compares, over the open store."""
        self.reconciler = Reconciler(
            self.store,
            self.client,
            self.directory,
            app_id=self.simulator.app_id,
            compare=comparing("en", self.directory),
            every_s=86_400,
            flush=self._flush,
            now_ms=self.time.ms,
            clock=self.time,
            doubt_s=0.01,
            meter=self.meter,
            troubles=self.troubles,
            **more,
        )
        self.store.on_doubt = self.reconciler.doubt
        return self.reconciler

    async def _flush(self) -> None:
        pass

    @property
    def reads(self) -> list[Call]:
        """The calls for limits."""
        return [call for call in self.simulator.calls if call.path.endswith(LIMITS)]

    @property
    def read_ids(self) -> list[str]:
        return [call.query["scope_id"] for call in self.reads]

    async def pass_over(self, why: str = "start") -> Job:
        """A pass from its beginning to its end."""
        self.time.now_s += 60
        job = self.reconciler.agenda.want(why)
        self.reconciler.begin(why)
        await self.over(job)
        return job

    async def over(self, job: Job) -> None:
        """What is held up has its time pass."""

        def is_over() -> bool:
            self.time.now_s += (job.problem is not None) * troubles.BACKOFF_S
            return job.ended_ms is not None

        await until(is_over)

    async def heard(self, place: Place, *, seconds_ago: float = 60.0, **event: Any) -> None:
        """A push of this place's limits as they are."""
        created_ms = self.time.ms() - round(seconds_ago * 1000)
        await push(self.store, pushed(place, created_ms, **event))

    def history(self, place: Place) -> list[HistoryEntry]:
        with open_reader(self.url) as reader:
            return list(reader.history(place.id))

    def known(self) -> dict[str, dict[str, Any]]:
        """The limits by id, as the store knows them."""
        with open_reader(self.url) as reader:
            return {one.scope.scope_id: json.loads(one.known.config) for one in reader.known_scopes()}


def pushed(place: Place, created_ms: int, tenant: str = TENANT) -> IncomingEvent:
    envelope = sample_event(
        scope_id=place.id,
        scope_type=place.scope_type,
        tenant_key=tenant,
        create_time_ms=created_ms,
        **place.limits,
    )
    return normalize.incoming(msgspec.json.encode(envelope), envelope, received_ms=created_ms)


@pytest.fixture
def time() -> Seconds:
    return Seconds()


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is held up is tried again soon, by any clock."""
    monkeypatch.setattr(troubles, "BACKOFF_S", 0.01)
    monkeypatch.setattr(troubles, "BACKOFF_CAP_S", 0.02)


@pytest.fixture
async def simulator(time: Seconds) -> AsyncIterator[Simulator]:
    async with Simulator(estate=Estate(rooms=12, depth=2), clock=time) as simulator:
        yield simulator


@asynccontextmanager
async def asking(folder: Path, simulator: Simulator, time: Seconds) -> AsyncIterator[World]:
    """The reconciler runs while this lasts; it is asked for nothing yet."""
    async with World(simulator, time, folder).opened() as world, shared.running(world.reconciling()):
        yield world


def change(simulator: Simulator, place: Place, hours: int) -> None:
    """Nobody hears of it."""
    simulator.admin.change(place, push=False, time_config={"max_duration": hours})


def hours(before: int, after: int) -> list[dict[str, Any]]:
    return [{"path": "time_config.max_duration", "before": before, "after": after}]


def said(logs: list[Any]) -> list[str]:
    return [line["event"] for line in logs if line["log_level"] != "debug"]


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


def stopping_after(simulator: Simulator, reads: int) -> asyncio.Event:
    """The answer to this one never comes; the event says that it is waited for."""
    count, held = 0, asyncio.Event()

    async def hold(call: Call) -> None:
        nonlocal count
        count += call.path.endswith(LIMITS)
        if count >= reads:
            held.set()
            await asyncio.sleep(30)

    simulator.faults.before_answer = hold
    return held


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


CALLS: Final = 4
"""The client makes of one, if it fails."""


def spoiling(simulator: Simulator, fault: ApiFault, *places: Place) -> None:
    """Reading any of these fails so, whatever becomes of the others; of none: reading every one."""
    simulator.faults.api[:] = [replace(fault, scope_ids=frozenset(place.id for place in places))]


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


def job_size(simulator: Simulator) -> int:
    return len(simulator.estate.places)


def held_up(world: World, job: Job) -> int:
    """How often it has been tried in vain; its time passes."""
    world.time.now_s += (job.problem is not None) * 101.0
    return world.troubles._failed.get("limits", 0)


async def test_a_store_that_fails_counts_against_no_scope(
    tmp_path: Path, simulator: Simulator, time: Seconds, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What could be asked but not be kept is asked again, once the store works."""

    def broken(*_: object, **__: object) -> None:
        raise StoreError("the disk is full")

    async with asking(tmp_path, simulator, time) as world:
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
