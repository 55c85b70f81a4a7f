"""Asking the platform where to connect: `POST {domain}/callback/ws/endpoint`.

The answer's URL holds an access_key and a ticket: it is a credential and is never logged.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import parse_qs, urlsplit

import httpx2
import msgspec

from reserve_listener import __version__
from reserve_listener.config import certificates
from reserve_listener.net import proxies
from reserve_listener.net.addresses import is_loopback
from reserve_listener.net.reaching import Reaching
from reserve_listener.redact import redact
from reserve_listener.transports.long_connection.failures import FORBIDDEN, KNOWN_CODES, EndpointError

if TYPE_CHECKING:
    import ssl
    from collections.abc import Mapping

PATH: Final = "/callback/ws/endpoint"
ANSWER_BYTES: Final = 64 * 1024
SHOWN_CHARS: Final = 200
MAX_SERVICE_ID: Final = 2**31 - 1
"""It goes into each ping as an int32."""


@dataclass(frozen=True, slots=True)
class Endpoint:
    """Where to connect. `client_config` is what the platform wishes, as it came: see `timing`."""

    url: str
    client_config: Mapping[str, Any]


async def fetch(
    *, domain: str, app_id: str, app_secret: str, timeout_s: float, proxy: str | None = None
) -> Endpoint:
    """One call, at most `timeout_s` long. Raises `EndpointError`, `ConfigError` or `UnreachableError`.

    `proxy`: the setting; without it the environment decides.
    """
    local = is_loopback(urlsplit(domain).hostname or "")
    way = proxies.decide(domain, setting=proxy, key="lark.proxy")
    reaching = Reaching(domain, proxy=way, setting="lark.domain")
    try:
        with reaching.explained(EndpointError):
            async with asyncio.timeout(timeout_s):
                tls = await _tls(domain, trust_env=not local)
                through = (
                    await asyncio.to_thread(proxies.for_httpx, way, certificates.trusted)
                    if way is not None
                    else None
                )
                async with httpx2.AsyncClient(
                    timeout=timeout_s, proxy=through, trust_env=False, verify=tls
                ) as client:
                    status, retry_after, body = await _ask(client, domain, app_id, app_secret, reaching)
        return read_answer(status, retry_after, body, encrypted=not local, secret=app_secret)
    except EndpointError as error:
        error.where = reaching.where
        raise


async def _ask(
    client: httpx2.AsyncClient, domain: str, app_id: str, app_secret: str, reaching: Reaching
) -> tuple[int, str | None, bytes]:
    """Status, Retry-After and body of the answer."""
    async with client.stream(
        "POST",
        domain.rstrip("/") + PATH,
        json={"AppID": app_id, "AppSecret": app_secret},
        headers={"locale": "en", "user-agent": f"reserve-listener/{__version__}"},
        extensions={"trace": reaching.trace},
    ) as response:
        body = b""
        async for piece in response.aiter_bytes():
            body += piece
            if len(body) > ANSWER_BYTES:
                raise EndpointError("the endpoint's answer is too long", status=response.status_code)
    return response.status_code, response.headers.get("retry-after"), body


async def _tls(domain: str, *, trust_env: bool) -> ssl.SSLContext | bool:
    """httpx2's own, made in a thread: reading the certificates takes some 20 ms. Plain http has no use for it."""
    if urlsplit(domain).scheme == "http":
        return False
    if not trust_env:
        return await asyncio.to_thread(httpx2.create_ssl_context, trust_env=False)
    return await asyncio.to_thread(certificates.trusted)


def read_answer(
    status: int, retry_after: str | None, body: bytes, *, encrypted: bool, secret: str = ""
) -> Endpoint:
    """The answer as an `Endpoint`; `EndpointError` when it is a refusal or not what it should be.

    `secret` is masked in the error, should something on the way echo the request.
    """
    answer = _decode(body)
    message = answer.get("msg") if answer is not None else None
    shown = redact(message, (secret,))[:SHOWN_CHARS] if isinstance(message, str) else ""
    code = answer.get("code") if answer is not None else None
    if status != httpx2.codes.OK and not _is_platforms(code, status):
        raise EndpointError(f"HTTP {status} {shown}".rstrip(), status=status, retry_after=retry_after)
    if answer is None or type(code) is not int:
        raise EndpointError("the endpoint's answer is not the platform's JSON", status=status)
    if code != 0:
        raise EndpointError(shown or "no reason given", code=code, retry_after=retry_after)
    return _endpoint(answer.get("data"), encrypted=encrypted)


def _is_platforms(code: Any, status: int) -> bool:
    """Whether the code beside an HTTP error is the platform's. 403 beside HTTP 403 is how any gateway words a refusal."""
    return type(code) is int and code in KNOWN_CODES and not code == status == FORBIDDEN


def _endpoint(data: Any, *, encrypted: bool) -> Endpoint:
    url = data.get("URL") if isinstance(data, dict) else None
    try:
        parts = urlsplit(url if isinstance(url, str) else "")
        query = parse_qs(parts.query)
        known = (
            parts.scheme in ("ws", "wss")
            and parts.hostname
            and parts.port != 0  # reading it raises for one out of range
            and parts.username is None
            and not parts.fragment
            and query["device_id"]
            and 0 < int(query["service_id"][0]) <= MAX_SERVICE_ID
        )
    except (ValueError, KeyError):
        known = False
    if not known:
        raise EndpointError("the endpoint's answer contains no usable address")
    if encrypted and parts.scheme != "wss":
        raise EndpointError("the endpoint named an address without TLS")
    config = data.get("ClientConfig")
    return Endpoint(url=str(url), client_config=config if isinstance(config, dict) else {})


def _decode(body: bytes) -> dict[str, Any] | None:
    try:
        answer = msgspec.json.decode(body)
    except (ValueError, RecursionError):
        return None
    return answer if isinstance(answer, dict) else None
