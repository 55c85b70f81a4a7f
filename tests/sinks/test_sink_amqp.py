"""The amqp sink, with Debian's RabbitMQ."""

from __future__ import annotations

import asyncio
import contextlib
import json
import signal
from contextlib import ExitStack, asynccontextmanager
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import aio_pika
import pytest
from msgspec.structs import replace

from reserve_listener.errors import (
    ConfigError,
    DeliveryError,
    MisconfiguredSinkError,
    PartlyDeliveredError,
    PermanentDeliveryError,
    TransientDeliveryError,
)
from reserve_listener.simulator import patience
from reserve_listener.sinks.registry import look_over, make_sink_spec
from reserve_listener.testing import SinkContract, SinkWorld, sample_deliveries
from tests.brokers import (
    RabbitServer,
    as_printed,
    at_once,
    consumer,
    example,
    make_certificate,
    running,
    summarised,
)
from tests.configuring import made
from tests.helpers import free_port

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator
    from pathlib import Path

    from aio_pika.abc import AbstractChannel

    from reserve_listener.config import SinkTable
    from reserve_listener.model import Delivery
    from reserve_listener.protocols import Sink

pytestmark = pytest.mark.slow
PASSWORD = "r4bbit-p@ss-word"


async def nowhere(_: object) -> None:
    """No log sink is made with it."""


def sink_of(table: SinkTable) -> Sink:
    """The sink as the daemon makes it."""
    return make_sink_spec(table, nowhere).sink


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RabbitServer]:
    """One for all tests; each has queues of its own. The largest message is small, as one of 128 MiB takes long."""
    server = RabbitServer(tmp_path_factory.mktemp("rabbit"), "max_message_size = 1000000")
    with running(server):
        yield server


@pytest.fixture
def name() -> str:
    """What nobody else has."""
    return f"rooms-{uuid4().hex}"


@asynccontextmanager
async def channel(port: int) -> AsyncIterator[AbstractChannel]:
    """Somebody else's."""
    connection = await aio_pika.connect(host="127.0.0.1", port=port, login="guest", password="guest")
    async with connection:
        yield await connection.channel()


def table(folder: Path, port: int, key: str, *, login: str = "guest:guest", **keys: Any) -> SinkTable:
    """A sink to it."""
    url = folder / f"url-{uuid4().hex}"
    url.write_text(f"amqp://{login}@127.0.0.1:{port}/")
    return made("amqp", **({"name": "bus", "url_file": url, "routing_key": key} | keys))


async def queue(port: int, name: str, **arguments: Any) -> None:
    """Declare a durable one."""
    async with channel(port) as found:
        await found.declare_queue(name, durable=True, arguments=arguments)


async def drained(port: int, name: str) -> list[Any]:
    """What is in a queue, which is empty then."""
    async with channel(port) as found:
        waiting = await found.get_queue(name)
        messages = []
        while (message := await waiting.get(fail=False)) is not None:
            await message.ack()
            messages.append(message)
        return messages


def ids(messages: list[Any]) -> list[str]:
    """Which events they are."""
    return [json.loads(message.body)["id"] for message in messages]


async def failure(sink: Sink, *deliveries: Delivery) -> DeliveryError:
    """What an attempt raises."""
    with pytest.raises(DeliveryError) as caught:
        await sink.deliver(deliveries or sample_deliveries(1))
    await sink.close()
    return caught.value


async def until_delivered(sink: Sink, delivery: Delivery) -> None:
    """As the daemon does: again and again. After a kill the broker may know its queues a moment later than it takes messages."""
    async with asyncio.timeout(patience(60)):
        while True:
            with contextlib.suppress(TransientDeliveryError, MisconfiguredSinkError):
                return await sink.deliver([delivery])
            await asyncio.sleep(0.05)


class TestAmqp(SinkContract):
    """A queue, a queue that is gone, and a broker that hangs."""

    server: RabbitServer
    folder: Path

    @pytest.fixture(autouse=True)
    def _server(self, server: RabbitServer, tmp_path: Path) -> None:
        self.server, self.folder = server, tmp_path

    @asynccontextmanager
    async def world(self) -> AsyncIterator[SinkWorld]:
        port, name, arrived = self.server.port, f"rooms-{uuid4().hex}", list[str]()
        await queue(port, name)
        made_ = table(self.folder, port, name, timeout=1.5, max_in_flight=4)

        def delivered() -> list[str]:
            arrived.extend(ids(at_once(drained(port, name))))
            return arrived

        async def delete() -> None:
            async with channel(port) as found:
                await found.queue_delete(name)

        with ExitStack() as leaving:
            yield SinkWorld(
                make=lambda: sink_of(made_),
                delivered=delivered,
                refuse=lambda: at_once(delete()),
                hang=lambda: leaving.enter_context(self.server.hanging()),
                secrets=("guest:guest",),
            )


async def test_a_message_is_persistent_has_an_id_and_is_structured_json(
    server: RabbitServer, name: str, tmp_path: Path
) -> None:
    """The properties of the contract, and the routing key with the event's ids in it."""
    async with channel(server.port) as found:
        exchange = await found.declare_exchange(name, aio_pika.ExchangeType.TOPIC, durable=True)
        await (await found.declare_queue(name, durable=True)).bind(exchange, "#")
    key = "rooms.{tenant_key}.{scope_type}.{scope_id}"
    sink = sink_of(table(tmp_path, server.port, key, exchange=name))
    (delivery,) = sample_deliveries(1)
    odd = json.dumps(json.loads(delivery.body) | {"subject": "a.b #"}).encode()
    await sink.deliver([replace(delivery, body=odd)])
    await sink.deliver([replace(delivery, event_id="é" * 200)])
    await sink.close()
    first, second = await drained(server.port, name)
    assert first.routing_key == "rooms.70f0c2a95b3d4e18.room.a%2Eb%20%23"
    assert first.content_type == "application/cloudevents+json"
    assert first.delivery_mode == aio_pika.DeliveryMode.PERSISTENT
    assert first.message_id == "event-0001"
    assert second.message_id.startswith("sha256-")
    assert first.body == odd


async def test_a_broker_that_is_away_is_a_sink_that_is_down(tmp_path: Path, name: str) -> None:
    """Killed in the middle of deliveries and started again: nothing is lost; what comes twice was in flight then, and bears its id."""
    server = RabbitServer(tmp_path)
    sink = sink_of(
        table(tmp_path, server.port, name, timeout=5, max_in_flight=16)
    )  # before there is a broker
    with pytest.raises(TransientDeliveryError, match=rf"127.0.0.1:{server.port}: Connection refused"):
        await sink.deliver(sample_deliveries(1))
    deliveries = sample_deliveries(300)
    with running(server):
        await queue(server.port, name)
        server.restart()
        await until_delivered(sink, deliveries[0])
        attempts = [asyncio.create_task(sink.deliver([delivery])) for delivery in deliveries[1:200]]
        await asyncio.wait(attempts, return_when=asyncio.FIRST_COMPLETED)
        server.signal(signal.SIGSTOP)  # it will have confirmed some of them, and none of these
        attempts += [asyncio.create_task(sink.deliver([delivery])) for delivery in deliveries[200:]]
        await asyncio.sleep(0)
        server.kill()
        outcomes = await asyncio.gather(*attempts, return_exceptions=True)
        failed = [one for one, outcome in zip(deliveries[1:], outcomes, strict=True) if outcome is not None]
        assert failed
        assert all(isinstance(outcome, TransientDeliveryError) for outcome in outcomes if outcome)
        server.start()
        for delivery in failed:
            await until_delivered(sink, delivery)
        await sink.close()
        messages = await drained(server.port, name)
    assert set(ids(messages)) == {delivery.event_id for delivery in deliveries}
    twice = {one for one in ids(messages) if ids(messages).count(one) > 1}
    assert twice <= {delivery.event_id for delivery in failed}


async def test_after_a_time_out_the_channel_is_another(
    server: RabbitServer, name: str, tmp_path: Path
) -> None:
    """One that has waited for a confirm in vain may stay stuck for all queues: nothing more goes over it."""
    await queue(server.port, name)
    sink: Any = sink_of(table(tmp_path, server.port, name, timeout=1))
    await sink.deliver(sample_deliveries(1))
    before = await sink._link.line()
    with server.hanging(), pytest.raises(TransientDeliveryError, match="no confirm within 1 s"):
        await sink.deliver(sample_deliveries(2)[1:])
    await until_delivered(sink, sample_deliveries(2)[1])
    after = await sink._link.line()
    assert after.channel is not before.channel
    await sink.close()
    assert before.connection.is_closed
    assert set(ids(await drained(server.port, name))) == {"event-0001", "event-0002"}


async def test_a_quorum_queue_that_is_stuck_sticks_no_other(tmp_path: Path, name: str) -> None:
    """After a kill such a queue gives no confirm for long; a classic one gets its event at once, over another channel."""
    quorum, classic = (
        replace(one, body=json.dumps(json.loads(one.body) | {"subject": f"{name}-{kind}"}).encode())
        for one, kind in zip(sample_deliveries(2), ("quorum", "classic"), strict=True)
    )
    with running(RabbitServer(tmp_path)) as server:
        for kind in ("quorum", "classic"):
            await queue(server.port, f"{name}-{kind}", **{"x-queue-type": kind})
        server.restart()
        sink = sink_of(table(tmp_path, server.port, "{scope_id}", timeout=2))
        await until_delivered(sink, quorum)
        server.kill()
        server.start()
        said: str | None = ""
        while said is not None and "no confirm within" not in said:
            try:
                await sink.deliver([quorum])
                said = None
            except (TransientDeliveryError, MisconfiguredSinkError) as error:  # see `until_delivered`
                said = str(error)
        await sink.deliver([classic])
        await sink.close()
        assert ids(await drained(server.port, f"{name}-classic")) == [classic.event_id]


async def test_what_no_queue_takes_is_misconfigured(server: RabbitServer, name: str, tmp_path: Path) -> None:
    """The client would call it published; when somebody makes the queue, the event arrives."""
    sink = sink_of(table(tmp_path, server.port, name))
    with pytest.raises(MisconfiguredSinkError, match=f"takes the routing key {name}: bind one"):
        await sink.deliver(sample_deliveries(1))
    await queue(server.port, name)
    await sink.deliver(sample_deliveries(1))
    await sink.close()
    assert ids(await drained(server.port, name)) == ["event-0001"]


async def test_a_missing_exchange_is_misconfigured(server: RabbitServer, name: str, tmp_path: Path) -> None:
    """It is declared by whoever owns it, and works without a restart of the daemon then."""
    sink = sink_of(table(tmp_path, server.port, name, exchange=name))
    with pytest.raises(MisconfiguredSinkError, match="declare the exchange first"):
        await sink.deliver(sample_deliveries(1))
    async with channel(server.port) as found:
        exchange = await found.declare_exchange(name, durable=True)
        await (await found.declare_queue(name, durable=True)).bind(exchange, name)
    await sink.deliver(sample_deliveries(1))
    await sink.close()
    assert ids(await drained(server.port, name)) == ["event-0001"]


@pytest.mark.parametrize(
    ("login", "path"), [(f"guest:{PASSWORD.replace('@', '%40')}", "/"), ("guest:guest", "/no")]
)
async def test_a_wrong_login_is_misconfigured(
    server: RabbitServer, name: str, tmp_path: Path, login: str, path: str
) -> None:
    """A wrong password, or a vhost that is not there: tried slowly and loudly, and the password stays where it is."""
    url = tmp_path / "url"
    url.write_text(f"amqp://{login}@127.0.0.1:{server.port}{path}")
    error = await failure(sink_of(made("amqp", name="bus", url_file=url, routing_key=name)))
    assert type(error) is MisconfiguredSinkError
    assert "check the user, the password" in str(error)
    assert PASSWORD not in str(error)


async def test_a_full_queue_is_tried_again(server: RabbitServer, name: str, tmp_path: Path) -> None:
    """A queue that refuses what is new keeps the event waiting; with room it is taken."""
    await queue(server.port, name, **{"x-max-length": 1, "x-overflow": "reject-publish"})
    first, *more = sample_deliveries(3)
    sink = sink_of(table(tmp_path, server.port, name))
    await sink.deliver([first])
    outcomes = [await asyncio.gather(sink.deliver([one]), return_exceptions=True) for one in more]
    (refused,) = outcomes[-1]  # a queue notices a little late
    assert isinstance(refused, TransientDeliveryError)
    assert "may be full" in str(refused)
    await drained(server.port, name)
    await sink.deliver([more[-1]])
    await sink.close()
    assert ids(await drained(server.port, name)) == [more[-1].event_id]


async def test_what_is_too_large_is_a_dead_letter(server: RabbitServer, name: str, tmp_path: Path) -> None:
    """Beyond `max_message_size` an event is refused for good, and costs the channel; the next one is taken."""
    await queue(server.port, name)
    small, large = sample_deliveries(2)
    padded = json.dumps(json.loads(large.body) | {"padding": "x" * 1_100_000}).encode()
    sink = sink_of(table(tmp_path, server.port, name))
    with pytest.raises(PermanentDeliveryError, match="larger than the broker takes"):
        await sink.deliver([replace(large, body=padded)])
    await sink.deliver([small])
    long = json.dumps(json.loads(large.body) | {"subject": "x" * 300}).encode()
    sink_by_id = sink_of(table(tmp_path, server.port, "{scope_id}"))
    with pytest.raises(PermanentDeliveryError, match="longer than 255 bytes"):
        await sink_by_id.deliver([replace(large, body=long)])
    await sink_by_id.close()
    await sink.close()
    assert ids(await drained(server.port, name)) == ["event-0001"]


async def test_what_was_on_its_way_beside_one_that_is_too_large_is_tried_again(
    server: RabbitServer, name: str, tmp_path: Path
) -> None:
    """The broker closes the channel for one event's sake: the others are no dead letters, and the sink is not down."""
    await queue(server.port, name)
    deliveries = sample_deliveries(9)
    padded = json.dumps(json.loads(deliveries[0].body) | {"padding": "x" * 1_100_000}).encode()
    large, others = replace(deliveries[0], body=padded), deliveries[1:]
    sink = sink_of(table(tmp_path, server.port, name))
    await sink.deliver(sample_deliveries(1, first=10))
    outcomes = await asyncio.gather(
        *(sink.deliver([one]) for one in (large, *others)), return_exceptions=True
    )
    assert isinstance(outcomes[0], PermanentDeliveryError)
    for outcome in filter(None, outcomes[1:]):
        assert isinstance(outcome, TransientDeliveryError)
        assert outcome.down == ("another event" not in str(outcome))
    for one in others:
        await until_delivered(sink, one)
    await sink.close()
    assert {one.event_id for one in others} <= set(ids(await drained(server.port, name)))


async def test_each_event_of_a_batch_has_an_outcome_of_its_own(
    server: RabbitServer, name: str, tmp_path: Path
) -> None:
    """One that no queue takes is refused, and so is one whose key is too long; those around them are confirmed."""
    await queue(server.port, name)
    keys = (name, f"{name}-nobody", name, "x" * 300)
    batch = [
        replace(one, body=json.dumps(json.loads(one.body) | {"subject": key}).encode())
        for one, key in zip(sample_deliveries(4), keys, strict=True)
    ]
    sink = sink_of(table(tmp_path, server.port, "{scope_id}"))
    with pytest.raises(PartlyDeliveredError) as caught:
        await sink.deliver(batch)
    await sink.close()
    kinds = [type(None), MisconfiguredSinkError, type(None), PermanentDeliveryError]
    assert [type(error) for error in caught.value.errors] == kinds
    assert ids(await drained(server.port, name)) == ["event-0001", "event-0003"]


async def test_a_time_out_on_an_old_connection_leaves_the_new_one(
    server: RabbitServer, name: str, tmp_path: Path
) -> None:
    """Who had waited over the line that was let go of does not tear down what others use by now."""
    await queue(server.port, name)
    sink: Any = sink_of(table(tmp_path, server.port, name))
    await sink.deliver(sample_deliveries(1))
    old = await sink._link.line()
    sink._link.drop(old)
    new = await sink._link.line()
    sink._link.drop(old)
    assert await sink._link.line() is new
    assert new.is_open
    await sink.close()
    assert new.connection.is_closed


async def test_a_connection_that_breaks_is_said_to_have(
    server: RabbitServer, name: str, tmp_path: Path
) -> None:
    """Not that time ran out: the client cancels whoever waits for a confirm."""
    await queue(server.port, name)
    sink: Any = sink_of(table(tmp_path, server.port, name, timeout=30))
    await sink.deliver(sample_deliveries(1))
    with server.hanging():
        waiting = asyncio.create_task(sink.deliver(sample_deliveries(1)))
        while not (await sink._link.line()).connection.transport.connection.channels[1].confirmations:
            await asyncio.sleep(0.01)
        await (await sink._link.line()).connection.close()
        with pytest.raises(TransientDeliveryError) as caught:
            await waiting
    assert "within" not in str(caught.value)
    await until_delivered(sink, sample_deliveries(1)[0])
    await sink.close()


async def test_a_connection_that_hangs_is_made_in_the_background(name: str, tmp_path: Path) -> None:
    """Somebody who accepts and says nothing is a sink that is down after its timeout, and closing waits for nobody."""

    async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()
        writer.close()

    async with await asyncio.start_server(silent, "127.0.0.1", port := free_port()):
        sink = sink_of(table(tmp_path, port, name, timeout=0.5))
        with pytest.raises(TransientDeliveryError, match=r"no connection within 0\.5 s"):
            await sink.deliver(sample_deliveries(1))
        await sink.close()
        await asyncio.sleep(0)


async def test_tls_trusts_whom_it_is_told_to(tmp_path: Path, name: str) -> None:
    """With `ca_bundle` the broker's certificate is enough; without it is not."""
    certificate, key, tls = tmp_path / "server.pem", tmp_path / "server.key", free_port()
    await asyncio.to_thread(make_certificate, certificate, key)
    configuration = (
        f"listeners.ssl.default = {tls}",
        f"ssl_options.certfile = {certificate}",
        f"ssl_options.keyfile = {key}",
    )
    url = tmp_path / "url"
    url.write_text(f"amqps://guest:guest@localhost:{tls}")
    with running(RabbitServer(tmp_path, *configuration)) as server:
        await queue(server.port, name)
        sink = sink_of(made("amqp", name="bus", url_file=url, routing_key=name, ca_bundle=certificate))
        await sink.deliver(sample_deliveries(1))
        await sink.close()
        error = await failure(sink_of(made("amqp", name="bus", url_file=url, routing_key=name)))
        assert "the certificate is not trusted" in str(error)
        assert ids(await drained(server.port, name)) == ["event-0001"]


async def test_the_pages_consumer_prints_what_changed(server: RabbitServer, tmp_path: Path) -> None:
    """docs/sink-amqp.md, run as it stands: it declares exchange and queue, prints each event once and confirms it."""
    deliveries = summarised(3)
    sink = sink_of(table(tmp_path, server.port, "rooms.{tenant_key}.{scope_id}", exchange="rooms"))
    code = example("amqp", {"user:password@rabbit.corp": f"guest:guest@127.0.0.1:{server.port}"})
    async with consumer(code) as lines:
        async with asyncio.timeout(patience(30)):
            for delivery in deliveries:
                while True:
                    with contextlib.suppress(MisconfiguredSinkError):  # it has not declared them yet
                        await sink.deliver([delivery])
                        break
                    await asyncio.sleep(0.05)
        await sink.close()
        assert await lines(3) == as_printed(deliveries)


@pytest.mark.parametrize(
    "keys",
    [{"routing_key": ""}, {"routing_key": "{room}"}, {"exchange": "x" * 256}, {"client_key_file": "key.pem"}],
)
def test_mistakes_in_the_settings(keys: dict[str, Any]) -> None:
    """What cannot work is said at the start."""
    with pytest.raises(ValueError, match=r"routing_key|exchange|client_key_file"):
        made("amqp", **({"name": "bus", "url_file": "url", "routing_key": "rooms"} | keys))


def test_check_names_exchange_key_and_broker(tmp_path: Path) -> None:
    """`check` connects to nobody, and says neither user nor password; what has no effect without TLS is an error."""
    url = tmp_path / "url"
    url.write_text(f"amqps://me:{PASSWORD.replace('@', '%40')}@rabbit.corp/vhost")
    keys: dict[str, Any] = {
        "name": "bus",
        "url_file": url,
        "routing_key": "rooms.{scope_id}",
        "exchange": "rooms",
    }
    assert (
        look_over(made("amqp", **keys)) == "exchange rooms, routing key rooms.{scope_id} at rabbit.corp:5671"
    )
    url.write_text("amqp://me@rabbit.corp")
    with pytest.raises(ConfigError, match="no effect without amqps"):
        look_over(made("amqp", **keys, ca_bundle=tmp_path / "ca.pem"))
