"""Stores that are damaged, foreign, newer, older, read-only, locked or left behind by a kill."""

# ruff: noqa: ASYNC240  # small files on a local disk, and the loop has nothing else to do

from __future__ import annotations

import asyncio
import json
import os
import signal
import sqlite3
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from reserve_listener.errors import StoreError, StoreInUseError
from reserve_listener.model import EventQuery, Verdict
from reserve_listener.store.sqlite import schema
from reserve_listener.store.sqlite.lock import holder
from reserve_listener.store.sqlite.reader import SqliteReader
from reserve_listener.store.sqlite.store import SqliteStore
from tests.helpers import append, event, stored, unreadable_event

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


async def filled(path: Path, *event_ids: str) -> None:
    store = SqliteStore(path)
    await store.open(["a"])
    for event_id in event_ids:
        assert await append(store, event(event_id)) is Verdict.STORED
    await store.close()


def only_store(scripts: list[str]) -> Callable[..., list[str]]:
    """These migrations for the store, and the inbox's own."""
    real = schema.migrations
    return lambda part=schema.STORE: scripts if part is schema.STORE else real(part)


async def refused(path: Path, pattern: str) -> StoreError:
    """Opening fails with these words, and the lock is free again."""
    store = SqliteStore(path)
    with pytest.raises(StoreError, match=pattern) as caught:
        await store.open(["a"])
    assert holder(path) is None
    return caught.value


async def opened_and_appended(store: SqliteStore) -> None:
    await store.open(["a"])
    await append(store, event("new"))


def read_ids(path: Path) -> list[str]:
    return [one.event_id for one in stored(path)]


CHILD = """
import asyncio, sys
from pathlib import Path
from reserve_listener.store.sqlite.store import SqliteStore
from tests.helpers import append, event

async def main() -> None:
    store = SqliteStore(Path(sys.argv[1]))
    await store.open(["a"])
    for number in range(int(sys.argv[2])):
        await append(store, event(f"e{number}"))
    print("ready", flush=True)
    await asyncio.Event().wait()

asyncio.run(main())
"""


@contextmanager
def other_process(path: Path, events: int = 0) -> Iterator[subprocess.Popen[bytes]]:
    """Another process that holds the store."""
    with subprocess.Popen(
        [sys.executable, "-c", CHILD, str(path), str(events)], stdout=subprocess.PIPE, cwd=Path.cwd()
    ) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == b"ready\n"
            yield process
        finally:
            process.kill()


async def test_a_second_store_is_refused_and_names_the_holder(path: Path) -> None:
    """A second open is StoreInUseError with exit code 75 and the holder's process; after close it succeeds."""
    store = SqliteStore(path)
    await store.open(["a"])
    with pytest.raises(StoreInUseError, match=f"process {os.getpid()}") as caught:
        await SqliteStore(path).open(["a"])
    assert caught.value.exit_code == 75
    assert await append(store, event()) is Verdict.STORED
    await store.close()
    await filled(path, "e2")


async def test_another_name_of_the_store_is_the_same_store(path: Path, tmp_path: Path) -> None:
    """A symbolic link to the file is refused like the file itself."""
    store = SqliteStore(path)
    await store.open(["a"])
    link = tmp_path / "elsewhere.db"
    link.symlink_to(path)
    try:
        with pytest.raises(StoreInUseError):
            await SqliteStore(link).open(["a"])
    finally:
        await store.close()


async def test_the_lock_is_free_after_a_kill_and_nothing_is_lost(path: Path) -> None:
    """While another process lives the store is in use; after its SIGKILL the events are there and it opens at once."""
    with other_process(path, 20) as process:
        with pytest.raises(StoreInUseError, match=f"process {process.pid}"):
            await SqliteStore(path).open(["a"])
        process.send_signal(signal.SIGKILL)
        process.wait()
    assert path.with_name("events.db-wal").stat().st_size > 0
    store = SqliteStore(path)
    await store.open(["a"])
    try:
        assert await store.backlog() == {"a": 20}
        assert await append(store, event("e7")) is Verdict.DUPLICATE
    finally:
        await store.close()


async def test_readers_of_a_live_a_killed_and_a_stopped_store(path: Path) -> None:
    """A reader sees every committed event in all three, newest first, and changes nothing."""
    with other_process(path, 5) as process:
        assert read_ids(path) == ["e4", "e3", "e2", "e1", "e0"]
        process.kill()
        process.wait()
        assert path.with_name("events.db-wal").exists()
        assert read_ids(path) == ["e4", "e3", "e2", "e1", "e0"]
    await filled(path, "e5")
    assert not path.with_name("events.db-wal").exists()
    before = path.read_bytes()
    assert read_ids(path)[0] == "e5"
    assert path.read_bytes() == before


async def test_a_reader_does_not_stop_the_writer(path: Path) -> None:
    """With a reader in the middle of its work the daemon's commits go on."""
    store = SqliteStore(path)
    await store.open(["a"])
    try:
        with SqliteReader(path) as reader:
            assert reader.events(EventQuery(), limit=1) == []
            assert await append(store, event("e1")) is Verdict.STORED
            assert [one.event_id for one in reader.events(EventQuery(), limit=5)] == ["e1"]
    finally:
        await store.close()


async def test_what_a_reader_tells_of_an_event(path: Path) -> None:
    """Filters by id and by unreadable; an unreadable one has its problem and bytes, no scope and no deliveries."""
    store = SqliteStore(path)
    await store.open(["a"])
    await append(store, event("e1"))
    await append(store, unreadable_event(b"nonsense"))
    await store.close()
    (unreadable,) = stored(path, unreadable=True)
    (readable,) = stored(path, event_id="e1")
    assert stored(path, event_id="e9") == []
    assert len(stored(path, limit=1)) == 1
    assert (unreadable.raw, unreadable.problem, unreadable.scope) == (b"nonsense", "not JSON", None)
    assert unreadable.deliveries == ()
    assert readable.scope is not None
    assert (readable.scope.scope_id, readable.scope.scope_type) == ("omm_a", "room")
    assert json.loads(readable.body or b"")["id"] == "e1"
    assert [(one.sink, one.state, one.attempts) for one in readable.deliveries] == [("a", "pending", 0)]


def test_a_reader_of_nothing_says_how_to_get_one(path: Path) -> None:
    """Without a store the reader says which command makes it, and makes none itself."""
    with (
        pytest.raises(StoreError, match=r"no store at .* `reserve-listener run` creates it"),
        SqliteReader(path),
    ):
        pass
    assert not path.exists()


@pytest.mark.parametrize("content", [b"hello\n", b"x" * 5000, b"SQLite format 3\x00" + b"\xff" * 5000])
async def test_a_file_that_is_no_database_is_left_alone(path: Path, content: bytes) -> None:
    """Any other file is refused in words by daemon and reader, and not a byte of it changes."""
    path.write_bytes(content)
    await refused(path, "not a (reserve-listener store|database)|damaged|cannot be used")
    with pytest.raises(StoreError), SqliteReader(path):
        pass
    assert path.read_bytes() == content


@pytest.mark.parametrize("pragma", ["PRAGMA user_version = 0", "PRAGMA application_id = 42"])
async def test_another_programs_database_is_left_alone(path: Path, pragma: str) -> None:
    """A SQLite file with tables, or of another application, is refused and stays byte for byte as it was."""
    connection = sqlite3.connect(path)
    connection.execute("CREATE TABLE theirs (a)")
    connection.execute(pragma)
    connection.commit()
    connection.close()
    before = path.read_bytes()
    await refused(path, "another program")
    with pytest.raises(StoreError, match="another program"), SqliteReader(path):
        pass
    assert path.read_bytes() == before


async def test_an_empty_file_becomes_a_store(path: Path) -> None:
    """What `touch` left is taken as a new store."""
    path.touch()
    await filled(path, "e1")
    assert read_ids(path) == ["e1"]


async def test_a_newer_store_is_refused_and_left_alone(path: Path) -> None:
    """A schema from the future is refused with both versions named, by daemon and reader."""
    await filled(path, "e1")
    connection = sqlite3.connect(path)
    connection.execute("PRAGMA user_version = 99")
    connection.close()
    before = path.read_bytes()
    known = len(schema.migrations())
    await refused(path, rf"newer reserve-listener \(schema 99, this one knows {known}\)")
    with pytest.raises(StoreError, match="newer"), SqliteReader(path):
        pass
    assert path.read_bytes() == before


async def test_an_older_store_is_migrated_by_the_daemon_only(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A reader says that `run` brings an older store up to date; opening it does, and keeps the events."""
    await filled(path, "e1")
    scripts = [*schema.migrations(), "ALTER TABLE events ADD COLUMN extra TEXT;"]
    monkeypatch.setattr(schema, "migrations", only_store(scripts))
    with (
        pytest.raises(StoreError, match=r"older reserve-listener .*`reserve-listener run`"),
        SqliteReader(path),
    ):
        pass
    await filled(path, "e2")
    assert read_ids(path) == ["e2", "e1"]
    connection = sqlite3.connect(path)
    assert connection.execute("PRAGMA user_version").fetchone() == (len(scripts),)
    assert connection.execute("SELECT extra FROM events").fetchall() == [(None,), (None,)]
    connection.close()


async def test_a_migration_that_fails_leaves_the_store_as_it_was(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Half a migration is none: the version stays, no half-made table is left, and a right one works afterwards."""
    await filled(path, "e1")
    good = schema.migrations()
    broken = [*good, "CREATE TABLE half (a); INSERT INTO missing VALUES (1);"]
    with monkeypatch.context() as patch:
        patch.setattr(schema, "migrations", only_store(broken))
        await refused(path, "cannot be used: no such table")
    await filled(path, "e2")
    connection = sqlite3.connect(path)
    assert connection.execute("SELECT name FROM sqlite_master WHERE name = 'half'").fetchall() == []
    connection.close()


async def test_damage_is_said_and_never_taken_for_an_empty_store(path: Path) -> None:
    """With its pages overwritten the store raises StoreError at open or at the append: nothing is called stored."""
    await filled(path, *(f"e{n}" for n in range(200)))
    damaged = bytearray(path.read_bytes())
    damaged[4096:] = os.urandom(len(damaged) - 4096)
    path.write_bytes(damaged)
    store = SqliteStore(path)
    with pytest.raises(StoreError, match=r"malformed|damaged|corrupt"):
        await opened_and_appended(store)
    await store.close()
    with pytest.raises(StoreError):
        stored(path)


async def test_a_truncated_store_is_said_to_be_damaged(path: Path) -> None:
    """A copy that broke off in the middle is not taken for a store."""
    await filled(path, *(f"e{n}" for n in range(200)))
    path.write_bytes(path.read_bytes()[: 3 * 4096])
    store = SqliteStore(path)
    with pytest.raises(StoreError, match=r"malformed|damaged|corrupt"):
        await opened_and_appended(store)
    await store.close()


async def test_a_folder_in_the_place_of_the_store(path: Path) -> None:
    """A directory of that name is refused in words."""
    path.mkdir()
    await refused(path, "is a directory. Set store.url to a file")
    with pytest.raises(StoreError), SqliteReader(path):
        pass


async def test_a_folder_that_cannot_be_made(tmp_path: Path) -> None:
    """A store beneath a file is refused in words that name the lock's path."""
    (tmp_path / "file").touch()
    with pytest.raises(StoreError, match=r"set store\.url to another"):
        await SqliteStore(tmp_path / "file" / "events.db").open(["a"])


@pytest.mark.skipif(os.geteuid() != 0, reason="root switches to a user without rights")
async def test_a_store_that_may_not_be_written_is_refused_in_words(path: Path, tmp_path: Path) -> None:
    """For a user who may only read folder and file, open raises StoreError that speaks of owner and mode."""
    await filled(path, "e1")
    code = (
        "import asyncio, os, sys; from pathlib import Path; from reserve_listener.store.sqlite.store import SqliteStore\n"
        "from reserve_listener.errors import StoreError\n"
        "os.setegid(65534); os.seteuid(65534)\n"
        "try: asyncio.run(SqliteStore(Path(sys.argv[1])).open(['a']))\n"
        "except StoreError as error: print('StoreError:', error)\n"
    )
    for folder in [tmp_path, *tmp_path.parents]:
        if folder.stat().st_uid == 0 and str(folder).startswith("/tmp/pytest"):
            folder.chmod(0o755)
    path.chmod(0o644)
    path.with_name("events.db.lock").chmod(0o666)
    done = await asyncio.create_subprocess_exec(
        sys.executable, "-c", code, str(path), stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    out, err = await done.communicate()
    assert out.startswith(b"StoreError:"), err
    assert b"owner" in out


async def test_a_path_with_signs_of_a_uri(tmp_path: Path) -> None:
    """A reader finds a store whose path has a blank, a question mark, a percent sign and a hash in it."""
    path = tmp_path / "what? 100%25 #1.db"
    await filled(path, "e1")
    assert read_ids(path) == ["e1"]


def test_a_command_loads_no_more_of_the_store_than_it_uses() -> None:
    """Commands are to start fast: to know where the control socket is, neither the writer nor sqlite3 is loaded."""
    script = (
        "import sys; from reserve_listener.store import backend; backend('sqlite:////x/events.db').control_socket\n"
        "print([name for name in sys.modules if name == 'sqlite3' or name.endswith('.sqlite.store')])"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
