"""The webhook over real sockets: what is answered, what is refused, and who is kept waiting by whom."""

from __future__ import annotations

import asyncio
import json
import socket
import ssl
from contextlib import asynccontextmanager
from ipaddress import ip_network
from typing import TYPE_CHECKING, Any

import httpx2
import pytest
import structlog
from hypothesis import given, settings, strategies as st

from reserve_listener.model import Verdict
from reserve_listener.net import sockets
from reserve_listener.simulator import patience, sample_event
from reserve_listener.transports.webhook import bodies, server as webhook_module
from reserve_listener.transports.webhook.push import Credentials
from reserve_listener.transports.webhook.server import Webhook
from tests.cli.test_operate import cli
from tests.daemon_process import running, until
from tests.pushing import KEY, TOKEN, challenge, event, sealed, signed, write_webhook_config
from tests.sinks.test_sink_http import make_certificate

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable
    from pathlib import Path

    from reserve_listener.simulator import HttpServer, Receiver

BOTH = Credentials(encrypt_key=KEY, verification_token=TOKEN)
APP_ID = sample_event()["header"]["app_id"]
JSON = {"content-type": "application/json"}


class Intake:
    """Takes payloads; gives the verdict it is told to, or none until `release`."""

    def __init__(self) -> None:
        self.taken: list[bytes] = []
        self.verdict: Verdict | None = Verdict.STORED
        self.waiting: list[Callable[[Verdict], None]] = []

    def __call__(self, raw: bytes, answer: Callable[[Verdict], None]) -> None:
        self.taken.append(raw)
        if self.verdict is None:
            self.waiting.append(answer)
        else:
            answer(self.verdict)


@asynccontextmanager
async def served(
    intake: Intake | None = None, **more: Any
) -> AsyncIterator[tuple[Webhook, httpx2.AsyncClient]]:
    webhook = Webhook(
        **{
            "host": "127.0.0.1",
            "port": 0,
            "path": "/hook",
            "app_id": APP_ID,
            "accept": intake or Intake(),
            "credentials": BOTH,
            "freshness_s": 86_400,
            **more,
        }
    )
    await webhook.open()
    try:
        async with httpx2.AsyncClient(
            base_url=f"http://127.0.0.1:{webhook.port}", trust_env=False, timeout=patience(20)
        ) as client:
            yield webhook, client
    finally:
        await webhook.close()


async def push(client: httpx2.AsyncClient, plain: bytes | None = None, **more: Any) -> httpx2.Response:
    body = sealed(event() if plain is None else plain)
    return await client.post("/hook", content=body, headers=signed(body), **more)


async def raw_answer(port: int, sent: bytes, count: int = 1) -> bytes:
    """What comes back over a bare connection: so many answers."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(sent)
    answers = b""
    async with asyncio.timeout(patience(20)):
        while answers.count(b"HTTP/1.1 ") < count or not answers.endswith(b"}"):
            piece = await reader.read(65_536)
            if not piece:
                break
            answers += piece
    writer.close()
    return answers


@pytest.mark.parametrize(
    ("verdict", "status"),
    [
        (Verdict.STORED, 200),
        (Verdict.DUPLICATE, 200),
        (Verdict.UNREADABLE, 200),
        (Verdict.OTHER_TYPE, 200),
        (Verdict.FAILED, 500),
        (Verdict.OVERLOADED, 503),
    ],
)
async def test_the_answer_follows_the_verdict(verdict: Verdict, status: int) -> None:
    """200 for what is committed or not ours; what could not be committed is pushed again."""
    intake = Intake()
    intake.verdict = verdict
    async with served(intake) as (_, client):
        plain = event()
        answer = await push(client, plain)
    assert (answer.status_code, intake.taken) == (status, [plain])
    assert answer.json().keys() == {"msg"}


async def test_a_push_is_answered_after_its_verdict_and_a_challenge_before_any() -> None:
    """While the store is busy a push waits for its commit, and a challenge is answered at once."""
    intake = Intake()
    intake.verdict = None
    async with served(intake) as (_, client):
        waiting = asyncio.create_task(push(client))
        await until(lambda: intake.waiting)
        for body in (sealed(challenge()),):
            answer = await client.post("/hook", content=body, headers=JSON)
            assert (answer.status_code, answer.json()) == (200, {"challenge": "c-0123"})
        assert not waiting.done()
        intake.waiting[0](Verdict.STORED)
        assert (await waiting).status_code == 200


@pytest.mark.parametrize(
    ("request_", "status"),
    [
        ({"method": "PUT"}, 405),
        ({"method": "OPTIONS"}, 405),
        ({"method": "GET", "url": "/other"}, 404),
        ({"headers": {"host": "[", **JSON}}, 401),
        ({"url": "/other", "headers": {"host": "x/hook?", **JSON}}, 404),
        ({"url": "/other"}, 404),
        ({"url": "/hook/"}, 404),
        ({"headers": {"content-type": "text/plain"}}, 415),
        ({"headers": {}}, 415),
        ({"content": b"nonsense"}, 400),
        ({"content": b""}, 400),
        ({"content": event()}, 401),
    ],
)
async def test_the_senders_mistakes(request_: dict[str, Any], status: int) -> None:
    """Each is a short JSON answer with its status, and one line for the operator without anything secret."""
    intake = Intake()
    with structlog.testing.capture_logs() as logs:
        async with served(intake) as (_, client):
            answer = await client.request(
                **{"method": "POST", "url": "/hook", "content": b"{}", "headers": JSON, **request_}
            )
    assert (answer.status_code, intake.taken) == (status, [])
    assert len(answer.content) < 60
    assert answer.json().keys() == {"msg"}
    (line,) = [line for line in logs if line["event"] == "webhook.refused"]
    assert (line["status"], line["client"]) == (status, "127.0.0.1")
    if status == 405:
        assert answer.headers["allow"] == "POST, GET, HEAD"


@pytest.mark.parametrize("method", ["GET", "HEAD"])
async def test_a_balancer_may_ask_whether_it_is_there(method: str) -> None:
    """Anybody's GET or HEAD on the path is answered 200 and makes no line; from the beginning of the end on it is 503."""
    with structlog.testing.capture_logs() as logs:
        async with served(allowed_senders=[ip_network("203.0.113.0/24")]) as (webhook, client):
            assert (await client.request(method, "/hook")).status_code == 200
            webhook.stop_receiving()
            assert (await client.request(method, "/hook")).status_code == 503
    assert logs == []


async def test_a_path_is_taken_in_its_absolute_form() -> None:
    """As proxies may write it; the host in it is nobody's business."""
    intake = Intake()
    async with served(intake) as (webhook, _):
        body = sealed(event())
        lines = "".join(f"{name}: {value}\r\n" for name, value in signed(body).items())
        head = f"POST http://rooms.example/hook HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\n{lines}\r\n"
        assert (await raw_answer(webhook.port, head.encode() + body)).startswith(b"HTTP/1.1 200")
    assert len(intake.taken) == 1


async def test_pushes_of_another_app_are_taken_and_said() -> None:
    """The wrong app_id is told once an hour, with what to do; the event is not lost for a name."""
    now = 0.0
    with structlog.testing.capture_logs() as logs:
        async with served(app_id="cli_other", clock=lambda: now) as (_, client):
            for now in (0.0, 10.0, 3_601.0):  # noqa: B007  # the clock above reads it
                assert (await push(client)).status_code == 200
        async with served() as (_, client):
            assert (await push(client)).status_code == 200
    lines = [line for line in logs if line["event"] == "webhook.other_app"]
    assert [(line["app_id"], line["configured"], line.get("more")) for line in lines] == [
        (APP_ID, "cli_other", None),
        (APP_ID, "cli_other", 1),
    ]
    assert "lark.app_id" in lines[0]["hint"]


async def test_defects_and_challenges_are_told_once_a_second() -> None:
    """What anybody can cause, or a defect answers to each push, does not fill a disk."""

    def broken(_raw: bytes, _answer: Callable[[Verdict], None]) -> None:
        raise RuntimeError("a defect")

    with structlog.testing.capture_logs() as logs:
        async with served(clock=lambda: 0.0, accept=broken) as (_, client):
            for _ in range(5):
                assert (await push(client)).status_code == 500
                assert (
                    await client.post("/hook", content=sealed(challenge()), headers=JSON)
                ).status_code == 200
    assert [line["event"] for line in logs] == ["webhook.failed", "webhook.challenge"]


async def test_refusals_are_told_once_a_second() -> None:
    """A thousand wrong pushes are a line or two, with a count of the others."""
    now = 0.0
    with structlog.testing.capture_logs() as logs:
        async with served(clock=lambda: now) as (_, client):
            for _ in range(50):
                await client.post("/hook", content=b"x", headers=JSON)
            now = 1.5
            await client.post("/hook", content=b"x", headers=JSON)
    lines = [line for line in logs if line["event"] == "webhook.refused"]
    assert [line.get("more") for line in lines] == [None, 49]


async def test_a_body_that_is_too_large_is_not_read(monkeypatch: pytest.MonkeyPatch) -> None:
    """By its length it is refused before it is read; in chunks as soon as it exceeds the bound."""
    monkeypatch.setattr(bodies, "BODY_BYTES", 1_000)
    monkeypatch.setattr(webhook_module, "BODY_BYTES", 1_000)
    async with served() as (webhook, client):
        head = b"POST /hook HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 1001\r\n\r\n"
        assert (await raw_answer(webhook.port, head)).startswith(b"HTTP/1.1 413")

        chunked = (
            head.replace(b"Content-Length: 1001", b"Transfer-Encoding: chunked") + b"3e9\r\n" + b"x" * 1_001
        )
        assert (await raw_answer(webhook.port, chunked)).startswith(b"HTTP/1.1 413")
        assert (await push(client, b"{}")).status_code == 200


LARGE = b"POST /hook HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 360000\r\n\r\n"


async def test_large_bodies_are_bounded_together_and_small_ones_pass(monkeypatch: pytest.MonkeyPatch) -> None:
    """The largest that is still arriving has to come again, whoever came first; usual pushes and smaller ones are taken."""
    monkeypatch.setattr(bodies, "IN_HAND_BYTES", 300_000)
    intake = Intake()
    async with served(intake) as (webhook, client):
        reader, writer = await asyncio.open_connection("127.0.0.1", webhook.port)
        writer.write(LARGE + b"x" * 340_000)
        await until(lambda: webhook._bodies.bytes > 200_000)
        assert (await push(client)).status_code == 200
        people = json.dumps({"people": "x" * 150_000})
        assert (await push(client, event()[:-1] + b"," + people[1:].encode())).status_code == 200
        assert len(intake.taken) == 2
        async with asyncio.timeout(patience(20)):
            assert (await reader.readline()).startswith(b"HTTP/1.1 503")
        writer.close()
        assert webhook._bodies.bytes == 0

        assert (await raw_answer(webhook.port, LARGE + b"x" * 360_000)).startswith(b"HTTP/1.1 400")
        assert webhook._bodies.bytes == 0


async def test_many_large_pushes_at_once_are_all_answered(monkeypatch: pytest.MonkeyPatch) -> None:
    """Some are taken, and each of the others hears 503, also while it is still sending."""
    monkeypatch.setattr(bodies, "IN_HAND_BYTES", 6_000_000)
    plain = event()[:-1] + b"," + json.dumps({"people": "x" * 3_000_000})[1:].encode()
    async with served() as (webhook, client):
        statuses = [
            answer.status_code for answer in await asyncio.gather(*[push(client, plain) for _ in range(12)])
        ]
        assert webhook._bodies.bytes == 0
    assert set(statuses) == {200, 503}


async def test_what_is_complete_does_not_give_way(monkeypatch: pytest.MonkeyPatch) -> None:
    """A large push that waits for its commit keeps its room; another one has to come again meanwhile."""
    monkeypatch.setattr(bodies, "IN_HAND_BYTES", 300_000)
    intake = Intake()
    intake.verdict = None
    plain = event()[:-1] + b"," + json.dumps({"people": "x" * 200_000})[1:].encode()
    async with served(intake) as (_, client):
        waiting = asyncio.create_task(push(client, plain))
        await until(lambda: intake.waiting)
        assert (await push(client, plain)).status_code == 503
        intake.waiting[0](Verdict.STORED)
        assert (await waiting).status_code == 200


async def test_pipelined_pushes_are_answered_in_order() -> None:
    """Several requests in one go on one connection get their answers one after the other."""
    intake = Intake()
    async with served(intake) as (webhook, _):
        sent = b""
        for number in range(5):
            body = sealed(event(event_id=f"e{number}"))
            lines = "".join(f"{name}: {value}\r\n" for name, value in signed(body).items())
            sent += (
                f"POST /hook HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\n{lines}\r\n".encode()
                + body
            )
        answers = await raw_answer(webhook.port, sent, 5)
    assert answers.count(b"HTTP/1.1 200 OK") == 5
    assert [json.loads(raw)["header"]["event_id"] for raw in intake.taken] == [f"e{n}" for n in range(5)]


async def test_who_may_push_is_seen_through_trusted_proxies_only() -> None:
    """X-Forwarded-For counts from the right, as far as proxies are trusted; anybody can write the rest of it."""
    networks: dict[str, Any] = {
        "allowed_senders": [ip_network("203.0.113.0/24")],
        "trusted_proxies": [ip_network("127.0.0.1"), ip_network("10.0.0.0/8")],
    }
    async with served(**networks) as (_, client):
        for forwarded, status in (
            ("203.0.113.7", 200),
            ("203.0.113.7, 10.1.1.1", 200),
            ("203.0.113.7, 198.51.100.1", 403),
            ("198.51.100.1", 403),
            ("203.0.113.7:4711, [::ffff:10.1.1.1]:80", 200),
            ("203.0.113.7, unknown", 403),
            ("nonsense", 403),
            ("", 403),
        ):
            body = sealed(event())
            headers = signed(body) | {"X-Forwarded-For": forwarded}
            assert (await client.post("/hook", content=body, headers=headers)).status_code == status, (
                forwarded
            )
        several = [
            *signed(body).items(),
            ("X-Forwarded-For", "203.0.113.7"),
            ("X-Forwarded-For", "198.51.100.1"),
        ]
        assert (await client.post("/hook", content=body, headers=several)).status_code == 403
    async with served(allowed_senders=[ip_network("203.0.113.0/24")]) as (_, client):
        body = sealed(event())
        headers = signed(body) | {"X-Forwarded-For": "203.0.113.7"}
        assert (await client.post("/hook", content=body, headers=headers)).status_code == 403


async def test_the_end_answers_what_is_under_way_and_refuses_the_rest() -> None:
    """After `stop_receiving` a push is answered 503; one that waits for its commit gets its answer before the close."""
    intake = Intake()
    intake.verdict = None
    async with served(intake) as (webhook, client):
        waiting = asyncio.create_task(push(client))
        await until(lambda: intake.waiting)
        webhook.stop_receiving()
        late = await push(client)
        assert (late.status_code, late.headers["connection"]) == (503, "close")
        closing = asyncio.create_task(webhook.close())
        await asyncio.sleep(0)
        intake.waiting[0](Verdict.STORED)
        assert (await waiting).status_code == 200
        await closing


HEADER = st.from_regex(r"\A[A-Za-z-]{1,20}\Z").filter(
    lambda name: name.lower() not in ("host", "content-length", "transfer-encoding", "connection", "expect")
)
PUSHES = {
    "body": st.binary(max_size=500)
    | st.recursive(
        st.none() | st.booleans() | st.floats() | st.text(max_size=20),
        lambda inner: (
            st.lists(inner, max_size=4)
            | st.dictionaries(
                st.sampled_from(["header", "event", "token", "type", "encrypt", "schema", "uuid", "x"]), inner
            )
        ),
        max_leaves=12,
    ).map(lambda value: json.dumps(value).encode()),
    "headers": st.dictionaries(
        HEADER, st.text(st.characters(min_codepoint=33, max_codepoint=126), max_size=30), max_size=4
    ),
    "seal": st.booleans(),
    "sign": st.booleans(),
    "credentials": st.sampled_from(
        [BOTH, Credentials(), Credentials(encrypt_key=KEY), Credentials(verification_token=TOKEN)]
    ),
}


async def status_of(
    body: bytes, headers: dict[str, str], *, seal: bool, sign: bool, credentials: Credentials
) -> int:
    async with served(credentials=credentials) as (_, client):
        sent = sealed(body) if seal else body
        all_headers = {**JSON, **headers, **(signed(sent) if sign else {})}
        return (await client.post("/hook", content=sent, headers=all_headers)).status_code


def check_push(body: bytes, headers: dict[str, str], **terms: Any) -> None:
    with structlog.testing.capture_logs() as logs:
        status = asyncio.run(status_of(body, headers, **terms))
    assert status == 200 or 400 <= status < 500
    assert not [line for line in logs if line["log_level"] in ("error", "critical")]


@settings(max_examples=150, deadline=None)
@given(**PUSHES)
def test_no_push_makes_it_fail(body: bytes, headers: dict[str, str], **terms: Any) -> None:
    """Whatever is sent, the answer is 200 or 4xx, never 500, and nothing is logged as an error."""
    check_push(body, headers, **terms)


@pytest.mark.long
@settings(max_examples=6_000, deadline=None)
@given(**PUSHES)
def test_no_push_of_thousands_makes_it_fail(body: bytes, headers: dict[str, str], **terms: Any) -> None:
    """The same for minutes."""
    check_push(body, headers, **terms)


async def test_the_daemon_hears_over_the_webhook(
    tmp_path: Path, server: HttpServer, receiver: Receiver
) -> None:
    """Pushed twice, of two tenants, each event reaches every sink once; v1 and other types are answered; nothing secret is kept."""
    config = write_webhook_config(tmp_path, server.url)
    async with running(tmp_path, config) as daemon:
        await until(lambda: any(line["event"] == "webhook.listening" for line in daemon.log()))
        (line,) = [line for line in daemon.log() if line["event"] == "webhook.listening"]
        async with httpx2.AsyncClient(base_url=f"http://127.0.0.1:{line['port']}", trust_env=False) as client:
            for plain in (
                event(event_id="one", tenant_key="t1"),
                event(event_id="one", tenant_key="t2"),
                event(event_id="one", tenant_key="t1"),
                json.dumps(
                    {"uuid": "u", "token": TOKEN, "type": "event_callback", "event": {"type": "old"}}
                ).encode(),
            ):
                assert (await push(client, plain)).status_code == 200
            await until(lambda: daemon.pending() == 0)
            assert daemon.file_ids() == ["one", "one"]
            assert len(receiver.received) == 2
            sources = {
                json.loads(line)["source"] for line in (tmp_path / "events.jsonl").read_text().splitlines()
            }
            assert len(sources) == 2
            body = sealed(event())
            wrong = await client.post("/hook", content=body, headers=signed(body, key="wrong"))
            assert wrong.status_code == 401
        assert await daemon.stop() == 0
        assert daemon.stderr() == ""
    kept = b"".join((tmp_path / name).read_bytes() for name in ("events.db", "events.jsonl", "log.jsonl"))
    assert KEY.encode() not in kept
    assert TOKEN.encode() not in kept


def addresses_of_localhost(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two families, one address twice, one that no machine has: as hosts files are."""
    found = [
        (socket.AF_INET6, socket.SOCK_STREAM, 6, "", ("::1", 0, 0, 0)),
        (socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.1", 0)),
        (socket.AF_INET, socket.SOCK_STREAM, 6, "", ("203.0.113.9", 0)),
        (socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.1", 0)),
    ]

    async def getaddrinfo(*_args: object, **_named: object) -> list[Any]:
        return found

    monkeypatch.setattr(asyncio.get_running_loop(), "getaddrinfo", getaddrinfo)


async def test_localhost_is_all_its_addresses(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pushes come in on 127.0.0.1 and on ::1, on one port; an address that this machine lacks is left out."""
    addresses_of_localhost(monkeypatch)
    body = sealed(event())
    async with served(host="localhost") as (webhook, client):
        for host in ("127.0.0.1", "[::1]"):
            url = f"http://{host}:{webhook.port}/hook"
            assert (await client.post(url, content=body, headers=signed(body))).status_code == 200


async def test_what_one_address_lacks_all_do_without(monkeypatch: pytest.MonkeyPatch) -> None:
    """It listens on all that the machine has or not at all, and leaves nothing bound."""
    with pytest.raises(OSError, match="assign requested address"):
        await sockets.bound("203.0.113.9", 0)
    addresses_of_localhost(monkeypatch)
    first, second = await sockets.bound("localhost", 0)
    port = first.getsockname()[1]
    first.close()
    with pytest.raises(OSError, match="in use"):
        await sockets.bound("localhost", port)
    second.close()
    for each in await sockets.bound("localhost", port):
        each.close()


async def test_a_port_that_is_taken_is_a_sentence(tmp_path: Path, server: HttpServer) -> None:
    """The daemon ends with 1 and says which key to change."""
    config = write_webhook_config(tmp_path, server.url, listen=f"127.0.0.1:{server.port}")
    async with running(tmp_path, config) as daemon:
        assert await daemon.ended() == 1
        assert f"cannot listen on 127.0.0.1:{server.port}" in daemon.stderr()
        assert "Traceback" not in daemon.stderr()


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A certificate for this machine and its key, in one file."""
    folder = tmp_path_factory.mktemp("tls")
    path = make_certificate(folder)
    path.write_bytes(path.read_bytes() + (folder / "key.pem").read_bytes())
    return path


async def test_it_listens_with_tls(tmp_path: Path, server: HttpServer, certificate: Path) -> None:
    """With a certificate of its own the daemon needs no proxy; `check` says where pushes come in and how they are checked."""
    config = write_webhook_config(tmp_path, server.url)
    text = config.read_text().replace('path = "/hook"', f'path = "/hook"\ntls_cert_file = "{certificate}"')
    config.write_text(text)
    _, out, _ = await cli("check", "-c", str(config))
    assert "https://127.0.0.1:0/hook, pushes encrypted and signed, with the verification token" in out
    async with running(tmp_path, config) as daemon:
        await until(lambda: any(line["event"] == "webhook.listening" for line in daemon.log()))
        (line,) = [line for line in daemon.log() if line["event"] == "webhook.listening"]
        trust = ssl.create_default_context(cafile=certificate)
        async with httpx2.AsyncClient(
            base_url=f"https://127.0.0.1:{line['port']}", verify=trust, trust_env=False
        ) as client:
            assert (await push(client)).status_code == 200
        await until(lambda: daemon.pending() == 0)
        assert await daemon.stop() == 0


async def test_a_certificate_that_cannot_be_used_is_a_wrong_configuration(
    tmp_path: Path, server: HttpServer, certificate: Path
) -> None:
    """`run` ends with 78 and `check` fails, both naming the key and the file."""
    config = write_webhook_config(tmp_path, server.url)
    alone = certificate.with_name("key.pem")  # a key without a certificate
    config.write_text(
        config.read_text().replace('path = "/hook"', f'path = "/hook"\ntls_cert_file = "{alone}"')
    )
    code, out, _ = await cli("check", "-c", str(config))
    assert code == 78
    assert f"tls_cert_file {alone}: contains no PEM certificate" in out
    async with running(tmp_path, config) as daemon:
        assert await daemon.ended() == 78
        assert f"webhook.tls_cert_file: {alone}" in daemon.stderr()


async def test_without_credentials_it_listens_for_strangers_only_when_told_so(
    tmp_path: Path, server: HttpServer
) -> None:
    """On another address than loopback's it refuses to start with neither key nor token, unless that is allowed."""
    config = write_webhook_config(tmp_path, server.url, listen="0.0.0.0:0")
    lines = [
        line for line in config.read_text().splitlines() if not line.startswith(("encrypt", "verification"))
    ]
    config.write_text("\n".join(lines))
    code, out, _ = await cli("check", "-c", str(config))
    assert code == 78
    assert "anybody could push" in out
    config.write_text("\n".join(lines).replace("[webhook]", "[webhook]\nallow_unauthenticated = true"))
    async with running(tmp_path, config) as daemon:
        await until(lambda: any(line["event"] == "webhook.listening" for line in daemon.log()))
        (line,) = [line for line in daemon.log() if line["event"] == "webhook.listening"]
        async with httpx2.AsyncClient(base_url=f"http://127.0.0.1:{line['port']}", trust_env=False) as client:
            assert (await client.post("/hook", content=event(), headers=JSON)).status_code == 200
        assert await daemon.stop() == 0
