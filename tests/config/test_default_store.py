"""Commands without a configuration file, with a broken one, and the store that they find then."""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING

import pytest

from reserve_listener.config.default_store import default_store
from reserve_listener.errors import ConfigError
from reserve_listener.intake import normalize
from reserve_listener.simulator import patience, sample_event
from reserve_listener.store import open_store
from tests.commands import COMMANDS
from tests.daemon_process import environment
from tests.helpers import append, url_of

if TYPE_CHECKING:
    import subprocess
    from pathlib import Path

STORE_COMMANDS = (
    ("events", "list"),
    ("events", "tail"),
    ("events", "show", "one"),
    ("sinks", "list"),
    ("dead-letters", "list"),
)
CHANGES = (
    ("sinks", "disable", "console"),
    ("sinks", "enable", "console"),
    ("events", "replay", "--event-id", "one"),
    ("dead-letters", "retry", "--sink", "console"),
    ("dead-letters", "drop", "--event-id", "one", "--yes"),
)


def cli(folder: Path, *arguments: str, **extra: str) -> subprocess.CompletedProcess[str]:
    """A command in an empty folder whose state goes to `state` beside it."""
    (folder / "empty").mkdir(exist_ok=True)
    return COMMANDS.run(
        *arguments,
        cwd=folder / "empty",
        timeout=patience(60),
        env=environment(STATE_DIRECTORY=str(folder / "state"), **extra),
    )


async def make_store(path: Path) -> None:
    """A store with one event, pending for `console`; `other` is known and has no part in it."""
    path.parent.mkdir(exist_ok=True)
    store = await open_store(url_of(path), ["console"])
    raw = json.dumps(sample_event(event_id="one", scope_id="omm_a")).encode()
    await append(store, normalize.incoming(raw, normalize.parse(raw), received_ms=1_700_000_000_000))
    await store.set_sinks(["console", "other"], {})
    await store.close()


@pytest.mark.parametrize("command", [*STORE_COMMANDS, *CHANGES], ids=" ".join)
async def test_without_a_file_the_default_store_answers(command: tuple[str, ...], tmp_path: Path) -> None:
    """Every command that only needs the store works without any configuration, and says nothing of one."""
    await make_store(tmp_path / "state/events.db")
    done = cli(tmp_path, *command)
    assert done.returncode == 0, done.stderr
    assert "warning" not in done.stderr


@pytest.mark.parametrize("command", [*STORE_COMMANDS, *CHANGES], ids=" ".join)
def test_without_a_store_the_path_and_the_ways_out_are_named(
    command: tuple[str, ...], tmp_path: Path
) -> None:
    """With no store either, one sentence names its path and how to give another; nothing is created."""
    done = cli(tmp_path, *command)
    assert done.returncode == 1
    assert done.stdout == ""
    (line,) = done.stderr.splitlines()
    for words in (
        str(tmp_path / "state/events.db"),
        "-c FILE",
        "$RESERVE_LISTENER_CONFIG",
        "$RESERVE_LISTENER_STORE__URL",
    ):
        assert words in line
    assert not (tmp_path / "state").exists()


@pytest.mark.parametrize("command", STORE_COMMANDS, ids=" ".join)
@pytest.mark.parametrize(
    "mistake",
    ['[sinks]\nname = "x"\n', "[lark]\nbackof = 1\n", "[store]\nretention_days = -1\n", "lark = 3\n"],
)
async def test_a_broken_file_still_says_where_its_store_is(
    command: tuple[str, ...], mistake: str, tmp_path: Path
) -> None:
    """Mistakes elsewhere in the file are warnings; the store that it names is the one that is read."""
    await make_store(tmp_path / "own/events.db")
    url = f'url = "sqlite:///{tmp_path}/own/events.db"\n'
    text = mistake + url if "[store]" in mistake else f"{mistake}[store]\n{url}"
    (tmp_path / "config.toml").write_text(text)
    done = cli(tmp_path, *command, "-c", str(tmp_path / "config.toml"))
    assert done.returncode == 0, done.stderr
    assert "warning: " in done.stderr
    assert f"using the store {tmp_path}/own/events.db" in done.stderr


@pytest.mark.parametrize(
    "text",
    ["no TOML at all", "\x00", '[store]\nurl = "mysql://x"\n', 'store = "events.db"\n'],
    ids=["words", "binary", "wrong url", "no table"],
)
async def test_a_file_that_names_no_store_leaves_the_default_one(text: str, tmp_path: Path) -> None:
    """What is no TOML, or names no store that could be, is warned of; the default store answers."""
    await make_store(tmp_path / "state/events.db")
    (tmp_path / "config.toml").write_text(text)
    done = cli(tmp_path, "events", "list", "--json", "-c", str(tmp_path / "config.toml"))
    assert done.returncode == 0, done.stderr
    assert [row["event_id"] for row in json.loads(done.stdout)] == ["one"]
    assert "warning: " in done.stderr


async def test_a_file_that_was_asked_for_has_to_be_there(tmp_path: Path) -> None:
    """A mistyped -c is an error: another store than the one that was meant would answer."""
    await make_store(tmp_path / "state/events.db")
    for extra in ({}, {"RESERVE_LISTENER_CONFIG": "nope.toml"}):
        arguments = () if extra else ("-c", "nope.toml")
        done = cli(tmp_path, "events", "list", *arguments, **extra)
        assert done.returncode == 78
        assert done.stderr.startswith("error: nope.toml: there is no such file.")


async def test_the_environment_alone_names_a_store(tmp_path: Path) -> None:
    """$RESERVE_LISTENER_STORE__URL is enough; a wrong one is said, and so is a name with one underscore."""
    await make_store(tmp_path / "own/events.db")
    await make_store(tmp_path / "state/events.db")
    url = f"sqlite:///{tmp_path}/own/events.db"
    done = cli(tmp_path, "events", "list", "--json", RESERVE_LISTENER_STORE__URL=url)
    assert (done.returncode, done.stderr) == (0, "")
    wrong = cli(tmp_path, "events", "list", RESERVE_LISTENER_STORE__URL="events.db")
    assert wrong.returncode == 0
    assert "warning: environment: RESERVE_LISTENER_STORE__URL: " in wrong.stderr
    single = cli(tmp_path, "events", "list", RESERVE_LISTENER_STORE_URL=url)
    assert "RESERVE_LISTENER_STORE_URL: section and key are separated by two underscores" in single.stderr
    assert "RESERVE_LISTENER_STORE__URL" in single.stderr


async def test_a_replay_without_a_configuration_repeats_only_what_was(tmp_path: Path) -> None:
    """Which sink takes what is not known then: a sink that never had the event does not get it."""
    await make_store(tmp_path / "state/events.db")
    done = cli(tmp_path, "events", "replay", "--event-id", "one", "--sink", "other")
    assert done.returncode == 0, done.stderr
    (row,) = json.loads(cli(tmp_path, "events", "list", "--json").stdout)
    assert [delivery["sink"] for delivery in row["deliveries"]] == ["console"]


def test_the_rule_for_the_default_store(monkeypatch: pytest.MonkeyPatch) -> None:
    """The unit's folder first, then root's, then the user's; a relative $XDG_STATE_HOME counts as none."""

    def rule(**environ: str) -> tuple[str, str]:
        path, origin = default_store(environ)
        return str(path), origin

    assert rule(STATE_DIRECTORY="/s:/t", HOME="/h") == ("/s/events.db", "default ($STATE_DIRECTORY)")
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    assert rule(HOME="/root", XDG_STATE_HOME="/x") == ("/var/lib/reserve-listener/events.db", "default")
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    assert rule(HOME="/h", XDG_STATE_HOME="/x")[0] == "/x/reserve-listener/events.db"
    assert rule(HOME="/h", XDG_STATE_HOME="x")[0] == "/h/.local/state/reserve-listener/events.db"
    with pytest.raises(ConfigError, match="no home directory"):
        rule(HOME="nowhere")
