"""When a sink counts as removed, while replicas run."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING

import psycopg

from reserve_listener.errors import StoreError
from reserve_listener.simulator import patience
from reserve_listener.store import open_store
from reserve_listener.store.postgres import looking, waiting
from reserve_listener.store.postgres.store import PostgresStore
from tests.helpers import append, event, until
from tests.postgres import SERVER
from tests.replicas import rows

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    import pytest


async def test_a_sink_that_none_has_is_removed_while_they_run(monkeypatch: pytest.MonkeyPatch) -> None:
    """By a beat of one that has watched for as long; not by one that has just begun to, though the sink is long gone."""
    url = SERVER.database()
    both = await open_store(url, ["a", "b"])
    await append(both, event("e1"))
    await both.close()
    rows(url, "UPDATE sinks SET had_ms = 1")
    store = await open_store(url, ["a"])
    try:
        assert isinstance(store, PostgresStore)
        await _beat(store)
        assert {sink.name for sink in await store.sinks() if sink.configured} == {"a", "b"}
        real = store.member.running_ms
        monkeypatch.setattr(store.member, "running_ms", lambda: real() + looking.REMOVED_AFTER_MS)
        await _beat(store)
        assert {sink.name for sink in await store.sinks() if sink.configured} == {"a", "b"}
        monkeypatch.setattr(store.member, "running_ms", lambda: real() + 2 * looking.REMOVED_AFTER_MS)
        monkeypatch.setattr(store.member, "_beaten_ms", store.member.running_ms())
        await _beat(store)
        assert {sink.name: (sink.configured, sink.dead) for sink in await store.sinks()} == {
            "a": (True, 0),
            "b": (False, 1),
        }
    finally:
        await store.close()


async def _at_last(ask: Callable[[], Awaitable[object]]) -> None:
    """Also on a machine that is too busy for so short a time-out."""
    async with asyncio.timeout(patience(30)):
        while True:
            with suppress(StoreError):
                await ask()
                return


async def _beat(store: PostgresStore) -> None:
    """And what it has begun in the background."""
    await store._look_after()
    if store._forgetting is not None:
        await store._forgetting


async def test_a_reload_is_whole_although_the_database_goes_away_in_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Events are stored for the new sinks already: if it were refused now, nobody would deliver them."""
    url = SERVER.database()
    store = await open_store(url, ["a", "old"])
    monkeypatch.setattr(waiting, "STATEMENT_TIMEOUT_S", 0.5)
    with psycopg.connect(url) as connection:
        connection.execute(b"LOCK TABLE reserve_listener.leases")
        await _at_last(partial(store.set_sinks, ["a", "new"]))
        await _at_last(partial(append, store, event("e1")))
    found = rows(url, "SELECT s.name FROM deliveries AS d JOIN sinks AS s ON s.id = d.sink ORDER BY s.name")
    assert found == [("a",), ("new",)]
    await until(lambda: store.holds("new"), 30)
    await store.close()
