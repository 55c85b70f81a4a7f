"""What retention drops of what only PostgreSQL's store has."""

from __future__ import annotations

from typing import TYPE_CHECKING

from reserve_listener.store.postgres import requests
from reserve_listener.store.postgres.database_clock import NOW

if TYPE_CHECKING:
    import pytest

    from tests.backends import OnPostgres

OLD_MS = requests.KEPT_MS + 60_000


async def test_requests_that_nobody_follows_go_with_their_answers(
    backend: OnPostgres, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By the replica that leads retention and no other, a chunk at a time; younger ones stay."""
    monkeypatch.setattr(requests, "CHUNK_ROWS", 3)
    store = await backend.open("a")
    backend.rows(
        "INSERT INTO requests (what, content, at_ms)"
        f" SELECT 'reconnect', '', {NOW} - CASE WHEN n < 8 THEN {OLD_MS} ELSE 0 END FROM generate_series(1, 8) AS n"
    )
    backend.rows("INSERT INTO answers (request, replica, content) SELECT id, 'one', '' FROM requests")
    other = await backend.open("a")
    assert await other.forget(0, history_before_ms=None)
    assert backend.rows("SELECT count(*) FROM requests") == [(8,)]
    while not await store.forget(0, history_before_ms=None):
        pass
    assert backend.rows("SELECT id, request FROM requests JOIN answers ON request = id") == [(8, 8)]
    assert backend.rows("SELECT count(*) FROM answers") == [(1,)]
    for one in (store, other):
        await one.close()
