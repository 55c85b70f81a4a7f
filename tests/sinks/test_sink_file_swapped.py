"""A file sink whose path becomes something else while the daemon runs, or is looked at by root."""

# ruff: noqa: ASYNC240  # small files on a local disk, and the loop has nothing else to do

from __future__ import annotations

import os
import sqlite3
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from reserve_listener.config import Config
from reserve_listener.config.files import ours
from reserve_listener.errors import MisconfiguredSinkError
from reserve_listener.model import Verdict
from reserve_listener.simulator import patience
from reserve_listener.sinks.file.sink import FileSink
from reserve_listener.sinks.registry import make_sink_spec
from tests.configuring import CONTEXT
from tests.helpers import append, delivery, event, until

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from reserve_listener.protocols.store import Store
    from tests.backends import OnSqlite

STORE_FILES = ["events.db", "events.db-wal", "events.db-shm", "events.db.lock"]


@pytest.fixture
async def store(backend: OnSqlite) -> AsyncIterator[Store]:
    store = await backend.open("a")
    assert await append(store, event("before")) is Verdict.STORED
    yield store
    await store.close()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "out.jsonl"


def sink_of(backend: OnSqlite, path: Path) -> FileSink:
    """As the daemon makes it."""
    tables = {
        "lark": {"app_id": "cli_1", "app_secret": "s"},
        "store": {"url": backend.url},
        "sinks": [{"name": "a", "type": "file", "path": str(path)}],
    }
    config = Config.model_validate(tables, context=CONTEXT)

    async def nowhere(*_: object) -> None:
        raise AssertionError

    made = make_sink_spec(config.sinks[0], nowhere, reserved=[file for file, _ in ours(config)]).sink
    assert isinstance(made, FileSink)
    return made


@pytest.mark.parametrize("target", STORE_FILES)
@pytest.mark.parametrize("link", ["symbolic", "hard"])
@pytest.mark.parametrize("begun", ["begun", "new"])
async def test_a_path_swapped_for_a_link_to_the_store_is_never_written_through(
    backend: OnSqlite, store: Store, path: Path, *, target: str, link: str, begun: str
) -> None:
    """The store keeps its bytes and its events; the sink says what is wrong, and goes on when the path is its own again."""
    sink = sink_of(backend, path)
    if begun == "begun":
        await sink.deliver([delivery(1)])
    victim = backend.path.with_name(target)
    before = victim.read_bytes()
    path.unlink(missing_ok=True)
    path.symlink_to(victim) if link == "symbolic" else path.hardlink_to(victim)
    words = "points to a different file" if link == "symbolic" else "is another name of"
    with pytest.raises(MisconfiguredSinkError, match=words):
        await sink.deliver([delivery(2)])
    assert words in (sink.problem() or "")
    assert victim.read_bytes() == before
    path.unlink()
    await sink.deliver([delivery(3)])
    assert path.read_bytes().count(b"\n") == 1
    assert await append(store, event("after")) is Verdict.STORED
    await sink.close()


async def test_a_link_that_leads_to_the_store_from_the_start_is_refused(
    backend: OnSqlite, store: Store, path: Path
) -> None:
    """A link that is there when the sink is made is followed, but never to the store."""
    path.symlink_to(backend.path)
    sink = sink_of(backend, path)
    with pytest.raises(MisconfiguredSinkError, match="is another name of"):
        await sink.deliver([delivery(1)])
    connection = sqlite3.connect(backend.path)
    assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    connection.close()
    await sink.close()


async def test_a_file_that_is_moved_and_linked_to_is_not_written_through_the_link(path: Path) -> None:
    """Even to what was its own file: a link that comes later is a reload's to take."""
    sink = FileSink("a", path)
    await sink.deliver([delivery(1)])
    moved = path.with_name("moved.jsonl")
    path.rename(moved)
    path.symlink_to(moved)
    with pytest.raises(MisconfiguredSinkError, match="points to a different file"):
        await sink.deliver([delivery(2)])
    await sink.close()
    again = FileSink("a", path)
    await again.deliver([delivery(2)])
    assert moved.read_bytes().count(b"\n") == 2
    await again.close()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root leaves files of root's")
async def test_what_root_writes_for_a_sink_belongs_to_the_owner_of_the_folder(tmp_path: Path) -> None:
    """The file, the rotated one and its compressed form are the daemon's user's; a file that was there stays whose it is."""
    folder = tmp_path / "log"
    folder.mkdir()
    os.chown(folder, 990, 991)
    sink = FileSink("a", folder / "out.jsonl", rotate_bytes=1, compress=True)
    for number in range(3):
        await sink.deliver([delivery(number)])
    await until(lambda: len([name for name in folder.iterdir() if name.suffix == ".gz"]) == 2)
    await sink.close()
    assert {(one.stat().st_uid, one.stat().st_gid) for one in folder.iterdir()} == {(990, 991)}
    theirs = folder / "roots.jsonl"
    theirs.touch()
    other = FileSink("b", theirs)
    await other.deliver([delivery(9)])
    await other.close()
    assert theirs.stat().st_uid == 0


@pytest.mark.skipif(os.geteuid() != 0, reason="only root leaves files of root's")
def test_sinks_test_by_root_leaves_a_file_that_the_daemon_can_write(tmp_path: Path) -> None:
    """`sudo reserve-listener sinks test` before the first start: the file is the service's user's."""
    folder = tmp_path / "log"
    folder.mkdir()
    os.chown(folder, 990, 991)
    config = tmp_path / "config.toml"
    config.write_text(
        f'[lark]\napp_id = "cli_1"\napp_secret = "s"\n[store]\nurl = "sqlite:///{tmp_path}/events.db"\n'
        f'[[sinks]]\nname = "a"\ntype = "file"\npath = "{folder}/out.jsonl"\n'
    )
    command = [sys.executable, "-m", "reserve_listener", "sinks", "test", "a", "-c", str(config)]
    done = subprocess.run(command, capture_output=True, timeout=patience(30), check=False)
    assert done.returncode == 0, done.stderr
    assert (folder / "out.jsonl").stat().st_uid == 990
