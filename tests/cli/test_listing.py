"""What commands print: for a person at a terminal, and for a program at a pipe."""

from __future__ import annotations

import json
import re
import subprocess
from typing import TYPE_CHECKING

import pytest

from reserve_listener.cli.listing import short_id
from reserve_listener.intake import normalize
from reserve_listener.intake.complete import completing
from reserve_listener.simulator import patience, sample_event
from reserve_listener.store import open_store
from tests.commands import COMMANDS
from tests.daemon_process import COMMAND, environment
from tests.helpers import append, url_of
from tests.terminal import Terminal, at_terminal

if TYPE_CHECKING:
    from pathlib import Path

EVENT = "5e3702a84e847582be8db7fb73283c02"
OTHER = "5e3702a84e999999999999999999999f"
SCOPE = "omm_3c5dd7e09bac0c1758fcf9511bd1a771"
RECEIVED_MS = 1_790_000_000_123
RECEIVED = "2026-09-21T14:13:20.123Z"
SINK = "a-sink-with-a-name-of-a-certain-length"


@pytest.fixture
async def store(tmp_path: Path) -> dict[str, str]:
    """The environment of commands whose store holds two events and a push that tries to drive the terminal."""
    opened = await open_store(
        url_of(tmp_path / "state/events.db"), [SINK, "other"], complete=completing("en")
    )
    for event_id, scope in ((EVENT, SCOPE), (OTHER, "omm_[bold]\t会议室\u202e")):
        raw = json.dumps(sample_event(event_id=event_id, scope_id=scope)).encode()
        await append(opened, normalize.incoming(raw, normalize.parse(raw), received_ms=RECEIVED_MS))
    await append(opened, normalize.unreadable(b"\x1b[2J", "not \x1b[31mJSON\n", received_ms=RECEIVED_MS))
    await opened.close()
    return {"STATE_DIRECTORY": str(tmp_path / "state")}


def piped(folder: Path, *arguments: str, **extra: str) -> subprocess.CompletedProcess[str]:
    return COMMANDS.run(*arguments, cwd=folder, timeout=patience(60), env=environment(**extra))


def test_a_pipe_gets_fields(tmp_path: Path, store: dict[str, str]) -> None:
    """No header, a line an event, six fields divided by tabs, ids whole, times in UTC whatever the zone."""
    done = piped(tmp_path, "events", "list", TZ="Asia/Shanghai", **store)
    assert (done.returncode, done.stderr) == (0, "")
    rows = [line.split("\t") for line in done.stdout.splitlines()]
    assert [len(row) for row in rows] == [6, 6, 6]
    assert rows[0][:5] == [RECEIVED, EVENT, "room", SCOPE, f"{SINK} pending, other pending"]
    assert rows[1][3] == r"omm_[bold]\t会议室\u202e"
    assert (rows[2][2], rows[2][4]) == ("unreadable", r"not \x1b[31mJSON\n")


@pytest.mark.parametrize("width", [200, 80, 40])
def test_a_terminal_gets_a_table_that_fits(tmp_path: Path, store: dict[str, str], width: int) -> None:
    """A header, short ids, local times with their zone, and no line wider than the terminal."""
    code, text = at_terminal("events", "list", cwd=tmp_path, width=width, env=store | {"TZ": "Asia/Shanghai"})
    assert code == 0
    lines = text.splitlines()
    assert all(sum(1 + (ord(c) > 0x2E80) for c in line) <= width for line in lines), text
    assert EVENT not in text
    if width >= 80:
        assert lines[0].split()[0] == "received"
        assert f"{EVENT[:10]}…" in text
        assert "omm_3c5dd7e09b…" in text
        assert "2026-09-21 22:13:20 CST" in text


@pytest.mark.parametrize("width", [200, 100, 80, 60, 40, 20])
def test_a_table_loses_nothing(tmp_path: Path, store: dict[str, str], width: int) -> None:
    """Whatever its width, each letter of a cell is there: a long last one stands beneath its row."""
    code, text = at_terminal("events", "list", cwd=tmp_path, width=width, env=store)
    assert code == 0
    limits = piped(tmp_path, "events", "list", **store).stdout.splitlines()[0].split("\t")[-1]
    assert text.replace("\n", "").replace(" ", "").count(limits.replace(" ", "")) == 2
    assert (f"\n    {limits[:30]}" in text) == (width in {40, 60, 80, 100})


@pytest.mark.parametrize("extra", [{"NO_COLOR": "1"}, {"TERM": "dumb"}], ids=str)
def test_no_colour_where_none_is_wanted(tmp_path: Path, store: dict[str, str], extra: dict[str, str]) -> None:
    """NO_COLOR and TERM=dumb leave a table without a single escape; else the header is bold."""
    with Terminal("events", "list", cwd=tmp_path, env=store | extra) as terminal:
        assert terminal.ended() == 0
        assert "\x1b" not in terminal.raw
        assert "received" in terminal.text
    with Terminal("events", "list", cwd=tmp_path, env=store) as terminal:
        assert terminal.ended() == 0
        assert "\x1b[1m" in terminal.raw


def test_json_is_an_array_an_object_or_a_line(tmp_path: Path, store: dict[str, str]) -> None:
    """`list --json` is one array, `show --json` one object, also at a terminal."""
    listed = json.loads(piped(tmp_path, "events", "list", "--json", **store).stdout)
    assert [row["event_id"] for row in listed][:2] == [EVENT, OTHER]
    shown = json.loads(piped(tmp_path, "events", "show", EVENT, "--json", **store).stdout)
    assert (shown["event_id"], shown["event"]["id"], shown["raw"]["header"]["event_id"]) == (EVENT,) * 3
    code, text = at_terminal("events", "show", EVENT, "--json", cwd=tmp_path, env=store)
    assert code == 0
    assert json.loads(text) == shown


def test_show_for_persons_and_for_pipes(tmp_path: Path, store: dict[str, str]) -> None:
    """A terminal gets names, local times and JSON to read; a pipe fields, with the JSON on one line."""
    code, text = at_terminal("events", "show", EVENT, cwd=tmp_path, env=store)
    assert code == 0
    assert re.search(r"^received +2026-09-21 14:13:20 UTC$", text, re.MULTILINE)
    assert "What sinks receive:" in text
    fields = dict(
        line.split("\t", 1) for line in piped(tmp_path, "events", "show", EVENT, **store).stdout.splitlines()
    )
    assert fields["received"] == RECEIVED
    assert json.loads(fields["event"])["id"] == EVENT


def test_status_for_persons_and_for_pipes(tmp_path: Path, store: dict[str, str]) -> None:
    """A terminal gets local times, and hints below their reasons; a pipe a name for each line, and times in UTC."""
    code, text = at_terminal("status", cwd=tmp_path, env=store)
    assert code == 3
    assert re.search(r"^last event +2026-09-21 14:13:20 UTC$", text, re.MULTILINE)
    assert re.search(r"^ +→ .*reserve-listener run", text, re.MULTILINE)
    done = piped(tmp_path, "status", **store)
    fields = dict(line.split("\t", 1) for line in done.stdout.splitlines())
    assert (done.returncode, fields["status"], fields["last event"]) == (3, "stopped", RECEIVED)
    assert "reserve-listener run" in fields["hint"]


def test_check_for_persons_and_for_pipes(tmp_path: Path, store: dict[str, str]) -> None:
    """A terminal gets columns, a pipe three fields a line: how it is, what was looked at, what was found."""
    (tmp_path / "config.toml").write_text('[lark]\napp_id = "cli_1"\napp_secret = "0123456789"\n')
    code, text = at_terminal("check", cwd=tmp_path, env=store | {"PYTHONIOENCODING": "utf-8"})
    assert code == 0
    assert re.search(r"^✓ store {4,}\S+events.db: exists", text, re.MULTILINE)
    rows = [line.split("\t") for line in piped(tmp_path, "check", **store).stdout.splitlines()]
    assert rows[0] == ["ok", "configuration", "config.toml"]
    assert {len(row) for row in rows} == {3}


def test_the_beginning_of_an_id_is_enough(tmp_path: Path, store: dict[str, str]) -> None:
    """An unambiguous beginning is taken, as a table shows it too; one that several ids have is refused with them."""
    for start in (EVENT[:12], f"{EVENT[:12]}…", EVENT):
        shown = json.loads(piped(tmp_path, "events", "show", start, "--json", **store).stdout)
        assert shown["event_id"] == EVENT
    for arguments in (
        ("events", "show", "5e37"),
        ("events", "list", "--event-id", "5e37"),
        ("events", "replay", "5e37"),
    ):
        refused = piped(tmp_path, *arguments, **store)
        assert refused.returncode == 1
        assert EVENT in refused.stderr
        assert OTHER in refused.stderr
    scoped = piped(tmp_path, "events", "list", "--scope", "omm_3c", **store).stdout
    assert [line.split("\t")[1] for line in scoped.splitlines()] == [EVENT]


@pytest.mark.parametrize(
    ("options", "count"),
    [
        (("--since", "2026-09-21T14:13:20Z"), 3),
        (("--since", "2026-09-21T14:13:21Z"), 0),
        (("--until", "2026-09-21T14:13:21Z"), 3),
        (("--until", "2026-09-21T14:13:20Z"), 0),
        (("--since", "2026-09-21T22:13:20"), 3),
        (("--since", "2026-09-21T22:13:21"), 0),
        (("--until", "45s"), 3),
    ],
)
def test_since_and_until(tmp_path: Path, store: dict[str, str], options: tuple[str, str], count: int) -> None:
    """From a moment on, or before one; RFC 3339, local time without a zone (here UTC+8), or a span back from now."""
    zone = {"TZ": "Asia/Shanghai"}
    done = piped(tmp_path, "events", "list", *options, "--json", **(store | zone))
    assert len(json.loads(done.stdout)) == count


def test_a_wrong_time_is_usage(tmp_path: Path, store: dict[str, str]) -> None:
    """A time that is none is exit 2, and the option is named."""
    done = piped(tmp_path, "events", "list", "--until", "tomorrow", **store)
    assert done.returncode == 2
    assert "--until" in done.stderr


@pytest.mark.parametrize("command", ["events list", "events tail", "sinks list", "events list --json"])
def test_a_reader_that_leaves_is_no_error_message(
    tmp_path: Path, store: dict[str, str], command: str
) -> None:
    """`… | head -0` ends quietly: nothing on standard error."""
    line = " ".join([*COMMAND, *command.split(), "|", "head", "-0"])
    done = subprocess.run(
        ["bash", "-c", line],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=patience(60),
        env=environment(**store),
        check=False,
    )
    assert done.stderr == ""


@pytest.mark.parametrize(
    ("text", "short"),
    [
        (EVENT, "5e3702a84e…"),
        (SCOPE, "omm_3c5dd7e09b…"),
        ("reconcile-0123456789abcdef", "reconcile-0123456789…"),
        ("good-1", "good-1"),
        ("0123456789ab", "0123456789ab"),
    ],
)
def test_an_id_keeps_its_prefix(text: str, short: str) -> None:
    """What tells ids apart comes after the prefix that they share."""
    assert short_id(text) == short
