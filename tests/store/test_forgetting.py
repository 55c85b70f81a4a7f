"""What retention drops besides events and history: what would else pile up for as long as the store lives."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from reserve_listener.model import Outcome
from reserve_listener.store.retention import Retention
from tests.helpers import Clock, push as append, small_event

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from reserve_listener.protocols.store import Store
    from tests.backends import Backend

HOUR_S = 3_600
DAY_MS = 24 * HOUR_S * 1000
APP = "cli_app"


@pytest.fixture
async def store(backend: Backend, clock: Clock, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Store]:
    """Whose chunks are small."""
    backend.tune(monkeypatch, chunk_rows=3)
    store = await backend.open("a", "b", now_ms=clock)
    yield store
    await store.close()


async def tidy(store: Store, clock: Clock, *, history_days: int | None = 400) -> None:
    """Once, as it is done every ten minutes."""
    history_ms = None if history_days is None else history_days * DAY_MS
    await Retention(
        store, keep_ms=30 * DAY_MS, history_ms=history_ms, now_ms=clock, sleep=lambda _: asyncio.sleep(0)
    ).tidy()


async def pause(store: Store, clock: Clock, sink: str, *, times: int = 1) -> None:
    """It is disabled for an hour."""
    for _ in range(times):
        clock.advance(HOUR_S)
        await store.disable_sink(sink, "by hand")
        clock.advance(HOUR_S)
        await store.enable_sink(sink)


async def test_pauses_go_once_nothing_waits_that_they_count_for(
    backend: Backend, store: Store, clock: Clock
) -> None:
    """Old ones in several chunks; those that the age of a waiting delivery counts by stay, and so do young ones."""
    await pause(store, clock, "a", times=7)
    await pause(store, clock, "b")
    await append(store, small_event("e1", received_ms=clock.now_ms))
    await store.settle("b", [Outcome(seq=1, state="delivered", attempts=1)])
    await pause(store, clock, "a", times=2)
    (waiting,) = [one for one in await store.sinks() if one.name == "a"]
    clock.advance(31 * 24 * HOUR_S)
    await pause(store, clock, "b")
    await tidy(store, clock)
    count = (
        "SELECT k.name, count(*) FROM pauses AS p JOIN sinks AS k ON k.id = p.sink GROUP BY k.name ORDER BY 1"
    )
    assert backend.rows(count) == [("a", 2), ("b", 1)]
    assert waiting in await store.sinks()
    await store.settle("a", [Outcome(seq=1, state="delivered", attempts=1)])
    await tidy(store, clock)
    assert backend.rows(count) == [("b", 1)]


async def test_gaps_go_with_the_history_of_their_time(backend: Backend, store: Store, clock: Clock) -> None:
    """In several chunks; young ones stay, and all do where history is kept for ever."""
    for _ in range(7):
        since_ms = clock.now_ms
        clock.advance(10 * HOUR_S)
        await store.know_app(APP, gap_since_ms=since_ms, longer_than_ms=HOUR_S)
    clock.advance(401 * 24 * HOUR_S)
    young_ms = clock.now_ms
    clock.advance(10 * HOUR_S)
    await store.know_app(APP, gap_since_ms=young_ms, longer_than_ms=HOUR_S)
    await tidy(store, clock, history_days=None)
    assert backend.rows("SELECT count(*) FROM gaps") == [(8,)]
    await tidy(store, clock)
    assert backend.rows("SELECT from_ms FROM gaps") == [(young_ms,)]
