"""A PostgreSQL server for the tests: Debian's, in a folder in memory, without the disk's flushes; one a session."""

from __future__ import annotations

import secrets
from typing import TYPE_CHECKING, Any, Final

import psycopg
import pytest

from reserve_listener.simulator.postgres import IN_MEMORY, PostgresServer, installed as programs

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

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


SERVER: Final = Server()
"""The session's. Stopped by `conftest`."""
