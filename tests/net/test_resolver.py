"""Looking names up: one that hangs keeps up nobody else. Resolvers are scripted: no real one hangs when told to."""

from __future__ import annotations

import asyncio
import signal
import socket
import sys
import threading
from typing import TYPE_CHECKING, Any

import pytest

from reserve_listener.net import resolver
from reserve_listener.net.resolver import Loop, Question, Resolver
from reserve_listener.simulator import HttpServer, Receiver, patience, sample_event
from tests.daemon_process import Daemon, environment, running, until, write_config

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from reserve_listener.simulator import Simulator

HANGS = """
import socket, threading
known = socket.getaddrinfo
def lookup(host, *arguments, **more):
    name = host.decode() if isinstance(host, bytes) else host
    if name and name.endswith(".hangs.test"):
        threading.Event().wait()
    return known(host, *arguments, **more)
socket.getaddrinfo = lookup
"""


def ask(host: str, **more: int) -> Question:
    """A question as connecting asks it."""
    return Question(host, None, **{"family": 0, "type": socket.SOCK_STREAM, "proto": 0, "flags": 0, **more})


class Script:
    """A resolver to tell what to do: names that begin with "hang" hang until released, others have an address."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.released = threading.Event()

    def __call__(self, host: str, *_: Any) -> list[Any]:
        self.asked.append(host)
        if host.startswith("hang"):
            self.released.wait()
        if host == "nowhere":
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
        address = [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("192.0.2.1", 0))]
        return [*address, (socket.AF_INET6, socket.SOCK_STREAM, 6, "", ("2001:db8::1", 0, 0, 7))]


@pytest.fixture
def script() -> Iterator[Script]:
    """The script; at the end nothing hangs on."""
    script = Script()
    yield script
    script.released.set()


async def test_one_lookup_of_a_name_that_hangs_is_shared(script: Script) -> None:
    """Whoever asks for it fails at the deadline with an error that says why; other names are found meanwhile."""
    names = Resolver(script, timeout_s=0.05)
    hanging = [asyncio.create_task(names.resolve(ask("hang.test"), port)) for port in range(20)]
    assert (await names.resolve(ask("well.test"), 443))[0][4] == ("192.0.2.1", 443)
    for error in await asyncio.gather(*hanging, return_exceptions=True):
        assert isinstance(error, socket.gaierror)
        assert error.errno == socket.EAI_AGAIN
        assert str(error.strerror) == "hang.test: the name server does not answer within 0.05 s"
    with pytest.raises(socket.gaierror):
        await names.resolve(ask("hang.test"), 443)
    assert script.asked.count("hang.test") == 1


async def test_an_answer_that_comes_late_is_still_one(script: Script) -> None:
    """Those who wait when it comes have it, also when the first to ask has given up; then the name is asked anew."""
    names = Resolver(script)
    first, second = (asyncio.create_task(names.resolve(ask("hang.test"), port)) for port in (1, 2))
    await asyncio.sleep(0)
    first.cancel()
    script.released.set()
    assert [one[4] for one in await second] == [("192.0.2.1", 2), ("2001:db8::1", 2, 0, 7)]
    assert first.cancelled()
    await names.resolve(ask("hang.test"), 3)
    assert script.asked == ["hang.test", "hang.test"]


async def test_an_error_names_the_host(script: Script) -> None:
    """Each who shares the lookup has an error of its own."""
    names = Resolver(script)
    errors = await asyncio.gather(
        names.resolve(ask("nowhere"), 1), names.resolve(ask("nowhere"), 2), return_exceptions=True
    )
    assert [str(error) for error in errors] == [
        f"[Errno {socket.EAI_NONAME}] nowhere: Name or service not known"
    ] * 2
    assert errors[0] is not errors[1]


async def test_what_hangs_is_bounded(script: Script, monkeypatch: pytest.MonkeyPatch) -> None:
    """Beyond the bound a new name fails at once; one that is under way is still shared."""
    monkeypatch.setattr(resolver, "LOOKUPS", 3)
    names = Resolver(script)
    hanging = [asyncio.create_task(names.resolve(ask(f"hang{number}.test"), 1)) for number in range(3)]
    await asyncio.sleep(0)
    with pytest.raises(socket.gaierror, match="3 name lookups are pending"):
        await names.resolve(ask("well.test"), 1)
    script.released.set()
    assert [len(found) for found in await asyncio.gather(*hanging, names.resolve(ask("hang0.test"), 1))] == [
        2
    ] * 4


def test_the_loop_asks_the_resolver() -> None:
    """It answers as asyncio's own does, for numbers and names of ports, names and addresses."""

    async def answers() -> list[Any]:
        loop = asyncio.get_running_loop()
        stream = socket.SOCK_STREAM
        return [
            await loop.getaddrinfo("localhost", 443, type=stream),
            await loop.getaddrinfo(b"localhost", 443, type=stream),
            await loop.getaddrinfo("127.0.0.1", "http", type=stream),
            await loop.getaddrinfo(None, 7, type=stream),
            await loop.getaddrinfo("::1", None, type=stream),
        ]

    with asyncio.Runner(loop_factory=Loop) as ours, asyncio.Runner() as fast_path:
        assert ours.run(answers()) == fast_path.run(answers())


def failures(daemon: Daemon) -> list[str]:
    """What the sinks whose names hang were logged to have failed with."""
    lines = [line for line in daemon.log() if str(line.get("sink")).startswith("h")]
    return [line["error"] for line in lines if "error" in line]


async def test_names_that_hang_hold_up_nothing_else(platform: Simulator, tmp_path: Path) -> None:
    """With a dozen sinks whose names hang a healthy one is served, a reload applied, a lost connection made again, a stop quick."""
    (tmp_path / "sitecustomize.py").write_text(HANGS)
    receiver = Receiver()
    async with HttpServer(receiver) as server:
        url = server.url.replace("127.0.0.1", "localhost")
        hanging = "".join(
            f'[[sinks]]\nname = "h{number}"\ntype = "http"\nurl = "http://{number}.hangs.test/hook"\ntimeout = 60\n'
            for number in range(12)  # longer than the lookup's deadline, on a busy machine too
        )
        config = write_config(tmp_path, platform, url, more=hanging)
        async with running(tmp_path, config, environ={"PYTHONPATH": str(tmp_path)}) as daemon:
            await platform.connected(20)
            assert await platform.push(sample_event()).answered() == 200
            await receiver.wait_for(1, 20)
            await platform.drop()
            await platform.until(lambda: platform.connects == 2, 20)
            config.write_text(config.read_text() + '[[sinks]]\nname = "new"\ntype = "log"\n')
            daemon.process.send_signal(signal.SIGHUP)
            await until(lambda: any(line["event"] == "config.applied" for line in daemon.log()))
            assert await platform.push(sample_event()).answered() == 200
            await receiver.wait_for(2, 20)
            await until(lambda: failures(daemon))
            assert await daemon.stop() == 0
            told = failures(daemon)
    wanted = ("hangs.test", "the name server does not answer within")
    assert [reason for reason in told if not all(part in reason for part in wanted)] == []


async def test_a_sink_is_tried_without_a_daemon_although_its_name_hangs(
    tmp_path: Path, platform: Simulator
) -> None:
    """`sinks test` says so and ends, which asyncio's own lookup would keep it from for five minutes."""
    config = write_config(tmp_path, platform, "http://name.hangs.test", more="timeout = 1")
    script = f"{HANGS}\nfrom reserve_listener.cli.main import main\nmain()\n"
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", script, "sinks", "test", "booking", "-c", str(config),
        stderr=asyncio.subprocess.PIPE, env=environment(),
    )  # fmt: skip
    try:
        _, said = await asyncio.wait_for(process.communicate(), patience(20))
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    assert process.returncode == 1
    assert b"name.hangs.test" in said
