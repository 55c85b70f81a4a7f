"""Commands that act on many: what has to be said, what is asked, what is left alone."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from reserve_listener.clock import now_ms
from reserve_listener.model import Outcome
from reserve_listener.simulator import patience
from reserve_listener.store import open_store
from tests.commands import COMMANDS
from tests.daemon_process import environment
from tests.helpers import append, event, url_of
from tests.terminal import Terminal

if TYPE_CHECKING:
    import subprocess
    from pathlib import Path

ACTIONS = (("dead-letters", "retry"), ("dead-letters", "drop"), ("events", "replay"))
NUMBERS = {"retry": "2 dead letters", "drop": "2 dead letters", "replay": "2 deliveries"}


@pytest.fixture
async def folder(tmp_path: Path) -> Path:
    """A folder whose store holds two dead letters."""
    store = await open_store(url_of(tmp_path / "state/events.db"), ["a"])
    for event_id, scope in (("one", "omm_a"), ("two", "omm_b")):
        await append(store, event(event_id, scope))
    claimed = await store.claim("a", limit=10, per_scope=1, now_ms=now_ms(), after_seq=None, skipping=())
    await store.settle("a", [Outcome.dead(delivery, error="refused") for delivery in claimed.deliveries])
    await store.close()
    return tmp_path


def cli(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return COMMANDS.run(
        *arguments,
        cwd=folder,
        timeout=patience(60),
        env=environment(STATE_DIRECTORY=str(folder / "state")),
    )


def terminal(folder: Path, *arguments: str) -> Terminal:
    return Terminal(*arguments, cwd=folder, env={"STATE_DIRECTORY": str(folder / "state")})


def states(folder: Path) -> list[str]:
    rows = json.loads(cli(folder, "events", "list", "--json").stdout)
    return [delivery["state"] for row in rows for delivery in row["deliveries"]]


@pytest.mark.parametrize("action", ACTIONS, ids=" ".join)
def test_nothing_chosen_is_usage(folder: Path, action: tuple[str, str]) -> None:
    """Without an id, a filter or --all nothing is done, with --yes or not: exit 2."""
    for options in ((), ("--yes",), ("--dry-run",)):
        done = cli(folder, *action, *options)
        assert done.returncode == 2, done.stdout
        assert "--all" in done.stderr
    assert states(folder) == ["dead", "dead"]


@pytest.mark.parametrize("action", ACTIONS, ids=" ".join)
def test_all_wants_yes_where_nobody_can_be_asked(folder: Path, action: tuple[str, str]) -> None:
    """--all without a terminal is exit 2 and does nothing; --dry-run shows the number; --yes goes ahead."""
    refused = cli(folder, *action, "--all")
    assert refused.returncode == 2
    assert "--yes" in refused.stderr
    shown = cli(folder, *action, "--all", "--dry-run")
    assert shown.returncode == 0
    assert NUMBERS[action[1]] in shown.stdout
    assert states(folder) == ["dead", "dead"]
    done = cli(folder, *action, "--all", "--yes")
    assert done.returncode == 0
    assert done.stdout.startswith(NUMBERS[action[1]])
    assert done.stderr.startswith(NUMBERS[action[1]])
    assert states(folder) == ([] if action[1] == "drop" else ["pending", "pending"])


def test_a_list_that_is_cut_says_so(folder: Path) -> None:
    """Of two dead letters, `-n 1` shows one and says that there are more; `-n 2` shows both and says nothing."""
    cut = cli(folder, "dead-letters", "list", "-n", "1")
    assert (len(cut.stdout.splitlines()), "-n NUMBER" in cut.stderr) == (1, True)
    whole = cli(folder, "dead-letters", "list", "-n", "2")
    assert (len(whole.stdout.splitlines()), whole.stderr) == (2, "")


def test_a_span_is_told_as_a_time_ago(folder: Path) -> None:
    """The filters come back in words: a span as `2h ago`, a time as it was given."""
    asked = cli(folder, "dead-letters", "retry", "--since", "2h", "--until", "2999-01-01", "--dry-run")
    assert "dead letters stored since 2h ago, stored before 2999-01-01" in asked.stdout


def test_drop_wants_yes_even_with_a_filter(folder: Path) -> None:
    """What `drop` takes away nothing brings back: exit 2 without a terminal, whatever the filter."""
    refused = cli(folder, "dead-letters", "drop", "one")
    assert refused.returncode == 2
    assert states(folder) == ["dead", "dead"]
    assert cli(folder, "dead-letters", "drop", "one", "--yes").returncode == 0
    assert states(folder) == ["dead"]


@pytest.mark.parametrize(
    "which",
    [("one",), ("--event-id", "one"), ("on",), ("--scope", "omm_a"), ("--scope", "omm_a", "--until", "1s")],
    ids=" ".join,
)
def test_retry_with_a_filter_needs_nothing_more(folder: Path, which: tuple[str, ...]) -> None:
    """An id, as argument or option, a beginning of it, or a filter: done at once, that one only."""
    done = cli(folder, "dead-letters", "retry", *which)
    assert (done.returncode, done.stdout) == (0, "1 dead letter will be retried.\n")
    assert states(folder) == ["pending", "dead"]


def test_several_ids_at_once(folder: Path) -> None:
    """Ids as arguments and as options add up, and one that is named twice counts once."""
    done = cli(folder, "events", "replay", "one", "two", "--event-id", "one")
    assert (done.returncode, done.stdout) == (0, "2 deliveries will be repeated.\n")


@pytest.mark.parametrize("action", ACTIONS, ids=" ".join)
def test_nothing_that_matches_is_no_error(folder: Path, action: tuple[str, str]) -> None:
    """An id that nothing has, or a time before everything: exit 0, and it is said; nobody need be asked."""
    for which in (("nope",), ("--until", "2000-01-01T00:00Z")):
        for options in (("--yes",), (), ("--dry-run",), ("--all",)):
            done = cli(folder, *action, *which, *options)
            assert done.returncode == 0, done.stderr
            assert "nothing to do" in done.stdout
    assert states(folder) == ["dead", "dead"]


@pytest.mark.parametrize(
    "arguments", [("dead-letters", "drop", "one"), ("dead-letters", "retry", "--all")], ids=" ".join
)
def test_at_a_terminal_it_asks(folder: Path, arguments: tuple[str, ...]) -> None:
    """The number comes first, then the question; "n" does nothing (exit 1), "y" does it."""
    with terminal(folder, *arguments) as refusing:
        refusing.answer("Go ahead?", "n")
        assert refusing.ended() == 1
        assert refusing.text.index("dead letter") < refusing.text.index("Go ahead?")
        assert "Nothing was done." in refusing.text
    assert states(folder) == ["dead", "dead"]
    with terminal(folder, *arguments) as agreeing:
        agreeing.answer("Go ahead?", "y")
        assert agreeing.ended() == 0
    assert states(folder) != ["dead", "dead"]


def test_at_a_terminal_dry_run_yes_and_a_filter_never_ask(folder: Path) -> None:
    """--dry-run asks nothing, --yes asks nothing, and neither does `retry` with a filter."""
    for arguments in (
        ("dead-letters", "drop", "--all", "--dry-run"),
        ("dead-letters", "retry", "one"),
        ("dead-letters", "drop", "two", "--yes"),
    ):
        with terminal(folder, *arguments) as done:
            assert done.ended() == 0, done.text
            assert "Go ahead?" not in done.text
    assert states(folder) == ["pending"]
