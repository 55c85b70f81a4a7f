"""Asks the platform for the limits of all rooms and levels and compares them, to find what was missed while away.

What must stay true: one scope is read at a time, in the background, and no failure here affects anything else. A scope counts as
read only with the transaction that compares it, so a restart continues where the pass was. What was read before a start or
a gap does not count after it: then the unfinished pass is finished, and a new one begins.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from typing import TYPE_CHECKING, Final

import structlog

from reserve_listener.clock import now_ms
from reserve_listener.errors import LeaseLostError, ReserveListenerError, StoreError
from reserve_listener.intake.agenda import Agenda
from reserve_listener.intake.doubts import Doubts
from reserve_listener.intake.inventory import Inventory
from reserve_listener.intake.jobs import DOUBT, REQUEST, RESUME, Job, Target
from reserve_listener.intake.scope_reader import ScopeReader, SeveralTenantsError
from reserve_listener.intake.survey import PLACES, Survey
from reserve_listener.intake.troubles import Troubles
from reserve_listener.lark.api.errors import AppRefusedError, PermissionMissingError
from reserve_listener.meters import RoomsMeter

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from reserve_listener.intake.directory import Directory
    from reserve_listener.intake.scope_reader import ReconcilerStore
    from reserve_listener.lark.api.answers import RoomsApi
    from reserve_listener.model import Pass, Reading
    from reserve_listener.protocols import Compare


MEANWHILE: Final = "events are still delivered, but changes missed while the daemon was away are not found yet; it tries again"

DOUBT_S: Final = 5.0
"""How long to wait after a push that came while its scope was being read: by any clock, that reading is over by then."""

LIMITS: Final = "limits"

LEAD_EVERY_S: Final = 5.0
"""How often a daemon that is not the one to ask checks whether it has become that."""

NEW_ENOUGH_S: Final = 60.0
"""A survey that began this recently will do for a pass: at the start, names and limits ask for one at the same time."""

NAMED: Final = 20
"""How many scopes a log line names."""

TENANTS_PROBLEM: Final = (
    "the app's events name several tenants, and the platform's API does not say whose limits it returns"
)

log = structlog.get_logger("reconcile")


class Reconciler:
    """Start `run` as a task. For `flush` and `told` see `ScopeReader`."""

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
        survey: Survey | None = None,
        told: Callable[[Reading], None] = lambda _: None,
        troubles: Troubles | None = None,
        now_ms: Callable[[], int] = now_ms,
        clock: Callable[[], float] = time.monotonic,
        doubt_s: float = DOUBT_S,
        meter: RoomsMeter | None = None,
    ) -> None:
        self._meter = meter or RoomsMeter()
        self.off: str | None = None
        """Why nothing is compared; None if comparing is on."""
        self._store = store
        self._directory = directory
        self._app_id = app_id
        self._every_s = every_s
        survey = survey or Survey(
            store, api, directory, app_id=app_id, keeps=False, now_ms=now_ms, clock=clock
        )
        self._inventory = Inventory(store, survey, directory, app_id=app_id)
        self._troubles = troubles or Troubles("reconcile", MEANWHILE)
        self._now_ms = now_ms
        self._clock = clock
        self._doubts = Doubts(store, app_id=app_id, wait_s=doubt_s, clock=clock)
        self._wake = asyncio.Event()
        self.agenda = Agenda(now_ms)
        self._own: int | None = None
        """The last pass that this run of the daemon began."""
        self._due_s: float | None = None
        self._is_leading = False
        self._api = api
        self._reader = ScopeReader(
            store,
            api,
            directory,
            app_id=app_id,
            compare=compare,
            flush=flush,
            told=told,
            now_ms=now_ms,
            doubt_s=doubt_s,
            outcomes=self._meter.reconciled,
        )

    # -- what happens -----------------------------------------------------------------------------------------------------

    def begin(self, why: str) -> None:
        """Something may have been missed before now: ask for a pass that reads everything from now on."""
        if self.off is None:
            self.agenda.want(why)
            self._wake.set()

    def doubt(self) -> None:
        """A scope has to be read again; see `Store.on_doubt`."""
        self._doubts.add()
        self._wake.set()

    async def ask(self, scope_ids: Sequence[str] | None, *, dry_run: bool) -> Job:
        """Read these scopes, or all (None), for a person who waits. Raises `ReserveListenerError` if that cannot be done."""
        if self.off is not None:
            raise ReserveListenerError(f"limits are not compared: {self.off}.")
        if scope_ids is None and not dry_run:
            job = self.agenda.ask_for_all()
        else:
            job = Job(REQUEST, now_ms=self._now_ms(), dry_run=dry_run)
            if scope_ids is not None:
                targets = await self._inventory.targets(scope_ids)
                job.begin(targets, len(targets))
            self.agenda.add(job)
        self.agenda.hurry()
        self._wake.set()
        return job

    @property
    def next_s(self) -> float | None:
        """When the next pass begins, on the monotonic clock; None if that is not known yet."""
        return self._due_s

    # -- the task ---------------------------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Work until cancelled."""
        await self._remember()
        self.doubt()  # an earlier life may have left some
        while True:
            self._wake.clear()
            try:
                pause_s = await self._step()
            except SeveralTenantsError:
                self._turn_off()
            except Exception as error:  # noqa: BLE001  # whatever it is, the events go on without
                await self._pause(self._troubles.pause_s(LIMITS, error))
            else:
                await self._pause(pause_s)

    async def _remember(self) -> None:
        """Recall when an earlier run of the daemon last compared everything."""
        with contextlib.suppress(StoreError):  # then by this one
            last = await self._store.last_pass(self._app_id)
            if last is not None and self._meter.reconciled_ms is None:
                self._meter.reconciled_ms = last.last_ended_ms

    async def _step(self) -> float | None:
        """Read one scope. Returns for how long there is nothing to do after that; None: until something happens."""
        if self.off is not None:
            return None
        if not await self._leads():
            return LEAD_EVERY_S
        job = await self._job_to_do()
        if job is None:
            return self._nothing_for_s()
        try:
            await self._go_on(job)
        except SeveralTenantsError:
            raise
        except LeaseLostError:  # the next step finds out, unless it is this daemon's again by then
            self._is_leading = False
            self.agenda.hand_over()
            return LEAD_EVERY_S
        except Exception as error:  # noqa: BLE001  # another job may go on
            self._held_up(job, error)
        return 0

    async def _leads(self) -> bool:
        """Whether this daemon is the one that asks. That may have changed since the last look."""
        before, self._is_leading = self._is_leading, await self._store.may_reconcile()
        if self._is_leading and not before:
            self._api.taken_over()
        elif before and not self._is_leading:
            self.agenda.hand_over()
        return self._is_leading

    async def _go_on(self, job: Job) -> None:
        if not job.is_begun:
            await self._begin(job)
        elif job.left:
            await self._reader.read(job)
        else:
            await self._end(job)
            return
        self._troubles.over(LIMITS)
        self.agenda.goes_on(job)

    async def _pause(self, seconds: float | None) -> None:
        if seconds != 0:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(seconds):
                    await self._wake.wait()

    def _nothing_for_s(self) -> float | None:
        dues = [self._due_s, self._doubts.due_s, self.agenda.next_s()]
        left = [due_s - self._clock() for due_s in dues if due_s is not None]
        return max(0.001, min(left)) if left else None

    # -- what is to be read -----------------------------------------------------------------------------------------------

    async def _job_to_do(self) -> Job | None:
        now_s = self._clock()
        if self._doubts.due_s is not None and now_s >= self._doubts.due_s:
            await self._take_doubts()
        if self._due_s is not None and now_s >= self._due_s:
            self._due_s = None
            self.agenda.want("schedule")
        return self.agenda.first(now_s)

    async def _take_doubts(self) -> None:
        if self.agenda.has_doubts:  # these first, then what has come up since
            self._doubts.put_off()
        elif targets := await self._doubts.take():
            job = Job(DOUBT, now_ms=self._now_ms())
            job.begin(targets, len(targets))
            self.agenda.add_doubts(job)

    async def _begin(self, job: Job) -> None:
        """Find out what the job has to read."""
        places = await self._places(job)
        if job.is_pass:
            await self._take_up(job, places)
            return
        if job is not self.agenda.wanted:
            job.begin(*await self._inventory.left(places))
            return
        last = await self._store.last_pass(self._app_id)
        if last is not None and last.is_unfinished and last.number != self._own:
            left, total = await self._inventory.left(places, last.number)
            if len(left) < total:
                self._started(_resumed(last, unlisted=job.unlisted), last, left, total)
                return
        last = await self._store.begin_pass(self._app_id)
        self._due_s = self._clock() + self._every_s
        self._started(job, last, *await self._inventory.left(places, last.number))

    async def _take_up(self, job: Job, places: list[Target]) -> None:
        """Continue a pass that another daemon had for a while, from where that one got to, unless it has finished it."""
        last = await self._store.last_pass(self._app_id)
        if last is not None and last.number == job.number and last.is_unfinished:
            job.begin(*await self._inventory.left(places, job.number))
        else:
            self.agenda.ended(job)

    def _started(self, job: Job, last: Pass, left: list[Target], total: int) -> None:
        self._own = job.number = last.number
        job.started_ms = last.started_ms
        job.begin(left, total)
        self.agenda.started(job)
        log.info("reconcile.started", why=job.why, scopes=total, done=job.done)

    async def _places(self, job: Job) -> list[Target]:
        """All scopes, or only the known ones if they cannot be listed now: those need not wait."""
        no_older_s = 0.0 if job.why == REQUEST else NEW_ENOUGH_S
        places, problem = await self._inventory.places(no_older_s=no_older_s)
        job.unlisted = None
        if problem is None:
            self._troubles.over(PLACES)
        else:
            self._troubles.pause_s(PLACES, problem)
            job.unlisted = f"the rooms and levels could not be listed: {problem}", problem.hint
        return places

    # -- ends -------------------------------------------------------------------------------------------------------------

    async def _end(self, job: Job) -> None:
        if job.unlisted and job.is_pass and not job.is_listed_again:
            await self._list_again(job)
            if job.left:
                return
        if job.is_pass:
            await self._store.end_pass(self._app_id)
            self._meter.reconciled_ms = self._now_ms()
        job.problem, job.hint = job.unlisted or (None, None)
        self.agenda.ended(job)
        if job.is_pass or job.differences:
            self._say_done(job)

    async def _list_again(self, job: Job) -> None:
        """List again what could not be listed when the pass began, and read it at the end."""
        job.is_listed_again = True
        job.begin(*await self._inventory.left(await self._places(job), job.number))

    def _say_done(self, job: Job) -> None:
        found = job.found[job.before :]
        named = [
            self._directory.name(entry.scope.scope_type, entry.scope.scope_id) or entry.scope.scope_id
            for entry in found[:NAMED]
        ]
        log.info(
            "reconcile.done",
            why=job.why,
            scopes=job.total,
            differences=job.differences + job.earlier,
            **({"changed": named} if named else {}),
            gone=job.gone,
            not_read=job.failed,
            took_s=round(((job.ended_ms or 0) - job.started_ms) / 1000),
            **({"dry_run": True} if job.dry_run else {}),
        )

    def _held_up(self, job: Job, error: Exception) -> None:
        """Log the failure, and leave the job alone for a while."""
        pause_s = self._troubles.pause_s(LIMITS, error)
        hint, until_s = self._troubles.hint_of(error), self._clock() + pause_s
        if isinstance(error, (PermissionMissingError, AppRefusedError)):
            self.agenda.stuck(str(error), hint, until_s=until_s)
        else:
            job.wait(str(error), hint, until_s=until_s)

    def _turn_off(self) -> None:
        self.off = TENANTS_PROBLEM
        log.warning(
            "reconcile.off",
            reason=self.off,
            hint="use a separate app for each tenant; events are still delivered",
        )
        self.agenda.give_up(self.off)


def _resumed(last: Pass, *, unlisted: tuple[str, str | None] | None) -> Job:
    """The rest of a pass that an earlier run of the daemon began. What that run has read does not count for the wanted pass."""
    job = Job(RESUME, now_ms=last.started_ms)
    job.earlier, job.failed, job.unlisted = last.differences, last.not_read, unlisted
    return job
