"""The database as a writer's medium: one connection, opened anew when it is lost."""

from __future__ import annotations

import time
from itertools import groupby
from operator import attrgetter
from typing import TYPE_CHECKING, Any, Final

import psycopg

from reserve_listener.errors import StoreError
from reserve_listener.store.postgres import schema
from reserve_listener.store.postgres.connection import (
    OutdatedError,
    is_conflict,
    is_worth_another,
    told,
)
from reserve_listener.store.shared.medium import MediumError, NotNowError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from reserve_listener.store.postgres.connection import Connection
    from reserve_listener.store.postgres.schema import Target
    from reserve_listener.store.shared.writer import Job, Result

FIRST_PAUSE_S: Final = 0.1
LONGEST_PAUSE_S: Final = 5.0
"""Between two attempts to reach the database; meanwhile work fails at once."""


class Database:
    """See `store.shared.writer.Medium`.

    `reopened` is called in its thread when a connection was lost and is there again, before anything else is done with it.
    """

    def __init__(
        self,
        target: Target,
        *,
        reopened: Callable[[Connection], None] = lambda _connection: None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._target = target
        self._reopened = reopened
        self._clock = clock
        self._connection: Connection | None = None
        self._pause_s = 0.0
        self._next_s = float("-inf")
        self._away = ""

    def open(self) -> None:
        """See `Medium.open`. The tables are made if there are none."""
        self._connection = self._target.connect()
        schema.migrate(self._connection, self._target)
        self._connection.expect(schema.known())

    def usable(self) -> Connection:
        """See `Medium.usable`."""
        if self._connection is not None and self._connection.is_usable:
            return self._connection
        self.close()
        if self._clock() < self._next_s:
            raise NotNowError(self._away)
        try:
            self._connection = self._target.connect()
            with self._connection.transaction(reads=True):
                schema.require_version(self._connection, self._target)
            self._connection.expect(schema.known())
            self._connection.skip()
            self._reopened(self._connection)
        except OutdatedError:
            self.close()
            raise
        except StoreError as error:  # also a refused login: the password may be being changed
            self.close()
            self._pause_s = min(max(FIRST_PAUSE_S, 2 * self._pause_s), LONGEST_PAUSE_S)
            self._next_s, self._away = self._clock() + self._pause_s, str(error)
            raise NotNowError(self._away) from error
        self._pause_s = 0.0
        return self._connection

    def commit(self, connection: Connection, jobs: Sequence[Job]) -> tuple[list[Result], bool]:
        """See `Medium.commit`. Whoever reads what is committed then sees it, whatever the server's defaults are."""
        results = self._commit(connection, jobs)
        return results, any(error is None for *_, error in results)

    def _commit(
        self, connection: Connection, jobs: Sequence[Job], tries: int = 1, *, careful: bool = False
    ) -> list[Result]:
        try:
            return _transaction(connection, jobs, careful=careful)
        except Exception as error:  # noqa: BLE001  # a job's own mistake must not end the thread
            if not careful and connection.is_usable and not isinstance(error, MediumError):
                return self._commit(connection, jobs, tries, careful=True)
            again = is_worth_another(error, tries)
            alone = len(jobs) == 1 or (isinstance(error, MediumError) and not is_conflict(error))
            if not connection.is_usable or (alone and not again):
                return [(job, None, self.failure(error)) for job in jobs]
        if len(jobs) == 1:
            return self._commit(connection, jobs, tries + 1, careful=careful)
        results: list[Result] = []
        for number, job in enumerate(jobs):
            results += self._commit(connection, [job], careful=careful)
            failure = results[-1][2]
            if failure is not None and self.has_failed(failure):
                return results + [(left, None, failure) for left in jobs[number + 1 :]]
        return results

    def read(self, job: Job) -> Result:
        """See `Medium.read`."""
        try:
            connection = self.usable()
            with connection.transaction(reads=True):
                return job, job.work([job.item], connection)[0], None
        except NotNowError as error:
            return job, None, MediumError(str(error))
        except Exception as error:  # noqa: BLE001  # as in `_commit`
            return job, None, self.failure(error)

    def has_failed(self, error: BaseException) -> bool:
        """See `Medium.has_failed`."""
        return is_away(error)

    def failure(self, error: BaseException) -> StoreError:
        """See `Medium.failure`."""
        if isinstance(error, StoreError) and not isinstance(error, MediumError):
            return error
        text = told(error) if isinstance(error, psycopg.Error) else error
        failure = StoreError(
            str(error) if isinstance(error, MediumError) else f"the store {self._target.name} failed: {text}"
        )
        failure.__cause__ = error
        return failure

    def suspect(self, error: BaseException) -> None:
        """See `Medium.suspect`. A server that takes no writes any more was demoted: the next connection is to another."""
        if self._connection is not None and (not self._connection.is_usable or _is_read_only(error)):
            self.close()

    def close(self) -> None:
        """Give the connection back. Does not raise."""
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()

    def end_within(self, seconds: float) -> None:
        """It is about to be closed: what does not answer until then is not waited for. May be called in any thread."""
        connection = self._connection
        if connection is not None:
            connection.end_within(seconds)

    def release(self) -> None:
        """See `Medium.release`."""
        self.close()


def is_away(error: BaseException) -> bool:
    """Whether it is the server that failed, or the way to it: waiting may help."""
    return isinstance(error, MediumError) or isinstance(error.__cause__, MediumError)


def _transaction(connection: Connection, jobs: Sequence[Job], *, careful: bool) -> list[Result]:
    results: list[Any] = []
    with connection.transaction(careful=careful):
        for work, group in groupby(jobs, attrgetter("work")):
            together = list(group)
            values = work([job.item for job in together], connection)
            results += [(job, value, None) for job, value in zip(together, values, strict=True)]
    return results


def _is_read_only(error: BaseException | None) -> bool:
    return error is not None and (
        isinstance(error, psycopg.errors.ReadOnlySqlTransaction) or _is_read_only(error.__cause__)
    )
