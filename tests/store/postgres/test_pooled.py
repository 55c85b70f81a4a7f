"""PgBouncer in transaction mode: what is said of a session stays with whoever gets it next, so nothing is."""

from __future__ import annotations

from reserve_listener.store import open_store
from reserve_listener.store.postgres import schema
from tests.bouncer import pooled, pooling
from tests.helpers import append, event
from tests.postgres import SERVER


async def test_nobody_listens_through_a_pooler() -> None:
    """Else it would complain of every notice, and hand it to a stranger: replicas look by themselves."""
    url = SERVER.database()
    with pooling():
        for each, is_pooled in ((url, False), (pooled(url), True)):
            connection = schema.target(each).connect()
            assert connection.is_pooled() is is_pooled
            connection.close()
        one = await open_store(pooled(url), ["a"])
        two = await open_store(pooled(url), ["a"])
        for number in range(20):
            await append(one, event(f"e{number}"))
            await append(two, event(f"f{number}"))
        await one.close()
        await two.close()
        assert "when not linked" not in (SERVER.folder / "bouncer.log").read_text("utf-8")
