"""How the statements of the operations are planned, and one that breaks off half-way."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from reserve_listener.errors import StoreError
from reserve_listener.model import EventQuery
from reserve_listener.store.shared import operations, sql
from reserve_listener.store.sqlite.store import SqliteStore
from tests.store.test_store_operations import counted_requeues, fill, kill

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import AsyncIterator
    from pathlib import Path


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[SqliteStore]:
    store = SqliteStore(tmp_path / "events.db")
    await store.open(["a", "b"])
    yield store
    await store.close()


async def states(store: SqliteStore) -> dict[int, int]:
    """How many deliveries of the first sink are in each state."""
    statement = "SELECT state, count(*) FROM deliveries WHERE sink = 1 GROUP BY state"
    return dict(await store._writer.submit(lambda c: c.execute(statement).fetchall(), writes=False))


async def test_an_operation_that_breaks_off_wakes_the_workers(
    store: SqliteStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What the chunks before the failure put in again is not left lying until the next restart."""
    monkeypatch.setattr(operations, "CHUNK_ROWS", 10)
    await fill(store, 30)
    await kill(store, "a", 30)
    requeues = await counted_requeues(store)
    real = operations.Operation.step
    steps: list[None] = []

    def step(self: Any, *args: Any) -> Any:
        steps.append(None)
        if len(steps) == 2:
            raise ZeroDivisionError("a defect")
        return real(self, *args)

    monkeypatch.setattr(operations.Operation, "step", step)
    with pytest.raises(StoreError, match="a defect"):
        await store.operate("retry", EventQuery())
    assert await states(store) == {0: 10, 2: 20}
    assert requeues == [None]


@pytest.mark.parametrize("analyzed", [False, True])
@pytest.mark.parametrize("name", ["DEAD_TO_RETRY", "DEAD_TO_DROP", "TO_REPLAY", "RETRY_DEAD", "DROP_DEAD"])
async def test_plans(store: SqliteStore, name: str, *, analyzed: bool) -> None:
    """No chunk sorts or scans from the beginning: each goes on where the last one ended."""
    await fill(store, 50)
    await kill(store, "a", 50)
    values: Any = dict.fromkeys(("sink", "scope_id", "event_id", "since_ms", "until_ms"))
    values |= {"after": 0, "after_sink": 0, "top": 9, "limit": 9}
    if name in ("RETRY_DEAD", "DROP_DEAD"):
        values = (1, 1, 1) if name == "RETRY_DEAD" else (1, 1)

    def explain(connection: sqlite3.Connection) -> list[str]:
        if analyzed:
            connection.execute("ANALYZE")
        rows = connection.execute(f"EXPLAIN QUERY PLAN {getattr(sql, name)}", values).fetchall()
        return [row[3] for row in rows]

    plan = await store._writer.submit(explain, writes=False)
    assert not [line for line in plan if line.startswith("SCAN") or "ORDER BY" in line], plan
