"""The redis sink, with Debian's Redis."""

from __future__ import annotations

import asyncio
import contextlib
import json
import signal
import subprocess
import sys
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import pytest
import redis
from msgspec.structs import replace

from reserve_listener.errors import (
    ConfigError,
    DeliveryError,
    MisconfiguredSinkError,
    PartlyDeliveredError,
    PermanentDeliveryError,
    TransientDeliveryError,
)
from reserve_listener.simulator import patience
from reserve_listener.sinks.registry import look_over, make_sink_spec
from reserve_listener.testing import SinkContract, SinkWorld, sample_deliveries
from tests.brokers import (
    RedisServer,
    as_printed,
    consumer,
    example,
    make_certificate,
    running,
    summarised,
)
from tests.configuring import made
from tests.helpers import free_port
from tests.stalling import Way

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator

    from reserve_listener.config import SinkTable
    from reserve_listener.model import Delivery
    from reserve_listener.protocols import Sink

ROOT = Path(__file__).parents[2]
RIGHTS = ("+client|setname", "+xadd", "+exists", "+set", "+evalsha", "+script|load", "+config|get")
"""All that docs/sink-redis.md asks for."""
PASSWORD = "r3dis-p@ss-word"


async def nowhere(_: object) -> None:
    """No log sink is made with it."""


def sink_of(table: SinkTable) -> Sink:
    """The sink as the daemon makes it."""
    return make_sink_spec(table, nowhere).sink


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    """One for all tests; each has a stream of its own."""
    server = RedisServer(tmp_path_factory.mktemp("redis"))
    with running(server):
        yield server


@pytest.fixture
def client(server: RedisServer) -> Iterator[redis.Redis]:
    """Somebody else who uses it."""
    with contextlib.closing(redis.Redis(port=server.port, decode_responses=True)) as client:
        yield client


@pytest.fixture
def stream() -> str:
    """A stream that nobody else has."""
    return f"events-{uuid4().hex}"


def table(server: RedisServer, stream: str, **keys: Any) -> SinkTable:
    """A sink to it."""
    return made(
        "redis", **({"name": "bus", "stream": stream, "url": f"redis://127.0.0.1:{server.port}"} | keys)
    )


def ids(client: redis.Redis, stream: str) -> list[str]:
    """What is in a stream."""
    entries: Any = client.xrange(stream)
    return [fields["id"] for _, fields in entries]


async def failure(sink: Sink, *deliveries: Delivery) -> DeliveryError:
    """What an attempt raises."""
    with pytest.raises(DeliveryError) as caught:
        await sink.deliver(deliveries or sample_deliveries(1))
    await sink.close()
    return caught.value


class TestRedis(SinkContract):
    """A stream, a server that no longer knows the user, and one that hangs."""

    server: RedisServer
    folder: Path

    @pytest.fixture(autouse=True)
    def _server(self, server: RedisServer, tmp_path: Path) -> None:
        self.server, self.folder = server, tmp_path

    @asynccontextmanager
    async def world(self) -> AsyncIterator[SinkWorld]:
        user, stream, url = f"user-{uuid4().hex[:8]}", f"events-{uuid4().hex}", self.folder / "url"
        url.write_text(f"redis://{user}:r3dis-p%40ss-word@127.0.0.1:{self.server.port}/0")
        with (
            contextlib.closing(redis.Redis(port=self.server.port, decode_responses=True)) as client,
            contextlib.ExitStack() as leaving,
        ):
            client.acl_setuser(user, enabled=True, passwords=[f"+{PASSWORD}"], keys=["*"], commands=RIGHTS)
            keys = {"url": None, "url_file": url, "timeout": 2, "max_in_flight": 4}
            yield SinkWorld(
                make=lambda: sink_of(table(self.server, stream, **keys)),
                delivered=lambda: ids(client, stream),
                refuse=lambda: void(client.acl_deluser(user)),
                hang=lambda: leaving.enter_context(self.server.hanging()),
                secrets=(PASSWORD, "r3dis-p%40ss-word"),
            )


def void(_: object) -> None:
    """What is of no interest."""


async def test_an_entry_has_the_event_its_id_and_its_subject(
    server: RedisServer, client: redis.Redis
) -> None:
    """The fields of the contract; the stream's name has the event's ids in it, and is trimmed when asked."""
    name = uuid4().hex
    sink = sink_of(table(server, f"{name}:{{tenant_key}}:{{scope_type}}", maxlen=2))
    for delivery in sample_deliveries(300):
        await sink.deliver([delivery])
    await sink.close()
    entries: Any = client.xrange(f"{name}:70f0c2a95b3d4e18:room")
    fields = entries[-1][1]
    assert list(fields) == ["event", "id", "subject"]
    assert (json.loads(fields["event"])["id"], fields["id"]) == ("event-0300",) * 2
    assert fields["subject"] == json.loads(fields["event"])["subject"]
    assert len(entries) < 300


async def test_a_repeat_adds_nothing(server: RedisServer, client: redis.Redis, stream: str) -> None:
    """The same event again, from a daemon that was started anew too, on a server without IDMP; its id is known for a day."""
    for _ in range(2):
        sink = sink_of(table(server, stream))
        for delivery in sample_deliveries(3) * 2:
            await sink.deliver([delivery])
        await sink.close()
    assert ids(client, stream) == ["event-0001", "event-0002", "event-0003"]
    (key, *_) = client.keys(f"{{{stream}}}:reserve-listener:*")
    assert 86_000 < client.ttl(key) <= 86_400


async def test_what_could_not_be_added_is_not_known(
    server: RedisServer, client: redis.Redis, stream: str
) -> None:
    """An event that failed for the stream's sake is added later: its id was not remembered before."""
    client.set(stream, "something else")
    sink = sink_of(table(server, stream))
    with pytest.raises(MisconfiguredSinkError, match=r"WRONGTYPE.*the key of something else"):
        await sink.deliver(sample_deliveries(1))
    client.delete(stream)
    await sink.deliver(sample_deliveries(1))
    await sink.close()
    assert ids(client, stream) == ["event-0001"]


async def test_the_client_repeats_nothing(stream: str) -> None:
    """One attempt is one connection: of itself the client would try ten times more and may add an event each time."""
    connections = 0

    async def hang_up(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal connections
        connections += 1
        await reader.read(100)
        writer.close()

    async with await asyncio.start_server(hang_up, "127.0.0.1", port := free_port()):
        sink = sink_of(made("redis", name="bus", url=f"redis://127.0.0.1:{port}", stream=stream))
        error = await failure(sink)
    assert type(error) is TransientDeliveryError
    assert connections == 1


async def test_a_server_that_is_away_is_a_sink_that_is_down(tmp_path: Path, stream: str) -> None:
    """Killed in the middle of deliveries and started again: what was answered is there, and once; the rest comes with a retry."""
    folder = tmp_path / "redis"
    folder.mkdir()
    server = RedisServer(folder)
    sink = sink_of(table(server, stream, max_in_flight=16))  # before there is a server
    with pytest.raises(TransientDeliveryError, match=rf"127.0.0.1:{server.port}: Connection refused"):
        await sink.deliver(sample_deliveries(1))
    deliveries = sample_deliveries(400)
    with running(server):
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
            await sink.deliver([delivery])
        await sink.close()
        with contextlib.closing(redis.Redis(port=server.port, decode_responses=True)) as client:
            assert sorted(ids(client, stream)) == [delivery.event_id for delivery in deliveries]


async def test_a_wrong_password_is_misconfigured(server: RedisServer, stream: str, tmp_path: Path) -> None:
    """Tried slowly and loudly, and the password stays where it is."""
    url = tmp_path / "url"
    url.write_text(f"redis://nobody:{PASSWORD.replace('@', '%40')}@127.0.0.1:{server.port}")
    error = await failure(sink_of(table(server, stream, url=None, url_file=url)))
    assert type(error) is MisconfiguredSinkError
    assert "check the user, the password" in str(error)
    assert PASSWORD not in str(error)


async def test_a_full_server_is_tried_again(server: RedisServer, client: redis.Redis, stream: str) -> None:
    """At `maxmemory` nothing is dropped: the event waits, and is added when there is room."""
    sink = sink_of(table(server, stream))
    client.config_set("maxmemory", "1")
    try:
        with pytest.raises(TransientDeliveryError, match="maxmemory"):
            await sink.deliver(sample_deliveries(1))
    finally:
        client.config_set("maxmemory", "0")
    await sink.deliver(sample_deliveries(1))
    await sink.close()
    assert ids(client, stream) == ["event-0001"]


async def test_a_replica_is_tried_again(server: RedisServer, client: redis.Redis, stream: str) -> None:
    """While servers fail over, the one that is asked may be a replica: the event waits until it is not any more."""
    sink = sink_of(table(server, stream))
    client.replicaof("127.0.0.1", str(free_port()))
    try:
        with pytest.raises(TransientDeliveryError, match="read only replica"):
            await sink.deliver(sample_deliveries(1))
    finally:
        client.replicaof("NO", "ONE")
    await sink.deliver(sample_deliveries(1))
    await sink.close()
    assert ids(client, stream) == ["event-0001"]


@asynccontextmanager
async def behind_one_address(
    old: RedisServer, new: RedisServer, stream: str, timeout_s: float
) -> AsyncIterator[Sink]:
    """A sink with several connections to a server, whose address leads to another one from now on."""
    async with Way(old.port).serve() as way:
        url = f"redis://127.0.0.1:{way.port}"
        sink = sink_of(table(old, stream, url=url, max_in_flight=16, timeout=timeout_s))
        await asyncio.gather(*(sink.deliver([one]) for one in sample_deliveries(4)))
        assert len(connections(old)) == 4
        way.to = new.port
        yield sink
        await sink.close()


def connections(server: RedisServer) -> list[object]:
    """Those that sinks have to it."""
    with contextlib.closing(redis.Redis(port=server.port, decode_responses=True)) as client:
        found: Any = client.client_list()
        return [each["addr"] for each in found if each["name"] == "reserve-listener"]


def become_replica(client: redis.Redis) -> None:
    """As the old master does when a new one is told it."""
    client.replicaof("127.0.0.1", str(free_port()))


def become_cut_off(client: redis.Redis) -> None:
    """Likewise, and it does not answer for what may be outdated."""
    client.config_set("replica-serve-stale-data", "no")
    become_replica(client)


def start_loading(client: Any) -> None:
    """It reads its data anew, for most of a minute, and says so to all who ask."""
    client.execute_command("DEBUG", "POPULATE", 1000, "key", 2000)
    client.config_set("key-load-delay", "50000")  # microseconds
    client.connection_pool.get_connection().send_command("DEBUG", "RELOAD")  # nobody waits for its end
    asking = client.connection_pool.get_connection()
    while True:
        asking.send_command("PING")
        try:
            asking.read_response(disconnect_on_error=False)
        except redis.BusyLoadingError:
            return


FAILOVERS: dict[Callable[[redis.Redis], None], str] = {
    become_replica: "read only replica",
    become_cut_off: "MASTER is down",
    start_loading: "loading the dataset",
}


@pytest.mark.parametrize("fail", FAILOVERS)
async def test_after_a_failover_the_next_attempt_is_at_the_new_master(
    server: RedisServer, client: redis.Redis, stream: str, tmp_path: Path, fail: Callable[[redis.Redis], None]
) -> None:
    """Its address leads there; open connections would stay with the old one, which takes nothing any more."""
    slowly = ("--rdbcompression", "no", "--loading-process-events-interval-bytes", "1024")
    with (
        running(RedisServer(tmp_path, "--enable-debug-command", "yes", *slowly)) as old,
        contextlib.closing(redis.Redis(port=old.port)) as leaving,
    ):
        async with behind_one_address(old, server, stream, timeout_s=10) as sink:
            await asyncio.to_thread(fail, leaving)
            (late,) = sample_deliveries(1, first=5)
            with pytest.raises(TransientDeliveryError, match=FAILOVERS[fail]):
                await sink.deliver([late])
            await sink.deliver([late])
    assert ids(client, stream) == [late.event_id]


async def test_a_server_that_does_not_answer_is_let_go_of(
    server: RedisServer, stream: str, tmp_path: Path
) -> None:
    """Its host may be gone, and its address elsewhere: one time-out is enough for all connections to it."""
    with running(RedisServer(tmp_path)) as old:
        async with behind_one_address(old, server, stream, timeout_s=1) as sink:
            with old.hanging(), pytest.raises(TransientDeliveryError, match="no answer within 1 s"):
                await sink.deliver(sample_deliveries(1))
            async with asyncio.timeout(patience(20)):
                while await asyncio.to_thread(connections, old):  # it hears of it now
                    await asyncio.sleep(0.01)


def to_stream(delivery: Delivery, stream: str, **more: str) -> Delivery:
    """The event for a sink whose stream is `{scope_id}`."""
    body = json.dumps(json.loads(delivery.body) | {"subject": stream} | more).encode()
    return replace(delivery, body=body)


async def test_each_event_of_a_batch_has_an_outcome_of_its_own(
    server: RedisServer, client: redis.Redis, stream: str
) -> None:
    """One whose stream is something else is refused; those around it are added, in their order, and once."""
    client.set(f"{stream}-other", "something else")
    names = (stream, f"{stream}-other", stream)
    batch = [to_stream(one, name) for one, name in zip(sample_deliveries(3), names, strict=True)]
    sink = sink_of(table(server, "{scope_id}"))
    for _ in range(2):
        with pytest.raises(PartlyDeliveredError) as caught:
            await sink.deliver(batch)
        first, second, third = caught.value.errors
        assert (first, third) == (None, None)
        assert type(second) is MisconfiguredSinkError
    await sink.close()
    assert ids(client, stream) == ["event-0001", "event-0003"]


async def test_answers_that_came_too_late_are_nobody_elses(
    server: RedisServer, client: redis.Redis, stream: str
) -> None:
    """After a time-out, and after a cancel, each outcome of the next batch is still its own event's."""
    client.set(f"{stream}-other", "something else")
    sink = sink_of(table(server, "{scope_id}", timeout=patience(3), max_in_flight=4))
    first = [to_stream(one, f"{stream}-other") for one in sample_deliveries(3)]
    with pytest.raises(PartlyDeliveredError):
        await sink.deliver(first)
    with server.hanging():
        with pytest.raises(TransientDeliveryError, match="no answer within"):
            await sink.deliver(first)
        cancelled = asyncio.create_task(sink.deliver(first))
        await asyncio.sleep(0.05)  # so that it has begun; nothing depends on how far it came
        cancelled.cancel()
        await asyncio.wait([cancelled])
    names = (stream, f"{stream}-other", stream)
    batch = [to_stream(one, name) for one, name in zip(sample_deliveries(3), names, strict=True)]
    with pytest.raises(PartlyDeliveredError) as caught:
        await sink.deliver(batch)
    assert [error is None for error in caught.value.errors] == [True, False, True]
    await sink.close()
    assert ids(client, stream) == ["event-0001", "event-0003"]


async def test_what_is_beside_one_that_is_too_large_is_tried_again(
    server: RedisServer, client: redis.Redis, stream: str
) -> None:
    """The server resets the connection for one event's sake: the others are no dead letters, and the sink is not down."""
    small, large, last = (to_stream(one, stream) for one in sample_deliveries(3))
    large = to_stream(large, stream, padding="x" * 1_100_000)
    client.config_set("proto-max-bulk-len", 1024 * 1024)
    try:
        sink = sink_of(table(server, "{scope_id}"))
        with pytest.raises(PartlyDeliveredError) as caught:
            await sink.deliver([small, large, last])
        assert isinstance(caught.value.errors[1], PermanentDeliveryError)
        for error in (caught.value.errors[0], caught.value.errors[2]):
            assert error is None or (isinstance(error, TransientDeliveryError) and not error.down)
        await sink.deliver([small, last])
        await sink.close()
    finally:
        client.config_set("proto-max-bulk-len", 512 * 1024 * 1024)
    assert ids(client, stream) == [small.event_id, last.event_id]


async def test_a_server_that_forgot_the_script_is_given_it_again(
    server: RedisServer, client: redis.Redis, stream: str
) -> None:
    """After a restart or `SCRIPT FLUSH` the batch goes once more, and adds nothing twice."""
    sink = sink_of(table(server, stream))
    await sink.deliver(sample_deliveries(2))
    client.script_flush()
    await sink.deliver(sample_deliveries(3))
    await sink.close()
    assert ids(client, stream) == ["event-0001", "event-0002", "event-0003"]


async def test_what_is_too_large_is_a_dead_letter(
    server: RedisServer, client: redis.Redis, stream: str
) -> None:
    """An event beyond `proto-max-bulk-len` is refused for good; the next one is taken."""
    (small, large) = sample_deliveries(2)
    body = json.dumps(json.loads(large.body) | {"padding": "x" * 1_100_000}).encode()
    large = type(large)(**{name: getattr(large, name) for name in large.__struct_fields__} | {"body": body})
    client.config_set("proto-max-bulk-len", 1024 * 1024)
    try:
        sink = sink_of(table(server, stream))
        with pytest.raises(PermanentDeliveryError, match="than the server's proto-max-bulk-len"):
            await sink.deliver([large])
        await sink.deliver([small])
        await sink.close()
    finally:
        client.config_set("proto-max-bulk-len", 512 * 1024 * 1024)
    assert ids(client, stream) == ["event-0001"]


async def test_the_pages_consumer_prints_what_changed(server: RedisServer, client: redis.Redis) -> None:
    """docs/sink-redis.md, run as it stands: it prints each event once and confirms it."""
    client.delete("rooms")
    deliveries = summarised(3)
    sink = sink_of(table(server, "rooms"))
    async with consumer(
        example("redis", {'host="redis.corp"': f'host="127.0.0.1", port={server.port}'})
    ) as lines:
        for delivery in deliveries:
            await sink.deliver([delivery])
        await sink.close()
        assert await lines(3) == as_printed(deliveries)


async def test_tls_trusts_whom_it_is_told_to(tmp_path: Path, stream: str) -> None:
    """With `ca_bundle` the server's certificate is enough; without, and for another name, it is not."""
    certificate, key = tmp_path / "server.pem", tmp_path / "server.key"
    await asyncio.to_thread(make_certificate, certificate, key)
    tls = free_port()
    options = ("--tls-port", str(tls), "--tls-cert-file", str(certificate), "--tls-key-file", str(key))
    with running(RedisServer(tmp_path, *options, "--tls-auth-clients", "no")) as server:
        url = f"rediss://localhost:{tls}"
        sink = sink_of(made("redis", name="bus", url=url, stream=stream, ca_bundle=certificate))
        await sink.deliver(sample_deliveries(1))
        await sink.close()
        error = await failure(sink_of(made("redis", name="bus", url=url, stream=stream)))
        assert "the certificate is not trusted" in str(error)
        other = url.replace("localhost", "127.0.0.1")
        sink = sink_of(made("redis", name="bus", url=other, stream=stream, ca_bundle=certificate))
        assert "the certificate is not trusted" in str(await failure(sink))
        with contextlib.closing(redis.Redis(port=server.port, decode_responses=True)) as client:
            assert ids(client, stream) == ["event-0001"]


class Scripted:
    """Answers as Redis 8.6 is documented to; Debian's is older."""

    def __init__(self, *, set_up: bool) -> None:
        self.set_up = set_up
        self.commands: list[list[bytes]] = []

    async def __call__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One connection."""
        with contextlib.suppress(asyncio.IncompleteReadError):
            while True:
                count = int((await reader.readuntil(b"\r\n"))[1:])
                words = []
                for _ in range(count):
                    length = int((await reader.readuntil(b"\r\n"))[1:])
                    words.append((await reader.readexactly(length + 2))[:-2])
                self.commands.append(words)
                writer.write(self.answer(words))
        writer.close()

    def answer(self, words: list[bytes]) -> bytes:
        """In RESP."""
        if words[0] == b"XADD":
            return b"$3\r\n1-0\r\n"
        if words[0] == b"XINFO":
            entries = b"$11\r\nfirst-entry\r\n$-1\r\n$10\r\nlast-entry\r\n$-1\r\n"
            window = b"$13\r\nidmp-duration\r\n:86400\r\n$12\r\nidmp-maxsize\r\n:10000\r\n"
            return b"*8\r\n" + entries + window if self.set_up else b"*4\r\n" + entries
        return b"+OK\r\n"


class Refusing(Scripted):
    """Refuses what adds an entry, with this."""

    def __init__(self, said: str) -> None:
        super().__init__(set_up=False)
        self.said = said

    def answer(self, words: list[bytes]) -> bytes:
        """In RESP."""
        return f"-{self.said}\r\n".encode() if words[0] == b"XADD" else super().answer(words)


IN_SCRIPT = "ERR Error running script (call to f_0c62): @user_script:5: "


@pytest.mark.parametrize(
    ("said", "kind", "shown"),
    [
        ("CLUSTERDOWN Hash slot not served", TransientDeliveryError, "not served"),
        ("TRYAGAIN Multiple keys request during rehashing of slot", TransientDeliveryError, "rehashing"),
        ("BUSY Redis is busy running a script.", TransientDeliveryError, "busy"),
        ("NOREPLICAS Not enough good replicas to write.", TransientDeliveryError, "replicas"),
        ("MISCONF Errors writing to the AOF file: No space left", TransientDeliveryError, "No space left"),
        ("ERR max number of clients reached", TransientDeliveryError, "clients"),
        ("MOVED 3999 10.0.0.7:6381", MisconfiguredSinkError, "a Redis Cluster is not supported"),
        ("NOPERM this user has no permissions", MisconfiguredSinkError, "and their rights"),
        ("ERR unknown command 'XADD'", MisconfiguredSinkError, "unknown command"),
        (f"{IN_SCRIPT}@user_script: 5: -READONLY You can't write.", TransientDeliveryError, "READONLY"),
        (f"{IN_SCRIPT}@user_script: 5: -OOM command not allowed.", TransientDeliveryError, "OOM"),
        (f"{IN_SCRIPT}WRONGTYPE Operation against a key", MisconfiguredSinkError, "of something else"),
    ],
)
async def test_what_a_refusal_means(said: str, kind: type[DeliveryError], shown: str, stream: str) -> None:
    """What passes is tried again, also where the client takes the code off the text, or a server before 7.0 wraps it."""
    async with await asyncio.start_server(Refusing(said), "127.0.0.1", port := free_port()):
        sink = sink_of(made("redis", name="bus", url=f"redis://127.0.0.1:{port}", stream=stream))
        error = await failure(sink)
    assert type(error) is kind
    assert shown in str(error)


async def test_the_bound_is_asked_for_once(stream: str) -> None:
    """Of a whole batch of large events that failed: one that hangs then would be waited for once more for each of them."""
    refusing = Refusing("ERR no")
    large = [to_stream(one, stream, padding="x" * 1_100_000) for one in sample_deliveries(3)]
    async with await asyncio.start_server(refusing, "127.0.0.1", port := free_port()):
        sink = sink_of(made("redis", name="bus", url=f"redis://127.0.0.1:{port}", stream="{scope_id}"))
        with pytest.raises(PartlyDeliveredError):
            await sink.deliver(large)
        await sink.close()
    assert [words[0] for words in refusing.commands].count(b"CONFIG") == 1


@pytest.mark.parametrize("set_up", [False, True])
async def test_a_server_that_knows_ids_is_asked_to(set_up: bool, stream: str) -> None:  # noqa: FBT001
    """From 8.6: one command an event, with its id; the window is widened once, and never anew, as that would forget all ids."""
    scripted = Scripted(set_up=set_up)
    async with await asyncio.start_server(scripted, "127.0.0.1", port := free_port()):
        sink = sink_of(made("redis", name="bus", url=f"redis://127.0.0.1:{port}", stream=stream, maxlen=9))
        for delivery in sample_deliveries(2) * 2:
            await sink.deliver([delivery])
        await sink.close()
    adds = [words for words in scripted.commands if words[0] == b"XADD"]
    assert [words[2:4] for words in adds] == [[b"IDMP", b"reserve-listener"]] * 4
    assert len({words[4] for words in adds}) == 2
    assert adds[0][5:9] == [b"MAXLEN", b"~", b"9", b"*"]
    assert sum(words[0] == b"XINFO" for words in scripted.commands) == 1
    asked = [words[2:] for words in scripted.commands if words[0] == b"XCFGSET"]
    assert asked == ([] if set_up else [[b"IDMP-DURATION", b"86400", b"IDMP-MAXSIZE", b"10000"]])


def test_without_the_client_one_line_says_what_to_install() -> None:
    """The extra is named, and nothing of the daemon needs it before such a sink is configured."""
    code = """
import sys
sys.modules["redis"] = None
from reserve_listener.sinks.kinds import KINDS
try: KINDS.find("redis")
except Exception as error: print(type(error).__name__, error)
"""
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True
    )
    expected = (
        "ConfigError type \"redis\" needs what is not installed: pip install 'reserve-listener[redis]'\n"
    )
    assert done.stdout == expected


@pytest.mark.parametrize(
    "keys",
    [
        {},
        {"url": "redis://h", "url_file": "f"},
        {"url": "http://h"},
        {"url": f"redis://:{PASSWORD}@h"},
        {"url": "redis://h/events"},
        {"url": "redis://h?db=3"},
        {"url": "redis://h/3#4"},
        {"url": "redis://h", "ca_bundle": "ca.pem"},
        {"url": "rediss://h", "client_key_file": "key.pem"},
        {"url": "redis://h", "stream": "{room}"},
        {"url": "redis://h", "stream": "a b"},
        {"url": "redis://h", "stream": "{"},
        {"url": "redis://h", "maxlen": 0},
    ],
)
def test_mistakes_in_the_settings(keys: dict[str, Any]) -> None:
    """What cannot work is said at the start, and a password in the open configuration is one of these."""
    with pytest.raises(ValueError, match=r"url|ca_bundle|client_key_file|stream|maxlen") as caught:
        made("redis", **({"name": "bus", "stream": "events"} | keys))
    assert PASSWORD not in str(caught.value)


def test_check_names_stream_and_server(tmp_path: Path) -> None:
    """`check` connects to nobody, and says neither user nor password; a bad URL in the file is an error without it."""
    url = tmp_path / "url"
    url.write_text(f"rediss://me:{PASSWORD.replace('@', '%40')}@redis.corp")
    found = look_over(made("redis", name="bus", url_file=url, stream="events"))
    assert found == "stream events at redis.corp:6379"
    url.write_text(f"amqp://{PASSWORD}")
    for wrong, said in (
        (f"amqp://{PASSWORD}", "must begin with redis://"),
        (f"redis://:{PASSWORD}@h/events", "must end with the number of a database"),
        (f"redis://:{PASSWORD}@h?db=3", "what follows a . or # would be ignored"),
    ):
        url.write_text(wrong)
        with pytest.raises(ConfigError, match=rf"{url}: the URL in it .*{said}") as caught:
            look_over(made("redis", name="bus", url_file=url, stream="events"))
        assert PASSWORD not in str(caught.value)
