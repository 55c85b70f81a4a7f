"""A push that a replica hears may have a scope read again: by the one that compares, whichever has heard it."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from reserve_listener.intake.complete import completing
from reserve_listener.intake.reconcile import comparing, reading_of
from reserve_listener.lark.api.answers import Limits
from reserve_listener.model import IncomingEvent, Scope
from reserve_listener.store.postgres.store import PostgresStore
from tests.helpers import NOW_MS, append

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from reserve_listener.model import Reading
    from tests.backends import OnPostgres

APP = "cli_app"
ROOM = Scope(tenant_key=APP, scope_type="room", scope_id="omm_1")


class Replica:
    """A store, and how often it was told of doubts. It looks only when it is asked to."""

    def __init__(self, store: PostgresStore) -> None:
        self.store = store
        self.told = 0
        store.on_doubt = self._tell
        if store._beating is not None:
            store._beating.cancel()

    def _tell(self) -> None:
        self.told += 1

    async def told_by_looking(self) -> int:
        """How often it was by one look."""
        before = self.told
        await self.store._look_after()
        return self.told - before


@pytest.fixture
async def pair(backend: OnPostgres) -> AsyncIterator[tuple[Replica, Replica]]:
    """The first compares."""
    both = []
    for _ in range(2):
        store = await backend.open("a", complete=completing("en"))
        assert isinstance(store, PostgresStore)
        both.append(Replica(store))
    yield both[0], both[1]
    for one in both:
        await one.store.close()


async def test_who_compares_hears_of_what_another_has_heard(pair: tuple[Replica, Replica]) -> None:
    """Once for each doubt, also if the room was read meanwhile; the one that does not compare hears nothing by looking."""
    leader, other = pair
    await leader.store.compare(read(NOW_MS), comparing("en"))
    for number, at_ms in enumerate((NOW_MS + 1_000, NOW_MS + 61_000)):
        await append(other.store, heard(number, at_ms))
        assert [await leader.told_by_looking() for _ in range(2)] == [1, 0]
        assert await other.told_by_looking() == 0
        await leader.store.compare(read(NOW_MS + 60_000 * (number + 1)), comparing("en"))
    assert await leader.told_by_looking() == 0


async def test_who_compares_from_now_on_hears_of_what_is_left(pair: tuple[Replica, Replica]) -> None:
    """The doubts that the one before had been told of."""
    leader, other = pair
    await leader.store.compare(read(NOW_MS), comparing("en"))
    await append(other.store, heard(1, NOW_MS + 1_000))
    assert await other.told_by_looking() == 0
    await leader.store.close()
    assert await other.told_by_looking() == 1
    assert await other.store.in_doubt(APP, limit=5) == [("room", "omm_1")]


def read(at_ms: int) -> Reading:
    """The room's limits, read within two seconds from then on."""
    config = {"time_config": {"time_switch": 1, "max_duration": 8}}
    limits = Limits(
        scope_type="room", scope_id="omm_1", config=config, as_of_ms=at_ms, until_ms=at_ms + 2_000
    )
    return reading_of(limits, app_id=APP, received_ms=at_ms + 2_000)


def heard(number: int, created_ms: int) -> IncomingEvent:
    """A push of that time."""
    body = {"data": {"scope_id": "omm_1", "time_config": {"time_switch": 1, "max_duration": number}}}
    return IncomingEvent(
        tenant_key=APP,
        event_id=f"e{number}",
        raw=b"{}",
        received_ms=created_ms,
        created_ms=created_ms,
        scope=ROOM,
        body=json.dumps(body).encode(),
    )
