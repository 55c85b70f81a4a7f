"""The promises of every sink (`protocols.Sink`) as tests, for authors of sinks to run: see docs/plugins.md.

    class TestMySink(SinkContract):
        @asynccontextmanager
        async def world(self):
            async with my_receiver() as receiver:
                yield SinkWorld(make=lambda: MySink(...), delivered=receiver.ids, refuse=receiver.refuse)

Needs only pytest. Each test has a world of its own; the sooner a sink gives up, the faster they are.
"""

from __future__ import annotations

import asyncio
import json
import traceback
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import pytest

from reserve_listener.errors import DeliveryError
from reserve_listener.model import EVENT_TYPE, Delivery

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Collection, Coroutine, Sequence
    from contextlib import AbstractAsyncContextManager

    from reserve_listener.protocols import Sink

DELIVER_WITHIN_S: Final = 60.0
"""The daemon itself sets no deadline for a delivery: a sink that never gives up delays its events for ever."""
CLOSE_WITHIN_S: Final = 6.0
"""How long the daemon waits for a sink to close, at a reload and at its stop."""
LONGEST_ERROR: Final = 2000
MOMENTS: Final = 25
"""An attempt is cancelled after each number of turns of the loop up to this one."""


@dataclass(frozen=True, kw_only=True)
class SinkWorld:
    """A receiver, and how to make a sink that delivers to it."""

    make: Callable[[], Sink]
    """A new sink, made as the daemon makes it."""
    delivered: Callable[[], Sequence[str]]
    """The ids of the events that have arrived so far, in order, including repeats."""
    refuse: Callable[[], None] | None = None
    """From now on nothing can be delivered. The more the receiver's answer quotes, even secrets, the better the test."""
    hang: Callable[[], None] | None = None
    """From now on the receiver accepts requests but never answers. For sinks that wait for an answer."""
    secrets: Collection[str] = ()
    """Texts that no error may contain."""


def sample_deliveries(count: int, *, needs_raw: bool = False, first: int = 1) -> list[Delivery]:
    """Events of as many rooms, as the daemon hands them to a sink."""
    return [_delivery(number, needs_raw=needs_raw) for number in range(first, first + count)]


def _delivery(number: int, *, needs_raw: bool) -> Delivery:
    event_id, room = f"event-{number:04}", f"omm_{number:032x}"
    data = {"scope_id": room, "scope_type": 2, "time_config": {"time_switch": 1, "days_in_advance": 30}}
    event = {
        "specversion": "1.0",
        "id": event_id,
        "source": "https://open.feishu.cn/tenants/70f0c2a95b3d4e18",
        "type": EVENT_TYPE,
        "subject": room,
        "time": "2026-10-01T08:00:00.000Z",
        "datacontenttype": "application/json",
        "data": {**data, "scope_type": "room", "scope_name": "会议室 “A”"},
    }
    header = {
        "event_id": event_id,
        "event_type": EVENT_TYPE,
        "create_time": "1790000000000",
        "app_id": "cli_a",
    }
    push = {"schema": "2.0", "header": {**header, "tenant_key": "70f0c2a95b3d4e18"}, "event": data}
    return Delivery(
        seq=number,
        event_id=event_id,
        scope=number,
        attempts=0,
        received_ms=1_790_000_000_000 + number,
        body=_json(event),
        raw=_json(push) if needs_raw else None,
    )


def _json(value: Any) -> bytes:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode()


class SinkContract:
    """Inherit in a class of tests, and give it a `world`."""

    def world(self) -> AbstractAsyncContextManager[SinkWorld]:
        """A receiver that accepts everything, and how to make a sink for it; a new one for each test."""
        raise NotImplementedError

    def test_what_the_daemon_asks_of_it(self) -> None:
        """Name and limits exist, have the right type, and are the same for two sinks made alike."""

        async def look(world: SinkWorld, sink: Sink) -> None:
            other = world.make()
            for name, kind in (
                ("name", str),
                ("batch_size", int),
                ("max_in_flight", int),
                ("needs_raw", bool),
            ):
                assert type(getattr(sink, name)) is kind, f"{name} must be {kind.__name__}"
                assert getattr(other, name) == getattr(sink, name)
            assert sink.name
            assert min(sink.batch_size, sink.max_in_flight) >= 1
            await other.close()

        self._run(look)

    def test_it_delivers_in_the_order_given(self) -> None:
        """Batches arrive in order, and each has arrived when `deliver` returns."""

        async def deliver(world: SinkWorld, sink: Sink) -> None:
            size, first = min(sink.batch_size, 5), 1
            for _ in range(4):
                await _within(sink.deliver(_samples(sink, size, first=first)))
                first += size
                assert list(world.delivered()) == [f"event-{number:04}" for number in range(1, first)]

        self._run(deliver)

    def test_it_delivers_again(self) -> None:
        """An event that was delivered without the daemon's knowledge is accepted once more."""

        async def twice(world: SinkWorld, sink: Sink) -> None:
            for _ in range(2):
                await _within(sink.deliver(_samples(sink, 1)))
            assert set(world.delivered()) == {"event-0001"}

        self._run(twice)

    def test_as_many_at_once_as_it_allows(self) -> None:
        """`max_in_flight` deliveries of different rooms go side by side, and all arrive."""

        async def side_by_side(world: SinkWorld, sink: Sink) -> None:
            deliveries = _samples(sink, min(sink.max_in_flight, 8))
            await asyncio.gather(*(_within(sink.deliver([one])) for one in deliveries))
            assert sorted(world.delivered()) == [one.event_id for one in deliveries]

        self._run(side_by_side)

    def test_a_failure_is_a_delivery_error_without_secrets(self) -> None:
        """A failure is a `DeliveryError`: text on one line, and no secret in it, its repr, its causes or the sink's repr."""

        async def refused(world: SinkWorld, sink: Sink) -> None:
            _need(world.refuse, "refuse")()
            for _ in range(2):  # a failure leaves nothing behind that changes the next
                error = await _failure(sink)
                text = str(error)
                assert text, "the error says nothing"
                assert text.isprintable(), f"more than one line of plain text: {text!r}"
                assert len(text) <= LONGEST_ERROR
                told = f"{text} {error!r} {''.join(traceback.format_exception(error))} {sink!r}"
                assert not any(secret in told for secret in world.secrets), "a secret shows"

        self._run(refused)

    def test_it_gives_up_in_time(self) -> None:
        """A receiver that never answers is a failure like any other, and the attempt can be cancelled meanwhile."""

        async def hanging(world: SinkWorld, sink: Sink) -> None:
            _need(world.hang, "hang")()
            await _failure(sink)
            waiting = asyncio.create_task(sink.deliver(_samples(sink, 1)))
            await asyncio.sleep(0.05)  # so that it has begun; nothing depends on how far it came
            waiting.cancel()
            await asyncio.wait([waiting], timeout=CLOSE_WITHIN_S)
            assert waiting.done(), "a cancelled delivery goes on"
            assert waiting.cancelled() or isinstance(waiting.exception(), DeliveryError)

        self._run(hanging)

    def test_it_can_be_cancelled_at_any_moment(self) -> None:
        """After a cancellation at any turn of the loop, the next delivery works, and nothing arrives that was not sent."""

        async def cancelled(world: SinkWorld, sink: Sink) -> None:
            sent = []
            for turns in range(MOMENTS):
                (delivery,) = _samples(sink, 1, first=turns + 1)
                sent.append(delivery.event_id)
                attempt = asyncio.create_task(sink.deliver([delivery]))
                for _ in range(turns):
                    await asyncio.sleep(0)
                attempt.cancel()
                (outcome,) = await asyncio.gather(attempt, return_exceptions=True)
                assert outcome is None or isinstance(outcome, asyncio.CancelledError), outcome
            (last,) = _samples(sink, 1, first=MOMENTS + 1)
            await _within(sink.deliver([last]))
            assert last.event_id in world.delivered()
            assert {*world.delivered()} <= {*sent, last.event_id}

        self._run(cancelled)

    def test_it_can_be_closed_twice(self) -> None:
        """Closing works and raises nothing, used or unused, after a failure or not, once or twice."""

        async def closed(world: SinkWorld, sink: Sink) -> None:
            unused = world.make()
            await _close(unused)
            await _close(unused)
            await _within(sink.deliver(_samples(sink, 1)))
            if world.refuse is not None:
                world.refuse()
                await _failure(sink)
            await _close(sink)

        self._run(closed)

    def _run(self, test: Callable[[SinkWorld, Sink], Coroutine[Any, Any, None]]) -> None:
        """In a loop and a world of its own; the sink is closed whatever happens."""

        async def run() -> None:
            async with self.world() as world:
                sink = world.make()
                try:
                    await test(world, sink)
                finally:
                    await _close(sink)

        asyncio.run(run())


def _samples(sink: Sink, count: int, *, first: int = 1) -> list[Delivery]:
    return sample_deliveries(count, needs_raw=sink.needs_raw, first=first)


async def _failure(sink: Sink) -> DeliveryError:
    """The error of an attempt that cannot succeed."""
    try:
        await _within(sink.deliver(_samples(sink, 1)))
    except DeliveryError as error:
        return error
    pytest.fail("nothing can be delivered, and the sink says that it was")


async def _within(delivering: Awaitable[None]) -> None:
    try:
        async with asyncio.timeout(DELIVER_WITHIN_S) as limit:
            await delivering
    except TimeoutError:
        if limit.expired():
            pytest.fail(f"not delivered, and not given up, within {DELIVER_WITHIN_S:g} s")
        raise


async def _close(sink: Sink) -> None:
    closing = asyncio.ensure_future(sink.close())
    await asyncio.wait([closing], timeout=CLOSE_WITHIN_S)
    assert closing.done(), f"not closed within {CLOSE_WITHIN_S:g} s"
    closing.result()


def _need(way: Callable[[], None] | None, name: str) -> Callable[[], None]:
    if way is None:
        pytest.skip(f"the world has no `{name}`")
    return way
