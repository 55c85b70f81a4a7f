"""When a sink counts as removed, while replicas run."""

from __future__ import annotations

from typing import TYPE_CHECKING

from reserve_listener.store import open_store
from reserve_listener.store.postgres import looking
from reserve_listener.store.postgres.store import PostgresStore
from tests.helpers import append, event
from tests.postgres import SERVER
from tests.replicas import rows

if TYPE_CHECKING:
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


async def _beat(store: PostgresStore) -> None:
    """And what it has begun in the background."""
    await store._look_after()
    if store._forgetting is not None:
        await store._forgetting
