"""PgBouncer before the session's PostgreSQL, in transaction mode: each transaction may get another of few connections."""

from __future__ import annotations

import os
import pwd
import shutil
import subprocess
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

import pytest

from reserve_listener.simulator import patience
from tests.postgres import SERVER

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

MISSING: Final = "needs Debian's package pgbouncer"

PORT: Final = 6432
"""No port: the last part of the Unix socket's name."""

SETTINGS: Final = """
[databases]
* = host={folder} user=postgres

[pgbouncer]
pool_mode = transaction
unix_socket_dir = {folder}
listen_addr =
listen_port = {port}
auth_type = any
default_pool_size = 8
max_client_conn = 300
server_reset_query =
logfile = {folder}/bouncer.log
pidfile =
"""


@contextmanager
def pooling() -> Iterator[None]:
    """While it runs `pooled` leads to it. Skips the test where there is none."""
    program = shutil.which("pgbouncer", path=f"{os.environ['PATH']}:/usr/sbin")
    if program is None:
        pytest.skip(MISSING)
    SERVER.start()
    settings = SERVER.folder / "bouncer.ini"
    settings.write_text(SETTINGS.format(folder=SERVER.folder, port=PORT), "utf-8")
    owner = pwd.getpwuid(SERVER.folder.stat().st_uid).pw_name
    process = subprocess.Popen(
        [program, "-q", *(["-u", owner] if os.geteuid() == 0 else []), settings], stderr=subprocess.DEVNULL
    )
    try:
        _wait_for(SERVER.folder / f".s.PGSQL.{PORT}", process)
        yield
    finally:
        process.kill()
        process.wait()


def pooled(url: str) -> str:
    """The same database, through it."""
    return f"{url}&port={PORT}"


def _wait_for(socket: Path, process: subprocess.Popen[bytes]) -> None:
    deadline_s = time.monotonic() + patience(10)
    while not socket.exists():
        if process.poll() is not None or time.monotonic() > deadline_s:
            pytest.fail("PgBouncer did not start")
        time.sleep(0.02)
