"""What the writer does when the medium fails under it: nothing is called stored that is not, and it works again by itself."""

# ruff: noqa: ASYNC240  # small files on a local disk, and the loop has nothing else to do

from __future__ import annotations

import asyncio
import os
import shutil
import sqlite3
import subprocess
import sys
import threading
import time
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from reserve_listener.errors import StoreError
from reserve_listener.model import Outcome, Verdict
from reserve_listener.simulator import patience
from reserve_listener.store.shared import writer
from reserve_listener.store.sqlite import file, schema
from reserve_listener.store.sqlite.store import SqliteStore
from tests.helpers import NOW_MS, append, event, small_event, stored, until

if TYPE_CHECKING:
    from collections.abc import AsyncIterator


@pytest.fixture
async def store(path: Path) -> AsyncIterator[SqliteStore]:
    store = SqliteStore(path)
    await store.open(["a"])
    await append(store, event("before"))
    yield store
    await store.close()


async def ended(store: SqliteStore, pattern: str) -> None:
    async with asyncio.timeout(patience(10)):
        with pytest.raises(StoreError, match=pattern):
            await store.ended()
    assert store.problem is not None
    with pytest.raises(StoreError):
        await append(store, event("after the end"))


def ids(path: Path) -> set[str]:
    return {one.event_id for one in stored(path)}


def remove(path: Path) -> None:
    path.unlink()


def replace(path: Path) -> None:
    copy = path.with_name("copy.db")
    shutil.copy(path, copy)
    copy.rename(path)


@pytest.mark.parametrize(("harm", "said"), [(remove, "was removed"), (replace, "was replaced")])
async def test_a_store_that_is_gone_is_not_written_to(
    store: SqliteStore, path: Path, harm: Any, said: str
) -> None:
    """A push after the file was removed or exchanged is not STORED; `ended` says what happened, and no file is made."""
    await asyncio.to_thread(harm, path)
    with pytest.raises(StoreError, match=said):
        await append(store, event("lost"))
    await ended(store, f"{said} while the daemon was running")
    assert path.exists() is (harm is replace)


async def test_a_store_that_is_gone_is_noticed_by_a_reading_job_too(store: SqliteStore, path: Path) -> None:
    """A worker that only looks for work finds out as well, and does not ask a dead file for ever."""
    path.unlink()
    with pytest.raises(StoreError, match="was removed"):
        await store.backlog()
    await ended(store, "was removed")


def cut(path: Path, share: float = 0) -> None:
    os.truncate(path, round(path.stat().st_size * share))


def empty_and_fill_up(path: Path) -> None:
    """As long as before, and nothing in it."""
    size = path.stat().st_size
    os.truncate(path, 0)
    os.truncate(path, size)


def soundly_stored(path: Path) -> set[str]:
    """What the next start finds in a store that must be whole."""
    with closing(sqlite3.connect(path)) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    return ids(path)


@pytest.mark.parametrize("harm", [cut, partial(cut, share=0.5), partial(cut, share=0.99), empty_and_fill_up])
@pytest.mark.parametrize("checkpoint", ["before", "never"])
async def test_a_log_that_is_cut_short_is_not_written_to(
    store: SqliteStore, path: Path, harm: Any, checkpoint: str
) -> None:
    """No push is STORED behind the hole, the end says what happened, and the store is sound at the next start."""
    kept = {"before"}
    if checkpoint == "before":
        await store._writer.submit(
            lambda c: c.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone(), writes=False
        )
    for number in range(30):
        await append(store, event(f"e{number}"))
    await asyncio.to_thread(harm, path.with_name("events.db-wal"))
    with pytest.raises(StoreError, match="cut short"):
        await append(store, event("lost"))
    await ended(store, "events.db-wal, a part of the store, was cut short while the daemon was running")
    await store.close()
    found = await reopened(path)
    assert "lost" not in found
    assert checkpoint == "never" or found >= kept


async def reopened(path: Path) -> set[str]:
    store = SqliteStore(path)
    await store.open(["a"])
    assert await append(store, event("next")) is Verdict.STORED
    await store.close()
    return await asyncio.to_thread(soundly_stored, path)


@pytest.mark.parametrize("share", [0, 0.5])
async def test_a_log_that_is_cut_during_a_commit_is_not_answered_for(
    store: SqliteStore, path: Path, share: float
) -> None:
    """The hole comes between the look before the transaction and its commit: the look after it sees it."""
    for number in range(30):
        await append(store, event(f"e{number}"))

    def harmed(connection: sqlite3.Connection) -> None:
        connection.execute("UPDATE sinks SET configured = configured")
        cut(path.with_name("events.db-wal"), share)

    with pytest.raises(StoreError, match="cut short"):
        await store._writer.submit(harmed, writes=True)
    await ended(store, "cut short")


@pytest.mark.parametrize("mode", ["PASSIVE", "FULL", "RESTART", "TRUNCATE"])
async def test_another_programs_checkpoint_is_no_harm(store: SqliteStore, path: Path, mode: str) -> None:
    """`sqlite3 events.db "PRAGMA wal_checkpoint(TRUNCATE)"` may be run: the log is shorter then, and rightly so."""
    for number in range(20):
        with closing(sqlite3.connect(path)) as connection:
            connection.execute(f"PRAGMA wal_checkpoint({mode})").fetchone()
        assert await append(store, event(f"e{number}")) is Verdict.STORED
    await store.close()
    assert ids(path) == {"before", *(f"e{number}" for number in range(20))}


@pytest.mark.parametrize("harm", [remove, replace])
async def test_without_its_wal_the_store_saves_itself_and_ends(
    store: SqliteStore, path: Path, harm: Any
) -> None:
    """With the -wal file gone nothing more is STORED, and what was is in the store at the next start."""
    await asyncio.to_thread(harm, path.with_name("events.db-wal"))
    with pytest.raises(StoreError, match="-wal"):
        await append(store, event("lost"))
    await ended(store, "events.db-wal, a part of the store, was removed or replaced")
    await store.close()
    path.with_name("events.db-wal").unlink(missing_ok=True)
    assert ids(path) == {"before"}
    again = SqliteStore(path)
    await again.open(["a"])
    assert await append(again, event("before")) is Verdict.DUPLICATE
    assert await append(again, event("lost")) is Verdict.STORED
    await again.close()


async def test_a_file_that_vanishes_between_failing_and_opening_anew(
    store: SqliteStore, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The file that opening anew makes is not taken for the store."""
    fail_next(store, "SQLITE_IOERR", monkeypatch)
    with pytest.raises(StoreError, match="disk I/O"):
        await append(store, event("e1"))
    opening = schema.open_writer

    def open_late(where: Path, part: schema.Part) -> sqlite3.Connection:
        where.unlink()
        return opening(where, part)

    monkeypatch.setattr(schema, "open_writer", open_late)
    with pytest.raises(StoreError, match="was replaced"):
        await append(store, event("e1"))
    await ended(store, "was replaced")


def error_of(name: str) -> sqlite3.OperationalError:
    error = sqlite3.OperationalError("disk I/O error" if name == "SQLITE_IOERR" else name)
    error.sqlite_errorname = name
    return error


def fail_next(store: SqliteStore, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The next transaction fails so, and its ROLLBACK too: the connection stays inside it."""

    def transaction(connection: sqlite3.Connection, _jobs: Any) -> Any:
        monkeypatch.setattr(file, "_transaction", real)
        connection.execute("BEGIN IMMEDIATE")
        connection.execute("INSERT INTO apps VALUES ('half', 1)")
        raise error_of(name)

    real = file._transaction
    monkeypatch.setattr(file, "_transaction", transaction)


@pytest.mark.parametrize(
    "name", ["SQLITE_IOERR", "SQLITE_FULL", "SQLITE_NOMEM", "SQLITE_CANTOPEN", "SQLITE_CORRUPT"]
)
async def test_a_failed_rollback_spoils_nothing(
    store: SqliteStore, path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """When even the rollback fails the jobs fail, `problem` says why, and a new connection goes on without the rest."""
    fail_next(store, name, monkeypatch)
    results = await asyncio.gather(
        *(append(store, event(f"e{n}")) for n in range(20)), return_exceptions=True
    )
    failed = [one for one in results if isinstance(one, StoreError)]
    assert failed
    assert set(results) - set(failed) <= {Verdict.STORED}
    if len(failed) == len(results):
        assert store.problem is not None
    assert await append(store, event("again")) is Verdict.STORED
    assert store.problem is None
    await store.close()
    assert "again" in ids(path)
    with closing(sqlite3.connect(path)) as connection:
        assert connection.execute("SELECT * FROM apps").fetchall() == []


async def test_a_problem_is_over_when_something_was_written(
    store: SqliteStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A duplicate commits nothing, so it does not say that the disk works again; `touch` does, also without an app."""
    fail_next(store, "SQLITE_IOERR", monkeypatch)
    with pytest.raises(StoreError):
        await append(store, event("e1"))
    assert await append(store, event("before")) is Verdict.DUPLICATE
    assert store.problem is not None
    await store.touch("cli_unknown")
    assert store.problem is None


async def test_a_full_store_says_so_until_there_is_room(store: SqliteStore) -> None:
    """SQLITE_FULL sets `problem`; the same connection works on once pages are free."""
    (pages,) = await store._writer.submit(lambda c: c.execute("PRAGMA page_count").fetchone(), writes=False)
    await limit_pages(store, pages)
    with pytest.raises(StoreError, match="full"):
        await append(store, small_event("big", size=1_000_000))
    problem = store.problem or ""
    assert problem.startswith("the store ")
    assert problem.endswith("/events.db failed: database or disk is full. Make room on its disk.")
    await limit_pages(store, 1_000_000)
    assert await append(store, small_event("big", size=1_000_000)) is Verdict.STORED
    assert store.problem is None


async def limit_pages(store: SqliteStore, pages: int) -> None:
    await store._writer.submit(
        lambda c: c.execute(f"PRAGMA max_page_count = {pages}").fetchone(), writes=False
    )


async def test_one_by_one_stops_at_the_medium(store: SqliteStore, path: Path) -> None:
    """After a defect of one job the others go one by one; a file that is busy then fails the rest at once."""
    await store._writer.submit(lambda c: c.execute("PRAGMA busy_timeout = 100").fetchone(), writes=False)
    intruder = sqlite3.connect(path, isolation_level=None, check_same_thread=False)

    def broken(connection: sqlite3.Connection) -> None:
        if intruder.in_transaction:
            return
        connection.execute("ROLLBACK")
        intruder.execute("BEGIN IMMEDIATE")
        connection.execute("SAVEPOINT s")
        raise ZeroDivisionError("a defect")

    with closing(intruder):
        async with asyncio.timeout(patience(5)):  # one by one it would be 20 s
            jobs: list[asyncio.Future[Any]] = [store._writer.submit(broken, writes=True)]
            jobs += [append(store, event(f"e{n}")) for n in range(200)]
            results = await asyncio.gather(*jobs, return_exceptions=True)
    assert {type(result) for result in results} == {StoreError}
    assert await append(store, event("e1")) is Verdict.STORED


# -- damage ----------------------------------------------------------------------------------------------------------------


async def test_damage_under_the_running_store_ends_it(store: SqliteStore, path: Path) -> None:
    """With its pages overwritten the store answers no push STORED once it has noticed, and says that it is damaged."""
    await asyncio.gather(*(append(store, small_event(f"e{n}", size=2_000)) for n in range(200)))
    await store._writer.submit(
        lambda c: c.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone(), writes=False
    )
    with path.open("r+b") as file:
        file.seek(4096)
        file.write(os.urandom(path.stat().st_size - 4096))
    await store._writer.submit(lambda c: c.execute("PRAGMA shrink_memory").fetchone(), writes=False)
    with pytest.raises(StoreError, match=r"malformed|damaged"):
        await append(store, event("new"))
    with pytest.raises(StoreError, match="damaged"):  # the next job looks through the file
        await store.backlog()
    await ended(store, "is damaged")


async def test_a_false_alarm_is_looked_into_and_forgotten(
    store: SqliteStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An error of damage in a file that turns out sound costs its jobs, and the store goes on."""
    looked: list[bool] = []
    real = schema.require_sound

    def look(*args: Any, **more: Any) -> None:
        looked.append(more["indexes"])
        real(*args, **more)

    def alarm(_: sqlite3.Connection) -> None:
        raise error_of("SQLITE_CORRUPT_VTAB")

    monkeypatch.setattr(schema, "require_sound", look)
    for writes in (True, False):
        with pytest.raises(StoreError, match="CORRUPT"):
            await store._writer.submit(alarm, writes=writes)
        assert await append(store, event(f"e{writes}")) is Verdict.STORED
    assert looked == [False, False]
    assert store.problem is None


async def test_an_index_that_does_not_fit_its_table_is_damage(path: Path) -> None:
    """What only a thorough check finds is found: the store ends instead of failing and opening anew for ever."""
    store = SqliteStore(path)
    await store.open(["a"])
    await append(store, event("e1"))
    await store.close()
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        where = "FROM sqlite_master WHERE name = 'deliveries_pending'"
        row = connection.execute(f"SELECT * {where}").fetchone()
        connection.execute("UPDATE deliveries SET state = 1")
        connection.execute("PRAGMA writable_schema = ON")
        connection.execute(f"DELETE {where}")
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute("UPDATE deliveries SET state = 0")
        connection.execute("PRAGMA writable_schema = ON")
        connection.execute("INSERT INTO sqlite_master VALUES (?, ?, ?, ?, ?)", row)
    store = SqliteStore(path)
    await store.open(["a"])
    with pytest.raises(StoreError, match="malformed"):
        await store.settle("a", [Outcome(seq=1, state="delivered", attempts=1)])
    with pytest.raises(StoreError, match="damaged"):
        await store.settle("a", [Outcome(seq=1, state="delivered", attempts=1)])
    await ended(store, "damaged")
    await store.close()


# -- a disk that takes no more ------------------------------------------------------------------------------------------------

LIMITED = """
import asyncio, resource, sys
from pathlib import Path
from reserve_listener.errors import StoreError
from reserve_listener.store.sqlite.store import SqliteStore
from tests.helpers import append, small_event

async def main() -> None:
    store = SqliteStore(Path(sys.argv[1]))
    await store.open(["a"])
    answered, refused, number = [], [], 0
    _, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    for round in range(2):
        resource.setrlimit(resource.RLIMIT_FSIZE, (400_000 * (round + 1), hard))
        while len(refused) < 3 * (round + 1):
            number += 1
            try:
                await append(store, small_event(f"e{number}", size=50_000))
                answered.append(f"e{number}")
            except StoreError as error:
                refused.append(str(error))
        assert store.problem is not None
        resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, hard))
        await append(store, small_event(f"room{round}", size=50_000))
        assert store.problem is None
        answered.append(f"room{round}")
    print(*answered, flush=True)
    print(refused[0], file=sys.stderr, flush=True)
    import os; os._exit(0)

asyncio.run(main())
"""


def test_a_file_that_may_not_grow(path: Path) -> None:
    """Writes that the kernel refuses half way fail their pushes; with room again it works, and after a crash all is there."""
    done = subprocess.run(
        [sys.executable, "-c", LIMITED, str(path)],
        cwd=Path.cwd(),
        capture_output=True,
        text=True,
        timeout=patience(60),
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert ids(path) == set(done.stdout.split()), done.stderr
    with closing(sqlite3.connect(path)) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)


# -- waiting ---------------------------------------------------------------------------------------------------------------


async def test_a_commit_that_hangs_is_a_problem(store: SqliteStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """While a commit takes longer than it should `problem` says so, and no longer afterwards."""
    monkeypatch.setattr(writer, "SLOW_S", 0.05)
    go_on = threading.Event()
    job = store._writer.submit(lambda _: go_on.wait(10), writes=True)
    await until(lambda: store.problem)
    assert "a commit has been under way for 0 s" in (store.problem or "")
    go_on.set()
    assert await job
    await append(store, event("after"))
    assert store.problem is None


async def test_thousands_of_waiting_jobs_hear_of_the_writers_death(store: SqliteStore) -> None:
    """Two and a half batches that wait when the writer dies all get an error, at once."""

    class Dying(BaseException):
        pass

    go_on = threading.Event()

    def die(_: sqlite3.Connection) -> None:
        go_on.wait(10)
        raise Dying("a defect")

    dying = store._writer.submit(die, writes=False)
    jobs = [dying, *(store._writer.submit(lambda _: None, writes=n % 2 == 0) for n in range(5_000))]
    begun = time.monotonic()
    go_on.set()
    results = await asyncio.gather(*jobs, return_exceptions=True)
    assert {type(one) for one in results} <= {StoreError, type(None)}
    assert isinstance(results[0], StoreError)
    assert isinstance(results[-1], StoreError)
    assert time.monotonic() - begun < patience(5)
    assert store.problem is not None


async def test_a_replaced_store_with_two_thousand_waiting(store: SqliteStore, path: Path) -> None:
    """All pushes that wait when the file turns out to be gone are refused, none is called stored."""
    held_up, go_on = threading.Event(), threading.Event()

    def hold(_: sqlite3.Connection) -> None:
        held_up.set()
        go_on.wait(10)

    held = store._writer.submit(hold, writes=False)
    await until(held_up.is_set)
    pushes = [append(store, event(f"e{n}", received_ms=NOW_MS)) for n in range(2_500)]
    path.unlink()
    go_on.set()
    await held
    async with asyncio.timeout(patience(5)):
        results = await asyncio.gather(*pushes, return_exceptions=True)
    assert {type(one) for one in results} == {StoreError}
