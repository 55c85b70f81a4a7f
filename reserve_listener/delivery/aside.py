"""Deliveries that bypass the store (alerts and tests). They share the worker's places for attempts.

What must stay true: a sink never has more than `max_in_flight` calls at once, these included. They go first: while one
is waiting, the worker starts nothing and does not ask the store.
"""

from __future__ import annotations

import asyncio
from functools import partial
from typing import TYPE_CHECKING, Final, TypeVar

from reserve_listener.errors import TransientDeliveryError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from reserve_listener.model import Delivery
    from reserve_listener.protocols import Sink

Result = TypeVar("Result")

PLACE_S: Final = 600.0
"""How long to wait for a place: twenty times what a sink usually gets for one event (`timeout`, by default at most 30 s)."""


class Aside:
    """Such calls to one sink.

    `taken`: how many attempts its worker has under way; `leaving`: whether the sink is about to be closed; `took`: called
    after each call that the sink accepted; `done`: after each call.
    """

    def __init__(
        self,
        sink: Sink,
        *,
        taken: Callable[[], int],
        leaving: Callable[[], bool],
        took: Callable[[], None],
        done: Callable[[], None],
    ) -> None:
        self._sink = sink
        self._taken = taken
        self._leaving = leaving
        self._took = took
        self._done = done
        self._freed = asyncio.Event()
        self.asked = 0
        """How many are under way or waiting for a place."""
        self.under_way = 0

    async def deliver(self, deliveries: Sequence[Delivery], *, timeout_s: float | None = None) -> None:
        """Hand these to the sink. Raises what the sink raises, and `TimeoutError` once the call has taken `timeout_s`."""
        await self._in_a_place(partial(self._sink.deliver, deliveries), timeout_s)

    async def tell(
        self, alert: Delivery, marks: Sequence[str], *, timeout_s: float | None = None
    ) -> Sequence[str]:
        """The same for an alert, with the marks that the sink returned for it before; returns its new ones. See `protocols.Sink`."""
        if (tell := getattr(self._sink, "tell_alert", None)) is None:
            await self.deliver([alert], timeout_s=timeout_s)
            return ()
        given: Sequence[str] = await self._in_a_place(partial(tell, alert, marks), timeout_s)
        return given

    async def _in_a_place(self, call: Callable[[], Awaitable[Result]], timeout_s: float | None) -> Result:
        self.asked += 1
        try:
            await self._place()
            self.under_way += 1
            try:
                async with asyncio.timeout(timeout_s):
                    result = await call()
                self._took()
                return result
            finally:
                self.under_way -= 1
        finally:
            self.asked -= 1
            self._freed.set()
            self._done()

    def freed(self) -> None:
        """An attempt of the worker has ended."""
        self._freed.set()

    async def _place(self) -> None:
        try:
            async with asyncio.timeout(PLACE_S):
                while self._taken() + self.under_way >= self._sink.max_in_flight:
                    self._freed.clear()
                    await self._freed.wait()
        except TimeoutError:
            raise TransientDeliveryError(f"busy with other events for more than {PLACE_S:g} s") from None
        if self._leaving():
            raise TransientDeliveryError("the sink is being replaced or stopped", down=False)
