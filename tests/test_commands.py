"""What forks commands for the tests gives them what a process of its own has."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from reserve_listener.simulator import patience
from tests.commands import COMMANDS
from tests.daemon_process import environment

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
