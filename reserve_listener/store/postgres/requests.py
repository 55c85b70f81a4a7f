"""What commands ask of replicas through the database, from any machine, and what these answer.

What must stay true: a request is obeyed once by each replica that lived when it was made, or not at all: one that starts, or wakes,
later leaves it alone.
"""

from __future__ import annotations

from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, Final

import psycopg

from reserve_listener.errors import StoreError
from reserve_listener.model import Answer, Replica, Request
from reserve_listener.store.postgres import listening, schema
from reserve_listener.store.postgres.connection import told
from reserve_listener.store.postgres.database_clock import NOW
from reserve_listener.store.postgres.leases import LIVE
from reserve_listener.store.shared.operations import CHUNK_ROWS

if TYPE_CHECKING:
    from collections.abc import Iterator

    from reserve_listener.store.postgres.connection import Connection
    from reserve_listener.store.postgres.schema import Target

FRESH_MS: Final = 15_000
"""So long after it was made a request is obeyed: who asked waits no longer, and every beat looks, each 3 s."""

KEPT_MS: Final = 24 * 3600 * 1000
"""For whoever follows a comparison of all rooms: so long, the largest organisation takes hours."""

COMMAND: Final = "command"
"""Who tells the replicas."""

_COMING: Final = f"""
SELECT id, what, content FROM requests
WHERE id > %s AND at_ms > {NOW} - {FRESH_MS} AND (replica IS NULL OR replica = %s) ORDER BY id
"""  # fixed texts only

_ASK: Final = f"INSERT INTO requests (what, replica, content, at_ms) VALUES (%s, %s, %s, {NOW}) RETURNING id"

_FORGET: Final = f"""
DELETE FROM requests WHERE id IN (SELECT id FROM requests WHERE at_ms < {NOW} - {KEPT_MS} ORDER BY id LIMIT %s)
"""  # fixed texts only

_ANSWER: Final = """
INSERT INTO answers (request, replica, content) SELECT id, %s, %s FROM requests WHERE id = %s
"""


def newest(connection: Connection) -> int:
    """The last request that there is: what comes after it may be obeyed."""
    return int(connection.query("SELECT coalesce(max(id), 0) FROM requests").fetchone()[0])


def coming(after: int, replica: str, connection: Connection) -> list[Request]:
    """What this replica may be asked, after that request."""
    return [
        Request(number, what, bytes(content))
        for number, what, content in connection.query(_COMING, (after, replica)).fetchall()
    ]


def answer(request: int, replica: str, content: bytes, connection: Connection) -> None:
    """For whoever asked, if that is still known."""
    connection.query(_ANSWER, (replica, content, request))


def forget(connection: Connection) -> bool:
    """Drop a chunk of those that nobody follows any more, with their answers; whether that was all."""
    return int(connection.query(_FORGET, (CHUNK_ROWS,)).rowcount) < CHUNK_ROWS


class Asking:
    """See `protocols.backend.Asking`."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def replicas(self) -> list[Replica]:
        """See `Asking.replicas`."""
        with self._connection.transaction(reads=True):
            return [Replica(*row) for row in self._connection.query(LIVE).fetchall()]

    def ask(self, what: str, content: bytes, replica: str | None) -> int:
        """See `Asking.ask`."""
        return self._connection.do(partial(_ask, what, replica, content))

    def answers(self, request: int, after: int = 0) -> list[Answer]:
        """See `Asking.answers`."""
        statement = (
            "SELECT number, replica, content FROM answers WHERE request = %s AND number > %s ORDER BY number"
        )
        with self._connection.transaction(reads=True):
            found = self._connection.query(statement, (request, after)).fetchall()
        return [Answer(number, replica, bytes(content)) for number, replica, content in found]


def _ask(what: str, replica: str | None, content: bytes, connection: Connection) -> int:
    # Numbers in the order of the commits: a replica looks for what comes after the last that it has seen.
    connection.query("LOCK TABLE requests IN SHARE ROW EXCLUSIVE MODE")
    request = int(connection.query(_ASK, (what, replica, content)).fetchone()[0])
    listening.tell(COMMAND, listening.OTHERS, connection)
    return request


@contextmanager
def asking(target: Target) -> Iterator[Asking]:
    """While it lasts, a connection."""
    connection = target.connect()
    try:
        with connection.transaction(reads=True):
            schema.require_version(connection, target)
        yield Asking(connection)
    except psycopg.Error as error:
        raise StoreError(f"the store {target.name} failed: {told(error)}") from error
    finally:
        connection.close()
