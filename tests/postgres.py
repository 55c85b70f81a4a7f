"""A PostgreSQL server for the tests: Debian's, in a folder in memory, without the disk's flushes; one a session."""

from __future__ import annotations

import contextlib
import os
import secrets
import signal
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import psycopg
import pytest

from reserve_listener.simulator.postgres import IN_MEMORY, PostgresServer, installed as programs

if TYPE_CHECKING:
    import random
    from collections.abc import Sequence

__all__ = ["MISSING", "SERVER", "WITH_PASSWORD", "Server", "programs"]

MISSING: Final = "needs Debian's package postgresql"

WITH_PASSWORD: Final = "locked"
"""A role of this name has to give its password; all others are trusted."""


class Server(PostgresServer):
    """Started when it is first asked for; kept until `stop`. On a Unix socket only, unless told otherwise."""

    def __init__(self, *, options: Sequence[str] = IN_MEMORY) -> None:
        super().__init__(programs(), options=options)
        self._made = 0

    def start(self) -> None:
        """Begin, or begin again. Skips the test where there is none."""
        if programs() is None:
            pytest.skip(MISSING)
        super().start()

    def _make(self, data: Path) -> None:
        super()._make(data)
        hba = data / "pg_hba.conf"
        hba.write_text(f"local all {WITH_PASSWORD} scram-sha-256\n{hba.read_text('utf-8')}", "utf-8")

    def freeze(self) -> None:
        """Stand still, as on a machine whose disk does not return: connections stay, and nobody answers."""
        for process in self._processes():
            _send(process, signal.SIGSTOP)

    def thaw(self) -> None:
        """Go on."""
        for process in reversed(self._processes()):
            _send(process, signal.SIGCONT)

    def kill_one(self, chance: random.Random) -> None:
        """Of those that it has started: the others end then, too, and it recovers as after a crash."""
        children = self._processes()[1:]
        if children:
            _send(chance.choice(children), signal.SIGKILL)

    def _processes(self) -> list[int]:
        """The server, and what it has started."""
        if not self.pid:
            return []
        children = []
        for entry in Path("/proc").glob("[0-9]*/stat"):
            with contextlib.suppress(OSError):  # it has just ended
                if entry.read_text("utf-8").rpartition(")")[2].split()[1] == str(self.pid):
                    children.append(int(entry.parent.name))
        return [self.pid, *children]

    def stop(self) -> None:
        """Give everything back."""
        self.thaw()
        super().stop()

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


def _send(process: int, number: int) -> None:
    with contextlib.suppress(ProcessLookupError):  # it has just ended
        os.kill(process, number)


SERVER: Final = Server()
"""The session's. Stopped by `conftest`."""
