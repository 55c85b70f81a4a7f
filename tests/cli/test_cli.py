"""The command line, as real processes."""

from __future__ import annotations

import asyncio
import json
import re
import signal
import subprocess
import sys
from typing import TYPE_CHECKING

import httpx2
import pytest

from reserve_listener import __version__
from reserve_listener.cli import demo, stage
from reserve_listener.errors import ReserveListenerError
from reserve_listener.intake import normalize
from reserve_listener.simulator import patience, sample_event
from reserve_listener.store import open_store
from tests.daemon_process import COMMAND, environment
from tests.helpers import append, url_of

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path


def cli(*arguments: str, **extra: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*COMMAND, *arguments],
        capture_output=True,
        text=True,
        timeout=patience(60),
        env=environment(**extra),
        check=False,
    )


@pytest.fixture
async def config(tmp_path: Path) -> Path:
    """A configuration whose store holds a readable event and an unreadable push that tries to drive the terminal."""
    store = await open_store(url_of(tmp_path / "events.db"), ["console"])
    good = json.dumps(sample_event(event_id="good-1", scope_id="omm_[bold]x")).encode()
    await append(store, normalize.incoming(good, normalize.parse(good), received_ms=1_700_000_000_000))
    bad = b"\x1b[2Jnothing"
    await append(store, normalize.unreadable(bad, "not \x1b[31mJSON", received_ms=1_700_000_001_000))
    await store.close()
    path = tmp_path / "config.toml"
    path.write_text(
        f'[lark]\napp_id = "cli_x"\napp_secret = "s3cret"\n[store]\nurl = "sqlite:///{tmp_path}/events.db"\n'
    )
    return path


@pytest.mark.parametrize("arguments", [("--help",), ("run", "--help"), ("version",)])
def test_light_commands_import_nothing_heavy(arguments: tuple[str, ...]) -> None:
    """`--help` and the like start without the heavy libraries."""
    script = (
        "import sys; from reserve_listener.cli.main import app\n"
        "try:\n    app(sys.argv[1:])\nexcept SystemExit:\n    pass\n"
        "print(sorted({'lark_oapi', 'httpx2', 'structlog', 'websockets'} & set(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, *arguments],
        capture_output=True,
        text=True,
        timeout=patience(60),
        check=True,
    )
    assert done.stdout.splitlines()[-1] == "[]"


def test_check_does_not_import_the_sdk(config: Path) -> None:
    """`check` looks at the configuration without loading lark-oapi."""
    script = (
        "import sys; from reserve_listener.cli.main import app\n"
        "try:\n    app(sys.argv[1:])\nexcept SystemExit as end:\n    print('exit', end.code)\n"
        "print('lark_oapi' in sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, "check", "-c", str(config)],
        capture_output=True,
        text=True,
        timeout=patience(60),
        check=True,
    )
    assert done.stdout.splitlines()[-2:] == ["exit 0", "False"]


def test_version_says_what_it_rests_on() -> None:
    """`version --json` names the daemon's version and the SDK's."""
    versions = json.loads(cli("version", "--json").stdout)
    assert versions["reserve-listener"] == __version__
    assert set(versions) == {"reserve-listener", "lark-oapi", "python", "sqlite"}


def test_events_list_shows_readable_and_unreadable(config: Path) -> None:
    """The list has both, the unreadable one with its problem, and no control character goes out."""
    done = cli("events", "list", "-c", str(config), COLUMNS="160")
    assert done.returncode == 0, done.stderr
    assert "good-1" in done.stdout
    assert "omm_[bold]x" in done.stdout
    assert "unreadable" in done.stdout
    assert "\x1b" not in done.stdout


def test_events_list_as_json_is_an_array(config: Path) -> None:
    """`--json` prints an array, the oldest first; `--unreadable` narrows it."""
    rows = json.loads(cli("events", "list", "--json", "-c", str(config)).stdout)
    assert [row["state"] for row in rows] == ["readable", "unreadable"]
    assert rows[0]["deliveries"][0]["state"] == "pending"
    (only,) = json.loads(cli("events", "list", "--json", "--unreadable", "-c", str(config)).stdout)
    assert only["problem"] == "not \x1b[31mJSON"


def test_looking_at_the_store_needs_no_secret(config: Path) -> None:
    """The secret of a unit is the unit's alone: `events list` works without it."""
    config.write_text(config.read_text().replace('app_secret = "s3cret"', 'app_secret_file = "/nowhere"'))
    assert cli("events", "list", "-c", str(config)).returncode == 0
    nothing = cli("dead-letters", "list", "-c", str(config))
    assert (nothing.stdout, nothing.stderr) == ("", "No dead letters.\n")
    assert cli("run", "-c", str(config)).returncode == 78


def test_events_show_has_the_event_and_what_came(config: Path) -> None:
    """`events show` prints the CloudEvents object and the raw payload; an unknown id is one readable error."""
    shown = json.loads(cli("events", "show", "good-1", "--json", "-c", str(config)).stdout)
    assert shown["event"]["id"] == "good-1"
    assert shown["raw"]["header"]["event_id"] == "good-1"
    missing = cli("events", "show", "nope", "-c", str(config))
    assert missing.returncode == 1
    assert (
        missing.stderr == "error: the store has no event nope. `events list` shows the events that it has.\n"
    )


def test_events_list_without_a_store_says_what_to_do(config: Path) -> None:
    """A store that is not there yet is a sentence, not a traceback, and is not created."""
    store = config.parent / "events.db"
    for path in config.parent.glob("events.db*"):
        path.unlink()
    done = cli("events", "list", "-c", str(config))
    assert done.returncode == 1
    assert "`reserve-listener run` creates it" in done.stderr
    assert not store.exists()


def test_a_pipe_that_closes_early_is_no_traceback(config: Path) -> None:
    """`events list | head -1` ends quietly."""
    command = " ".join([*COMMAND, "events", "list", "--json", "-c", str(config), "|", "true"])
    done = subprocess.run(
        ["bash", "-c", command], capture_output=True, text=True, timeout=patience(60), check=False
    )
    assert "Traceback" not in done.stderr


def test_a_closed_standard_output_is_a_sentence(config: Path) -> None:
    """With nowhere to write to, a command says so and does not begin: the store would become its output."""
    command = " ".join([*COMMAND, "run", "-c", str(config), ">&-"])
    done = subprocess.run(
        ["bash", "-c", command], capture_output=True, text=True, timeout=patience(60), check=False
    )
    assert done.returncode == 1
    assert done.stderr == "error: standard output is closed. Redirect it instead, e.g. >/dev/null.\n"


@pytest.mark.parametrize("transport", ["long_connection", "webhook"])
def test_the_demo_ends_by_itself_with_0(transport: str) -> None:
    """`demo --events 2` shows each change in each sink, then three that nobody pushed, whichever way events come in."""
    done = cli("demo", "--events", "2", "--transport", transport)
    assert done.returncode == 0, done.stderr
    assert re.search(r"^  page      http://127\.0\.0\.1:\d+/ ", done.stdout, re.MULTILINE)
    assert done.stdout.count("→ answered 200") == 2
    assert done.stdout.count("→ found changed") == 3
    assert done.stdout.count("     ✓") == 15
    assert done.stdout.count("A 座 / 1F / ") == 5, "the daemon has asked for names"
    assert '"origin": "reconcile"' in done.stdout
    assert re.findall("reserve-listener [a-z]", done.stdout) == [], (
        "a command is printed as this one was called"
    )
    assert "All 5 changes arrived" in done.stdout
    assert done.stderr == ""


async def test_the_demos_daemon_can_be_asked_as_it_says() -> None:
    """The command that it prints works as it stands, from any folder, while the demo goes on."""
    demonstration = await asyncio.create_subprocess_exec(
        *COMMAND, "demo", "--events", "0", stdout=asyncio.subprocess.PIPE, env=environment(), cwd="/"
    )
    try:
        async with asyncio.timeout(patience(60)):
            assert demonstration.stdout is not None
            lines = [line.decode() async for line in _until(demonstration.stdout, b" status -c ")]
            answered = await asyncio.to_thread(
                subprocess.run,
                lines[-1],
                shell=True,
                capture_output=True,
                check=False,
                cwd="/",
                env=environment(),
            )
            assert answered.stdout.startswith(b"status\t"), answered.stderr
            demonstration.send_signal(signal.SIGINT)
            await demonstration.communicate()
    finally:
        if demonstration.returncode is None:
            demonstration.kill()


async def _until(stream: asyncio.StreamReader, text: bytes) -> AsyncIterator[bytes]:
    async for line in stream:
        yield line
        if text in line:
            return


async def test_the_demo_has_a_page() -> None:
    """At an address that stays when the daemon is started again."""
    async with (
        stage.set_up(stage.Transport.long_connection) as playing,
        httpx2.AsyncClient(trust_env=False) as client,
    ):
        for _ in range(2):
            async with playing.running():
                answer = await client.get(playing.page)
                assert (answer.status_code, answer.headers["content-type"]) == (
                    200,
                    "text/html; charset=utf-8",
                )


def test_the_demo_fails_when_a_sink_gets_nothing(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """With the http sink pointed at a closed port, the demo says which arrival is missing and does not succeed."""
    monkeypatch.setattr(stage, "SINKS", stage.SINKS.replace("{receiver}", "http://127.0.0.1:9"))
    monkeypatch.setattr(demo, "ARRIVAL_TIMEOUT_S", patience(2.0))
    monkeypatch.setattr(stage, "STOP_TIMEOUT_S", 5.0)
    assert asyncio.run(demo._demo(1, stage.Transport.long_connection)) is False
    shown = capsys.readouterr().out
    assert shown.count("✓ log") == shown.count("✓ file") == shown.count("✗ http") == 4
    assert "4 of 4 changes did not arrive everywhere" in shown


def test_the_demo_says_that_the_daemon_does_not_ask(monkeypatch: pytest.MonkeyPatch) -> None:
    """A daemon that never asks for limits has nothing to find out: the demo ends with an error and the log's end."""
    monkeypatch.setattr(stage, "SINKS", "\n[rooms]\nreconcile = false\n" + stage.SINKS)
    monkeypatch.setattr(stage, "ASKED_TIMEOUT_S", 0.5)
    with pytest.raises(ReserveListenerError, match=r"did not ask[^$]+connection\.connected"):
        asyncio.run(demo._demo(1, stage.Transport.long_connection))
