"""The tenant token: renewed in time, by one at a time, and the old one serves as long as it can."""

from __future__ import annotations

import asyncio

import pytest

from reserve_listener.lark.api.errors import ApiError, TryAgainError
from reserve_listener.lark.api.token import Given, TenantToken
from tests.lark.waiting import Clock


class Giver:
    """Gives tokens as the platform does: the same one while it has 30 minutes or more, else a new one."""

    def __init__(self, clock: Clock) -> None:
        self.clock = clock
        self.asked = 0
        self.given = 0
        self.ends_s = 0.0
        self.error: ApiError | None = None
        self.gate = asyncio.Event()
        self.gate.set()

    async def __call__(self) -> Given:
        self.asked += 1
        await self.gate.wait()
        if self.error is not None:
            raise self.error
        if self.ends_s - self.clock.now_s < 1800:
            self.given += 1
            self.ends_s = self.clock.now_s + 7200
        return Given(f"t-{self.given}", self.ends_s - self.clock.now_s)


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def giver(clock: Clock) -> Giver:
    return Giver(clock)


@pytest.fixture
def token(clock: Clock, giver: Giver) -> TenantToken:
    return TenantToken(giver, clock=clock)


async def test_it_is_asked_for_once(token: TenantToken, giver: Giver) -> None:
    """A hundred callers at the beginning share one request."""
    found = await asyncio.gather(*(token.get() for _ in range(100)))
    assert (set(found), giver.asked) == ({"t-1"}, 1)


async def test_it_is_renewed_in_its_last_half_hour(token: TenantToken, giver: Giver, clock: Clock) -> None:
    """Not before, since the platform would give the same one again; and then before anybody is refused."""
    assert await token.get() == "t-1"
    clock.now_s += 5399
    assert (await token.get(), giver.asked) == ("t-1", 1)
    clock.now_s += 2
    assert (await token.get(), giver.asked) == ("t-2", 2)


async def test_a_token_that_came_late_is_not_asked_for_all_the_time(
    token: TenantToken, giver: Giver, clock: Clock
) -> None:
    """After a start the platform may give one that ends in 31 minutes: it is renewed a minute later, not in each call."""
    giver.given, giver.ends_s = 7, clock.now_s + 1860
    assert await token.get() == "t-7"
    clock.now_s += 59
    assert (await token.get(), giver.asked) == ("t-7", 1)
    clock.now_s += 2
    assert (await token.get(), giver.asked) == ("t-8", 2)


async def test_the_old_one_serves_while_renewing_fails(
    token: TenantToken, giver: Giver, clock: Clock
) -> None:
    """A platform that gives no token for half an hour stops nothing, and is asked once a minute; then its error is told."""
    await token.get()
    giver.error = TryAgainError("busy")
    clock.now_s += 5401
    for _ in range(29):
        assert await token.get() == await token.get() == "t-1"
        clock.now_s += 60
    assert giver.asked == 30
    clock.now_s += 60
    with pytest.raises(TryAgainError, match="busy"):
        await token.get()


async def test_others_go_on_while_one_renews(token: TenantToken, giver: Giver, clock: Clock) -> None:
    """A token endpoint that hangs holds up one caller; the others use what there is."""
    await token.get()
    clock.now_s += 5401
    giver.gate.clear()
    first = asyncio.create_task(token.get())
    await asyncio.sleep(0)
    async with asyncio.timeout(1):
        assert await token.get() == "t-1"
    giver.gate.set()
    assert (await first, giver.asked) == ("t-2", 2)


async def test_a_caller_who_is_cancelled_leaves_the_others_theirs(token: TenantToken, giver: Giver) -> None:
    """The next one asks in its place."""
    giver.gate.clear()
    first = asyncio.create_task(token.get())
    second = asyncio.create_task(token.get())
    await asyncio.sleep(0)
    first.cancel()
    giver.gate.set()
    assert await second == "t-1"


async def test_a_refused_one_is_asked_for_anew(token: TenantToken, giver: Giver) -> None:
    """What the platform refuses is forgotten at once; a late refusal of an older one changes nothing."""
    await token.get()
    token.refused("t-0")
    assert (await token.get(), giver.asked) == ("t-1", 1)
    token.refused("t-1")
    giver.ends_s = 0
    assert (await token.get(), giver.asked) == ("t-2", 2)
