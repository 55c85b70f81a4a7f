"""A store is moved to another database, and back: row by row what it was, whatever happens on the way."""

from __future__ import annotations

import asyncio
import signal
import sqlite3
import sys
from contextlib import closing, suppress
from functools import partial
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import HealthCheck, given, settings, strategies as st

from reserve_listener.errors import StoreError, StoreInUseError, WrongStoreError
from reserve_listener.store import open_reader, open_store
from reserve_listener.store.copying import copy
from reserve_listener.store.shared import tables
from reserve_listener.store.shared.tables import TABLES
from reserve_listener.store.sqlite import schema
from reserve_listener.store.sqlite.places import alerts_path, inbox_path
from reserve_listener.store.sqlite.slots import Slots
from tests import postgres
from tests.dumping import dump
from tests.helpers import append, event, push, receive, until, url_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from reserve_listener.store.copying import Progress
    from tests.backends import Backend

pytestmark = pytest.mark.skipif(postgres.programs() is None, reason=postgres.MISSING)

MADE_ANEW = {
    "sqlite": {"inbox", "copying"},
    "postgres": {
        "version",
        "replicas",
        "leases",
        "reopenings",
        "alerts",
        "requests",
        "answers",
        "copying",
        "had_ms",
    },
}
"""Tables and columns that are not copied row by row: how far SQLite's inbox is projected; who is there and leads what; and
what was told of alerts, which SQLite has in a file."""

TEXTS = (
    "",
    "omm_a",
    "\0",
    "a\0b",
    "\uf8fe",
    "\uf8fe0",
    "\uf8fe1\0",
    "会议室 \U0001f3e2",
    "\\u0000",
    "'\"\\{},",
    "NULL",
)
BLOBS = (b"", b"\0", b"{}", b"\xff\xfe\\x00", b'{"a":"\\u0000"}', b"x" * 5_000)
NUMBERS = (0, 1, -1, 1_790_000_000_000, 2**63 - 1, -(2**63))
SMALL = {"state": (0, 1, 2), "attempts": (0, 7), "status": (200, 503), "configured": (0, 1), "top": (0, 1)}


def furnish(path: Path, random: Any, most: int = 12) -> None:
    """Make a store with anything in each table that its types and references let in."""
    schema.open_writer(path).close()
    schema.open_writer(inbox_path(path), schema.INBOX).close()
    with closing(sqlite3.connect(path)) as store, closing(sqlite3.connect(inbox_path(path))) as inbox:
        known: dict[str, list[Any]] = {}
        for table in TABLES:
            connection = inbox if table.name == "batches" else store
            types = {row[1]: row[2:4] for row in connection.execute(f"PRAGMA table_info({table.name})")}
            rows: dict[Any, tuple[Any, ...]] = {}
            for _ in range(random.randint(0, most)):
                row = _row(table.columns, table.name, types, known, random)
                if row is not None:
                    rows[row[: len(table.key)]] = row
            marks = ", ".join("?" * len(table.columns))
            columns = ", ".join(table.columns)
            connection.executemany(
                f"INSERT OR IGNORE INTO {table.name} ({columns}) VALUES ({marks})", rows.values()
            )
            key = ", ".join(table.key)
            known[table.name] = connection.execute(f"SELECT {key} FROM {table.name}").fetchall()
        highest = max((seq for (seq,) in known["events"]), default=0)
        store.execute("DELETE FROM sqlite_sequence")
        store.execute(
            "INSERT INTO sqlite_sequence VALUES ('events', ?)",
            (min(highest + random.randint(0, 9), 2**63 - 1),),
        )
        (identity,) = inbox.execute("SELECT id FROM inbox").fetchone()
        position = (random.choice([identity, "another"]), random.randint(0, 3))
        store.execute("UPDATE inbox SET inbox = ?, number = ?", position)
        store.commit()
        inbox.commit()
    slots = Slots(alerts_path(path))
    slots.read()
    if random.random() < 0.7:
        slots.write(random.choice(BLOBS))


def _row(
    columns: Sequence[str],
    table: str,
    types: dict[str, tuple[str, int]],
    known: dict[str, list[Any]],
    random: Any,
) -> tuple[Any, ...] | None:
    row: dict[str, Any] = {}
    if table == "attempts":
        if not known["deliveries"]:
            return None
        row["seq"], row["sink"] = random.choice(known["deliveries"])
    parents = {"scope": "scopes", "sink": "sinks", **({"seq": "events"} if table == "deliveries" else {})}
    for name in columns:
        kind, needed = types[name]
        if name in row:
            continue
        if name in parents:
            if not known[parents[name]]:
                if needed or table in {"states", "readings"}:
                    return None
                row[name] = None
                continue
            row[name] = random.choice(known[parents[name]])[0]
        elif name in {"id", "seq", "number"}:
            row[name] = random.randint(1, 40)
        else:
            values: Sequence[Any] = (
                SMALL.get(name) or {"TEXT": TEXTS, "BLOB": BLOBS, "INTEGER": NUMBERS}[kind]
            )
            row[name] = random.choice([*values, None] if not needed and name != "app_id" else values)
    return tuple(row[name] for name in columns)


def quiet(_progress: Progress) -> None:
    """Nobody looks."""


@pytest.fixture
def small_pages(monkeypatch: pytest.MonkeyPatch) -> None:
    """A handful of rows is many pages, and one long content is a page."""
    monkeypatch.setattr(tables, "ROWS_AT_ONCE", 3)
    monkeypatch.setattr(tables, "BYTES_AT_ONCE", 4_000)


def test_every_table_and_column_is_copied_or_named_as_made_anew(tmp_path: Path) -> None:
    """What a migration adds to either schema is forgotten by no copy."""
    copied = {(table.name, name) for table in TABLES for name in table.columns}
    found: dict[str, set[tuple[str, str]]] = {"sqlite": set(), "postgres": set()}
    for file, part in ((tmp_path / "s", schema.STORE), (tmp_path / "i", schema.INBOX)):
        schema.open_writer(file, part).close()
        with closing(sqlite3.connect(file)) as connection:
            found["sqlite"] |= {
                (table, column)
                for (table,) in connection.execute(
                    "SELECT name FROM sqlite_master WHERE type = 'table' AND name NOT LIKE 'sqlite%'"
                ).fetchall()
                for _, column, *_ in connection.execute(f"PRAGMA table_info({table})")
            }
    furnish(tmp_path / "events.db", Random(1), 0)
    url = postgres.SERVER.database()
    copy(url_of(tmp_path / "events.db"), url, quiet)
    found["postgres"] = set(
        postgres.SERVER.ask(
            url.partition("@/")[2].partition("?")[0],
            "SELECT table_name, column_name FROM information_schema.columns WHERE table_schema = 'reserve_listener'",
        )
    )
    for kind, columns in found.items():
        known = {one for one in columns if not MADE_ANEW[kind].intersection(one)}
        assert known == copied


@pytest.mark.usefixtures("small_pages")
@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(random=st.randoms(use_true_random=False))
def test_there_and_back_it_is_the_same(tmp_path_factory: pytest.TempPathFactory, random: Any) -> None:
    """Whatever is in a store: copied to PostgreSQL and back, each row, number, byte and counter is what it was."""
    folder = tmp_path_factory.mktemp("copying")
    first, back = folder / "events.db", folder / "back" / "again.db"
    furnish(first, random)
    url = postgres.SERVER.database()
    there = copy(url_of(first), url, quiet)
    again = copy(url, url_of(back), quiet)
    assert dump(back) == dump(first)
    assert there == again
    assert {file.name for file in back.parent.iterdir()} <= {
        "again.db",
        "again.db-inbox",
        "again.db-alerts",
        "again.db.lock",
    }


class BrokenOffError(Exception):
    """Ctrl-C."""


def broken_off(source: str, target: str, after: int) -> bool:
    """Copy until it has told so many times how far it is; whether it ended before that."""
    told = 0

    def show(_progress: Progress) -> None:
        nonlocal told
        told += 1
        if told > after:
            raise BrokenOffError

    with suppress(BrokenOffError):
        copy(source, target, show)
        return True
    return False


@pytest.mark.usefixtures("small_pages")
@pytest.mark.parametrize("steps", [5, 23])
def test_broken_off_it_goes_on_where_it_was(tmp_path: Path, steps: int) -> None:
    """Ended after each few pages, in both directions, until it comes to its end: no row is missing, none is doubled."""
    first, back = tmp_path / "events.db", tmp_path / "again.db"
    furnish(first, Random(steps), 20)
    url = postgres.SERVER.database()
    for source, target in ((url_of(first), url), (url, url_of(back))):
        runs = 1
        while not broken_off(source, target, len(TABLES) + 3 + steps):
            runs += 1
            assert not back.exists()
            if target == url:
                with (
                    pytest.raises(WrongStoreError, match=r"is an unfinished copy of .*"),
                    open_reader(url),
                ):
                    pass
            if runs > 200:
                pytest.fail("it begins anew each time")
        assert runs > 1
    assert dump(back) == dump(first)


async def test_a_copy_killed_in_the_middle_is_no_store_and_goes_on(tmp_path: Path) -> None:
    """Kill -9 while rows are coming in: a daemon refuses what is there (78); the same command then finishes it, nothing twice."""
    first, back = tmp_path / "events.db", tmp_path / "again.db"
    furnish(first, Random(1), 12)
    with closing(sqlite3.connect(first)) as connection:
        connection.execute(
            "WITH RECURSIVE n(seq) AS (SELECT 1000 UNION ALL SELECT seq + 1 FROM n WHERE seq < 60000)"
            " INSERT INTO events (seq, tenant_key, event_id, received_ms, raw) SELECT seq, 't', 'e' || seq, 1, randomblob(300) FROM n"
        )
        connection.commit()
    url = postgres.SERVER.database()
    for source, target in ((url_of(first), url), (url, url_of(back))):
        command = [sys.executable, "-m", "reserve_listener", "store", "copy", source, target]
        process = await asyncio.create_subprocess_exec(*command, stdout=-1, stderr=-1)
        await until(partial(_begun, target, process), 30)
        process.send_signal(signal.SIGKILL)
        assert await process.wait() == -signal.SIGKILL
        assert not back.exists()
        if target == url:
            with pytest.raises(WrongStoreError, match="is an unfinished copy"):
                await open_store(url, ["a"])
        process = await asyncio.create_subprocess_exec(*command, stdout=-1, stderr=-1)
        out, err = await process.communicate()
        assert (process.returncode, err.decode().count("\n")) == (0, 1)
        assert [line.split("\t")[0] for line in out.decode().splitlines()] == [table.name for table in TABLES]
    assert dump(back) == dump(first)


def _begun(target: str, process: asyncio.subprocess.Process) -> bool:
    """Whether events are being copied, or it is over already."""
    if process.returncode is not None:
        return True
    with suppress(Exception):
        if target.startswith("postgres"):
            rows = postgres.SERVER.ask(_database(target), "SELECT place FROM reserve_listener.copying")
        else:
            path = Path(target.removeprefix(url_of(Path()).rstrip("."))).with_name(".again.db.copying")
            with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as connection:
                rows = connection.execute("SELECT place FROM copying").fetchall()
        return rows == [("events",)]
    return False


def _database(url: str) -> str:
    return url.partition("@/")[2].partition("?")[0]


async def test_numbers_go_on_and_what_was_answered_becomes_an_event_once(tmp_path: Path) -> None:
    """In the copy new events, scopes and sinks get numbers that no other ever had; two replicas project the inbox once."""
    first = tmp_path / "events.db"
    store = await open_store(url_of(first), ["a", "b"])
    for number in range(3):
        await append(store, event(f"e{number}", f"omm_{number}"))
    await receive(store, event("answered", "omm_0"))
    await receive(store, event("answered too", "omm_1"))
    await store.close()
    with closing(sqlite3.connect(first)) as connection:
        connection.execute("DELETE FROM deliveries WHERE seq = 3")
        connection.execute("DELETE FROM events WHERE seq = 3")
        connection.commit()
    url = postgres.SERVER.database()
    copy(url_of(first), url, quiet)
    replicas = [await open_store(url, ["a", "b", "c"]) for _ in range(2)]
    batches = [await replica.left() for replica in replicas]
    assert [[one.event_id for _, events in some for one in events] for some in batches] == [
        ["answered", "answered too"]
    ] * 2
    for replica, some in zip(replicas, batches, strict=True):
        events = [one for _, events in some for one in events]
        await replica.project(events, number=some[-1][0])
        assert await replica.left() == []
    await push(replicas[1], event("new", "omm_new"))
    for replica in replicas:
        await replica.close()
    rows = postgres.SERVER.ask(
        _database(url),
        "SELECT e.event_id, e.seq, s.id, string_agg(k.name, ' ' ORDER BY k.name) FROM reserve_listener.events AS e"
        " JOIN reserve_listener.scopes AS s ON s.id = e.scope"
        " JOIN reserve_listener.deliveries AS d ON d.seq = e.seq"
        " JOIN reserve_listener.sinks AS k ON k.id = d.sink GROUP BY 1, 2, 3 ORDER BY 2",
    )
    assert rows == [
        ("e0", 1, 1, "a b"),
        ("e1", 2, 2, "a b"),
        ("answered", 4, 1, "a b c"),
        ("answered too", 5, 2, "a b c"),
        ("new", 6, 4, "a b c"),
    ]


@pytest.mark.parametrize("to", ["sqlite", "postgres"])
def test_where_there_is_something_nothing_is_copied(tmp_path: Path, to: str) -> None:
    """Another store, another program's tables, the half of another copy, files beside the place: named, and left as they were."""
    first, other = tmp_path / "events.db", tmp_path / "other.db"
    furnish(first, Random(1))
    furnish(other, Random(2))
    if to == "sqlite":
        with pytest.raises(StoreError, match=r"other\.db is there already and is not overwritten"):
            copy(url_of(first), url_of(other), quiet)
        (tmp_path / "new.db-inbox").write_text("x")
        with pytest.raises(StoreError, match=r"new\.db-inbox is there already"):
            copy(url_of(first), url_of(tmp_path / "new.db"), quiet)
        target = url_of(tmp_path / "newer.db")
    else:
        url = postgres.SERVER.database()
        postgres.SERVER.ask(_database(url), "CREATE SCHEMA reserve_listener CREATE TABLE theirs (x int)")
        with pytest.raises(StoreError, match="has tables in the schema reserve_listener already"):
            copy(url_of(first), url, quiet)
        postgres.SERVER.ask(_database(url), "DROP TABLE reserve_listener.theirs")
        copy(url_of(first), url, quiet)
        with pytest.raises(StoreError, match="has tables in the schema reserve_listener already"):
            copy(url_of(first), url, quiet)
        target = postgres.SERVER.database()
    assert not broken_off(url_of(first), target, 3)
    with pytest.raises(StoreError, match=r"part of a copy of .*events\.db"):
        copy(url_of(other), target, quiet)
    copy(url_of(first), target, quiet)


async def test_a_store_that_a_daemon_works_on_is_not_copied(backend: Backend, tmp_path: Path) -> None:
    """The store is in use (75), as long as a daemon holds it or a replica lives; when it has stopped, it is copied."""
    store = await backend.open("a")
    with pytest.raises(StoreInUseError, match="is in use by"):
        await asyncio.to_thread(copy, backend.url, url_of(tmp_path / "copy.db"), quiet)
    await store.close()
    copy(backend.url, url_of(tmp_path / "copy.db"), quiet)


@pytest.mark.usefixtures("small_pages")
@pytest.mark.parametrize("to", ["sqlite", "postgres"])
def test_a_store_that_changed_meanwhile_is_copied_anew(tmp_path: Path, to: str) -> None:
    """A daemon ran between two runs of the command: what is there is not passed off as the store, and the next run has it all."""
    first, back = tmp_path / "events.db", tmp_path / "again.db"
    furnish(first, Random(5), 30)
    target = url_of(back) if to == "sqlite" else postgres.SERVER.database()
    assert not broken_off(url_of(first), target, 40)
    with closing(sqlite3.connect(first)) as connection:
        connection.execute("UPDATE scopes SET tenant_key = tenant_key || '!'")
        connection.commit()
    with pytest.raises(StoreError, match=r"is not the same: scopes\. .* The copy was removed"):
        copy(url_of(first), target, quiet)
    copy(url_of(first), target, quiet)
    if to == "postgres":
        copy(target, url_of(back), quiet)
    assert dump(back) == dump(first)


def test_what_is_no_store_is_named(tmp_path: Path) -> None:
    """A file or a database without a store, and a folder that is none: what is missing, and nothing is made."""
    url = postgres.SERVER.database()
    with pytest.raises(StoreError, match="there is no store at"):
        copy(url_of(tmp_path / "none.db"), url, quiet)
    with pytest.raises(StoreError, match="there is no store in"):
        copy(url, url_of(tmp_path / "new.db"), quiet)
    assert not list(tmp_path.iterdir())
    furnish(tmp_path / "events.db", Random(1))
    with pytest.raises(StoreError, match=r"new\.db: cannot be written: Not a directory"):
        copy(url_of(tmp_path / "events.db"), url_of(tmp_path / "events.db" / "new.db"), quiet)
