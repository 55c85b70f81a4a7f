"""What forks commands for the tests gives them what a process of its own has."""

from __future__ import annotations

import asyncio
import os
import resource
import signal
from typing import TYPE_CHECKING

import psutil
import pytest

from reserve_listener.simulator import patience
from tests.commands import COMMANDS
from tests.daemon_process import environment, until

if TYPE_CHECKING:
    from pathlib import Path


def test_folder_environment_and_exit_code_are_the_commands(tmp_path: Path) -> None:
    """It reads the file that stands in its folder, and what was in the environment before is gone; errors are apart."""
    (tmp_path / "config.toml").write_text('[lark]\napp_id = "cli_x"\napp_secret_file = "secret"\n')
    env = environment(RESERVE_LISTENER_LARK__APP_ID="cli_y")
    shown = COMMANDS.run("config", "show", "-c", "config.toml", cwd=tmp_path, env=env, timeout=patience(60))
    assert "cli_y" in shown.stdout
    env = environment()
    shown = COMMANDS.run("config", "show", "-c", "config.toml", cwd=tmp_path, env=env, timeout=patience(60))
    assert "cli_x" in shown.stdout
    absent = COMMANDS.run("status", "-c", "nothing.toml", cwd=tmp_path, env=env, timeout=patience(60))
    assert (absent.returncode, absent.stdout) == (78, "")
    assert absent.stderr.startswith("error: nothing.toml: ")


def test_a_command_that_does_not_end_is_killed() -> None:
    """At the time that its caller gave it; the next one runs."""
    with pytest.raises(TimeoutError):
        COMMANDS.run("simulate", env=environment(), timeout=0.5)
    assert COMMANDS.run("version", env=environment(), timeout=patience(60)).returncode == 0


@pytest.mark.parametrize("anew", [False, True], ids=["forked", "started anew"])
async def test_a_command_that_runs_on_is_signalled_and_waited_for(tmp_path: Path, *, anew: bool) -> None:
    """A fork has its session, its limits and its output as one that is started has, stands still when told to, and ends as killed."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2**40, hard))
    try:
        with (tmp_path / "out").open("wb") as out:
            process = await COMMANDS.start(
                *("simulate", "--port", "0", "--rate", "0"),
                env=environment(),
                streams=(out.fileno(), out.fileno()),
                timeout=patience(60),
                session=True,
                anew=anew,
            )
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    try:
        assert os.getsid(process.pid) == process.pid
        assert resource.prlimit(process.pid, resource.RLIMIT_FSIZE) == (2**40, hard)
        await until(lambda: b"http://" in (tmp_path / "out").read_bytes())
        process.send_signal(signal.SIGSTOP)
        await until(lambda: psutil.Process(process.pid).status() == psutil.STATUS_STOPPED)
    finally:
        process.kill()
        code = await process.wait()
    assert (code, process.returncode) == (-signal.SIGKILL, -signal.SIGKILL)
    with pytest.raises(ProcessLookupError):
        process.send_signal(signal.SIGTERM)


async def test_a_command_that_ends_by_itself_has_its_exit_code(tmp_path: Path) -> None:
    """Also when several wait for it."""
    with (tmp_path / "out").open("wb") as out:
        streams = out.fileno(), out.fileno()
        command = "run", "-c", str(tmp_path / "nothing.toml")
        process = await COMMANDS.start(*command, env=environment(), streams=streams, timeout=patience(60))
    assert set(await asyncio.gather(process.wait(), process.wait())) == {78}
    assert b"nothing.toml" in (tmp_path / "out").read_bytes()
