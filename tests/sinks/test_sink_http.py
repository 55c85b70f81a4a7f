"""The HTTP sink against real receivers: what is sent, and what each kind of answer means."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import re
import shutil
import socket
import ssl
import struct
import subprocess
import time
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from typing import TYPE_CHECKING, Any, Self
from urllib.parse import unquote, urlsplit

import httpx2
import pytest
from hypothesis import given, strategies as st
from standardwebhooks.webhooks import Webhook, WebhookVerificationError

from reserve_listener.errors import (
    ConfigError,
    DeliveryError,
    MisconfiguredSinkError,
    PermanentDeliveryError,
    SinkGoneError,
    TransientDeliveryError,
)
from reserve_listener.simulator import Answer, HttpServer, Receiver, patience
from reserve_listener.sinks.http.poster import ANSWER_SHOWN_CHARS, Answered, _status_of, judge
from reserve_listener.sinks.http.sink import HttpSink
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


async def test_while_secrets_rotate_both_sides_of_the_change_verify(url: str, receiver: Receiver) -> None:
    """With the old and the new secret configured, a receiver that knows only one of them accepts the request."""
    old, new = KEYS[:2]
    for keys, accepted in (([old], [old]), ([old, new], [old, new]), ([new], [new])):
        async with sink_to(url, signing_keys=keys) as sink:
            await sink.deliver([delivery()])
        request = receiver.received[-1]
        for key in (old, new):
            if key in accepted:
                Webhook(key).verify(request.body, request.headers)
            else:
                with pytest.raises(WebhookVerificationError):
                    Webhook(key).verify(request.body, request.headers)


def hashed(event_id: bytes) -> str:
    return f"sha256-{hashlib.sha256(event_id).hexdigest()}"


@pytest.mark.parametrize(
    ("event_id", "sent"),
    [
        ("x" * 256, "x" * 256),
        ("x" * 257, hashed(b"x" * 257)),
        ("议" * 200, hashed("议".encode() * 200)),
        ("\ud800" * 200, hashed(b"\xed\xa0\x80" * 200)),
    ],
    ids=["longest", "too long", "too long escaped", "no text"],
)
async def test_a_very_long_id_is_sent_as_its_hash(
    url: str, receiver: Receiver, event_id: str, sent: str
) -> None:
    """An id that would make a header of more than 256 characters becomes its hash, which is what is signed."""
    async with sink_to(url, signing_keys=KEYS[:1]) as sink:
        for _ in range(2):
            await sink.deliver([delivery(event_id=event_id)])
    assert [request.headers["webhook-id"] for request in receiver.received] == [sent, sent]
    request = receiver.received[0]
    Webhook(KEYS[0]).verify(request.body, request.headers)


async def test_extra_headers_are_sent_and_none_of_the_events_is_replaced(
    url: str, receiver: Receiver
) -> None:
    """Authorization and the like go out, the user agent can be another one, what belongs to the event cannot."""
    headers = {
        "Authorization": "Bearer s3cret-t0ken",
        "X-Room": "会议室",
        "User-Agent": "booking/1",
        "Content-Type": "text/plain",
        "Webhook-Id": "forged",
    }
    async with sink_to(url, headers=headers) as sink:
        await sink.deliver([delivery(event_id="e1")])
    sent = receiver.received[0].headers
    assert sent["authorization"] == "Bearer s3cret-t0ken"
    assert sent["x-room"].encode("latin-1").decode() == "会议室"
    assert sent["user-agent"] == "booking/1"
    assert (sent["content-type"], sent["webhook-id"]) == ("application/cloudevents+json", "e1")


async def test_a_sink_can_be_made_in_another_thread(url: str, receiver: Receiver) -> None:
    """The constructor, which reads certificates, needs no event loop; the sink then works on the loop."""
    sink = await asyncio.to_thread(HttpSink, "booking", url)
    assert sink.needs_raw is False
    await sink.deliver([delivery()])
    await sink.close()
    assert len(receiver.received) == 1


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
    **dict.fromkeys((300, 301, 302, 303, 307, 308, 399), MisconfiguredSinkError),
    **dict.fromkeys((401, 402, 403, 404, 405, 407, 421, 451), MisconfiguredSinkError),
    410: SinkGoneError,
    **dict.fromkeys((400, 406, 409, 413, 415, 422, 423, 424, 431, 499), PermanentDeliveryError),
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


@pytest.mark.parametrize(
    "status", [code for code, kind in MEANINGS.items() if kind is TransientDeliveryError]
)
def test_whether_the_receiver_is_down(status: int) -> None:
    """An answer of the 400 class says that the receiver is up, one of the 500 class that it is not."""
    error = judge(Answered(status, {}, b"", ""), now_s=NOW_S)
    assert isinstance(error, TransientDeliveryError)
    assert error.down is (status >= 500)


async def test_redirects_are_not_followed(url: str, receiver: Receiver) -> None:
    """Wherever a redirect points, the event is not sent there."""
    receiver.answer = Answer(status=307, headers={"location": url})
    error = await failure(url)
    assert isinstance(error, MisconfiguredSinkError)
    assert "redirects are not followed" in str(error)
    assert len(receiver.received) == 1


async def test_no_cookies_are_kept(url: str, receiver: Receiver) -> None:
    """Whatever a receiver sets, nothing of it comes back: the header would grow until it is refused."""
    receiver.answer = lambda request: Answer(
        status=200, headers={"set-cookie": f"c{len(receiver.received)}={'x' * 3000}; Path=/"}
    )
    async with sink_to(url) as sink:
        for number in range(3):
            await sink.deliver([delivery(number)])
    assert not any("cookie" in request.headers for request in receiver.received)


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
        (format_datetime(IN_90_S.replace(tzinfo=None)), 90.0),
        ("120, 240", None),
        ("1e9", None),
        ("inf", None),
        ("9" * 5000, 999_999_999_999.0),
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
    headers = {} if value is None else {"retry-after": value}
    error = judge(Answered(503, headers, b"", ""), now_s=NOW_S)
    assert isinstance(error, TransientDeliveryError)
    assert error.retry_after == expected


@given(
    st.text(max_size=60)
    | st.from_regex(r"[A-Z][a-z]{2}, ?\d{0,3} [A-Za-z]{0,4} \d{0,6} [\d:]{0,9} ?[A-Z+-]{0,4}\d{0,5}")
)
def test_no_retry_after_breaks_the_judgement(value: str) -> None:
    """Whatever stands in the header, a 503 is transient, with no wish or one that is not negative."""
    error = judge(Answered(503, {"retry-after": value}, b"", ""), now_s=NOW_S)
    assert isinstance(error, TransientDeliveryError)
    assert error.retry_after is None or error.retry_after >= 0


@pytest.mark.parametrize("status", [429, 503])
async def test_retry_after_reaches_the_error(url: str, receiver: Receiver, status: int) -> None:
    """The header of a real answer is the error's `retry_after`."""
    receiver.answer = Answer(status=status, headers={"retry-after": "7"})
    error = await failure(url)
    assert isinstance(error, TransientDeliveryError)
    assert error.retry_after == 7.0


async def test_an_answer_is_shown_as_one_short_printable_line(url: str, receiver: Receiver) -> None:
    """Line breaks and length do not get into the error; control and bidi characters are shown as their escapes."""
    receiver.answer = Answer(
        status=400, body=b"line one\r\n\tline\x1b[31m \xe2\x80\xaetwo \xff" + b"x" * 5000
    )
    text = str(await failure(url))
    assert text.startswith("HTTP 400: line one line\\x1b[31m \\u202etwo \ufffdxxx")
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
        async with asyncio.timeout(patience(3)):
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
        async with asyncio.timeout(patience(3)):
            error = await failure(f"http://{address}/", timeout_s=0.3)
    assert isinstance(error, TransientDeliveryError)
    assert str(error) == f"{address}: no answer within 0.3 s"
    assert 0.25 < time.monotonic() - started < patience(3)


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
        async with asyncio.timeout(patience(3)):
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
    assert str(error) == f"{urlsplit(url).netloc}: no answer within 0.2 s"


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
        place = f"127.0.0.1:{unused.getsockname()[1]}"
        error = await failure(f"http://{place}/")
    assert isinstance(error, TransientDeliveryError)
    assert str(error) == f"{place}: cannot connect: Connection refused"


async def test_a_name_that_does_not_exist() -> None:
    """A host without an address is transient, in words that name it, unless it is a secret."""
    error = await failure("http://nobody.invalid/")
    assert isinstance(error, TransientDeliveryError)
    assert str(error).startswith("nobody.invalid: cannot connect: ")
    hidden = await failure("http://nobody.invalid/", secret_host=True)
    assert str(hidden).startswith("********: cannot connect: ")
    assert "nobody" not in str(hidden)


async def test_a_connection_that_is_reset() -> None:
    """A reset in the place of an answer is transient, in words."""

    async def reset(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        peer = writer.get_extra_info("socket")
        peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))

    async with raw_server(reset) as address:
        error = await failure(f"http://{address}/")
    assert isinstance(error, TransientDeliveryError)
    assert str(error).startswith((f"{address}: the connection broke off", f"{address}: no proper answer"))


async def test_an_answer_that_is_no_http() -> None:
    """Something else that listens there is transient, in words, and not a defect of ours."""

    async def nonsense(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"220 mail.example ESMTP\r\n")
        await writer.drain()

    async with raw_server(nonsense) as address:
        error = await failure(f"http://{address}/")
    assert isinstance(error, TransientDeliveryError)
    assert str(error).startswith(f"{address}: no proper answer: ")


def make_certificate(folder: Path, san: str = "IP:127.0.0.1,DNS:receiver.example") -> Path:
    """A self-signed certificate, its key beside it."""
    if shutil.which("openssl") is None:
        pytest.skip("the openssl command makes the certificate, and it is missing")
    command = (
        "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2 -subj /CN=test"
        f" -addext subjectAltName={san} -keyout {folder}/key.pem -out {folder}/cert.pem"
    )
    subprocess.run(command.split(), check=True, capture_output=True)
    return folder / "cert.pem"


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The receiver's: for 127.0.0.1 and receiver.example."""
    return make_certificate(tmp_path_factory.mktemp("tls"))


@pytest.fixture(scope="module")
def client_certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The sink's own."""
    return make_certificate(tmp_path_factory.mktemp("client"), "DNS:reserve-listener")


def server_tls(certificate: Path) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, certificate.with_name("key.pem"))
    return context


async def no_content(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.write(b"HTTP/1.1 204 OK\r\n\r\n")
    await writer.drain()


@pytest.fixture
async def _quiet_handshakes() -> None:
    """The server's view of a failed handshake is no news."""
    asyncio.get_running_loop().set_exception_handler(lambda *_: None)


@pytest.mark.usefixtures("_quiet_handshakes")
async def test_a_certificate_is_verified_and_ca_bundle_makes_it_trusted(certificate: Path) -> None:
    """A self-signed receiver is a transient error that says what is wrong; with `ca_bundle` it is delivered to."""
    async with raw_server(no_content, server_tls(certificate)) as address:
        error = await failure(f"https://{address}/")
        assert isinstance(error, TransientDeliveryError)
        assert error.down
        assert "TLS: the certificate is not trusted: self-signed certificate" in str(error)
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


@pytest.mark.usefixtures("_quiet_handshakes")
@pytest.mark.parametrize("one_file", [False, True])
async def test_a_receiver_that_asks_for_a_client_certificate(
    certificate: Path, client_certificate: Path, tmp_path: Path, *, one_file: bool
) -> None:
    """With `client_cert`, its key in a file of its own or in the same, mutual TLS works; without, it is transient."""
    cert, key = client_certificate, client_certificate.with_name("key.pem")
    context = server_tls(certificate)
    context.verify_mode = ssl.CERT_REQUIRED
    context.load_verify_locations(cert)
    own: dict[str, Any] = {"client_cert": cert, "client_key": key}
    if one_file:
        both = tmp_path / "both.pem"
        both.write_bytes(key.read_bytes() + cert.read_bytes())
        own = {"client_cert": both}
    async with raw_server(no_content, context) as address:
        async with sink_to(f"https://{address}/", ca_bundle=certificate, **own) as sink:
            await sink.deliver([delivery()])
        error = await failure(f"https://{address}/", ca_bundle=certificate)
    assert isinstance(error, TransientDeliveryError)
    assert error.down


def test_certificates_that_cannot_be_used(
    certificate: Path, client_certificate: Path, tmp_path: Path
) -> None:
    """Each file that is missing, is no certificate or does not fit is an error of the configuration that names it."""
    nonsense, missing = tmp_path / "nonsense.pem", tmp_path / "missing.pem"
    nonsense.write_text("nonsense")
    stranger = certificate.with_name("key.pem")
    locked = tmp_path / "locked.pem"
    key = client_certificate.with_name("key.pem")
    command = f"openssl pkcs8 -topk8 -in {key} -out {locked} -passout pass:abcd"
    subprocess.run(command.split(), check=True, capture_output=True)
    cases: list[tuple[dict[str, Any], str]] = [
        ({"ca_bundle": missing}, f"ca_bundle: {missing}: No such file"),
        ({"ca_bundle": nonsense}, f"ca_bundle: {nonsense}: "),
        ({"client_cert": missing}, f"client_cert: {missing}: No such file"),
        ({"client_cert": client_certificate}, f"client_cert: {client_certificate}: "),
        ({"client_cert": client_certificate, "client_key": missing}, f"client_key: {missing}: No such file"),
        ({"client_cert": client_certificate, "client_key": stranger}, "key values mismatch|KEY_VALUES_MISM"),
        ({"client_cert": client_certificate, "client_key": locked}, f"client_key: {locked}: "),
    ]
    for settings, name in cases:
        with pytest.raises(ConfigError, match=f'^sink "booking": .*({name})'):
            HttpSink("booking", "https://127.0.0.1/", **settings)


# -- through a proxy ----------------------------------------------------------------------------------------------------

PASSWORD = "pass/w0rd"
LOGIN = base64.b64encode(f"user:{PASSWORD}".encode()).decode()
REFUSED = b"HTTP/1.1 407 Who are you\r\ncontent-length: 0\r\n\r\n"


class Proxy:
    """A forward proxy that brings everything to `to`, whatever is asked for; with `refusal` it answers that instead."""

    def __init__(self, to: str = "", refusal: bytes = b"") -> None:
        self.heads: list[bytes] = []
        self.address = ""
        self._to = to
        self._refusal = refusal
        self._open: list[asyncio.StreamWriter] = []

    @property
    def url(self) -> str:
        """With credentials."""
        return f"http://user:{PASSWORD.replace('/', '%2F')}@{self.address}"

    @property
    def asked(self) -> list[str]:
        """Method and target of each request."""
        return [head.decode().partition(" HTTP/1.1")[0] for head in self.heads]

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._handle, "127.0.0.1", 0)
        self.address = f"127.0.0.1:{self._server.sockets[0].getsockname()[1]}"
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()
        for writer in self._open:
            writer.transport.abort()
        await self._server.wait_closed()

    async def _handle(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._open.append(writer)
        head = await reader.readuntil(b"\r\n\r\n")
        self.heads.append(head)
        if self._refusal:
            writer.write(self._refusal)
            await writer.drain()
            return
        host, _, port = self._to.partition(":")
        theirs, to_them = await asyncio.open_connection(host, int(port))
        self._open.append(to_them)
        method, target, _ = head.split(b" ", 2)
        if method == b"CONNECT":
            writer.write(b"HTTP/1.1 200 OK\r\n\r\n")
        else:
            to_them.write(head.replace(target, urlsplit(target).path, 1))
        await asyncio.gather(_copy(reader, to_them), _copy(theirs, writer))


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        while data := await reader.read(65_536):
            writer.write(data)
            await writer.drain()
    except OSError:
        pass
    finally:
        writer.close()


async def test_a_proxy_of_its_own(url: str, receiver: Receiver) -> None:
    """With `proxy` a plain request is forwarded with the proxy's credentials, also to a loopback receiver."""
    async with Proxy(urlsplit(url).netloc) as proxy:
        for target in (url, "http://receiver.example/hook"):
            async with sink_to(target, proxy=proxy.url) as sink:
                await sink.deliver([delivery()])
        assert proxy.asked == [f"POST {url}", "POST http://receiver.example/hook"]
        assert all(f"basic {LOGIN}".encode().lower() in head.lower() for head in proxy.heads)
    assert len(receiver.received) == 2
    assert all("proxy-authorization" in request.headers for request in receiver.received)


async def test_tls_through_a_proxy(certificate: Path, client_certificate: Path) -> None:
    """An https receiver is reached through CONNECT, verified by its own name and shown the client certificate."""
    context = server_tls(certificate)
    context.verify_mode = ssl.CERT_REQUIRED
    context.load_verify_locations(client_certificate)
    own = {
        "ca_bundle": certificate,
        "client_cert": client_certificate,
        "client_key": client_certificate.with_name("key.pem"),
        "headers": {"Authorization": "Bearer s3cret-t0ken"},
    }
    async with raw_server(no_content, context) as address, Proxy(address) as proxy:
        async with sink_to("https://receiver.example/hook", proxy=proxy.url, **own) as sink:
            await sink.deliver([delivery()])
        assert proxy.asked == ["CONNECT receiver.example:443"]
        assert LOGIN.encode() in proxy.heads[0]
        assert b"s3cret" not in proxy.heads[0]


async def test_the_environments_proxy(url: str, receiver: Receiver, monkeypatch: pytest.MonkeyPatch) -> None:
    """HTTP_PROXY counts for a receiver elsewhere, not for one on this machine, nor beside a `proxy` of the sink's own."""
    monkeypatch.delenv("NO_PROXY", raising=False)
    monkeypatch.delenv("no_proxy", raising=False)
    address = urlsplit(url).netloc
    async with Proxy(address) as common, Proxy(address) as own:
        monkeypatch.setenv("http_proxy", common.url)
        for target, proxy in ((url, None), ("http://a.example/", None), ("http://b.example/", own.url)):
            async with sink_to(target, proxy=proxy) as sink:
                await sink.deliver([delivery()])
        assert common.asked == ["POST http://a.example/"]
        assert own.asked == ["POST http://b.example/"]
    assert len(receiver.received) == 3


@pytest.mark.parametrize("target", ["http://receiver.example/", "https://receiver.example/"])
async def test_a_proxy_that_wants_other_credentials(target: str) -> None:
    """407, forwarded or in answer to CONNECT, is a misconfigured sink and says that it is the proxy."""
    async with Proxy(refusal=REFUSED) as proxy:
        error = await failure(target, proxy=proxy.url)
    assert isinstance(error, MisconfiguredSinkError)
    assert "407" in str(error)
    assert str(error).endswith("(check the sink's proxy and its credentials)")


@pytest.mark.parametrize("status", [b"502 Bad Gateway", b"503", b"999 ?"])
async def test_a_proxy_that_cannot_connect(status: bytes) -> None:
    """Any other refusal of CONNECT may pass, and counts as a receiver that is down."""
    async with Proxy(refusal=b"HTTP/1.1 %s\r\ncontent-length: 0\r\n\r\n" % status) as proxy:
        error = await failure("https://receiver.example/", proxy=proxy.url)
    assert isinstance(error, TransientDeliveryError)
    assert error.down
    place = f"receiver.example through the proxy http://{proxy.address}"
    assert str(error) == f"{place}: the proxy refuses: {status.decode()}"


async def test_a_proxy_that_nobody_serves() -> None:
    """A proxy that refuses the connection is transient, and its password is not in the text."""
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        proxy = f"http://user:s3cretpass@127.0.0.1:{unused.getsockname()[1]}"
        error = await failure("http://receiver.example/", proxy=proxy)
    assert isinstance(error, TransientDeliveryError)
    assert "s3cret" not in str(error)


@pytest.mark.parametrize(
    "proxy",
    [
        "socks5://user:s3cretpass@h:1",
        "ftp://user:s3cretpass@h",
        "http://user:s3cret@pass:x@[h",
        "http://h:s3cret",
    ],
)
@pytest.mark.parametrize("configured", [True, False])
def test_a_proxy_of_another_kind(monkeypatch: pytest.MonkeyPatch, proxy: str, *, configured: bool) -> None:
    """One that cannot be used is an error of the configuration, whose text and causes hold nothing of the address."""
    monkeypatch.delenv("NO_PROXY", raising=False)
    monkeypatch.delenv("no_proxy", raising=False)
    if not configured:
        monkeypatch.setenv("all_proxy", proxy)
    with pytest.raises(ConfigError, match=r'^(all_proxy|sink "booking": proxy): ') as caught:
        HttpSink("booking", "https://receiver.example/", proxy=proxy if configured else None)
    assert "s3cret" not in str(caught.value)
    assert caught.value.__cause__ is None
    assert caught.value.__suppress_context__


# -- what an error must not say -------------------------------------------------------------------------------------------


async def test_credentials_that_a_receiver_sends_back_are_masked(url: str, receiver: Receiver) -> None:
    """A receiver that echoes the request puts no header value into the error, not even the half that would be cut."""
    headers = {"Authorization": "Bearer s3cret-t0ken", "X-Api-Key": "t0ps3cret", "X-Short": "1"}
    for filler in range(0, 400, 7):
        echo = "x" * filler + " you said s3cret-t0ken, Bearer s3cret-t0ken and t0ps3cret, 1 time"
        receiver.answer = Answer(status=400, body=echo.encode())
        text = str(await failure(url, headers=headers))
        assert "s3c" not in text
        assert "t0p" not in text
    assert str(await failure(url, headers={"X-Short": "1"})).startswith("HTTP 400: ")


@pytest.mark.parametrize(
    ("target", "secrets"),
    [
        ("/hooks/s3cr3t-part/rooms", ["s3cr3t"]),
        ("/hook?key=s3cr3t&x=1", ["s3cr3t"]),
        ("/hook?s3cr3t", ["s3cr3t"]),
        ("/hook/s3%2Fcr%20t?k=a%2Bs3cr%3D+b", ["s3%2F", "s3/cr", "a%2Bs3", "a+s3"]),
    ],
)
async def test_what_is_secret_in_a_url_is_masked(
    server: HttpServer, receiver: Receiver, target: str, secrets: list[str]
) -> None:
    """A receiver that quotes path and query, raw and decoded, whole and in parts, puts no secret of it into the error."""
    decoded = unquote(target)
    words = re.split(r"[/?&=]", target)
    said = (
        f"Cannot POST {target} ({decoded}), {server.url}{target} {words} {[unquote(word) for word in words]}"
    )
    receiver.answer = Answer(status=404, body=said.encode())
    text = str(await failure(server.url + target))
    assert text.startswith("HTTP 404: Cannot POST ********")
    for secret in secrets:
        assert secret not in text


async def test_a_usual_path_is_not_masked(server: HttpServer, receiver: Receiver) -> None:
    """What is in no way secret helps to see what is wrong."""
    receiver.answer = Answer(status=404, body=b"Cannot POST /api/v1/hooks/rooms")
    text = str(await failure(f"{server.url}/api/v1/hooks/rooms"))
    assert text.startswith("HTTP 404: Cannot POST /api/v1/hooks/rooms (check")


async def test_a_credential_that_begins_another_does_not_uncover_it(url: str, receiver: Receiver) -> None:
    """Of two header values one of which begins the other, the longer one is masked whole."""
    receiver.answer = Answer(status=400, body=b"you said s3crettail")
    text = str(await failure(url, headers={"X-A": "s3cr", "X-B": "s3crettail"}))
    assert text == "HTTP 400: you said ********"


async def test_credentials_that_a_proxy_sends_back_are_masked() -> None:
    """Whatever a proxy says in its refusal, the password and its encoded form are not in the text."""
    said = f"407 not {PASSWORD}, not {PASSWORD.replace('/', '%2F')}, not {LOGIN}".encode()
    for target in ("http://receiver.example/", "https://receiver.example/"):
        answer = b"HTTP/1.1 %s\r\ncontent-length: %d\r\n\r\n%s" % (said, len(said), said)
        async with Proxy(refusal=answer) as proxy:
            text = str(await failure(target, proxy=proxy.url))
        assert "407" in text
        assert "w0rd" not in text
        assert LOGIN not in text


async def test_the_environments_password_is_masked_too(monkeypatch: pytest.MonkeyPatch) -> None:
    """The same holds for a proxy that the environment names without a scheme."""
    monkeypatch.delenv("NO_PROXY", raising=False)
    monkeypatch.delenv("no_proxy", raising=False)
    async with Proxy(refusal=f"HTTP/1.1 407 {LOGIN} s3cretpass\r\n\r\n".encode()) as proxy:
        monkeypatch.setenv("https_proxy", f"user:s3cretpass@{proxy.address}")
        error = await failure("https://receiver.example/")
    assert isinstance(error, MisconfiguredSinkError)
    assert "s3cret" not in str(error)


@pytest.mark.parametrize("value", ["Bearer s3cret\n", "s3cret\r\nx-evil: 1", "s3cret\x00", " s3cret"])
async def test_a_header_that_cannot_be_sent(url: str, receiver: Receiver, value: str) -> None:
    """A value that HTTP does not allow is a misconfigured sink, which does not quote it; nothing is sent."""
    error = await failure(url, headers={"Authorization": value})
    assert isinstance(error, MisconfiguredSinkError)
    assert "s3cret" not in str(error)
    assert error.__cause__ is None
    assert error.__suppress_context__
    assert not receiver.received


async def test_a_status_line_without_end_is_shown_cut() -> None:
    """What httpx2 quotes of a peer that speaks no HTTP is one short printable line."""

    async def nonsense(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"\x1b[31m" + b"y" * 50_000 + b"\r\n\r\n")
        await writer.drain()

    async with raw_server(nonsense) as address:
        text = str(await failure(f"http://{address}/"))
    assert text.startswith(f"{address}: no proper answer: ")
    assert len(text) <= ANSWER_SHOWN_CHARS
    assert text.isprintable()


def test_what_httpx2_says_of_a_refused_connect() -> None:
    """The one text that is read: httpx2 has the status of a refused CONNECT nowhere else."""
    assert _status_of(httpx2.ProxyError("407 Proxy Authentication Required")) == 407
    assert _status_of(httpx2.ProxyError("")) is None
    assert _status_of(httpx2.ProxyError("tunnel broke")) is None


async def test_closing_twice(url: str) -> None:
    """Close may come twice and does not raise."""
    async with sink_to(url) as sink:
        await sink.deliver([delivery()])
        await sink.close()
