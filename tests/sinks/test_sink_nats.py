"""The nats sink, with Debian's NATS."""

from __future__ import annotations

import asyncio
import json
import signal
from contextlib import ExitStack, asynccontextmanager
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import nats
import pytest
from hypothesis import given, strategies as st
from msgspec.structs import replace
from nats.js.api import DiscardPolicy, StreamConfig

from reserve_listener.errors import (
    DeliveryError,
    MisconfiguredSinkError,
    PartlyDeliveredError,
    PermanentDeliveryError,
    TransientDeliveryError,
)
from reserve_listener.simulator import patience
from reserve_listener.sinks.brokers.templates import token
from reserve_listener.sinks.registry import look_over, make_sink_spec
from reserve_listener.testing import SinkContract, SinkWorld, sample_deliveries
from tests.brokers import (
    NatsServer,
    as_printed,
    at_once,
    consumer,
    example,
    make_certificate,
    running,
    summarised,
)
from tests.configuring import made
from tests.helpers import free_port, until

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator
    from pathlib import Path

    from nats.js import JetStreamContext

    from reserve_listener.config import SinkTable
    from reserve_listener.model import Delivery
    from reserve_listener.protocols import Sink

PASSWORD = "n4ts-p@ss-word"


async def nowhere(_: object) -> None:
    """No log sink is made with it."""


def sink_of(table: SinkTable) -> Sink:
    """The sink as the daemon makes it."""
    return make_sink_spec(table, nowhere).sink


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[NatsServer]:
    """One for all tests; each has a stream of its own."""
    server = NatsServer(tmp_path_factory.mktemp("nats"))
    with running(server):
        yield server


@pytest.fixture
def name() -> str:
    """What nobody else has."""
    return f"rooms-{uuid4().hex}"


@asynccontextmanager
async def stream(
    port: int, name: str, *, login: dict[str, Any] | None = None, **limits: Any
) -> AsyncIterator[JetStreamContext]:
    """A stream of this name that takes all below it; kept in the end."""
    client = await nats.connect(f"nats://127.0.0.1:{port}", **(login or {}))
    try:
        context = client.jetstream()
        await context.add_stream(StreamConfig(name=name, subjects=[f"{name}.>"], **limits))
        yield context
    finally:
        await client.close()


def table(server: NatsServer, name: str, **keys: Any) -> SinkTable:
    """A sink to it."""
    servers = (f"nats://127.0.0.1:{server.port}",)
    return made("nats", **({"name": "bus", "servers": servers, "subject": f"{name}.rooms"} | keys))


async def messages(context: JetStreamContext, name: str) -> list[Any]:
    """What is in the stream."""
    count = (await context.stream_info(name)).state.messages
    return [await context.get_msg(name, seq) for seq in range(1, count + 1)]


async def ids(context: JetStreamContext, name: str) -> list[str]:
    """Which events are in the stream."""
    return [json.loads(message.data)["id"] for message in await messages(context, name)]


async def failure(sink: Sink, *deliveries: Delivery) -> DeliveryError:
    """What an attempt raises."""
    with pytest.raises(DeliveryError) as caught:
        await sink.deliver(deliveries or sample_deliveries(1))
    await sink.close()
    return caught.value


class TestNats(SinkContract):
    """A stream, a stream that is gone, and a server that hangs. A listener in the same loop sees what arrives."""

    server: NatsServer
    folder: Path

    @pytest.fixture(autouse=True)
    def _server(self, server: NatsServer, tmp_path: Path) -> None:
        self.server, self.folder = server, tmp_path

    @asynccontextmanager
    async def world(self) -> AsyncIterator[SinkWorld]:
        name, port = f"rooms-{uuid4().hex}", self.server.port
        (self.folder / "token").write_text(PASSWORD)
        keys = {"timeout": 1, "max_in_flight": 4, "token_file": self.folder / "token"}

        async def asked(*, delete: bool = False) -> list[str]:
            async with stream(port, name) as context:
                if not delete:
                    return await ids(context, name)
                await context.delete_stream(name)
                return []

        at_once(asked())
        with ExitStack() as leaving:
            yield SinkWorld(
                make=lambda: sink_of(table(self.server, name, **keys)),
                delivered=lambda: at_once(asked()),
                refuse=lambda: void(at_once(asked(delete=True))),
                hang=lambda: leaving.enter_context(self.server.hanging()),
                secrets=(PASSWORD,),
            )


def void(_: object) -> None:
    """What is of no interest."""


async def test_a_message_has_an_id_and_is_structured_json(server: NatsServer, name: str) -> None:
    """The headers of the contract; ids in the subject are a token each, whatever is in them."""
    subject = f"{name}.{{tenant_key}}.{{scope_type}}.{{scope_id}}"
    odd, plain = "a.b *>\r\nPUB x", "omm_1-A"
    async with stream(server.port, name) as context:
        sink = sink_of(table(server, name, subject=subject))
        for delivery, scope in zip(sample_deliveries(2), (odd, plain), strict=True):
            event = json.loads(delivery.body) | {"subject": scope}
            await sink.deliver([replace(delivery, body=json.dumps(event).encode())])
        await sink.close()
        first, second = await messages(context, name)
    assert first.subject == f"{name}.70f0c2a95b3d4e18.room.a%2Eb%20%2A%3E%0D%0APUB%20x"
    assert second.subject == f"{name}.70f0c2a95b3d4e18.room.omm_1-A"
    assert first.headers["Nats-Msg-Id"] == "event-0001"
    assert first.headers["Content-Type"] == "application/cloudevents+json"
    assert json.loads(first.data)["subject"] == odd


@given(st.text(), st.text())
def test_ids_that_differ_make_tokens_that_differ(one: str, other: str) -> None:
    """Any two ids: each is one word of letters, digits, -, _ and the mark, never nothing, and no two are the same."""
    tokens = token(one), token(other)
    assert (tokens[0] == tokens[1]) == (one == other)
    assert all(
        (found and found.replace("%", "").replace("-", "").replace("_", "").isalnum())
        or set(found) <= set("%-_")
        for found in tokens
    )


async def test_a_repeat_adds_nothing(server: NatsServer, name: str) -> None:
    """The same event again, from a daemon that was started anew too: the stream knows its id."""
    async with stream(server.port, name) as context:
        for _ in range(2):
            sink = sink_of(table(server, name))
            for delivery in sample_deliveries(3) * 2:
                await sink.deliver([delivery])
            await sink.close()
        assert await ids(context, name) == ["event-0001", "event-0002", "event-0003"]


async def test_beyond_the_streams_window_a_repeat_is_a_second_message(server: NatsServer, name: str) -> None:
    """What the page says: the window is the stream's, and its owner sets it."""
    async with stream(server.port, name, duplicate_window=0.1) as context:
        sink = sink_of(table(server, name))
        while len(await ids(context, name)) < 2:
            await sink.deliver(sample_deliveries(1))
        await sink.close()


async def test_a_server_that_is_away_is_a_sink_that_is_down(tmp_path: Path, name: str) -> None:
    """Killed in the middle of deliveries and started again: nothing is lost, and what the client sends again is not doubled."""
    server = NatsServer(tmp_path)
    sink = sink_of(table(server, name, timeout=2, max_in_flight=16))  # before there is a server
    with pytest.raises(TransientDeliveryError, match=rf"127.0.0.1:{server.port}: .*[Cc]onne"):
        await sink.deliver(sample_deliveries(1))
    deliveries = sample_deliveries(400)
    with running(server):
        async with stream(server.port, name):
            pass
        await until_delivered(sink, deliveries[0])
        attempts = [asyncio.create_task(sink.deliver([delivery])) for delivery in deliveries[:300]]
        await asyncio.wait(attempts, return_when=asyncio.FIRST_COMPLETED)
        server.signal(signal.SIGSTOP)  # it will have answered some of them, and none of these
        attempts += [asyncio.create_task(sink.deliver([delivery])) for delivery in deliveries[300:]]
        await asyncio.sleep(0)
        server.kill()
        outcomes = await asyncio.gather(*attempts, return_exceptions=True)
        failed = [one for one, outcome in zip(deliveries, outcomes, strict=True) if outcome is not None]
        assert failed
        assert all(isinstance(outcome, TransientDeliveryError) for outcome in outcomes if outcome)
        server.start()
        for delivery in failed:
            await until_delivered(sink, delivery)
        await sink.close()
        async with stream(server.port, name) as context:
            assert sorted(await ids(context, name)) == [delivery.event_id for delivery in deliveries]


async def until_delivered(sink: Sink, delivery: Delivery) -> None:
    """As the daemon does: again and again."""

    async def taken() -> None:
        while True:
            try:
                return await sink.deliver([delivery])
            except (TransientDeliveryError, MisconfiguredSinkError):
                await asyncio.sleep(0.05)

    await asyncio.wait_for(taken(), patience(30))


async def test_it_reconnects_for_ever(tmp_path: Path, name: str) -> None:
    """The client has no number of attempts after which it stays closed, as it has by default."""
    server = NatsServer(tmp_path)
    with running(server):
        async with stream(server.port, name):
            sink: Any = sink_of(table(server, name, timeout=1))
            await sink.deliver(sample_deliveries(1))
        client = await sink._link.client()
        assert client.options["max_reconnect_attempts"] == -1
        assert client.options["allow_reconnect"]
        await sink.close()


async def test_a_server_that_falls_silent_is_left_for_another(tmp_path: Path, name: str) -> None:
    """One that is connected and answers nothing any more: the client itself would stay with it for minutes."""
    servers = []
    with ExitStack() as ending:
        for one in ("a", "b"):
            (tmp_path / one).mkdir()
            servers.append(ending.enter_context(running(NatsServer(tmp_path / one))))
            async with stream(servers[-1].port, name):
                pass
        addresses = tuple(f"nats://127.0.0.1:{server.port}" for server in servers)
        sink: Any = sink_of(table(servers[0], name, servers=addresses, timeout=1))
        first, second = sample_deliveries(2)
        await sink.deliver([first])
        connected = (await sink._link.client()).connected_url.port
        silent, other = sorted(servers, key=lambda server: server.port != connected)
        with silent.hanging():
            await until_delivered(sink, second)
        await sink.close()
        async with stream(other.port, name) as context:
            assert await ids(context, name) == [second.event_id]


async def test_a_connection_that_hangs_is_no_acknowledgement_that_is_late(name: str) -> None:
    """Somebody else's port, perhaps: accepted, and nothing said."""

    async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()
        writer.close()

    async with await asyncio.start_server(silent, "127.0.0.1", port := free_port()):
        servers = [f"nats://127.0.0.1:{port}"]
        sink = sink_of(made("nats", name="bus", servers=servers, subject=name, timeout=0.5))
        with pytest.raises(TransientDeliveryError, match=r"no connection within 0\.5 s"):
            await sink.deliver(sample_deliveries(1))
        await sink.close()


async def test_a_login_that_is_revoked_and_given_again(tmp_path: Path, name: str) -> None:
    """The server closes the connection for good, which ends the client: the sink makes a new one when the login works again."""
    config = tmp_path / "server.conf"

    def allow(password: str) -> None:
        config.write_text(
            f'accounts {{ A: {{ jetstream: enabled, users: [{{user: me, password: "{password}"}}] }} }}'
        )

    allow(PASSWORD)
    (tmp_path / "password").write_text(PASSWORD)
    server = NatsServer(tmp_path, "-c", str(config))
    with running(server):
        login = {"user": "me", "password": PASSWORD}
        async with stream(server.port, name, login=login):
            pass
        sink = sink_of(table(server, name, user="me", password_file=tmp_path / "password", timeout=2))
        await sink.deliver(sample_deliveries(1))
        allow("another")
        server.signal(signal.SIGHUP)
        errors: list[DeliveryError] = []
        async with asyncio.timeout(patience(20)):
            while not errors or type(errors[-1]) is not MisconfiguredSinkError:
                try:
                    await sink.deliver(sample_deliveries(1))
                except DeliveryError as error:
                    errors.append(error)
        assert "check the sink's login" in str(errors[-1])
        assert PASSWORD not in "".join(map(str, errors))
        allow(PASSWORD)
        server.kill()  # a second reload would leave it without JetStream
        server.start()
        await until_delivered(sink, sample_deliveries(2)[1])
        await sink.close()
        async with stream(server.port, name, login=login) as context:
            assert await ids(context, name) == ["event-0001", "event-0002"]


async def test_a_permission_that_is_missing_is_said(tmp_path: Path, name: str) -> None:
    """The server tells it beside the publish, which would just time out."""
    config = tmp_path / "server.conf"
    user = f'{{user: me, password: "{PASSWORD}", permissions: {{publish: ["_INBOX.>"]}}}}'
    config.write_text(f"accounts {{ A: {{ jetstream: enabled, users: [{user}] }} }}")
    (tmp_path / "password").write_text(PASSWORD)
    with running(NatsServer(tmp_path, "-c", str(config))) as server:
        keys = {"user": "me", "password_file": tmp_path / "password", "timeout": 1}
        error = await failure(sink_of(table(server, name, **keys)))
    assert type(error) is MisconfiguredSinkError
    assert "permissions" in str(error).lower()


async def test_no_stream_is_misconfigured(server: NatsServer, name: str) -> None:
    """A plain publish would vanish without a word; when somebody makes the stream, the event arrives."""
    sink = sink_of(table(server, name))
    with pytest.raises(MisconfiguredSinkError, match=f"no stream takes the subject {name}.rooms"):
        await sink.deliver(sample_deliveries(1))
    async with stream(server.port, name) as context:
        await sink.deliver(sample_deliveries(1))
        assert await ids(context, name) == ["event-0001"]
    await sink.close()


async def test_a_server_without_jetstream_is_misconfigured(tmp_path: Path, name: str) -> None:
    """There is nobody who would acknowledge."""
    server = NatsServer(tmp_path)
    server.command = lambda: ("-a", "127.0.0.1", "-p", str(server.port))  # type: ignore[method-assign]
    with running(server):
        assert type(await failure(sink_of(table(server, name)))) is MisconfiguredSinkError


async def test_a_full_stream_is_tried_again(server: NatsServer, name: str) -> None:
    """A stream that refuses what is new keeps the event waiting, and says so at once; with room it is taken."""
    async with stream(server.port, name, max_msgs=2, discard=DiscardPolicy.NEW) as context:
        deliveries = sample_deliveries(3)
        sink = sink_of(table(server, name, timeout=600))
        async with asyncio.timeout(patience(60)):
            with pytest.raises(PartlyDeliveredError) as caught:
                await sink.deliver(deliveries)
        *taken, refused = caught.value.errors
        assert taken == [None, None]
        assert type(refused) is TransientDeliveryError
        assert "maximum messages exceeded" in str(refused)
        await context.purge_stream(name)
        await sink.deliver(deliveries[2:])
        await sink.close()
        assert (await context.stream_info(name)).state.messages == 1


async def test_each_event_of_a_batch_has_an_outcome_of_its_own(server: NatsServer, name: str) -> None:
    """One that no stream takes is refused, and so is one that is too large; those around them are acknowledged, in order."""
    small = sample_deliveries(4)
    events = [json.loads(one.body) | {"subject": f"omm_{number}"} for number, one in enumerate(small)]
    events[1] |= {"data": {"scope_type": "elsewhere"}}
    events[3] |= {"padding": "x" * 1_100_000}
    batch = [replace(one, body=json.dumps(event).encode()) for one, event in zip(small, events, strict=True)]
    async with stream(server.port, f"{name}-room") as context:
        sink = sink_of(table(server, name, subject=f"{name}-{{scope_type}}.{{scope_id}}"))
        with pytest.raises(PartlyDeliveredError) as caught:
            await sink.deliver(batch)
        await sink.close()
        assert await ids(context, f"{name}-room") == ["event-0001", "event-0003"]
    kinds = [type(None), MisconfiguredSinkError, type(None), PermanentDeliveryError]
    assert [type(error) for error in caught.value.errors] == kinds


async def test_a_connection_that_breaks_is_said_at_once(server: NatsServer, name: str) -> None:
    """Its answers will not come: nobody waits out the time for them, and nothing is kept for those who waited."""
    async with stream(server.port, name) as context:
        sink: Any = sink_of(table(server, name, timeout=30))
        await sink.deliver(sample_deliveries(1))
        client = await sink._link.client()
        with server.hanging():
            waiting = asyncio.create_task(sink.deliver(sample_deliveries(3)))
            await until(lambda: len(client.answers._waiting) == 3)
            client._transport._io_writer.transport.abort()
            with pytest.raises(PartlyDeliveredError, match="broke before the acknowledgement"):
                await waiting
        assert client.answers._waiting == {}
        for delivery in sample_deliveries(3):
            await until_delivered(sink, delivery)
        await sink.close()
        assert sorted(await ids(context, name)) == ["event-0001", "event-0002", "event-0003"]


async def test_what_nobody_waits_for_is_forgotten(server: NatsServer, name: str) -> None:
    """After a time-out, and after a cancel, no answer is waited for."""
    async with stream(server.port, name):
        sink: Any = sink_of(table(server, name, timeout=patience(3)))
        await sink.deliver(sample_deliveries(1))
        client = await sink._link.client()
        with server.hanging():
            cancelled = asyncio.create_task(sink.deliver(sample_deliveries(3)))
            await until(lambda: len(client.answers._waiting) == 3)
            cancelled.cancel()
            await asyncio.wait([cancelled])
            assert client.answers._waiting == {}
            with pytest.raises(TransientDeliveryError, match="no acknowledgement within"):
                await sink.deliver(sample_deliveries(1))
            assert client.answers._waiting == {}
        await sink.close()


@pytest.mark.parametrize("limits", [{}, {"max_msg_size": 5000}])
async def test_what_is_too_large_is_a_dead_letter(
    server: NatsServer, name: str, limits: dict[str, Any]
) -> None:
    """Beyond the server's bound of 1 MiB, or the stream's own, an event is refused for good; the next one is taken."""
    async with stream(server.port, name, **limits) as context:
        small, large = sample_deliveries(2)
        padded = json.dumps(json.loads(large.body) | {"padding": "x" * (6000 if limits else 1_100_000)})
        sink = sink_of(table(server, name, timeout=600))
        async with asyncio.timeout(patience(60)):
            with pytest.raises(PermanentDeliveryError, match="larger than"):
                await sink.deliver([replace(large, body=padded.encode())])
        await sink.deliver([small])
        await sink.close()
        assert await ids(context, name) == ["event-0001"]


async def test_tls_trusts_whom_it_is_told_to(tmp_path: Path, name: str) -> None:
    """With `ca_bundle` the server's certificate is enough; without it is not."""
    certificate, key = tmp_path / "server.pem", tmp_path / "server.key"
    await asyncio.to_thread(make_certificate, certificate, key)
    server = NatsServer(tmp_path, "--tls", "--tlscert", str(certificate), "--tlskey", str(key))
    with running(server):
        keys = {"servers": (f"tls://localhost:{server.port}",), "timeout": 3}
        error = await failure(sink_of(table(server, name, **keys, ca_bundle=certificate)))
        assert "no stream takes" in str(error)
        error = await failure(sink_of(table(server, name, **keys)))
        assert "the certificate is not trusted" in str(error)


async def test_no_login_goes_over_a_connection_that_should_be_encrypted(tmp_path: Path, name: str) -> None:
    """Somebody in between who leaves TLS out of the greeting gets nothing: the client itself would log in then."""
    heard, serving = b"", 0

    async def greet(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal heard, serving
        serving += 1
        writer.write(
            b'INFO {"server_id":"x","version":"2.9.10","max_payload":1048576,"auth_required":true}\r\n'
        )
        heard += await reader.read()
        writer.close()
        serving -= 1

    (tmp_path / "token").write_text(PASSWORD)
    async with await asyncio.start_server(greet, "127.0.0.1", port := free_port()):
        keys = {"servers": (f"tls://127.0.0.1:{port}",), "token_file": tmp_path / "token"}
        error = await failure(sink_of(made("nats", name="bus", subject=name, **keys)))
        await until(lambda: not serving)
    assert "does not offer TLS" in str(error)
    assert heard == b""


async def test_the_pages_consumer_prints_what_changed(server: NatsServer) -> None:
    """docs/sink-nats.md, run as it stands: it makes the stream, prints each event once and confirms it."""
    deliveries = summarised(3)
    sink = sink_of(table(server, "", subject="rooms.{tenant_key}.{scope_id}"))
    code = example("nats", {"nats://nats.corp": f"nats://127.0.0.1:{server.port}"})
    async with consumer(code) as lines:
        for delivery in deliveries:
            await until_delivered(sink, delivery)
        await sink.close()
        assert await lines(3) == as_printed(deliveries)


@pytest.mark.parametrize(
    "keys",
    [
        {"servers": ()},
        {"servers": ("http://h",)},
        {"servers": (f"nats://me:{PASSWORD}@h",)},
        {"servers": ("nats://h", "tls://h")},
        {"subject": "rooms.*"},
        {"subject": "rooms..a"},
        {"subject": "rooms.{room}"},
        {"user": "me"},
        {"user": "me", "password_file": "p", "token_file": "t"},
        {"ca_bundle": "ca.pem"},
    ],
)
def test_mistakes_in_the_settings(keys: dict[str, Any]) -> None:
    """What cannot work is said at the start, and a password in the open configuration is one of these."""
    with pytest.raises(ValueError, match=r"servers|subject|user|ca_bundle") as caught:
        made("nats", **({"name": "bus", "servers": ("nats://h",), "subject": "rooms"} | keys))
    assert PASSWORD not in str(caught.value)


def test_check_names_subject_and_servers() -> None:
    """`check` connects to nobody."""
    servers = ("nats://one.corp", "nats://two.corp:4000")
    found = look_over(made("nats", name="bus", servers=servers, subject="rooms.{scope_id}"))
    assert found == "subject rooms.{scope_id} at one.corp:4222, two.corp:4000"
