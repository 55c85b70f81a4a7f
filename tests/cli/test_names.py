"""Rooms by name in the commands: shown to people, beside ids in JSON, and taken wherever an id is."""

from __future__ import annotations

import csv
import io
import json
from typing import TYPE_CHECKING, Any

import pytest

from reserve_listener.intake import normalize
from reserve_listener.intake.complete import completing
from reserve_listener.intake.directory import Directory
from reserve_listener.model import AttemptRecord, KnownPlace, Outcome
from reserve_listener.simulator import sample_event
from reserve_listener.store import open_store
from tests.cli.test_scopes import answered, piped
from tests.helpers import append, url_of
from tests.terminal import Terminal, at_terminal

if TYPE_CHECKING:
    from pathlib import Path

NOON_MS = 1_790_000_000_000
ADA, BO, SAME, GONE, UNHEARD, NAMELESS = (f"omm_{number:x}{0:031x}" for number in range(1, 7))
TOWER = f"omb_{11:x}{0:031x}"
PERSON = "ou_ada"
NAMES = {
    ADA: "3F-Ada",
    BO: "3F-Böhm",
    SAME: "西湖",
    GONE: "西湖",
    UNHEARD: "Unheard-of",
}


def place(scope_type: str, scope_id: str, name: str, parent: str | None, *, top: bool = False) -> KnownPlace:
    return KnownPlace(
        scope_type=scope_type, scope_id=scope_id, name=name, parent=parent, top=top, seen_ms=NOON_MS
    )


def push(event_id: str, scope: str, hours: int = 8, **event: Any) -> Any:
    envelope = sample_event(event_id=event_id, scope_id=scope, create_time_ms=NOON_MS + hours, **event)
    envelope["event"]["time_config"]["max_duration"] = hours
    raw = json.dumps(envelope).encode()
    return normalize.incoming(raw, normalize.parse(raw), received_ms=NOON_MS + hours)


@pytest.fixture
async def store(tmp_path: Path) -> dict[str, str]:
    """The environment of commands whose store knows rooms by name: one twice, one only by name, and one without."""
    directory = Directory()
    opened = await open_store(
        url_of(tmp_path / "state/events.db"), ["a"], complete=completing("en", directory), directory=directory
    )
    await append(opened, push("before", ADA, 8))  # sealed without a name
    await opened.keep_places(
        [
            place("level", "omb_root", "Example Ltd", None, top=True),
            place("level", TOWER, "Tower A", "omb_root", top=True),
            *(place("room", scope, name, TOWER) for scope, name in NAMES.items()),
        ]
    )
    await opened.keep_people({PERSON: "Ada Lovelace"})
    await opened.mark_gone("room", GONE)
    approvers = {"approval_switch": 1, "approvers": [{"user_id": {"open_id": PERSON}}]}
    for event_id, scope, more in (
        ("after", ADA, {"approve_config": approvers}),
        ("b", BO, {}),
        ("s", SAME, {}),
        ("g", GONE, {}),
        ("n", NAMELESS, {}),
        ("t", TOWER, {"scope_type": 1}),
    ):
        await append(opened, push(event_id, scope, 9, **more))
    record = AttemptRecord(NOON_MS, "dead", 400, 20, "never")
    (first, *_) = (
        await opened.claim("a", limit=1, per_scope=1, now_ms=NOON_MS, after_seq=None, skipping=())
    ).deliveries
    dead = Outcome(seq=first.seq, state="dead", attempts=1, error="never", attempt=record)
    await opened.settle("a", [dead])
    await opened.close()
    return {"STATE_DIRECTORY": str(tmp_path / "state"), "RESERVE_LISTENER_LARK__LANGUAGE": "en"}


def test_json_has_names_beside_ids(tmp_path: Path, store: dict[str, str]) -> None:
    """Names of now, also of events that were sealed without; null where none is known."""
    rows = {row["scope_id"]: row for row in answered(tmp_path, "scopes", "list", **store)}
    assert (rows[ADA]["name"], rows[ADA]["path"]) == ("3F-Ada", ["Tower A"])
    assert (rows[TOWER]["name"], rows[TOWER]["path"]) == ("Tower A", [])
    assert (rows[NAMELESS]["name"], rows[NAMELESS]["path"]) == (None, None)
    assert set(rows[ADA]) == {
        "scope_id",
        "scope_type",
        "tenant_key",
        "name",
        "path",
        "revision",
        "time",
        "summary",
    }
    history = answered(tmp_path, "history", ADA, **store)
    assert [row["scope_name"] for row in history] == ["3F-Ada", "3F-Ada"]
    assert "approver Ada Lovelace added" in history[0]["summary"]
    events = {row["event_id"]: row for row in answered(tmp_path, "events", "list", **store)}
    assert (events["before"]["scope_name"], events["n"]["scope_name"]) == ("3F-Ada", None)
    shown = answered(tmp_path, "events", "show", "before", **store)
    assert (shown["scope_name"], "scope_name" in shown["event"]["data"]) == ("3F-Ada", False)
    (letter,) = answered(tmp_path, "dead-letters", "list", **store)
    assert (letter["scope_name"], letter["scope_id"]) == ("3F-Ada", ADA)
    (failure,) = json.loads(piped(tmp_path, "status", "--json", **store).stdout)["failures"]
    assert (failure["scope_name"], failure["scope_id"]) == ("3F-Ada", ADA)


def test_lists_follow_the_tree(tmp_path: Path, store: dict[str, str]) -> None:
    """A level, then what is in it by name, as on the page; the unnamed after them, and the gone last."""
    order = [TOWER, ADA, BO, SAME, NAMELESS, GONE]
    assert [row["scope_id"] for row in answered(tmp_path, "scopes", "list", **store)] == order
    table = piped(tmp_path, "scopes", "export", "--csv", **store).stdout.decode("utf-8-sig")
    assert [row["ID"] for row in csv.DictReader(io.StringIO(table))] == order


def test_what_is_gone_is_shown_as_gone(tmp_path: Path, store: dict[str, str]) -> None:
    """With its name and its last limits; what is there is not gone."""
    gone = answered(tmp_path, "scopes", "show", GONE, **store)
    assert (gone["gone"], gone["name"], gone["config"]["time_config"]["max_duration"]) == (True, "西湖", 9)
    assert answered(tmp_path, "scopes", "show", ADA, **store)["gone"] is False
    assert b"gone\ttrue\n" in piped(tmp_path, "scopes", "show", GONE, **store).stdout


def test_a_pipe_keeps_its_columns(tmp_path: Path, store: dict[str, str]) -> None:
    """Ids stand where they stood; names are in JSON."""
    for command, column in ((("scopes", "list"), 0), (("events", "list"), 3), (("dead-letters", "list"), 4)):
        rows = [line.split("\t") for line in piped(tmp_path, *command, **store).stdout.decode().splitlines()]
        assert ADA in {row[column] for row in rows}
        assert not any("3F-Ada" in row for row in rows)


@pytest.mark.parametrize(
    "command", ["scopes list", "events list", "events tail", "dead-letters list", "status"]
)
def test_a_person_sees_names(tmp_path: Path, store: dict[str, str], command: str) -> None:
    """In place of ids, as far as they are known."""
    _, text = at_terminal(*command.split(), cwd=tmp_path, width=200, env=store)
    assert "3F-Ada" in text
    assert ADA[:14] not in text
    if command.endswith("list") and "dead" not in command:
        assert f"{NAMELESS[:14]}…" in text


def test_a_person_sees_people_by_name(tmp_path: Path, store: dict[str, str]) -> None:
    """In the history and in the limits; the room with the levels above it."""
    _, text = at_terminal("scopes", "list", cwd=tmp_path, width=200, env=store)
    assert (text.count("西湖"), text.count("西湖 (gone)")) == (2, 1)
    code, text = at_terminal("history", "3f-ada", cwd=tmp_path, width=200, env=store)
    assert (code, text.splitlines()[0]) == (0, "Tower A / 3F-Ada")
    assert "+ Ada Lovelace" in text
    _, text = at_terminal("scopes", "show", "3f-ada", cwd=tmp_path, width=200, env=store)
    assert "Ada Lovelace" in text
    assert "Tower A" in text
    assert (
        f"approve_config.approvers\t{PERSON}"
        in piped(tmp_path, "scopes", "show", ADA, **store).stdout.decode()
    )


@pytest.mark.parametrize(
    ("asked", "meant"),
    [
        (ADA, ADA),
        (f"{BO[:-1]}…", BO),
        ("omm_", None),
        ("nobody knows", None),
        ("3F-Ada", ADA),
        ("3f-ADA", ADA),
        (" 3F-Ada ", ADA),
        ("3F-A", ADA),
        ("3f-bö", BO),
        ("西湖", SAME),
        ("Tower A", TOWER),
        ("tow", TOWER),
        ("tow…", TOWER),
        ("Unheard", UNHEARD),
        ("omb_b0", TOWER),
    ],
)
def test_a_name_is_taken_where_an_id_is(
    tmp_path: Path, store: dict[str, str], asked: str, meant: str | None
) -> None:
    """Whatever the case, whole or a beginning that only one has; of two with one name the one that is still there."""
    done = piped(tmp_path, "history", asked, "--json", **store)
    if meant == UNHEARD:
        assert (done.returncode, b"nothing is known of Unheard" in done.stderr) == (1, True)
    elif meant is None:
        assert done.returncode == 1
    else:
        assert {row["scope_id"] for row in json.loads(done.stdout)} == {meant}


@pytest.mark.parametrize(
    "command",
    [
        ("scopes", "show"),
        ("events", "list", "--scope"),
        ("events", "tail", "--scope"),
        ("dead-letters", "list", "--scope"),
    ],
)
def test_every_command_takes_names(tmp_path: Path, store: dict[str, str], command: tuple[str, ...]) -> None:
    """There is one rule for all of them."""
    done = piped(tmp_path, *command, "3f-ad", **store)
    assert (done.returncode, done.stderr) == (0, b"")
    assert ADA in done.stdout.decode()
    assert BO not in done.stdout.decode()


@pytest.mark.parametrize(
    "command",
    [
        "history",
        "scopes show",
        "events list --scope",
        "events tail --scope",
        "events tail --json --scope",
        "dead-letters list --scope",
    ],
)
def test_what_nobody_knows_is_the_same_error_everywhere(
    tmp_path: Path, store: dict[str, str], command: str
) -> None:
    """Exit 1, with what there is to look at: a typo is not taken for a room where nothing happened."""
    done = piped(tmp_path, *command.split(), "typo", **store)
    assert (done.returncode, done.stdout) == (1, b"")
    told = "error: nothing is known of typo. `scopes list` shows the known rooms and levels.\n"
    assert done.stderr.decode() == told
    known = piped(tmp_path, "events", "list", "--scope", "Unheard-of", **store)
    assert (known.returncode, known.stderr) == (0, b"No events.\n")


ACTIONS = ("dead-letters retry", "dead-letters drop", "events replay")


@pytest.mark.parametrize("action", ACTIONS)
def test_nothing_to_act_on_is_no_failure_but_a_typo_is_named(
    tmp_path: Path, store: dict[str, str], action: str
) -> None:
    """Exit 0, as for whatever matches nothing; a warning says that nobody knows such a room."""
    done = piped(tmp_path, *action.split(), "--scope", "typo", **store)
    assert (done.returncode, b"of typo: nothing to do.\n" in done.stdout) == (0, True)
    assert done.stderr.startswith(b"warning: nothing is known of typo. `scopes list` shows")


@pytest.mark.parametrize(
    "command",
    [
        "history",
        "scopes show",
        "events list --scope",
        "events list --event-id",
        "dead-letters list --event-id",
        *(f"{action} --scope" for action in ACTIONS),
        *ACTIONS,
    ],
)
def test_an_empty_name_or_id_is_a_wrong_use(tmp_path: Path, store: dict[str, str], command: str) -> None:
    """Exit 2: it is what a script gives whose variable is not set, and it must not stand for everything."""
    for empty in ("", " ", "…"):
        done = piped(tmp_path, *command.split(), empty, **store)
        assert (done.returncode, done.stdout) == (2, b"")
        assert b"is empty" in done.stderr


async def test_a_room_that_nobody_has_heard_of_can_be_followed(tmp_path: Path, store: dict[str, str]) -> None:
    """`events tail -f` says that the room is not known, and shows its first event when that comes."""
    with Terminal("events", "tail", "-f", "--scope", "omm_new", cwd=tmp_path, env=store) as terminal:
        terminal.answer("warning: nothing is known of omm_new", "")
        opened = await open_store(
            url_of(tmp_path / "state/events.db"), ["a"], complete=completing("en", Directory())
        )
        await append(opened, push("first", "omm_new"))
        await opened.close()
        terminal.answer("omm_new", "")


def test_a_name_of_several_is_refused(tmp_path: Path, store: dict[str, str]) -> None:
    """The answer says which there are, with the levels above them and their ids."""
    done = piped(tmp_path, "history", "3F", **store)
    assert (done.returncode, done.stdout) == (1, b"")
    told = done.stderr.decode()
    assert f"Tower A / 3F-Ada ({ADA})" in told
    assert f"Tower A / 3F-Böhm ({BO})" in told
    assert "beginning of several" in told


def test_a_spreadsheet_has_names(tmp_path: Path, store: dict[str, str]) -> None:
    """In the columns that wait for them; people stay ids, which are what can be looked up."""
    done = piped(tmp_path, "scopes", "export", "--csv", **store)
    rows = {row["ID"]: row for row in csv.DictReader(io.StringIO(done.stdout.decode("utf-8-sig")))}
    assert (rows[ADA]["Name"], rows[ADA]["Levels above"], rows[ADA]["Approvers"]) == (
        "3F-Ada",
        "Tower A",
        PERSON,
    )
    assert (rows[NAMELESS]["Name"], rows[NAMELESS]["Levels above"]) == ("", "")
