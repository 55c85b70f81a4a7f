"""The daemon's look at itself, over parts that can be broken at will."""

from __future__ import annotations

import asyncio
import json
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import msgspec

from reserve_listener.clock import now_ms, rfc3339
from reserve_listener.config import AlertsConfig
from reserve_listener.daemon.alerts import outbox, watch
from reserve_listener.daemon.alerts.watch import Alerts
from reserve_listener.delivery import SinkSpec, Workers
from reserve_listener.delivery.retry import RetryPolicy
from reserve_listener.errors import StoreError
from reserve_listener.model import Delivery, Insight, SinkState, State
from tests.helpers import Clock, ScriptedSink, until

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Sequence

    import pytest


SECRET = "s3cr3t-of-the-store"


class FakeStore:
    """A store that is as it is told to be. The real ones are behind tests/daemon/test_alerts.py."""

    def __init__(self) -> None:
        self.max_bytes: int | None = None
        self.problem: str | None = None
        self.full = False
        self.failed_commits = 0
        self.stuck_s = 0.0
        self.size_bytes = 0
        self.answer: Insight | None = Insight()
        """None: it hangs."""
        self.asked = 0
        self.kept: bytes | None = None
        self.keeps: bool | None = True
        """None: it hangs."""
        self.now_ms = now_ms
        self.told: Callable[[], bytes | None] = lambda: None
        self.replica: str | None = None
        self.is_cut_off = False
        self.leads = True

    def tells_alerts(self) -> bool:
        """See `watch.WatchedStore`."""
        return self.leads

    async def insight(self, app_id: str, *, gaps_since_ms: int) -> Insight:
        """See `watch.WatchedStore`."""
        self.asked += 1
        if self.answer is None:
            await asyncio.Event().wait()
        assert self.answer is not None
        return self.answer

    @property
    def name(self) -> str:
        """See `protocols.store.StoreHealth`."""
        return "a store"

    async def sinks(self) -> list[SinkState]:
        """See `protocols.store.StoreHealth`."""
        return []

    async def backlog(self) -> dict[str, int]:
        """See `protocols.store.StoreHealth`."""
        return {}

    async def remembered_alerts(self) -> bytes | None:
        """See `watch.WatchedStore`."""
        return self.kept

    async def remember_alerts(self, content: bytes) -> None:
        """See `watch.WatchedStore`."""
        if self.keeps is None:
            await asyncio.Event().wait()
        if not self.keeps:
            raise StoreError("no room")
        self.kept = content

    def holds(self, _sink: str) -> int:
        """For the workers: theirs is the only daemon."""
        return 1

    async def bring_forward(self, *_: Any, **__: Any) -> None:
        """For the workers: nothing waits."""

    async def claim(self, *_: Any, **__: Any) -> Any:
        """For the workers: nothing is ever due."""
        await asyncio.Event().wait()


class World:
    """`Alerts` over these parts."""

    def __init__(self, *sinks: ScriptedSink) -> None:
        self.clock = Clock()
        self.store = FakeStore()
        self.state = State("connected", 0.0)
        self.silent_since_ms = self.clock()
        self.sinks = {name: ScriptedSink(name) for name in ("ops", "pager")} | {
            sink.name: sink for sink in sinks
        }
        self.workers = Workers(self.store)  # type: ignore[arg-type]  # nothing is ever claimed
        self.workers.start([SinkSpec(sink=sink, policy=RetryPolicy()) for sink in self.sinks.values()])
        self.settings = AlertsConfig(sinks=("ops", "pager"))
        self.alerts = self.make()

    def make(self) -> Alerts:
        """Those of the next life."""
        return Alerts(
            app_id="cli_a",
            language="en",
            store=self.store,
            state=lambda: self.state,
            connection=self,
            workers=self.workers,
            settings=self.settings,
            reconciles=lambda: True,
            page="https://rooms.example",
            redact=lambda text: text.replace(SECRET, "***"),
            now_ms=self.clock,
        )

    def connection(self) -> str:
        """See `watch.Connection`."""
        return self.state.name

    async def tick(self, seconds: float = 5) -> None:
        """So much later it looks."""
        self.clock.advance(seconds)
        await self.alerts.tick()

    def told(self, sink: str = "ops") -> list[str]:
        """How many times each, by what has come to a sink."""
        return self.sinks[sink].ids

    async def fill_up(self) -> None:
        """The disk is full, and it is told."""
        self.store.failed_commits, self.store.problem = 2, "disk full"
        await self.tick()


@asynccontextmanager
async def living(*sinks: ScriptedSink) -> AsyncIterator[World]:
    """A world with `Alerts` that have begun, with these sinks in the place of the usual ones."""
    world = World(*sinks)
    await world.alerts.begin()
    try:
        yield world
    finally:
        await world.alerts.close()
        await world.workers.drain(0, asyncio.Event())


async def test_all_alert_sinks_are_told_and_status_too() -> None:
    """With a link to the page; a second look changes nothing."""
    async with living() as world:
        await world.fill_up()
        await world.tick()
        await until(lambda: len(world.told("ops")) == len(world.told("pager")) == 1)
        (firing,) = world.alerts.firing()
        assert firing.alert == "commit_failing"
        assert firing.detail.splitlines()[1:] == ["See https://rooms.example"]
        assert world.told("ops") == world.told("pager")


async def test_commits_fail_since_the_first_failure() -> None:
    """One failure is none yet; the second says when it began."""
    async with living() as world:
        world.store.failed_commits = 1
        await world.tick()
        began_ms = world.clock()
        world.store.failed_commits, world.store.problem = 2, "disk full"
        await world.tick(20)
        (firing,) = world.alerts.firing()
        assert firing.since == rfc3339(began_ms)
        world.store.failed_commits, world.store.problem = 0, None
        await world.tick()
        world.store.failed_commits = 2
        await world.tick(3600)
        assert [one.since for one in world.alerts.firing()] == [rfc3339(world.clock())]


async def test_what_fires_is_shown_as_it_is_now_and_leads_to_where_it_is_told() -> None:
    """Others are told again after `repeat` only; dead letters and sinks have a page of their own."""
    async with living() as world:

        def dead(count: int) -> Insight:
            return Insight(
                sinks=[
                    SinkState(
                        name="ops",
                        configured=True,
                        pending=0,
                        dead=count,
                        disabled_ms=None,
                        disabled_reason=None,
                    )
                ]
            )

        world.store.answer = dead(1)
        await world.tick()
        world.store.answer = dead(4)
        await world.tick()
        (firing,) = world.alerts.firing()
        assert firing.summary == "Deliveries that were given up: 4."
        assert "ops 4" in firing.detail
        assert firing.detail.splitlines()[-1] == "See https://rooms.example/deliveries"
        await until(lambda: len(world.told()) == 1)


async def test_a_second_gap_is_in_the_alert_that_fires() -> None:
    """It begins once; who looks, and who is told again, hears of both."""
    async with living() as world:
        hour_ms, now_ms = 3_600_000, world.clock()
        first = (now_ms - 9 * hour_ms, now_ms, None, None)
        world.store.answer = Insight(gaps=[first])
        await world.tick()
        second = (now_ms + hour_ms, now_ms + 10 * hour_ms, None, None)
        world.store.answer = Insight(gaps=[first, second])
        await world.tick(600)
        (firing,) = world.alerts.firing()
        assert firing.since == rfc3339(first[1])
        for gap in (first, second):
            assert f"from {rfc3339(gap[0])} to {rfc3339(gap[1])}" in firing.detail
        await until(lambda: len(world.told()) == 1)
        await world.tick(world.settings.repeat)
        await until(lambda: len(world.told()) == 2)


async def test_what_an_alert_quotes_is_one_safe_line_without_a_secret() -> None:
    """Half a surrogate pair, which JSON cannot have, ends nothing; a secret that would be cut in two is masked before."""
    async with living() as world:
        world.store.failed_commits = 2
        world.store.problem = f"\udc80\n{'x' * 280}{SECRET}"
        await world.tick()
        (firing,) = world.alerts.firing()
        assert r"\udc80\nxxx" in firing.detail
        assert SECRET[:4] not in firing.detail
        await until(lambda: len(world.told()) == 1)
        assert world.store.kept


async def test_a_store_that_hangs_keeps_nothing_from_being_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is asked once, not again and again, and what is told is sent although it cannot be remembered."""
    monkeypatch.setattr(watch, "STORE_TIMEOUT_S", 0.01)
    async with living() as world:
        world.store.answer, world.store.keeps, world.store.stuck_s = None, None, 11.0
        for _ in range(5):
            await world.tick()
        assert world.store.asked == 1
        await until(lambda: len(world.told()) == 1)
        assert [one.alert for one in world.alerts.firing()] == ["commit_failing"]


async def test_what_cannot_be_remembered_is_remembered_later() -> None:
    """As soon as the disk lets it; a new life then knows."""
    async with living() as world:
        world.store.keeps = False
        await world.fill_up()
        assert world.store.kept is None
        world.store.keeps = True
        await until(lambda: len(world.told()) == 1)
        await world.tick()
        again = world.make()
        await again.begin()
        assert again.firing() == world.alerts.firing() != []
        await again.close()


class MarkingSink(ScriptedSink):
    """Gives each alert's event id as its mark, and keeps what comes back."""

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.given: list[tuple[str, ...]] = []

    async def tell_alert(self, alert: Delivery, marks: Sequence[str]) -> Sequence[str]:
        """See `protocols.Sink`."""
        self.given.append(tuple(marks))
        await self.deliver([alert])
        return [*marks, alert.event_id]


async def test_what_a_sink_finds_an_alert_again_by_is_remembered() -> None:
    """Over a restart, until the alert has ended; a sink that gives nothing is told as ever."""
    async with living(MarkingSink("ops")) as world:
        await world.fill_up()
        await until(lambda: len(world.told()) == 1)
        await world.tick()
        await world.alerts.close()
        world.alerts = world.make()
        await world.alerts.begin()
        world.store.failed_commits, world.store.problem = 0, None
        await world.tick()
        await until(lambda: len(world.told()) == len(world.told("pager")) == 2)
        assert world.sinks["ops"].given == [(), (world.told()[0],)]  # type: ignore[attr-defined]
        await world.tick()
        assert msgspec.json.decode(world.store.kept or b"")["marks"] == []


async def test_a_memory_that_cannot_be_read_begins_anew() -> None:
    """A newer version may have written it; the daemon starts all the same."""
    async with living() as world:
        world.store.kept = b'{"alerts": [{"alert": 7}]}'
        again = world.make()
        await again.begin()
        assert again.firing() == []
        await again.close()


async def test_the_store_is_asked_the_more_seldom_the_longer_it_takes() -> None:
    """At most every five seconds; a connection that is back after a gap is a reason to ask at once."""
    async with living() as world:
        await world.tick(0)
        await world.tick(1)
        assert world.store.asked == 1
        world.alerts.wake()
        await world.tick(0)
        assert world.store.asked == 2
        await world.tick(4)
        assert world.store.asked == 2
        await world.tick(5)
        assert world.store.asked == 3


async def test_a_gap_ends_when_the_store_says_that_all_limits_were_compared() -> None:
    """Once, also if a restart lies between."""
    async with living() as world:
        from_ms, to_ms = world.clock() - 9 * 3_600_000, world.clock()
        world.store.answer = Insight(gaps=[(from_ms, to_ms, None, None)])
        await world.tick()
        assert [one.alert for one in world.alerts.firing()] == ["gap"]
        await until(lambda: len(world.told()) == 1)
        world.store.answer = Insight(gaps=[(from_ms, to_ms, 2, 0)])
        await world.tick()
        assert world.alerts.firing() == []
        await until(lambda: len(world.told()) == 2)
        again = world.make()
        await again.begin()
        await again.tick()
        assert again.firing() == []
        await again.close()


async def test_a_sink_that_carries_no_alert_is_told_to_the_others(monkeypatch: pytest.MonkeyPatch) -> None:
    """Not to itself; what it has not got is remembered."""
    monkeypatch.setattr(outbox, "POLICY", RetryPolicy(base_s=0.001, cap_s=0.002))
    async with living() as world:

        async def refuse(_: Any) -> None:
            raise ValueError("broken")

        world.sinks["pager"].script = refuse
        await world.fill_up()
        await until(lambda: world.alerts.sink_health("pager") is not None, 30)
        await world.tick()
        assert [(one.alert, one.sink) for one in world.alerts.firing()] == [
            ("commit_failing", None),
            ("sink_down", "pager"),
        ]
        await until(lambda: len(world.told()) == 2)
        assert world.alerts.sink_health("ops") is None
        waiting = msgspec.json.decode(world.store.kept or b"")["alerts"]
        assert [one["alert"] for one in waiting if "pager" in one.get("waiting", ())] == ["commit_failing"]


async def test_a_person_who_disables_a_sink_is_not_alerted() -> None:
    """A receiver that says that it is gone is: why, the store knows."""
    async with living() as world:
        worker = world.workers.worker("ops")
        assert worker is not None
        worker.disable()
        for reason, expected in ((watch.BY_HAND, []), ("HTTP 410", ["sink_down"])):
            off = SinkState(
                name="ops", configured=True, pending=0, dead=0, disabled_ms=1, disabled_reason=reason
            )
            world.store.answer = Insight(sinks=[off])
            await world.tick()
            assert [one.alert for one in world.alerts.firing()] == expected


DEAD = Insight(
    sinks=[SinkState(name="x", configured=True, pending=0, dead=3, disabled_ms=None, disabled_reason=None)]
)


async def test_a_replica_that_does_not_lead_tells_of_its_own_commits_alone() -> None:
    """Dead letters and its connection are the leader's to tell; it goes on with them when it leads, and drops them when not."""
    async with living() as world:
        world.store.replica, world.store.answer, world.store.leads = "r", DEAD, False
        world.state = State("lost", 0.0)
        await world.fill_up()
        await world.tick(3600)
        assert [one.alert for one in world.alerts.firing()] == ["commit_failing"]
        assert json.loads(world.alerts.of_itself())["silent_since_ms"] == world.silent_since_ms
        world.store.leads = True
        await world.tick()
        assert {one.alert for one in world.alerts.firing()} == {
            "commit_failing",
            "dead_letters",
            "disconnected",
        }
        await until(lambda: len(world.told()) == 3)
        world.store.leads = False
        await world.tick()
        world.store.leads = True
        await world.tick()
        assert len(set(world.told())) == 3


async def test_a_replica_that_is_cut_off_tells_of_its_connection_to_the_end() -> None:
    """Nobody else can: it begins while the store is away, and is ended by whom it was begun, though another leads by then."""
    async with living() as world:
        world.store.replica, world.store.leads, world.store.is_cut_off = "r", False, True
        world.state = State("lost", 0.0)
        await world.tick(3600)
        assert [one.alert for one in world.alerts.firing()] == ["disconnected"]
        world.store.is_cut_off = False
        await world.tick()
        assert "silent_since_ms" not in json.loads(world.alerts.of_itself())
        world.state = State("connected", 0.0)
        await world.tick()
        assert world.alerts.firing() == []
        await until(lambda: len(set(world.told())) == 2)


async def test_who_takes_over_finds_again_what_both_have_posted() -> None:
    """Two replicas told of the same alert, one of them while it was cut off: the one that is left says in both places that it has ended."""
    async with living(MarkingSink("ops")) as one, living(MarkingSink("ops")) as two:
        one.store.replica, two.store.replica = "one", "two"
        two.store.leads, two.store.is_cut_off = False, True
        for world, seconds in ((one, 3600), (two, 3700)):
            world.state = State("lost", 0.0)
            await world.tick(seconds)
        await until(lambda: len(one.told()) == len(two.told()) == 1)
        assert one.told() != two.told()
        await one.tick()  # it is remembered
        two.store.kept, two.store.leads, two.store.is_cut_off = one.store.kept, True, False
        await two.tick()
        two.state = State("connected", 0.0)
        await two.tick()
        await until(lambda: len(two.told()) == 2)
        assert two.sinks["ops"].given == [(), (*one.told(), two.told()[0])]  # type: ignore[attr-defined]
