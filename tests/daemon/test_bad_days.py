"""What a daemon does when the world around it behaves as it should not: things hang, vanish, or come at the wrong moment."""

from __future__ import annotations

import asyncio
import json
import os
import resource
import signal
import sys
from typing import TYPE_CHECKING

import pytest

from reserve_listener.simulator import Answer, HttpServer, Receiver, Simulator, patience, sample_event
from reserve_listener.web.answers import Status
from reserve_listener.web.client import get
from tests.daemon.test_lifecycle import under_systemd
from tests.daemon_process import COMMAND, environment, running, until, write_config
from tests.helpers import url_of

if TYPE_CHECKING:
    from pathlib import Path

HANGS = {
    "name resolution": "import socket\nsocket.getaddrinfo = lambda *_, **__: time.sleep(3600)\n",
    "a file's fsync": (
        "import reserve_listener.sinks.file.sink as file\n"
        "class Hanging:\n"
        "    def __getattr__(self, name): return getattr(os, name)\n"
        "    def fsync(self, _): print('hanging', file=sys.stderr, flush=True); time.sleep(3600)\n"
        "file.os = Hanging()\n"
    ),
}


@pytest.mark.parametrize("what", HANGS)
async def test_what_hangs_for_ever_does_not_keep_the_daemon_from_ending(
    tmp_path: Path, platform: Simulator, server: HttpServer, what: str
) -> None:
    """A resolver or a disk that never answers: the stop is orderly, within its time, and loses nothing."""
    config = write_config(tmp_path, platform, server.url, more="\n[delivery]\ndrain_timeout = 1\n")
    if what == "name resolution":
        config.write_text(config.read_text().replace("127.0.0.1", "localhost", 1))
    script = (
        f"import os, sys, time\n{HANGS[what]}"
        "from reserve_listener.cli.main import main\nsys.argv[1:] = ['run', '-c', sys.argv[1]]\nmain()\n"
    )
    with (tmp_path / "log.jsonl").open("wb") as out, (tmp_path / "stderr.txt").open("wb") as err:
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-c", script, str(config), stdout=out, stderr=err, env=environment()
        )
    try:
        if what == "name resolution":
            await until(lambda: "connection.connecting" in (tmp_path / "log.jsonl").read_text())
        else:
            await platform.connected(20)
            assert await platform.push(sample_event(event_id="one")).answered() == 200
            await until(lambda: "hanging" in (tmp_path / "stderr.txt").read_text())
            assert await platform.push(sample_event(event_id="two")).answered() == 200
        process.send_signal(signal.SIGTERM)
        assert await asyncio.wait_for(process.wait(), patience(20)) == 0
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


DEAD_DISK = """
import os, threading

def dead(call):
    def asked(path, *arguments, **options):
        if "/dead-disk/" in os.fspath(path):
            threading.Event().wait()
        return call(path, *arguments, **options)
    return asked

def looks(call):  # at open files by their numbers, too
    on_disk = dead(call)
    return lambda path, *more, **options: (call if isinstance(path, int) else on_disk)(path, *more, **options)

os.stat, os.lstat, os.open, os.access = looks(os.stat), dead(os.lstat), dead(os.open), looks(os.access)
"""


async def test_a_file_sink_on_a_dead_disk_holds_up_neither_the_start_nor_the_others(
    tmp_path: Path, platform: Simulator, server: HttpServer, receiver: Receiver
) -> None:
    """Every look at the disk hangs for ever: the daemon says so, connects, delivers elsewhere, reloads and stops."""
    (tmp_path / "sitecustomize.py").write_text(DEAD_DISK)
    dead = f'[[sinks]]\nname = "far"\ntype = "file"\npath = "{tmp_path}/dead-disk/events.jsonl"\n'
    config = write_config(tmp_path, platform, server.url, more=f"{dead}[delivery]\ndrain_timeout = 1\n")
    async with running(tmp_path, config, environ={"PYTHONPATH": str(tmp_path)}) as daemon:
        await platform.connected(20)
        (unusable,) = [line for line in daemon.log() if line["event"] == "sink.unusable"]
        assert (unusable["sink"], "does not respond" in unusable["problem"]) == ("far", True)
        assert await platform.push(sample_event(event_id="one")).answered() == 200
        await receiver.wait_for(1)
        daemon.process.send_signal(signal.SIGHUP)
        await until(lambda: any(line["event"] == "config.applied" for line in daemon.log()))
        assert await daemon.stop() == 0


SECRET_THAT_HANGS = (
    "import os, time\n"
    "import reserve_listener.config.model as model\n"
    "import reserve_listener.transports.long_connection.supervisor as supervision\n"
    "supervision.ATTEMPT_TIMEOUT_S = 0.5\n"
    "read = model.LarkConfig.read_app_secret\n"
    "def slow(self):\n"
    "    if os.path.exists(self.app_secret_file.with_name('hangs')): time.sleep(3600)\n"
    "    return read(self)\n"
    "model.LarkConfig.read_app_secret = slow\n"
)


@pytest.mark.parametrize("how", ["a disk that hangs", "a pipe in its place"])
async def test_a_secret_that_cannot_be_read_holds_up_neither_the_next_attempt_nor_the_stop(
    tmp_path: Path, platform: Simulator, server: HttpServer, how: str
) -> None:
    """An attempt at a secret on a dead disk has an end and a known next time; once it is well the daemon is connected."""
    config = write_config(
        tmp_path, platform, server.url, lark="endpoint_timeout = 0.5\nrefused_backoff = 0.3"
    )
    script = (
        f"import sys\n{SECRET_THAT_HANGS}"
        "from reserve_listener.cli.main import main\nsys.argv[1:] = ['run', '-c', sys.argv[1]]\nmain()\n"
    )
    secret, hangs = tmp_path / "secret", tmp_path / "hangs"

    def break_it() -> None:
        if how == "a disk that hangs":
            hangs.touch()
        else:
            secret.unlink()
            os.mkfifo(secret)

    with (tmp_path / "log.jsonl").open("wb") as out:
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-c", script, str(config), stdout=out, env=environment()
        )

    def logged(event: str) -> int:
        return (tmp_path / "log.jsonl").read_text().count(f'"{event}"')

    try:
        await platform.connected(20)
        break_it()
        await platform.drop(abort=True)
        await until(lambda: logged("connection.waiting") >= 3)
        if how == "a disk that hangs":
            hangs.unlink()
        else:
            secret.unlink()
            secret.write_text(f"{platform.app_secret}\n")
        await platform.connected(20)
        attempts = logged("connection.connecting")
        break_it()
        await platform.drop(abort=True)
        await until(lambda: logged("connection.connecting") > attempts)
        process.send_signal(signal.SIGTERM)
        assert await asyncio.wait_for(process.wait(), patience(10)) == 0
        assert logged("daemon.stopped") == 1
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


async def test_a_start_that_hangs_can_be_stopped(
    tmp_path: Path, platform: Simulator, server: HttpServer
) -> None:
    """SIGTERM while the sinks' files are on a disk that does not answer: the process ends in order."""
    config = write_config(tmp_path, platform, server.url)
    script = (
        "import sys, time, reserve_listener.daemon.app as app\n"
        "app.make_sink_spec = lambda *_, **__: time.sleep(3600)\n"
        "from reserve_listener.cli.main import main\nsys.argv[1:] = ['run', '-c', sys.argv[1]]\nmain()\n"
    )
    with (tmp_path / "log.jsonl").open("wb") as out:
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-c", script, str(config), stdout=out, env=environment()
        )
    try:
        await until(lambda: '"daemon.started"' in (tmp_path / "log.jsonl").read_text())
        process.send_signal(signal.SIGTERM)
        assert await asyncio.wait_for(process.wait(), patience(10)) == 0
        assert '"daemon.stopped"' in (tmp_path / "log.jsonl").read_text()
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


async def test_a_stop_in_the_middle_of_a_reload_drains_all_the_same(
    tmp_path: Path, platform: Simulator, server: HttpServer, receiver: Receiver
) -> None:
    """SIGTERM while a changed sink waits for its last attempt: the process ends in order, and every event arrives once."""
    config = write_config(tmp_path, platform, server.url)
    receiver.answer = Answer(delay=1.0)
    async with under_systemd(tmp_path, config) as (daemon, _):
        await platform.connected(20)
        assert await platform.push(sample_event(event_id="one")).answered() == 200
        await receiver.wait_for(1)
        config.write_text(config.read_text() + "timeout = 9\n")
        daemon.process.send_signal(signal.SIGHUP)
        await platform.push(sample_event(event_id="two")).answered()
        assert await daemon.stop() == 0
        assert daemon.file_ids() == ["one", "two"]
        receiver.answer = 200
        await daemon.start()
        await until(lambda: daemon.pending() == 0)
        ids = [request.headers["webhook-id"] for request in receiver.received]
        assert ids == ["one", "two"]
        await platform.connected(20)
        assert await daemon.stop() == 0


async def test_a_reload_leaves_sinks_alone_that_did_not_change(
    tmp_path: Path, platform: Simulator, server: HttpServer, receiver: Receiver
) -> None:
    """An attempt under way is not broken off by a reload that concerns another sink; a new secret concerns its own."""
    (tmp_path / "key").write_text("first-secret\n")
    config = write_config(
        tmp_path, platform, server.url, more=f'header_files = {{ "X-Api-Key" = "{tmp_path}/key" }}\n'
    )
    receiver.answer = Answer(delay=1.0)
    async with under_systemd(tmp_path, config) as (daemon, _):
        await platform.connected(20)
        assert await platform.push(sample_event(event_id="one")).answered() == 200
        await receiver.wait_for(1)
        config.write_text(config.read_text().replace("events.jsonl", "other.jsonl"))
        daemon.process.send_signal(signal.SIGHUP)
        await until(lambda: any(line["event"] == "config.applied" for line in daemon.log()))
        (applied,) = [line for line in daemon.log() if line["event"] == "config.applied"]
        assert applied["unchanged"] == ["booking", "console"]
        await until(lambda: daemon.pending() == 0)
        assert len(receiver.received) == 1
        receiver.answer = 200
        (tmp_path / "key").write_text("second-secret\n")
        daemon.process.send_signal(signal.SIGHUP)
        await until(lambda: len([line for line in daemon.log() if line["event"] == "config.applied"]) == 2)
        assert await platform.push(sample_event(event_id="two")).answered() == 200
        await receiver.wait_for(2)
        assert receiver.received[1].headers["x-api-key"] == "second-secret"
        assert await daemon.stop() == 0


@pytest.mark.parametrize("how", ["removed", "replaced"])
async def test_a_store_that_is_taken_away_ends_the_daemon_loudly(
    tmp_path: Path, platform: Simulator, server: HttpServer, how: str
) -> None:
    """Nothing is answered 200 for a file that nobody will read; the process says so, in some lines, and ends with 1."""
    config = write_config(tmp_path, platform, server.url, more="\n[delivery]\ndrain_timeout = 1\n")
    async with running(tmp_path, config) as daemon:
        await platform.connected(20)
        assert await platform.push(sample_event()).answered() == 200
        if how == "removed":
            (tmp_path / "events.db").rename(tmp_path / "elsewhere.db")
        else:
            (tmp_path / "empty").touch()
            (tmp_path / "empty").replace(tmp_path / "events.db")
        platform.push(sample_event(event_id="late"), retry=False)
        assert await daemon.ended() == 1
        assert "late" not in platform.acknowledged
        assert f"was {how} while the daemon was running" in daemon.stderr()
        assert len(daemon.log()) < 100


async def test_a_full_disk_is_noticed_and_forgotten_without_pushes(
    tmp_path: Path, platform: Simulator, server: HttpServer
) -> None:
    """On a quiet day a store that failed is looked at again, so health does not say 500 until the next push."""
    config = write_config(tmp_path, platform, server.url)
    async with under_systemd(tmp_path, config, WATCHDOG_USEC="600000") as (daemon, systemd):
        await platform.connected(20)
        unlimited = resource.prlimit(daemon.process.pid, resource.RLIMIT_FSIZE)
        resource.prlimit(daemon.process.pid, resource.RLIMIT_FSIZE, (4096, unlimited[1]))
        big = sample_event(reserve_scope_config={"note": "x" * 200_000})
        assert await platform.push(big, retry=False).answered(10) == 500
        await until(lambda: any("answering 500" in each.get("STATUS", "") for each in systemd.listen()))
        resource.prlimit(daemon.process.pid, resource.RLIMIT_FSIZE, unlimited)
        systemd.heard.clear()
        await until(lambda: systemd.has(STATUS="connected; pending: audit 0, booking 0, console 0"))
        assert await daemon.stop() == 0


@pytest.mark.parametrize("what", ["directory", "text"])
async def test_a_store_that_is_none_is_a_wrong_configuration(
    tmp_path: Path, platform: Simulator, server: HttpServer, what: str
) -> None:
    """`run` ends with 78, as `check` does: to start again would not mend it."""
    write_config(tmp_path, platform, server.url)
    if what == "directory":
        (tmp_path / "events.db").mkdir()
    else:
        (tmp_path / "events.db").write_text("not a database, but quite a long text " * 50)
    async with running(tmp_path, tmp_path / "config.toml") as daemon:
        assert await daemon.ended() == 78
        assert "store.url" in daemon.stderr()
        assert "Traceback" not in daemon.stderr()


async def test_the_control_socket_works_in_a_deep_folder(
    tmp_path: Path, platform: Simulator, server: HttpServer
) -> None:
    """A store whose path is longer than a socket's name may be is asked all the same."""
    deep = tmp_path / ("d" * 100) / ("e" * 100)
    deep.mkdir(parents=True)
    write_config(deep, platform, server.url)
    async with running(deep, deep / "config.toml") as daemon:
        await platform.connected(20)
        answer = await asyncio.to_thread(get, url_of(deep / "events.db"), "/status", Status)
        assert answer is not None
        assert answer.pid == daemon.process.pid
        assert await daemon.stop() == 0


async def test_a_hangup_before_the_daemon_listens_does_not_end_it(
    tmp_path: Path, platform: Simulator, server: HttpServer
) -> None:
    """A reload that comes while the process is still starting has nothing to do, and is no reason to die."""
    config = write_config(tmp_path, platform, server.url)
    script = (
        "import os, signal, sys\n"
        "from reserve_listener.cli.main import main\n"
        "import reserve_listener.config as config\n"
        "load = config.load\n"
        "def hung_up(*args):\n    os.kill(os.getpid(), signal.SIGHUP)\n    return load(*args)\n"
        "config.load = hung_up\n"
        "sys.argv[1:] = ['run', '-c', sys.argv[1]]\nmain()\n"
    )
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", script, str(config),
        stdout=asyncio.subprocess.DEVNULL, env=environment(), start_new_session=True,
    )  # fmt: skip
    try:
        await platform.connected(20)
        process.terminate()
        assert await asyncio.wait_for(process.wait(), patience(20)) == 0
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


async def test_a_sink_whose_file_cannot_be_used_is_said_at_once(
    tmp_path: Path, platform: Simulator, server: HttpServer
) -> None:
    """A folder that is missing is a warning at start; the events wait and arrive when it is there."""
    config = write_config(tmp_path, platform, server.url, more="retry = { base = 0.05, cap = 0.1 }")
    text = config.read_text().replace("events.jsonl", "missing/events.jsonl")
    config.write_text(text.replace('type = "file"\n', 'type = "file"\nretry = { base = 0.05, cap = 0.1 }\n'))
    async with running(tmp_path, config) as daemon:
        await until(lambda: any(line["event"] == "sink.unusable" for line in daemon.log()))
        (line,) = [each for each in daemon.log() if each["event"] == "sink.unusable"]
        assert (line["sink"], "missing" in line["problem"]) == ("audit", True)
        await platform.connected(20)
        assert await platform.push(sample_event(event_id="one")).answered() == 200
        await until(lambda: daemon.pending() == 1)
        (tmp_path / "missing").mkdir()
        await until(lambda: daemon.pending() == 0)
        written = (tmp_path / "missing" / "events.jsonl").read_text()
        assert [json.loads(one)["id"] for one in written.splitlines()] == ["one"]
        assert await daemon.stop() == 0


async def test_a_closed_standard_output_is_a_sentence(tmp_path: Path) -> None:
    """Writing to a full device ends with one line and not with a traceback."""
    with open("/dev/full", "wb") as full:  # noqa: ASYNC230, PTH123  # opens at once
        process = await asyncio.create_subprocess_exec(
            *COMMAND, "config", "schema",
            stdout=full, stderr=asyncio.subprocess.PIPE, env=environment(), cwd=tmp_path,
        )  # fmt: skip
        _, err = await asyncio.wait_for(process.communicate(), patience(30))
    assert process.returncode == 1
    assert err.decode().startswith("error: ")
    assert "Traceback" not in err.decode()
    assert os.listdir(tmp_path) == []  # noqa: PTH208


async def test_an_argument_that_is_no_text_is_a_sentence(tmp_path: Path) -> None:
    """Bytes that are not UTF-8 on the command line are refused, wherever they stand."""
    process = await asyncio.create_subprocess_exec(
        *COMMAND, "events", "list", "--scope", b"\xff\xfe",
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE, env=environment(), cwd=tmp_path,
    )  # fmt: skip
    _, err = await asyncio.wait_for(process.communicate(), patience(30))
    assert (process.returncode, err) == (1, b"error: the command line is not UTF-8 text.\n")
