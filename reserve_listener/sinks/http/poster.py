"""A POST to somebody's URL, and what the answer means: what sinks that speak HTTP share.

What must stay true: no text of an error holds a credential of the request or is longer than a line, whatever the receiver,
the proxy and httpx2 put into it.
"""

from __future__ import annotations

import asyncio
import ssl
from http.cookiejar import CookieJar, DefaultCookiePolicy
from typing import TYPE_CHECKING, Final, NamedTuple
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
    from collections.abc import Iterable, Mapping

ANSWER_BYTES: Final = 16 * 1024
"""What is read of an answer; a longer one costs its connection."""
ANSWER_SHOWN_CHARS: Final = 200

SUCCESS: Final = range(200, 300)
SERVER_ERRORS: Final = range(500, 600)
PASSING: Final = frozenset({408, 425, 429})
REDIRECTS: Final = range(300, 400)
MISCONFIGURED: Final = frozenset({*REDIRECTS, 401, 402, 403, 404, 405, 407, 421, 451})
GONE: Final = 410
PROXY_AUTHENTICATION: Final = 407

FAILED: Final = (
    (httpx2.ConnectError, "cannot connect"),
    (httpx2.ProxyError, "the proxy refuses"),
    (httpx2.RemoteProtocolError, "no proper answer"),
)
"""What a failure on the way is to people, by its kind."""


class Answered(NamedTuple):
    """What the receiver said. `text` is the beginning of `body`, safe to show."""

    status: int
    headers: Mapping[str, str]
    body: bytes
    text: str


class Poster:
    """POSTs to `url`. TLS is verified; redirects are not followed.

    `proxy` goes before the environment's (see `proxies`). `secrets`: what no error may quote, beside the URL, the proxy and
    the headers. `secret_host`: nobody may see where it posts to. `ConfigError` when a proxy is amiss.
    """

    def __init__(
        self,
        name: str,
        url: str,
        *,
        timeout_s: float,
        connections: int,
        tls: ssl.SSLContext,
        headers: Mapping[str, str] | None = None,
        proxy: str | None = None,
        secrets: Iterable[str] = (),
        secret_host: bool = False,
    ) -> None:
        self._url = url
        self._timeout_s = timeout_s
        self._host = urlsplit(url).hostname or ""
        way = proxies.decide(url, setting=proxy, key=f'sink "{name}": proxy')
        self._place = urlsplit(url).netloc + ("" if way is None else f" through the proxy {way.url}")
        self._secrets = _secrets(
            [
                *secrets,
                *_of_headers(headers or {}),
                *url_secrets.secret_texts(url),
                *([self._host] if secret_host else []),
                *proxies.login_texts(proxy or ""),
                *proxies.secret_texts(),
            ]
        )
        self._client = httpx2.AsyncClient(
            verify=tls,
            proxy=proxies.for_httpx(way, certificates.trusted),
            trust_env=False,
            timeout=timeout_s,
            limits=httpx2.Limits(max_connections=connections, max_keepalive_connections=connections),
            follow_redirects=False,
            headers=_constant_headers(headers or {}),
            cookies=_no_cookies(),
        )

    async def post(self, body: bytes, headers: dict[str, str]) -> Answered:
        """What was answered, whatever it was. Raises `DeliveryError` when there was no answer in time."""
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
        except (TimeoutError, httpx2.TimeoutException) as error:
            if response is None:
                text = f"{self._place}: no answer within {self._timeout_s:g} s"
                raise TransientDeliveryError(self.shown(text)) from error
        except httpx2.TransportError as error:
            if response is None:
                raise self._meaning(error) from None  # its text may hold what ours must not
        text = self.shown(answer.decode("utf-8", "replace"))
        return Answered(response.status_code, response.headers, answer, text)

    async def close(self) -> None:
        """Give the connections back."""
        await self._client.aclose()

    def shown(self, text: str) -> str:
        """Somebody else's text as one short line without our credentials."""
        line = redact(" ".join(text[:ANSWER_BYTES].split()), self._secrets)
        return visible(line, ANSWER_SHOWN_CHARS)  # cut last: half a secret is not masked

    def _meaning(self, error: httpx2.TransportError) -> DeliveryError:
        if isinstance(error, httpx2.LocalProtocolError):
            # It quotes the value, as a Python literal in which a secret may be spelled another way.
            return MisconfiguredSinkError("the request cannot be sent (check the sink's headers)")
        # The resolver's errors name the host, which has just been said.
        said = (causes.said_by_system(error) or str(error)).replace(f"{self._host}: ", "", 1)
        if any(isinstance(link, ssl.SSLError) for link in causes.chain(error)):
            said = f"TLS: {said}"
        failed = next(
            (words for kind, words in FAILED if isinstance(error, kind)), "the connection broke off"
        )
        text = self.shown(f"{self._place}: {failed}{f': {said}' if said else ''}")
        if isinstance(error, httpx2.ProxyError) and _status_of(error) in MISCONFIGURED:
            return MisconfiguredSinkError(f"{text} (check the sink's proxy and its credentials)")
        return TransientDeliveryError(text)


def judge(answered: Answered, *, now_s: float) -> DeliveryError:
    """What an answer other than 2xx means."""
    status = answered.status
    text = f"HTTP {status}" + (f": {answered.text}" if answered.text else "")
    judged = _judged(status, text, retry_after_s(answered.headers.get("retry-after"), now_s=now_s))
    judged.status = status
    return judged


def _judged(status: int, text: str, wish_s: float | None) -> DeliveryError:
    if status in PASSING or status in SERVER_ERRORS:
        return TransientDeliveryError(text, retry_after=wish_s, down=status in SERVER_ERRORS)
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


async def _bounded_body(response: httpx2.Response) -> bytes:
    """The beginning of the answer. A short one is read whole, so its connection is kept."""
    body = b""
    async for piece in response.aiter_raw():  # never unpacked: it is only shown
        body += piece[: ANSWER_BYTES - len(body)]
        if len(body) >= ANSWER_BYTES:
            break
    return body
