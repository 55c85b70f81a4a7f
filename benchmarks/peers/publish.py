"""The bar for each sink: its bare client library, in a loop that publishes events from a file, so many at a time.

It asks for the same guarantees as the sink: an event counts when the server has confirmed it, and a repeat is known where the
server can know it. `publish.py KIND PLACE IN_FLIGHT FILE` prints events a second; PLACE is what the kind's function takes.
"""

from __future__ import annotations

import asyncio
import json
import sys
import threading
import time
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final
from uuid import uuid4

import aio_pika
import httpx2
from confluent_kafka import Producer
from nats import connect
from redis.asyncio import Redis

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

    Send = Callable[[bytes, str], Awaitable[Any]]

TYPE: Final = "application/cloudevents+json"

ONCE: Final = """
if redis.call('EXISTS', KEYS[2]) == 1 then return false end
local id = redis.call('XADD', KEYS[1], '*', 'event', ARGV[1], 'id', ARGV[2], 'subject', ARGV[3])
redis.call('SET', KEYS[2], id, 'EX', 86400)
return id
"""


@asynccontextmanager
async def to_redis(place: str) -> AsyncIterator[Send]:
    """PORT. The client's pool has a connection for each event that is under way."""
    async with Redis(port=int(place), protocol=2) as client:
        add = client.register_script(ONCE)
        yield lambda body, event_id: add(
            keys=["bare", f"{{bare}}:{event_id}"], args=[body, event_id, "omm_1"]
        )


@asynccontextmanager
async def to_nats(place: str) -> AsyncIterator[Send]:
    """PORT."""
    client = await connect(f"nats://127.0.0.1:{place}")
    stream = client.jetstream()
    yield lambda body, event_id: stream.publish(
        "bare.x", body, headers={"Nats-Msg-Id": event_id, "Content-Type": TYPE}
    )
    await client.close()


@asynccontextmanager
async def to_amqp(place: str) -> AsyncIterator[Send]:
    """PORT."""
    kept = aio_pika.DeliveryMode.PERSISTENT
    async with await aio_pika.connect(host="127.0.0.1", port=int(place)) as client:
        channel = client.channel(publisher_confirms=True, on_return_raises=True)
        await channel.initialize()
        exchange = channel.default_exchange
        yield lambda body, event_id: exchange.publish(
            aio_pika.Message(body, content_type=TYPE, delivery_mode=kept, message_id=event_id),
            "bare",
            mandatory=True,
        )


@asynccontextmanager
async def to_kafka(place: str) -> AsyncIterator[Send]:
    """PORT. A thread polls for reports, as the library wants; its own producer for asyncio is ten times slower."""
    options = {
        "bootstrap.servers": f"127.0.0.1:{place}",
        "acks": "all",
        "enable.idempotence": True,
        "partitioner": "murmur2_random",
        "linger.ms": 1,
    }
    client, loop, ended = Producer(options), asyncio.get_running_loop(), threading.Event()

    def poll() -> None:
        while not ended.is_set():
            client.poll(0.1)

    async def send(body: bytes, event_id: str) -> None:
        reported: asyncio.Future[Any] = loop.create_future()
        headers: Any = [("content-type", TYPE.encode()), ("ce_id", event_id.encode())]
        client.produce(
            "bare",
            value=body,
            key=event_id,
            headers=headers,
            on_delivery=lambda error, _: loop.call_soon_threadsafe(reported.set_result, error),
        )
        if (error := await reported) is not None:
            raise RuntimeError(error.str())

    polling = threading.Thread(target=poll)
    polling.start()
    yield send
    ended.set()
    polling.join()


@asynccontextmanager
async def to_http(place: str) -> AsyncIterator[Send]:
    """URL."""
    async with httpx2.AsyncClient(trust_env=False) as client:

        async def send(body: bytes, event_id: str) -> None:
            headers = {"content-type": TYPE, "webhook-id": event_id}
            (await client.post(place, content=body, headers=headers)).raise_for_status()

        yield send


@asynccontextmanager
async def to_command(place: str) -> AsyncIterator[Send]:
    """WORDS, as JSON."""
    words = json.loads(place)

    async def send(body: bytes, _: str) -> None:
        pipe = asyncio.subprocess.PIPE
        process = await asyncio.create_subprocess_exec(*words, stdin=pipe, stdout=pipe)
        await process.communicate(body)
        if process.returncode:
            raise RuntimeError(process.returncode)

    yield send


CLIENTS: Final = {
    "amqp": to_amqp,
    "exec": to_command,
    "http": to_http,
    "kafka": to_kafka,
    "nats": to_nats,
    "redis": to_redis,
}


async def main(kind: str, place: str, in_flight: int, bodies: list[bytes]) -> None:
    """Print events a second."""
    warming = iter([(body, uuid4().hex) for body in bodies[:in_flight]])
    events = iter([(body, uuid4().hex) for body in bodies])

    async with CLIENTS[kind](place) as send:

        async def publish(these: Any) -> None:
            for body, event_id in these:
                await send(body, event_id)

        await asyncio.gather(*(publish(warming) for _ in range(in_flight)))
        begun = time.perf_counter()
        await asyncio.gather(*(publish(events) for _ in range(in_flight)))
        print(len(bodies) / (time.perf_counter() - begun))


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], sys.argv[2], int(sys.argv[3]), Path(sys.argv[4]).read_bytes().splitlines()))
