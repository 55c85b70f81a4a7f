"""How often an API is asked: never more than the platform allows, whatever the callers do."""

from __future__ import annotations

import asyncio
from bisect import bisect_left

import pytest
from hypothesis import given, strategies as st

from reserve_listener.lark.api.client import LIMITS_PER_MINUTE, limits_pace
from reserve_listener.lark.api.errors import TryAgainError
from reserve_listener.lark.api.pace import PATIENCE_S, Pace
from tests.lark.waiting import Clock


def most_within(times: list[float], window_s: float) -> int:
    """The most calls in any window of this length; they are in order."""
    return max(bisect_left(times, start + window_s) - at for at, start in enumerate(times))


@given(
    per_minute=st.integers(1, 100),
    pauses=st.lists(st.sampled_from([0.0, 0.0, 0.0, 0.01, 0.5, 3.0, 70.0]), min_size=250, max_size=250),
)
def test_no_minute_has_more_than_is_allowed(per_minute: int, pauses: list[float]) -> None:
    """At most 10 above `requests_per_minute`, never above 100, with callers that hurry, dawdle and pause."""

    async def calls() -> list[float]:
        clock = Clock()
        pace = limits_pace(per_minute, clock=clock, sleep=clock.sleep)
        times = []
        for pause_s in pauses:
            clock.now_s += pause_s
            await pace.turn()
            times.append(clock.now_s)
        return times

    assert most_within(asyncio.run(calls()), 60.0) <= min(per_minute + 10, LIMITS_PER_MINUTE)


@given(
    per_minute=st.integers(1, 100),
    lives=st.lists(
        st.tuples(st.integers(0, 50), st.sampled_from([0.0, 0.0, 0.01, 5.0, 70.0])), min_size=1, max_size=8
    ),
)
def test_restarts_make_no_minute_busier(per_minute: int, lives: list[tuple[int, float]]) -> None:
    """A daemon that is stopped and started again, after a pause or in the middle of a burst, keeps to the same bounds."""

    async def calls() -> list[float]:
        clock = Clock()
        times = [clock.now_s]
        for count, pause_s in lives:
            pace = limits_pace(per_minute, clock=clock, sleep=clock.sleep)
            clock.now_s += pause_s
            for _ in range(count):
                await pace.turn()
                times.append(clock.now_s)
        return times[1:]

    if times := asyncio.run(calls()):
        assert most_within(times, 60.0) <= min(per_minute + 10, LIMITS_PER_MINUTE)


@pytest.mark.parametrize("daemons", [2, 7])
@pytest.mark.parametrize("per_minute", [1, 50, 80, *range(90, 101)])
async def test_other_daemons_that_take_over_stay_within_the_bound(per_minute: int, daemons: int) -> None:
    """They have waited, so their bursts are full, and one has just gone out: together no more than is allowed."""
    clock, times = Clock(), []
    paces = [limits_pace(per_minute, clock=clock, sleep=clock.sleep) for _ in range(daemons)]
    clock.now_s += 600
    for pace in paces:
        end_s = clock.now_s + 60 / daemons
        pace.start_over()
        clock.now_s += 10 * (pace is paces[0])
        while clock.now_s < end_s:
            await pace.turn()
            times.append(clock.now_s)
    assert most_within(times, 60.0) <= min(per_minute + 10, LIMITS_PER_MINUTE)


async def test_the_pace_is_kept() -> None:
    """In the long run, all that is allowed is used: 10,000 scopes at 80 a minute take some two hours."""
    clock = Clock()
    pace, start_s = limits_pace(80, clock=clock, sleep=clock.sleep), clock.now_s
    for _ in range(1_000):
        await pace.turn()
    assert clock.now_s - start_s == pytest.approx(1_000 / 80 * 61, rel=0.01)


async def test_turns_are_taken_in_order() -> None:
    """Who asked first goes first, also among many at once."""
    clock, went = Clock(), []
    pace = Pace(60, clock=clock, sleep=clock.sleep)

    async def caller(number: int) -> None:
        await pace.turn()
        went.append(number)

    await asyncio.gather(*(caller(number) for number in range(20)))
    assert went == list(range(20))


async def test_the_platforms_wish_holds_everybody() -> None:
    """After "too often, wait 20 s" nobody asks for 20 s, and then all do at their pace."""
    clock = Clock()
    pace = Pace(60, burst=5, clock=clock, sleep=clock.sleep)
    await pace.turn()
    asked_s = clock.now_s
    pace.hold(20)
    pace.hold(3)
    await pace.turn()
    assert clock.now_s == asked_s + 20


async def test_a_wish_for_longer_goes_to_the_caller() -> None:
    """An hour is not waited out in secret, and a header that says a century means an hour."""
    clock = Clock()
    pace = Pace(60, clock=clock, sleep=clock.sleep)
    pace.hold(1e9)
    with pytest.raises(TryAgainError) as caught:
        await pace.turn()
    assert caught.value.after_s == 3600
    clock.now_s += 3600 - PATIENCE_S
    await pace.turn()


async def test_a_caller_who_is_cancelled_takes_no_turn() -> None:
    """The next one in the queue gets it."""
    clock = Clock()
    never = asyncio.Event()

    async def sleep(_: float) -> None:
        await never.wait()

    pace = Pace(60, at_once=True, clock=clock, sleep=sleep)
    await pace.turn()
    waiting = asyncio.create_task(pace.turn())
    await asyncio.sleep(0)
    waiting.cancel()
    await asyncio.gather(waiting, return_exceptions=True)
    clock.now_s += 61 / 60
    async with asyncio.timeout(1):
        await pace.turn()
