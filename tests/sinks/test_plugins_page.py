"""docs/plugins.md is followed to the letter: its package is built, installed beside the daemon, tested and used."""

from __future__ import annotations

import asyncio
import json
import os
import re
import subprocess
import sys
import sysconfig
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from reserve_listener.simulator import Simulator, patience, sample_event
from tests import daemon_process
from tests.daemon_process import running, until, write_config

if TYPE_CHECKING:
    from reserve_listener.simulator import HttpServer

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs/plugins.md").read_text(encoding="utf-8")
TOKEN = "d1splay-token-value"


def block(language: str, within: str) -> str:
    """The page's only block of code that holds this."""
    blocks = re.findall(rf"^```{language}\n(.*?)^```", PAGE, re.DOTALL | re.MULTILINE)
    (found,) = (one for one in blocks if within in one)
    return str(found)


def run(*command: str | Path, cwd: Path | None = None) -> str:
    """What a command says; it must end well."""
    done = subprocess.run(
        [str(word) for word in command],
        cwd=cwd,
        capture_output=True,
        text=True,
        timeout=patience(60),
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


def contents(folder: Path) -> bytes:
    """All that is kept: store, log and files; the token's own file has no ending."""
    return b"".join(path.read_bytes() for path in folder.glob("*.*") if path.is_file())


def break_it(folder: Path) -> None:
    """The installed module needs what is not there."""
    (module,) = folder.glob("venv/lib/*/site-packages/reserve_listener_lines.py")
    module.write_text("import lines_client\n" + module.read_text())


@pytest.fixture
def package(tmp_path: Path) -> Path:
    """The files of the page's example."""
    folder = tmp_path / "reserve-listener-lines"
    folder.mkdir()
    for name, text in re.findall(r"^`([\w.]+)`:\n\n```\w+\n(.*?)^```", PAGE, re.DOTALL | re.MULTILINE):
        (folder / name).write_text(text, encoding="utf-8")
    return folder


@pytest.fixture
def python(package: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The interpreter of an environment in which the package is installed; the daemon comes from this checkout.

    The page's paths are relative to the working directory.
    """
    monkeypatch.chdir(tmp_path)
    pip = (sys.executable, "-m", "pip", "--disable-pip-version-check")
    run(*pip, "wheel", "--no-deps", "--no-build-isolation", "--no-index", "-w", tmp_path, package)
    (wheel,) = tmp_path.glob("*.whl")
    run(sys.executable, "-m", "venv", "--without-pip", tmp_path / "venv")
    python = tmp_path / "venv/bin/python"
    run(*pip, "--python", python, "install", "--no-deps", "--no-index", wheel)
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join((str(ROOT), sysconfig.get_path("purelib"))))
    monkeypatch.setattr(daemon_process, "COMMAND", (str(python), "-m", "reserve_listener"))
    return python


async def test_the_page_makes_a_sink_that_works(
    package: Path, python: Path, tmp_path: Path, platform: Simulator, server: HttpServer
) -> None:
    """Its own tests pass; `check`, `sinks test` and the daemon know it; an event arrives, and its token shows nowhere."""
    told = await asyncio.to_thread(run, python, "-m", "pytest", "-q", "test_lines.py", cwd=package)
    assert re.search(r"^8 passed", told, re.MULTILINE), told
    arrived: list[tuple[str, str]] = []

    async def display(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        token, event = await reader.readline(), await reader.readline()
        arrived.append((token.decode().strip(), json.loads(event)["id"]))
        writer.write(b"ok\n")
        await writer.drain()
        writer.close()

    listening = await asyncio.start_server(display, "127.0.0.1", 0)
    (tmp_path / "display_token").write_text(TOKEN)
    port = listening.sockets[0].getsockname()[1]
    more = block("toml", 'type = "lines"').replace("display.corp", "127.0.0.1").replace("7070", str(port))
    config = write_config(tmp_path, platform, server.url, more=more)
    async with listening, running(tmp_path, config, "--log-level", "debug") as daemon:
        await platform.connected(20)
        assert await platform.push(sample_event(event_id="one")).answered() == 200
        await until(lambda: daemon.pending() == 0)
        assert arrived == [(TOKEN, "one")]
        told = (await asyncio.to_thread(daemon_process.ask, config, "sinks", "test", "display")).decode()
        assert told.startswith("display accepted the event test-")
        assert await daemon.stop() == 0
        checked = (await asyncio.to_thread(daemon_process.ask, config, "check")).decode()
        assert re.search(rf'^ok\tsink "display"\t127.0.0.1:{port}, with a token', checked, re.MULTILINE), (
            checked
        )
        tried = (await asyncio.to_thread(daemon_process.ask, config, "sinks", "test", "display")).decode()
        assert tried.startswith("display accepted the event test-")
        shown = (await asyncio.to_thread(daemon_process.ask, config, "config", "show")).decode()
        assert "timeout = 10  # default" in shown
    assert [token for token, _ in arrived] == [TOKEN] * 3
    await asyncio.to_thread(break_it, tmp_path)
    broken = (await asyncio.to_thread(daemon_process.ask, config, "check")).decode()
    assert block("text", "lines_client").strip().partition(": sinks[0] ")[2] in broken
    kept = await asyncio.to_thread(contents, tmp_path)
    assert b"daemon.stopped" in kept
    assert TOKEN.encode() not in kept + f"{told}{checked}{tried}{shown}".encode()
