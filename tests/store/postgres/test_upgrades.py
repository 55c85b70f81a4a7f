"""A new version that changes the tables, beside replicas that know only the old ones."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from reserve_listener.errors import ConfigError, StoreError, WrongStoreError
from reserve_listener.model import Outcome, Verdict
from reserve_listener.store import open_store
from reserve_listener.store.postgres import schema
from reserve_listener.store.postgres.database_clock import NOW
from reserve_listener.store.postgres.leases import DEAD_MS
from reserve_listener.store.postgres.store import PostgresStore
from tests.helpers import append, event, until

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from tests.backends import OnPostgres


@pytest.fixture
async def old(backend: OnPostgres) -> AsyncIterator[PostgresStore]:
    """A replica of the version that is."""
    store = await open_store(backend.url, ["a"])
    assert isinstance(store, PostgresStore)
    yield store
    await store.close()


@pytest.fixture
def _newer(old: PostgresStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever opens the store from now on knows one migration more."""
    known = [*schema.migrations(), "ALTER TABLE sinks ADD COLUMN colour text"]
    monkeypatch.setattr(schema, "migrations", lambda: known)
    monkeypatch.setattr(schema, "LOOK_S", 0.2)
    del old


def version(backend: OnPostgres) -> int:
    """Of the tables."""
    return int(backend.rows("SELECT number FROM version")[0][0])


@pytest.mark.usefixtures("_newer")
async def test_nothing_is_migrated_under_replicas_that_run(backend: OnPostgres, old: PostgresStore) -> None:
    """It is refused with the configuration's exit code and says who runs where; those go on. Once they stop, it is done."""
    before = version(backend)
    with pytest.raises(WrongStoreError) as raised:
        await open_store(backend.url, ["a"])
    ((host, pid),) = backend.rows("SELECT host, pid FROM replicas")
    assert raised.value.exit_code == ConfigError.exit_code
    assert f"{host} (process {pid}, version " in str(raised.value)
    assert "Stop them all" in str(raised.value)
    assert version(backend) == before
    assert await append(old, event("e1")) is Verdict.STORED
    await old.close()
    new = await open_store(backend.url, ["a"])
    assert version(backend) == before + 1
    assert await append(new, event("e1")) is Verdict.DUPLICATE
    await new.close()


@pytest.mark.usefixtures("_newer")
async def test_a_replica_that_was_killed_is_waited_for(backend: OnPostgres, old: PostgresStore) -> None:
    """Nobody knows at first that it is dead; one that was only frozen takes and settles nothing, and ends when it wakes."""
    await append(old, event("e1"))
    if old._beating is not None:
        old._beating.cancel()
    backend.rows(f"UPDATE replicas SET seen_ms = {NOW} - {DEAD_MS} + 1000")
    new = await open_store(backend.url, ["a"])
    for stale in (append(old, event("e2")), old.settle("a", [Outcome(seq=1, state="delivered", attempts=1)])):
        with pytest.raises(StoreError, match="changed by a newer reserve-listener"):
            await stale
    assert backend.rows("SELECT state FROM deliveries") == [(0,)]
    assert [one[0] for one in backend.rows("SELECT count(*) FROM events")] == [1]
    await new.close()


async def test_a_replica_that_finds_a_newer_schema_ends(backend: OnPostgres, old: PostgresStore) -> None:
    """With the configuration's exit code: it must not be started again before it is replaced."""
    backend.rows("UPDATE version SET number = number + 1")
    old._beat_now.set()
    with pytest.raises(WrongStoreError, match="changed by a newer reserve-listener") as raised:
        await old.ended()
    assert raised.value.exit_code == ConfigError.exit_code


async def test_nobody_has_to_be_told_why_a_replica_ended(backend: OnPostgres, old: PostgresStore) -> None:
    """Nothing is said of an end that nobody waits for."""
    said: list[object] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: said.append(context))
    backend.rows("UPDATE version SET number = number + 1")
    old._beat_now.set()
    await until(old._outdated.done)
    del old._outdated
    assert said == []


async def test_a_replica_that_connects_anew_finds_a_newer_schema(
    backend: OnPostgres, old: PostgresStore
) -> None:
    """The database was away meanwhile."""
    backend.rows("UPDATE version SET number = number + 1")
    backend.rows(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
        " WHERE datname = current_database() AND pid <> pg_backend_pid()"
    )
    with pytest.raises(WrongStoreError, match="newer reserve-listener"):
        await old.ended()
