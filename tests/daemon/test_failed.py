"""A daemon that ends by itself says so in its log's last line: with what code, why, and what to do."""

from __future__ import annotations

import asyncio
import json
import os
import pty
import sys
from typing import TYPE_CHECKING

import pytest

from reserve_listener.simulator import patience
from tests.daemon_process import COMMAND, Daemon, environment, running, write_config

if TYPE_CHECKING:
    from pathlib import Path

    from reserve_listener.simulator import HttpServer, Simulator


async def failure(folder: Path, config: Path, code: int) -> dict[str, object]:
    """The last line of a daemon that ended with this code; the sentence on stderr is there as well."""
    daemon = Daemon(folder, config)
    await daemon.start()
    assert await daemon.ended() == code
    last = daemon.log()[-1]
    assert (last["event"], last["level"], last["exit_code"]) == ("daemon.failed", "error", code)
    assert daemon.stderr() == f"error: {last['reason']}\n"
    assert len(last["hint"]) > 20
    assert "exception" not in last
    return last


async def test_a_wrong_app_is_77(tmp_path: Path, platform: Simulator, server: HttpServer) -> None:
    """Refused at the first start: the line comes after `daemon.stopped` and names what the platform said."""
    platform.faults.endpoint_code = 514
    config = write_config(tmp_path, platform, server.url)
    last = await failure(tmp_path, config, 77)
    assert "code 514" in str(last["reason"])
    assert "lark.app_secret" in str(last["hint"])


async def test_a_store_in_use_is_75(tmp_path: Path, platform: Simulator, server: HttpServer) -> None:
    """A second daemon on the same store says which process holds it."""
    config = write_config(tmp_path, platform, server.url)
    second = tmp_path / "second"
    second.mkdir()
    async with running(tmp_path, config) as daemon:
        await platform.connected(20)
        last = await failure(second, config, 75)
        assert f"process {daemon.process.pid}" in str(last["reason"])
        assert await daemon.stop() == 0
    assert daemon.log()[-1]["event"] == "daemon.stopped"


@pytest.mark.parametrize(
    "text",
    ["[lark\n", '[lark]\napp_id = "cli_x"\n', '[lark]\napp_id = "cli_x"\nnonsense = 1\n[log]\nlevel = 3\n'],
)
async def test_a_wrong_configuration_is_78(tmp_path: Path, text: str) -> None:
    """Before anything else is known the line is written all the same, with every mistake that was found."""
    config = tmp_path / "config.toml"
    config.write_text(text)
    last = await failure(tmp_path, config, 78)
    assert "config.toml" in str(last["reason"])
    assert "reserve-listener check" in str(last["hint"])


async def test_a_store_that_is_none_is_78_and_one_that_cannot_be_made_1(tmp_path: Path) -> None:
    """A folder in the store's place is a wrong configuration; a file in its folder's place is trouble with the disk."""
    (tmp_path / "folder").mkdir()
    (tmp_path / "file").touch()
    config = tmp_path / "config.toml"
    for store, code in (("folder", 78), ("file/events.db", 1)):
        config.write_text(
            f'[lark]\napp_id = "cli_x"\napp_secret = "s3cret"\n[store]\nurl = "sqlite:///{tmp_path}/{store}"\n'
        )
        assert str(tmp_path / store) in str((await failure(tmp_path, config, code))["reason"])
        (tmp_path / "stderr.txt").unlink()


async def test_the_journal_reads_its_priority(tmp_path: Path) -> None:
    """On the journal's stream the line begins with <3>, which `journalctl -p err` finds."""
    config = tmp_path / "config.toml"
    config.write_text("[lark\n")
    with (tmp_path / "journal").open("wb") as journal:
        found = os.fstat(journal.fileno())
        process = await asyncio.create_subprocess_exec(
            *COMMAND, "run", "-c", str(config),
            stdout=journal, stderr=asyncio.subprocess.PIPE,
            env=environment(JOURNAL_STREAM=f"{found.st_dev}:{found.st_ino}"),
        )  # fmt: skip
        await asyncio.wait_for(process.communicate(), patience(60))
    (line,) = (tmp_path / "journal").read_text().splitlines()
    assert line.startswith("<3>{")
    assert json.loads(line[3:])["exit_code"] == 78


async def test_on_a_terminal_the_sentence_stays(tmp_path: Path) -> None:
    """Who starts it by hand reads the sentence last, and the line before it in words."""
    config = tmp_path / "config.toml"
    config.write_text("[lark\n")
    leader, follower = pty.openpty()
    process = await asyncio.create_subprocess_exec(
        *COMMAND, "run", "-c", str(config), stdout=follower, stderr=follower, env=environment(TERM="dumb")
    )
    os.close(follower)
    await asyncio.wait_for(process.wait(), patience(60))
    shown = os.read(leader, 10_000).decode()
    os.close(leader)
    assert "daemon.failed" in shown
    assert shown.splitlines()[-1].startswith(f"error: {config}: not valid TOML")


async def test_an_interrupted_start_is_said(tmp_path: Path) -> None:
    """Ctrl-C before the daemon can hear it is no traceback."""
    config = tmp_path / "config.toml"
    config.write_text("[lark]\n")
    script = (
        "import signal, sys\n"
        "import reserve_listener.config as config\n"
        "config.load = lambda *_, **__: signal.raise_signal(signal.SIGINT)\n"
        "from reserve_listener.cli.main import main\n"
        "sys.argv[1:] = ['run', '-c', sys.argv[1]]\nmain()\n"
    )
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", script, str(config),
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE, env=environment(),
    )  # fmt: skip
    out, err = await asyncio.wait_for(process.communicate(), patience(60))
    assert (process.returncode, err) == (1, b"error: interrupted while starting.\n")
    assert json.loads(out.splitlines()[-1])["event"] == "daemon.failed"


async def test_a_port_that_is_taken_is_said(tmp_path: Path, server: HttpServer) -> None:
    """What a running part meets ends the daemon with 1 and the same line."""
    address = server.url.removeprefix("http://")
    config = tmp_path / "config.toml"
    config.write_text(
        f'[lark]\napp_id = "cli_x"\ntransport = "webhook"\n[webhook]\nlisten = "{address}"\n'
        f'verification_token = "t0ken-t0ken"\n[store]\nurl = "sqlite:///{tmp_path}/events.db"\n'
    )
    assert "cannot listen" in str((await failure(tmp_path, config, 1))["reason"])
