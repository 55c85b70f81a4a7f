"""Alerts of replicas: one tells what concerns all, whoever it is about, and the next goes on where it has ended."""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING

import msgspec

from reserve_listener.daemon.alerts.journal import Memory
from reserve_listener.simulator import (
    Answer,
    HttpServer,
    Received,
    Receiver,
    Simulator,
    patience,
    sample_event,
)
from reserve_listener.simulator.messages import CHAT
from tests.conftest import NO_WAITS
from tests.daemon_process import QUICK_ALERTS, ask, until
from tests.postgres import SERVER
from tests.replicas import configured, expire, holder, replicas, rows, two_in_turn

if TYPE_CHECKING:
    from pathlib import Path

MORE = """retry = {{ base = 0.05, cap = 0.1 }}

[[sinks]]
name = "ops"
type = "http"
url = "{url}/ops"
events = false

[alerts]
sinks = ["ops"]
disconnected_after = 3
"""


def told(receiver: Receiver) -> list[str]:
    """What has come to the alert sink: what, and whether it began or ended."""
    events = [json.loads(each.body) for each in receiver.received if each.path == "/ops"]
    return [f"{each['subject']} {each['data']['state']}" for each in events]


def leader(url: str) -> str | None:
    """The replica that leads the alerts."""
    found = rows(
        url, "SELECT r.pid FROM leases AS l JOIN replicas AS r ON r.id = l.holder WHERE l.name = 'alerts'"
    )
    return str(found[0][0]) if found else None


def remembered(url: str) -> Memory:
    """What the next leader would begin with."""
    found = rows(url, "SELECT content FROM alerts")
    return msgspec.json.decode(bytes(found[0][0]), type=Memory) if found else Memory()


def refuse_events(one: Received) -> int | Answer:
    """The sink for events is down, that for alerts is not."""
    return 200 if one.path == "/ops" else 503


async def test_the_next_leader_tells_only_the_end(
    tmp_path: Path, platform: Simulator, server: HttpServer, receiver: Receiver
) -> None:
    """The leader is killed while an alert fires: the other replica tells its end alone, in a group in the card of the dead one."""
    url = SERVER.database()
    receiver.answer = refuse_events
    more = f"""{MORE.format(url=server.url).replace('["ops"]', '["ops", "group"]')}
[[sinks]]
name = "group"
type = "feishu_card"
chat_id = "{CHAT}"
events = false
"""
    async with two_in_turn(tmp_path, url, platform, server.url, more=more, first=QUICK_ALERTS) as (one, two):
        await until(lambda: holder(url) == one.process.pid)
        await platform.push_many([sample_event(event_id=f"e{n}") for n in range(3)])
        await until(lambda: told(receiver) == ["sink_down firing"], 60)
        await until(lambda: [alert.waiting for alert in remembered(url).alerts] == [()])
        one.process.kill()
        await one.process.wait()
        expire(url)
        await until(lambda: leader(url) == str(two.process.pid))
        receiver.answer = 200
        await until(lambda: len(told(receiver)) > 1, 60)
        (card,) = platform.group.messages
        await until(lambda: card.updates == 1)
        assert await two.stop() == 0
    assert told(receiver) == ["sink_down firing", "sink_down resolved"]
    assert platform.group.messages == [card]


async def test_one_tells_that_another_is_not_connected(
    tmp_path: Path, platform: Simulator, server: HttpServer, receiver: Receiver
) -> None:
    """Only the replica that does not lead loses the platform: one alert, with its name, and one end; both show it."""
    url = SERVER.database()
    more = MORE.format(url=server.url)
    async with Simulator(client_config=dict(NO_WAITS)) as elsewhere:
        configs = [
            configured(tmp_path, name, url, one, server.url, lark='language = "en"', more=more)
            for name, one in (("one", platform), ("two", elsewhere))
        ]
        async with (
            replicas(configs[:1], first=QUICK_ALERTS) as (one,),
            replicas(configs[1:], first=QUICK_ALERTS) as (two,),
        ):
            await platform.connected(30)
            await elsewhere.connected(30)
            await until(lambda: leader(url) is not None)
            far, near = (elsewhere, two) if leader(url) == str(one.process.pid) else (platform, one)
            far.faults.endpoint_status = 500
            await far.drop(abort=True)
            await until(lambda: told(receiver) == ["disconnected firing"], 30)
            (event,) = [json.loads(each.body) for each in receiver.received if each.path == "/ops"]
            assert f"-{near.process.pid}-" in event["data"]["detail"].partition(":")[0]
            for config in configs:
                async with asyncio.timeout(patience(30)):
                    while b'"alert": "disconnected"' not in await asyncio.to_thread(
                        ask, config, "status", "--json"
                    ):
                        await asyncio.sleep(0.1)
            far.faults.endpoint_status = 200
            await until(lambda: len(told(receiver)) > 1, 30)
            assert await two.stop() == await one.stop() == 0
    assert told(receiver) == ["disconnected firing", "disconnected resolved"]
