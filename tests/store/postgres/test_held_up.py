"""What holds up a whole database: a replica that stands still in a transaction, and a server that takes no writes."""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING

import psycopg
import pytest

from reserve_listener.errors import StoreError
from reserve_listener.model import Verdict
from reserve_listener.simulator import patience
from reserve_listener.store.postgres import listening, schema, store as postgres
from reserve_listener.store.postgres.medium import Database
from tests.helpers import append, event, until
from tests.replicas import rows

if TYPE_CHECKING:
    from reserve_listener.protocols.store import Store
    from reserve_listener.store.postgres.connection import Connection
    from tests.backends import OnPostgres


def _standing_still(url: str, *, lock: bool) -> tuple[Connection, contextlib.ExitStack]:
    """A replica in the middle of a transaction, after a question: it says nothing more."""
    stack = contextlib.ExitStack()
    connection = schema.target(url).connect()
    stack.callback(connection.close)
    stack.enter_context(connection.transaction())
    if lock:
        connection.lock_appends()
    assert connection.query("SELECT 1").fetchone() == (1,)
    return connection, stack


async def test_a_replica_that_stands_still_in_a_transaction_holds_up_the_others_for_seconds(
    backend: OnPostgres, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The others cut it off, as the server would not for hours. One that is in nobody's way goes on."""
    monkeypatch.setattr(listening, "FROZEN_S", 0.5)
    monkeypatch.setattr(listening, "LOOK_S", 0.1)
    store = await backend.open("a")
    harmless, harmless_ends = _standing_still(backend.url, lock=False)
    _, frozen_ends = _standing_still(backend.url, lock=True)
    try:
        verdict = append(store, event("e1"))
        await until(verdict.done, patience(15))
        assert await verdict is Verdict.STORED
        assert harmless.query("SELECT 2").fetchone() == (2,)
    finally:
        with pytest.raises(StoreError):
            frozen_ends.close()
        harmless_ends.close()
        await store.close()


async def test_a_start_does_not_wait_for_a_replica_that_stands_still(
    backend: OnPostgres, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also one that comes alone, after the machine of the only other one has vanished."""
    monkeypatch.setattr(listening, "FROZEN_S", 0.5)
    monkeypatch.setattr(listening, "LOOK_S", 0.1)
    await (await backend.open("a")).close()
    held, ends = _standing_still(backend.url, lock=True)
    held.query("LOCK TABLE sinks IN ACCESS EXCLUSIVE MODE")
    held.query("SELECT 1").fetchone()
    store = await backend.open("a")
    with pytest.raises(StoreError):
        ends.close()
    assert await append(store, event("e1")) is Verdict.STORED
    await store.close()


async def test_a_server_that_takes_no_writes_is_left_for_one_that_does(backend: OnPostgres) -> None:
    """As a primary that was demoted: the connection is given up, and one is looked for that may write."""
    store = await backend.open("a")
    name = psycopg.conninfo.conninfo_to_dict(backend.url)["dbname"]
    assert await _said(store, 0) == "stored"
    rows(backend.url, f"ALTER DATABASE {name} SET default_transaction_read_only = on")
    rows(backend.url, _END_ALL)
    async with asyncio.timeout(patience(30)):
        while "read-only. If it is a standby" not in await _said(store, 1):
            await asyncio.sleep(0.05)
    with psycopg.connect(backend.url, autocommit=True) as connection:
        connection.execute("SET default_transaction_read_only = off")
        connection.execute(f"ALTER DATABASE {name} RESET default_transaction_read_only".encode())
    async with asyncio.timeout(patience(30)):
        while await _said(store, 2) != "stored":
            await asyncio.sleep(0.05)
    await store.close()


async def test_a_server_that_becomes_read_only_under_a_connection_is_left(backend: OnPostgres) -> None:
    """The connection still works, for reading; whatever else goes wrong in it says nothing of the server."""
    await (await backend.open("a")).close()
    database = Database(schema.target(backend.url))
    connection = database.usable()
    database.suspect(StoreError("a check failed"))
    assert database.usable() is connection
    refused = StoreError("cannot execute INSERT in a read-only transaction")
    refused.__cause__ = psycopg.errors.ReadOnlySqlTransaction()
    database.suspect(refused)
    assert database.usable() is not connection
    database.close()


async def test_a_push_does_not_have_to_find_out_that_its_connection_was_closed(
    backend: OnPostgres, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By a proxy that closes what is silent, or a restart at night: the beats have connected again by then."""
    monkeypatch.setattr(postgres, "BEAT_S", 0.05)
    monkeypatch.setattr(listening, "RETRY_S", 0.05)
    store = await backend.open("a")
    assert await _said(store, 0) == "stored"
    await until(lambda: len(rows(backend.url, _CONNECTIONS)) == CONNECTIONS, 30)
    here = rows(backend.url, _CONNECTIONS)
    rows(backend.url, _END_ALL)
    await until(lambda: len({*rows(backend.url, _CONNECTIONS)} - {*here}) == CONNECTIONS, 30)
    assert await _said(store, 1) == "stored"
    await store.close()


CONNECTIONS = 4
_CONNECTIONS = "SELECT pid FROM pg_stat_activity WHERE datname = current_database() AND application_name = 'reserve-listener'"
_END_ALL = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()"


async def _said(store: Store, number: int) -> str:
    """What becomes of an event, in a word or more."""
    try:
        return (await append(store, event(f"e{number}"))).name.lower()
    except StoreError as error:
        return str(error)
