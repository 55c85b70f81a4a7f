"""Where replicas listen for commands: often a folder in which anybody may make files."""

from __future__ import annotations

import asyncio
import os
import socket
import stat
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

import pytest
from structlog.testing import capture_logs

from reserve_listener.net.sockets import socket_address
from reserve_listener.store import backend, open_store
from reserve_listener.web.answers import Status
from reserve_listener.web.client import get
from reserve_listener.web.server import ControlServer

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.backends import OnPostgres

NOBODY = 65_534
GONE = 2**22 + 1
"""More than Linux gives a process as its number."""

URL = "postgresql://nobody@db.invalid/rooms"


@pytest.fixture(autouse=True)
def shared(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The folder with the sockets, in which anybody may make files. Its path is short, as a socket's has to be."""
    with TemporaryDirectory() as name:
        folder = Path(name)
        folder.chmod(0o777 | stat.S_ISVTX)
        monkeypatch.setenv("RUNTIME_DIRECTORY", f"{folder}:{folder}-another")
        yield folder


def left_by(pid: int, url: str) -> Path:
    """Where the daemon with this number would listen."""
    own = backend(url).control_socket
    return own.with_name(own.name.replace(f"-{os.getpid()}.", f"-{pid}."))


def bound(path: Path) -> socket.socket:
    """A socket that listens there."""
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    with socket_address(path) as address:
        listener.bind(address)
    listener.listen()
    return listener


async def test_a_start_is_not_stopped_by_what_has_a_sockets_name(backend: OnPostgres) -> None:
    """A folder in the place of a socket that seems to be left over stays; a socket that is left over goes."""
    in_the_way, left = left_by(GONE, backend.url), left_by(GONE + 1, backend.url)
    in_the_way.mkdir()
    bound(left).close()
    store = await open_store(backend.url, ["a"])
    await store.close()
    assert in_the_way.is_dir()
    assert not left.exists()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can make files of another user")
async def test_another_users_socket_is_neither_asked_nor_removed(backend: OnPostgres, shared: Path) -> None:
    """Commands go on as if it were not there, and a start leaves it alone."""
    foreign = left_by(GONE, backend.url)
    with bound(foreign) as listener:
        os.chown(shared, NOBODY - 1, -1)
        os.chown(foreign, NOBODY, -1)
        listener.setblocking(False)
        assert await asyncio.to_thread(get, backend.url, "/status", Status, timeout_s=0.2) is None
        with pytest.raises(BlockingIOError):  # nobody has called
            listener.accept()
        store = await open_store(backend.url, ["a"])
        await store.close()
    assert foreign.exists()


def test_what_is_in_the_way_of_a_socket_is_said() -> None:
    """With what to do about it; the daemon goes on without."""
    path = backend(URL).control_socket
    path.mkdir()
    with capture_logs() as logs:
        ControlServer(path).bind()
    assert [(line["event"], line["path"]) for line in logs] == [("control.unavailable", str(path))]
    assert "RUNTIME_DIRECTORY" in logs[0]["hint"]
    assert backend(URL).control_sockets == []


def test_the_first_of_several_folders_is_taken(shared: Path) -> None:
    """As systemd names them, with colons between."""
    assert backend(URL).control_socket.parent == shared
