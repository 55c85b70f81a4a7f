"""Message brokers for tests: the servers that Debian has, on free ports of this machine, with their data in a folder of the test's.

A test that needs one which is not installed is skipped, and says which package has it.
"""

from __future__ import annotations

import asyncio
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import msgspec
import pytest

from reserve_listener.simulator import patience
from reserve_listener.testing import sample_deliveries
from tests.helpers import free_port

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterator, Sequence

    from reserve_listener.model import Delivery


class Server:
    """A server that can be killed and started again, with what it has on its disk."""

    program = ""
    package = ""
    starts_within_s = 20.0

    def __init__(self, folder: Path, *options: str) -> None:
        found = shutil.which(self.program, path="/usr/bin:/usr/sbin:/usr/local/bin:/usr/local/sbin")
        if found is None:
            pytest.skip(f"needs {self.program}: apt-get install {self.package}")
        self.folder = folder
        self.port = free_port()
        self.options = options
        self._found = found
        self._process: subprocess.Popen[bytes] | None = None

    def command(self) -> Sequence[str]:
        """What starts it."""
        raise NotImplementedError

    def environment(self) -> dict[str, str]:
        """What it gets to know."""
        return dict(os.environ)

    def start(self) -> None:
        """Return when it listens."""
        with (self.folder / "output").open("ab") as output:
            self._process = subprocess.Popen(
                [self._found, *self.command(), *self.options],
                cwd=self.folder,
                env=self.environment(),
                stdout=output,
                stderr=output,
                start_new_session=True,
            )
        deadline_s = time.monotonic() + patience(self.starts_within_s)
        while not self.answers():
            said = (self.folder / "output").read_text(errors="replace")[-2000:]
            assert self._process.poll() is None, said
            assert time.monotonic() < deadline_s, said
            time.sleep(0.02)

    def answers(self) -> bool:
        """Whether it takes connections."""
        try:
            socket.create_connection(("127.0.0.1", self.port), timeout=1).close()
        except OSError:
            return False
        return True

    def signal(self, number: signal.Signals) -> None:
        """Send it, and what it has started, a signal."""
        assert self._process is not None
        os.killpg(self._process.pid, number)

    def kill(self) -> None:
        """As a crash does."""
        if self._process is not None and self._process.returncode is None:
            self.signal(signal.SIGKILL)
            self._process.wait(patience(20))

    def restart(self) -> None:
        """After a clean end: RabbitMQ may forget a queue, durable or not, that was declared just before a kill."""
        assert self._process is not None
        self._process.terminate()
        self._process.wait(patience(60))
        self.kill()
        self.start()

    def end(self) -> None:
        """Leave nothing behind."""
        self.kill()

    @contextmanager
    def hanging(self) -> Iterator[None]:
        """It hears and never answers; afterwards it does, unless it was killed."""
        assert self._process is not None
        self.signal(signal.SIGSTOP)
        # On a busy machine one of its threads may still answer before another has taken the signal.
        os.waitid(os.P_PID, self._process.pid, os.WSTOPPED)
        try:
            yield
        finally:
            with suppress(ProcessLookupError):
                self.signal(signal.SIGCONT)


class RedisServer(Server):
    """Redis, that writes each entry to its disk before it answers."""

    program = "redis-server"
    package = "redis-server"

    def command(self) -> Sequence[str]:
        """See `Server.command`."""
        durable = ("--appendonly", "yes", "--appendfsync", "always", "--save", "")
        return ("--port", str(self.port), "--bind", "127.0.0.1", "--dir", str(self.folder), *durable)


class NatsServer(Server):
    """NATS with JetStream, that writes each message to its disk before it acknowledges it."""

    program = "nats-server"
    package = "nats-server"

    def command(self) -> Sequence[str]:
        """See `Server.command`."""
        return ("-a", "127.0.0.1", "-p", str(self.port), "-js", "-sd", str(self.folder / "js"))


class RabbitServer(Server):
    """RabbitMQ with its own name server (epmd), which would outlive it otherwise."""

    program = "rabbitmq-server"
    package = "rabbitmq-server"
    starts_within_s = 60.0
    directly = "/usr/lib/rabbitmq/bin/rabbitmq-server"
    """Debian's command is a script around it that becomes another user and writes to /var."""

    def __init__(self, folder: Path, *configuration: str) -> None:
        super().__init__(folder)
        self._found = self.directly
        self._names_port = free_port()
        self._names: subprocess.Popen[bytes] | None = None
        for name in ("environment", "plugins"):
            (folder / name).touch()
        lines = ("loopback_users = none", "disk_free_limit.absolute = 1MB", *configuration)
        (folder / "rabbitmq.conf").write_text("\n".join(lines) + "\n")

    def command(self) -> Sequence[str]:
        """See `Server.command`."""
        return ()

    def environment(self) -> dict[str, str]:
        """See `Server.environment`."""
        settings = {
            "CONF_ENV_FILE": self.folder / "environment",
            "CONFIG_FILE": self.folder / "rabbitmq",
            "DIST_PORT": free_port(),
            "ENABLED_PLUGINS_FILE": self.folder / "plugins",
            "LOGS": "-",
            "MNESIA_BASE": self.folder / "mnesia",
            "NODENAME": f"test{self.port}@localhost",
            "NODE_IP_ADDRESS": "127.0.0.1",
            "NODE_PORT": self.port,
            "PID_FILE": self.folder / "pid",
        }
        ours = {f"RABBITMQ_{name}": str(value) for name, value in settings.items()}
        return os.environ | ours | {"HOME": str(self.folder), "ERL_EPMD_PORT": str(self._names_port)}

    def start(self) -> None:
        """See `Server.start`."""
        if self._names is None:
            names = ["epmd", "-port", str(self._names_port), "-address", "127.0.0.1"]
            self._names = subprocess.Popen(names, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        super().start()

    def answers(self) -> bool:
        """It listens before it has started whole; it says so then."""
        return b"completed with" in (self.folder / "output").read_bytes() and super().answers()

    def kill(self) -> None:
        """As a crash does. What it said before it does not say of the next start."""
        super().kill()
        (self.folder / "output").unlink(missing_ok=True)

    def end(self) -> None:
        """See `Server.end`."""
        super().end()
        if self._names is not None:
            self._names.kill()
            self._names.wait(patience(20))


MOCK_KAFKA = """
import sys, time
from confluent_kafka import Producer
producer = Producer({"bootstrap.servers": "mock", "test.mock.num.brokers": 1})
(broker,) = producer.list_topics(timeout=10).brokers.values()
with open(sys.argv[1], "w") as place:
    place.write(f"{broker.port}\\n")
while True:
    producer.poll(1)
"""


class MockKafka(Server):
    """The broker inside librdkafka, in a process of its own: Debian has no Kafka. It chooses its port, and forgets all in the end."""

    program = sys.executable
    package = "python3"

    def command(self) -> Sequence[str]:
        """See `Server.command`."""
        return ("-c", MOCK_KAFKA, str(self.folder / "port"))

    def answers(self) -> bool:
        """When it has said where."""
        place = self.folder / "port"
        if not place.exists() or not place.read_text().endswith("\n"):
            return False
        self.port = int(place.read_text())
        return super().answers()


AnyServer = TypeVar("AnyServer", bound=Server)


@contextmanager
def running(server: AnyServer) -> Iterator[AnyServer]:
    """Start it, and leave nothing behind."""
    try:
        server.start()
        yield server
    finally:
        server.end()


T = TypeVar("T")


def at_once(work: Coroutine[Any, Any, T]) -> T:
    """What comes of asking a server, in a loop of its own while this one waits."""
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(asyncio.run, work).result(patience(30))


def make_certificate(certificate: Path, key: Path) -> None:
    """For localhost, by name alone."""
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2",
         "-keyout", key, "-out", certificate, "-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost"],
        check=True, capture_output=True,
    )  # fmt: skip


def summarised(count: int) -> list[Delivery]:
    """Events that say what changed."""
    return [_summarised(delivery) for delivery in sample_deliveries(count)]


def _summarised(delivery: Delivery) -> Delivery:
    event = msgspec.json.decode(delivery.body)
    event["data"]["summary"] = f"summary of {delivery.event_id}"
    return msgspec.structs.replace(delivery, body=msgspec.json.encode(event))


def example(kind: str, replacements: dict[str, str]) -> str:
    """The consumer on the kind's page, which prints subject and summary of each event, told where the server is."""
    page = Path(__file__).parents[1] / f"docs/sink-{kind}.md"
    code: str
    (code,) = re.findall(r"```python\n(.*?)```", page.read_text(encoding="utf-8"), re.DOTALL)
    for there, here in replacements.items():
        assert there in code
        code = code.replace(there, here)
    return code


@asynccontextmanager
async def consumer(code: str) -> AsyncIterator[Callable[[int], Awaitable[list[str]]]]:
    """Runs it; gives what reads the next so many lines of it."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", code, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT
    )
    output = process.stdout
    assert output is not None

    async def lines(count: int) -> list[str]:
        async with asyncio.timeout(patience(30)):
            return [(await output.readline()).decode().rstrip("\n") for _ in range(count)]

    try:
        yield lines
    finally:
        with suppress(ProcessLookupError):
            process.kill()
        await process.wait()


def as_printed(deliveries: Sequence[Delivery]) -> list[str]:
    """What the consumer prints of them."""
    events = [msgspec.json.decode(delivery.body) for delivery in deliveries]
    return [f"{event['subject']} {event['data']['summary']}" for event in events]
