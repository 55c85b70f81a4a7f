"""Alerts on their way to one sink, by a clock of our own."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager, suppress
from typing import TYPE_CHECKING, Any

import msgspec
import pytest

from reserve_listener.daemon.alerts import outbox
from reserve_listener.daemon.alerts.event import delivery_of
from reserve_listener.daemon.alerts.journal import Alert
from reserve_listener.daemon.alerts.outbox import DOWN, LONGEST_MARK, MARKS, WAITING, Outbox
from reserve_listener.daemon.trial import sample_alert
from reserve_listener.errors import (
    MisconfiguredSinkError,
    PermanentDeliveryError,
    SinkGoneError,
    TransientDeliveryError,
)
from tests.helpers import NOW_MS, Clock, ScriptedSink, until

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence

    from reserve_listener.model import Delivery


def alert(
    number: int = 0, *, told_ms: int = NOW_MS, is_firing: bool = True, sink: str | None = None
) -> Alert:
    """One of many."""
    return Alert(
        alert=f"alert-{number}",
        sink=sink,
        is_firing=is_firing,
        since_ms=1,
        summary="s",
        detail="d",
        told_ms=told_ms,
    )


class World:
    """An outbox with its sink; time passes when the outbox sleeps."""

    def __init__(self) -> None:
        self.clock = Clock()
        self.sink = ScriptedSink("ops", script=self._script)
        self.errors: list[Exception] = []
        self.is_there = True
        self.slept: list[float] = []
        self.told: list[Alert] = []
        self.given: list[tuple[str, ...]] = []
        """The marks that came back with each alert."""
        self.marks: list[str] = []
        """Those that the sink gives for the next."""
        self.outbox = Outbox(
            "ops",
            lambda: self._tell if self.is_there else None,
            app_id="cli_a",
            told=lambda _name, one: self.told.append(one),
            now_ms=self.clock,
            sleep=self._sleep,
            jitter=lambda: 1.0,
        )

    async def _tell(self, alert: Delivery, marks: Sequence[str], /, *, timeout_s: float) -> Sequence[str]:
        async with asyncio.timeout(timeout_s):
            await self.sink.deliver([alert])
        self.given.append(tuple(marks))
        return [*marks, *self.marks]

    async def _script(self, _deliveries: Sequence[Delivery]) -> None:
        if self.errors:
            raise self.errors.pop(0)

    async def _sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.clock.advance(seconds)
        await asyncio.sleep(0)

    @property
    def sent(self) -> list[str]:
        """The ids of all attempts."""
        return [one for attempt in self.sink.attempts for one in attempt]


@asynccontextmanager
async def running(world: World) -> AsyncIterator[World]:
    """The outbox at work."""
    task = asyncio.create_task(world.outbox.run())
    try:
        yield world
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task


def ids(*alerts: Alert) -> list[str]:
    """Their events' ids."""
    return [delivery_of(one, "cli_a").event_id for one in alerts]


def test_a_sink_that_carries_what_the_platform_sent_carries_the_alert() -> None:
    """A plugin's sink with `needs_raw` reads `raw`, which is never absent for it: there it is the alert itself."""
    for delivery in (delivery_of(alert(), "cli_a"), sample_alert("cli_a", NOW_MS)):
        assert delivery.raw == delivery.body
        assert msgspec.json.decode(delivery.body)["type"] == "reserve_listener.alert.v1"


async def test_in_order_and_each_until_it_has_arrived() -> None:
    """What fails is tried again, with growing delays, before the next one; the event stays the same."""
    first, second = alert(1), alert(2)
    async with running(World()) as world:
        world.errors = [TransientDeliveryError("HTTP 503")] * 8
        world.outbox.put(first)
        world.outbox.put(second)
        await until(lambda: len(world.told) == 2)
        assert world.sent == ids(first) * 9 + ids(second)
        assert world.slept == [2, 4, 8, 16, 32, 60, 60, 60]
        assert world.told == [first, second]


async def test_a_sink_says_how_it_does_by_the_alerts_it_carries() -> None:
    """Down after three failures in a row, since the first of them, with the last error; well with the first success."""
    async with running(World()) as world:
        seen = []
        world.sink.script = None

        async def script(deliveries: Sequence[Delivery]) -> None:
            seen.append(world.outbox.state)
            if len(seen) <= DOWN:
                raise TransientDeliveryError(f"HTTP 50{len(seen)}")

        world.sink.script = script
        world.outbox.put(alert())
        await until(lambda: world.told)
        assert [one.state for one in seen] == ["ok", "ok", "ok", "down"]
        assert (seen[-1].error, seen[-1].since_ms) == ("HTTP 503", NOW_MS)
        assert (world.outbox.state.state, world.outbox.state.is_proven) == ("ok", True)


@pytest.mark.parametrize("error", [PermanentDeliveryError("HTTP 400"), SinkGoneError("HTTP 410")])
async def test_what_is_refused_for_good_is_dropped_and_said(error: Exception) -> None:
    """The next alert is not held up, and the sink counts as down: it takes no alerts."""
    async with running(World()) as world:
        world.errors = [error]
        world.outbox.put(alert(1))
        await until(lambda: world.told)
        assert world.outbox.state.state == "down"
        world.outbox.put(alert(2))
        await until(lambda: len(world.told) == 2)
        assert (world.sent, world.slept) == (ids(alert(1), alert(2)), [])
        assert world.outbox.state.state == "ok"


async def test_any_error_is_survived() -> None:
    """A plugin may raise anything; one that is set up wrongly is down at once."""
    async with running(World()) as world:
        errors, seen = [ZeroDivisionError(), MisconfiguredSinkError("HTTP 401")], []

        async def script(_: Sequence[Delivery]) -> None:
            seen.append(world.outbox.state.state)
            if errors:
                raise errors.pop(0)

        world.sink.script = script
        world.outbox.put(alert())
        await until(lambda: world.told)
        assert seen == ["ok", "ok", "down"]


async def test_a_sink_that_hangs_is_given_up_in_time() -> None:
    """The attempt has an end although the sink has none."""
    world = World()
    world.outbox._attempt_s = 0.01

    async def hang(_: Sequence[Delivery]) -> None:
        await asyncio.Event().wait()

    world.sink.script = hang
    async with running(world):
        world.outbox.put(alert())
        await until(lambda: world.outbox.state.state == "down")
        assert world.outbox.state.error == "no answer within 0.01 s"


async def test_an_alert_of_yesterday_is_given_up() -> None:
    """Whether the sink is down or just not there; the log says so."""
    async with running(World()) as world:
        world.is_there = False
        world.outbox.put(alert(1))
        await until(lambda: world.told)
        assert not world.sent
        assert world.clock() > NOW_MS + outbox.GIVEN_UP_MS
        world.is_there = True
        world.errors = [TransientDeliveryError("HTTP 503")] * 5000
        world.outbox.put(alert(2, told_ms=world.clock()))
        await until(lambda: len(world.told) == 2)
        assert max(world.slept) <= 60


async def test_what_waits_is_bounded_and_of_a_repeat_only_the_last_is_kept() -> None:
    """In favour of what is new; what began and ended meanwhile is told as both."""
    world = World()
    began, ended = alert(0), alert(0, is_firing=False)
    for told_ms in range(3):
        world.outbox.put(msgspec.structs.replace(began, told_ms=NOW_MS + told_ms))
    world.outbox.put(ended)
    assert [one.state for one in world.outbox._waiting] == ["firing", "resolved"]
    assert world.outbox._waiting[0].told_ms == NOW_MS + 2
    for number in range(1, WAITING + 1):
        world.outbox.put(alert(number))
    assert len(world.outbox._waiting) == WAITING
    assert world.outbox._waiting[0].alert == "alert-1"
    assert len(world.told) == 2


async def test_what_a_sink_gives_for_an_alert_comes_back_until_its_end() -> None:
    """Of this alert alone, and no more of it than there is room for."""
    many = [f"om_{number}" for number in range(2 * MARKS)]
    telling: tuple[tuple[Alert, list[str], tuple[str, ...]], ...] = (
        (alert(told_ms=NOW_MS + 1), ["om_1", "x" * (LONGEST_MARK + 1)], ()),
        (alert(1), many, ()),
        (alert(told_ms=NOW_MS + 2), ["om_2"], ("om_1",)),
        (alert(told_ms=NOW_MS + 3, is_firing=False), [], ("om_1", "om_2")),
        (alert(told_ms=NOW_MS + 4), [], ()),
        (alert(1, told_ms=NOW_MS + 5), [], tuple(many[-MARKS:])),
    )
    async with running(World()) as world:
        for one, world.marks, _ in telling:
            world.outbox.put(one)
            await until(lambda: not world.outbox.is_waiting)
    assert world.given == [expected for *_, expected in telling]


def test_the_event() -> None:
    """A CloudEvent of the contract's shape; source and subject together name the alert."""
    event: dict[str, Any] = msgspec.json.decode(delivery_of(alert(sink="a", told_ms=1), "cli_a").body)
    assert event == {
        "specversion": "1.0",
        "id": ids(alert(sink="a", told_ms=1))[0],
        "source": "/apps/cli_a/sinks/a",
        "type": "reserve_listener.alert.v1",
        "subject": "alert-0",
        "time": "1970-01-01T00:00:00.001Z",
        "datacontenttype": "application/json",
        "data": {
            "alert": "alert-0",
            "state": "firing",
            "since": "1970-01-01T00:00:00.001Z",
            "summary": "s",
            "detail": "d",
        },
    }
    assert len({*ids(alert(), alert(1), alert(sink="a"), alert(is_firing=False), alert(told_ms=5))}) == 5
