"""Asks the platform for the limits of all rooms and levels, and has them compared: what was missed while away is found.

What must stay true: one scope is read at a time, in the background; whatever goes wrong here goes no further. A scope counts
as read only with the transaction that compares it, so a restart goes on where the pass was. What was read before a start or
a gap does not count after it: then an unfinished pass is finished, and a new one begins.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections import OrderedDict
from typing import TYPE_CHECKING, Final

import structlog

from reserve_listener.clock import now_ms
from reserve_listener.errors import NotFoundError, ReserveListenerError
from reserve_listener.intake.jobs import Job, Target, kind_of, whole
from reserve_listener.intake.scope_reader import ScopeReader, SeveralTenantsError
from reserve_listener.intake.troubles import Troubles
from reserve_listener.lark.api.errors import AppRefusedError, PermissionMissingError
from reserve_listener.meters import RoomsMeter

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from reserve_listener.intake.directory import Directory
    from reserve_listener.intake.scope_reader import ReconcilerStore
    from reserve_listener.lark.api.answers import RoomsApi, ScopeType
    from reserve_listener.model import Asked, Pass
    from reserve_listener.protocols import Compare


MEANWHILE: Final = "events are delivered all the same; what is missed while the daemon is away is not found meanwhile; it is tried again"

DOUBT_S: Final = 5.0
"""After a push that came while its scope was read: later than the end of that read by any clock, so that there is no doubt again."""

KINDS: Final[tuple[ScopeType, ...]] = ("room", "level")

LIMITS: Final = "limits"

LEAD_EVERY_S: Final = 5.0
"""How often a daemon that is not the one to ask looks whether it is now."""

DOUBTS_AT_ONCE: Final = 100

JOBS_KEPT: Final = 20
"""For people who still ask for the result."""

NAMED: Final = 20
"""Scopes that a line in the log names."""

TENANTS_PROBLEM: Final = (
    "the app's events name several tenants, and the platform's API does not say whose limits it tells"
)

log = structlog.get_logger("reconcile")


class Reconciler:
    """`run` it as a task. For `flush` see `ScopeReader`."""

    def __init__(
        self,
        store: ReconcilerStore,
        api: RoomsApi,
        directory: Directory,
        *,
        app_id: str,
        compare: Compare,
        every_s: float,
        flush: Callable[[], Awaitable[None]],
        troubles: Troubles | None = None,
        now_ms: Callable[[], int] = now_ms,
        clock: Callable[[], float] = time.monotonic,
        doubt_s: float = DOUBT_S,
        meter: RoomsMeter | None = None,
    ) -> None:
        self._meter = meter or RoomsMeter()
        self.off: str | None = None
        """Why nothing is compared; None: it is."""
        self._store = store
        self._api = api
        self._directory = directory
        self._app_id = app_id
        self._every_s = every_s
        self._troubles = troubles or Troubles("reconcile", MEANWHILE)
        self._now_ms = now_ms
        self._clock = clock
        self._doubt_s = doubt_s
        self._wake = asyncio.Event()
        self._pass: Job | None = None
        """The pass that is under way."""
        self._next: Job | None = None
        """The one that is wanted beside it."""
        self._last: Job | None = None
        self._asked_for: list[Job] = []
        self._in_hand: Job | None = None
        self._jobs: OrderedDict[str, Job] = OrderedDict()
        self._due_s: float | None = None
        self._doubt_due_s: float | None = None
        self._reader = ScopeReader(
            store,
            api,
            app_id=app_id,
            compare=compare,
            flush=flush,
            now_ms=now_ms,
            doubt_s=doubt_s,
            outcomes=self._meter.reconciled,
        )

    # -- what happens -----------------------------------------------------------------------------------------------------

    def begin(self, why: str) -> None:
        """Something may have been missed until now: a pass is wanted that reads everything from now on."""
        if self.off is not None or self._next is not None:
            return
        if (
            self._pass is not None and not self._pass.done
        ):  # it has read nothing yet: it begins again, for all who wait
            self._next, self._pass = self._pass, None
        else:
            self._next = self._remembered(Job(why, now_ms=self._now_ms()))
        self._wake.set()

    def doubt(self) -> None:
        """A scope is to be read again; see `Store.on_doubt`."""
        if self._doubt_due_s is None:
            self._doubt_due_s = self._clock() + self._doubt_s
            self._wake.set()

    async def ask(self, scope_ids: Sequence[str] | None, *, dry_run: bool) -> Job:
        """Read these, or all (None), for a person who waits. Raises `ReserveListenerError` for what cannot be done."""
        if self.off is not None:
            raise ReserveListenerError(f"limits are not compared: {self.off}.")
        if scope_ids is None and not dry_run:
            if self._pass is None:
                self.begin("request")
            if (job := self._pass or self._next) is not None:
                self._wake.set()
                return job
        job = self._remembered(
            Job("request", now_ms=self._now_ms(), dry_run=dry_run, is_whole=scope_ids is None)
        )
        if scope_ids is not None:
            targets = await self._targets(scope_ids)
            job.begin(targets, len(targets))
        self._asked_for.append(job)
        self._wake.set()
        return job

    def job(self, job_id: str) -> Job:
        """One of the last. Raises `NotFoundError`."""
        if job_id not in self._jobs:
            raise NotFoundError(f"the daemon knows nothing of the comparison {job_id}: was it started again?")
        return self._jobs[job_id]

    @property
    def current(self) -> Job | None:
        """The pass that is under way or wanted, else the last."""
        return self._pass or self._next or self._last

    @property
    def next_s(self) -> float | None:
        """When the next pass begins, on the monotonic clock; None: that is not known yet."""
        return self._due_s

    # -- the task ---------------------------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Until cancelled."""
        self.doubt()  # an earlier life may have left some
        while True:
            self._wake.clear()
            try:
                pause_s = await self._step()
            except SeveralTenantsError:
                self._turn_off()
            except Exception as error:  # noqa: BLE001  # whatever it is, the events go on without
                await self._pause(self._failed(error))
            else:
                await self._pause(pause_s)

    async def _step(self) -> float | None:
        """Read one scope. For how long there is nothing to do then; None: until something happens."""
        self._in_hand = None
        if self.off is not None:
            return None
        if not await self._store.may_reconcile():
            return LEAD_EVERY_S
        job = self._in_hand = await self._job_to_do()
        if job is None:
            return self._nothing_for_s()
        if job.left:
            await self._reader.read(job, job.left[0])
            self._troubles.over(LIMITS)
            job.problem, job.hint, job.is_stuck = None, None, False
        if not job.left:
            await self._end(job)
        return 0

    async def _pause(self, seconds: float | None) -> None:
        if seconds != 0:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(seconds):
                    await self._wake.wait()

    def _nothing_for_s(self) -> float | None:
        dues = [due_s for due_s in (self._due_s, self._doubt_due_s) if due_s is not None]
        return max(0.001, min(dues) - self._clock()) if dues else None

    # -- what is to be read -----------------------------------------------------------------------------------------------

    async def _job_to_do(self) -> Job | None:
        """What is in doubt, and what a person waits for, comes before the pass."""
        now_s = self._clock()
        if self._doubt_due_s is not None and now_s >= self._doubt_due_s:
            await self._take_doubts()
        if self._asked_for:
            job = self._asked_for[0]
            if job.is_whole and not job.total:
                job.begin(*whole(await self._places(), await self._asked(), self._directory.is_gone))
            return job
        if self._due_s is not None and now_s >= self._due_s:
            self._due_s = None
            self.begin("schedule")
        if self._pass is None and self._next is not None:
            self._pass = await self._begun(self._next)
        return self._pass

    async def _take_doubts(self) -> None:
        found = await self._store.in_doubt(self._app_id, limit=DOUBTS_AT_ONCE)
        self._doubt_due_s = None
        targets = [Target(kind, scope_id) for scope_type, scope_id in found if (kind := kind_of(scope_type))]
        if targets:
            job = Job("doubt", now_ms=self._now_ms())
            job.begin(targets, len(targets))
            self._asked_for.insert(0, job)
        if len(found) == DOUBTS_AT_ONCE:
            self.doubt()

    async def _begun(self, wanted: Job) -> Job:
        """The next pass; before it what an earlier life has left of one. What that had read does not count for this."""
        places, asked = await self._places(), await self._asked()
        last = await self._store.last_pass(self._app_id)
        if last is not None and last.is_unfinished:
            left, total = whole(places, asked, self._directory.is_gone, last.number)
            if len(left) < total:
                job = self._remembered(Job("resume", now_ms=last.started_ms))
                return self._started(job, last, left, total)
        last = await self._store.begin_pass(self._app_id)
        self._next, self._due_s = None, self._clock() + self._every_s
        return self._started(wanted, last, *whole(places, asked, self._directory.is_gone, last.number))

    @staticmethod
    def _started(job: Job, last: Pass, left: list[Target], total: int) -> Job:
        job.number, job.started_ms, job.differences = last.number, last.started_ms, last.differences
        job.begin(left, total)
        log.info("reconcile.started", why=job.why, scopes=total, done=job.done)
        return job

    async def _places(self) -> list[Target]:
        return [Target(place.scope_type, place.scope_id) async for place in self._api.places()]

    async def _asked(self) -> list[Asked]:
        return await self._store.asked(self._app_id)

    async def _targets(self, scope_ids: Sequence[str]) -> list[Target]:
        """What these ids stand for. Raises `NotFoundError`."""
        known = {
            (one.scope_type, one.scope_id) for one in await self._asked()
        } | self._directory.places.keys()
        targets = [
            Target(kind, scope_id) for scope_id in scope_ids for kind in KINDS if (kind, scope_id) in known
        ]
        if unknown := set(scope_ids) - {target.scope_id for target in targets}:
            raise NotFoundError(f"nothing is known of {', '.join(sorted(unknown))}.")
        return list(dict.fromkeys(targets))

    # -- ends -------------------------------------------------------------------------------------------------------------

    async def _end(self, job: Job) -> None:
        if job.is_pass:
            await self._store.end_pass(self._app_id)
            self._pass, self._last = None, job
            self._meter.reconciled_ms = self._now_ms()
        else:
            self._asked_for.remove(job)
        job.problem, job.hint = job.unread or (None, None)
        job.end(self._now_ms())
        if job.is_pass or job.differences:
            self._say_done(job)

    def _say_done(self, job: Job) -> None:
        named = [
            self._directory.name(entry.scope.scope_type, entry.scope.scope_id) or entry.scope.scope_id
            for entry in job.found[:NAMED]
        ]
        log.info(
            "reconcile.done",
            why=job.why,
            scopes=job.total,
            differences=job.differences,
            **({"changed": named} if named else {}),
            gone=job.gone,
            not_read=job.failed,
            took_s=round(((job.ended_ms or 0) - job.started_ms) / 1000),
            **({"dry_run": True} if job.dry_run else {}),
        )

    def _failed(self, error: Exception) -> float:
        """What has failed is told; for how long to leave it alone."""
        pause_s = self._troubles.pause_s(LIMITS, error)
        waiting = self._asked_for[0] if self._asked_for else self._pass or self._next
        job, self._in_hand = self._in_hand or waiting, None
        if isinstance(error, (PermissionMissingError, AppRefusedError)):
            for asked_for in (*self._asked_for, job):
                if asked_for is not None:
                    asked_for.problem, asked_for.hint = str(error), self._troubles.hint_of(error)
                    asked_for.is_stuck = True
            for asked_for in self._asked_for:
                asked_for.end(self._now_ms())
            self._asked_for = []
        elif job is not None:
            job.problem, job.hint = str(error), self._troubles.hint_of(error)
            if job.left and not job.again(job.left[0]):
                job.failed += 1
                self._meter.reconciled["failed"] += 1
                job.unread = None if job.is_pass else (job.problem, job.hint)
        return pause_s

    def _turn_off(self) -> None:
        self.off = TENANTS_PROBLEM
        log.warning(
            "reconcile.off",
            reason=self.off,
            hint="use an app of its own for each tenant; events are delivered all the same",
        )
        for job in (*self._asked_for, self._pass, self._next):
            if job is not None:
                job.problem = self.off
                job.end(self._now_ms())
        self._asked_for, self._pass, self._next = [], None, None

    def _remembered(self, job: Job) -> Job:
        self._jobs[job.id] = job
        while len(self._jobs) > JOBS_KEPT:
            self._jobs.popitem(last=False)
        return job
