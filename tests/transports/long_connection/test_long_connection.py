"""The long connection against a local platform: real sockets, the SDK's real client, and the faults of both."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import psutil
import pytest
from structlog.testing import capture_logs
from websockets.asyncio.server import serve
from websockets.exceptions import ConnectionClosedError
from websockets.frames import Close

from reserve_listener.lark.frames import MAX_FRAME_BYTES
from reserve_listener.model import Verdict
from reserve_listener.net.reaching import UnreachableError
from reserve_listener.simulator import Faults, Refusal, Simulator, patience, sample_event
from reserve_listener.transports.long_connection import connection as long_connection, frame_handler
from reserve_listener.transports.long_connection.connection import (
    LongConnection,
    build_dispatcher,
    is_registered,
)
from reserve_listener.transports.long_connection.failures import (
    ConnectionLostError,
    EndpointError,
    Kind,
    classify,
)
from reserve_listener.transports.long_connection.timing import Timing
from tests.helpers import until

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

LIVENESS_S = 1.2
LONG_S = 60.0


@dataclass(frozen=True)
class Settings:
    """What stands under `[lark]`."""

    app_id: str
    domain: str
    endpoint_timeout: float = 5.0
    liveness_timeout: float = LONG_S


class Taker:
    """Intake: what came, and the verdict on it."""

    def __init__(self, verdict: Callable[[bytes], Verdict] = lambda _raw: Verdict.STORED) -> None:
        self.taken: list[bytes] = []
        self._verdict = verdict

    def __call__(self, raw: bytes, answer: Callable[[Verdict], None], /) -> None:
        self.taken.append(raw)
        answer(self._verdict(raw))


def make(
    simulator: Simulator,
    accept: Taker | None = None,
    *,
    liveness_s: float = LONG_S,
    timing: Timing | None = None,
    proxy: str | None = None,
    **settings: Any,
) -> LongConnection:
    return LongConnection(
        Settings(simulator.app_id, simulator.domain, liveness_timeout=liveness_s, **settings),
        app_secret=simulator.app_secret,
        proxy=proxy,
        dispatcher=build_dispatcher(lambda _raw: None),
        accept=accept or Taker(),
        timing=timing or Timing(),
    )


@contextlib.asynccontextmanager
async def opened(
    simulator: Simulator, accept: Taker | None = None, **options: Any
) -> AsyncIterator[LongConnection]:
    connection = make(simulator, accept, **options)
    try:
        await connection.open()
        await simulator.connected()
        yield connection
    finally:
        await connection.close()


async def lost(connection: LongConnection, within_s: float = 5.0) -> ConnectionLostError:
    return await asyncio.wait_for(connection.wait_lost(), patience(within_s))


@pytest.fixture(autouse=True)
async def no_task_is_left() -> AsyncIterator[None]:
    """After each test the loop has the tasks that it had before."""
    before = asyncio.all_tasks()
    yield
    for _ in range(20):  # a few rounds for what has ended but not yet been collected
        await asyncio.sleep(0)
    after = asyncio.all_tasks() - {asyncio.current_task()}
    assert {task.get_name() for task in after - before} == set()


# -- pushes ---------------------------------------------------------------------------------------------------------------


async def test_a_push_is_taken_and_answered() -> None:
    """The payload reaches intake byte for byte, and the platform gets 200."""
    accept = Taker()
    async with Simulator() as simulator, opened(simulator, accept):
        push = simulator.push(sample_event())
        assert await push.over() == 200
        assert accept.taken == [push.payload]
        assert simulator.unexpected == 0


@pytest.mark.parametrize("verdict", Verdict)
async def test_the_answer_follows_the_verdict(verdict: Verdict) -> None:
    """200 only for what is committed; anything else is answered 500 and pushed again."""
    async with Simulator() as simulator, opened(simulator, Taker(lambda _raw: verdict)):
        push = simulator.push(sample_event(), retry=False)
        assert await push.over() == (200 if verdict.committed else 500)


async def test_another_type_is_not_ours() -> None:
    """The registry of the SDK's dispatcher knows our type, in the second schema, and no other."""
    ours = is_registered(build_dispatcher(lambda _raw: None))
    assert ours("p2.vc.reserve_config.updated_v1")
    assert not ours("p1.vc.reserve_config.updated_v1")
    assert not ours("p2.im.message.receive_v1")


async def test_the_handler_hears_the_typed_event() -> None:
    """An event that goes through the dispatcher reaches our handler as JSON."""
    heard: list[bytes] = []
    envelope = sample_event()
    build_dispatcher(heard.append)._do_without_validation(json.dumps(envelope).encode())
    assert json.loads(heard[0]) == envelope


@pytest.mark.parametrize("order", [None, (3, 2, 1, 0), (1, 3, 0, 2)])
@pytest.mark.parametrize("repeat", [False, True])
async def test_split_payloads_in_any_order(order: tuple[int, ...] | None, repeat: bool) -> None:  # noqa: FBT001  # a column
    """A payload in four parts, in any order, each once or twice, is taken whole and answered once."""
    accept = Taker()
    async with Simulator() as simulator, opened(simulator, accept):
        push = simulator.push(sample_event(), parts=4, part_order=order, repeat_parts=repeat)
        assert await push.over() == 200
        assert accept.taken == [push.payload]
        assert simulator.unexpected == 0


async def test_garbage_is_survived() -> None:
    """With garbage before each event every event is still taken and answered, over the same connection."""
    async with Simulator(faults=Faults(garbage=True), seed=4) as simulator, opened(simulator):
        with capture_logs() as lines:
            pushes = await simulator.push_many([sample_event() for _ in range(100)], retry=False)
            simulator.send_raw(b"\xff" * 1000)
            assert await simulator.push(sample_event()).over() == 200
        assert {push.code for push in pushes} == {200}
        assert simulator.connects == 1
        assert {line["event"] for line in lines} == {"connection.garbage_frame"}


async def test_a_payload_of_megabytes() -> None:
    """Five megabytes in one frame, which would close the SDK's own connection, are taken."""
    accept = Taker()
    async with Simulator() as simulator, opened(simulator, accept):
        push = simulator.push(sample_event(added="x" * 5_000_000))
        assert await push.over(timeout=20) == 200
        assert len(accept.taken[0]) > 5_000_000


async def test_a_frame_beyond_the_bound() -> None:
    """Seventeen megabytes end the connection, by us and with a reason that a person can read."""
    async with Simulator() as simulator, opened(simulator) as connection:
        simulator.push(sample_event(added="x" * (MAX_FRAME_BYTES + 1_000_000)), retry=False)
        reason = await lost(connection, 20)
        assert not reason.by_server
        assert "1009" in str(reason)
        assert "exceeds limit" in str(reason)


async def test_nothing_is_taken_after_the_end_of_receiving() -> None:
    """Told to stop hearing, the connection leaves a push without an answer and stays up."""
    accept = Taker()
    async with Simulator(answer_timeout=0.2) as simulator, opened(simulator, accept) as connection:
        connection.stop_receiving()
        assert await simulator.push(sample_event(), retry=False).over() is None
        assert accept.taken == []
        assert simulator.connections == 1


async def test_answers_are_flushed() -> None:
    """What was decided before the flush is with the platform after the close."""
    answers: list[Callable[[Verdict], None]] = []

    def accept(_raw: bytes, answer: Callable[[Verdict], None], /) -> None:
        answers.append(answer)

    async with Simulator() as simulator:
        connection = make(simulator)
        connection._handler._accept = accept
        await connection.open()
        await simulator.connected()
        pushes = [simulator.push(sample_event(), retry=False) for _ in range(50)]
        await until(lambda: len(answers) == 50)
        connection.stop_receiving()
        for answer in answers:
            answer(Verdict.STORED)
        await connection.flush()
        await connection.close()
        assert [await push.over() for push in pushes] == [200] * 50


# -- losses ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("code", [1000, 1001, 1011, 1012, 4001])
async def test_a_close_by_the_server(code: int) -> None:
    """A close from the other side is known as one, with its code and its words."""
    async with Simulator() as simulator, opened(simulator) as connection:
        await simulator.drop(code, "going down")
        reason = await lost(connection)
        assert reason.by_server
        assert str(reason) == f"closed by the server, code {code}: going down"


async def test_a_reset_is_nobodys_close() -> None:
    """A connection that breaks off was not closed by the server."""
    async with Simulator() as simulator, opened(simulator) as connection:
        simulator.abort()
        reason = await lost(connection)
        assert not reason.by_server
        assert str(reason) == "the connection broke"


@pytest.mark.parametrize(
    ("rcvd", "sent", "theirs_first", "by_server", "said"),
    [
        (Close(1001, "bye"), Close(1001, "bye"), True, True, "closed by the server, code 1001: bye"),
        (Close(1001, ""), None, None, True, "closed by the server, code 1001"),
        (Close(1009, ""), Close(1009, "too big"), False, False, "closed by us, code 1009 too big"),
        (None, Close(1011, "keepalive ping timeout"), None, False, "closed by us, code 1011 keepalive ping timeout"),
        (None, None, None, False, "the connection broke"),
    ],
)  # fmt: skip
async def test_who_closed_it(
    *, rcvd: Close | None, sent: Close | None, theirs_first: bool | None, by_server: bool, said: str
) -> None:
    """A close that was ours is ours, also when the server has answered it; only its own brings the nonce."""
    reason = long_connection._lost(ConnectionClosedError(rcvd, sent, rcvd_then_sent=theirs_first))
    assert (reason.by_server, str(reason)) == (by_server, said)


async def test_a_half_open_connection_is_found() -> None:
    """When the other end falls silent this is known within the liveness timeout, and it was not the server's close."""
    async with Simulator() as simulator, opened(simulator, liveness_s=LIVENESS_S) as connection:
        simulator.stall_open()
        reason = await lost(connection, LIVENESS_S + 2)
        assert not reason.by_server
        assert "keepalive ping timeout" in str(reason)


async def test_a_probe_finds_out(monkeypatch: pytest.MonkeyPatch) -> None:
    """Probed, a living connection stays and a half-open one is lost at once, long before its pings would tell."""
    monkeypatch.setattr(long_connection, "PROBE_TIMEOUT_S", 0.2)
    async with Simulator() as simulator, opened(simulator) as connection:
        await connection.probe()
        assert not connection._lost.done()
        simulator.stall_open()
        await connection.probe()
        assert str(await lost(connection)) == "no answer after the machine woke up"


async def test_a_living_connection_is_left_alone() -> None:
    """A peer that answers the pings keeps its connection for longer than the liveness timeout."""
    async with Simulator() as simulator, opened(simulator, liveness_s=0.3) as connection:
        with pytest.raises(TimeoutError):
            await lost(connection, 1.0)
        assert await simulator.push(sample_event()).over() == 200


async def test_missing_pongs_are_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two pings of the platform's kind without a pong mean a dead peer, though its WebSocket still answers."""
    monkeypatch.setattr("reserve_listener.transports.long_connection.timing.PING_INTERVAL_S", (0.05, 120.0))
    config = {"PingInterval": 0}
    async with Simulator(client_config=config) as simulator, opened(simulator) as connection:
        assert connection.timing.ping_interval_s == 0.05
        await simulator.until(lambda: simulator.app_pings >= 6)
        assert not connection._lost.done()
        simulator.faults.no_app_pong = True
        assert str(await lost(connection)) == "2 pings without a pong, 0.05 s each"


async def test_a_pong_brings_new_timing() -> None:
    """What a pong's payload wishes holds from then on; garbage and null in it change nothing."""
    config = {"ReconnectInterval": 120}
    async with Simulator(client_config=config) as simulator, opened(simulator) as connection:
        assert connection.timing == Timing(reconnect_interval_s=120.0)
        for payload in (
            b'{"PingInterval": 60, "ReconnectNonce": 5}',
            b"null",
            b"{",
            b'{"PingInterval": "x"}',
        ):
            simulator.send_control(payload=payload)
        assert await simulator.push(sample_event()).over() == 200  # all before it has been read
        assert connection.timing == Timing(
            ping_interval_s=60.0, reconnect_nonce_s=5.0, reconnect_interval_s=120.0
        )


async def test_an_error_while_receiving_is_a_loss(monkeypatch: pytest.MonkeyPatch) -> None:
    """Should our own code fail at a message, the connection is known to be lost: it is never deaf and up."""

    def broken(_message: bytes | str) -> None:
        raise KeyError("a bug")

    async with Simulator() as simulator, opened(simulator) as connection:
        monkeypatch.setattr(connection._handler, "handle", broken)
        simulator.send_control()
        reason = await lost(connection)
        assert str(reason) == "KeyError: 'a bug'"
        assert not reason.by_server


async def test_a_side_task_that_dies_is_a_loss(monkeypatch: pytest.MonkeyPatch) -> None:
    """A connection whose pings or answers have ended with an error is given up."""
    monkeypatch.setattr("reserve_listener.lark.frames.PING", 5)
    async with Simulator() as simulator, opened(simulator) as connection:
        assert "TypeError" in str(await lost(connection))


async def test_a_peer_that_takes_no_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    """Answers that pile up beyond the bound end the connection instead of filling the memory."""
    monkeypatch.setattr(frame_handler, "HELD_BYTES", 1_000_000)
    async with Simulator() as simulator, opened(simulator) as connection:
        (peer,) = simulator._gateway.connections
        peer.transport.pause_reading()
        for _ in range(500):
            connection._send(b"x" * 100_000)
            await asyncio.sleep(0)
        assert str(await lost(connection)) == "the platform sends data but does not read our answers"


# -- failures to open -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("faults", "kind", "reason"),
    [
        (Faults(endpoint_code=514), Kind.REFUSED_CREDENTIALS, "the endpoint refused with code 514: simulated fault"),
        (Faults(endpoint_code=1000040350), Kind.REFUSED, "the endpoint refused with code 1000040350: simulated fault"),
        (Faults(endpoint_code=1), Kind.PASSING, "the endpoint refused with code 1: simulated fault"),
        (Faults(endpoint_status=503), Kind.PASSING, "HTTP 503 simulated fault (from <endpoint>)"),
        (Faults(endpoint_body=b"<html>"), Kind.PASSING, "the endpoint's answer is not the platform's JSON (from <endpoint>)"),
        (Faults(endpoint_stall=60.0), Kind.PASSING, "HTTP request to <endpoint>: no answer in time"),
        (Faults(handshake_refuse=Refusal(403, "no")), Kind.REFUSED, "the handshake was refused: no"),
        (Faults(handshake_refuse=Refusal(514, "full", 1000040350)), Kind.REFUSED, "the handshake was refused: full"),
        (Faults(handshake_refuse=Refusal(514, "old", 1000040344)), Kind.PASSING, "the handshake was refused: old"),
        (Faults(handshake_refuse=Refusal(514, "bare")), Kind.PASSING, "the handshake was refused: bare"),
        (Faults(handshake_refuse=Refusal(500, "oops")), Kind.PASSING, "the handshake was refused: oops"),
        (Faults(handshake_refuse=503), Kind.PASSING, "WebSocket handshake with <gateway> failed: server rejected WebSocket connection: HTTP 503"),
        (Faults(handshake_refuse=403), Kind.PASSING, "WebSocket handshake with <gateway> failed: server rejected WebSocket connection: HTTP 403"),
    ],
)  # fmt: skip
async def test_a_failure_to_open(faults: Faults, kind: Kind, reason: str) -> None:
    """Each way to be refused comes out of `open` as what it is, through the SDK too, and leaves nothing behind."""
    async with Simulator(faults=faults) as simulator:
        connection = make(simulator, endpoint_timeout=0.3)
        with pytest.raises(Exception) as caught:
            await connection.open()
        await connection.close()
        failure = classify(caught.value)
        endpoint, gateway = (urlsplit(url).netloc for url in (simulator.domain, simulator._gateway.issue()))
        said = failure.reason.replace(endpoint, "<endpoint>").replace(gateway, "<gateway>")
        assert (failure.kind, said) == (kind, reason)
        assert simulator.connections == 0


async def test_wrong_credentials() -> None:
    """A wrong secret is refused by the endpoint, and the error does not hold it."""
    async with Simulator() as simulator:
        connection = make(simulator)
        connection._app_secret = "a-wrong-secret"
        with pytest.raises(EndpointError) as caught:
            await connection.open()
        await connection.close()
        assert caught.value.code == 514
        assert "wrong-secret" not in str(caught.value)


async def test_a_gateway_that_says_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """A gateway that takes the connection and never answers the handshake is given up in time."""
    monkeypatch.setattr(long_connection, "HANDSHAKE_TIMEOUT_S", 0.2)
    gone = asyncio.Event()

    async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError):
            await reader.read()  # to the end of the stream
        writer.close()
        gone.set()

    server = await asyncio.start_server(silent, "127.0.0.1", 0)
    url = f"ws://127.0.0.1:{server.sockets[0].getsockname()[1]}/?device_id=1&service_id=2"
    body = json.dumps({"code": 0, "data": {"URL": url}}).encode()
    async with server, Simulator(faults=Faults(endpoint_body=body)) as simulator:
        connection = make(simulator)
        with pytest.raises(UnreachableError, match=r"^WebSocket handshake with .*: no answer in time"):
            await connection.open()
        await connection.close()
        await asyncio.wait_for(gone.wait(), patience(5))


async def test_opening_can_be_cancelled() -> None:
    """Cancelled while the endpoint stalls, `open` ends at once."""
    async with Simulator(faults=Faults(endpoint_stall=60.0)) as simulator:
        connection = make(simulator)
        opening = asyncio.create_task(connection.open())
        await simulator.until(lambda: simulator.endpoint_calls == 1)
        opening.cancel()
        async with asyncio.timeout(patience(5)):
            with pytest.raises(asyncio.CancelledError):
                await opening
            await connection.close()


# -- closing ----------------------------------------------------------------------------------------------------------------


async def test_a_close_is_seen_by_the_platform() -> None:
    """After `close` the platform has no connection of ours; a second `close` and one before `open` are nothing."""
    async with Simulator() as simulator:
        connection = make(simulator)
        await connection.close()
        connection = make(simulator)
        await connection.open()
        await simulator.connected()
        await connection.close()
        await simulator.disconnected()
        await connection.close()


async def test_a_close_at_once() -> None:
    """Closed in the moment in which it was opened, nothing is left, not even the receive task that had no turn yet."""
    async with Simulator() as simulator:
        connection = make(simulator)
        await connection.open()
        await connection.close()
        await simulator.disconnected()


async def test_closing_a_half_open_connection_is_fast() -> None:
    """A peer that does not answer the close keeps us for a second, not for the ten of the library."""
    async with Simulator() as simulator, opened(simulator) as connection:
        simulator.stall_open()
        async with asyncio.timeout(patience(long_connection.CLOSE_TIMEOUT_S + 4)):
            await connection.close()


async def test_a_cancelled_close_leaves_nothing() -> None:
    """Cancelled while the peer does not answer, `close` still gives the socket and the tasks back."""
    async with Simulator() as simulator, opened(simulator) as connection:
        simulator.stall_open()
        closing = asyncio.create_task(connection.close())
        await until(lambda: connection._client._conn.state.name == "CLOSING")
        closing.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await closing
        assert connection._client._conn.transport.is_closing()
        assert connection._client._receiver.done()
        assert connection._client._cache._cron.done()


async def test_waiting_for_the_loss_can_be_cancelled() -> None:
    """Who stops waiting takes nothing away: the loss is still told to the next."""
    async with Simulator() as simulator, opened(simulator) as connection:
        waiting = asyncio.create_task(connection.wait_lost())
        await asyncio.sleep(0)
        waiting.cancel()
        await asyncio.gather(waiting, return_exceptions=True)
        simulator.abort()
        assert isinstance(await lost(connection), ConnectionLostError)


async def test_fifty_connections_leak_nothing() -> None:
    """Fifty times opened, lost or closed, there are as many tasks and descriptors as before."""
    process = psutil.Process(os.getpid())
    async with Simulator() as simulator:

        async def once(number: int) -> None:
            async with opened(simulator) as connection:
                if number % 2:
                    simulator.abort()
                    await lost(connection)
            await simulator.disconnected()

        await once(0)
        tasks, descriptors = len(asyncio.all_tasks()), process.num_fds()
        for number in range(50):
            await once(number)
        # Closed sockets are given back in the loop's next rounds.
        await until(lambda: len(asyncio.all_tasks()) <= tasks and process.num_fds() <= descriptors)
        assert simulator.connects == 51


async def test_the_address_is_in_no_log(caplog: pytest.LogCaptureFixture) -> None:
    """Neither the SDK nor we write the address with its keys, at the level that the daemon runs at."""
    caplog.set_level("INFO")
    with capture_logs() as lines:
        async with Simulator() as simulator, opened(simulator) as connection:
            assert await simulator.push(sample_event()).over() == 200
            await simulator.drop()
            await lost(connection)
    assert "access_key" not in caplog.text + str(lines)


async def test_redirects_and_garbage_of_a_gateway() -> None:
    """A server that speaks WebSocket but not the platform's frames: garbage is logged, the connection stays usable."""

    async def babble(peer: Any) -> None:
        await peer.send("a text")
        await peer.send(b"\x00" * 100)
        await peer.close(1000, "enough")

    async with serve(babble, "127.0.0.1", 0) as server:
        url = f"ws://127.0.0.1:{next(iter(server.sockets)).getsockname()[1]}/?device_id=1&service_id=2"
        body = json.dumps({"code": 0, "data": {"URL": url}}).encode()
        async with Simulator(faults=Faults(endpoint_body=body)) as simulator:
            connection = make(simulator)
            with capture_logs() as lines:
                await connection.open()
                assert (await lost(connection)).by_server
            await connection.close()
        assert [line["event"] for line in lines] == ["connection.garbage_frame"]  # one of a kind in a second
