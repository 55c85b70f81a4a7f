"""What is said when the platform cannot be reached, and that one dead address of a name hinders nothing: real sockets."""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
import time
from typing import TYPE_CHECKING, Any

import pytest
from starlette.responses import Response

from reserve_listener.net.proxies import VARIABLES
from reserve_listener.net.reaching import Reaching, Step, UnreachableError
from reserve_listener.net.resolver import Question, Resolver
from reserve_listener.simulator import Faults, Simulator, patience, sample_event
from reserve_listener.transports.long_connection import connection, endpoint
from reserve_listener.transports.long_connection.failures import Failure, Kind, classify
from tests.helpers import free_port
from tests.sinks.test_sink_http import make_certificate, server_tls
from tests.transports.long_connection.test_endpoint import answering, ok
from tests.transports.long_connection.test_long_connection import make

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
    from pathlib import Path


@pytest.fixture(autouse=True)
def no_proxies(monkeypatch: pytest.MonkeyPatch) -> None:
    """Names that are not this machine's go straight."""
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)


@contextlib.asynccontextmanager
async def serving(say: bytes | None, *, greeting: bytes = b"", tls: Path | None = None) -> AsyncIterator[int]:
    """A server that reads a head, says this and hangs up; None: it says nothing and stays."""
    writers: list[asyncio.StreamWriter] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writers.append(writer)
        writer.write(greeting)
        with contextlib.suppress(OSError, asyncio.IncompleteReadError):
            await reader.readuntil(b"\r\n\r\n")
            if say is not None:
                writer.write(say)
                writer.close()

    loop = asyncio.get_running_loop()
    loop.set_exception_handler(lambda *_: None)  # a TLS handshake that is refused is no news here
    server = await asyncio.start_server(serve, "127.0.0.1", 0, ssl=server_tls(tls) if tls else None)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()
        for writer in writers:
            writer.transport.abort()
        await asyncio.sleep(0)  # then the sockets are closed


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of a platform that nobody trusts."""
    return make_certificate(tmp_path_factory.mktemp("untrusted"))


async def of_endpoint(domain: str, *, proxy: str | None = None, timeout_s: float = 5.0) -> Failure:
    with pytest.raises(Exception) as caught:
        await endpoint.fetch(
            domain=domain, app_id="cli_x", app_secret="secret", timeout_s=timeout_s, proxy=proxy
        )
    return classify(caught.value)


async def of_gateway(place: str, *, proxy: str | None = None) -> Failure:
    """What a connection says whose endpoint, on this machine, names this place."""
    body = json.dumps({"code": 0, "data": {"URL": f"{place}/?device_id=1&service_id=2"}}).encode()
    real = endpoint.fetch

    async def straight(**options: Any) -> endpoint.Endpoint:
        return await real(**{**options, "proxy": None})

    async with Simulator(faults=Faults(endpoint_body=body)) as simulator:
        connection = make(simulator, proxy=proxy)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(endpoint, "fetch", straight)
            with pytest.raises(Exception) as caught:
                await connection.open()
        await connection.close()
    return classify(caught.value)


OF: dict[str, Callable[..., Awaitable[Failure]]] = {"http": of_endpoint, "ws": of_gateway}
NAMES = {"http": "lark.domain", "ws": "the platform names this address"}


@pytest.mark.parametrize("kind", OF)
async def test_a_port_where_nobody_listens(kind: str) -> None:
    """A refused connection names host and port, and says where to look: the key, a firewall, a proxy that is missing."""
    place = f"127.0.0.1:{free_port()}"
    failure = await OF[kind](f"{kind}://{place}")
    assert failure.kind is Kind.PASSING
    assert failure.reason == f"TCP connect to {place} failed: Connection refused"
    assert failure.hint is not None
    assert all(word in failure.hint for word in (NAMES[kind], "firewall", "lark.proxy", "HTTPS_PROXY"))


@pytest.mark.parametrize("kind", OF)
async def test_a_name_that_is_not_known(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A failed lookup is told from a failed connection, with the name."""
    answers_for(monkeypatch, {})
    failure = await OF[kind](f"{kind}://nowhere.example")
    assert failure.reason == "DNS lookup of nowhere.example failed: Name or service not known"
    assert failure.hint is not None
    assert "this machine's DNS" in failure.hint


@pytest.mark.parametrize("kind", OF)
@pytest.mark.parametrize("proxy", [None, "http://proxy.example:3128"])
async def test_a_lookup_by_the_daemons_own_resolver(
    kind: str, proxy: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The resolver's words, which name the host, are not repeated; a server that hangs is told as one."""
    resolver = Resolver(lambda *_: time.sleep(0.3), timeout_s=0.05)

    async def lookup(host: Any, port: Any, **_: Any) -> Any:
        name = host.decode() if isinstance(host, bytes) else host
        if "example" not in name:
            return socket.getaddrinfo(name, port, type=socket.SOCK_STREAM)
        return await resolver.resolve(Question(name, None, 0, 0, 0, 0), port)

    monkeypatch.setattr(asyncio.get_running_loop(), "getaddrinfo", lookup)
    failure = await OF[kind](f"{kind}s://platform.example", proxy=proxy)
    name = "platform.example" if proxy is None else "the proxy proxy.example"
    assert failure.reason == (f"DNS lookup of {name} failed: the name server does not answer within 0.05 s")


@pytest.mark.parametrize(
    ("step", "keys", "said"),
    [
        (Step.LOOKUP, {"setting": "servers"}, "check servers and this machine's DNS"),
        (Step.LOOKUP, {"setting": None}, "the platform names this address: check this machine's DNS"),
        (Step.CONNECT, {"setting": "servers", "proxy_key": None}, "check servers and the firewall"),
        (Step.CONNECT, {"setting": "url"}, "check url, the firewall, and whether this machine needs a proxy (lark.proxy or HTTPS_PROXY)"),
        (Step.TLS, {"setting": "servers", "proxy_key": None}, "check servers, the clock, and whether a proxy intercepts TLS: if so, set SSL_CERT_FILE to its certificates"),
        (Step.HTTP, {"setting": "url"}, "check url and what is in between: a firewall, or lark.proxy"),
        (Step.WEBSOCKET, {"setting": None, "proxy_key": None}, "the platform names this address: check what is in between: a firewall"),
    ],
)  # fmt: skip
def test_a_hint_is_a_sentence(step: Step, keys: dict[str, Any], said: str) -> None:
    """However many things there are to look at, with and without a setting or a proxy."""
    reaching = Reaching("https://platform.example", proxy=None, **keys)
    reaching.step = step
    with pytest.raises(UnreachableError) as caught, reaching.explained():
        raise socket.gaierror if step is Step.LOOKUP else OSError
    assert caught.value.hint == said


@pytest.mark.parametrize("kind", OF)
async def test_a_certificate_that_nobody_trusts(kind: str, certificate: Path) -> None:
    """The failed TLS handshake says what is wrong with the certificate, and the hint speaks of proxies that open TLS."""
    async with serving(b"", tls=certificate) as port:
        failure = await OF[kind](f"{kind}s://127.0.0.1:{port}")
    assert failure.reason.startswith(
        f"TLS handshake with 127.0.0.1:{port} failed: the certificate is not trusted: "
    )
    assert failure.hint is not None
    assert all(word in failure.hint for word in (NAMES[kind], "clock", "SSL_CERT_FILE"))


@pytest.mark.parametrize("kind", OF)
async def test_a_server_without_tls(kind: str) -> None:
    """A server that speaks plain text where TLS is expected fails in the TLS handshake, by name."""
    async with serving(None, greeting=b"HTTP/1.1 400 No\r\n") as port:
        place = f"127.0.0.1:{port}"
        failure = await OF[kind](f"{kind}s://{place}")
    assert failure.reason.startswith(f"TLS handshake with {place} failed: ")
    assert "what answers there does not speak TLS (WRONG_VERSION" in failure.reason


@pytest.mark.parametrize(("kind", "step"), [("http", "HTTP request to"), ("ws", "WebSocket handshake with")])
async def test_a_server_that_hangs_up(kind: str, step: str) -> None:
    """A server that closes instead of an answer is named, with the step that failed."""
    async with serving(b"") as port:
        failure = await OF[kind](f"{kind}://127.0.0.1:{port}")
    assert failure.reason.startswith(f"{step} 127.0.0.1:{port} failed: ")


async def test_a_gateway_that_leads_elsewhere() -> None:
    """A redirect of the handshake is a refusal: nobody is asked but whom the platform's endpoint names."""
    async with serving(b"HTTP/1.1 500 No\r\nContent-Length: 0\r\n\r\n") as elsewhere:
        page = f"HTTP/1.1 302 Found\r\nLocation: ws://localhost:{elsewhere}/\r\nContent-Length: 0\r\n\r\n"
        async with serving(page.encode()) as port:
            failure = await of_gateway(f"ws://127.0.0.1:{port}")
    place = f"127.0.0.1:{port}"
    assert (
        failure.reason
        == f"WebSocket handshake with {place} failed: server rejected WebSocket connection: HTTP 302"
    )


@pytest.mark.parametrize(("kind", "step"), [("http", "HTTP request to"), ("ws", "WebSocket handshake with")])
async def test_a_server_that_says_nothing(kind: str, step: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Silence is told with the step at which it was met."""
    monkeypatch.setattr(connection, "HANDSHAKE_TIMEOUT_S", 0.3)
    async with serving(None) as port:
        url = f"{kind}://127.0.0.1:{port}"
        failure = await (of_gateway(url) if kind == "ws" else of_endpoint(url, timeout_s=0.3))
    assert failure.reason == f"{step} 127.0.0.1:{port}: no answer in time"


@pytest.mark.parametrize("kind", OF)
async def test_a_proxy_where_nobody_listens(kind: str) -> None:
    """The proxy is named, not the platform, and the hint is the key that names it; its password is nowhere."""
    proxy = f"127.0.0.1:{free_port()}"
    failure = await OF[kind](f"{kind}s://platform.example", proxy=f"http://me:passw0rd@{proxy}")
    assert failure.reason == f"TCP connect to the proxy {proxy} failed: Connection refused"
    assert failure.hint == "check lark.proxy"


@pytest.mark.parametrize("kind", OF)
async def test_a_proxy_that_refuses(kind: str) -> None:
    """A proxy's 407 names both ends, and nothing of what the proxy says of our login."""
    page = b"HTTP/1.1 407 Proxy Authentication Required\r\nContent-Length: 0\r\n\r\n"
    async with serving(page) as port:
        proxy = f"127.0.0.1:{port}"
        failure = await OF[kind](f"{kind}s://platform.example", proxy=f"http://me:passw0rd@{proxy}")
    assert failure.reason.startswith(
        f"proxy CONNECT to platform.example:443 through the proxy {proxy} failed: "
    )
    assert "407" in failure.reason
    assert "passw0rd" not in failure.reason
    assert failure.hint == "check lark.proxy"


async def test_a_proxy_of_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """The hint names the variable that the proxy stands in."""
    monkeypatch.setenv("HTTPS_PROXY", f"127.0.0.1:{free_port()}")
    assert (await of_endpoint("https://platform.example")).hint == "check HTTPS_PROXY"


@pytest.mark.parametrize("status", [404, 502])
async def test_an_answer_that_is_not_the_platforms(status: int) -> None:
    """An HTTP error says who gave it."""
    async with answering(Response("<html>", status_code=status)) as (url, _):
        failure = await of_endpoint(url)
    assert failure.reason == f"HTTP {status} (from {url.removeprefix('http://')})"
    assert failure.hint is not None
    assert "lark.domain" in failure.hint


# -- names with several addresses -----------------------------------------------------------------------------------------


def answers_for(monkeypatch: pytest.MonkeyPatch, names: dict[str, list[str]]) -> None:
    """These names have these addresses; nothing else that is no address is known."""
    real = socket.getaddrinfo

    def found(host: Any, port: Any, *args: Any, **options: Any) -> Any:
        name = host.decode() if isinstance(host, bytes) else host
        if name is None or name.replace(".", "").isdigit():
            return real(host, port, *args, **options)
        if name not in names:
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
        return [
            (socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP, "", (address, port))
            for address in names[name]
        ]

    monkeypatch.setattr(socket, "getaddrinfo", found)


@contextlib.contextmanager
def dead_address(port: int) -> Iterator[str]:
    """An address that lets connections hang: nobody takes them from a queue that is full."""
    with contextlib.ExitStack() as stack:
        listener = stack.enter_context(socket.socket())
        listener.bind(("127.0.0.2", port))
        listener.listen(0)
        for _ in range(4):
            filler = stack.enter_context(socket.socket())
            filler.setblocking(False)
            filler.connect_ex(("127.0.0.2", port))
        yield "127.0.0.2"


@pytest.fixture
def name_with_a_dead_address(
    monkeypatch: pytest.MonkeyPatch,
) -> Callable[[int], contextlib.AbstractContextManager[str]]:
    """A name whose first address is dead and whose second is this machine."""

    @contextlib.contextmanager
    def made(port: int) -> Iterator[str]:
        with dead_address(port) as dead:
            answers_for(monkeypatch, {"two.example": [dead, "127.0.0.1"]})
            yield f"two.example:{port}"

    return made


async def test_a_dead_first_address_does_not_hinder_the_websocket(
    name_with_a_dead_address: Callable[[int], contextlib.AbstractContextManager[str]],
) -> None:
    """The next address is tried beside the first, so the connection stands long before the handshake's time is over."""
    async with Simulator() as simulator:
        host, _, rest = simulator._gateway.issue().removeprefix("ws://").partition("/")
        with name_with_a_dead_address(int(host.rpartition(":")[2])) as place:
            url = f"ws://{place}/{rest}"
            simulator.faults.endpoint_body = json.dumps({"code": 0, "data": {"URL": url}}).encode()
            connection = make(simulator)
            try:
                await asyncio.wait_for(connection.open(), patience(5))
                assert await simulator.push(sample_event(), retry=False).over() == 200
            finally:
                await connection.close()


async def test_a_dead_first_address_does_not_hinder_the_endpoint(
    name_with_a_dead_address: Callable[[int], contextlib.AbstractContextManager[str]],
) -> None:
    """So it is with the call of the endpoint."""
    async with answering(Response(ok())) as (url, requests):
        with name_with_a_dead_address(int(url.rpartition(":")[2])) as place:
            await asyncio.wait_for(
                endpoint.fetch(domain=f"http://{place}", app_id="cli_x", app_secret="secret", timeout_s=30),
                patience(5),
            )
    assert len(requests) == 1
