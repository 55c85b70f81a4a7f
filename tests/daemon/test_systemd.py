"""What systemd is told: no foreign text becomes an assignment."""

from __future__ import annotations

import asyncio
import socket
from typing import TYPE_CHECKING

import pytest
from hypothesis import given, strategies as st

from reserve_listener.daemon.systemd import Notifier
from tests.daemon_process import running, until

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

NOTIFY_BYTES = 4096
"""What systemd reads of a datagram (NOTIFY_BUFFER_MAX)."""


@pytest.fixture(scope="module")
def systemd(tmp_path_factory: pytest.TempPathFactory) -> Iterator[socket.socket]:
    """Systemd's end of the socket."""
    path = tmp_path_factory.mktemp("notify") / "socket"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as end:
        end.bind(str(path))
        end.settimeout(5)
        yield end


@given(
    st.text(st.one_of(st.characters(), st.sampled_from("\n\r\x0b\x0c\x85\u2028\x1b\ud800😀"))),
    st.sampled_from(("", "\nMAINPID=1", "\nWATCHDOG=trigger", "x" * 5_000, "😀" * 5_000)),
)
def test_a_text_is_one_assignment_whatever_it_holds(systemd: socket.socket, text: str, more: str) -> None:
    """A close reason with line breaks neither names another process nor triggers the watchdog, and nothing is cut by systemd."""
    notifier = Notifier({"NOTIFY_SOCKET": systemd.getsockname()})
    notifier.send("WATCHDOG=1", f"STATUS={text}{more}")
    datagram = systemd.recv(100_000)
    notifier.close()
    assert len(datagram) < NOTIFY_BYTES
    first, second = datagram.decode().splitlines()
    assert first == "WATCHDOG=1"
    assert second.startswith("STATUS=")


async def test_a_start_that_waits_for_its_database_is_not_restarted(
    tmp_path: Path, systemd: socket.socket
) -> None:
    """Systemd is asked for more time, and shows what is waited for, without the password."""
    config = tmp_path / "config.toml"
    store = "postgresql://somebody:s3cret-word@127.0.0.1:1/nowhere"
    config.write_text(f'[lark]\napp_id = "cli_x"\napp_secret = "not-needed-here"\n[store]\nurl = "{store}"\n')
    async with running(tmp_path, config, environ={"NOTIFY_SOCKET": systemd.getsockname()}) as daemon:
        await until(lambda: any(line["event"] == "store.unreachable" for line in daemon.log()))
        told = [await asyncio.to_thread(systemd.recv, 100_000) for _ in range(2)]
        assert told == [
            b"EXTEND_TIMEOUT_USEC=30000000",
            b"STATUS=opening the store postgresql://somebody@127.0.0.1:1/nowhere",
        ]
        assert await daemon.stop() == 0
