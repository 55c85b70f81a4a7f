"""A store of each kind, for tests: made, looked into from outside, and hindered as its medium would hinder it."""

from __future__ import annotations

import asyncio
import shutil
import sqlite3
from contextlib import asynccontextmanager, closing
from typing import TYPE_CHECKING, Any, Self

from reserve_listener.store import open_reader, open_store
from reserve_listener.store.sqlite import claiming, operations, projecting
from reserve_listener.store.sqlite.appending import Appending
from reserve_listener.store.sqlite.store import SqliteStore
from tests.helpers import stored, until, url_of

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
    from pathlib import Path
    from typing import Protocol, Unpack

    import pytest

    from reserve_listener.model import IncomingEvent, SinkFilter, StoredEvent
    from reserve_listener.protocols.backend import StoreOptions
    from reserve_listener.protocols.store import Directory, Store

    class Ask(Protocol):
        """Has work done by the thread that owns a file."""

        def __call__(self, work: Callable[[sqlite3.Connection], Any], /) -> Awaitable[Any]: ...


MANY_PAGES = 1_073_741_823


class Held:
    """What a store does for pushes or for all else stands still until released."""

    def __init__(self, ask: Ask) -> None:
        self._released, self._begun = asyncio.Event(), asyncio.Event()
        loop = asyncio.get_running_loop()

        def hold(_: sqlite3.Connection) -> None:
            loop.call_soon_threadsafe(self._begun.set)
            asyncio.run_coroutine_threadsafe(self._released.wait(), loop).result()

        self._job = ask(hold)

    async def begun(self) -> Self:
        """When it stands still."""
        await self._begun.wait()
        return self

    def let_go(self) -> None:
        """Release without waiting."""
        self._released.set()

    async def release(self) -> None:
        """Until it goes on."""
        self.let_go()
        await self._job


class OnSqlite:
    """A store in a file."""

    def __init__(self, folder: Path) -> None:
        self._folder, self._lives = folder, 0
        self.path = folder / "events.db"
        self.url = url_of(self.path)
        self._held: list[Held] = []

    async def open(
        self, *sinks: str, filters: Mapping[str, SinkFilter] | None = None, **options: Unpack[StoreOptions]
    ) -> Store:
        """As `open_store` does."""
        return await open_store(self.url, sinks, filters, **options)

    def stored(self, *, unreadable: bool = False) -> list[StoredEvent]:
        """What a reader finds, the newest first."""
        return stored(self.url, unreadable=unreadable)

    def directory(self) -> Directory:
        """The names that a reader finds."""
        with open_reader(self.url) as reader:
            return reader.directory()

    def rows(self, statement: str) -> list[tuple[Any, ...]]:
        """What another connection reads or changes, by SQL that every backend understands."""
        with closing(sqlite3.connect(self.path, isolation_level=None)) as connection:
            return connection.execute(statement).fetchall()

    def require_sound(self) -> None:
        """What the medium itself can check is as it should be."""
        assert self.rows("PRAGMA integrity_check") == [("ok",)]
        assert self.rows("PRAGMA foreign_key_check") == []

    def hold_receiving(self, store: Store) -> Held:
        """Nothing becomes durable until released."""
        return self._hold(_inside(store)._inbox.ask)

    def hold_projecting(self, store: Store) -> Held:
        """Nothing is projected, claimed or settled until released."""
        return self._hold(_asking(store))

    def let_go(self) -> None:
        """At the end, also of a test that failed: nothing stands still."""
        for held in self._held:
            held.let_go()

    @asynccontextmanager
    async def no_room_to_receive(self, store: Store) -> AsyncIterator[None]:
        """The disk is full for pushes."""
        async with _full(_inside(store)._inbox.ask):
            yield

    @asynccontextmanager
    async def no_room_to_project(self, store: Store) -> AsyncIterator[None]:
        """The disk is full for all that comes after the answer."""
        async with _full(_asking(store)):
            yield

    @staticmethod
    def tune(
        monkeypatch: pytest.MonkeyPatch,
        *,
        chunk_rows: int | None = None,
        window: int | None = None,
        claim_bytes: int | None = None,
    ) -> None:
        """Small bounds, so that a handful of events is many chunks of an operation, many windows of a claim, many claims."""
        for module, name, value in (
            (operations, "CHUNK_ROWS", chunk_rows),
            (operations, "WINDOW_SEQS", chunk_rows and chunk_rows + 1),
            (claiming, "WINDOW_SEQS", window),
            (claiming, "CLAIM_BYTES", claim_bytes),
        ):
            if value is not None:
                monkeypatch.setattr(module, name, value)

    def lose_history(self) -> None:
        """A closed store becomes one of an older version, which kept no history."""
        for statement in (
            "DELETE FROM states",
            "DELETE FROM history",
            "INSERT INTO unbuilt SELECT scope, seq FROM events WHERE body IS NOT NULL",
        ):
            self.rows(statement)

    async def rebuilt(self) -> None:
        """Until the open store has made the history again."""
        with open_reader(self.url) as reader:
            await until(lambda: not reader.is_rebuilding())

    async def crash(self, store: Store, events: Sequence[IncomingEvent]) -> None:
        """Dies in the middle of the transaction that stores events. What `open` finds then is what this has left."""
        inside = _inside(store)
        self._lives += 1
        left = self._folder / f"life-{self._lives}"
        left.mkdir()

        def die(connection: sqlite3.Connection) -> None:
            appending = Appending(inside._specs, {}, inside._complete)
            projecting.project(appending, events, None, connection)
            for file in self.path.parent.glob("events.db*"):
                if not file.name.endswith("-shm"):
                    shutil.copy(file, left)

        await inside._writer.submit(die, writes=True)
        await store.close()
        self.path = left / "events.db"
        self.url = url_of(self.path)

    def coming_bytes(self, store: Store) -> int:
        """Of what is received and not projected, as the store counts them for its bound."""
        return _inside(store)._coming_bytes

    async def set_right(self, store: Store) -> None:
        """Until it is written down that the clock was set."""
        inside = _inside(store)
        while inside._setting_right is None:
            await asyncio.sleep(0.002)
        await asyncio.wait([inside._setting_right])

    def _hold(self, ask: Ask) -> Held:
        self._held.append(Held(ask))
        return self._held[-1]


def _inside(store: Store) -> SqliteStore:
    assert isinstance(store, SqliteStore)
    return store


def _asking(store: Store) -> Ask:
    return lambda work: _inside(store)._writer.submit(work, writes=False)


@asynccontextmanager
async def _full(ask: Ask) -> AsyncIterator[None]:
    await ask(lambda connection: connection.execute("PRAGMA max_page_count = 1").fetchone())
    yield
    await ask(lambda connection: connection.execute(f"PRAGMA max_page_count = {MANY_PAGES}").fetchone())


Backend = OnSqlite
BACKENDS = {"sqlite": OnSqlite}
