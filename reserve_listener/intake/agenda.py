"""Who waits for which comparison: the pass in progress, the next one, and scopes that people or doubts ask for. No I/O.

What must stay true: if somebody asks for everything, all of it is read after that moment. A pass in progress is not
interrupted for this, so each pass ends, however often somebody asks.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from reserve_listener.errors import NotFoundError, ReserveListenerError
from reserve_listener.intake.jobs import DOUBT, REQUEST, Job

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

JOBS_KEPT: Final = 20
"""How many ended jobs are kept for people who come back for the result, and how many may wait at once."""


class Agenda:
    """A reconciler's jobs: what is running, what comes next, and who is waiting for it."""

    def __init__(self, now_ms: Callable[[], int]) -> None:
        self._now_ms = now_ms
        self.running: Job | None = None
        """The pass in progress."""
        self.wanted: Job | None = None
        """The pass to begin after it."""
        self.last: Job | None = None
        """The pass that ended last."""
        self._asked_for: list[Job] = []
        self._jobs: dict[str, Job] = {}

    def want(self, why: str) -> Job:
        """Ask for a pass that reads everything from now on. A pass that has read nothing yet starts over and serves for this, too."""
        if self.wanted is None:
            if self.running is not None and self.running.left and not self.running.done:
                self.wanted, self.running = self.running, None
                self.wanted.is_begun = False
            else:
                self.wanted = self.remembered(Job(why, now_ms=self._now_ms()))
        return self.wanted

    def ask_for_all(self) -> Job:
        """The same for a person, who is also told what the pass in progress finds from now on."""
        job = self.want(REQUEST)
        job.is_awaited = True
        if self.running is not None:
            self.running.heir = job
        return job

    def add(self, job: Job) -> None:
        """Queue a job ahead of the pass. Raises `ReserveListenerError` if too many are waiting."""
        if len(self._asked_for) >= JOBS_KEPT:
            raise ReserveListenerError(
                f"{JOBS_KEPT} comparisons are waiting already. Ask again when one of them has ended."
            )
        self._asked_for.append(self.remembered(job))

    def add_doubts(self, job: Job) -> None:
        """Queue a job ahead of all others."""
        self._asked_for.insert(0, job)

    @property
    def has_doubts(self) -> bool:
        """Whether scopes in doubt are still being read again."""
        return any(job.why == DOUBT for job in self._asked_for)

    def first(self, now_s: float) -> Job | None:
        """Whose turn it is: scopes in doubt and what people wait for come before the pass."""
        return next((job for job in self._in_turn() if job.not_before_s <= now_s), None)

    def next_s(self) -> float | None:
        """When the first of the waiting jobs may go on."""
        return min((job.not_before_s for job in self._in_turn()), default=None)

    def _in_turn(self) -> Iterator[Job]:
        yield from self._asked_for
        if (job := self.running or self.wanted) is not None:
            yield job

    def started(self, job: Job) -> None:
        """This is now the pass in progress. It need not be the wanted one: an unfinished one goes first."""
        if job is self.wanted:
            self.wanted = None
        elif self.wanted is not None and self.wanted.is_awaited:
            job.heir = self.wanted
        self.running = job

    def ended(self, job: Job) -> None:
        """This job has ended."""
        if job.is_pass:
            self.running, self.last = None, job
        elif job in self._asked_for:
            self._asked_for.remove(job)
        job.end(self._now_ms())

    def hand_over(self) -> None:
        """Another daemon continues the pass. Should it come back to this one, what is left is looked up again."""
        if self.running is not None:
            self.running.is_begun = False

    # -- what goes wrong ----------------------------------------------------------------------------------------------------

    def hurry(self) -> None:
        """Somebody wants to know now: all waits end, and stuck jobs are tried again."""
        for job in self._all():
            job.not_before_s, job.is_stuck = 0.0, False

    def stuck(self, problem: str, hint: str, *, until_s: float) -> None:
        """Nothing can go on until a person acts. Those who wait are told, and jobs of theirs alone end."""
        for job in self._all():
            job.wait(problem, hint, until_s=until_s)
            job.is_stuck = True
        for job in [job for job in self._asked_for if job.why == REQUEST]:
            self.ended(job)

    def goes_on(self, job: Job) -> None:
        """The platform has answered: this job goes on, and so do all stuck ones."""
        for one in self._all():
            if one is job or one.is_stuck:
                one.go_on()

    def give_up(self, problem: str) -> None:
        """End all jobs without a result."""
        for job in self._all():
            job.problem = problem
            job.end(self._now_ms())
        self._asked_for, self.running, self.wanted = [], None, None

    def _all(self) -> list[Job]:
        return [job for job in (*self._asked_for, self.running, self.wanted) if job is not None]

    # -- for people ---------------------------------------------------------------------------------------------------------

    @property
    def current(self) -> Job | None:
        """The pass in progress or the wanted one, else the last."""
        return self.running or self.wanted or self.last

    def job(self, job_id: str) -> Job:
        """A recent job by its id. Raises `NotFoundError`."""
        if job_id not in self._jobs:
            raise NotFoundError(f"the daemon knows nothing of the comparison {job_id}: was it started again?")
        return self._jobs[job_id]

    def ahead(self, job: Job) -> int:
        """How many scopes the pass in progress has to read before this job begins."""
        return len(self.running.left) if self.running is not None and job is self.wanted else 0

    def remembered(self, job: Job) -> Job:
        """Keep the job, so that people can ask for it by its id."""
        self._jobs[job.id] = job
        over = [one.id for one in self._jobs.values() if one.ended_ms is not None]
        for job_id in over[: max(0, len(self._jobs) - JOBS_KEPT)]:
            del self._jobs[job_id]
        return job
