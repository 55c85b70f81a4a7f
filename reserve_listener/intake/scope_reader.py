"""Reads the limits of one scope and has them compared; decides what it means if there are none.

What must stay true: a job has finished with a scope only once the store has; and only a fault of the scope itself ends the
attempts to read it: the caller waits out all other failures.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final, Protocol

import structlog

from reserve_listener.errors import LeaseLostError, StoreError
from reserve_listener.intake.reconcile import reading_of
from reserve_listener.lark.api.codes import TOO_OFTEN, TokenRefusedError
from reserve_listener.lark.api.errors import (
    ApiError,
    AppRefusedError,
    GoneError,
    PermissionMissingError,
    TryAgainError,
)
from reserve_listener.model import Finding, Scope

if TYPE_CHECKING:
    from collections import Counter
    from collections.abc import Awaitable, Callable

    from reserve_listener.intake.directory import Directory
    from reserve_listener.intake.jobs import Job, Target
    from reserve_listener.lark.api.answers import Limits, RoomsApi
    from reserve_listener.model import Asked, Found, Reading
    from reserve_listener.protocols import Compare
    from reserve_listener.protocols.store import StoreNames, StoreReadings

    class ReconcilerStore(StoreReadings, StoreNames, Protocol):
        """The roles of a store that are needed."""


GONE_IF_READ: Final = frozenset({126001})
"""These codes mean that a scope is gone, or that it is of another type."""

log = structlog.get_logger("reconcile")


class SeveralTenantsError(Exception):
    """The API does not say of which tenant the limits are, and there are several."""


class ScopeReader:
    """Reads scopes one by one. `flush` is awaited before each comparison, so that earlier pushes are taken in first.

    `told` is called with each reading that was compared. `doubt_s`: how long to leave a scope alone if something newer than the
    reading has been heard of it.
    """

    def __init__(
        self,
        store: ReconcilerStore,
        api: RoomsApi,
        directory: Directory,
        *,
        app_id: str,
        compare: Compare,
        flush: Callable[[], Awaitable[None]],
        told: Callable[[Reading], None],
        now_ms: Callable[[], int],
        doubt_s: float,
        outcomes: Counter[str],
    ) -> None:
        self._outcomes = outcomes
        self._store = store
        self._api = api
        self._directory = directory
        self._app_id = app_id
        self._compare = compare
        self._flush = flush
        self._told = told
        self._now_ms = now_ms
        self._doubt_s = doubt_s
        self._answers = 0
        """How many scopes the platform has given an answer for, even if only that they do not exist."""
        self._answered: Target | None = None
        """The last scope for which there were limits."""
        self._told_codes: set[int | None] = set()

    async def read(self, job: Job) -> None:
        """Read the job's first scope and have it compared.

        Raises the failures that the caller has to wait out: the scope is then read again, after some others.
        """
        target = job.left[0]
        try:
            await self._read(job, target)
        except (PermissionMissingError, AppRefusedError, SeveralTenantsError, LeaseLostError):
            raise
        except Exception as error:
            if job.has_failed(self._answers) and not isinstance(error, StoreError):
                await self._look_for_an_answer(target)
            if job.put_back(self._answers, about_it=_is_about_it(error)):
                raise
            await self._in_vain(job, target, error)
        else:
            self._answers += 1

    async def _look_for_an_answer(self, target: Target) -> None:
        """Ask for the scope that was answered last: if there is an answer now, the fault is not general."""
        if self._answered in (None, target):
            return
        try:
            await self._api.limits(*self._answered)
        except GoneError:  # is an answer, too
            pass
        except ApiError:
            return
        self._answers += 1

    async def _read(self, job: Job, target: Target) -> None:
        try:
            limits = await self._api.limits(*target)
        except GoneError as error:
            await self._not_there(job, target, error)
        except (PermissionMissingError, AppRefusedError, TryAgainError):
            raise
        except ApiError as error:
            await self._in_vain(job, target, error)
        else:
            await self._take(job, target, limits)

    async def _take(self, job: Job, target: Target, limits: Limits) -> None:
        if self._directory.is_gone(*target) and not job.dry_run:
            await self._store.mark_there(*target, as_of_ms=limits.as_of_ms)
        await self._flush()
        reading = reading_of(limits, app_id=self._app_id, received_ms=self._now_ms())
        found = await self._store.compare(reading, self._compare, number=job.number, dry_run=job.dry_run)
        await self._compared(job, target, found)
        self._answered = target
        self._told(reading)

    async def _compared(self, job: Job, target: Target, found: Found) -> None:
        if found.finding is Finding.SEVERAL_TENANTS:
            raise SeveralTenantsError
        if found.finding is not Finding.OUTDATED:
            job.left.popleft()
            self._outcomes["changed" if found.finding is Finding.CHANGED else "same"] += 1
        elif job.again():  # later: what was heard meanwhile is then older than the read
            if job.comes_round:
                await asyncio.sleep(self._doubt_s)
        else:
            await self._unread(job, target, f"{target.scope_id} changes faster than it can be read", None)
        if found.entry is not None:
            job.take(found.entry)

    async def _not_there(self, job: Job, target: Target, error: GoneError) -> None:
        """The scope is gone; unless it was never read under this type, in which case the answer means nothing."""
        was_read = any(one.was_read and _is(one, target) for one in await self._store.asked(self._app_id))
        if error.code in GONE_IF_READ and not was_read:
            await self._in_vain(job, target, error)
            return
        if not job.dry_run:
            await self._store.mark_gone(*target)
            log.info("reconcile.gone", scope_type=target.scope_type, scope_id=target.scope_id)
        await self._done_with(job, target, gone=True)
        job.gone += 1
        self._outcomes["gone"] += 1

    async def _in_vain(self, job: Job, target: Target, error: Exception) -> None:
        hint = error.hint if isinstance(error, ApiError) else None
        await self._unread(job, target, f"{target.scope_id} could not be read: {error}", hint)
        self._say_once(target, error, hint)

    async def _unread(self, job: Job, target: Target, text: str, hint: str | None) -> None:
        await self._done_with(job, target)
        job.failed += 1
        job.unread = text, hint
        self._outcomes["failed"] += 1

    async def _done_with(self, job: Job, target: Target, *, gone: bool = False) -> None:
        if not job.dry_run:
            asked_for = Scope(tenant_key=self._app_id, scope_type=target.scope_type, scope_id=target.scope_id)
            await self._store.asked_in_vain(asked_for, number=job.number, gone=gone)
        job.left.popleft()

    def _say_once(self, target: Target, error: Exception, hint: str | None) -> None:
        """Log one line for each code: thousands of scopes may have the same."""
        code = error.code if isinstance(error, ApiError) else None
        if code not in self._told_codes:
            self._told_codes.add(code)
            log.warning(
                "reconcile.not_read",
                scope_type=target.scope_type,
                scope_id=target.scope_id,
                error=str(error),
                hint=hint or "the next comparison asks again; more failures with this code are not logged",
            )


def _is_about_it(error: Exception) -> bool:
    """Whether the failure seems to be about this scope: the platform refused this call, or it is a bug of ours."""
    if not isinstance(error, ApiError):
        return not isinstance(error, StoreError)
    return error.code not in (None, TOO_OFTEN) and not isinstance(error, TokenRefusedError)


def _is(one: Asked, target: Target) -> bool:
    return (one.scope_type, one.scope_id) == target
