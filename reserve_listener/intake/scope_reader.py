"""Reads the limits of one scope and has them compared; and what it means that there are none.

What must stay true: a job is done with a scope only once the store is.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final, Protocol

import structlog

from reserve_listener.intake.reconcile import reading_of
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

    from reserve_listener.intake.jobs import Job, Target
    from reserve_listener.lark.api.answers import RoomsApi
    from reserve_listener.model import Asked, Found
    from reserve_listener.protocols import Compare
    from reserve_listener.protocols.store import StoreNames, StoreReadings

    class ReconcilerStore(StoreReadings, StoreNames, Protocol):
        """The roles that are needed."""


GONE_IF_READ: Final = frozenset({126001})
"""Says that a scope is gone, or that it is none of this type."""

log = structlog.get_logger("reconcile")


class SeveralTenantsError(Exception):
    """Nobody knows whose limits the API tells."""


class ScopeReader:
    """`flush` is awaited before each comparison: what was pushed before is then compared first.

    `doubt_s`: for how long a scope is left alone of which something newer was heard than what was read.
    """

    def __init__(
        self,
        store: ReconcilerStore,
        api: RoomsApi,
        *,
        app_id: str,
        compare: Compare,
        flush: Callable[[], Awaitable[None]],
        now_ms: Callable[[], int],
        doubt_s: float,
        outcomes: Counter[str],
    ) -> None:
        self._outcomes = outcomes
        self._store = store
        self._api = api
        self._app_id = app_id
        self._compare = compare
        self._flush = flush
        self._now_ms = now_ms
        self._doubt_s = doubt_s
        self._told_codes: set[int | None] = set()

    async def read(self, job: Job, target: Target) -> None:
        """Read the job's first scope and have it compared. Raises `ApiError`s that are not about the scope, and `StoreError`."""
        try:
            limits = await self._api.limits(*target)
        except GoneError as error:
            await self._not_there(job, target, error)
        except (PermissionMissingError, AppRefusedError, TryAgainError):
            raise
        except ApiError as error:
            await self._in_vain(job, target, error)
        else:
            await self._flush()
            reading = reading_of(limits, app_id=self._app_id, received_ms=self._now_ms())
            found = await self._store.compare(reading, self._compare, number=job.number, dry_run=job.dry_run)
            await self._compared(job, target, found)

    async def _compared(self, job: Job, target: Target, found: Found) -> None:
        if found.finding is Finding.SEVERAL_TENANTS:
            raise SeveralTenantsError
        if found.finding is not Finding.OUTDATED:
            job.left.popleft()
            self._outcomes["changed" if found.finding is Finding.CHANGED else "same"] += 1
        elif job.again(target):  # later: what was heard meanwhile is then older than the read
            if len(job.left) == 1:
                await asyncio.sleep(self._doubt_s)
        else:
            job.failed += 1
            self._outcomes["failed"] += 1
            if not job.is_pass:
                job.unread = f"{target.scope_id} changes faster than it can be read", None
        if found.entry is not None:
            job.take(found.entry)

    async def _not_there(self, job: Job, target: Target, error: GoneError) -> None:
        """It is gone; or it never was under this type, as far as anybody knows, and then this says nothing."""
        was_read = any(one.was_read and _is(one, target) for one in await self._store.asked(self._app_id))
        if error.code in GONE_IF_READ and not was_read:
            await self._in_vain(job, target, error)
            return
        job.gone += 1
        self._outcomes["gone"] += 1
        if not job.dry_run:
            await self._store.mark_gone(*target)
            log.info("reconcile.gone", scope_type=target.scope_type, scope_id=target.scope_id)
        await self._done_with(job, target)

    async def _in_vain(self, job: Job, target: Target, error: ApiError) -> None:
        job.failed += 1
        self._outcomes["failed"] += 1
        if not job.is_pass:
            job.unread = f"{target.scope_id} could not be read: {error}", error.hint
        self._say_once(target, error)
        await self._done_with(job, target)

    async def _done_with(self, job: Job, target: Target) -> None:
        if not job.dry_run:
            asked_for = Scope(tenant_key=self._app_id, scope_type=target.scope_type, scope_id=target.scope_id)
            await self._store.asked_in_vain(asked_for, number=job.number)
        job.left.popleft()

    def _say_once(self, target: Target, error: ApiError) -> None:
        """Of each code one: it may be the answer for thousands."""
        if error.code not in self._told_codes:
            self._told_codes.add(error.code)
            log.warning(
                "reconcile.not_read",
                scope_type=target.scope_type,
                scope_id=target.scope_id,
                error=str(error),
                hint=error.hint
                or "it is asked for again in the next pass; others with this code are not logged",
            )


def _is(one: Asked, target: Target) -> bool:
    return (one.scope_type, one.scope_id) == target
