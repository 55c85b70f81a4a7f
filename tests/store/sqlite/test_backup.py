"""A copy of both files, made while others write: what was answered before is in it, once, and a daemon can go on from it."""

# ruff: noqa: ASYNC240  # small files on a local disk, and the loop has nothing else to do

from __future__ import annotations

import asyncio
import shutil
import sqlite3
import stat
from contextlib import closing
from typing import TYPE_CHECKING, Any

import pytest

from reserve_listener.errors import StoreError
from reserve_listener.model import Verdict
from reserve_listener.simulator import HttpServer, Simulator, sample_event
from reserve_listener.store.sqlite import backup, schema
from reserve_listener.store.sqlite.backup import back_up
from reserve_listener.store.sqlite.places import inbox_path
from reserve_listener.store.sqlite.store import SqliteStore
from tests.cli.test_operate import cli
from tests.daemon_process import running, write_config
from tests.helpers import append, event, push, receive, stored
from tests.store.sqlite.test_inbox import ids, left, opened, project_left

if TYPE_CHECKING:
    from pathlib import Path

BOTH = ["events.db", "events.db-inbox"]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "store" / "events.db"


def names(folder: Path) -> list[str]:
    return sorted(file.name for file in folder.iterdir())


def samples(name: str, count: int) -> list[dict[str, Any]]:
    return [sample_event(event_id=f"{name}-{number}", scope_id=f"omm_{number}") for number in range(count)]


async def test_what_is_projected_between_the_two_copies_is_there_once(
    path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After the first file was copied a batch moves from the inbox to the store and is freed: the copy has it all the same."""
    store, copy = await opened(path), tmp_path / "copy"
    await push(store, event("before"))
    number = await receive(store, event("answered"))
    loop, real = asyncio.get_running_loop(), backup._copy

    async def move_on() -> None:
        await store.project([event("answered")], number=number)
        await store.free_inbox()

    def then_move_on(*args: Any) -> None:
        real(*args)
        asyncio.run_coroutine_threadsafe(move_on(), loop).result()

    monkeypatch.setattr(backup, "_copy", then_move_on)
    made = await asyncio.to_thread(back_up, path, copy)
    await store.close()
    assert sorted(file.name for file in made) == names(copy) == BOTH
    assert {stat.S_IMODE(file.stat().st_mode) for file in made} == {0o600}
    restored = await opened(copy / path.name)
    await project_left(restored)
    assert ids(copy / path.name) == ["before", "answered"]
    assert await push(restored, event("answered")) is Verdict.DUPLICATE
    assert await push(restored, event("new")) is Verdict.STORED
    await restored.close()


async def test_what_is_answered_and_not_in_the_store_is_in_the_copy(path: Path, tmp_path: Path) -> None:
    """A batch that no projection has come to is left for the next start of the copy, as it is in the original."""
    store, copy = await opened(path), tmp_path / "copy"
    await receive(store, event("answered"))
    await asyncio.to_thread(back_up, path, copy)
    await store.close()
    restored = await opened(copy / path.name)
    assert await left(restored) == [["answered"]]
    await restored.close()


async def test_under_load_the_copy_has_all_that_was_answered_before(
    tmp_path: Path, platform: Simulator, server: HttpServer
) -> None:
    """`store backup` beside a daemon that is being pushed to: nothing of what was answered is missing, and it can be opened."""
    config, copy = str(write_config(tmp_path, platform, server.url)), tmp_path / "new" / "copy"
    async with running(tmp_path, tmp_path / "config.toml") as daemon:
        await platform.connected(20)
        await platform.push_many(samples("before", 300), in_flight=64)
        meanwhile = asyncio.create_task(platform.push_many(samples("meanwhile", 3_000), in_flight=64))
        code, out, err = await cli("store", "backup", str(copy), "-c", config)
        assert {one.code for one in await meanwhile} == {200}
        assert (code, err) == (0, "")
        assert [line.rpartition("/")[2].split()[0] for line in out.splitlines()] == BOTH[::-1]
        assert await daemon.stop() == 0
    assert names(copy) == BOTH
    restored = await opened(copy / "events.db")
    await project_left(restored)
    await restored.close()
    found = ids(copy / "events.db")
    assert len(found) == len(set(found))
    assert {f"before-{number}" for number in range(300)} <= set(found)


async def test_a_copy_is_never_written_over(path: Path, tmp_path: Path) -> None:
    """The store's own folder, or one with a copy in it, is refused, and not a byte there changes."""
    store = await opened(path)
    await append(store, event("e1"))
    await store.close()
    back_up(path, tmp_path / "copy")
    content = {file: file.read_bytes() for file in (tmp_path / "copy").iterdir()}
    for folder in (path.parent, tmp_path / "copy"):
        with pytest.raises(StoreError, match=r"events\.db.* is there already and is not overwritten"):
            back_up(path, folder)
    assert {file: file.read_bytes() for file in (tmp_path / "copy").iterdir()} == content
    assert stored(path)


async def test_a_damaged_store_makes_no_copy(path: Path, tmp_path: Path) -> None:
    """Half a store is no backup: the command says which file is damaged, and leaves nothing in the folder."""
    store = await opened(path)
    for number in range(200):
        await append(store, event(f"e{number}"))
    await store.close()
    content = path.read_bytes()
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    middle = len(content) // 4096 // 2 * 4096
    path.write_bytes(content[:middle] + b"\xff" * 4096 * 4 + content[middle + 4096 * 4 :])
    with pytest.raises(StoreError, match=rf"{path.name} is damaged"):
        back_up(path, tmp_path / "copy")
    assert names(tmp_path / "copy") == []


async def test_a_store_of_an_older_version_is_copied_as_it_is(path: Path, tmp_path: Path) -> None:
    """Before an upgrade is when one wants a copy: an older schema and a missing inbox are no obstacle."""
    path.parent.mkdir()
    scripts = schema.migrations()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(schema, "migrations", lambda *_: scripts[:-1])
        schema.open_writer(path).close()
    back_up(path, tmp_path / "copy")
    assert names(tmp_path / "copy") == ["events.db"]
    store = SqliteStore(tmp_path / "copy" / "events.db")
    await store.open(["a"])
    await store.close()


@pytest.mark.parametrize("place", ["file", "nothing"])
async def test_where_there_is_no_store_or_no_folder(path: Path, tmp_path: Path, place: str) -> None:
    """What is wrong is named: the store that is not there, or the path that can be no folder."""
    if place == "file":
        store = await opened(path)
        await store.close()
        (tmp_path / "copy").write_text("x")
        with pytest.raises(StoreError, match=r"copy: cannot be written: Not a directory"):
            back_up(path, tmp_path / "copy")
    else:
        with pytest.raises(StoreError, match="there is no store at"):
            back_up(path, tmp_path / "copy")
        assert not (tmp_path / "copy").exists()


async def test_an_inbox_that_was_restored_with_its_store_goes_on(path: Path, tmp_path: Path) -> None:
    """Both copies put back in the place of both files: numbers go on, and what is pushed again is known."""
    store = await opened(path)
    await push(store, event("e1"))
    await asyncio.to_thread(back_up, path, tmp_path / "copy")
    await push(store, event("e2"))
    await store.close()
    for file in (path, inbox_path(path)):
        shutil.copy(tmp_path / "copy" / file.name, file)
    store = await opened(path)
    assert await project_left(store) in ([], [Verdict.DUPLICATE])
    assert await push(store, event("e1")) is Verdict.DUPLICATE
    assert await push(store, event("e2")) is Verdict.STORED
    await store.close()
