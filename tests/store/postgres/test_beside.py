"""Commands that write to the store beside replicas that write, too."""

from __future__ import annotations

import asyncio
from functools import partial
from typing import TYPE_CHECKING, Any

import psycopg

from reserve_listener.model import EventQuery, Outcome
from reserve_listener.store import backend as backend_of
from tests.helpers import append, event, until

if TYPE_CHECKING:
    from tests.backends import OnPostgres


async def test_a_command_that_a_replica_was_in_the_way_of_is_done_all_the_same(backend: OnPostgres) -> None:
    """Each waits for a row that the other has: the server ends the command's transaction, and the command begins it again."""
    store = await backend.open("a")
    for number in (1, 2, 3):
        await append(store, event(f"e{number}"))
    await store.settle("a", [Outcome(seq=seq, state="dead", attempts=1) for seq in (1, 2, 3)])
    await store.close()
    async with await _replica(backend.url) as slow, await _replica(backend.url) as replica:
        await slow.execute(_TOUCH, (2,))
        await replica.execute("SET deadlock_timeout = '1h'")  # so it is the command that notices
        await replica.execute(_TOUCH, (3,))
        drop = partial(backend_of(backend.url).operate, "drop", EventQuery(), {})
        dropping = asyncio.create_task(asyncio.to_thread(drop))
        await until(lambda: _waiting(backend) == 1)  # the command has the first row, and waits for the second
        touching = asyncio.create_task(replica.execute(_TOUCH, (1,)))
        await until(lambda: _waiting(backend) == 2)
        await slow.commit()
        await touching
        await replica.commit()
        assert await dropping == 3
    assert backend.rows("SELECT 1 FROM deliveries") == []


_TOUCH = "UPDATE deliveries SET attempts = 2 WHERE seq = %s"


async def _replica(url: str) -> psycopg.AsyncConnection[Any]:
    return await psycopg.AsyncConnection.connect(url, options="-csearch_path=reserve_listener")


def _waiting(backend: OnPostgres) -> int:
    statement = (
        "SELECT 1 FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"
    )
    return len(backend.rows(statement))
