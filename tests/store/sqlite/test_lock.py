"""One daemon on a store, whatever the store is called and whatever becomes of the files beside it."""

# ruff: noqa: ASYNC240  # small files on a local disk, and the loop has nothing else to do

from __future__ import annotations

import asyncio
import errno
import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from reserve_listener import ownership
from reserve_listener.errors import ConfigError, ReserveListenerError, StoreError, StoreInUseError
from reserve_listener.model import Verdict
from reserve_listener.store.sqlite.lock import StoreLock, holder
from reserve_listener.store.sqlite.places import lock_path, socket_path
from reserve_listener.store.sqlite.store import SqliteStore
from reserve_listener.web.answers import Status
from reserve_listener.web.client import get
from reserve_listener.web.server import ControlServer
from tests.daemon.test_control import Notebook
from tests.helpers import append, event, url_of

if TYPE_CHECKING:
    from collections.abc import Iterator

HOLDING = """
import sys
from pathlib import Path
from reserve_listener.store.sqlite.lock import StoreLock
StoreLock(Path(sys.argv[1])).acquire()
print("held", flush=True)
sys.stdin.read()
"""


@pytest.fixture
def other(path: Path) -> Iterator[subprocess.Popen[bytes]]:
    """Another process that holds the lock."""
    with subprocess.Popen(
        [sys.executable, "-c", HOLDING, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"held\n"
        yield process
        process.kill()


def test_a_hard_link_of_the_store_is_the_same_store(path: Path, other: subprocess.Popen[bytes]) -> None:
    """Under another name, with another lock file, the file is still in use."""
    other_name = path.with_name("other.db")
    other_name.hardlink_to(path)
    with pytest.raises(StoreInUseError) as caught:
        StoreLock(other_name).acquire()
    assert caught.value.exit_code == 75
    assert holder(other_name) is not None
    other.kill()
    other.wait()
    StoreLock(other_name).acquire()


def test_a_deleted_lock_file_lets_nobody_in(path: Path, other: subprocess.Popen[bytes]) -> None:
    """The lock file is gone and made anew: the store is in use all the same."""
    lock_path(path).unlink()
    for _ in range(2):
        with pytest.raises(StoreInUseError):
            StoreLock(path).acquire()


def test_a_second_lock_in_the_same_process_is_refused_without_touching_the_file(path: Path) -> None:
    """Closing the store's file once more would drop the locks of SQLite: it is not even opened."""
    first = StoreLock(path)
    first.acquire()
    open_files = set(Path("/proc/self/fd").iterdir())
    with pytest.raises(StoreInUseError, match=f"process {os.getpid()}"):
        StoreLock(path).acquire()
    assert set(Path("/proc/self/fd").iterdir()) == open_files
    assert holder(path) == str(os.getpid())
    first.release()
    assert holder(path) is None


def test_looking_at_the_lock_takes_nothing(path: Path, other: subprocess.Popen[bytes]) -> None:
    """The holder's number while it lives, nobody after its death; nobody, and no file, where there is no store."""
    assert holder(path.with_name("none.db")) is None
    assert not path.with_name("none.db").exists()
    assert holder(path) == str(other.pid)
    other.kill()
    other.wait()
    assert holder(path) is None


@pytest.mark.parametrize("kind", ["symlink", "dangling", "hard link", "folder", "fifo", "socket", "long"])
def test_what_stands_in_the_place_of_the_lock_file_is_not_written_to(path: Path, kind: str) -> None:
    """A link, or anything else that is no lock file: said so, and left as it is."""
    target, note = path.with_name("precious"), lock_path(path)
    target.write_text("precious")
    match kind:
        case "symlink":
            note.symlink_to(target)
        case "dangling":
            note.symlink_to(path.with_name("nowhere"))
        case "hard link":
            note.hardlink_to(target)
        case "folder":
            note.mkdir()
        case "fifo":
            os.mkfifo(note)
        case "socket":
            with socket.socket(socket.AF_UNIX) as one:
                one.bind(str(note))
        case _:
            note.write_text("precious" * 10)
    with pytest.raises(StoreError, match=r"events.db.lock is not the store's lock file .* Remove it"):
        StoreLock(path).acquire()
    assert target.read_text() == "precious"
    assert not path.with_name("nowhere").exists()
    assert kind != "long" or note.read_text() == "precious" * 10


@pytest.mark.parametrize("kind", ["folder", "fifo"])
def test_a_store_that_is_no_file_is_a_wrong_configuration(path: Path, kind: str) -> None:
    """A folder or a FIFO of that name: exit code 78, and nothing hangs."""
    path.mkdir() if kind == "folder" else os.mkfifo(path)
    with pytest.raises(StoreError, match=r"Set store\.url to (a file|another one)") as caught:
        StoreLock(path).acquire()
    assert caught.value.exit_code == ConfigError.exit_code


async def test_a_number_that_finds_no_place_is_only_a_courtesy(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A full disk must not keep the daemon from starting only because its process number has no place."""

    def full(*_: object) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "pwrite", full)
    store = SqliteStore(path)
    await store.open(["a"])
    assert await append(store, event()) is Verdict.STORED
    await store.close()


@pytest.mark.parametrize("name", ["e" * 120 + ".db", "会议室" * 24 + ".db", "e.db"])
async def test_a_store_of_any_name_has_a_control_socket(tmp_path: Path, name: str) -> None:
    """Long names, in deep folders and through links too: who asks finds the daemon."""
    folder = tmp_path / ("deep" * 20) / ("deeper" * 20)
    folder.mkdir(parents=True)
    store, link = folder / name, tmp_path / "link.db"
    store.touch()
    link.symlink_to(store)

    server = ControlServer(socket_path(store))
    server.bind()
    await server.serve(Notebook())
    try:
        for asked in (store, link):
            assert await asyncio.to_thread(get, url_of(asked), "/status", Status) is not None
    finally:
        await server.close()
    assert await asyncio.to_thread(get, url_of(store), "/status", Status) is None


@pytest.mark.skipif(os.geteuid() != 0, reason="only root gives files away")
async def test_what_root_makes_belongs_to_the_owner_of_the_folder(tmp_path: Path) -> None:
    """Store, WAL, lock, socket and folders made by root are the daemon's user's; what was there already stays root's."""
    tmp_path.chmod(0o755)
    os.chown(tmp_path, 990, 991)
    path = tmp_path / "new" / "folder" / "events.db"
    store = SqliteStore(path)
    await store.open(["a"])
    server = ControlServer(socket_path(path))
    server.bind()
    try:
        await append(store, event())
        made = [path.parent, path.parent.parent, *path.parent.iterdir()]
        names = {one.name: (one.stat().st_uid, one.stat().st_gid) for one in made}
        files = ("", "-wal", "-shm")
        endings = (*files, *(f"-inbox{ending}" for ending in files), ".lock", ".sock")
        expected = ["new", "folder", *(f"events.db{ending}" for ending in endings)]
        assert names == dict.fromkeys(expected, (990, 991))
    finally:
        await server.close()
        await store.close()
    existing = tmp_path / "roots"
    existing.touch()
    os.close(ownership.open_file(existing, os.O_RDWR, 0o600))
    assert existing.stat().st_uid == 0


def test_a_lock_in_a_folder_that_cannot_be_used_says_what_to_do(tmp_path: Path) -> None:
    """A name that is too long, a file in the place of a folder: words, and an exit code."""
    (tmp_path / "file").touch()
    for path in (tmp_path / ("e" * 260), tmp_path / "file" / "events.db"):
        with pytest.raises(ReserveListenerError, match="Check the directory's owner"):
            StoreLock(path).acquire()
