"""The inbox: a second file beside the store, where one small write makes a batch of pushes durable.

What must stay true: what was committed here and is not yet in the store is found at the next start; no number is used twice, not
even after the inbox or the store was restored from a copy; and nothing is freed that is not in the store.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, NamedTuple, TypeVar

from reserve_listener.store.shared import sql
from reserve_listener.store.shared.batches import Batch, batches_after, encode
from reserve_listener.store.shared.writer import Writer
from reserve_listener.store.sqlite import schema
from reserve_listener.store.sqlite.file import File
from reserve_listener.store.sqlite.places import inbox_path

if TYPE_CHECKING:
    import asyncio
    import sqlite3
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from reserve_listener.errors import StoreError
    from reserve_listener.model import IncomingEvent
    from reserve_listener.store.shared.projecting import Position

T = TypeVar("T")


class _Put(NamedTuple):
    batch: Batch
    free: int
    """All batches up to this one may be deleted; 0: no further ones."""


class Inbox:
    """The file and its writer."""

    def __init__(self, store: Path) -> None:
        self.path = inbox_path(store)
        self._store = store
        self._next = 1
        self._projected = 0
        self._freed = 0
        self._opened = False
        self._writer: Writer
        self.id = ""
        """Identifies the inbox in the store's position."""

    async def open(self, position: Position) -> None:
        """Open or create the inbox. `position`: how far the store is; that of another inbox counts as 0."""
        self._writer = Writer(File(self.path, schema.INBOX, self._store), name="inbox-writer")
        self._opened = True
        await self._writer.open()
        self.id, newest = await self._writer.submit(_look, writes=False)
        self._projected = position.number if position.inbox == self.id else 0
        self._next = max(newest, self._projected) + 1

    @property
    def problem(self) -> str | None:
        """Why the last batch could not be made durable, or that the current one takes too long."""
        return self._writer.problem

    @property
    def failed_commits(self) -> int:
        """See `Writer.failed_commits`."""
        return self._writer.failed_commits

    @property
    def stuck_s(self) -> float:
        """See `Writer.stuck_s`."""
        return self._writer.stuck_s

    def put(self, events: Sequence[IncomingEvent], done: Callable[[int, StoreError | None], None]) -> None:
        """Make events durable. `done` is called with the batch's number, and the error if that failed."""
        batch = Batch(self._next, events)
        self._next += 1
        item = _Put(batch, self._projected if self._projected > self._freed else 0)
        self._writer.submit_item(_put, item, partial(self._told, done, item), writes=True)
        self._writer.hand_on()

    def _told(
        self,
        done: Callable[[int, StoreError | None], None],
        put: _Put,
        _value: None,
        error: StoreError | None,
    ) -> None:
        if error is None:
            self._freed = max(self._freed, put.free)
        done(put.batch.number, error)

    async def left(self) -> list[Batch]:
        """The batches that are not in the store, in the order of their arrival."""
        batches: list[Batch] = await self._writer.submit(
            partial(batches_after, self._projected), writes=False
        )
        return batches

    def projected(self, number: int) -> None:
        """Everything up to this batch is in the store and may be deleted with the next write."""
        self._projected = max(self._projected, number)

    async def tidy(self) -> None:
        """Delete what may go, now. Raises `StoreError`."""
        await self._writer.submit(partial(_free, self._projected), writes=True)

    async def touch(self) -> None:
        """Write something small, to find out after a failure whether the file works again. Raises `StoreError`."""
        await self._writer.submit(_touch, writes=True)

    def ask(self, work: Callable[[sqlite3.Connection], T]) -> asyncio.Future[T]:
        """Run a query on the file."""
        return self._writer.submit(work, writes=False)

    @property
    def end(self) -> asyncio.Future[None]:
        """See `Writer.end`."""
        return self._writer.end

    async def close(self) -> None:
        """Finish what is queued. Projected batches stay in the file until the next start, which saves a write."""
        if self._opened:
            await self._writer.close()


def _look(connection: sqlite3.Connection) -> tuple[str, int]:
    (inbox,) = connection.execute(sql.INBOX_ID).fetchone()
    (newest,) = connection.execute(sql.NEWEST_BATCH).fetchone()
    return str(inbox), int(newest or 0)


def _put(items: Sequence[_Put], connection: sqlite3.Connection) -> list[None]:
    for batch, _ in items:
        connection.execute(sql.PUT_BATCH, (batch.number, encode(batch.events)))
    if free := max(item.free for item in items):
        _free(free, connection)
    return [None] * len(items)


def _free(projected: int, connection: sqlite3.Connection) -> None:
    connection.execute(sql.FREE_BATCHES, (projected,))


def _touch(connection: sqlite3.Connection) -> None:
    connection.execute(sql.TOUCH_INBOX)
