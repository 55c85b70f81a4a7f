"""The brokers behind the real daemon and its commands: they are tried, and reached, and a kill loses nothing."""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import aio_pika
import nats
import pytest
import redis
from nats.js.api import StreamConfig

from reserve_listener.simulator import HttpServer, Receiver, Simulator, sample_event
from tests.brokers import (
    MockKafka,
    NatsServer,
    RabbitServer,
    RedisServer,
    Server,
    at_once,
    running as serving,
)
from tests.conftest import QUICK_RETRIES
from tests.daemon_process import ask, running, until, write_config
from tests.sinks.test_sink_amqp import drained
from tests.sinks.test_sink_kafka import messages

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

KINDS = {"amqp": RabbitServer, "kafka": MockKafka, "nats": NatsServer, "redis": RedisServer}
ON_ITS_WAY = 8
"""`max_in_flight` here."""


@dataclass
class Bus:
    """A broker of each kind, with a place for events."""

    folder: Path
    servers: dict[str, Server]

    def sinks(self, suffix: str = "", common: str = "") -> str:
        """The configuration of a sink to each, and of a command. `suffix`: what their names end with; `common`: a key of each."""
        ports = {name: server.port for name, server in self.servers.items()}
        (self.folder / "amqp_url").write_text(f"amqp://guest:guest@127.0.0.1:{ports['amqp']}/")
        keys = {
            "amqp": f'url_file = "{self.folder}/amqp_url"\nrouting_key = "rooms"',
            "kafka": f'bootstrap_servers = "127.0.0.1:{ports["kafka"]}"\ntopic = "rooms"',
            "nats": f'servers = ["nats://127.0.0.1:{ports["nats"]}"]\nsubject = "rooms.{{scope_id}}"',
            "redis": f'url = "redis://127.0.0.1:{ports["redis"]}"\nstream = "rooms"',
            "exec": f'command = ["sh", "-c", "tr -d \'\\\\n\' >> {self.folder}/exec; echo >> {self.folder}/exec"]',
        }
        tables = (
            f'[[sinks]]\nname = "{kind}{suffix}"\ntype = "{kind}"\n{more}\n{common}\n'
            for kind, more in keys.items()
        )
        soon = "timeout = 2\nretry = { base = 0.2, cap = 1 }"
        bounds = (f"max_in_flight = {1 if kind == 'exec' else ON_ITS_WAY}\n{soon}\n" for kind in keys)
        return "\n".join(table + bound for table, bound in zip(tables, bounds, strict=True))

    async def prepare(self) -> None:
        """What the owner of a broker does first."""
        client = await nats.connect(f"nats://127.0.0.1:{self.servers['nats'].port}")
        await client.jetstream().add_stream(StreamConfig(name="rooms", subjects=["rooms.>"]))
        await client.close()
        port = self.servers["amqp"].port
        connection = await aio_pika.connect(host="127.0.0.1", port=port, login="guest", password="guest")
        async with connection:
            await (await connection.channel()).declare_queue("rooms", durable=True)
        await asyncio.to_thread(self.servers["amqp"].restart)

    async def _of_nats(self) -> list[bytes]:
        client = await nats.connect(f"nats://127.0.0.1:{self.servers['nats'].port}")
        stream = client.jetstream()
        count = (await stream.stream_info("rooms")).state.messages
        found = [(await stream.get_msg("rooms", seq)).data or b"" for seq in range(1, count + 1)]
        await client.close()
        return found

    def arrived(self, key: str = "id") -> dict[str, Counter[str]]:
        """What is where: how often each id, or value of another key."""
        with redis.Redis(port=self.servers["redis"].port) as client:
            entries: Any = client.xrange("rooms")
        found: dict[str, Iterable[bytes]] = {
            "amqp": [one.body for one in at_once(drained(self.servers["amqp"].port, "rooms"))],
            "exec": filter(None, (self.folder / "exec").read_bytes().splitlines()),
            "kafka": [one.value() or b"" for one in messages(self.servers["kafka"].port, "rooms")],
            "nats": at_once(self._of_nats()),
            "redis": [fields[b"event"] for _, fields in entries],
        }
        return {kind: Counter(json.loads(body)[key] for body in bodies) for kind, bodies in found.items()}


def changes(count: int) -> list[dict[str, Any]]:
    """Of as many rooms."""
    return [sample_event(scope_id=f"omm_{number}") for number in range(count)]


@pytest.fixture
def bus(tmp_path: Path) -> Iterator[Bus]:
    """All of them."""
    servers: dict[str, Server] = {}
    for kind, make in KINDS.items():
        (tmp_path / kind).mkdir()
        servers[kind] = make(tmp_path / kind)
    with (
        serving(servers["amqp"]),
        serving(servers["kafka"]),
        serving(servers["nats"]),
        serving(servers["redis"]),
    ):
        bus = Bus(tmp_path, servers)
        at_once(bus.prepare())
        yield bus


async def test_check_reaches_and_sinks_test_tries_them(tmp_path: Path, bus: Bus, server: HttpServer) -> None:
    """Each kind has its line in `check`, can be reached with `--online`, and takes a marked event; gone, it says why and where."""
    async with Simulator() as platform:
        config = write_config(tmp_path, platform, server.url, more=bus.sinks())
        told = (await asyncio.to_thread(ask, config, "check")).decode()
        online = (await asyncio.to_thread(ask, config, "check", "--online")).decode()
        for kind in KINDS:
            assert f'ok\tsink "{kind}"\t' in told
            assert f'ok\tsink "{kind}"\tcan be reached' in online, online
        await tried(config, *KINDS, "exec")
        counts = await asyncio.to_thread(bus.arrived)
        assert {kind: len(found) for kind, found in counts.items()} == dict.fromkeys((*KINDS, "exec"), 1)
        bus.servers["redis"].kill()
        online = (await asyncio.to_thread(ask, config, "check", "--online")).decode()
        port = bus.servers["redis"].port
        assert "url and the firewall\n" in online
        assert f'FAIL\tsink "redis"\tTCP connect to 127.0.0.1:{port} failed: Connection refused' in online, (
            online
        )
        said = (await asyncio.to_thread(ask, config, "sinks", "test", "redis")).decode()
        assert f"127.0.0.1:{port}: Connection refused" in said


async def test_each_kind_carries_alerts_and_nothing_else(
    tmp_path: Path, bus: Bus, server: HttpServer, receiver: Receiver
) -> None:
    """With `events = false` each kind takes a sample alert, whose names have no room in them, and gets no events."""
    ours = {"file": f'path = "{tmp_path}/alerts"', "http": f'url = "{server.url}/alerts"', "log": ""}
    more = "".join(
        f'[[sinks]]\nname = "{kind}-alerts"\ntype = "{kind}"\nevents = false\n{keys}\n'
        for kind, keys in ours.items()
    )
    async with Simulator() as platform:
        config = write_config(
            tmp_path, platform, server.url, more=bus.sinks("-alerts", "events = false") + more
        )
        await tried(config, *(f"{kind}-alerts" for kind in (*KINDS, "exec", *ours)))
        async with running(tmp_path, config) as daemon:
            await platform.connected(30)
            await platform.push_many(changes(3))
            await until(lambda: daemon.pending() == 0)
            assert await daemon.stop() == 0
    for kind, types in (await asyncio.to_thread(bus.arrived, "type")).items():
        assert types == {"reserve_listener.alert.v1": 1}, kind
    assert (tmp_path / "alerts").read_bytes().count(b"\n") == 1
    assert [received.path for received in receiver.received].count("/alerts") == 1


async def tried(config: Path, *sinks: str) -> None:
    """`sinks test` of each of them succeeds."""
    asked = (asyncio.to_thread(ask, config, "sinks", "test", sink) for sink in sinks)
    for sink, said in zip(sinks, await asyncio.gather(*asked), strict=True):
        assert f"{sink} accepted the event test-" in said.decode(), said


async def test_kill_9_of_daemon_and_servers_loses_nothing(
    tmp_path: Path, bus: Bus, server: HttpServer, receiver: Receiver
) -> None:
    """Killed under load, the daemon twice and each server once: all arrive everywhere; what comes twice is as the pages say."""
    async with Simulator(retry_delays=QUICK_RETRIES) as platform:
        config = write_config(tmp_path, platform, server.url, more=bus.sinks())
        async with running(tmp_path, config) as daemon:
            for killed in (("nats", "redis"), ("amqp",)):
                await platform.connected(30)
                await platform.push_many(changes(60), in_flight=16)
                for kind in killed:
                    bus.servers[kind].kill()
                daemon.process.kill()
                await daemon.process.wait()
                await daemon.start()
                for kind in killed:
                    await asyncio.to_thread(bus.servers[kind].start)
            await platform.connected(30)
            await platform.push_many(changes(20), in_flight=16)
            await until(lambda: daemon.pending() == 0, 90)
            assert await daemon.stop() == 0
            stored = {row[0] for row in daemon.query("SELECT event_id FROM events")}
        found = await asyncio.to_thread(bus.arrived)
    assert len(stored) >= 140
    for kind, counts in found.items():
        doubled = sum(counts.values()) - len(counts)
        print(f"{kind}: {len(counts)} events, {doubled} twice")
        assert set(counts) == stored, kind
        assert doubled == 0 or kind in {"amqp", "exec", "kafka"}, kind
