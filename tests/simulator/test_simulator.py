"""The simulated platform against the unmodified SDK client and a bare one: it does what the platform does."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import logging
import random
import signal
import time
from typing import TYPE_CHECKING, Any

import httpx2
import pytest
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidStatus

from reserve_listener.lark import frames
from reserve_listener.simulator import (
    Answer,
    Faults,
    HttpServer,
    Received,
    Receiver,
    Refusal,
    Simulator,
    patience,
    realistic_events,
    sample_event,
)
from tests.simulating import Answering, Bare
from tests.whole_sdk import whole_sdk

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

MS = 0.001
QUICK: dict[str, Any] = {"retry_delays": (15.0, 60.0), "time_scale": 2 * MS, "answer_timeout": 50.0}
"""An answer within 0.1 s, then again after 0.03 s and 0.12 s."""


# Clients


async def ask(simulator: Simulator, **body: Any) -> httpx2.Response:
    async with httpx2.AsyncClient(trust_env=False) as http:
        credentials = {"AppID": simulator.app_id, "AppSecret": simulator.app_secret, **body}
        return await http.post(
            f"{simulator.domain}/callback/ws/endpoint", json=credentials, timeout=patience(5)
        )


async def url_of(simulator: Simulator) -> str:
    answer = await ask(simulator)
    return str(answer.json()["data"]["URL"])


@contextlib.asynccontextmanager
async def plain(simulator: Simulator) -> AsyncIterator[ClientConnection]:
    async with connect(await url_of(simulator), proxy=None, ping_interval=None, close_timeout=0.2) as socket:
        yield socket


@contextlib.asynccontextmanager
async def bare(simulator: Simulator, answer: Answering = lambda _: 200) -> AsyncIterator[Bare]:
    async with plain(simulator) as socket:
        yield Bare(socket, answer)


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(patience(5)):
        while not condition():  # neither end of a wire tells when it has read
            await asyncio.sleep(MS)


class Sdk:
    """Makes the SDK's own clients on the running loop; the blocking call of the endpoint goes to a thread."""

    def __init__(self, lark: Any) -> None:
        self.lark = lark
        self.exceptions = lark.ws.exception
        self.clients: list[Any] = []

    async def connect(
        self, simulator: Simulator, handler: Callable[[Any], None] = lambda _: None, **changed: str
    ) -> Any:
        dispatcher = (
            self.lark.EventDispatcherHandler.builder("", "")
            .register_p2_vc_reserve_config_updated_v1(handler)
            .build()
        )
        credentials = {"app_id": simulator.app_id, "app_secret": simulator.app_secret, **changed}
        client = self.lark.ws.Client(
            **credentials, event_handler=dispatcher, domain=simulator.domain, auto_reconnect=False
        )
        self.clients.append(client)
        url = await asyncio.to_thread(client._get_conn_url)
        client._get_conn_url = lambda: url
        await client._connect()
        return client


@pytest.fixture
async def sdk(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Sdk]:
    """The SDK, quiet and on this test's loop; its tasks are ended afterwards."""
    before = asyncio.all_tasks()
    loop = asyncio.get_running_loop()
    loop.set_exception_handler(lambda *_: None)  # its receive task raises where nobody looks
    with whole_sdk() as lark:
        monkeypatch.setattr(lark.ws.client, "loop", loop)
        monkeypatch.setattr(lark.ws.client.logger, "disabled", True)
        made = Sdk(lark)
        yield made
    for client in made.clients:
        client._cache._cron.cancel()
    left = {task for task in asyncio.all_tasks() - before if task is not asyncio.current_task()}
    for task in left:
        task.cancel()
    await asyncio.gather(*left, return_exceptions=True)


# The SDK's client


async def test_the_sdk_client_answers_200(sdk: Sdk) -> None:
    """The SDK's handler gets the typed event, and the push is acknowledged."""
    seen: list[Any] = []
    async with Simulator() as simulator:
        await sdk.connect(simulator, seen.append)
        push = simulator.push(sample_event(event_id="e-1", scope_id="omm_1"))
        assert await push.answered() == 200
        assert simulator.acknowledged == {"e-1"}
    assert [event.event.scope_id for event in seen] == ["omm_1"]
    assert seen[0].header.event_id == "e-1"
    assert seen[0].event.time_config.opening_hour == "28800"


async def test_a_handler_that_raises_is_pushed_again(sdk: Sdk) -> None:
    """500 has the event pushed again along the scaled schedule, until it is answered 200."""
    called: list[float] = []

    def handler(_event: Any) -> None:
        called.append(time.monotonic())
        if len(called) < 3:
            raise RuntimeError("not yet")

    async with Simulator(**QUICK) as simulator:
        await sdk.connect(simulator, handler)
        push = simulator.push(sample_event())
        assert await push.answered() == 500
        assert await push.over() == 200
    assert [attempt.code for attempt in push.attempts] == [500, 500, 200]
    gaps = [after - before for before, after in itertools.pairwise(called)]
    assert gaps[0] >= 0.03
    assert gaps[1] >= 0.12


@pytest.mark.parametrize("order", [(0, 1, 2), (2, 0, 1)])
async def test_the_sdk_client_joins_parts(sdk: Sdk, order: tuple[int, ...]) -> None:
    """An event in parts, in whatever order, reaches the handler once and whole."""
    seen: list[Any] = []
    async with Simulator() as simulator:
        await sdk.connect(simulator, seen.append)
        push = simulator.push(sample_event(event_id="e-1"), parts=3, part_order=order)
        assert await push.answered() == 200
    assert [event.header.event_id for event in seen] == ["e-1"]


@pytest.mark.parametrize(
    ("changed", "code"), [({"app_secret": "wrong"}, 514), ({"app_id": "cli_other"}, 1000040346)]
)
async def test_wrong_credentials_are_refused(sdk: Sdk, changed: dict[str, Any], code: int) -> None:
    """The SDK's client is refused with the platform's code, and gets no connection."""
    async with Simulator() as simulator:
        with pytest.raises(sdk.exceptions.ClientException) as refused:
            await sdk.connect(simulator, **changed)
        assert refused.value.code == code
        assert (simulator.connects, simulator.endpoint_calls) == (0, 1)


async def test_missing_credentials_are_refused() -> None:
    """A request without a secret, or that is no JSON, is told that there is no credential."""
    async with Simulator() as simulator, httpx2.AsyncClient(trust_env=False) as http:
        assert (await ask(simulator, AppSecret="")).json()["code"] == 1000040344
        answer = await http.post(f"{simulator.domain}/callback/ws/endpoint", content=b"{")
        assert answer.json()["code"] == 1000040344


@pytest.mark.parametrize(
    ("refusal", "kind"),
    [
        (Refusal(514, "too many", 1000040350), "ClientException"),
        ((403, "forbidden"), "ClientException"),
        ((514, "internal", 1), "ServerException"),
        (Refusal(500, "broken"), "ServerException"),
    ],
)
async def test_a_refused_handshake_carries_the_headers(sdk: Sdk, refusal: Any, kind: str) -> None:
    """The SDK's client reads the refusal from the handshake's headers as it does with the platform's."""
    async with Simulator(faults=Faults(handshake_refuse=refusal)) as simulator:
        with pytest.raises(getattr(sdk.exceptions, kind)) as refused:
            await sdk.connect(simulator)
        assert int(refused.value.code) == refusal[0]


async def test_a_plain_http_refusal_has_no_such_headers() -> None:
    """A number refuses the handshake as a proxy in between would."""
    async with Simulator() as simulator:
        url = await url_of(simulator)
        simulator.faults.handshake_refuse = 503
        with pytest.raises(InvalidStatus) as refused:
            await connect(url, proxy=None)
        assert refused.value.response.status_code == 503
        assert "handshake-status" not in refused.value.response.headers


async def test_a_ticket_is_good_for_one_connection() -> None:
    """A made-up ticket and one that was used are refused with 514."""
    async with Simulator() as simulator:
        url = await url_of(simulator)
        await (await connect(url, proxy=None)).close()
        for bad in (url, url.replace("ticket=", "ticket=0")):
            with pytest.raises(InvalidStatus) as refused:
                await connect(bad, proxy=None)
            assert refused.value.response.headers["handshake-status"] == "514"
        assert simulator.connects == 1


async def test_the_51st_connection_is_refused() -> None:
    """An app has at most 50 connections; one more is refused with the platform's code."""
    async with Simulator() as simulator, contextlib.AsyncExitStack() as stack:
        for _ in range(50):
            await stack.enter_async_context(connect(await url_of(simulator), proxy=None, close_timeout=0.2))
        with pytest.raises(InvalidStatus) as refused:
            await connect(await url_of(simulator), proxy=None)
        assert refused.value.response.headers["handshake-autherrcode"] == "1000040350"


async def test_the_sdk_client_survives_garbage(sdk: Sdk) -> None:
    """With garbage before each push the events still arrive and are answered."""
    seen: list[Any] = []
    async with Simulator(faults=Faults(garbage=True), seed=1) as simulator:
        await sdk.connect(simulator, seen.append)
        pushes = await simulator.push_many(sample_event() for _ in range(40))
        assert [push.code for push in pushes] == [200] * 40
    assert len(seen) == 40


async def test_control_frames_configure_the_sdk_client(sdk: Sdk) -> None:
    """A ping is answered with the ClientConfig in force, and a pong out of turn can carry another one."""
    async with Simulator(client_config={"PingInterval": 7, "ReconnectCount": 3}) as simulator:
        client = await sdk.connect(simulator)
        assert client._ping_interval == 7
        simulator.client_config["PingInterval"] = 8
        await client._write_message(sdk.lark.ws.client._new_ping_frame(1).SerializeToString())
        await until(lambda: client._ping_interval == 8)
        simulator.send_control(payload=b'{"PingInterval":9}')
        await until(lambda: client._ping_interval == 9)
        assert simulator.app_pings == 1


# The endpoint's faults


async def test_endpoint_faults() -> None:
    """Each fault of the endpoint does what it says and ends when it is taken back."""
    async with Simulator() as simulator:
        faults = simulator.faults
        faults.endpoint_status, faults.endpoint_headers = 503, {"Retry-After": "3"}
        answer = await ask(simulator)
        assert (answer.status_code, answer.headers["retry-after"]) == (503, "3")
        assert "data" not in answer.json()
        faults.endpoint_status, faults.endpoint_code, faults.endpoint_msg = 200, 1, "busy"
        assert (await ask(simulator)).json() == {"code": 1, "msg": "busy"}
        faults.endpoint_code, faults.endpoint_body = 0, b"<html>"
        assert (await ask(simulator)).content == b"<html>"
        faults.endpoint_body, faults.endpoint_stall = None, 0.2
        start = time.monotonic()
        assert (await ask(simulator)).json()["code"] == 0
        assert time.monotonic() - start >= 0.2
        assert simulator.endpoint_calls == 4


async def test_no_client_config() -> None:
    """An empty ClientConfig is left out of the answer; the default is the platform's."""
    async with Simulator(client_config={}) as simulator:
        assert "ClientConfig" not in (await ask(simulator)).json()["data"]
    async with Simulator() as simulator:
        assert (await ask(simulator)).json()["data"]["ClientConfig"]["PingInterval"] == 120


# The wire's faults


async def test_half_open() -> None:
    """While stalled nothing comes back, not even a WebSocket pong; afterwards what was sent is read."""
    async with Simulator(answer_timeout=0.05) as simulator, bare(simulator) as client:
        simulator.faults.stall = True
        await client.ping()
        pong = await client.socket.ping()
        assert await simulator.push(sample_event(), retry=False).answered() is None
        assert (asyncio.ensure_future(pong).done(), client.pongs, client.seen) == (False, [], [])
        assert simulator.connections == 1
        simulator.faults.stall = False
        async with asyncio.timeout(patience(5)):
            await pong
        await until(lambda: len(client.pongs) == 1)
        assert await simulator.push(sample_event()).answered() == 200


async def test_half_open_for_good() -> None:
    """`stall_open` stalls the connections of the moment; a new one works."""
    async with Simulator() as simulator, bare(simulator) as dead:
        simulator.stall_open()
        async with bare(simulator) as alive:
            await simulator.connected(count=2)
            async with asyncio.timeout(patience(5)):
                await (await alive.socket.ping())
            pong = await dead.socket.ping()
            await dead.socket.close()  # gives up after its own time
            with pytest.raises(ConnectionClosed):
                await pong
            await until(lambda: simulator.connections == 1)
            assert await simulator.push(sample_event()).answered() == 200


async def test_no_app_pong() -> None:
    """App-level pings stay unanswered, while WebSocket pings are answered."""
    async with Simulator(faults=Faults(no_app_pong=True)) as simulator, bare(simulator) as client:
        await client.ping()
        await simulator.until(lambda: simulator.app_pings == 1)
        async with asyncio.timeout(patience(5)):
            await (await client.socket.ping())
        assert client.pongs == []
        simulator.faults.no_app_pong = False
        await client.ping()
        await until(lambda: len(client.pongs) == 1)


async def test_duplicates() -> None:
    """An event is pushed twice, each time with its own message id and its own answer."""
    async with Simulator(faults=Faults(duplicate=True)) as simulator, bare(simulator) as client:
        push = simulator.push(sample_event(event_id="e-1"))
        assert push.copy is not None
        assert (await push.answered(), await push.copy.answered()) == (200, 200)
    assert client.seen == ["e-1", "e-1"]
    assert len(set(client.message_ids)) == 2


async def test_wrong_order() -> None:
    """Of two events the second comes first; one without a second comes all the same."""
    async with Simulator(faults=Faults(reorder=True)) as simulator, bare(simulator) as client:
        await simulator.push_many([sample_event(event_id=name) for name in ("a", "b", "c")])
    assert client.seen == ["b", "a", "c"]


async def test_split_fault_and_repeated_parts() -> None:
    """The fault splits each event; a push can have its parts repeated or left out the first time."""
    async with Simulator(faults=Faults(split=3)) as simulator, plain(simulator) as socket:
        push = simulator.push(b"abcdefg", repeat_parts=True, part_order=[2, 0], retry=False)
        parts = [frames.decode(await socket.recv(decode=False)) for _ in range(4)]
    assert [frames.headers_of(part)["seq"] for part in parts] == ["2", "2", "0", "0"]
    assert {frames.headers_of(part)["sum"] for part in parts} == {"3"}
    assert [part.payload for part in parts] == [b"efg", b"efg", b"ab", b"ab"]
    assert push.event_id is None


async def test_drop() -> None:
    """Connections are closed with the code that was asked for, or reset without one."""
    async with Simulator() as simulator:
        async with bare(simulator) as first, bare(simulator) as second:
            await simulator.drop(4001, "bye")
            assert [await first.closed(), await second.closed()] == [4001, 4001]
            assert simulator.connections == 0
        async with bare(simulator) as client:
            await simulator.drop(abort=True)
            assert await client.closed() == 1006
        assert simulator.connects == 3


async def test_drop_every() -> None:
    """Connections are reset in time, again and again."""
    async with Simulator(faults=Faults(drop_every=0.05)) as simulator:
        for _ in range(3):
            async with bare(simulator) as client:
                assert await client.closed() == 1006


# Pushes


async def test_silence_is_pushed_again_until_it_is_given_up() -> None:
    """Without an answer in time the event is pushed again, as often as the schedule says and no more."""
    async with Simulator(**QUICK) as simulator, bare(simulator, lambda _: None) as client:
        push = simulator.push(sample_event(event_id="e-1"))
        assert await push.over() is None
        assert client.seen == ["e-1"] * 3
    assert [attempt.code for attempt in push.attempts] == [None] * 3
    assert all(0.1 <= attempt.elapsed < 2 for attempt in push.attempts)
    assert simulator.acknowledged == set()
    assert simulator.answers == {None: 3}


async def test_a_late_answer_does_not_count() -> None:
    """An answer after the time for it is unexpected: the event is not acknowledged."""
    async with Simulator(answer_timeout=0.03) as simulator, plain(simulator) as socket:
        push = simulator.push(sample_event(), retry=False)
        frame = frames.decode(await socket.recv(decode=False))
        assert await push.answered() is None
        frame.payload = b'{"code":200}'
        await socket.send(frames.encode(frame))
        await until(lambda: simulator.unexpected == 1)
    assert simulator.acknowledged == set()


async def test_nonsense_from_the_client_is_counted() -> None:
    """Bytes that are no frame, texts, and answers without a code are unexpected and do no harm."""
    async with Simulator() as simulator, plain(simulator) as socket:
        push = simulator.push(sample_event(), retry=False)
        frame = frames.decode(await socket.recv(decode=False))
        frame.payload = b"nonsense"
        for message in (b"\xff\xff", "text", frames.encode(frame)):
            await socket.send(message)
        assert await push.answered() == 0
        assert simulator.unexpected == 3


async def test_with_nobody_connected_the_next_connection_gets_it() -> None:
    """A push to nobody counts as unanswered at once and is tried again."""
    async with Simulator(retry_delays=[0.3] * 20) as simulator:
        push = simulator.push(sample_event())
        assert await push.answered() is None
        async with bare(simulator):
            assert await push.over() == 200


async def test_a_lost_clients_pushes_go_to_the_next() -> None:
    """What a client had not answered when it was gone is pushed to the next one."""
    async with Simulator(retry_delays=[0.3] * 20) as simulator:
        async with bare(simulator, lambda _: None) as client:
            push = simulator.push(sample_event(event_id="e-1"))
            await until(lambda: client.seen == ["e-1"])
            client.socket.transport.abort()
            assert await push.answered() is None
        async with bare(simulator):
            assert await push.over() == 200


async def test_a_cluster_shares_the_events() -> None:
    """Each event goes to one of the connections, and each connection gets some."""
    async with Simulator(seed=1) as simulator, bare(simulator) as one, bare(simulator) as other:
        await simulator.push_many(sample_event() for _ in range(60))
    assert len(one.seen) + len(other.seen) == 60
    assert one.seen
    assert other.seen
    assert simulator.acknowledged == {*one.seen, *other.seen}


async def test_push_many_bounds_what_is_in_flight() -> None:
    """Never more than `in_flight` events wait for their answer."""
    most = 0

    def answer(_envelope: dict[str, Any]) -> int:
        nonlocal most
        most = max(most, simulator.unanswered)
        return 200

    async with Simulator() as simulator, bare(simulator, answer):
        pushes = await simulator.push_many((sample_event() for _ in range(100)), in_flight=5)
    assert {push.code for push in pushes} == {200}
    assert 1 <= most <= 5


async def test_a_message_id_can_be_given_but_not_twice_at_a_time() -> None:
    """The message id is the one that was asked for; the same again while it is on its way is a mistake."""
    async with Simulator() as simulator, bare(simulator, lambda _: None) as client:
        simulator.push(sample_event(), message_id="m-1")
        with pytest.raises(ValueError, match="m-1"):
            simulator.push(sample_event(), message_id="m-1")
        await until(lambda: client.message_ids == ["m-1"])


async def test_waits_end() -> None:
    """Every wait has an end: TimeoutError."""
    async with Simulator() as simulator:
        for wait in (
            simulator.connected(0.01),
            simulator.until(lambda: False, 0.01),
            simulator.push(sample_event()).over(0.01),
        ):
            with pytest.raises(TimeoutError):
                await wait


# The life of the simulator


async def test_the_end_is_prompt_and_leaves_nothing() -> None:
    """With stalled connections, a stalled endpoint and pushes on their way it still ends at once, without a task left."""
    before = asyncio.all_tasks()
    async with contextlib.AsyncExitStack() as clients:
        async with Simulator() as simulator:
            await clients.enter_async_context(connect(await url_of(simulator), proxy=None, close_timeout=0.1))
            simulator.stall_open()
            await clients.enter_async_context(connect(await url_of(simulator), proxy=None, close_timeout=0.1))
            simulator.push(sample_event())
            simulator.faults.endpoint_stall = 60.0
            asking = asyncio.create_task(ask(simulator), name="asking")
            await simulator.until(lambda: simulator.endpoint_calls == 3)
            await clients.enter_async_context(asyncio.timeout(patience(5)))  # from here on
        with pytest.raises(httpx2.TransportError):
            await asking
    assert asyncio.all_tasks() == before


async def test_signals_stay_with_the_program() -> None:
    """The simulator installs no signal handlers, as uvicorn's `serve` would."""
    handlers = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    async with Simulator() as simulator:
        await ask(simulator)
        assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)] == handlers


async def test_a_port_can_be_fixed() -> None:
    """A simulator can be had again at the same port, while a port in use is an OSError and nothing is left."""
    async with Simulator() as simulator:
        port = int(simulator.domain.rpartition(":")[2])
        before = asyncio.all_tasks()
        with pytest.raises(OSError, match="in use"):
            await Simulator(port=port).__aenter__()
        assert asyncio.all_tasks() == before
    async with Simulator(port=port) as simulator, bare(simulator):
        assert simulator.domain == f"http://127.0.0.1:{port}"


async def test_no_credential_in_the_logs(
    caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    """At the most talkative level neither the secret nor the URL's credentials are logged or printed."""
    caplog.set_level(logging.DEBUG)
    async with Simulator() as simulator:
        url = await url_of(simulator)
        caplog.clear()  # the HTTP and WebSocket clients of this test may say what they like
        reader, writer = await asyncio.open_connection("127.0.0.1", int(url.split(":")[2].split("/")[0]))
        path = url[url.index("/ws/v2") :]
        writer.write(
            f"GET {path} HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n".encode()
        )
        assert b" 101 " in await reader.readline()
        await simulator.connected()
        simulator.push(sample_event())
        writer.transport.abort()
        await simulator.disconnected()
    out, err = capfd.readouterr()
    said = caplog.text + out + err
    for secret in (simulator.app_secret, *(url.split(f"{key}=")[1][:32] for key in ("access_key", "ticket"))):
        assert secret not in said


# Events


def test_the_sample_is_the_platforms_envelope() -> None:
    """The sample has the documented nesting and types; hours are strings, and keys can be replaced."""
    event = sample_event(
        event_id="e-1", scope_id="omb_1", scope_type=1, create_time_ms=5, token="t", time_config={"x": 1}
    )
    assert event["header"] == {
        "event_id": "e-1",
        "event_type": "vc.reserve_config.updated_v1",
        "create_time": "5",
        "token": "t",
        "app_id": event["header"]["app_id"],
        "tenant_key": event["header"]["tenant_key"],
    }
    assert event["schema"] == "2.0"
    assert event["event"]["scope_id"] == "omb_1"
    assert event["event"]["time_config"] == {"x": 1}
    assert sample_event()["event"]["time_config"]["end_time"] == "86400"
    assert sample_event()["header"]["event_id"] != sample_event()["header"]["event_id"]


def test_realistic_events_vary_and_stay_in_range() -> None:
    """The stream touches rooms and levels and every section, within the documented ranges, the same for a seed."""
    events = list(itertools.islice(realistic_events(random.Random(4)), 300))
    again = list(itertools.islice(realistic_events(random.Random(4)), 300))
    assert [event["event"] for event in events] == [event["event"] for event in again]
    assert len({event["header"]["event_id"] for event in events}) == 300
    assert {event["event"]["scope_type"] for event in events} == {1, 2}
    for section in ("approve_config", "time_config", "reserve_scope_config"):
        assert len({str(event["event"][section]) for event in events}) > 5
    for event in events:
        times = event["event"]["time_config"]
        assert 0 <= int(times["start_time"]) < int(times["end_time"]) <= 86400
        assert 1 <= times["days_in_advance"] <= 730


# The receiver


async def test_the_receiver_keeps_and_answers_as_told() -> None:
    """Requests are kept whole and in order; answers come from a script, a function or one status for all."""

    def answer(received: Received) -> int:
        return 418 if received.path == "/tea" else 204

    receiver = Receiver([500, Answer(status=429, headers={"Retry-After": "1"}), Answer(delay=0.1)])
    async with (
        HttpServer(receiver) as server,
        httpx2.AsyncClient(trust_env=False, base_url=server.url) as http,
    ):
        assert (await http.post("/hook", content=b"1", headers={"X-Id": "a"})).status_code == 500
        assert (await http.post("/hook", content=b"2")).headers["retry-after"] == "1"
        start = time.monotonic()
        assert (await http.post("/hook", content=b"3")).status_code == 200
        assert time.monotonic() - start >= 0.1
        assert (await http.post("/hook", content=b"4")).status_code == 200
        receiver.answer = answer
        assert (await http.post("/tea")).status_code == 418
        received = await receiver.wait_for(5)
    assert [request.body for request in received] == [b"1", b"2", b"3", b"4", b""]
    assert received[0].headers["x-id"] == "a"
    assert (received[0].method, received[0].path) == ("POST", "/hook")
    assert receiver.most_open_requests == 1


async def test_a_server_ends_with_requests_open() -> None:
    """A server that is told to stop resets what waits for its answer."""
    receiver = Receiver(Answer(delay=60))
    async with httpx2.AsyncClient(trust_env=False) as http:
        async with HttpServer(receiver) as server:
            asking = asyncio.create_task(http.post(server.url), name="asking")
            await receiver.wait_for(1)
        with pytest.raises(httpx2.TransportError):
            await asking
