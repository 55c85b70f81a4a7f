"""A PostgreSQL server for the tests: Debian's, in a folder in memory, without the disk's flushes; one a session."""

from __future__ import annotations

import os
import pwd
import secrets
import shutil
import signal
import subprocess
import tempfile
import time
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import psycopg
import pytest

from reserve_listener.simulator import patience

if TYPE_CHECKING:
    from collections.abc import Sequence

MISSING: Final = "needs Debian's package postgresql"

USER: Final = "postgres"
"""PostgreSQL does not run as root; Debian's package makes this user."""

WITH_PASSWORD: Final = "locked"
"""A role of this name has to give its password; all others are trusted."""

OPTIONS: Final = ("fsync=off", "full_page_writes=off", "autovacuum=off", "max_connections=200")


def programs() -> Path | None:
    """Where the newest one's programs are."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/postgres"))
    if found:
        return found[-1].parent
    here = shutil.which("postgres")
    return Path(here).resolve().parent if here else None


class Server:
    """Started when it is first asked for; kept until `stop`. On a Unix socket only, unless told otherwise."""

    def __init__(self, *, options: Sequence[str] = OPTIONS) -> None:
        self._options = options
        self._process: subprocess.Popen[bytes] | None = None
        self._made = 0

    @cached_property
    def folder(self) -> Path:
        """Short enough for a socket's name, and the server's own."""
        memory = Path("/dev/shm")
        return Path(tempfile.mkdtemp(prefix="rl-pg-", dir=memory if os.access(memory, os.W_OK) else None))

    def start(self) -> None:
        """Begin, or begin again. Skips the test where there is none."""
        if self._process is not None and self._process.poll() is None:
            return
        binaries = programs()
        if binaries is None:
            pytest.skip(MISSING)
        data = self.folder / "data"
        if not data.exists():
            if os.geteuid() == 0:
                user = pwd.getpwnam(USER)
                os.chown(self.folder, user.pw_uid, user.pw_gid)
            self._run(
                [
                    binaries / "initdb",
                    "-D",
                    data,
                    "-U",
                    USER,
                    "-A",
                    "trust",
                    "-E",
                    "UTF8",
                    "--no-sync",
                    "--locale=C",
                ]
            )
            hba = data / "pg_hba.conf"
            hba.write_text(f"local all {WITH_PASSWORD} scram-sha-256\n{hba.read_text('utf-8')}", "utf-8")
        settings = [f"-c{option}" for option in self._options]
        with (self.folder / "log").open("ab") as log:
            self._process = subprocess.Popen(
                [binaries / "postgres", "-D", data, "-k", self.folder, "-h", "", *settings],
                stdout=subprocess.DEVNULL,
                stderr=log,
                **_as_the_user(),
            )
        deadline_s = time.monotonic() + patience(30)
        while not self._answers():
            if self._process.poll() is not None or time.monotonic() > deadline_s:
                raise RuntimeError((self.folder / "log").read_text("utf-8"))
            time.sleep(0.02)

    def _answers(self) -> bool:
        try:
            psycopg.connect(self.url("postgres")).close()
        except psycopg.OperationalError:
            return False
        return True

    def kill(self, number: int = signal.SIGQUIT) -> None:
        """As a machine that fails: what is not committed is gone."""
        if self._process is not None:
            self._process.send_signal(number)
            self._process.wait()
            self._process = None

    def stop(self) -> None:
        """Give everything back."""
        self.kill()
        if "folder" in vars(self):
            shutil.rmtree(self.folder, ignore_errors=True)

    def url(self, database: str, user: str = USER) -> str:
        """Of a database of it."""
        return f"postgresql://{user}@/{database}?host={self.folder}"

    def database(self) -> str:
        """The URL of an empty one of its own."""
        self.start()
        self._made += 1
        name = f"t{self._made}_{secrets.token_hex(3)}"
        self.ask("postgres", f"CREATE DATABASE {name}")
        return self.url(name)

    def ask(self, database: str, statement: str) -> list[tuple[Any, ...]]:
        """What a superuser says to it."""
        with psycopg.connect(self.url(database), autocommit=True) as connection:
            cursor = connection.execute(statement.encode())
            return cursor.fetchall() if cursor.description else []

    @staticmethod
    def _run(command: Sequence[str | Path]) -> None:
        done = subprocess.run(command, capture_output=True, check=False, **_as_the_user())
        if done.returncode:
            raise RuntimeError(done.stderr.decode())


SERVER: Final = Server()
"""The session's. Stopped by `conftest`."""


def _as_the_user() -> dict[str, Any]:
    if os.geteuid() != 0:
        return {}
    user = pwd.getpwnam(USER)
    return {"user": user.pw_uid, "group": user.pw_gid, "extra_groups": [], "cwd": "/"}
