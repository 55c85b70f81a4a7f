"""The HTTP sink: each event is POSTed, as CloudEvents JSON or in another `Form`, with Standard Webhooks 1.0.0 headers.

`webhook-id` is the event id, the same over all attempts; `webhook-timestamp` is the attempt's; `webhook-signature` holds
one `v1,` HMAC-SHA256 for each signing secret over `id.timestamp.body`, so that secrets can be rotated.

What must stay true: no text of an error holds a credential of the request or is longer than a line, whatever the receiver,
the proxy and httpx2 put into it.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import hmac
import ssl
import time
from http.cookiejar import CookieJar, DefaultCookiePolicy
from typing import TYPE_CHECKING, Final, Protocol
from urllib.parse import urlsplit

import httpx2

from reserve_listener import __version__
from reserve_listener.config import certificates
from reserve_listener.delivery.retry import retry_after_s
from reserve_listener.errors import (
    DeliveryError,
    MisconfiguredSinkError,
    PermanentDeliveryError,
    SinkGoneError,
    TransientDeliveryError,
)
from reserve_listener.net import causes, proxies, url_secrets
from reserve_listener.redact import redact
from reserve_listener.text import visible

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence
    from pathlib import Path

    from reserve_listener.model import Delivery

CONTENT_TYPE: Final = "application/cloudevents+json"
ANSWER_BYTES: Final = 16 * 1024
"""What is read of an answer; a longer one costs its connection."""
ANSWER_SHOWN_CHARS: Final = 200
ID_CHARS: Final = 256
"""A longer event id is sent as its hash: receivers refuse long headers."""

SUCCESS: Final = range(200, 300)
SERVER_ERRORS: Final = range(500, 600)
PASSING: Final = frozenset({408, 425, 429})
REDIRECTS: Final = range(300, 400)
MISCONFIGURED: Final = frozenset({*REDIRECTS, 401, 402, 403, 404, 405, 407, 421, 451})
GONE: Final = 410
PROXY_AUTHENTICATION: Final = 407


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
    """POSTs to `url`. TLS is verified; redirects are not followed.

    `proxy` goes before the environment's (see `proxies`). `secret_host`: nobody may see where it posts to. The constructor blocks (it reads certificates) and may run in
    any thread; `ConfigError` when they or a proxy are amiss.
    """

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
        self._url = url
        self._timeout_s = timeout_s
        self._signing_keys = tuple(signing_keys)
        self._now_s = now_s
        self._form = form or CloudEvents()
        self.needs_raw = self._form.needs_raw
        self._host = urlsplit(url).hostname or ""
        way = proxies.decide(url, setting=proxy, key=f'sink "{name}": proxy')
        self._place = urlsplit(url).netloc + ("" if way is None else f" through the proxy {way.url}")
        self._secrets = _secrets(
            [
                *self._form.secrets,
                *_of_headers(headers or {}),
                *url_secrets.secret_texts(url),
                *([self._host] if secret_host else []),
                *proxies.login_texts(proxy or ""),
                *proxies.secret_texts(),
            ]
        )
        self._client = httpx2.AsyncClient(
            verify=certificates.client_context(name, ca_bundle, client_cert, client_key),
            proxy=proxies.for_httpx(way, certificates.trusted),
            trust_env=False,
            timeout=timeout_s,
            limits=httpx2.Limits(max_connections=max_in_flight, max_keepalive_connections=max_in_flight),
            follow_redirects=False,
            headers=_constant_headers(headers or {}),
            cookies=_no_cookies(),
        )

    async def deliver(self, deliveries: Sequence[Delivery]) -> None:
        """See `protocols.Sink.deliver`."""
        for delivery in deliveries:
            await self._post(delivery)

    async def close(self) -> None:
        """See `protocols.Sink.close`."""
        await self._client.aclose()

    async def _post(self, delivery: Delivery) -> None:
        body, headers = self._request(delivery)
        response: httpx2.Response | None = None
        answer = b""
        try:
            # httpx2's timeouts are per read and write; a peer that drips bytes must not hold a slot for ever.
            async with (
                asyncio.timeout(self._timeout_s),
                self._client.stream("POST", self._url, content=body, headers=headers) as response,
            ):
                answer = await _bounded_body(response)
        # The status says it all: a body that drips or breaks off must not have the event sent again.
        except TimeoutError as error:
            if response is None:
                text = f"{self._place}: no answer within {self._timeout_s:g} s"
                raise TransientDeliveryError(self._shown(text)) from error
        except httpx2.TransportError as error:
            if response is None:
                raise self._meaning(error) from None  # its text may hold what ours must not
        if response.status_code not in SUCCESS:
            text = self._shown(answer.decode("utf-8", "replace"))
            judged = judge(
                response.status_code, response.headers.get("retry-after"), text, now_s=self._now_s()
            )
            judged.status = response.status_code
            raise judged

    def _request(self, delivery: Delivery) -> tuple[bytes, dict[str, str]]:
        now_s = self._now_s()
        body, headers = self._form.compose(delivery, now_s)
        event_id, timestamp = _webhook_id(delivery.event_id), str(int(now_s))
        headers |= {"webhook-id": event_id, "webhook-timestamp": timestamp}
        if self._signing_keys:
            signed = f"{event_id}.{timestamp}.".encode() + body
            headers["webhook-signature"] = " ".join(sign(key, signed) for key in self._signing_keys)
        return body, headers

    def _meaning(self, error: httpx2.TransportError) -> DeliveryError:
        kind = type(error).__name__
        if isinstance(error, httpx2.LocalProtocolError):
            # It quotes the value, as a Python literal in which a secret may be spelled another way.
            return MisconfiguredSinkError(f"{kind}: the request cannot be sent (check the sink's headers)")
        # The resolver's errors name the host, which has just been said.
        said = (causes.said_by_system(error) or str(error)).replace(f"{self._host}: ", "", 1)
        if any(isinstance(link, ssl.SSLError) for link in causes.chain(error)):
            said = f"TLS: {said}"
        text = f"{kind}: {self._shown(f'{self._place}: {said}' if said else self._place)}"
        if isinstance(error, httpx2.ProxyError) and _status_of(error) in MISCONFIGURED:
            return MisconfiguredSinkError(f"{text} (check the sink's proxy and its credentials)")
        return TransientDeliveryError(text)

    def _shown(self, text: str) -> str:
        """Somebody else's text as one short line without our credentials."""
        line = redact(" ".join(text[:ANSWER_BYTES].split()), self._secrets)
        return visible(line, ANSWER_SHOWN_CHARS)  # cut last: half a secret is not masked


def _constant_headers(headers: Mapping[str, str]) -> httpx2.Headers:
    """Those of every request; `headers` may replace ours here, and none of what belongs to an event."""
    constant = httpx2.Headers(
        {
            "user-agent": f"reserve-listener/{__version__}",
            "accept-encoding": "identity",  # the answer is shown as it comes
        }
    )
    constant.update([(name.encode(), value.encode()) for name, value in headers.items()])
    return constant


def _no_cookies() -> CookieJar:
    """A jar that takes none: a receiver that sets them would get a header back that grows with each answer."""
    return CookieJar(policy=DefaultCookiePolicy(allowed_domains=[]))


def _of_headers(headers: Mapping[str, str]) -> Iterable[str]:
    for name, value in headers.items():
        yield value
        if name.lower() in ("authorization", "proxy-authorization"):
            yield value.partition(" ")[2]  # without "Bearer" or "Basic"


def _secrets(found: Iterable[str]) -> tuple[str, ...]:
    """Those worth masking, the longest first: a short one may be a part of it."""
    stripped = {" ".join(secret.split()) for secret in found}
    return tuple(
        sorted((one for one in stripped if len(one) >= url_secrets.SHORTEST_SECRET), key=len, reverse=True)
    )


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


def judge(status: int, retry_after: str | None, answer: str, *, now_s: float) -> DeliveryError:
    """What an answer other than 2xx means."""
    text = f"HTTP {status}" + (f": {answer}" if answer else "")
    if status in PASSING or status in SERVER_ERRORS:
        wish = retry_after_s(retry_after, now_s=now_s)
        return TransientDeliveryError(text, retry_after=wish, down=status in SERVER_ERRORS)
    if status in MISCONFIGURED:
        return MisconfiguredSinkError(f"{text} ({_advice(status)})")
    if status == GONE:
        return SinkGoneError(text)
    return PermanentDeliveryError(text)


def _advice(status: int) -> str:
    if status in REDIRECTS:
        return "redirects are not followed: set the sink's url to the final address"
    if status == PROXY_AUTHENTICATION:
        return "check the sink's proxy and its credentials"
    return "check the sink's url and credentials"


def _status_of(refusal: httpx2.ProxyError) -> int | None:
    """The proxy's answer to CONNECT, which only stands in the text: "407 Proxy Authentication Required"."""
    status = str(refusal)[:3]
    return int(status) if status.isascii() and status.isdigit() else None


async def _bounded_body(response: httpx2.Response) -> bytes:
    """The beginning of the answer. A short one is read whole, so its connection is kept."""
    body = b""
    async for piece in response.aiter_raw():  # never unpacked: it is only shown
        body += piece[: ANSWER_BYTES - len(body)]
        if len(body) >= ANSWER_BYTES:
            break
    return body
