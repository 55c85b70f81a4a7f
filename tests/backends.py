"""A store of each kind, for tests: made, looked into from outside, and hindered as its medium would hinder it."""

from __future__ import annotations

import asyncio
import contextlib
import shutil
import sqlite3
from contextlib import asynccontextmanager, closing
from typing import TYPE_CHECKING, Any, Self

import pytest

from reserve_listener.errors import StoreError
from reserve_listener.store import open_reader, open_store
from reserve_listener.store.postgres import looking, schema
from reserve_listener.store.postgres.store import PostgresStore
from reserve_listener.store.shared import claiming, operations, projecting
from reserve_listener.store.shared.appending import Appending
from reserve_listener.store.sqlite.store import SqliteStore
from tests import postgres
from tests.helpers import stored, until, url_of

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping, Sequence
    from pathlib import Path
    from typing import Protocol, Unpack

    from reserve_listener.model import IncomingEvent, SinkFilter, StoredEvent
    from reserve_listener.protocols.backend import StoreOptions
    from reserve_listener.protocols.store import Directory, Store
    from reserve_listener.store.shared.store import SqlStore

    class Ask(Protocol):
        """Has work done by the thread that owns a file."""

        def __call__(self, work: Callable[[sqlite3.Connection], Any], /) -> Awaitable[Any]: ...


LOSE_HISTORY = (
    "DELETE FROM states",
    "DELETE FROM history",
    "INSERT INTO unbuilt SELECT scope, seq FROM events WHERE body IS NOT NULL",
)

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

    missing: str | None = None
    """Why there can be none here."""
    shared = False
    """Whether several daemons may have it at the same time; it then has no inbox, and no bound of its own."""

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

    def leave_others_alone(self, store: Store) -> None:
        """It does not look any more for what other daemons have stored: there are none."""

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
        for statement in LOSE_HISTORY:
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

    async def received(self, store: Store) -> list[str]:
        """The ids of what is durable and was not projected by anybody."""
        return [one.event_id for _, events in await store.left() for one in events]

    def coming_bytes(self, store: Store) -> int:
        """Of what is received and not projected, as the store counts them for its bound."""
        return _inside(store)._coming_bytes

    async def set_right(self, store: Store) -> None:
        """Until it is written down that the clock was set."""
        await _set_right(_inside(store))

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


class OnPostgres:
    """A store in a database of its own."""

    missing = None if postgres.programs() else postgres.MISSING
    shared = True

    def __init__(self, folder: Path) -> None:
        del folder
        self.url = postgres.SERVER.database()
        self._held: list[Held] = []
        self._patch = pytest.MonkeyPatch()

    async def open(
        self, *sinks: str, filters: Mapping[str, SinkFilter] | None = None, **options: Unpack[StoreOptions]
    ) -> Store:
        """As `open_store` does. One replica is all: what it has not is removed at once."""
        self._patch.setattr(looking, "REMOVED_AFTER_MS", 0)
        # A beat that began before a reload would take a sink that this has just added for one that nobody has.
        self._patch.setattr(PostgresStore, "_forget_removed", lambda _store: None)
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
        connection = schema.target(self.url).connect()
        try:
            with connection.transaction():
                cursor = connection.query(statement)
                return cursor.fetchall() if cursor.has_rows else []
        finally:
            connection.close()

    def require_sound(self) -> None:
        """What the medium itself can check is as it should be: no delivery without its event."""
        assert (
            self.rows(
                "SELECT seq FROM deliveries EXCEPT SELECT seq FROM events UNION SELECT seq FROM attempts EXCEPT SELECT seq FROM events"
            )
            == []
        )

    def hold_receiving(self, store: Store) -> Held:
        """Nothing becomes durable until released."""
        return self._hold(lambda work: _shared(store)._receiver.submit(work, writes=False))

    def hold_projecting(self, store: Store) -> Held:
        """Nothing is claimed or settled until released."""
        return self._hold(lambda work: _shared(store)._writer.submit(work, writes=False))

    def leave_others_alone(self, store: Store) -> None:
        """It does not look any more for what other daemons have stored, which would wake workers for its own, too."""
        beating = _shared(store)._beating
        assert beating is not None
        beating.cancel()

    def let_go(self) -> None:
        """At the end, also of a test that failed: nothing stands still, and nothing of it holds for the next one."""
        self._patch.undo()
        for held in self._held:
            held.let_go()

    @asynccontextmanager
    async def no_room_to_receive(self, store: Store) -> AsyncIterator[None]:
        """The server's disk is full."""
        del store
        self.rows(
            "CREATE FUNCTION no_room() RETURNS trigger LANGUAGE plpgsql AS"
            " 'BEGIN RAISE disk_full USING MESSAGE = ''the disk is full''; END'"
        )
        self.rows("CREATE TRIGGER no_room BEFORE INSERT ON events EXECUTE FUNCTION no_room()")
        yield
        self.rows("DROP TRIGGER no_room ON events")
        self.rows("DROP FUNCTION no_room")

    no_room_to_project = no_room_to_receive

    tune = staticmethod(OnSqlite.tune)

    def lose_history(self) -> None:
        """A closed store becomes one of an older version, which kept no history."""
        for statement in LOSE_HISTORY:
            self.rows(statement)

    async def rebuilt(self) -> None:
        """Until the open store has made the history again."""
        with open_reader(self.url) as reader:
            await until(lambda: not reader.is_rebuilding())

    async def crash(self, store: Store, events: Sequence[IncomingEvent]) -> None:
        """Dies in the middle of the transaction that stores events."""
        inside = _shared(store)

        def die(connection: Any) -> None:
            inside._appending().all(events, connection)
            connection.sync()
            connection.close()

        with contextlib.suppress(StoreError):
            await inside._receiver.submit(die, writes=True)
        await store.close()

    async def received(self, store: Store) -> list[str]:
        """The ids of what is durable and was not projected by anybody: here it is an event at once."""
        assert await store.left() == []
        return [event_id for (event_id,) in self.rows("SELECT event_id FROM events ORDER BY seq")]

    def coming_bytes(self, store: Store) -> int:
        """Of what is received and not projected: there is no such thing."""
        del store
        return 0

    async def set_right(self, store: Store) -> None:
        """Until it is written down that the clock was set."""
        await _set_right(_shared(store))

    def _hold(self, ask: Ask) -> Held:
        self._held.append(Held(ask))
        return self._held[-1]


def _shared(store: Store) -> PostgresStore:
    assert isinstance(store, PostgresStore)
    return store


async def _set_right(inside: SqlStore) -> None:
    while inside._setting_right is None:
        await asyncio.sleep(0.002)
    await asyncio.wait([inside._setting_right])


Backend = OnSqlite | OnPostgres
BACKENDS: dict[str, type[OnSqlite | OnPostgres]] = {"sqlite": OnSqlite, "postgres": OnPostgres}


def made(kind: str, folder: Path) -> Iterator[Backend]:
    """One for a fixture; skips the test where there can be none."""
    if reason := BACKENDS[kind].missing:
        pytest.skip(reason)
    backend = BACKENDS[kind](folder)
    yield backend
    backend.let_go()
