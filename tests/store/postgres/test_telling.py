"""What a person is told of the way to the database, and the other replicas of this one."""

from __future__ import annotations

from typing import Final

import psycopg
import pytest

from reserve_listener.store import open_store
from reserve_listener.store.postgres import connection, store as postgres
from tests.helpers import until
from tests.postgres import SERVER
from tests.replicas import rows

REFUSED: Final = 'connection to server at "h" (10.0.0.1), port 5432 failed: Connection refused'
NO_SOCKET: Final = 'connection to server on socket "/run/.s" failed: No such file or directory'


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (
            REFUSED + "\n\tIs the server running on that host and accepting TCP/IP connections?",
            REFUSED,
        ),
        (
            f"{REFUSED}\n{NO_SOCKET}\n\tIs the server running locally and accepting connections on that socket?\n",
            f"{REFUSED}; {NO_SOCKET}",
        ),
        (f"connection failed: {REFUSED}", REFUSED),
        ("connection is bad: ", "connection is bad:"),
        (
            (
                f"connection failed: {NO_SOCKET}\nMultiple connection attempts failed. All failures were:\n"
                f"- host: 'h', port: '1', hostaddr: None: connection failed: {REFUSED}\n\tIs the server running?\n"
                f"- host: '/run', port: None, hostaddr: '10.0.0.1': connection is bad: {NO_SOCKET}"
            ),
            f"{REFUSED}; {NO_SOCKET}",
        ),
        ("the connection is closed.", "the connection is closed"),
        ("", "OperationalError"),
    ],
)
def test_what_libpq_says_goes_into_a_sentence(text: str, expected: str) -> None:
    """One line without its advice and its full stop: ours follows."""
    assert connection.told(psycopg.OperationalError(text)) == expected


async def test_others_learn_at_once_how_a_replica_is_connected(monkeypatch: pytest.MonkeyPatch) -> None:
    """Not only with its next beat."""
    monkeypatch.setattr(postgres, "BEAT_S", 3600)
    url = SERVER.database()
    store = await open_store(url, ("a",))
    try:
        store.connection = lambda: "connected"
        store.tell()
        await until(lambda: rows(url, "SELECT connection FROM replicas") == [("connected",)])
    finally:
        await store.close()
