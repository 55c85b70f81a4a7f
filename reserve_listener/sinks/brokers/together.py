"""Events that go to a broker side by side: a task, a time limit and a connection for each would cost more than the event.

What must stay true: each event of a batch has an outcome of its own. One that is refused, or not answered in time, says nothing
of the others.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final, Generic, TypeVar

from reserve_listener.errors import DeliveryError, PartlyDeliveredError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Iterable, Sequence

Outcome = TypeVar("Outcome")

CALLS: Final = 4
"""So many batches are under way at once: while one is confirmed, others are on their way."""


def batch_size(max_in_flight: int) -> int:
    """How many events a batch has at the most, if so many may be under way in all."""
    return max(1, max_in_flight // CALLS)


def calls(max_in_flight: int) -> int:
    """How many batches may be under way."""
    return max_in_flight // batch_size(max_in_flight)


class Batch(Generic[Outcome]):
    """Events whose answers come to somebody else, who calls `end` on the loop.

    `outcomes`: for each None, it is delivered, or what went wrong; a `TimeoutError` while no answer came.
    """

    def __init__(self, size: int) -> None:
        self.outcomes: list[Outcome | TimeoutError | None] = [TimeoutError()] * size
        self._ended = asyncio.get_running_loop().create_future()
        self._left = size

    def end(self, number: int, outcome: Outcome | None) -> None:
        """One of them is through, once."""
        self.outcomes[number] = outcome
        self._left -= 1
        if not self._left and not self._ended.done():
            self._ended.set_result(None)

    async def ended(self) -> None:
        """Until all of them are."""
        await self._ended


async def outcomes(awaitables: Iterable[Awaitable[object]], timeout_s: float) -> list[BaseException | None]:
    """What each came to: None, what it raised, `TimeoutError` if it has not ended in time. All have ended on return.

    A client cancels what waits when its connection breaks: that is an outcome, too. Only who waits here can be cancelled.
    """
    futures = [asyncio.ensure_future(one) for one in awaitables]
    try:
        _, late = await asyncio.wait(futures, timeout=timeout_s)
    except asyncio.CancelledError:
        await _cancel(futures)
        raise
    await _cancel(late)
    return [TimeoutError() if future in late else _error(future) for future in futures]


async def _cancel(futures: Iterable[asyncio.Future[object]]) -> None:
    for future in futures:
        future.cancel()
    await asyncio.gather(*futures, return_exceptions=True)


def _error(future: asyncio.Future[object]) -> BaseException | None:
    return asyncio.CancelledError() if future.cancelled() else future.exception()


def tell(errors: Sequence[DeliveryError | None]) -> None:
    """Raise what a batch came to, if not all of it was delivered."""
    if not any(errors):
        return
    if len(errors) == 1 and errors[0] is not None:
        raise errors[0]
    raise PartlyDeliveredError(errors)
