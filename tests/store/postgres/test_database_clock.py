"""The database's time of day, as a replica knows it between two looks."""

from __future__ import annotations

from typing import Any

import pytest

from reserve_listener.ages import Ages
from reserve_listener.store.postgres.database_clock import DatabaseClock
from tests.helpers import NOW_MS


class World:
    """A database that is `ahead_ms` of a clock that nobody can set, and answers after a while."""

    def __init__(self) -> None:
        self.passed_ms = 1_000
        self.ahead_ms = NOW_MS
        self.there_ms = 0
        self.back_ms = 0

    def running_ms(self) -> int:
        """The clock that nobody can set."""
        return self.passed_ms

    def query(self, _: str) -> World:
        """As `Connection.query`."""
        self.passed_ms += self.there_ms
        return self

    def fetchone(self) -> tuple[int]:
        """As `Cursor.fetchone`."""
        shown_ms = self.passed_ms + self.ahead_ms
        self.passed_ms += self.back_ms
        return (shown_ms,)


def looked(clock: DatabaseClock, world: World) -> int:
    """How far it is off after a look."""
    connection: Any = world
    clock.look(connection)
    return clock.now_ms() - world.passed_ms - world.ahead_ms


@pytest.mark.parametrize(("there_ms", "back_ms"), [(9_000, 0), (0, 9_000), (4_000, 5_000)])
def test_a_slow_answer_is_no_clock_that_was_set(there_ms: int, back_ms: int) -> None:
    """Once known well, the time stays as it is however long a later look takes, and wherever it takes long."""
    world = World()
    clock = DatabaseClock(world.running_ms)
    assert looked(clock, world) == 0
    ages = Ages(clock.now_ms, world.running_ms)
    moved: list[int] = []
    ages.on_jump = moved.append
    world.there_ms, world.back_ms = there_ms, back_ms
    assert looked(clock, world) == 0
    ages.now_ms()
    assert moved == []


def test_it_gets_as_good_as_the_best_answer() -> None:
    """A first look that took long is off by half of that at the most, and the next quick one mends it."""
    world = World()
    world.back_ms = 3_000
    clock = DatabaseClock(world.running_ms)
    assert abs(looked(clock, world)) <= 1_500
    world.back_ms = 2
    assert abs(looked(clock, world)) <= 2


def test_a_database_whose_clock_is_set_is_followed() -> None:
    """Or another one after a failover: then it is a jump, as of any clock."""
    world = World()
    clock = DatabaseClock(world.running_ms)
    looked(clock, world)
    ages = Ages(clock.now_ms, world.running_ms)
    moved: list[int] = []
    ages.on_jump = moved.append
    world.ahead_ms -= 7_200_000
    assert looked(clock, world) == 0
    ages.now_ms()
    assert moved == [-7_200_000]
