"""Replicas on machines whose clocks are wrong: due times and ages are by the database's."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from reserve_listener.clock import now_ms
from reserve_listener.simulator import HttpServer, Receiver, Simulator, sample_event
from tests.daemon_process import until
from tests.postgres import SERVER
from tests.replicas import configured, holder, replicas, rows

if TYPE_CHECKING:
    from pathlib import Path

WRONG_CLOCK = """
import time

real, real_ns = time.time, time.time_ns
time.time, time.time_ns = lambda: real() + {hours} * 3600, lambda: real_ns() + {hours} * 3600 * 10**9
"""

HALF_AN_HOUR_S = 1800
RETRY = f"retry = {{ base = 1, cap = 2, max_age = {HALF_AN_HOUR_S} }}\n"


@pytest.mark.parametrize(("works", "hours"), [("the wrong one", 1), ("the right one", -1)])
async def test_a_wrong_clock_makes_nothing_old_and_puts_nothing_off(
    tmp_path: Path, platform: Simulator, server: HttpServer, receiver: Receiver, *, hours: int, works: str
) -> None:
    """Whether the replica that delivers or the one that hears is an hour off: retries are due soon, and nothing is given up."""
    (tmp_path / "sitecustomize.py").write_text(WRONG_CLOCK.format(hours=hours))
    url = SERVER.database()
    configs = [configured(tmp_path, name, url, platform, server.url, more=RETRY) for name in ("one", "two")]
    wrong, right = {"PYTHONPATH": str(tmp_path)}, dict[str, str]()
    first = wrong if works == "the wrong one" else right
    async with replicas(configs[:1], [first]) as (one,):
        await until(lambda: holder(url) == one.process.pid)
        async with replicas(configs[1:], [right if first is wrong else wrong]):
            await platform.connected(30, count=2)
            await _goes_as_it_should(url, platform, receiver)
        assert not any(line["event"] == "clock.set" for line in one.log())


async def _goes_as_it_should(url: str, platform: Simulator, receiver: Receiver) -> None:
    began_ms = now_ms()
    receiver.answer = 503
    ids = [f"e{number}" for number in range(20)]
    await platform.push_many([sample_event(event_id=each, scope_id=f"omm_{each}") for each in ids])
    await platform.until(lambda: len(platform.acknowledged) == len(ids), 20)
    await until(lambda: rows(url, "SELECT 1 FROM deliveries WHERE due_ms > 0"))
    (dated,) = rows(url, "SELECT min(received_ms), max(received_ms) FROM events")
    assert began_ms - 1_000 < dated[0] <= dated[1] < now_ms() + 1_000
    ((due_ms,),) = rows(url, "SELECT max(due_ms) FROM deliveries")
    assert due_ms < now_ms() + 60_000
    receiver.answer = 200
    await until(lambda: not rows(url, "SELECT 1 FROM deliveries WHERE state = 0"))
    assert rows(url, "SELECT DISTINCT state FROM deliveries") == [(1,)]
