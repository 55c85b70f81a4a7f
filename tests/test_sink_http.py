"""The HTTP sink against real receivers: what is sent, and what each kind of answer means."""

from __future__ import annotations

import asyncio
import base64
import shutil
import socket
import ssl
import struct
import subprocess
import time
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given, strategies as st
from standardwebhooks.webhooks import Webhook, WebhookVerificationError

from reserve_listener.errors import (
    DeliveryError,
    MisconfiguredSinkError,
    PermanentDeliveryError,
    TransientDeliveryError,
)
from reserve_listener.retry import RETRY_AFTER_LIMIT_S
from reserve_listener.simulator import Answer, HttpServer, Receiver
from reserve_listener.sinks.http import ANSWER_SHOWN_CHARS, HttpSink, judge
from tests.helpers import delivery, event

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable
    from pathlib import Path

KEYS = [b"k" * 24, bytes(range(32)), b"\x00\xff" * 32]


@pytest.fixture
def receiver() -> Receiver:
    return Receiver()


@pytest.fixture
async def url(receiver: Receiver) -> AsyncIterator[str]:
    async with HttpServer(receiver) as server:
        yield f"{server.url}/hook"


@asynccontextmanager
async def sink_to(url: str, **more: Any) -> AsyncIterator[HttpSink]:
    sink = HttpSink("booking", url, **{"timeout_s": 5.0, **more})
    try:
        yield sink
    finally:
        await sink.close()


@asynccontextmanager
async def raw_server(
    answer: Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]],
    context: ssl.SSLContext | None = None,
) -> AsyncIterator[str]:
    """A server that does with a connection what no framework would. Yields host:port."""
    tasks: set[asyncio.Task[Any]] = set()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        tasks.add(task)
        try:
            await reader.readuntil(b"\r\n\r\n")
            await answer(reader, writer)
        except (OSError, asyncio.IncompleteReadError, asyncio.CancelledError):
            pass
        finally:
            writer.transport.abort()

    server = await asyncio.start_server(serve, "127.0.0.1", 0, ssl=context)
    try:
        yield f"127.0.0.1:{server.sockets[0].getsockname()[1]}"
    finally:
        server.close()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await server.wait_closed()


async def failure(url: str, **more: Any) -> DeliveryError:
    async with sink_to(url, **more) as sink:
        with pytest.raises(DeliveryError) as caught:
            await sink.deliver([delivery()])
    return caught.value


# -- what is sent -----------------------------------------------------------------------------------------------------


async def test_the_request_is_a_structured_cloudevent(url: str, receiver: Receiver) -> None:
    """POST to the path with the CloudEvents content type, the body byte for byte, and no signature without a secret."""
    body = event("e-会议").body or b""
    async with sink_to(url) as sink:
        await sink.deliver([delivery(1, body)])
    (request,) = receiver.received
    assert (request.method, request.path, request.body) == ("POST", "/hook", body)
    assert request.headers["content-type"] == "application/cloudevents+json"
    assert request.headers["user-agent"].startswith("reserve-listener/")
    assert "webhook-signature" not in request.headers


async def test_the_id_is_stable_and_the_timestamp_is_the_attempts(url: str, receiver: Receiver) -> None:
    """Over attempts `webhook-id` stays the event's id while `webhook-timestamp` moves on in whole seconds."""
    times = iter([1_000.9, 1_000.9, 1_060.2, 1_060.2, 1_060.2])
    receiver.answer = [503, 200]
    async with sink_to(url, now_s=lambda: next(times)) as sink:
        with pytest.raises(TransientDeliveryError):
            await sink.deliver([delivery(event_id="5e3702a8")])
        await sink.deliver([delivery(event_id="5e3702a8", attempts=1)])
    headers = [request.headers for request in receiver.received]
    assert [one["webhook-id"] for one in headers] == ["5e3702a8", "5e3702a8"]
    assert [one["webhook-timestamp"] for one in headers] == ["1000", "1060"]


@pytest.mark.parametrize(
    "event_id", ["plain", " with blanks ", "会议", "line\r\nbreak: x", "nul\x00", "\x7f", "a.b"]
)
async def test_the_official_library_verifies_the_signature(
    url: str, receiver: Receiver, event_id: str
) -> None:
    """The standardwebhooks package accepts the request with each of the secrets, whatever the id, and with no other."""
    body = event(event_id).body or b""
    async with sink_to(url, signing_keys=KEYS) as sink:
        await sink.deliver([delivery(1, body, event_id=event_id)])
    (request,) = receiver.received
    assert len(request.headers["webhook-signature"].split(" ")) == len(KEYS)
    for key in KEYS:
        secret = f"whsec_{base64.b64encode(key).decode()}"
        assert Webhook(secret).verify(request.body, request.headers)["id"] == event_id
    with pytest.raises(WebhookVerificationError):
        Webhook(b"another key").verify(request.body, request.headers)
    with pytest.raises(WebhookVerificationError):
        Webhook(KEYS[0]).verify(request.body + b" ", request.headers)


async def test_connections_are_kept_and_at_most_max_in_flight(url: str, receiver: Receiver) -> None:
    """Fifty posts at once share the connections allowed, and none waits in vain."""
    receiver.answer = Answer(status=200, delay=0.005, body=b"ok")
    async with sink_to(url, max_in_flight=4) as sink:
        await asyncio.gather(*(sink.deliver([delivery(number)]) for number in range(50)))
    assert len(receiver.received) == 50
    assert receiver.most_open_requests == 4


# -- what answers mean ------------------------------------------------------------------------------------------------

MEANINGS: dict[int, type[DeliveryError] | None] = {
    **dict.fromkeys((200, 201, 202, 204, 226), None),
    **dict.fromkeys((408, 425, 429, 500, 501, 502, 503, 504, 507, 599), TransientDeliveryError),
    **dict.fromkeys((401, 403, 404, 405, 407, 410), MisconfiguredSinkError),
    **dict.fromkeys((300, 301, 302, 307, 400, 402, 406, 409, 413, 415, 422, 451), PermanentDeliveryError),
}


@pytest.mark.parametrize("status", MEANINGS)
async def test_what_a_status_means(url: str, receiver: Receiver, status: int) -> None:
    """Each status becomes success or the documented kind of error, whose text begins with the status."""
    receiver.answer = Answer(status=status, body=b"" if status == 204 else b"because")
    meaning = MEANINGS[status]
    async with sink_to(url) as sink:
        if meaning is None:
            await sink.deliver([delivery()])
            return
        with pytest.raises(meaning, match=f"^HTTP {status}: because") as caught:
            await sink.deliver([delivery()])
    assert type(caught.value) is meaning


async def test_redirects_are_not_followed(url: str, receiver: Receiver) -> None:
    """Wherever a redirect points, the event is not sent there."""
    receiver.answer = Answer(status=307, headers={"location": url})
    error = await failure(url)
    assert isinstance(error, PermanentDeliveryError)
    assert len(receiver.received) == 1


NOW_S = 1_790_000_000.0
IN_90_S = datetime.fromtimestamp(NOW_S, UTC) + timedelta(seconds=90)


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (None, None),
        ("120", 120.0),
        (" 120 ", 120.0),
        ("0", 0.0),
        ("9" * 50, 999_999_999_999.0),
        (format_datetime(IN_90_S, usegmt=True), 90.0),
        (format_datetime(IN_90_S), 90.0),
        ("Sun, 06 Nov 1994 08:49:37 GMT", 0.0),
        ("soon", None),
        ("", None),
        ("-5", None),
        ("1.5", None),
        ("١٢", None),
        ("Fri, 99 Zzz 9999 99:99:99 GMT", None),
    ],
)
def test_retry_after(value: str | None, expected: float | None) -> None:
    """Seconds and HTTP dates count, the past is now, and anything else is as if it were absent."""
    error = judge(503, value, "", now_s=NOW_S)
    assert isinstance(error, TransientDeliveryError)
    assert error.retry_after == expected


@given(
    st.text(max_size=60)
    | st.from_regex(r"[A-Z][a-z]{2}, ?\d{0,3} [A-Za-z]{0,4} \d{0,6} [\d:]{0,9} ?[A-Z+-]{0,4}\d{0,5}")
)
def test_no_retry_after_breaks_the_judgement(value: str) -> None:
    """Whatever stands in the header, a 503 is transient, with no wish or one that is not negative."""
    error = judge(503, value, "", now_s=NOW_S)
    assert isinstance(error, TransientDeliveryError)
    assert error.retry_after is None or error.retry_after >= 0
    assert min(error.retry_after or 0.0, RETRY_AFTER_LIMIT_S) <= RETRY_AFTER_LIMIT_S


@pytest.mark.parametrize("status", [429, 503])
async def test_retry_after_reaches_the_error(url: str, receiver: Receiver, status: int) -> None:
    """The header of a real answer is the error's `retry_after`."""
    receiver.answer = Answer(status=status, headers={"retry-after": "7"})
    error = await failure(url)
    assert isinstance(error, TransientDeliveryError)
    assert error.retry_after == 7.0


async def test_an_answer_is_shown_as_one_short_printable_line(url: str, receiver: Receiver) -> None:
    """Line breaks, control characters, bytes that are no text and length do not get into the error."""
    receiver.answer = Answer(status=400, body=b"line one\r\n\tline\x1b[31m two \xff" + b"x" * 5000)
    text = str(await failure(url))
    assert text.startswith("HTTP 400: line one line?[31m two \ufffdxxx")
    assert len(text) <= ANSWER_SHOWN_CHARS + len("HTTP 400: ")
    assert text.isprintable()


# -- answers that go wrong ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("status", "meaning"), [(200, None), (400, PermanentDeliveryError)])
async def test_a_huge_answer_is_not_read_to_its_end(status: int, meaning: type[DeliveryError] | None) -> None:
    """An answer without end costs its connection, little memory and little time; its status counts."""
    sent = 0

    async def flood(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal sent
        writer.write(b"HTTP/1.1 %d X\r\ncontent-length: 100000000000\r\n\r\n" % status)
        while True:
            writer.write(b"x" * 65536)
            sent += 65536
            await writer.drain()

    async with raw_server(flood) as address, sink_to(f"http://{address}/") as sink:
        async with asyncio.timeout(3):
            if meaning is None:
                await sink.deliver([delivery()])
            else:
                with pytest.raises(meaning):
                    await sink.deliver([delivery()])
    assert sent < 50_000_000


async def drip(writer: asyncio.StreamWriter, head: bytes) -> None:
    writer.write(head)
    while True:
        writer.write(b"x")
        await writer.drain()
        await asyncio.sleep(0.01)


async def test_headers_that_drip_end_at_the_timeout() -> None:
    """A peer that sends a byte now and then holds the slot for the timeout, not for ever."""

    async def answer(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await drip(writer, b"HTTP/1.1 200 OK\r\nx: ")

    async with raw_server(answer) as address:
        started = time.monotonic()
        async with asyncio.timeout(3):
            error = await failure(f"http://{address}/", timeout_s=0.3)
    assert isinstance(error, TransientDeliveryError)
    assert str(error) == "no answer within 0.3 s"
    assert 0.25 < time.monotonic() - started < 3


@pytest.mark.parametrize("ending", ["drips", "breaks off"])
@pytest.mark.parametrize(("status", "meaning"), [(200, None), (503, TransientDeliveryError)])
async def test_a_status_counts_though_its_body_never_comes_whole(
    status: int, meaning: type[DeliveryError] | None, ending: str
) -> None:
    """A receiver that said 200 has the event: a body that drips or breaks off does not have it sent again."""

    async def answer(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = b"HTTP/1.1 %d X\r\nretry-after: 5\r\ncontent-length: 10000\r\n\r\n" % status
        if ending == "drips":
            await drip(writer, head)
        writer.write(head)
        await writer.drain()
        writer.close()

    async with raw_server(answer) as address, sink_to(f"http://{address}/", timeout_s=0.3) as sink:
        async with asyncio.timeout(3):
            if meaning is None:
                await sink.deliver([delivery()])
            else:
                with pytest.raises(meaning, match="HTTP 503") as caught:
                    await sink.deliver([delivery()])
                assert getattr(caught.value, "retry_after", None) == 5.0


async def test_no_answer_ends_at_the_timeout(url: str, receiver: Receiver) -> None:
    """A receiver that thinks for too long is a transient error that says for how long it was waited."""
    receiver.answer = Answer(status=200, delay=30)
    error = await failure(url, timeout_s=0.2)
    assert isinstance(error, TransientDeliveryError)
    assert str(error) == "no answer within 0.2 s"


async def test_after_a_timeout_the_sink_still_works(url: str, receiver: Receiver) -> None:
    """Broken off attempts give their places back: there are as many as before."""
    async with sink_to(url, timeout_s=0.1, max_in_flight=2) as sink:
        receiver.answer = Answer(status=200, delay=30)
        for _ in range(3):
            with pytest.raises(TransientDeliveryError, match="no answer"):
                await sink.deliver([delivery()])
        receiver.answer = 200
        await asyncio.gather(*(sink.deliver([delivery(number)]) for number in range(4)))


async def test_nobody_listens() -> None:
    """A refused connection is transient, in words."""
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        error = await failure(f"http://127.0.0.1:{unused.getsockname()[1]}/")
    assert isinstance(error, TransientDeliveryError)
    assert str(error).startswith("ConnectError: ")


async def test_a_name_that_does_not_exist() -> None:
    """A host without an address is transient, in words."""
    error = await failure("http://nobody.invalid/")
    assert isinstance(error, TransientDeliveryError)
    assert str(error).startswith("ConnectError: ")


async def test_a_connection_that_is_reset() -> None:
    """A reset in the place of an answer is transient, in words."""

    async def reset(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        peer = writer.get_extra_info("socket")
        peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))

    async with raw_server(reset) as address:
        error = await failure(f"http://{address}/")
    assert isinstance(error, TransientDeliveryError)
    assert str(error).partition(":")[0] in {"ReadError", "RemoteProtocolError"}


async def test_an_answer_that_is_no_http() -> None:
    """Something else that listens there is transient, in words, and not a defect of ours."""

    async def nonsense(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"220 mail.example ESMTP\r\n")
        await writer.drain()

    async with raw_server(nonsense) as address:
        error = await failure(f"http://{address}/")
    assert isinstance(error, TransientDeliveryError)
    assert str(error).startswith("RemoteProtocolError: ")


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A self-signed certificate for 127.0.0.1, its key in the same file."""
    if shutil.which("openssl") is None:
        pytest.skip("the openssl command makes the certificate, and it is missing")
    folder = tmp_path_factory.mktemp("tls")
    command = (
        "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2 -subj /CN=test"
        f" -addext subjectAltName=IP:127.0.0.1 -keyout {folder}/key.pem -out {folder}/cert.pem"
    )
    subprocess.run(command.split(), check=True, capture_output=True)
    return folder / "cert.pem"


async def test_a_certificate_is_verified_and_ca_bundle_makes_it_trusted(certificate: Path) -> None:
    """A self-signed receiver is a transient error that says what is wrong; with `ca_bundle` it is delivered to."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, certificate.with_name("key.pem"))

    async def answer(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 204 OK\r\n\r\n")
        await writer.drain()

    loop = asyncio.get_running_loop()
    loop.set_exception_handler(lambda *_: None)  # the server's view of the failed handshake
    async with raw_server(answer, context) as address:
        error = await failure(f"https://{address}/")
        assert isinstance(error, TransientDeliveryError)
        assert "CERTIFICATE_VERIFY_FAILED" in str(error)
        async with sink_to(f"https://{address}/", ca_bundle=certificate) as sink:
            await sink.deliver([delivery()])
        wrong_name = await failure(
            f"https://{address.replace('127.0.0.1', 'localhost')}/", ca_bundle=certificate
        )
        assert "localhost" in str(wrong_name)
        plain = await failure(f"http://{address}/", timeout_s=2)
        assert isinstance(plain, TransientDeliveryError)


async def test_tls_to_a_plain_server(url: str) -> None:
    """https:// to a server that speaks plain HTTP is transient, in words."""
    error = await failure(url.replace("http://", "https://"))
    assert isinstance(error, TransientDeliveryError)
    assert "SSL" in str(error) or "TLS" in str(error)


async def test_closing_twice(url: str) -> None:
    """Close may come twice and does not raise."""
    async with sink_to(url) as sink:
        await sink.deliver([delivery()])
        await sink.close()
