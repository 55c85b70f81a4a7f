"""A daemon moves to PostgreSQL with all that it knows, and goes on there."""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import pytest

from reserve_listener.simulator import Estate, HttpServer, Receiver, Simulator, sample_event
from tests import postgres
from tests.conftest import NO_WAITS, QUICK_RETRIES
from tests.daemon_process import ask, running, until, write_config
from tests.dumping import dump

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from reserve_listener.simulator.receiver import Received
    from tests.daemon_process import Daemon

pytestmark = pytest.mark.skipif(postgres.programs() is None, reason=postgres.MISSING)

SCOPES = 4
QUICK = """
[sinks.retry]
base = 0.1
cap = 0.5
"""
KEPT = (
    ("history", "omm_0"),
    ("scopes", "list"),
    ("events", "list", "--limit", "100"),
    ("dead-letters", "list"),
    ("sinks", "list"),
)
"""What people ask a store."""


@pytest.fixture
async def platform() -> AsyncIterator[Simulator]:
    async with Simulator(
        retry_delays=QUICK_RETRIES, client_config=dict(NO_WAITS), estate=Estate(rooms=4, depth=2)
    ) as simulator:
        yield simulator


class Booking:
    """The http sink's receiver: takes, refuses and puts off events by their ids, and counts what it has taken."""

    def __init__(self, receiver: Receiver) -> None:
        self.taken: Counter[str] = Counter()
        self.refusing = True
        self.order: dict[str, list[tuple[str, int]]] = {}
        receiver.answer = self._answer

    def _answer(self, request: Received) -> int:
        event_id = request.headers["webhook-id"]
        if self.refusing and event_id.startswith("dead"):
            return 400
        if self.refusing and event_id.startswith("late"):
            return 503
        self.taken[event_id] += 1
        told = json.loads(request.body)
        self.order.setdefault(told["subject"], []).append((event_id, told["data"]["revision"]))
        return 200


def sample(name: str, number: int) -> dict[str, Any]:
    return sample_event(event_id=f"{name}-{number}", scope_id=f"omm_{number % SCOPES}")


async def asked(config: Path, *arguments: str) -> Any:
    """What a command says, as JSON."""
    return json.loads(await asyncio.to_thread(ask, config, *arguments, "--json"))


@asynccontextmanager
async def connected(config: Path, platform: Simulator) -> AsyncIterator[Daemon]:
    async with running(config.parent, config) as daemon:
        await platform.connected(30)
        yield daemon


async def test_a_daemon_goes_on_in_the_copy(
    tmp_path: Path, platform: Simulator, server: HttpServer, receiver: Receiver
) -> None:
    """What was pending is delivered, in order; what was delivered is not; history, dead letters, names and revisions are there.

    The store is what the daemon has made of events, retries, dead letters, disabled sinks and the platform's answers; copied
    to PostgreSQL and back it is the same.
    """
    config, booking = write_config(tmp_path, platform, server.url, more=QUICK), Booking(receiver)
    async with connected(config, platform) as daemon:
        await platform.push_many([sample("taken", number) for number in range(20)], in_flight=1)
        await platform.push_many([sample("dead", number) for number in range(SCOPES)], in_flight=1)
        await until(lambda: len(daemon.query("SELECT 1 FROM deliveries WHERE state = 2")) == SCOPES)
        await asyncio.to_thread(ask, config, "sinks", "disable", "console")
        await platform.push_many([sample("late", number) for number in range(20)], in_flight=1)
        await until(
            lambda: daemon.query("SELECT 1 FROM attempts JOIN events USING (seq) WHERE event_id LIKE 'late%'")
        )
        await asyncio.to_thread(ask, config, "sinks", "enable", "console")
        await asyncio.to_thread(ask, config, "sinks", "disable", "audit")
        await until(lambda: daemon.query("SELECT 1 FROM people UNION SELECT 1 FROM places"))
        assert await daemon.stop() == 0
    kept = [await asked(config, *command) for command in KEPT]
    url, back = postgres.SERVER.database(), tmp_path / "back.db"
    before = dump(tmp_path / "events.db")
    for source, target in ((f"sqlite:///{tmp_path}/events.db", url), (url, f"sqlite:///{back}")):
        said = await asyncio.to_thread(ask, config, "store", "copy", source, target)
        assert b"Everything was copied" in said
    assert dump(back) == before
    assert {name for name, rows in before.items() if rows} >= {
        "attempts",
        "pauses",
        "states",
        "history",
        "places",
        "looks",
    }
    config.write_text(config.read_text().replace(f"sqlite:///{tmp_path}/events.db", url))
    assert [await asked(config, *command) for command in KEPT] == kept
    booking.refusing = False
    async with connected(config, platform) as daemon:
        await until(lambda: sum(booking.taken.values()) == 40, 60)
        await asyncio.to_thread(ask, config, "dead-letters", "retry", "--all", "--yes")
        await until(lambda: sum(booking.taken.values()) == 40 + SCOPES)
        highest = {scope: max(number for _, number in taken) for scope, taken in booking.order.items()}
        await platform.push_many([sample("new", number) for number in range(SCOPES)], in_flight=1)
        await until(lambda: sum(booking.taken.values()) == 40 + 2 * SCOPES)
        assert await daemon.stop() == 0
    assert set(booking.taken.values()) == {1}
    for scope, taken in booking.order.items():
        in_turn = [number for event_id, number in taken if not event_id.startswith("dead")]
        assert in_turn == sorted(in_turn)
        assert taken[-1][1] == highest[scope] + 1
