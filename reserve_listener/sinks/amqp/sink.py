"""The amqp sink: each event is a persistent message, delivered when the broker has confirmed it.

What must stay true: a message that no queue takes is a failure (`mandatory`), and no confirm is not a no: the message may be
stored all the same. Receivers tell a repeat by `message_id`; RabbitMQ does not.
"""

from __future__ import annotations

import asyncio
import hashlib
import re
from typing import TYPE_CHECKING, Final

from aio_pika import DeliveryMode
from aiormq import exceptions, spec

from reserve_listener.errors import (
    DeliveryError,
    MisconfiguredSinkError,
    PermanentDeliveryError,
    TransientDeliveryError,
)
from reserve_listener.sinks.amqp.kind import LONGEST, place_of
from reserve_listener.sinks.amqp.link import Link
from reserve_listener.sinks.brokers import settings as brokers, together
from reserve_listener.sinks.brokers.saying import Saying
from reserve_listener.sinks.brokers.templates import Template
from reserve_listener.text import visible

if TYPE_CHECKING:
    import ssl
    from collections.abc import Sequence

    from reserve_listener.model import Delivery

CONTENT_TYPE: Final = "application/cloudevents+json"
LOGIN: Final = "check the user, the password, the vhost and the rights in url_file"


class AmqpSink:
    """Publishes to `exchange` with `routing_key`, a template."""

    needs_raw = False
    one_per_scope = True

    def __init__(
        self,
        name: str,
        url: str,
        *,
        exchange: str,
        routing_key: str,
        timeout_s: float = 10.0,
        max_in_flight: int = 64,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        self.name = name
        self.batch_size = together.batch_size(max_in_flight)
        self.max_in_flight = together.calls(max_in_flight)
        self._exchange = exchange
        self._routing_key = Template(routing_key)
        self._timeout_s = timeout_s
        self._say = Saying(place_of(url), brokers.masks(url))
        self._link = Link(name, url, exchange=exchange, timeout_s=timeout_s, tls=tls)

    async def deliver(self, deliveries: Sequence[Delivery]) -> None:
        """See `protocols.Sink.deliver`."""
        outcomes = await together.outcomes(map(self._publish, deliveries), self._timeout_s)
        together.tell(
            [
                None if outcome is None else self._error(outcome, delivery)
                for outcome, delivery in zip(outcomes, deliveries, strict=True)
            ]
        )

    async def close(self) -> None:
        """See `protocols.Sink.close`."""
        await self._link.close()

    async def _publish(self, delivery: Delivery) -> None:
        key = self._routing_key.fill(delivery.body)
        if len(key.encode()) > LONGEST:
            raise PermanentDeliveryError(self._say(f"the routing key is longer than {LONGEST} bytes"))
        line = await self._link.line()
        try:
            await line.publisher.basic_publish(
                delivery.body,
                exchange=self._exchange,
                routing_key=key,
                properties=_properties(delivery),
                mandatory=True,
                wait=False,  # not until each is written: the next would wait for that as well
            )
        except (
            asyncio.CancelledError
        ):  # of nobody who has waited in vain is it known what his channel does next
            self._link.drop(line)
            raise

    def _error(self, outcome: BaseException, delivery: Delivery) -> DeliveryError:
        match outcome:
            case DeliveryError():
                return outcome
            case TimeoutError():
                missing = "connection" if self._link.is_connecting else "confirm"
                return TransientDeliveryError(self._say(f"no {missing} within {self._timeout_s:g} s"))
            case asyncio.CancelledError():
                return TransientDeliveryError(self._say("the connection broke before the confirm came"))
        return self._meaning(outcome, self._routing_key.fill(delivery.body), len(delivery.body))

    def _meaning(self, error: BaseException, key: str, size: int) -> DeliveryError:
        text = str(error)
        if isinstance(error, exceptions.ChannelPreconditionFailed) and (large := _TOO_LARGE.search(text)):
            # The broker closes the channel, and with it goes what else was on its way.
            if int(large[1]) != size:
                return TransientDeliveryError(
                    self._say("another event was larger than the broker takes"), down=False
                )
            return PermanentDeliveryError(self._say(f"the event is larger than the broker takes: {text}"))
        if (wrong := self._misconfigured(error, key)) is not None:
            return MisconfiguredSinkError(self._say(*wrong))
        if isinstance(error, exceptions.DeliveryError):
            return TransientDeliveryError(self._say("the queue refuses it; it may be full"))
        return TransientDeliveryError(self._say(error))

    def _misconfigured(self, error: BaseException, key: str) -> tuple[BaseException | str, str] | None:
        """What a person has to mend, and how; None: it may pass by itself."""
        if isinstance(error, exceptions.PublishError):
            return "unroutable", self._unroutable(key)
        if isinstance(error, exceptions.ChannelNotFoundEntity):
            return error, "declare the exchange first"
        if "Connection.OpenOk" in str(error):  # the client's way to say that the vhost is refused
            return "the vhost is not there, or not for this user", LOGIN
        return (error, LOGIN) if isinstance(error, _REFUSED) else None

    def _unroutable(self, key: str) -> str:
        where = f"exchange {visible(self._exchange)}" if self._exchange else "the default exchange"
        return f"no queue of {where} takes the routing key {visible(key)}: bind one"


_TOO_LARGE: Final = re.compile(r"message size (\d+) is larger than")
_REFUSED: Final = (
    exceptions.AuthenticationError,
    exceptions.ProbableAuthenticationError,
    exceptions.ChannelAccessRefused,
    exceptions.ConnectionNotAllowed,
    exceptions.IncompatibleProtocolError,
)


def _properties(delivery: Delivery) -> spec.Basic.Properties:
    return spec.Basic.Properties(
        content_type=CONTENT_TYPE,
        delivery_mode=DeliveryMode.PERSISTENT,
        message_id=_message_id(delivery.event_id),
    )


def _message_id(event_id: str) -> str:
    """AMQP has no room for a longer id; what stands for it is the same each time."""
    if len(event_id.encode("utf-8", "surrogatepass")) <= LONGEST:
        return event_id
    return f"sha256-{hashlib.sha256(event_id.encode('utf-8', 'surrogatepass')).hexdigest()}"
