"""Work in turns: a stranger's many steps hold up nobody else's few."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from reserve_listener.net.turns import TURN_S, Turns
from tests.daemon_process import until

if TYPE_CHECKING:
    import pytest

STEP_S = TURN_S / 3.5  # so the fourth step is the last of a turn


class Steps:
    """So many steps to do; each takes somewhat less than a third of a turn on the loop's clock."""

    def __init__(self, count: int, done: list[Steps], clock: Clock) -> None:
        self.is_queued = False
        self._left = count
        self._done = done
        self._clock = clock

    def work(self) -> bool:
        self._clock.now += STEP_S
        self._left -= 1
        self._done.append(self)
        return self._left > 0


class Clock:
    """What the loop takes for the time."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        loop = asyncio.get_running_loop()
        self.now = 0.0
        begun = loop.time()
        monkeypatch.setattr(loop, "time", lambda: begun + self.now)


async def test_steps_are_taken_in_turn(monkeypatch: pytest.MonkeyPatch) -> None:
    """Who comes later with one step waits for one step of each other, not for all of them."""
    clock, done, turns = Clock(monkeypatch), list[Steps](), Turns()
    busy = [Steps(1_000, done, clock) for _ in range(3)]
    for each in busy:
        turns.add(each)
        turns.add(each)  # twice is once
    await asyncio.sleep(0)
    late = Steps(1, done, clock)
    turns.add(late)
    await asyncio.sleep(0)
    assert done.index(late) <= 4 + 3
    assert done[:4] == [*busy, busy[0]]


async def test_the_loop_goes_on_between_the_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each turn of the loop has four of them, however many are left, and all are done in the end."""
    clock, done, turns = Clock(monkeypatch), list[Steps](), Turns()
    turns.add(Steps(100, done, clock))
    for turn in range(1, 6):
        await asyncio.sleep(0)
        assert len(done) == 4 * turn
    for _ in range(20):
        await asyncio.sleep(0)
    assert len(done) == 100


async def test_a_defect_in_one_step_leaves_the_others_their_turn() -> None:
    """The loop hears of it, as of every defect."""
    heard: list[BaseException] = []
    asyncio.get_running_loop().set_exception_handler(
        lambda _loop, context: heard.append(context["exception"])
    )

    class Broken:
        is_queued = False

        def work(self) -> bool:
            raise RuntimeError("a defect")

    class Fine:
        is_queued = False
        worked = False

        def work(self) -> bool:
            self.worked = True
            return False

    turns, fine = Turns(), Fine()
    turns.add(Broken())
    turns.add(fine)
    await until(lambda: fine.worked)
    assert [str(error) for error in heard] == ["a defect"]
