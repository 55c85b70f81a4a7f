"""What goes to a sink past the store: in the places of the worker's attempts, and before them."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest

from reserve_listener.delivery import Worker, aside
from reserve_listener.delivery.breaker import THRESHOLD
from reserve_listener.delivery.retry import RetryPolicy
from reserve_listener.errors import DeliveryError, MisconfiguredSinkError, TransientDeliveryError
from reserve_listener.model import Delivery
from tests.delivery.test_worker import asleep, working
from tests.helpers import ScriptedSink, append, event, until

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from reserve_listener.protocols.store import Store
    from tests.backends import Backend

ALERT = Delivery(seq=0, event_id="alert", scope=0, attempts=0, received_ms=1, body=b"{}")


class Gate(ScriptedSink):
    """A sink whose calls stay open, one after the other, until they are let go."""

    def __init__(self, max_in_flight: int = 1) -> None:
        super().__init__(max_in_flight=max_in_flight, script=self._wait)
        self.open: dict[str, asyncio.Event] = {}

    async def _wait(self, deliveries: Any) -> None:
        await self.open.setdefault(deliveries[0].event_id, asyncio.Event()).wait()

    @property
    def begun(self) -> list[str]:
        """The events that were handed to it, in order."""
        return [event_id for ids in self.attempts for event_id in ids]

    def let_go(self, event_id: str) -> None:
        """This one has arrived."""
        self.open.setdefault(event_id, asyncio.Event()).set()


@pytest.fixture
async def store(backend: Backend) -> AsyncIterator[Store]:
    store = await backend.open("scripted")
    yield store
    await store.close()


async def test_an_alert_takes_the_next_place_and_no_more_than_there_are(store: Store) -> None:
    """The sink takes one call at a time and two events wait: the alert comes between them, and never beside one."""
    for name in ("one", "two"):
        await append(store, event(name, f"omm_{name}"))
    sink = Gate()
    worker = Worker(sink, store, policy=RetryPolicy())
    async with working(worker):
        await until(lambda: sink.begun == ["one"])
        alerting = asyncio.create_task(worker.aside.deliver([ALERT]))
        await until(lambda: worker.aside.asked == 1)
        sink.let_go("one")
        await until(lambda: sink.begun == ["one", "alert"])
        sink.let_go("alert")
        await alerting
        await until(lambda: sink.begun == ["one", "alert", "two"])
        sink.let_go("two")
        worker.drain()
        await until(lambda: sink.ids == ["one", "alert", "two"])
    assert sink.most_at_once == 1


async def test_several_at_once_share_the_places(store: Store) -> None:
    """Two of three go at the same time, the third when one of them is done."""
    sink = Gate(max_in_flight=2)
    worker = Worker(sink, store, policy=RetryPolicy())
    async with working(worker):
        calls = [asyncio.create_task(worker.aside.deliver([ALERT])) for _ in range(3)]
        await until(lambda: len(sink.begun) == 2)
        sink.let_go("alert")
        await asyncio.gather(*calls)
    assert (len(sink.begun), sink.most_at_once, worker.aside.asked) == (3, 2, 0)


async def test_a_sink_is_not_closed_beneath_an_alert(store: Store) -> None:
    """A worker that is to end waits for the call that is under way, and refuses the one that waited for a place."""
    sink = Gate()
    worker = Worker(sink, store, policy=RetryPolicy())
    async with working(worker) as task:
        alerting = asyncio.create_task(worker.aside.deliver([ALERT]))
        await until(lambda: sink.begun == ["alert"])
        late = asyncio.create_task(worker.aside.deliver([ALERT]))
        await until(lambda: worker.aside.asked == 2)
        worker.halt()
        await until(lambda: not worker._wake.is_set())
        assert not task.done()
        sink.let_go("alert")
        await alerting
        with pytest.raises(TransientDeliveryError, match="replaced"):
            await late
        await task
    assert sink.begun == ["alert"]


async def test_waiting_for_a_place_and_the_call_itself_have_an_end(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first says that the sink is busy; what is given up takes no place."""
    monkeypatch.setattr(aside, "PLACE_S", 0.01)
    sink = Gate()
    worker = Worker(sink, store, policy=RetryPolicy())
    async with working(worker):
        with pytest.raises(TimeoutError):
            await worker.aside.deliver([ALERT], timeout_s=0.01)
        alerting = asyncio.create_task(worker.aside.deliver([ALERT]))
        await until(lambda: len(sink.begun) == 2)
        with pytest.raises(TransientDeliveryError, match="busy"):
            await worker.aside.deliver([ALERT])
        sink.let_go("alert")
        await alerting
    assert (worker.aside.asked, worker.aside.under_way) == (0, 0)


@pytest.mark.parametrize(
    ("error", "tried"), [(MisconfiguredSinkError, 9), (TransientDeliveryError, THRESHOLD)]
)
async def test_a_test_that_gets_through_makes_all_due(
    store: Store, error: type[DeliveryError], tried: int
) -> None:
    """Whoever has mended a sink and tried it need not wait for its next attempt, be it misconfigured or down."""
    is_mended = False

    async def refuse(_: object) -> None:
        if not is_mended:
            raise error("no such key")

    for number in range(9):
        await append(store, event(f"e{number}", f"omm_{number}"))
    sink = ScriptedSink(script=refuse)
    worker = Worker(sink, store, policy=RetryPolicy(base_s=600, max_age_s=1e9))
    async with working(worker):
        await asleep(worker, lambda: len(sink.attempts) == tried)
        is_mended = True
        await worker.aside.deliver([ALERT])
        await until(lambda: len(sink.ids) == 10)
        worker.drain()
