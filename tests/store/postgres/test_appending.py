"""What goes wrong with one event on PostgreSQL costs no other, though nothing is looked at before the commit."""

from __future__ import annotations

import asyncio
import threading
from typing import TYPE_CHECKING

import msgspec
import pytest
from psycopg._pipeline_base import BasePipeline

from reserve_listener.model import Verdict
from reserve_listener.store import open_store
from reserve_listener.store.postgres.store import PostgresStore
from tests.backends import OnPostgres
from tests.helpers import event
from tests.postgres import MISSING, programs

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from psycopg.abc import PQGen

    from reserve_listener.errors import StoreError
    from reserve_listener.model import IncomingEvent

pytestmark = pytest.mark.skipif(programs() is None, reason=MISSING)

TOO_LARGE = 2**63
"""No bigint: the server refuses it."""


@pytest.fixture
def backend(tmp_path: Path) -> Iterator[OnPostgres]:
    """A database of its own."""
    backend = OnPostgres(tmp_path)
    yield backend
    backend.let_go()


def refused(event_id: str) -> IncomingEvent:
    """An event that cannot be put in as it is."""
    return msgspec.structs.replace(event(event_id), created_ms=TOO_LARGE)


@pytest.mark.parametrize("at", [0, 1, 2, 3])
async def test_an_event_that_the_server_refuses_is_kept_whole_and_costs_no_other(
    backend: OnPostgres, at: int
) -> None:
    """Batches that are committed together, one with a bad event: each answered event is there once, the bad one as unreadable."""
    store = await open_store(backend.url, ["a"])
    events = [event(f"e{number}", f"omm_{number}") for number in range(4)]
    events[at] = refused(f"e{at}")
    done: list[StoreError | None] = []
    held = await backend.hold_receiving(store).begun()
    for batch in (events[:1], events[1:3], events[3:]):
        store.receive(batch, lambda _number, error: done.append(error))
    await asyncio.sleep(0)
    await held.release()
    assert await store.project(events) == [Verdict.DUPLICATE] * 4
    await store.close()
    assert done == [None] * 3
    rows = backend.rows("SELECT event_id, problem IS NULL, body IS NULL FROM events ORDER BY seq")
    assert rows == [(f"e{number}", number != at, number == at) for number in range(4)]
    assert backend.rows("SELECT count(*) FROM deliveries") == [(3,)]


async def test_a_batch_is_two_round_trips(backend: OnPostgres, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is asked is asked at once, and what is written goes with the commit: nobody waits longer for the append lock."""
    store = await open_store(backend.url, ["a", "b"])
    assert isinstance(store, PostgresStore)
    if store._beating is not None:
        store._beating.cancel()  # which would ask in between
        await asyncio.wait([store._beating])
    await asyncio.gather(*store._pings)
    rooms = [f"omm_{number}" for number in range(20)]
    await store.project([event(f"first {room}", room) for room in rooms])
    waits: list[str] = []
    real = BasePipeline._fetch_gen

    def fetched(pipeline: BasePipeline, *, flush: bool) -> PQGen[None]:
        if flush and pipeline.result_queue and threading.current_thread().name == "store-receiver":
            waits.append("for answers")
        return real(pipeline, flush=flush)

    monkeypatch.setattr(BasePipeline, "_fetch_gen", fetched)
    await store.project([event(f"second {room}", room) for room in rooms])
    assert 1 <= len(waits) <= 2  # both answers may be there at once
    await store.close()
