"""Standard output in any encoding, and nothing foreign that acts on a terminal, shown by real processes."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from reserve_listener.intake import normalize
from reserve_listener.simulator import patience, sample_event
from reserve_listener.store import open_store
from reserve_listener.text import visible_lines
from tests.daemon_process import COMMAND, environment
from tests.helpers import append, url_of

if TYPE_CHECKING:
    from pathlib import Path

ENCODINGS = ("ascii", "gbk", "latin-1", "utf-8")
DIRTY = "omm_\x1b[2J\u202e\x9b\x7f\u2028北京é😀"
COMMANDS = (
    ("list",),
    ("list", "--json"),
    ("tail",),
    ("tail", "--json"),
    ("show", DIRTY),
    ("show", DIRTY, "--json"),
)


@pytest.fixture
async def config(tmp_path: Path) -> Path:
    """A configuration whose store holds an event with dirty ids, and an unreadable push."""
    store = await open_store(url_of(tmp_path / "events.db"), ["console"])
    envelope = sample_event(event_id=DIRTY, scope_id=DIRTY)
    envelope["event"][DIRTY] = DIRTY
    good = json.dumps(envelope).encode()
    await append(store, normalize.incoming(good, envelope, received_ms=1_700_000_000_000))
    await append(store, normalize.unreadable(b"\x1b[2J", f"not {DIRTY}", received_ms=1_700_000_001_000))
    await store.close()
    path = tmp_path / "config.toml"
    path.write_text(
        f'[lark]\napp_id = "cli_x"\napp_secret = "s3cret"\n[store]\nurl = "sqlite:///{tmp_path}/events.db"\n'
    )
    return path


def events(config: Path, *arguments: str, encoding: str) -> str:
    """What `events …` prints into a pipe of that encoding; it must succeed, and print nothing that acts."""
    done = subprocess.run(
        [*COMMAND, "events", *arguments, "-c", str(config)],
        capture_output=True,
        timeout=patience(60),
        env=environment(PYTHONIOENCODING=encoding, COLUMNS="200"),
        check=False,
    )
    assert (done.returncode, b"Traceback" in done.stderr) == (0, False), done.stderr
    printed = done.stdout.decode(encoding)
    cells = printed.replace("\t", " ")  # which divide the fields
    assert cells == visible_lines(cells)
    return printed


@pytest.mark.parametrize(
    ("arguments", "encoding"),
    [
        *((arguments, "ascii") for arguments in COMMANDS),
        *(
            (arguments, encoding)
            for arguments in (("list",), ("tail", "--json"))
            for encoding in ENCODINGS[1:]
        ),
    ],
    ids=lambda value: value if isinstance(value, str) else " ".join(value[:1] + value[-1:]),
)
def test_what_is_stored_can_be_looked_at(config: Path, arguments: tuple[str, ...], encoding: str) -> None:
    """In every encoding each command prints the event, clean; its JSON reads back as what it was."""
    printed = events(config, *arguments, encoding=encoding)
    if "--json" in arguments:
        read = json.loads(printed)
        found = read[0] if isinstance(read, list) else read
        assert (found.get("event_id") or found["id"]) == DIRTY
    else:
        assert "\\u202e" in printed


@pytest.mark.parametrize("encoding", ENCODINGS[:2])
def test_an_error_is_a_sentence_in_any_encoding(config: Path, encoding: str) -> None:
    """Standard error is as forgiving as standard output."""
    done = subprocess.run(
        [*COMMAND, "events", "show", "北京\u202e", "-c", str(config)],
        capture_output=True,
        timeout=patience(60),
        env=environment(PYTHONIOENCODING=encoding),
        check=False,
    )
    assert done.returncode == 1
    assert done.stderr.decode(encoding).startswith("error: the store has no event ")


def run_script(script: str) -> subprocess.CompletedProcess[bytes]:
    """A program of its own, to its end."""
    return subprocess.run(
        [sys.executable, "-c", script],
        capture_output=True,
        timeout=patience(60),
        env=environment(),
        check=False,
    )


def test_ctrl_c_is_never_lost() -> None:
    """A command that prints until Ctrl-C ends even when it comes where Python drops exceptions, without a word."""
    script = (
        "import signal\n"
        "from reserve_listener.cli.streams import until_interrupted\n"
        "class Dropped:\n    def __del__(self):\n        signal.raise_signal(signal.SIGINT)\n"
        "with until_interrupted():\n    print('before', flush=True)\n    Dropped()\n    print('after')\n"
    )
    done = run_script(script)
    assert (done.returncode, done.stdout, done.stderr) == (0, b"before\n", b"")


def test_an_ignored_ctrl_c_stays_ignored() -> None:
    """A script's background job starts with SIGINT ignored: Ctrl-C is for the foreground."""
    script = (
        "import signal\n"
        "from reserve_listener.cli.streams import until_interrupted\n"
        "signal.signal(signal.SIGINT, signal.SIG_IGN)\n"
        "with until_interrupted():\n    signal.raise_signal(signal.SIGINT)\n    print('after')\n"
    )
    done = run_script(script)
    assert (done.returncode, done.stdout) == (0, b"after\n")
