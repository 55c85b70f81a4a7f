"""A replica that stands still while another takes over, and wakes."""

from __future__ import annotations

import asyncio
import signal
import time
from collections import Counter
from typing import TYPE_CHECKING

import pytest

from reserve_listener.simulator import Answer, HttpServer, Receiver, Simulator, sample_event
from tests.daemon_process import until
from tests.postgres import SERVER
from tests.replicas import configured, holder, replicas, rows

if TYPE_CHECKING:
    from pathlib import Path

    from reserve_listener.simulator.receiver import Received

SCOPES = 5
FROZEN_S = 40
TAKEN_OVER_S = 30


@pytest.mark.long
async def test_one_that_wakes_after_40_s_finishes_what_it_had_sent_and_nothing_else(
    tmp_path: Path, platform: Simulator, server: HttpServer, receiver: Receiver
) -> None:
    """It was stopped with attempts under way and more in hand: another delivers all of it, in time; awake, it starts and settles nothing."""
    url = SERVER.database()
    configs = [
        configured(tmp_path, name, url, platform, server.url, more=f'headers = {{ x-replica = "{name}" }}\n')
        for name in ("one", "two")
    ]
    receiver.answer = lambda one: Answer(delay=FROZEN_S + 5 if _sender(one) == "one" else 0)
    async with replicas(configs[:1]) as (one,):
        await until(lambda: holder(url) == one.process.pid)
        async with replicas(configs[1:]) as (two,):
            await platform.connected(30, count=2)
            ids = [f"e{number}" for number in range(4 * SCOPES)]
            await platform.push_many(
                [sample_event(event_id=each, scope_id=f"omm_{int(each[1:]) % SCOPES}") for each in ids]
            )
            await until(lambda: len(receiver.received) == SCOPES)
            one.process.send_signal(signal.SIGSTOP)
            began = time.monotonic()
            await until(lambda: len(receiver.received) == SCOPES + len(ids), TAKEN_OVER_S)
            await until(lambda: not _pending(url))
            settled = rows(url, "SELECT seq, sink, attempts, settled_ms FROM deliveries ORDER BY seq, sink")
            await asyncio.sleep(FROZEN_S - (time.monotonic() - began))  # not before all leases have run out
            one.process.send_signal(signal.SIGCONT)
            await until(lambda: any(line["event"] == "delivery.lease_lost" for line in one.log()), 60)
            fresh = [f"f{number}" for number in range(SCOPES)]
            await platform.push_many([sample_event(event_id=each, scope_id="omm_0") for each in fresh])
            await until(lambda: set(fresh) <= {one.headers["webhook-id"] for one in receiver.received})
            assert holder(url) == two.process.pid
    senders = Counter((_sender(one), one.headers["webhook-id"]) for one in receiver.received)
    assert sum(count for (name, _), count in senders.items() if name == "one") == SCOPES
    assert {event_id: count for (name, event_id), count in senders.items() if name == "two"} == dict.fromkeys(
        [*ids, *fresh], 1
    )
    last = rows(url, "SELECT max(seq) FROM events WHERE event_id NOT LIKE 'f%%'")[0][0]
    assert settled == rows(
        url,
        "SELECT seq, sink, attempts, settled_ms FROM deliveries WHERE seq <= %s ORDER BY seq, sink",
        last,
    )


def _sender(one: Received) -> str:
    return one.headers["x-replica"]


def _pending(url: str) -> bool:
    return bool(rows(url, "SELECT 1 FROM deliveries WHERE state = 0"))
