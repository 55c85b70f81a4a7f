"""The HTTP sink: each event is POSTed as CloudEvents JSON with Standard Webhooks 1.0.0 headers.

`webhook-id` is the event id, the same over all attempts; `webhook-timestamp` is the attempt's; `webhook-signature` holds
one `v1,` HMAC-SHA256 for each signing secret over `id.timestamp.body`, so that secrets can be rotated.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import hmac
import ssl
import time
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, Final

import httpx2

from reserve_listener import __version__
from reserve_listener.errors import (
    DeliveryError,
    MisconfiguredSinkError,
    PermanentDeliveryError,
    TransientDeliveryError,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from reserve_listener.model import Delivery

CONTENT_TYPE: Final = "application/cloudevents+json"
ANSWER_BYTES: Final = 16 * 1024
"""What is read of an answer; a longer one costs its connection."""
ANSWER_SHOWN_CHARS: Final = 200

SUCCESS: Final = range(200, 300)
SERVER_ERRORS: Final = range(500, 600)
PASSING: Final = frozenset({408, 425, 429})
MISCONFIGURED: Final = frozenset({401, 403, 404, 405, 407, 410})


class HttpSink:
    """POSTs to `url`. TLS is verified; redirects are not followed."""

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
        now_s: Callable[[], float] = time.time,
    ) -> None:
        self.name = name
        self.max_in_flight = max_in_flight
        self._url = url
        self._timeout_s = timeout_s
        self._signing_keys = tuple(signing_keys)
        self._now_s = now_s
        self._client = httpx2.AsyncClient(
            verify=ssl.create_default_context(cafile=str(ca_bundle)) if ca_bundle else True,
            timeout=timeout_s,
            limits=httpx2.Limits(max_connections=max_in_flight, max_keepalive_connections=max_in_flight),
            follow_redirects=False,
            headers={
                "content-type": CONTENT_TYPE,
                "user-agent": f"reserve-listener/{__version__}",
                "accept-encoding": "identity",  # the answer is shown as it comes
            },
        )

    async def deliver(self, deliveries: Sequence[Delivery]) -> None:
        """See `protocols.Sink.deliver`."""
        for delivery in deliveries:
            await self._post(delivery)

    async def close(self) -> None:
        """See `protocols.Sink.close`."""
        await self._client.aclose()

    async def _post(self, delivery: Delivery) -> None:
        headers = self._headers(delivery)
        response: httpx2.Response | None = None
        answer = ""
        try:
            # httpx2's timeouts are per read and write; a peer that drips bytes must not hold a slot for ever.
            async with (
                asyncio.timeout(self._timeout_s),
                self._client.stream("POST", self._url, content=delivery.body, headers=headers) as response,
            ):
                answer = await _bounded_body(response)
        # The status says it all: a body that drips or breaks off must not have the event sent again.
        except TimeoutError as error:
            if response is None:
                raise TransientDeliveryError(f"no answer within {self._timeout_s:g} s") from error
        except httpx2.TransportError as error:
            if response is None:
                raise TransientDeliveryError(_describe(error)) from error
        if response.status_code not in SUCCESS:
            raise judge(
                response.status_code, response.headers.get("retry-after"), answer, now_s=self._now_s()
            )

    def _headers(self, delivery: Delivery) -> dict[str, str]:
        timestamp = str(int(self._now_s()))
        # A header is ASCII; an id that is not still has to be the same for every attempt.
        event_id = delivery.event_id.encode("ascii", "backslashreplace").decode()
        event_id = "".join(c if c.isprintable() and c != " " else f"\\x{ord(c):02x}" for c in event_id)
        headers = {"webhook-id": event_id, "webhook-timestamp": timestamp}
        if self._signing_keys:
            signed = f"{event_id}.{timestamp}.".encode() + delivery.body
            headers["webhook-signature"] = " ".join(sign(key, signed) for key in self._signing_keys)
        return headers


def sign(key: bytes, signed: bytes) -> str:
    """One entry of `webhook-signature` (Standard Webhooks 1.0.0, symmetric)."""
    return f"v1,{base64.b64encode(hmac.new(key, signed, hashlib.sha256).digest()).decode()}"


def judge(status: int, retry_after: str | None, answer: str, *, now_s: float) -> DeliveryError:
    """What an answer other than 2xx means."""
    text = f"HTTP {status}" + (f": {answer}" if answer else "")
    if status in PASSING or status in SERVER_ERRORS:
        return TransientDeliveryError(text, retry_after=_seconds(retry_after, now_s=now_s))
    if status in MISCONFIGURED:
        return MisconfiguredSinkError(f"{text} (check the sink's url and credentials)")
    return PermanentDeliveryError(text)


def _seconds(retry_after: str | None, *, now_s: float) -> float | None:
    """`Retry-After` as seconds from now: a number or an HTTP date (RFC 9110, 10.2.3); None when it is neither."""
    if retry_after is None:
        return None
    value = retry_after.strip()
    if value.isascii() and value.isdigit():
        return float(value[:12])
    try:
        return max(0.0, parsedate_to_datetime(value).timestamp() - now_s)
    except (ValueError, OverflowError):
        return None


async def _bounded_body(response: httpx2.Response) -> str:
    """The beginning of the answer as one printable line. A short one is read whole, so its connection is kept."""
    body = b""
    async for piece in response.aiter_raw():  # never unpacked: it is only shown
        body += piece[: ANSWER_BYTES - len(body)]
        if len(body) >= ANSWER_BYTES:
            break
    text = " ".join(body.decode("utf-8", "replace").split())[:ANSWER_SHOWN_CHARS]
    return "".join(c if c.isprintable() else "?" for c in text)


def _describe(error: httpx2.TransportError) -> str:
    return f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
