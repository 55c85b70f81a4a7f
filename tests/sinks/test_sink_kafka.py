"""The kafka sink, with the broker inside librdkafka. What that cannot do, logins and refusals, is tried on error objects."""

from __future__ import annotations

import asyncio
import json
from contextlib import ExitStack, asynccontextmanager
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import pytest
from confluent_kafka import OFFSET_BEGINNING, Consumer, KafkaError, TopicPartition
from msgspec.structs import replace

from reserve_listener.errors import (
    DeliveryError,
    MisconfiguredSinkError,
    PartlyDeliveredError,
    PermanentDeliveryError,
    TransientDeliveryError,
)
from reserve_listener.simulator import patience
from reserve_listener.sinks.kafka import sink as kafka
from reserve_listener.sinks.registry import look_over, make_sink_spec
from reserve_listener.testing import SinkContract, SinkWorld, sample_deliveries
from tests.brokers import MockKafka, as_printed, consumer, example, running, summarised
from tests.configuring import made
from tests.helpers import free_port

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator
    from pathlib import Path

    from confluent_kafka import Message

    from reserve_listener.config import SinkTable
    from reserve_listener.protocols import Sink

pytestmark = pytest.mark.slow
PASSWORD = "k4fka-p@ss-word"


async def nowhere(_: object) -> None:
    """No log sink is made with it."""


def sink_of(table: SinkTable) -> Sink:
    """The sink as the daemon makes it."""
    return make_sink_spec(table, nowhere).sink


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[MockKafka]:
    """One for all tests; each has a topic of its own."""
    with running(MockKafka(tmp_path_factory.mktemp("kafka"))) as server:
        yield server


@pytest.fixture
def topic() -> str:
    """What nobody else has."""
    return f"rooms-{uuid4().hex}"


def table(port: int, topic: str, **keys: Any) -> SinkTable:
    """A sink to it."""
    return made("kafka", **({"name": "bus", "bootstrap_servers": f"127.0.0.1:{port}", "topic": topic} | keys))


def messages(port: int, topic: str) -> list[Message]:
    """All that is in a topic, in the order in which it was produced; those of one millisecond, which partitions do not order, by id."""
    reader = Consumer(
        {"bootstrap.servers": f"127.0.0.1:{port}", "group.id": uuid4().hex, "enable.partition.eof": True}
    )
    found: list[Message] = []
    try:
        told = reader.list_topics(topic, timeout=patience(10)).topics[topic].partitions
        reader.assign([TopicPartition(topic, partition, OFFSET_BEGINNING) for partition in told])
        ends = 0
        while ends < len(told):
            message = reader.poll(patience(10))
            assert message is not None
            error = message.error()
            if error is None:
                found.append(message)
            else:
                assert error.code() == KafkaError._PARTITION_EOF
                ends += 1
    finally:
        reader.close()
    return sorted(found, key=lambda message: (message.timestamp()[1], *ids([message])))


def ids(found: list[Message]) -> list[str]:
    """Which events they are."""
    return [json.loads(message.value() or b"")["id"] for message in found]


class TestKafka(SinkContract):
    """A broker, none, and one that hangs. The mock broker forgets all in the end, so each test has one."""

    folder: Path

    @pytest.fixture(autouse=True)
    def _folder(self, tmp_path: Path) -> None:
        self.folder = tmp_path

    @asynccontextmanager
    async def world(self) -> AsyncIterator[SinkWorld]:
        topic = f"rooms-{uuid4().hex}"
        (self.folder / "password").write_text(PASSWORD)
        with running(MockKafka(self.folder)) as server, ExitStack() as leaving:
            yield SinkWorld(
                make=lambda: sink_of(table(server.port, topic, timeout=2, max_in_flight=4)),
                delivered=lambda: ids(messages(server.port, topic)),
                refuse=server.kill,
                hang=lambda: leaving.enter_context(server.hanging()),
            )


def murmur2(key: bytes) -> int:
    """The hash of Kafka's Java clients, written from its description."""
    mask, m = 0xFFFFFFFF, 0x5BD1E995
    h = 0x9747B28C ^ len(key)
    whole = len(key) // 4 * 4
    for start in range(0, whole, 4):
        k = int.from_bytes(key[start : start + 4], "little") * m & mask
        k = (k ^ k >> 24) * m & mask
        h = (h * m & mask) ^ k
    if key[whole:]:
        h = (h ^ int.from_bytes(key[whole:], "little")) * m & mask
    h = (h ^ h >> 13) * m & mask
    return h ^ h >> 15


async def test_a_message_has_its_key_its_headers_and_its_partition(server: MockKafka, topic: str) -> None:
    """The key is the room, and the partition the one that Java's clients choose for it."""
    sink = sink_of(table(server.port, f"{topic}.{{scope_type}}"))
    for delivery in sample_deliveries(20):
        await sink.deliver([delivery])
    await sink.close()
    found = await asyncio.to_thread(messages, server.port, f"{topic}.room")
    assert ids(found) == [delivery.event_id for delivery in sample_deliveries(20)]
    for message in found:
        key = message.key() or b""
        assert key.decode() == json.loads(message.value() or b"")["subject"]
        assert message.partition() == (murmur2(key) & 0x7FFFFFFF) % 4
    assert found[0].headers() == [("content-type", b"application/cloudevents+json"), ("ce_id", b"event-0001")]
    assert len({message.partition() for message in found}) > 1


def test_murmur2_is_javas() -> None:
    """The values that Kafka's own tests expect."""
    signed = {b"21": -973932308, b"foobar": -790332482, b"a-little-bit-long-string": -985981536}
    assert {key: (murmur2(key) ^ 0x80000000) - 0x80000000 for key in signed} == signed


def test_what_the_client_is_told(tmp_path: Path) -> None:
    """All replicas, idempotent, its own times within ours, no gathering of messages for a second; login and TLS from files."""
    (tmp_path / "password").write_text(PASSWORD)
    keys = {"sasl_mechanism": "PLAIN", "sasl_user": "me", "sasl_password_file": tmp_path / "password"}
    sink: Any = sink_of(table(9092, "rooms", tls=True, timeout=5, **keys))
    told = sink._options
    assert (told["acks"], told["enable.idempotence"], told["partitioner"]) == ("all", True, "murmur2_random")
    assert told["message.timeout.ms"] == told["request.timeout.ms"] == 5000
    assert told["linger.ms"] == 0
    assert told["security.protocol"] == "SASL_SSL"
    assert (told["sasl.username"], told["sasl.password"]) == ("me", PASSWORD)


async def test_a_broker_that_is_away_is_a_sink_that_is_down(tmp_path: Path, topic: str) -> None:
    """No report, no delivery: what was only queued when the broker went is a failure, and says why."""
    sink = sink_of(table(free_port(), topic, timeout=1))
    with pytest.raises(TransientDeliveryError, match="Connection refused"):
        await sink.deliver(sample_deliveries(1))
    await sink.close()
    with running(MockKafka(tmp_path)) as server:
        sink = sink_of(table(server.port, topic, timeout=2))
        await sink.deliver(sample_deliveries(1))
        server.kill()
        outcomes = await asyncio.gather(
            *(sink.deliver([one]) for one in sample_deliveries(5)), return_exceptions=True
        )
        assert all(isinstance(outcome, TransientDeliveryError) for outcome in outcomes)
    await sink.close()


async def test_what_the_client_has_no_room_for_is_tried_again(topic: str) -> None:
    """Its queue is bounded: with brokers away it fills with deliveries whose time is not over, and says so at once."""
    sink: Any = sink_of(table(free_port(), topic, timeout=1))
    sink._options["queue.buffering.max.messages"] = 1
    outcomes = await asyncio.gather(
        *(sink.deliver([one]) for one in sample_deliveries(3)), return_exceptions=True
    )
    await sink.close()
    assert all(isinstance(outcome, TransientDeliveryError) for outcome in outcomes)
    assert ["too much waits" in str(outcome) for outcome in outcomes] == [False, True, True]


async def test_each_event_of_a_batch_has_an_outcome_of_its_own(server: MockKafka, topic: str) -> None:
    """One that the client itself refuses is a failure; those around it are delivered."""
    batch = sample_deliveries(3)
    padded = json.dumps(json.loads(batch[1].body) | {"padding": "x" * kafka.LARGEST}).encode()
    batch[1] = replace(batch[1], body=padded)
    sink = sink_of(table(server.port, topic))
    with pytest.raises(PartlyDeliveredError) as caught:
        await sink.deliver(batch)
    await sink.close()
    kinds = [type(error) for error in caught.value.errors]
    assert kinds == [type(None), PermanentDeliveryError, type(None)]
    assert sorted(ids(await asyncio.to_thread(messages, server.port, topic))) == ["event-0001", "event-0003"]


async def test_an_old_error_is_not_the_reason_of_a_later_time_out(tmp_path: Path, topic: str) -> None:
    """What the client once said of a broker is over with the next message that is delivered."""
    with running(MockKafka(tmp_path)) as server:
        sink: Any = sink_of(table(server.port, topic, timeout=patience(4)))
        await sink.deliver(sample_deliveries(1))
        sink._producing._failed(KafkaError(KafkaError._AUTHENTICATION, "the password was wrong"))
        await sink.deliver(sample_deliveries(1))
        with server.hanging(), pytest.raises(TransientDeliveryError):
            await sink.deliver(sample_deliveries(1))
        await sink.close()


async def test_a_broker_that_hangs_for_a_while_gets_each_event_once(tmp_path: Path, topic: str) -> None:
    """The client repeats what got no answer; an idempotent producer's repeats are known to the broker."""
    with running(MockKafka(tmp_path)) as server:
        sink = sink_of(table(server.port, topic, timeout=30))
        await sink.deliver(sample_deliveries(1))
        with server.hanging():
            attempts = [asyncio.create_task(sink.deliver([one])) for one in sample_deliveries(6)[1:]]
            await asyncio.wait(attempts, timeout=1)  # so long it hears, and answers nothing
        await asyncio.gather(*attempts)
        await sink.close()
        found = await asyncio.to_thread(messages, server.port, topic)
        assert sorted(ids(found)) == [one.event_id for one in sample_deliveries(6)]


async def test_a_producer_that_will_never_send_again_is_replaced(server: MockKafka, topic: str) -> None:
    """After a fatal error of librdkafka's the next delivery has a producer of its own."""
    sink: Any = sink_of(table(server.port, topic))
    await sink.deliver(sample_deliveries(1))
    first = sink._producing
    first._failed(KafkaError(KafkaError._FATAL, "out of sequence", fatal=True))
    await sink.deliver(sample_deliveries(2)[1:])
    assert sink._producing is not first
    await asyncio.wait_for(first.ended(), patience(10))
    await sink.close()
    assert ids(await asyncio.to_thread(messages, server.port, topic)) == ["event-0001", "event-0002"]


@pytest.mark.parametrize(
    ("code", "before", "kind", "text"),
    [
        (KafkaError.MSG_SIZE_TOO_LARGE, None, PermanentDeliveryError, "larger than the broker takes"),
        (KafkaError.UNKNOWN_TOPIC_OR_PART, None, MisconfiguredSinkError, "create the topic rooms"),
        (KafkaError._UNKNOWN_TOPIC, None, MisconfiguredSinkError, "create the topic rooms"),
        (KafkaError.TOPIC_AUTHORIZATION_FAILED, None, MisconfiguredSinkError, "login and its rights"),
        (
            KafkaError._MSG_TIMED_OUT,
            KafkaError._AUTHENTICATION,
            MisconfiguredSinkError,
            "login and its rights",
        ),
        (KafkaError._MSG_TIMED_OUT, KafkaError._TRANSPORT, TransientDeliveryError, "because"),
        (KafkaError._MSG_TIMED_OUT, None, TransientDeliveryError, "not confirmed within 10 s"),
        (KafkaError.NOT_ENOUGH_REPLICAS, None, TransientDeliveryError, "because"),
        (KafkaError.OUT_OF_ORDER_SEQUENCE_NUMBER, None, TransientDeliveryError, "because"),
    ],
)
def test_what_an_error_means(code: int, before: int | None, kind: type[DeliveryError], text: str) -> None:
    """Too large is for good; no topic, no rights and a wrong password are for a person; the rest passes. A password is not told."""
    sink = kafka.KafkaSink("bus", "broker:9092", topic="rooms", secrets=(PASSWORD,))
    earlier = None if before is None else KafkaError(before, f"because of {PASSWORD}")
    found = sink._meaning(KafkaError(code, f"because of {PASSWORD}"), earlier, "rooms")
    assert type(found) is kind
    assert text in str(found)
    assert PASSWORD not in str(found)


async def test_the_pages_consumer_prints_what_changed(server: MockKafka) -> None:
    """docs/sink-kafka.md, run as it stands: it prints each event."""
    deliveries = summarised(3)
    sink = sink_of(table(server.port, "rooms"))
    for delivery in deliveries:
        await sink.deliver([delivery])
    await sink.close()
    async with consumer(example("kafka", {"kafka.corp:9092": f"127.0.0.1:{server.port}"})) as lines:
        assert sorted(await lines(3)) == sorted(as_printed(deliveries))


@pytest.mark.parametrize(
    "keys",
    [
        {"bootstrap_servers": ""},
        {"bootstrap_servers": "kafka://h:9092"},
        {"bootstrap_servers": f"me:{PASSWORD}@h:9092"},
        {"bootstrap_servers": "h:9092, :1"},
        {"topic": "{room}"},
        {"sasl_user": "me"},
        {"sasl_mechanism": "GSSAPI"},
        {"ca_bundle": "ca.pem"},
    ],
)
def test_mistakes_in_the_settings(keys: dict[str, Any]) -> None:
    """What cannot work is said at the start, and a password in the open configuration is one of these."""
    with pytest.raises(ValueError, match=r"bootstrap_servers|topic|sasl|ca_bundle") as caught:
        made("kafka", **({"name": "bus", "bootstrap_servers": "h:9092", "topic": "rooms"} | keys))
    assert PASSWORD not in str(caught.value)


def test_check_names_topic_and_brokers() -> None:
    """`check` connects to nobody."""
    assert look_over(table(9092, "rooms.{tenant_key}")) == "topic rooms.{tenant_key} at 127.0.0.1:9092"
