"""The nats sink: each event is published to JetStream, and delivered when the stream has acknowledged it.

What must stay true: every message bears `Nats-Msg-Id`. What was sent when the connection broke may be sent once more by the
client itself after it has reconnected, beside our own retry; the stream knows the id and keeps the first.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, Final

from nats import errors
from nats.js.errors import APIError, NoStreamResponseError

from reserve_listener.errors import (
    DeliveryError,
    MisconfiguredSinkError,
    PermanentDeliveryError,
    TransientDeliveryError,
)
from reserve_listener.sinks.brokers import settings as brokers, together
from reserve_listener.sinks.brokers.saying import Saying
from reserve_listener.sinks.brokers.templates import Template, token as as_token
from reserve_listener.sinks.nats.kind import PORT
from reserve_listener.sinks.nats.link import Link
from reserve_listener.text import visible

if TYPE_CHECKING:
    import ssl
    from collections.abc import Sequence

    from reserve_listener.model import Delivery
    from reserve_listener.sinks.nats.credentials import Credentials

CONTENT_TYPE: Final = "application/cloudevents+json"
TOO_LARGE: Final = 10054
"""JetStream: more than the stream's own `max_msg_size`."""
NOT_ENABLED: Final = frozenset({10039, 10076})
PASSING: Final = range(500, 600)
LATER: Final = frozenset({408, 409, 429})


class NatsSink:
    """Publishes to `subject`, a template."""

    needs_raw = False
    one_per_scope = True

    def __init__(
        self,
        name: str,
        servers: Sequence[str],
        *,
        subject: str,
        timeout_s: float = 10.0,
        max_in_flight: int = 64,
        tls: ssl.SSLContext | None = None,
        user: str | None = None,
        password: str | None = None,
        token: str | None = None,
        credentials: Credentials | None = None,
        secrets: Sequence[str] = (),
    ) -> None:
        self.name = name
        self.batch_size = together.batch_size(max_in_flight)
        self.max_in_flight = together.calls(max_in_flight)
        self._subject = Template(subject)
        self._timeout_s = timeout_s
        self._say = Saying(", ".join(brokers.place(server, PORT) for server in servers), secrets)
        options: dict[str, Any] = {"user": user, "password": password, "token": token, "tls": tls}
        if credentials is not None:
            options |= {"user_jwt_cb": credentials.token, "signature_cb": credentials.sign}
        self._link = Link(name, list(servers), options | {"connect_timeout": timeout_s})

    async def deliver(self, deliveries: Sequence[Delivery]) -> None:
        """See `protocols.Sink.deliver`."""
        before, batch = self._link.last_error, together.Batch[Exception](len(deliveries))
        client = None
        try:
            async with asyncio.timeout(self._timeout_s):
                client = await self._link.client()
                for number, delivery in enumerate(deliveries):
                    subject, headers = self._subject.fill(delivery.body), _headers(delivery)
                    await client.answers.ask(
                        batch, number, subject=subject, body=delivery.body, headers=headers
                    )
                await batch.ended()
        except TimeoutError:
            if (
                client is not None and self._link.last_error is before
            ):  # nothing was said: the connection is in doubt
                self._link.drop(client)
        except (errors.Error, OSError) as error:  # there is no connection
            batch.outcomes[:] = [error] * len(deliveries)
        finally:
            if client is not None:
                client.answers.forget(batch)
        missing = "connection" if client is None else "acknowledgement"
        together.tell(
            [
                None if outcome is None else self._error(outcome, before, delivery, missing)
                for outcome, delivery in zip(batch.outcomes, deliveries, strict=True)
            ]
        )

    async def close(self) -> None:
        """See `protocols.Sink.close`."""
        await self._link.close()

    def _error(
        self, outcome: BaseException, before: Exception | None, delivery: Delivery, missing: str
    ) -> DeliveryError:
        """`before`: what the client had said last; what it has said since concerned this event, or all.

        `missing`: what has been waited for, if in vain.
        """
        if type(outcome) is TimeoutError:
            if (said := self._link.last_error) is None or said is before:
                return TransientDeliveryError(self._say(f"no {missing} within {self._timeout_s:g} s"))
            outcome = said
        return self._meaning(outcome, self._subject.fill(delivery.body))

    def _meaning(self, error: BaseException, subject: str) -> DeliveryError:
        if isinstance(error, errors.MaxPayloadError) or getattr(error, "err_code", None) == TOO_LARGE:
            return PermanentDeliveryError(
                self._say("the event is larger than the server or the stream takes")
            )
        if isinstance(error, APIError):
            return self._refused(error)
        if (advice := _advice(error, subject)) is not None:
            return MisconfiguredSinkError(self._say(error, advice))
        return TransientDeliveryError(self._say(error))

    def _refused(self, error: APIError) -> DeliveryError:
        text = error.description or str(error)
        if error.err_code in NOT_ENABLED:
            return MisconfiguredSinkError(self._say(text, "enable JetStream for the server and the account"))
        if error.code in PASSING or error.code in LATER:
            return TransientDeliveryError(self._say(text))  # full, or without a leader
        return MisconfiguredSinkError(self._say(text, "check the stream"))


def _advice(error: BaseException, subject: str) -> str | None:
    """What a person has to mend; None: it may pass by itself."""
    text = str(error).lower()
    if isinstance(error, NoStreamResponseError):
        return f"no stream takes the subject {visible(subject)}: add it to one, or change the sink's subject"
    if "authorization" in text or "authentication" in text or "permissions violation" in text:
        return "check the sink's login and its permissions"
    if isinstance(error, errors.SecureConnWantedError):
        return "the server does not offer TLS; use nats:// if that is meant"
    return "check the sink's subject" if isinstance(error, errors.BadSubjectError) else None


def _headers(delivery: Delivery) -> dict[str, str]:
    """An id is foreign text: it must not end its line."""
    return {"Nats-Msg-Id": as_token(delivery.event_id), "Content-Type": CONTENT_TYPE}
