"""Where the sinks of `brokers.py` deliver: a server of each kind on this machine, and what has arrived there."""

from __future__ import annotations

import asyncio
import json
import logging
import sys
from abc import ABC, abstractmethod
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any, ClassVar, Final, Self

import aio_pika
import nats
from confluent_kafka import Consumer, TopicPartition
from nats.js.api import AckPolicy, ConsumerConfig
from redis.asyncio import Redis

from reserve_listener.simulator import HttpServer, Receiver

sys.path.insert(0, str(Path(__file__).parent.parent))  # for the servers that the tests start

from tests.brokers import MockKafka, NatsServer, RabbitServer, RedisServer, Server, running
from tests.sinks.test_sink_kafka import messages

for library in ("aio_pika", "aiormq"):
    logging.getLogger(library).setLevel(logging.CRITICAL + 1)  # what becomes of a kill is no news here

BROKER_KEYS: Final = "timeout = 5\nretry = { base = 0.2, cap = 1 }\n"


async def _ignore(_: Exception) -> None:
    """The same of NATS."""


class Place(ABC):
    """`make`: its server, if it has one; `forgets`: whether that keeps nothing when it is killed."""

    kind: ClassVar[str]
    make: ClassVar[type[Server] | None] = None
    forgets: ClassVar[bool] = False
    in_flight: ClassVar[int] = 64
    """As many as the sink has on their way, unless it is told otherwise."""
    slower: ClassVar[int] = 1
    """It gets so many times fewer events than a broker."""

    def __init__(self, folder: Path) -> None:
        """Raises what `Server` raises when it is not installed."""
        self.folder = folder
        self._open = AsyncExitStack()
        self.server = None if self.make is None else self.make(folder)

    async def __aenter__(self) -> Self:
        if self.server is not None:
            self._open.enter_context(running(self.server))
        await self.prepare()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._open.aclose()

    @property
    def port(self) -> int:
        """The server's."""
        assert self.server is not None
        return self.server.port

    @property
    def bare(self) -> str:
        """What `peers/publish.py` is told of the place."""
        return str(self.port)

    @abstractmethod
    def keys(self) -> str:
        """Of the sink's table."""

    @abstractmethod
    async def prepare(self) -> None:
        """What its owner does first."""

    @abstractmethod
    async def count(self) -> int:
        """How many have arrived."""

    @abstractmethod
    async def ids(self) -> list[str]:
        """Of those that have arrived, in any order."""


class RedisPlace(Place):
    """A stream, written to the disk before each answer."""

    kind = "redis"
    make = RedisServer

    def keys(self) -> str:
        """See `Place`."""
        return f'url = "redis://127.0.0.1:{self.port}"\nstream = "rooms"\n{BROKER_KEYS}'

    async def prepare(self) -> None:
        """See `Place`."""
        self._client = await self._open.enter_async_context(Redis(port=self.port, decode_responses=True))

    async def count(self) -> int:
        """See `Place`."""
        return int(await self._client.xlen("rooms"))

    async def ids(self) -> list[str]:
        """See `Place`."""
        entries: Any = await self._client.xrange("rooms")
        return [fields["id"] for _, fields in entries]


class NatsPlace(Place):
    """A stream in JetStream."""

    kind = "nats"
    make = NatsServer

    def keys(self) -> str:
        """See `Place`."""
        return f'servers = ["nats://127.0.0.1:{self.port}"]\nsubject = "rooms.x"\n{BROKER_KEYS}'

    async def prepare(self) -> None:
        """See `Place`."""
        client = await nats.connect(
            f"nats://127.0.0.1:{self.port}",
            max_reconnect_attempts=-1,
            reconnect_time_wait=1,
            error_cb=_ignore,
        )
        self._open.push_async_callback(client.close)
        self._stream = client.jetstream()
        for name in ("rooms", "bare"):
            await self._stream.add_stream(name=name, subjects=[f"{name}.>"])

    async def count(self) -> int:
        """See `Place`."""
        return (await self._stream.stream_info("rooms")).state.messages

    async def ids(self) -> list[str]:
        """See `Place`."""
        found: list[str] = []
        unacknowledged = ConsumerConfig(ack_policy=AckPolicy.NONE)
        reader = await self._stream.pull_subscribe("rooms.x", stream="rooms", config=unacknowledged)
        for left in range(await self.count(), 0, -500):
            wanted = min(left, 500)
            while wanted:
                batch = await reader.fetch(wanted, timeout=10)
                wanted -= len(batch)
                found += [json.loads(message.data)["id"] for message in batch]
        await reader.unsubscribe()
        return found


class AmqpPlace(Place):
    """A durable queue of RabbitMQ's."""

    kind = "amqp"
    make = RabbitServer

    def keys(self) -> str:
        """See `Place`."""
        (self.folder / "url").write_text(f"amqp://guest:guest@127.0.0.1:{self.port}/")
        return f'url_file = "{self.folder}/url"\nrouting_key = "rooms"\n{BROKER_KEYS}'

    async def prepare(self) -> None:
        """See `Place`."""
        client = await aio_pika.connect_robust(host="127.0.0.1", port=self.port)
        self._open.push_async_callback(client.close)
        self._channel = await client.channel()
        for name in ("rooms", "bare"):
            await self._channel.declare_queue(name, durable=True)

    async def count(self) -> int:
        """See `Place`."""
        declared = await self._channel.declare_queue("rooms", durable=True)
        return declared.declaration_result.message_count or 0

    async def ids(self) -> list[str]:
        """See `Place`. The queue is empty then."""
        queue = await self._channel.get_queue("rooms")
        found: list[str] = []
        while (message := await queue.get(fail=False)) is not None:
            await message.ack()
            found.append(json.loads(message.body)["id"])
        return found


class KafkaPlace(Place):
    """The broker inside librdkafka: in memory."""

    kind = "kafka"
    make = MockKafka
    forgets = True

    def keys(self) -> str:
        """See `Place`."""
        return f'bootstrap_servers = "127.0.0.1:{self.port}"\ntopic = "rooms"\n{BROKER_KEYS}'

    async def prepare(self) -> None:
        """See `Place`."""
        options = {
            "bootstrap.servers": f"127.0.0.1:{self.port}",
            "group.id": "bench",
            "log_level": 0,
            "allow.auto.create.topics": True,
        }
        self._reader = Consumer(options)
        self._open.callback(self._reader.close)
        self._partitions: list[int] = []
        while not self._partitions:  # it makes a topic that it is asked for
            told = await asyncio.to_thread(self._reader.list_topics, "rooms", timeout=10)
            self._partitions = list(told.topics["rooms"].partitions)

    async def count(self) -> int:
        """See `Place`."""
        return await asyncio.to_thread(
            lambda: sum(
                self._reader.get_watermark_offsets(TopicPartition("rooms", number), timeout=10)[1]
                for number in self._partitions
            )
        )

    async def ids(self) -> list[str]:
        """See `Place`."""
        found = await asyncio.to_thread(messages, self.port, "rooms")
        return [json.loads(message.value() or b"")["id"] for message in found]


class HttpPlace(Place):
    """A receiver in this process that answers at once."""

    kind = "http"
    in_flight = 16

    def keys(self) -> str:
        """See `Place`."""
        return f'url = "{self.bare}"\n'

    @property
    def bare(self) -> str:
        """See `Place`."""
        return f"{self._served.url}/"

    async def prepare(self) -> None:
        """See `Place`."""
        self._receiver = Receiver()
        self._served = await self._open.enter_async_context(HttpServer(self._receiver))

    async def count(self) -> int:
        """See `Place`."""
        return len(self._receiver.received)

    async def ids(self) -> list[str]:
        """See `Place`."""
        return [json.loads(received.body)["id"] for received in self._receiver.received]


class ExecPlace(Place):
    """A file to which a small program appends."""

    kind = "exec"
    in_flight = 1
    slower = 10

    def keys(self) -> str:
        """See `Place`."""
        return f"command = {self.bare}\n"

    @property
    def bare(self) -> str:
        """See `Place`."""
        file = self.folder / "arrived"
        return json.dumps(["dd", f"of={file}", "oflag=append", "conv=notrunc", "bs=64k", "status=none"])

    async def prepare(self) -> None:
        """See `Place`. It is made by the first."""

    async def count(self) -> int:
        """See `Place`."""
        return self._arrived().count(b'"specversion":')

    async def ids(self) -> list[str]:
        """See `Place`."""
        found, text = [], self._arrived().decode()
        place, decoder = 0, json.JSONDecoder()
        while place < len(text):
            event, place = decoder.raw_decode(text, place)
            found.append(event["id"])
        return found

    def _arrived(self) -> bytes:
        file = self.folder / "arrived"
        return file.read_bytes() if file.exists() else b""


PLACES: Final = (RedisPlace, NatsPlace, AmqpPlace, KafkaPlace, HttpPlace, ExecPlace)
