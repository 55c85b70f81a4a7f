"""The HTTP sink: each event is POSTed, as CloudEvents JSON or in another `Form`, with Standard Webhooks 1.0.0 headers.

`webhook-id` is the event id, the same over all attempts; `webhook-timestamp` is the attempt's; `webhook-signature` holds
one `v1,` HMAC-SHA256 for each signing secret over `id.timestamp.body`, so that secrets can be rotated.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import time
from typing import TYPE_CHECKING, Final, Protocol

from reserve_listener.config import certificates
from reserve_listener.sinks.http.poster import SUCCESS, Poster, judge

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    from reserve_listener.model import Delivery

CONTENT_TYPE: Final = "application/cloudevents+json"
ID_CHARS: Final = 256
"""A longer event id is sent as its hash: receivers refuse long headers."""


class Form(Protocol):
    """What a POST carries: one for each `format` of the configuration."""

    needs_raw: bool
    """Whether it is made of `Delivery.raw`."""
    secrets: tuple[str, ...]
    """What no error may quote."""

    def compose(self, delivery: Delivery, now_s: float) -> tuple[bytes, dict[str, str]]:
        """Body and headers of an attempt at `now_s`. The body means the same each time. Does not block."""


class CloudEvents:
    """`format = "cloudevents"`: the event as it is stored, the same bytes each time."""

    needs_raw = False
    secrets = ()

    def compose(self, delivery: Delivery, now_s: float) -> tuple[bytes, dict[str, str]]:  # noqa: ARG002  # no time in it
        """See `Form`."""
        return delivery.body, {"content-type": CONTENT_TYPE}


class HttpSink:
    """POSTs to `url`, as `Poster` does. The constructor blocks (it reads certificates) and may run in any thread."""

    batch_size = 1

    def __init__(
        self,
        name: str,
        url: str,
        *,
        timeout_s: float = 10.0,
        max_in_flight: int = 16,
        signing_keys: Sequence[bytes] = (),
        ca_bundle: Path | None = None,
        client_cert: Path | None = None,
        client_key: Path | None = None,
        headers: Mapping[str, str] | None = None,
        proxy: str | None = None,
        form: Form | None = None,
        secret_host: bool = False,
        now_s: Callable[[], float] = time.time,
    ) -> None:
        self.name = name
        self.max_in_flight = max_in_flight
        self._signing_keys = tuple(signing_keys)
        self._now_s = now_s
        self._form = form or CloudEvents()
        self.needs_raw = self._form.needs_raw
        self._poster = Poster(
            name,
            url,
            timeout_s=timeout_s,
            connections=max_in_flight,
            tls=certificates.client_context(name, ca_bundle, client_cert, client_key),
            headers=headers,
            proxy=proxy,
            secrets=self._form.secrets,
            secret_host=secret_host,
        )

    async def deliver(self, deliveries: Sequence[Delivery]) -> None:
        """See `protocols.Sink.deliver`."""
        for delivery in deliveries:
            answered = await self._poster.post(*self._request(delivery))
            if answered.status not in SUCCESS:
                raise judge(answered, now_s=self._now_s())

    async def close(self) -> None:
        """See `protocols.Sink.close`."""
        await self._poster.close()

    def _request(self, delivery: Delivery) -> tuple[bytes, dict[str, str]]:
        now_s = self._now_s()
        body, headers = self._form.compose(delivery, now_s)
        event_id, timestamp = _webhook_id(delivery.event_id), str(int(now_s))
        headers |= {"webhook-id": event_id, "webhook-timestamp": timestamp}
        if self._signing_keys:
            signed = f"{event_id}.{timestamp}.".encode() + body
            headers["webhook-signature"] = " ".join(sign(key, signed) for key in self._signing_keys)
        return body, headers


def _webhook_id(event_id: str) -> str:
    """A header is ASCII, and short; what is not still has to be the same for every attempt."""
    text = event_id.encode("ascii", "backslashreplace").decode()
    text = "".join(c if c.isprintable() and c != " " else f"\\x{ord(c):02x}" for c in text)
    if len(text) <= ID_CHARS:
        return text
    return f"sha256-{hashlib.sha256(event_id.encode('utf-8', 'surrogatepass')).hexdigest()}"


def sign(key: bytes, signed: bytes) -> str:
    """One entry of `webhook-signature` (Standard Webhooks 1.0.0, symmetric)."""
    return f"v1,{base64.b64encode(hmac.new(key, signed, hashlib.sha256).digest()).decode()}"
