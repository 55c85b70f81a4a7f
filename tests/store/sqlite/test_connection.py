"""The connection that writes: what it sets and commits, how its statements are planned, and what becomes of its failures."""

from __future__ import annotations

import asyncio
import sqlite3
import stat
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest

from reserve_listener.errors import StoreError
from reserve_listener.model import Outcome, Verdict
from reserve_listener.simulator import patience
from reserve_listener.store.shared import sql
from reserve_listener.store.sqlite import schema, store as sqlite_store
from reserve_listener.store.sqlite.store import SqliteStore
from tests.helpers import Clock, append, event, until
from tests.store.test_store import claim, due, fill, first_due

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path


@pytest.fixture
async def store(path: Path) -> AsyncIterator[SqliteStore]:
    store = SqliteStore(path, now_ms=Clock())
    await store.open(["a", "b"])
    yield store
    await store.close()


def rows(path: Path, statement: str) -> list[Any]:
    connection = sqlite3.connect(path)
    try:
        return connection.execute(statement).fetchall()
    finally:
        connection.close()


async def on_writer(store: SqliteStore, work: Any) -> Any:
    """Run something on the writer's own connection."""
    return await store._writer.submit(work, writes=False)


async def test_a_writer_that_dies_leaves_nobody_waiting(tmp_path: Path) -> None:
    """Should the writer's thread end by itself, `ended` says why, and who asks it gets an error instead of silence."""

    class Dying(BaseException):
        pass

    def die(_connection: sqlite3.Connection) -> None:
        raise Dying("a defect")

    store = SqliteStore(tmp_path / "dying.db")
    await store.open(["log"])
    last = store._writer.submit(die, writes=True)
    async with asyncio.timeout(patience(5)):
        with pytest.raises(StoreError, match="a defect"):
            await store.ended()
        with pytest.raises(StoreError, match="a defect"):
            await last
        with pytest.raises(StoreError):
            await store.backlog()
        await store.close()


async def test_event_and_deliveries_are_one_transaction(store: SqliteStore, path: Path) -> None:
    """When a delivery row cannot be written none of its event's is there: it is kept whole, its neighbours are unharmed."""

    def refuse(connection: sqlite3.Connection) -> None:
        connection.execute(
            "CREATE TEMP TRIGGER refuse BEFORE INSERT ON main.deliveries"
            " WHEN NEW.sink = (SELECT id FROM sinks WHERE name = 'b')"
            " AND (SELECT event_id FROM events WHERE seq = NEW.seq) = 'bad'"
            " BEGIN SELECT RAISE(ABORT, 'no delivery'); END"
        )

    await on_writer(store, refuse)
    verdicts = await store.project([event(event_id) for event_id in ("good1", "bad", "good2")])
    assert verdicts == [Verdict.STORED, Verdict.UNREADABLE, Verdict.STORED]
    assert rows(path, "SELECT event_id, problem FROM events ORDER BY seq") == [
        ("good1", None),
        ("bad", "a bug in reserve-listener: IntegrityError: no delivery"),
        ("good2", None),
    ]
    assert rows(path, "SELECT count(*) FROM deliveries") == [(4,)]
    assert await store.project([event("bad2")]) == [Verdict.STORED]


async def test_many_appends_share_a_commit(store: SqliteStore) -> None:
    """A thousand pushes that wait together cost a handful of commits, and each verdict follows its commit."""
    statements: list[str] = []
    gate = asyncio.get_running_loop().create_future()
    await on_writer(store, lambda connection: connection.set_trace_callback(statements.append))
    async with asyncio.timeout(patience(20)):
        appends = [append(store, event(f"e{n}", scope=f"omm_{n % 7}")) for n in range(1_000)]
        appends[-1].add_done_callback(lambda _: gate.set_result(statements.count("COMMIT")))
        verdicts = await asyncio.gather(*appends)
    await on_writer(store, lambda connection: connection.set_trace_callback(None))
    assert verdicts == [Verdict.STORED] * 1_000
    assert 1 <= await gate <= 20


async def test_a_job_that_fails_fails_alone(store: SqliteStore) -> None:
    """A defect in one job of a shared commit reaches its caller as a StoreError and nobody else."""

    def broken(_: sqlite3.Connection) -> None:
        raise ZeroDivisionError("a defect")

    first = append(store, event("e1"))
    failing = store._writer.submit(broken, writes=True)
    last = append(store, event("e2"))
    assert await first is Verdict.STORED
    assert await last is Verdict.STORED
    with pytest.raises(StoreError, match="a defect"):
        await failing


async def test_a_busy_file_fails_a_shared_commit_once_and_not_job_by_job(
    store: SqliteStore, path: Path
) -> None:
    """While another program holds the write lock all waiting pushes fail after one busy timeout, then it works again."""
    await on_writer(store, lambda c: c.execute("PRAGMA busy_timeout = 100").fetchone())
    intruder = sqlite3.connect(path, isolation_level=None)
    try:
        intruder.execute("BEGIN IMMEDIATE")
        async with asyncio.timeout(patience(5)):  # one by one it would be 20 s
            results = await asyncio.gather(
                *(append(store, event(f"e{n}")) for n in range(200)), return_exceptions=True
            )
        assert {type(result) for result in results} == {StoreError}
    finally:
        intruder.close()
    assert await append(store, event("e1")) is Verdict.STORED


async def test_settle_is_all_or_none(store: SqliteStore) -> None:
    """When one row of a settle fails, none of it is stored and the caller hears it."""
    await fill(store, ("a1", "A"), ("b1", "B"))
    one, two = await first_due(store)
    await on_writer(
        store,
        lambda c: c.execute(
            f"CREATE TEMP TRIGGER no BEFORE UPDATE ON main.deliveries WHEN NEW.seq = {two.seq}"
            " BEGIN SELECT RAISE(ABORT, 'no update'); END"
        ),
    )
    with pytest.raises(StoreError, match="no update"):
        await store.settle("a", [Outcome.delivered(one), Outcome.delivered(two)])
    assert await due(store) == ["a1", "b1"]


async def test_the_files_are_for_the_owner_only(store: SqliteStore, path: Path) -> None:
    """Database, WAL, shared memory and lock are 0600, whatever the umask lets through."""
    await append(store, event())
    modes = {file.name: stat.S_IMODE(file.stat().st_mode) for file in path.parent.iterdir()}
    files = [
        f"{name}{ending}" for name in ("events.db", "events.db-inbox") for ending in ("", "-wal", "-shm")
    ]
    assert modes == dict.fromkeys([*files, "events.db.lock"], 0o600)


async def test_a_folder_that_is_made_is_for_the_owner_only(tmp_path: Path) -> None:
    """A store in a folder that is missing makes it, 0700."""
    store = SqliteStore(tmp_path / "new" / "events.db")
    await store.open(["a"])
    await store.close()
    assert stat.S_IMODE((tmp_path / "new").stat().st_mode) == 0o700


async def test_the_pragmas_that_durability_rests_on(store: SqliteStore) -> None:
    """WAL, synchronous=FULL (2) and foreign keys are really set on the connection that writes."""

    def pragmas(connection: sqlite3.Connection) -> list[Any]:
        return [
            connection.execute(f"PRAGMA {name}").fetchone()[0]
            for name in ("journal_mode", "synchronous", "foreign_keys", "application_id", "user_version")
        ]

    assert await on_writer(store, pragmas) == ["wal", 2, 1, schema.APPLICATION_ID, len(schema.migrations())]


PLANS = {
    "PENDING_FROM": ((0, 5000, 1, 100), ["SEARCH deliveries USING PRIMARY KEY (seq>? AND seq<?)"]),
    "PENDING_OF_SCOPE": (
        (1, 1, 10),
        ["SEARCH deliveries USING INDEX deliveries_pending (sink=? AND scope=?)"],
    ),
    "FIRST_PENDING": ((1,), ["SEARCH deliveries USING INDEX deliveries_pending (sink=?)"]),
    "PENDING_AGES": ((0, 5000, 1), ["SEARCH d USING PRIMARY KEY (seq>? AND seq<?)"]),
    "RELEASE": ((1,), ["SEARCH deliveries USING INDEX deliveries_due (sink=? AND due_ms>?)"]),
    "BACKLOG": ((10_000,), ["SEARCH deliveries USING INDEX deliveries_pending (sink=?)"]),
    "BURY_REMOVED": ({"now_ms": 0, "limit": 10}, ["SEARCH deliveries USING INDEX deliveries_pending"]),
    "SETTLE": ((1, 1, 1, 1, "", 1, 1), ["SEARCH deliveries USING PRIMARY KEY"]),
    "OLDEST_EVENTS": ((0, 10), ["SEARCH events USING INTEGER PRIMARY KEY (rowid>?)"]),
}


# BURY_REMOVED runs once a start, and with statistics of a tiny table a scan is right.
ANALYZED = [(name, True) for name in PLANS if name != "BURY_REMOVED"]


@pytest.mark.parametrize(("name", "analyzed"), [*((name, False) for name in PLANS), *ANALYZED])
async def test_the_hot_statements_use_their_indexes(store: SqliteStore, name: str, *, analyzed: bool) -> None:
    """The plans search the partial indexes and never scan or sort deliveries, with and without statistics."""
    values, expected = PLANS[name]
    await fill(store, *((f"e{n}", f"omm_{n % 5}") for n in range(50)))

    def explain(connection: sqlite3.Connection) -> list[str]:
        if analyzed:
            connection.execute("ANALYZE")
        statement = f"EXPLAIN QUERY PLAN {getattr(sql, name)}"
        return [row[3] for row in connection.execute(statement, values)]  # type: ignore[arg-type]

    # COVERING or not is the SQLite version's choice.
    plan = [line.replace("COVERING ", "") for line in await on_writer(store, explain)]
    for step in expected:
        assert any(line.startswith(step) for line in plan), plan
    assert not [line for line in plan if line.startswith(("SCAN d", "SCAN w", "SCAN deliveries", "SCAN e"))]
    assert not [line for line in plan if "ORDER BY" in line]


async def test_the_loop_goes_on_while_the_writer_is_busy(store: SqliteStore) -> None:
    """A slow job blocks the writer's thread and not the event loop."""
    release = asyncio.Event()
    loop = asyncio.get_running_loop()

    def slow(_: sqlite3.Connection) -> str:
        asyncio.run_coroutine_threadsafe(release.wait(), loop).result()
        return "done"

    job = store._writer.submit(slow, writes=True)
    claimed = asyncio.create_task(claim(store))
    await asyncio.sleep(0)
    assert not job.done()
    release.set()
    assert await job == "done"
    assert (await claimed).deliveries == []


async def test_a_cancelled_open_gives_the_lock_back(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """When opening fails after the connection is there, its thread ends and the store can be opened again."""
    store = SqliteStore(path)
    monkeypatch.setattr(sqlite_store, "_know_sinks", partial(lambda *_: 1 / 0))
    with pytest.raises(StoreError, match="division"):
        await store.open(["a"])
    await until(lambda: not store._writer._thread.is_alive())
    monkeypatch.undo()
    again = SqliteStore(path)
    await again.open(["a"])
    await again.close()
