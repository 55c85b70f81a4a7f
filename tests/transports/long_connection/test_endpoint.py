"""Asking the platform where to connect, against a real server, and reading what it says."""

from __future__ import annotations

import asyncio
import contextlib
import gzip
import json
import time
from typing import TYPE_CHECKING, Any

import pytest
from starlette.applications import Starlette
from starlette.responses import Response
from starlette.routing import Route

from reserve_listener.net.reaching import UnreachableError
from reserve_listener.simulator import HttpServer, patience
from reserve_listener.transports.long_connection import endpoint
from reserve_listener.transports.long_connection.failures import (
    EndpointError,
    Kind,
    classify,
)

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from starlette.requests import Request

APP_ID, SECRET = "cli_5a1e7c0ffee5a1e7", "s3cr3t-of-the-app"
URL = "wss://gateway.example/ws/v2?device_id=123&service_id=456&access_key=AAAA&ticket=BBBB"
CONFIG = {"ReconnectCount": -1, "ReconnectInterval": 120, "ReconnectNonce": 30, "PingInterval": 120}


@contextlib.asynccontextmanager
async def answering(
    response: Response, *, delay: asyncio.Event | None = None
) -> AsyncIterator[tuple[str, list[Any]]]:
    """An endpoint that gives this answer, and the requests that it got."""
    requests: list[Any] = []

    async def answer(request: Request) -> Response:
        requests.append((request.method, request.url.path, request.headers, await request.json()))
        if delay is not None:
            await delay.wait()
        return response

    app = Starlette(routes=[Route("/{path:path}", answer, methods=["GET", "POST"])])
    async with HttpServer(app) as server:
        yield server.url, requests


async def fetch(domain: str, *, timeout_s: float = 5.0) -> endpoint.Endpoint:
    return await endpoint.fetch(domain=domain, app_id=APP_ID, app_secret=SECRET, timeout_s=timeout_s)


def ok(**data: Any) -> bytes:
    return json.dumps({"code": 0, "msg": "", "data": {"URL": URL, "ClientConfig": CONFIG, **data}}).encode()


async def test_a_good_answer() -> None:
    """One POST with the credentials to the platform's path gives the address and what the platform wishes."""
    async with answering(Response(ok())) as (url, requests):
        place = await fetch(url + "/")
    assert place == endpoint.Endpoint(url=URL, client_config=CONFIG)
    [(method, path, headers, body)] = requests
    assert (method, path, body) == ("POST", "/callback/ws/endpoint", {"AppID": APP_ID, "AppSecret": SECRET})
    assert headers["user-agent"].startswith("reserve-listener/")


@pytest.mark.parametrize("code", [1, 403, 514, 1000040343, 1000040344, 1000040346, 1000040350, 77])
async def test_refusal_codes(code: int) -> None:
    """A code other than 0 is an error with that code, the platform's words and the server's wish."""
    answer = Response(json.dumps({"code": code, "msg": "why"}), headers={"Retry-After": "4"})
    async with answering(answer) as (url, _):
        with pytest.raises(EndpointError, match=r"^why$") as caught:
            await fetch(url)
    assert (caught.value.code, caught.value.status, caught.value.retry_after) == (code, None, "4")


@pytest.mark.parametrize("status", [201, 302, 401, 403, 404, 429, 500, 502, 503])
async def test_http_statuses(status: int) -> None:
    """An HTTP status other than 200 is an error with that status, also beside a good body; no redirect is followed."""
    answer = Response(ok(), status_code=status, headers={"Retry-After": "4", "Location": "/elsewhere"})
    async with answering(answer) as (url, requests):
        with pytest.raises(EndpointError, match=f"^HTTP {status}$") as caught:
            await fetch(url)
    assert (caught.value.code, caught.value.status, caught.value.retry_after) == (None, status, "4")
    assert len(requests) == 1


@pytest.mark.parametrize(
    "body", [b"", b"<html>captive portal</html>", b"\xff\xfe", b"[]", b"[" * 60_000, b"{}", b'{"code": "0"}']
)
async def test_garbage(body: bytes) -> None:
    """What is not the platform's JSON is an error that says so."""
    async with answering(Response(body)) as (url, _):
        with pytest.raises(EndpointError, match="not the platform's JSON"):
            await fetch(url)


@pytest.mark.parametrize("packed", [False, True])
async def test_an_answer_without_end(packed: bool) -> None:  # noqa: FBT001  # a column of the table
    """An answer longer than any of the platform's is not read to its end, nor unpacked."""
    body = b" " * 10_000_000
    answer = Response(
        gzip.compress(body) if packed else body, headers={"content-encoding": "gzip"} if packed else {}
    )
    async with answering(answer) as (url, _):
        with pytest.raises(EndpointError, match="too long"):
            await fetch(url)


async def test_an_endpoint_that_stalls() -> None:
    """Without an answer the call ends after its timeout, as a failure that may pass."""
    async with answering(Response(ok()), delay=asyncio.Event()) as (url, _):
        started = time.monotonic()
        with pytest.raises(UnreachableError, match="no answer in time") as caught:
            await fetch(url, timeout_s=0.2)
        assert time.monotonic() - started < patience(2)
    assert classify(caught.value).kind is Kind.PASSING


async def test_an_endpoint_that_drips() -> None:
    """The timeout counts for the whole call: bytes that trickle in do not prolong it."""
    gone = asyncio.Event()

    async def drip(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError):
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 10000\r\n\r\n")
            while True:
                writer.write(b" ")
                await writer.drain()
                await asyncio.sleep(0.02)
        writer.close()
        gone.set()

    server = await asyncio.start_server(drip, "127.0.0.1", 0)
    async with server:
        port = server.sockets[0].getsockname()[1]
        started = time.monotonic()
        with pytest.raises(UnreachableError, match="no answer in time"):
            await fetch(f"http://127.0.0.1:{port}", timeout_s=0.3)
        assert time.monotonic() - started < patience(2)
        await asyncio.wait_for(gone.wait(), patience(5))


async def test_nobody_listens() -> None:
    """A refused connection is a failure that may pass."""
    async with answering(Response(b"")) as (url, _):
        pass
    with pytest.raises(UnreachableError, match="Connection refused") as caught:
        await fetch(url)
    assert classify(caught.value).kind is Kind.PASSING


@pytest.mark.parametrize("client_config", [None, [], "x", 5])
async def test_a_client_config_that_is_none(client_config: Any) -> None:
    """Without a usable ClientConfig the address is used all the same."""
    async with answering(Response(ok(ClientConfig=client_config))) as (url, _):
        assert await fetch(url) == endpoint.Endpoint(url=URL, client_config={})


BAD_URLS = [
    None, 5, "", "gateway", "https://h/?device_id=1&service_id=2", "wss:///ws?device_id=1&service_id=2",
    "wss://h/ws", "wss://h/ws?device_id=1", "wss://h/ws?service_id=2", "wss://h/ws?device_id=&service_id=2",
    "wss://h/ws?device_id=1&service_id=", "wss://h/ws?device_id=1&service_id=x", "wss://h/ws?device_id=1&service_id=0",
    "wss://h/ws?device_id=1&service_id=-2", "wss://h/ws?device_id=1&service_id=2147483648",
    "wss://h:99999/ws?device_id=1&service_id=2", "wss://h:x/ws?device_id=1&service_id=2", "wss://[::1/ws?device_id=1",
    "wss://user@h/ws?device_id=1&service_id=2", "wss://h/ws?device_id=1&service_id=2#part",
]  # fmt: skip


@pytest.mark.parametrize("url", BAD_URLS)
def test_addresses_that_cannot_be_used(url: Any) -> None:
    """What is no WebSocket address with both ids is refused here, before a library quotes it in an error."""
    with pytest.raises(EndpointError, match=r"^the endpoint's answer contains no usable address$"):
        endpoint.read_answer(200, None, ok(URL=url), encrypted=True)


def test_an_address_without_tls() -> None:
    """An https platform may not send us to an unencrypted address; a local one may."""
    plain = URL.replace("wss:", "ws:")
    with pytest.raises(EndpointError, match="without TLS"):
        endpoint.read_answer(200, None, ok(URL=plain), encrypted=True)
    assert endpoint.read_answer(200, None, ok(URL=plain), encrypted=False).url == plain


@pytest.mark.parametrize(
    ("status", "body"),
    [
        (200, {"code": 514, "msg": f"secret {SECRET} is wrong"}),
        (502, {"code": 514, "msg": f"cannot send {{AppID: x, AppSecret: {SECRET}}}"}),
        (200, {"code": 403, "msg": "x" * 190 + SECRET}),
        (200, {"code": 403, "msg": f"go to {URL}"}),
        (200, {"code": 0, "data": {"URL": URL + "#x"}}),
        (200, {"code": 0, "data": {"URL": URL.replace("wss://", "wss://u@")}}),
        (200, {"code": 0, "data": {"URL": URL.replace("wss:", "https:")}}),
        (200, {"code": 0, "data": {"URL": URL.replace("example", "example:99999")}}),
    ],
)
async def test_no_error_holds_a_credential(status: int, body: Any) -> None:
    """Neither the secret, echoed by something on the way, nor the address's keys are in any error."""
    async with answering(Response(json.dumps(body), status_code=status)) as (url, _):
        with pytest.raises(EndpointError) as caught:
            await fetch(url)
    for text in (str(caught.value), repr(caught.value), classify(caught.value).reason):
        assert SECRET[:8] not in text
        assert "AAAA" not in text
        assert "BBBB" not in text
