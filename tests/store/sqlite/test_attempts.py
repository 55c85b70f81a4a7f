"""What attempts cost in rows, and a store from before they were kept."""

from __future__ import annotations

import sqlite3
from typing import TYPE_CHECKING

import pytest

from reserve_listener.model import Outcome
from reserve_listener.store.sqlite import schema
from reserve_listener.store.sqlite.store import SqliteStore
from tests.helpers import append, event, stored
from tests.store.test_attempts import made

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[SqliteStore]:
    """A store with two sinks and one event for them."""
    store = SqliteStore(tmp_path / "events.db")
    await store.open(["a", "b"])
    await append(store, event("one", "omm_a"))
    yield store
    await store.close()


async def test_what_succeeds_at_once_writes_nothing_more(store: SqliteStore) -> None:
    """A first-attempt success changes its delivery's row and no other."""
    connection = sqlite3.connect(store.path)
    try:
        before = await store._writer.submit(lambda writing: writing.total_changes, writes=False)
        await store.settle("a", [Outcome(seq=1, state="delivered", attempts=1)])
        assert await store._writer.submit(lambda writing: writing.total_changes, writes=False) - before == 1
        assert connection.execute("SELECT count(*) FROM attempts").fetchone() == (0,)
    finally:
        connection.close()


async def test_a_store_from_before_is_taken_over(tmp_path: Path) -> None:
    """A store of the first schema gets the table at the next start; what is in it stays."""
    path = tmp_path / "old.db"
    connection = sqlite3.connect(path)
    connection.executescript(
        f"{schema.migrations()[0]}\nPRAGMA application_id = {schema.APPLICATION_ID};\nPRAGMA user_version = 1;\n"
        "INSERT INTO sinks (name) VALUES ('a');\n"
        "INSERT INTO scopes (tenant_key, scope_type, scope_id) VALUES ('t', 'room', 'omm_a');\n"
        "INSERT INTO events (tenant_key, event_id, scope, received_ms, raw, body) VALUES ('t', 'one', 1, 1, X'7b7d', X'7b7d');\n"
        "INSERT INTO deliveries (seq, sink, scope) VALUES (1, 1, 1);\n"
    )
    connection.close()
    store = SqliteStore(path)
    await store.open(["a"])
    await store.settle("a", [made(1)])
    (found,) = stored(path)
    assert [record.outcome for record in found.deliveries[0].history] == ["retry"]
    await store.close()
