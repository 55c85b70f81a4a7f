"""A reconciler over the simulator's API, our own client and a real store, in a time that passes as it has to."""

from __future__ import annotations

import asyncio
import json
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final

import msgspec

from reserve_listener.intake import normalize, troubles
from reserve_listener.intake.reconcile import comparing
from reserve_listener.intake.reconciler import MEANWHILE, Reconciler
from reserve_listener.meters import RoomsMeter
from reserve_listener.simulator import ApiFault, Simulator, sample_event
from reserve_listener.store import open_reader
from tests.helpers import push, until
from tests.intake import asking as shared

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from reserve_listener.intake.jobs import Job
    from reserve_listener.model import HistoryEntry, IncomingEvent
    from reserve_listener.simulator import Call, Place


LIMITS: Final = "/reserve_scope"
TENANT: Final = "t1"
BEGAN_S: Final = 1_790_000_000.0
CALLS: Final = 4
"""The client makes of one, if it fails."""


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


def spoiling(simulator: Simulator, fault: ApiFault, *places: Place) -> None:
    """Reading any of these fails so, whatever becomes of the others; of none: reading every one."""
    simulator.faults.api[:] = [replace(fault, scope_ids=frozenset(place.id for place in places))]


def job_size(simulator: Simulator) -> int:
    return len(simulator.estate.places)


def held_up(world: World, job: Job) -> int:
    """How often it has been tried in vain; its time passes."""
    world.time.now_s += (job.problem is not None) * 101.0
    return world.troubles._failed.get("limits", 0)
