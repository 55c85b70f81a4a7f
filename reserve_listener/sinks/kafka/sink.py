"""The kafka sink: each event is a message of a topic, keyed by its room or level, and delivered when all replicas in sync have it.

What must stay true: the same key goes to the partition that Java's clients choose (`murmur2_random`; librdkafka's own choice
is another), so that producers of different make keep one order.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, Final

import msgspec
from confluent_kafka import KafkaError, KafkaException

from reserve_listener.errors import (
    DeliveryError,
    MisconfiguredSinkError,
    PermanentDeliveryError,
    TransientDeliveryError,
)
from reserve_listener.sinks.brokers import together
from reserve_listener.sinks.brokers.saying import Saying
from reserve_listener.sinks.brokers.templates import Template
from reserve_listener.sinks.kafka.producing import POLL_S, Producing, ToProduce
from reserve_listener.text import visible

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from reserve_listener.model import Delivery

CONTENT_TYPE: Final = b"application/cloudevents+json"
ESCAPE: Final = "."
"""Topics may have no %."""
GRACE_S: Final = 2.0
"""The client looks once a second whose time is over."""
LARGEST: Final = 64 * 1024 * 1024
"""Bytes of a message that the client itself refuses; up to there it is the broker who decides."""
TOO_LARGE: Final = frozenset(
    {KafkaError.MSG_SIZE_TOO_LARGE, KafkaError.RECORD_LIST_TOO_LARGE, KafkaError.INVALID_MSG_SIZE}
)
NO_TOPIC: Final = frozenset(
    {KafkaError.UNKNOWN_TOPIC_OR_PART, KafkaError._UNKNOWN_TOPIC, KafkaError.TOPIC_EXCEPTION}  # noqa: SLF001
)
REFUSED: Final = frozenset(
    {
        KafkaError.TOPIC_AUTHORIZATION_FAILED,
        KafkaError.CLUSTER_AUTHORIZATION_FAILED,
        KafkaError.SASL_AUTHENTICATION_FAILED,
        KafkaError._AUTHENTICATION,  # noqa: SLF001  # the client's own errors bear such names
    }
)


class _Event(msgspec.Struct, gc=False):
    subject: str


_decode: Final = msgspec.json.Decoder(_Event).decode


class KafkaSink:
    """Produces to `topic`, a template."""

    needs_raw = False
    one_per_scope = True

    def __init__(
        self,
        name: str,
        bootstrap_servers: str,
        *,
        topic: str,
        timeout_s: float = 10.0,
        max_in_flight: int = 64,
        security: Mapping[str, str] | None = None,
        secrets: Sequence[str] = (),
    ) -> None:
        self.name = name
        self.batch_size = together.batch_size(max_in_flight)
        self.max_in_flight = together.calls(max_in_flight)
        self._topic = Template(topic, escape=ESCAPE)
        self._timeout_s = timeout_s
        self._say = Saying(visible(bootstrap_servers), secrets)
        self._options = options(bootstrap_servers, timeout_s, max_in_flight) | dict(security or {})
        self._producing: Producing | None = None

    async def deliver(self, deliveries: Sequence[Delivery]) -> None:
        """See `protocols.Sink.deliver`."""
        messages, producing = [self._message(delivery) for delivery in deliveries], self._current()
        outcomes = await producing.produce(messages, self._timeout_s + GRACE_S)
        together.tell(
            [
                None if outcome is None else self._error(outcome, producing.last_error, message.topic)
                for outcome, message in zip(outcomes, messages, strict=True)
            ]
        )

    async def close(self) -> None:
        """See `protocols.Sink.close`."""
        producing, self._producing = self._producing, None
        if producing is not None:
            producing.let_go()
            await asyncio.wait([asyncio.ensure_future(producing.ended())], timeout=4 * POLL_S)

    def _message(self, delivery: Delivery) -> ToProduce:
        return ToProduce(
            self._topic.fill(delivery.body),
            key=_decode(delivery.body).subject.encode(),
            value=delivery.body,
            headers=[
                ("content-type", CONTENT_TYPE),
                ("ce_id", delivery.event_id.encode("utf-8", "replace")),
            ],
        )

    def _error(self, outcome: Exception | KafkaError, before: KafkaError | None, topic: str) -> DeliveryError:
        """`before`: what the client said last of brokers, which is why a message timed out."""
        match before or outcome if isinstance(outcome, TimeoutError) else outcome:
            case KafkaException(args=(error, *_)) | (KafkaError() as error):
                return self._meaning(error, before, topic)
            case ValueError() as refused:  # a setting that librdkafka does not like
                return MisconfiguredSinkError(self._say(refused))
            case BufferError():
                return TransientDeliveryError(self._say("too much waits for the brokers"))
            case _:
                return self._unconfirmed()

    def _unconfirmed(self) -> DeliveryError:
        return TransientDeliveryError(self._say(f"not confirmed within {self._timeout_s:g} s"))

    def _current(self) -> Producing:
        if self._producing is None or self._producing.is_dead:
            if self._producing is not None:
                self._producing.let_go()
            self._producing = Producing(self.name, self._options)
        return self._producing

    def _meaning(self, error: KafkaError, before: KafkaError | None, topic: str) -> DeliveryError:
        if error.code() in TOO_LARGE:
            return PermanentDeliveryError(
                self._say(f"the event is larger than the broker takes: {error.str()}")
            )
        if error.code() in NO_TOPIC:
            return MisconfiguredSinkError(self._say(error.str(), f"create the topic {visible(topic)}"))
        if error.code() == KafkaError._MSG_TIMED_OUT:  # noqa: SLF001
            if before is None:
                return self._unconfirmed()
            error = before
        if error.code() in REFUSED:
            return MisconfiguredSinkError(self._say(error.str(), "check the sink's login and its rights"))
        return TransientDeliveryError(self._say(error.str()))


def options(bootstrap_servers: str, timeout_s: float, max_in_flight: int) -> dict[str, Any]:
    """How librdkafka is told what this sink promises. All its times end before ours."""
    milliseconds = max(10, round(timeout_s * 1000))
    return {
        "bootstrap.servers": bootstrap_servers,
        "client.id": "reserve-listener",
        "acks": "all",
        "enable.idempotence": True,
        "partitioner": "murmur2_random",
        # By default a message waits 5 ms for others to go with. Those that there are come together anyway.
        "linger.ms": 0,
        "message.timeout.ms": milliseconds,
        "request.timeout.ms": milliseconds,
        "topic.metadata.propagation.max.ms": min(1000, milliseconds // 2),
        "message.max.bytes": LARGEST,
        # Those whose delivery was cancelled stay in it until their time is over.
        "queue.buffering.max.messages": max(1000, 4 * max_in_flight),
    }
