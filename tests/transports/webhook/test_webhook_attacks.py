"""Strangers who are slow, many, wordy or deaf: what they may cost, and that a push is answered all the same."""

from __future__ import annotations

import asyncio
import resource
import socket
import ssl
from contextlib import asynccontextmanager, suppress
from typing import TYPE_CHECKING, Any

import httpx2
import pytest
import structlog

from reserve_listener.model import Verdict
from reserve_listener.net import http_framing
from reserve_listener.net.asgi_connection import PIPELINED, Limits
from reserve_listener.simulator import patience
from reserve_listener.transports.webhook import bodies
from reserve_listener.transports.webhook.push import Credentials
from tests.daemon_process import running
from tests.helpers import until
from tests.pushing import event, sealed, signed, write_webhook_config
from tests.sinks.test_sink_http import make_certificate
from tests.transports.webhook.test_webhook import Intake, push, raw_answer, served

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator
    from pathlib import Path

    from reserve_listener.simulator import HttpServer

HEAD = b"POST /hook HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
CHUNKED = HEAD + b"Transfer-Encoding: chunked\r\n\r\n"
BAD = HEAD + b"Content-Length: 2\r\n\r\n{}"
PROBE = b"GET /hook HTTP/1.1\r\nHost: x\r\n\r\n"
MANY = 4_096


@pytest.fixture(autouse=True)
def descriptors() -> Iterator[None]:
    """Enough of them for the strangers, who live in this process, too."""
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(MANY, before[1]), before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, before)


class Stranger(asyncio.Protocol):
    """A connection that somebody else would open. It knows when it was told to go."""

    transport: asyncio.Transport
    is_ended = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport

    def eof_received(self) -> None:
        self.is_ended = True

    def connection_lost(self, exc: Exception | None) -> None:  # the base class's signature
        self.is_ended = True


class Strangers:
    """Many of them."""

    def __init__(self, port: int) -> None:
        self._port = port
        self.all: list[Stranger] = []

    async def come(self, count: int, sent: bytes = b"") -> None:
        """So many, each of which sends this."""
        for _ in range(count):
            transport, stranger = await asyncio.get_running_loop().create_connection(
                Stranger, "127.0.0.1", self._port
            )
            transport.write(sent)
            self.all.append(stranger)

    def ended(self) -> list[int]:
        """Which of them were told to go."""
        return [number for number, stranger in enumerate(self.all) if stranger.is_ended]


@asynccontextmanager
async def strangers(port: int) -> AsyncIterator[Strangers]:
    who = Strangers(port)
    try:
        yield who
    finally:
        for stranger in who.all:
            stranger.transport.abort()


async def push_anew(port: int, plain: bytes | None = None) -> int:
    """A push over a connection of its own: an idle one may have to give way just then. The status."""
    async with httpx2.AsyncClient(
        base_url=f"http://127.0.0.1:{port}", trust_env=False, timeout=patience(20)
    ) as client:
        return (await push(client, plain)).status_code


def reasons(logs: list[Any]) -> list[str]:
    return [line["reason"] for line in logs if line["event"] == "webhook.dropped"]


# -- many ---------------------------------------------------------------------------------------------------------------

SILENT = {
    "nothing": b"",
    "half a head": HEAD + b"X-Slow: ",
    "half a body": HEAD + b"Content-Length: 1000\r\n\r\n{",
    "half a chunk": CHUNKED + b"3e8\r\n{",
    "TLS to a plain port": b"\x16\x03\x01",
    "answers that are not read": PROBE * 10,
}


@pytest.mark.parametrize("what", SILENT)
async def test_a_push_gets_in_among_more_strangers_than_there_is_room_for(what: str) -> None:
    """Whatever they leave unfinished, there are never more than the bound, and each push is answered."""
    async with served(limits=Limits(connections=40)) as (webhook, _), strangers(webhook.port) as who:
        for _ in range(5):
            await who.come(30, SILENT[what])
            assert await push_anew(webhook.port) == 200
            assert webhook._server.connections <= 40


@pytest.mark.parametrize("what", SILENT)
async def test_each_wait_for_a_stranger_has_an_end(what: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """With room for all of them, too; the end of a wait makes a line for all, at most."""
    monkeypatch.setattr(bodies, "BODY_TIMEOUT_S", 0.2)
    with structlog.testing.capture_logs() as logs:
        async with (
            served(limits=Limits(head_s=0.2, keep_alive_s=1), clock=lambda: 0.0) as (webhook, _),
            strangers(webhook.port) as who,
        ):
            await who.come(30, SILENT[what])
            await until(lambda: who.ended() == list(range(30)))
            await until(lambda: webhook._server.connections == 0)
    assert len(logs) <= 1


async def test_an_exchange_may_have_an_end_of_its_own() -> None:
    """For apps without deadlines: from the head to the answer, whatever the app waits for."""
    intake = Intake()
    intake.verdict = None
    with structlog.testing.capture_logs() as logs:
        async with served(intake, limits=Limits(exchange_s=0.2)) as (webhook, client):
            with pytest.raises(httpx2.RemoteProtocolError):
                await push(client)
            await until(lambda: webhook._server.connections == 0)
            intake.verdict = Verdict.STORED
            assert (await push(client)).status_code == 200
    assert reasons(logs) == ["a request and its answer took too long"]


async def test_those_who_were_silent_for_longest_go_first() -> None:
    """A sixteenth gives way at once, in the order in which they came; a body that is under way stays while others are idle."""
    async with served(limits=Limits(connections=32)) as (webhook, _), strangers(webhook.port) as who:
        await who.come(4, SILENT["half a body"])
        await until(lambda: len(webhook._server.busy) == 4)
        await who.come(28)
        await until(lambda: webhook._server.connections == 32)
        await who.come(1)
        await until(lambda: who.ended() == [4, 5])
        await who.come(2)
        await until(lambda: who.ended() == [4, 5, 6, 7])


async def test_a_push_that_waits_for_its_commit_gives_way_to_nobody() -> None:
    """When all do, newcomers are turned away, and none of the pushes is lost."""
    intake = Intake()
    intake.verdict = None
    async with (
        served(intake, limits=Limits(connections=8)) as (webhook, client),
        strangers(webhook.port) as who,
    ):
        waiting = [asyncio.create_task(push(client)) for _ in range(8)]
        await until(lambda: len(intake.waiting) == 8)
        await who.come(20)
        await until(lambda: len(who.ended()) == 20)
        for answer in intake.waiting:
            answer(Verdict.STORED)
        assert [(await each).status_code for each in waiting] == [200] * 8


async def test_a_daemon_with_few_descriptors_takes_pushes(tmp_path: Path, server: HttpServer) -> None:
    """With a limit that half of the strangers would exhaust, pushes are stored and delivered, and the log stays short."""
    config = write_webhook_config(tmp_path, server.url)
    async with running(tmp_path, config) as daemon:
        await until(lambda: any(line["event"] == "webhook.listening" for line in daemon.log()))
        (port,) = [line["port"] for line in daemon.log() if line["event"] == "webhook.listening"]
        resource.prlimit(daemon.process.pid, resource.RLIMIT_NOFILE, (60, 60))
        async with strangers(port) as who:
            for number in range(10):
                await who.come(60)
                assert await push_anew(port, event(event_id=f"e{number}")) == 200
        await until(lambda: daemon.pending() == 0)
        assert len(daemon.file_ids()) == 10
        dropped = [line for line in daemon.log() if line["event"] == "webhook.dropped"]
        assert await daemon.stop() == 0
        assert daemon.stderr() == ""
    times = [line["timestamp"][:19] for line in dropped]
    assert 0 < len(dropped) <= 2 * (len(set(times)) + 1)


async def test_the_daemon_raises_its_limit_on_open_files(tmp_path: Path, server: HttpServer) -> None:
    """Started with few, as by many shells and services, it asks for what it may have."""
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (256, hard))
    async with running(tmp_path, write_webhook_config(tmp_path, server.url)) as daemon:
        await until(lambda: any(line["event"] == "webhook.listening" for line in daemon.log()))
        assert resource.prlimit(daemon.process.pid, resource.RLIMIT_NOFILE) == (min(8_192, hard), hard)


async def test_without_a_descriptor_left_it_rests_and_makes_room() -> None:
    """Accepting that fails is neither an error nor tried without a pause; a silent connection makes room for the next."""
    with structlog.testing.capture_logs() as logs:
        async with served(clock=lambda: 0.0) as (webhook, client), strangers(webhook.port) as who:
            await who.come(3)
            await until(lambda: webhook._server.connections == 3)
            spare = all_descriptors()
            spare.pop().close()  # for the client's end
            assert (await push(client)).status_code == 200
            assert who.ended()[:1] == [0]
            for each in spare:
                each.close()
    assert reasons(logs) == ["no file descriptor was left for it"]


def all_descriptors() -> list[socket.socket]:
    """Sockets that leave no descriptor, under a limit that is a little above what is open."""
    spare = [socket.socket()]
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (spare[0].fileno() + 20, hard))
    with suppress(OSError):
        while True:
            spare.append(socket.socket())
    return spare


# -- deaf ---------------------------------------------------------------------------------------------------------------


async def test_wordy_and_deaf_strangers_are_answered_once() -> None:
    """Hundreds of bad requests on each connection are one answer, one end, and a line for all of them."""
    with structlog.testing.capture_logs() as logs:
        async with (
            served(clock=lambda: 0.0, limits=Limits(connections=40)) as (webhook, client),
            strangers(webhook.port) as who,
        ):
            await who.come(120, BAD * 500)
            assert (await push(client)).status_code == 200
            await until(lambda: webhook._server.connections <= 1)
            assert webhook._server._state.total_requests <= 121
    assert len(logs) <= 2


async def test_requests_that_wait_for_no_answer_come_to_an_end() -> None:
    """Who asks ahead, however rightly, is answered a few times; then the connection is closed."""
    with structlog.testing.capture_logs() as logs:
        async with served() as (webhook, _):
            answers = await raw_answer(webhook.port, PROBE * 500, 500)
    assert answers.count(b"HTTP/1.1 200 OK") == PIPELINED + 1
    assert reasons(logs) == ["too many requests arrived before their answers were read"]


async def test_an_answer_that_is_not_read_is_waited_for_and_no_longer() -> None:
    """Once the kernel holds no more of them the connection has `write_s`, whatever it goes on to send."""
    with structlog.testing.capture_logs() as logs:
        async with served(limits=Limits(write_s=0.2)) as (webhook, client):
            deaf = socket.socket()
            deaf.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2048)
            deaf.setblocking(False)
            loop, state = asyncio.get_running_loop(), webhook._server._state
            await loop.sock_connect(deaf, ("127.0.0.1", webhook.port))
            await until(lambda: webhook._server.connections == 1)
            (connection,) = webhook._server._connections
            await until(lambda: connection.is_made)
            while not connection.flow.write_paused:
                asked = state.total_requests
                await loop.sock_sendall(deaf, PROBE)
                await until(lambda: state.total_requests > asked or connection.flow.write_paused)  # noqa: B023
            await until(lambda: webhook._server.connections == 0)
            assert (await push(client)).status_code == 200
            deaf.close()
    assert reasons(logs) == ["an answer was not read in time"]


# -- wordy --------------------------------------------------------------------------------------------------------------


def in_chunks(body: bytes, size: int, extension: bytes = b"") -> bytes:
    pieces = [body[at : at + size] for at in range(0, len(body), size)]
    return b"".join(b"%x%s\r\n%s\r\n" % (len(each), extension, each) for each in pieces) + b"0\r\n\r\n"


def chunked_push(size: int, extension: bytes = b"") -> bytes:
    body = sealed(event())
    lines = "".join(f"{name}: {value}\r\n" for name, value in signed(body).items())
    head = f"POST /hook HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n{lines}\r\n".encode()
    return head + in_chunks(body, size, extension)


async def test_a_push_may_come_in_chunks() -> None:
    """Of the sizes that programs and proxies make; several in one go, each read to its end."""
    intake = Intake()
    async with served(intake) as (webhook, _):
        for size in (16, 100, 4096, 100_000):
            assert (await raw_answer(webhook.port, chunked_push(size))).startswith(b"HTTP/1.1 200")
    assert len(intake.taken) == 4


WORDY = {
    "chunks of one byte": (
        CHUNKED + in_chunks(b"x" * 100_000, 1),
        "the body arrives in too many small pieces",
    ),
    "chunks of one byte with long extensions": (
        CHUNKED + in_chunks(b"x" * 200, 1, b";" + b"e" * 8_000),
        "the body's chunks have too much overhead",
    ),
    "many lines": (HEAD + b"a:\r\n" * 150 + b"\r\n", "the head has more than 100 lines"),
    "a long head": (HEAD + b"a: " + b"x" * 20_000 + b"\r\n\r\n", "the head exceeds 16384 bytes"),
    "an endless head": (HEAD + b"a: " + b"x" * 20_000, "the head exceeds 16384 bytes"),
    "no HTTP": (b"\x16\x03\x01", "the request is not proper HTTP"),
}


@pytest.mark.parametrize("what", WORDY)
async def test_requests_in_too_many_pieces_are_refused(what: str) -> None:
    """Each is answered 400 as soon as it exceeds its bound, and the connection ends."""
    sent, reason = WORDY[what]
    intake = Intake()
    with structlog.testing.capture_logs() as logs:
        async with served(intake) as (webhook, _):
            assert (await raw_answer(webhook.port, sent)).startswith(b"HTTP/1.1 400")
            await until(lambda: webhook._server.connections == 0)
    assert reasons(logs) == [reason]
    assert intake.taken == []


async def test_a_body_that_drips_in_is_one_of_many_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    """Bytes that come one by one are pieces, too, with a length as well as in chunks."""
    monkeypatch.setattr(http_framing, "PIECES", 5)
    with structlog.testing.capture_logs() as logs:
        async with served() as (webhook, _):
            reader, writer = await asyncio.open_connection("127.0.0.1", webhook.port)
            writer.get_extra_info("socket").setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            writer.write(HEAD + b"Content-Length: 100\r\n\r\n")
            await until(lambda: webhook._server.busy)
            (connection,) = webhook._server._connections
            for sent in range(1, 7):
                writer.write(b"x")
                await until(lambda: connection.conn.body_left <= 100 - sent)  # noqa: B023
            async with asyncio.timeout(patience(20)):
                assert (await reader.read()).startswith(b"HTTP/1.1 400")
            writer.close()
    assert reasons(logs) == ["the body arrives in too many small pieces"]


# -- ambiguous ----------------------------------------------------------------------------------------------------------

SMUGGLED = b"GET /hook HTTP/1.1\r\nHost: smuggled\r\n\r\n"
AMBIGUOUS = {
    "length and coding": HEAD + b"Content-Length: 6\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "coding and length": HEAD + b"Transfer-Encoding: chunked\r\nContent-Length: 6\r\n\r\n0\r\n\r\n",
    "two lengths": HEAD + b"Content-Length: 0\r\nContent-Length: 40\r\n\r\n",
    "a length with a sign": HEAD + b"Content-Length: +0\r\n\r\n",
    "a coding of HTTP/1.0": CHUNKED.replace(b"HTTP/1.1", b"HTTP/1.0") + b"0\r\n\r\n",
    "another coding": HEAD + b"Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
    "a coding twice": CHUNKED.replace(b"\r\n\r\n", b"\r\nTransfer-Encoding: chunked\r\n\r\n") + b"0\r\n\r\n",
    "a coding that is almost one": HEAD + b"Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n",
    "a coding behind a bare LF": HEAD + b"X: a\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "a coding behind a bare CR": HEAD + b"X: a\rTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "a coding in a folded line": HEAD + b"Transfer-Encoding:\r\n chunked\r\n\r\n0\r\n\r\n",
    "a blank before the colon": HEAD + b"Content-Length : 0\r\n\r\n",
    "lines that end with LF": HEAD.replace(b"\r\n", b"\n") + b"Content-Length: 0\n\n",
    "no host": HEAD.replace(b"Host: x\r\n", b"") + b"Content-Length: 0\r\n\r\n",
    "two hosts": HEAD + b"Host: y\r\nContent-Length: 0\r\n\r\n",
    "another version": HEAD.replace(b"HTTP/1.1", b"HTTP/2.0") + b"Content-Length: 0\r\n\r\n",
    "a chunk that is longer than it says": CHUNKED + b"1\r\nxyz\r\n0\r\n\r\n",
    "a chunk's length with a sign": CHUNKED + b"+1\r\nx\r\n0\r\n\r\n",
    "a chunk's length with a prefix": CHUNKED + b"0x1\r\nx\r\n0\r\n\r\n",
    "a chunk that ends with LF": CHUNKED + b"1\nx\n0\n\n",
}


@pytest.mark.parametrize("what", AMBIGUOUS)
async def test_what_could_be_read_in_two_ways_is_refused(what: str) -> None:
    """One answer, 400, and the end: what stands behind it is nobody's request (RFC 9112, 6.3 and 11.2)."""
    intake = Intake()
    with structlog.testing.capture_logs() as logs:
        async with served(intake) as (webhook, _):
            answers = await raw_answer(webhook.port, AMBIGUOUS[what] + SMUGGLED, 2)
            assert answers.endswith(b'{"msg":"bad request"}')
            await until(lambda: webhook._server.connections == 0)
    assert answers.startswith(b"HTTP/1.1 400")
    assert answers.count(b"HTTP/1.1 ") == 1
    assert b"connection: close" in answers.lower()
    assert len(reasons(logs)) == 1


async def test_whoever_ends_its_sending_is_answered_all_the_same() -> None:
    """A push, or two, behind which half of the connection is closed: each is answered once committed, then the other half closes."""
    intake = Intake()
    intake.verdict = None
    raw = event()
    request = HEAD + b"Content-Length: %d\r\n\r\n" % len(raw) + raw
    async with served(intake, credentials=Credentials()) as (webhook, _):
        for count in (1, 2):
            reader, writer = await asyncio.open_connection("127.0.0.1", webhook.port)
            writer.write(request * count)
            writer.write_eof()
            for _ in range(count):
                await until(lambda: intake.waiting)
                intake.waiting.pop()(Verdict.STORED)
            assert (await asyncio.wait_for(reader.read(), 10)).count(b"200 OK") == count
            writer.close()


@pytest.mark.parametrize("sent", ["nothing", "half a head", "half a body"])
async def test_whoever_breaks_off_is_let_go_at_once(sent: str) -> None:
    """What ends before it is a whole request waits for no deadline."""
    async with served() as (webhook, _):
        reader, writer = await asyncio.open_connection("127.0.0.1", webhook.port)
        writer.write(SILENT[sent])
        writer.write_eof()
        assert await asyncio.wait_for(reader.read(), 5) == b""
        writer.close()


async def test_a_body_that_nobody_asked_for_is_not_waited_for() -> None:
    """A health check with an endless body is answered, and the connection closed."""
    async with served() as (webhook, _):
        sent = PROBE[:-2] + b"Content-Length: 1000000\r\n\r\n" + b"x" * 100
        assert (await raw_answer(webhook.port, sent)).startswith(b"HTTP/1.1 200")
        await until(lambda: webhook._server.connections == 0)


# -- TLS ----------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A certificate for this machine; its key is beside it."""
    return make_certificate(tmp_path_factory.mktemp("tls"))


async def test_handshakes_are_bounded_in_number_and_time(certificate: Path) -> None:
    """Who says nothing, or nonsense, gives way like any other connection, and has no longer than for a head."""
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(certificate, certificate.with_name("key.pem"))
    trust = ssl.create_default_context(cafile=certificate)
    body = sealed(event())
    limits = Limits(connections=80, handshake_s=0.5)
    async with (
        served(tls=context, limits=limits) as (webhook, _),
        strangers(webhook.port) as who,
        httpx2.AsyncClient(verify=trust, trust_env=False, timeout=patience(20)) as client,
    ):
        for _ in range(3):
            await who.come(20)
            await who.come(20, b"\x16\x03\x01\x02\x00\x01\x00")
            await who.come(1, PROBE)
            url = f"https://127.0.0.1:{webhook.port}/hook"
            assert (await client.post(url, content=body, headers=signed(body))).status_code == 200
            assert webhook._server.connections <= 20  # a quarter: each has large buffers
        await until(lambda: len(who.ended()) == 3 * 41)
