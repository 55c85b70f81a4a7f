"""What commands say of rooms and levels: their history, their limits now and then, and a table for spreadsheets."""

from __future__ import annotations

import csv
import io
import json
import re
import sqlite3
import subprocess
from contextlib import closing
from datetime import datetime
from typing import TYPE_CHECKING, Any

import pytest

from reserve_listener.intake import normalize
from reserve_listener.intake.changes import FIELDS
from reserve_listener.intake.complete import completing
from reserve_listener.intake.terms import TERMS
from reserve_listener.simulator import patience, sample_event
from reserve_listener.store import open_store
from tests.commands import COMMANDS
from tests.daemon_process import environment
from tests.helpers import append, url_of
from tests.terminal import Terminal, at_terminal

if TYPE_CHECKING:
    from pathlib import Path

ROOM = "omm_3c5dd7e09bac0c1758fcf9511bd1a771"
OTHER = "omm_3c5dd7e09b99999999999999999999ff"
ADA = {"user_id": {"open_id": "ou_ada", "union_id": "on_ada"}}
APPROVED = {"approval_switch": 1, "approval_condition": 1, "meeting_duration": 1, "approvers": [ADA]}
NOON_MS = 1_790_000_000_000
"""2026-09-21T14:13:20Z."""


def hours(number: int) -> dict[str, Any]:
    return {"time_switch": 1, "days_in_advance": 30, "opening_hour": "27900", "max_duration": number}


EVENTS = [
    ("e1", ROOM, 0, {"time_config": hours(24)}),
    ("e2", ROOM, 60_000, {"time_config": hours(2), "approve_config": APPROVED}),
    ("e3", ROOM, 30_000, {"time_config": hours(8)}),
    ("e4", ROOM, 120_000, {"time_config": hours(2), "approve_config": APPROVED}),
    ("e5", "=evil()\t\x1b[31m", 0, {"time_config": hours(3), "quiet": {"from": 22}}),
]


@pytest.fixture
async def store(tmp_path: Path) -> dict[str, str]:
    """The environment of commands whose store has heard of two rooms; one push of them came late."""
    opened = await open_store(url_of(tmp_path / "state/events.db"), [], complete=completing("zh"))
    for event_id, scope, later_ms, sections in EVENTS:
        envelope = sample_event(event_id=event_id, scope_id=scope, create_time_ms=NOON_MS + later_ms)
        envelope["event"] |= sections
        raw = json.dumps(envelope).encode()
        received_ms = NOON_MS + 1_000 * len(event_id)
        await append(opened, normalize.incoming(raw, normalize.parse(raw), received_ms=received_ms))
    await opened.close()
    return {"STATE_DIRECTORY": str(tmp_path / "state"), "RESERVE_LISTENER_LARK__LANGUAGE": "en"}


def piped(folder: Path, *arguments: str, **extra: str) -> subprocess.CompletedProcess[bytes]:
    done = COMMANDS.run(*arguments, cwd=folder, timeout=patience(60), env=environment(**extra))
    return subprocess.CompletedProcess(arguments, done.returncode, done.stdout.encode(), done.stderr.encode())


def answered(folder: Path, *arguments: str, **extra: str) -> Any:
    done = piped(folder, *arguments, "--json", **extra)
    assert (done.returncode, done.stderr) == (0, b"")
    return json.loads(done.stdout)


def test_history_as_json(tmp_path: Path, store: dict[str, str]) -> None:
    """An array, the newest first; a late push has no revision and no changes; the sentences are in our language."""
    rows = answered(tmp_path, "history", ROOM[:16], **store)
    assert [(row["event_id"], row["revision"], row["superseded"]) for row in rows] == [
        ("e4", 3, False),
        ("e3", None, True),
        ("e2", 2, False),
        ("e1", 1, False),
    ]
    assert rows[2] == {
        "event_id": "e2",
        "time": "2026-09-21T14:14:20.000Z",
        "received": "2026-09-21T14:13:22.000Z",
        "scope_id": ROOM,
        "scope_type": "room",
        "scope_name": None,
        "revision": 2,
        "changes": [
            {"path": "approve_config.approval_switch", "before": False, "after": True},
            {"path": "approve_config.approval_condition", "before": "all", "after": "conditional"},
            {"path": "approve_config.meeting_duration", "before": 2, "after": 1},
            {"path": "approve_config.approvers", "added": [ADA["user_id"]], "removed": []},
            {"path": "time_config.max_duration", "before": 24, "after": 2},
        ],
        "summary": "approval now required (over 1 h); 1 approver added; at most 24 h → 2 h per booking",
        "superseded": False,
        "origin": None,
    }
    assert (rows[0]["changes"], rows[0]["summary"]) == ([], "no change")
    assert (rows[1]["changes"], rows[3]["changes"]) == (None, None)


def test_history_in_the_other_language(tmp_path: Path, store: dict[str, str]) -> None:
    """What was stored in one language is told in the one that is configured now."""
    rows = answered(tmp_path, "history", ROOM, **store | {"RESERVE_LISTENER_LARK__LANGUAGE": "zh"})
    told = re.split("[\uff08-\uff1b]", rows[2]["summary"])  # at full-width brackets and semicolons
    assert [text for text in told if text] == [
        "改为需要审批",
        "超过 1 小时",
        "审批人新增 1 人",
        "单次可预定时长上限 24 → 2 小时",
    ]


def test_history_in_a_pipe(tmp_path: Path, store: dict[str, str]) -> None:
    """Four fields a line; `-n` takes the newest."""
    done = piped(tmp_path, "history", ROOM, "-n", "2", **store)
    lines = [line.split("\t") for line in done.stdout.decode().splitlines()]
    assert lines[0] == ["2026-09-21T14:15:20.000Z", "3", "e4", "no change"]
    assert lines[1][:3] == ["2026-09-21T14:13:50.000Z", "late", "e3"]
    assert len(lines) == 2


def test_history_at_a_terminal(tmp_path: Path, store: dict[str, str]) -> None:
    """Each value before and after, by the console's name; what was is red and what is green, unless not wanted."""
    code, text = at_terminal("history", ROOM, cwd=tmp_path, width=120, env=store | {"NO_COLOR": "1"})
    assert code == 0
    assert "2026-09-21 14:14:20 UTC #2  approval now required (over 1 h); 1 approver added;" in text
    assert "    Approval: not required → required" in text
    assert "    Approvers: + ou_ada" in text
    assert "    Longest booking (hours): 24 → 2" in text
    assert "(late, superseded)" in text
    with Terminal("history", ROOM, cwd=tmp_path, width=120, env=store) as terminal:
        assert terminal.ended() == 0
        assert "Longest booking (hours): \x1b[31m24\x1b[0m → \x1b[32m2\x1b[0m" in terminal.raw


def test_a_scope_that_is_not_known_or_not_clear(tmp_path: Path, store: dict[str, str]) -> None:
    """An error that says what there is; nothing in the time asked for is none."""
    for arguments in (("history", "omm_x"), ("scopes", "show", "omm_x")):
        done = piped(tmp_path, *arguments, **store)
        assert (done.returncode, done.stdout) == (1, b"")
        assert b"nothing is known of omm_x. `scopes list` shows" in done.stderr
    done = piped(tmp_path, "history", ROOM, "--until", "2020-01-01", **store)
    assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"Nothing in that time.\n")


def test_scopes_list(tmp_path: Path, store: dict[str, str]) -> None:
    """Each room once, with its limits now, in words."""
    rows = answered(tmp_path, "scopes", "list", **store)
    assert [row["scope_id"] for row in rows] == ["=evil()\t\x1b[31m", ROOM]
    assert rows[1] == {
        "scope_id": ROOM,
        "scope_type": "room",
        "tenant_key": "70f0c2a95b3d4e18",
        "name": None,
        "path": None,
        "revision": 3,
        "time": "2026-09-21T14:15:20.000Z",
        "summary": "bookings over 1 h need approval; up to 30 days ahead, a new day opens for booking at 07:45,"
        " at most 2 h per booking; all members may book",
    }


def test_scopes_show_now_and_then(tmp_path: Path, store: dict[str, str]) -> None:
    """The configuration itself; `--at`: what was known at that time, which a late push does not change."""
    now = answered(tmp_path, "scopes", "show", ROOM, **store)
    then = answered(tmp_path, "scopes", "show", ROOM, "--at", "2026-09-21T14:14:00Z", **store)
    assert (now["revision"], now["config"]["time_config"]["max_duration"]) == (3, 2)
    assert (then["revision"], then["config"]["time_config"]["max_duration"]) == (1, 24)
    assert then["config"]["approve_config"]["approval_switch"] is False
    done = piped(tmp_path, "scopes", "show", ROOM, "--at", "2026-09-01", **store)
    assert done.returncode == 1
    assert b"its history begins later" in done.stderr


def test_scopes_show_for_persons_and_for_pipes(tmp_path: Path, store: dict[str, str]) -> None:
    """Names of the console and times as people read them; paths and whole times for programs; unknown keys, too."""
    code, text = at_terminal("scopes", "show", ROOM, cwd=tmp_path, width=120, env=store)
    assert code == 0
    assert "A new day opens at          07:45" in text
    done = piped(tmp_path, "scopes", "show", "=evil()", **store)
    fields = dict(line.split("\t", 1) for line in done.stdout.decode().splitlines())
    assert (fields["scope_id"], fields["time_config.max_duration"]) == (r"=evil()\t\x1b[31m", "3")
    assert fields["quiet"] == '{"from": 22}'


@pytest.mark.parametrize("language", ["en", "zh"])
def test_scopes_export(tmp_path: Path, store: dict[str, str], language: str) -> None:
    """UTF-8 with its mark, whatever the locale; a row each; no cell is a formula."""
    extra = store | {"RESERVE_LISTENER_LARK__LANGUAGE": language, "PYTHONIOENCODING": "latin-1"}
    done = piped(tmp_path, "scopes", "export", "--csv", **extra)
    assert (done.returncode, done.stderr) == (0, b"")
    head, evil, room = csv.reader(io.StringIO(done.stdout.decode("utf-8-sig"), newline=""))
    assert done.stdout.startswith(b"\xef\xbb\xbfID,")
    assert len(head) == len(evil) == len(room) == len(set(head))
    row = dict(zip(head, room, strict=True))
    if language == "en":
        assert (row["Approval"], row["Approvers"], row["A new day opens at"]) == (
            "required",
            "ou_ada",
            "07:45",
        )
    else:
        assert (row["预定审批"], row["审批人"], row["开放当天可开始预定"]) == ("需要审批", "ou_ada", "07:45")
    assert evil[0] == r"'=evil()\t\x1b[31m"
    assert datetime.fromisoformat(room[-1])


def test_export_needs_a_form(tmp_path: Path, store: dict[str, str]) -> None:
    """Others may come."""
    assert piped(tmp_path, "scopes", "export", **store).returncode == 2


def test_every_limit_has_a_name() -> None:
    """The table has all that can change, in the order in which it is told, each with a name of its own."""
    assert [term.path for term in TERMS] == [
        f"{section}.{key}" for section in FIELDS for key in FIELDS[section]
    ]
    for language in ("en", "zh"):
        assert len({term.names[language] for term in TERMS}) == len(TERMS)


def test_without_a_history_yet(tmp_path: Path, store: dict[str, str]) -> None:
    """While the daemon goes through an older store's events, commands say that there is more to come."""
    with closing(sqlite3.connect(tmp_path / "state/events.db", isolation_level=None)) as connection:
        connection.execute("INSERT INTO unbuilt SELECT scope, seq FROM events")
    done = piped(tmp_path, "scopes", "list", **store)
    assert b"more to come" in done.stderr
    assert b"nothing is known of omm_x yet" in piped(tmp_path, "history", "omm_x", **store).stderr
