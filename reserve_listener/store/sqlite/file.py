"""The store's file as a writer's medium: one connection, which is opened again after the medium has failed.

What must stay true: commits are in the file that has the store's name, with the whole log beside it.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import sqlite3
import struct
from itertools import groupby
from operator import attrgetter
from typing import TYPE_CHECKING, Final

from reserve_listener.errors import StoreError, WrongStoreError
from reserve_listener.store.shared.medium import NotNowError, is_medium, sqlite_name
from reserve_listener.store.sqlite import schema
from reserve_listener.store.sqlite.wal import WalGuard

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from reserve_listener.store.shared.writer import Job, Result

_PASSES_BY_ITSELF: Final = ("SQLITE_FULL", "SQLITE_BUSY", "SQLITE_LOCKED")
"""Errors of the medium after which the connection is as good as before."""

_DAMAGED: Final = ("SQLITE_CORRUPT", "SQLITE_NOTADB")


class File:
    """The store's file and the connection to it: a `Medium`."""

    def __init__(self, path: Path, part: schema.Part = schema.STORE, beside: Path | None = None) -> None:
        """`beside`: a file without which writing to this one would be pointless."""
        self.path = path
        self._part = part
        self._beside = beside
        self._beside_identity: tuple[int, int] | None = None
        self._real = path.resolve()
        """Where SQLite keeps the rest of the store, if the path is a link."""
        self._wal = self._real.with_name(f"{self._real.name}-wal")
        self._connection: sqlite3.Connection | None = None
        self._guard: WalGuard | None = None
        self._held: int | None = None
        self._identity: tuple[int, int] | None = None
        self._wal_identity: tuple[int, int] | None = None
        self._damage: str | None = None

    def open(self) -> None:
        """Open, as at start. Raises `StoreError`."""
        self._connection = schema.open_writer(self.path, self._part)
        # Held open, also while no connection is: the number of a removed file would be given to the next one.
        self._held = os.open(self.path, os.O_RDONLY | os.O_CLOEXEC)
        self._identity, self._wal_identity = _identity(self.path), _identity(self._wal)
        self._beside_identity = _identity(self._beside)
        self._guard = WalGuard(self._real)

    def usable(self) -> sqlite3.Connection:
        """A connection to the file that has the store's name.

        Raises `NotNowError`, and `StoreError` if only a person can help: the file is gone, replaced or damaged.
        """
        self._require_same()
        self.require_whole()
        if self._connection is None:
            self._reopen()
            self._require_same()  # opening makes a file where none is
        if self._connection is None:  # pragma: no cover  # `_reopen` opens or raises
            raise NotNowError(f"the store {self.path} is not open")
        return self._connection

    def require_whole(self) -> None:
        """Raises `StoreError` if a part of the commits is gone from the log."""
        if self._guard is None or self._guard.whole():
            return
        self._hold_still()
        raise StoreError(
            f"{self._wal}, a part of the store, was cut short while the daemon was running; what was committed since the"
            " last checkpoint is lost, and anything committed from now on would be."
            " Start the daemon again, and keep other programs away from this file."
        )

    def _hold_still(self) -> None:
        """Keep SQLite from copying the rest of a damaged log, page by page, when it closes: that would ruin the store.

        Our lock on the bytes that SQLite would lock for this prevents it; the next opening recovers what is intact.
        """
        if self._held is not None:
            sharing = struct.pack("@hhqqi4x", fcntl.F_RDLCK, os.SEEK_SET, 0x40000002, 510, 0)
            fcntl.fcntl(self._held, fcntl.F_OFD_SETLK, sharing)

    def commit(self, connection: sqlite3.Connection, jobs: Sequence[Job]) -> tuple[list[Result], bool]:
        """See `Medium.commit`."""
        changes = connection.total_changes
        results = _commit(connection, jobs, self.path)
        wrote = connection.total_changes != changes
        if connection.in_transaction:  # even the rollback failed
            self.close()
        if wrote:
            self.require_whole()
        return results, wrote

    def has_failed(self, error: BaseException) -> bool:
        """See `Medium.has_failed`."""
        return is_medium(error)

    def failure(self, error: BaseException) -> StoreError:
        """See `Medium.failure`."""
        return _store_error(error, self.path)

    def suspect(self, error: BaseException) -> None:
        """A commit failed with this error: open again, unless the connection is known to be as good as before."""
        name = sqlite_name(error)
        self.require_whole()
        if name.startswith(_PASSES_BY_ITSELF):
            return
        if name.startswith(_DAMAGED):
            self._damage = name
        self.close()

    def read(self, job: Job) -> Result:
        """Run a job that only reads; that, too, can show that the file is damaged. Raises `StoreError` as `usable` does."""
        try:
            connection = self.usable()
        except NotNowError as error:
            return job, None, StoreError(str(error))
        try:
            return job, job.work([job.item], connection)[0], None
        except Exception as error:  # noqa: BLE001  # as in _commit
            if sqlite_name(error).startswith(_DAMAGED):
                self.suspect(error)
            return job, None, _store_error(error, self.path)

    def close(self) -> None:
        """Close the connection. Does not raise."""
        connection, self._connection = self._connection, None
        if connection is not None:
            with contextlib.suppress(sqlite3.Error):
                connection.close()
        guard, self._guard = self._guard, None
        if guard is not None:
            guard.close()

    def release(self) -> None:
        """Release everything. Does not raise."""
        self.close()
        if self._held is not None:
            os.close(self._held)
            self._held = None

    def _reopen(self) -> None:
        try:
            connection = schema.open_writer(self.path, self._part)
            if self._damage is not None:
                _require_sound(connection, self.path, self._damage)
        except (schema.DamagedStoreError, WrongStoreError):
            raise
        except StoreError as error:
            raise NotNowError(str(error)) from error
        self._connection, self._damage = connection, None
        self._wal_identity = _identity(self._wal)
        self._guard = WalGuard(self._real)

    def _require_same(self) -> None:
        try:
            named, wal, beside = _identity(self.path), _identity(self._wal), _identity(self._beside)
        except OSError as error:
            raise NotNowError(
                f"the store {self.path} cannot be looked at: {error.strerror or error}"
            ) from error
        for path, found, was in (
            (self.path, named, self._identity),
            (self._beside, beside, self._beside_identity),
        ):
            if found != was:
                what = "was removed" if found is None else "was replaced"
                raise StoreError(
                    f"the store {path} {what} while the daemon was running; anything committed to it from now on"
                    " would be lost. Put the file back, or start again with a new store."
                )
        if wal != self._wal_identity and self._connection is not None:
            raise StoreError(  # the end of the thread closes the connection, and that saves what is committed
                f"{self._wal}, a part of the store, was removed or replaced while the daemon was running; anything"
                " committed from now on would be lost. Earlier commits have been saved: start the daemon again."
            )


def _identity(path: Path | None) -> tuple[int, int] | None:
    """What distinguishes a file from a later one of the same name; None if there is none."""
    if path is None:
        return None
    try:
        status = path.stat()
    except FileNotFoundError:
        return None
    return status.st_dev, status.st_ino


def _require_sound(connection: sqlite3.Connection, path: Path, damage: str) -> None:
    try:
        schema.require_sound(connection, path, indexes=damage == "SQLITE_CORRUPT_INDEX")
    except StoreError:
        connection.close()
        raise


def _commit(connection: sqlite3.Connection, jobs: Sequence[Job], path: Path) -> list[Result]:
    """Run all jobs in one transaction or, if one fails, each in its own."""
    try:
        return _transaction(connection, jobs)
    except Exception as error:  # noqa: BLE001  # a job's own mistake must not end the thread
        if len(jobs) == 1 or is_medium(error) or connection.in_transaction:
            return [(job, None, _store_error(error, path)) for job in jobs]
    results: list[Result] = []
    for number, job in enumerate(jobs):
        results += _commit(connection, [job], path)
        failure = results[-1][2]
        if failure is not None and (is_medium(failure) or connection.in_transaction):
            return results + [(left, None, failure) for left in jobs[number + 1 :]]
    return results


def _transaction(connection: sqlite3.Connection, jobs: Sequence[Job]) -> list[Result]:
    connection.execute("BEGIN IMMEDIATE")
    try:
        results: list[Result] = []
        for work, group in groupby(jobs, attrgetter("work")):
            together = list(group)
            values = work([job.item for job in together], connection)
            results += [(job, value, None) for job, value in zip(together, values, strict=True)]
        connection.execute("COMMIT")
    except BaseException:
        with contextlib.suppress(sqlite3.Error):  # the first error is the one to tell
            if connection.in_transaction:
                connection.execute("ROLLBACK")
        raise
    return results


def _store_error(error: BaseException, path: Path) -> StoreError:
    advice = ". Make room on its disk." if sqlite_name(error) == "SQLITE_FULL" else ""
    failure = StoreError(f"the store {path} failed: {error}{advice}")
    failure.__cause__ = error
    return failure
