"""The exec sink, with real commands."""

from __future__ import annotations

import asyncio
import errno
import json
import os
import shutil
import signal
import threading
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import structlog

from reserve_listener.errors import (
    ConfigError,
    DeliveryError,
    MisconfiguredSinkError,
    PermanentDeliveryError,
    TransientDeliveryError,
)
from reserve_listener.simulator import patience
from reserve_listener.sinks.registry import look_over, make_sink_spec
from reserve_listener.testing import SinkContract, SinkWorld
from tests.commands import COMMANDS
from tests.configuring import made
from tests.daemon_process import environment
from tests.helpers import delivery, until

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from reserve_listener.protocols import Sink

TOKEN = "b34rer-token-value"


async def nowhere(_: object) -> None:
    """No log sink is made with it."""


def script(path: Path, text: str) -> str:
    """A shell script that may be run."""
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)
    return str(path)


def sink_of(*command: str, **keys: Any) -> Sink:
    """The sink as the daemon makes it."""
    return make_sink_spec(made("exec", name="script", command=command, **keys), nowhere).sink


async def failure(sink: Sink) -> DeliveryError:
    """What an attempt raises."""
    with pytest.raises(DeliveryError) as caught:
        await sink.deliver([delivery()])
    await sink.close()
    return caught.value


def is_alive(pid: int) -> bool:
    """Whether a process runs; one that nobody has reaped does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2][0] != "Z"
    except OSError:
        return False


class TestExec(SinkContract):
    """A command that keeps what it reads, one that fails and quotes a secret, and one that never ends."""

    folder: Path

    @pytest.fixture(autouse=True)
    def _folder(self, tmp_path: Path) -> None:
        self.folder = tmp_path

    @asynccontextmanager
    async def world(self) -> AsyncIterator[SinkWorld]:
        events, switch = self.folder / "events", self.folder / "switch"
        command = script(
            self.folder / "command",
            f"""[ ! -e {switch} ] || . {switch}
            event=$(cat) && [ -n "$event" ] && printf '%s\\n' "$event" >> {events}""",
        )
        table = made(
            "exec", name="a", command=(command,), timeout=1, max_in_flight=4, env={"API_TOKEN": TOKEN}
        )
        yield SinkWorld(
            make=lambda: make_sink_spec(table, nowhere).sink,
            delivered=lambda: (
                [json.loads(line)["id"] for line in events.read_text().splitlines()]
                if events.exists()
                else []
            ),
            refuse=lambda: void(switch.write_text("env; echo no $API_TOKEN; exit 3")),
            hang=lambda: void(switch.write_text("sleep 100")),
            secrets=(TOKEN,),
        )


def void(_: object) -> None:
    """What is of no interest."""


@pytest.mark.parametrize(
    ("command", "error", "text"),
    [
        ("exit 75", TransientDeliveryError, "exit status 75"),
        ("echo first; echo why >&2; exit 1", PermanentDeliveryError, "exit status 1: why"),
        ("kill -TERM $$", TransientDeliveryError, "ended by SIGTERM"),
        ("exit 126", MisconfiguredSinkError, "exit status 126"),
        ("/nowhere/at-all", MisconfiguredSinkError, "exit status 127"),
    ],
)
async def test_the_exit_status_says_what_comes_next(
    tmp_path: Path, command: str, error: type[DeliveryError], text: str
) -> None:
    """75 and a signal mean later, 126 and 127 that the set-up is wrong, and all else that this event is not wanted."""
    found = await failure(sink_of(script(tmp_path / "command", command)))
    assert type(found) is error
    assert text in str(found)


@pytest.mark.parametrize(("name", "why"), [("missing", "No such file"), ("plain", "Permission denied")])
async def test_a_command_that_cannot_be_started_is_misconfigured(tmp_path: Path, name: str, why: str) -> None:
    """No such file, or one that may not be executed: `check` says so before, a delivery is tried again slowly."""
    (tmp_path / "plain").write_text("#!/bin/sh\n")
    table = made("exec", name="script", command=(str(tmp_path / name),))
    with pytest.raises(ConfigError, match="check its path and mode"):
        look_over(table)
    found = await failure(make_sink_spec(table, nowhere).sink)
    assert type(found) is MisconfiguredSinkError
    assert why in str(found)


async def test_a_file_that_is_being_written_is_tried_again(tmp_path: Path) -> None:
    """An update that is under way (ETXTBSY) passes by itself."""
    program = tmp_path / "true"
    shutil.copy("/bin/true", program)
    with program.open("ab"):
        found = await failure(sink_of(str(program)))
    assert type(found) is TransientDeliveryError


async def test_the_timeout_kills_the_whole_group(tmp_path: Path) -> None:
    """A command that hangs is killed with what it started in the background, and the event comes again."""
    pids = tmp_path / "pids"
    command = script(tmp_path / "command", f"sleep 100 & echo $! $$ > {pids}; wait")
    found = await failure(sink_of(command, timeout=0.5))
    assert type(found) is TransientDeliveryError
    assert "not done within 0.5 s" in str(found)
    await until(lambda: not any(is_alive(int(pid)) for pid in pids.read_text().split()))


async def test_it_runs_in_a_session_of_its_own(tmp_path: Path) -> None:
    """Neither Ctrl-C in the daemon's terminal nor a signal to the daemon's group reaches the command."""
    out = tmp_path / "out"
    command = script(tmp_path / "command", f"cut -d' ' -f1,5,6 /proc/$$/stat > {out}")
    await sink_of(command).deliver([delivery()])
    pid, group, session = out.read_text().split()
    assert pid == group == session
    assert int(session) != os.getsid(0)


async def test_what_a_command_leaves_behind_holds_up_nobody(tmp_path: Path) -> None:
    """A background process that keeps the output open is not waited for, and is left alone when the command ends well."""
    pids = tmp_path / "pid"
    command = script(tmp_path / "command", f"sleep 100 & echo $! > {pids}")
    async with asyncio.timeout(30):
        await sink_of(command, timeout=60).deliver([delivery()])
    pid = int(pids.read_text())
    assert is_alive(pid)
    os.kill(pid, signal.SIGKILL)


async def test_a_command_need_not_read(tmp_path: Path) -> None:
    """An event larger than a pipe is no error for a command that closes its input, or ends, without reading it."""
    large = delivery(body=b"x" * 1_000_000)
    for text in ("exit 0", "exec 0<&-; sleep 0.1"):
        await sink_of(script(tmp_path / "command", text)).deliver([large])


async def test_an_event_comes_whole_and_ends(tmp_path: Path) -> None:
    """The command reads each byte of an event, of a large one too, and then the end of its input."""
    large, out = delivery(body=os.urandom(1_000_000)), tmp_path / "out"
    await sink_of(script(tmp_path / "command", f"cat > {out}")).deliver([large])
    assert out.read_bytes() == large.body


async def test_output_without_end_is_drained_and_its_end_is_kept(tmp_path: Path) -> None:
    """20 MB of output, and no line of it in the log above debug; there the last of it stands, without control characters."""
    text = "yes out | head -c 20000000; printf 'the \\033[31mlast'"
    with structlog.testing.capture_logs() as logs:
        await sink_of(script(tmp_path / "command", text)).deliver([delivery()])
    (line,) = [line for line in logs if line["event"] == "exec.ended"]
    assert line["log_level"] == "debug"
    assert line["status"] == 0
    assert len(line["output"]) <= 2000
    found = await failure(sink_of(script(tmp_path / "command", f"{text}; exit 1")))
    assert str(found).endswith(": the \\x1b[31mlast")


async def test_the_environment_is_path_lang_and_what_env_gives(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing else of the daemon's gets through, its secrets above all; arguments are taken as they are."""
    monkeypatch.setenv("RESERVE_LISTENER_LARK__APP_SECRET", TOKEN)
    monkeypatch.setenv("LANG", "de_AT.UTF-8")
    out = tmp_path / "out"
    command = script(tmp_path / "command", f'/usr/bin/env -u PWD -u SHLVL -u _ > {out}; echo "$1" >> {out}')
    await sink_of(command, "$HOME; * ", env={"ROOM": "A"}).deliver([delivery()])
    assert sorted(out.read_text().splitlines()) == sorted(
        [f"PATH={os.environ['PATH']}", "LANG=de_AT.UTF-8", "ROOM=A", "$HOME; * "]
    )


async def test_no_more_at_once_than_allowed(tmp_path: Path) -> None:
    """With one at a time a second event waits for the first, also when that was cancelled and is just being killed."""
    log = tmp_path / "log"
    sink = sink_of(script(tmp_path / "command", f"echo begin >> {log}; sleep 0.1; echo end >> {log}"))
    first = asyncio.create_task(sink.deliver([delivery(1)]))
    await until(log.exists)
    first.cancel()
    await asyncio.gather(first, return_exceptions=True)
    log.unlink()
    await asyncio.gather(sink.deliver([delivery(2)]), sink.deliver([delivery(3)]))
    assert log.read_text().split() == ["begin", "end"] * 2


async def test_a_command_that_cannot_be_followed_is_killed_and_gives_its_place_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No descriptor is left for it, or no thread: it is tried again later, and the next one finds its place free."""
    sink = sink_of(script(tmp_path / "run", "sleep 600"), timeout=30)
    with monkeypatch.context() as patched:
        patched.setattr(os, "pidfd_open", _failing(OSError(errno.EMFILE, "Too many open files")))
        with pytest.raises(TransientDeliveryError, match="Too many open files"):
            await sink.deliver([delivery()])
    with monkeypatch.context() as patched:
        patched.setattr(threading.Thread, "start", _failing(RuntimeError("can't start new thread")))
        with pytest.raises(TransientDeliveryError, match="can't start new thread"):
            await sink.deliver([delivery()])
    script(tmp_path / "run", "exit 0")
    await sink.deliver([delivery()])
    await sink.close()


def _failing(error: Exception) -> Callable[..., None]:
    def fails(*_: object) -> None:
        raise error

    return fails


async def test_closing_kills_what_runs(tmp_path: Path) -> None:
    """No command outlives its sink."""
    pids = tmp_path / "pids"
    sink = sink_of(script(tmp_path / "command", f"echo $$ > {pids}.new; mv {pids}.new {pids}; sleep 100"))
    running = asyncio.create_task(sink.deliver([delivery()]))
    await until(pids.exists)
    await sink.close()
    assert not is_alive(int(pids.read_text()))
    (outcome,) = await asyncio.gather(running, return_exceptions=True)
    assert isinstance(outcome, TransientDeliveryError)


def test_check_names_the_program(tmp_path: Path) -> None:
    """`check` says what would be run, and runs nothing."""
    command = script(tmp_path / "command", f"touch {tmp_path}/ran")
    assert look_over(made("exec", name="script", command=(command,))).startswith(f"runs {command}")
    assert look_over(made("exec", name="script", command=("sh", "-c", "exit"))).startswith("runs /")
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize(
    "keys",
    [
        {"command": ()},
        {"command": ("",)},
        {"command": "sh -c exit"},
        {"command": ("a\0b",)},
        {"command": ("a",), "env": {"A=B": "c"}},
        {"command": ("a",), "env": {"": "c"}},
        {"command": ("a",), "env": {"A": "\0"}},
    ],
)
def test_what_cannot_be_run_is_refused(keys: dict[str, Any]) -> None:
    """A command is an array of words, and a variable has a name: what the system would refuse is an error at the start."""
    with pytest.raises(ValueError, match=r"command|env"):
        made("exec", name="script", **keys)


def test_what_sinks_test_prints_is_the_result_alone(tmp_path: Path) -> None:
    """Without a daemon, too: what a sink logs is not on standard output."""
    command = script(tmp_path / "run", "echo hello")
    (tmp_path / "secret").write_text("an-app-secret-of-some-length")
    (tmp_path / "config.toml").write_text(
        f'[lark]\napp_id = "cli_0123456789abcdef"\napp_secret_file = "{tmp_path}/secret"\n'
        f'[store]\nurl = "sqlite:///{tmp_path}/events.db"\n'
        f'[[sinks]]\nname = "script"\ntype = "exec"\ncommand = ["{command}"]\n'
    )
    done = COMMANDS.run(
        *("sinks", "test", "script", "--json", "-c", str(tmp_path / "config.toml")),
        env=environment(),
        timeout=patience(60),
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["delivered"] is True, done.stdout
