"""What the events of a batch come to that go to a broker side by side."""

from __future__ import annotations

import asyncio

import pytest

from reserve_listener.errors import PartlyDeliveredError, PermanentDeliveryError, TransientDeliveryError
from reserve_listener.sinks.brokers import together


async def test_each_has_an_outcome_and_nothing_goes_on() -> None:
    """Delivered, refused, cancelled by the client, too late: what is too late is cancelled, and has ended."""
    ended: list[str] = []

    async def refused() -> None:
        raise ValueError("no")

    async def cancelled_by_the_client() -> None:
        raise asyncio.CancelledError

    async def late() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            await asyncio.sleep(0)
            ended.append("late")

    calls = (asyncio.sleep(0), refused(), cancelled_by_the_client(), late())
    outcomes = await together.outcomes(calls, 0.01)
    kinds = [type(None), ValueError, asyncio.CancelledError, TimeoutError]
    assert [type(outcome) for outcome in outcomes] == kinds
    assert ended == ["late"]


async def test_who_waits_can_be_cancelled() -> None:
    """And the calls with him: none is left behind."""
    ended: list[int] = []

    async def call(number: int) -> None:
        try:
            await asyncio.Event().wait()
        finally:
            ended.append(number)

    waiting = asyncio.create_task(together.outcomes(map(call, range(3)), 60))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    assert sorted(ended) == [0, 1, 2]


def test_what_is_told_of_a_batch() -> None:
    """Nothing if all is well; one event's error as it is; else each one's."""
    refused, later = PermanentDeliveryError("no"), TransientDeliveryError("later")
    together.tell([None, None])
    with pytest.raises(PermanentDeliveryError) as alone:
        together.tell([refused])
    assert alone.value is refused
    with pytest.raises(PartlyDeliveredError, match="no") as several:
        together.tell([None, refused, later])
    assert list(several.value.errors) == [None, refused, later]


@pytest.mark.parametrize("allowed", [1, 2, 3, 4, 5, 10, 16, 63, 64, 1000])
def test_never_more_than_allowed_are_under_way(allowed: int) -> None:
    """And hardly fewer, in batches that overlap as far as there may be several."""
    size, calls = together.batch_size(allowed), together.calls(allowed)
    assert size * calls <= allowed < size * (calls + 1)
    assert calls >= min(allowed, together.CALLS)
