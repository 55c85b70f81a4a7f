"""The first hour: `config init`, `config unit`, completion, versions, and what comes with the wheel."""

from __future__ import annotations

import os
import re
import stat
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest

from reserve_listener import __version__
from reserve_listener.simulator import patience
from tests.configuring import load
from tests.daemon_process import COMMAND, environment
from tests.terminal import Terminal

ROOT = Path(__file__).parents[2]
SECRET = "s3cret-of-the-app"
CALLED = " ".join(COMMAND)
"""How these tests call the program, so what it tells a person to type."""
AS_A_USER = ("unshare", "--user", "--map-user=1000", "--map-group=1000")
"""What root runs as somebody else who may do no more than the owner of root's files."""


def cli(folder: Path, *arguments: str, **extra: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*COMMAND, *arguments],
        cwd=folder,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=patience(60),
        env=environment(STATE_DIRECTORY=str(folder / "state"), **extra),
        check=False,
    )


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_on_a_terminal_it_asks_and_what_it_writes_is_good(tmp_path: Path) -> None:
    """Three answers make a configuration that loads and a secret's file, both 0600; the secret is not shown."""
    with Terminal("config", "init", cwd=tmp_path) as terminal:
        terminal.answer("App ID", "cli_mine")
        terminal.answer("App secret", SECRET, hidden=True)
        terminal.answer("Region", "lark")
        assert terminal.ended() == 0, terminal.text
        assert SECRET not in terminal.text
        assert f"{CALLED} check" in terminal.text
        assert f"{CALLED} run" in terminal.text
        assert "https://open.larksuite.com/app" in terminal.text
    assert mode(tmp_path / "config.toml") == mode(tmp_path / "app_secret") == 0o600
    lark = load(tmp_path / "config.toml", environ={}).lark
    assert (lark.app_id, lark.domain) == ("cli_mine", "https://open.larksuite.com")
    assert lark.read_app_secret().get_secret_value() == SECRET
    assert SECRET not in (tmp_path / "config.toml").read_text()
    assert cli(tmp_path, "check").returncode == 0


def test_a_wrong_answer_is_asked_again_and_the_secret_may_wait(tmp_path: Path) -> None:
    """An app's name and a region that is none are explained; without a secret the first of the next steps is to add it."""
    with Terminal("config", "init", cwd=tmp_path) as terminal:
        terminal.answer("App ID", "Meeting rooms")
        terminal.answer("must be the app's ID: cli_ and some letters and digits", " cli_mine ")
        terminal.answer("App secret", "", hidden=True)
        terminal.answer("Region", "mars")
        terminal.answer("or use the name feishu or lark", "feishu")
        assert terminal.ended() == 0, terminal.text
        assert f"install -m 600 /dev/stdin {tmp_path}/app_secret" in terminal.text
    assert not (tmp_path / "app_secret").exists()
    assert tomllib.loads((tmp_path / "config.toml").read_text())["lark"]["app_id"] == "cli_mine"


def test_elsewhere_it_takes_options(tmp_path: Path) -> None:
    """Without a terminal the options are enough, and a missing one is named (exit 2) before anything is written."""
    (tmp_path / "secret").write_text(f"{SECRET}\n")
    missing = cli(tmp_path, "config", "init")
    assert missing.returncode == 2
    assert "--app-id" in missing.stderr
    wrong = cli(tmp_path, "config", "init", "--app-id", "cli_a", "--domain", "open.feishu.cn")
    assert wrong.returncode == 2
    assert "--domain" in wrong.stderr
    for app_id in ("rooms", "cli_", "cli_…", "CLI_a", "cli_a b", ""):
        other = cli(tmp_path, "config", "init", "--app-id", app_id)
        assert (other.returncode, other.stdout) == (2, "")
        assert "--app-id: must be the app's ID: cli_ and some letters" in other.stderr
    example = cli(tmp_path, "config", "init", "--app-id", "cli_a1b2c3d4e5f6g7h8")
    assert example.returncode == 2
    assert "still the example's" in example.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["secret"]
    options = ("--app-id", 'cli_"a', "--app-secret-file", "secret", "-c", "own folder.toml")
    done = cli(tmp_path, "config", "init", *options)
    assert (done.returncode, done.stderr) == (0, "")
    assert f"{CALLED} run -c 'own folder.toml'" in done.stdout
    assert mode(tmp_path / "own folder.toml") == 0o600
    loaded = load(tmp_path / "own folder.toml", environ={})
    assert loaded.lark.app_id == 'cli_"a'
    assert loaded.lark.app_secret_file == tmp_path / "secret"


@pytest.mark.parametrize("kind", ["file", "dangling link"])
def test_it_never_overwrites(tmp_path: Path, kind: str) -> None:
    """What stands in the file's place stays as it is, a link that leads nowhere included."""
    config = tmp_path / "config.toml"
    if kind == "file":
        config.write_text("mine")
    else:
        config.symlink_to("elsewhere")
    done = cli(tmp_path, "config", "init", "--app-id", "cli_a")
    assert done.returncode == 1
    assert (
        done.stderr
        == "error: config.toml already exists and was left unchanged. Name another file with -c FILE.\n"
    )
    assert [path.name for path in tmp_path.iterdir()] == ["config.toml"]
    if kind == "file":
        assert config.read_text() == "mine"


def test_a_folder_that_is_not_there_is_a_sentence(tmp_path: Path) -> None:
    """A path that cannot be created is told, not raised."""
    done = cli(tmp_path, "config", "init", "--app-id", "cli_a", "-c", "none/config.toml")
    assert done.returncode == 1
    assert done.stderr == "error: none/config.toml cannot be created: No such file or directory.\n"


def test_a_user_without_root_needs_nothing_more(tmp_path: Path) -> None:
    """In a fresh home: init, the secret, check; the default store is in that home."""
    become = AS_A_USER if os.geteuid() == 0 else ()
    if become and subprocess.run([*become, "true"], capture_output=True, check=False).returncode != 0:
        pytest.skip("root cannot become somebody else here: no user namespaces")

    def as_a_user(*arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [*become, *COMMAND, *arguments],
            cwd=tmp_path,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=patience(60),
            env={"HOME": str(tmp_path), "PATH": os.environ["PATH"]},
            check=False,
        )

    created = as_a_user("config", "init", "--app-id", "cli_mine")
    assert created.returncode == 0, created.stderr
    (tmp_path / "app_secret").write_text(SECRET)
    checked = as_a_user("check")
    assert checked.returncode == 0, checked.stdout
    assert f"{tmp_path}/.local/state/reserve-listener/events.db" in checked.stdout
    refused = as_a_user("events", "list")
    assert refused.returncode == 1
    assert f"there is no store at {tmp_path}/.local/state/reserve-listener/events.db." in refused.stderr


def test_example_and_units_are_the_ones_of_the_repository(tmp_path: Path) -> None:
    """`config init --example` and `config unit` print the files that are kept, the units with the program that prints them."""
    example = cli(tmp_path, "config", "init", "--example")
    assert example.stdout == (ROOT / "config.example.toml").read_text()
    for name, options in (("reserve-listener", ()), ("reserve-listener@", ("--template",))):
        unit = cli(tmp_path, "config", "unit", *options)
        kept = (ROOT / f"systemd/{name}.service").read_text()
        here = f"{sys.prefix}/bin/reserve-listener"
        if sys.prefix.startswith(("/home/", "/root/", "/tmp/")):  # what the unit cannot see
            assert here in unit.stderr
        else:
            kept = kept.replace("/opt/reserve-listener/bin/reserve-listener", here)
        assert unit.stdout == kept
    assert list(tmp_path.iterdir()) == []


def test_the_wheel_has_everything(tmp_path: Path) -> None:
    """Example, units, license and a README whose links all lead somewhere come with the wheel."""
    build = ("-m", "hatchling", "build", "-t", "wheel", "-d", str(tmp_path))
    subprocess.run([sys.executable, *build], cwd=ROOT, check=True, capture_output=True, timeout=patience(120))
    (wheel,) = tmp_path.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        for name in (
            "config.example.toml",
            "systemd/reserve-listener.service",
            "systemd/reserve-listener@.service",
        ):
            packed = archive.read(f"reserve_listener/shipped/{name}")
            assert packed == (ROOT / name).read_bytes()
        (metadata,) = (name for name in archive.namelist() if name.endswith("/METADATA"))
        text = archive.read(metadata).decode()
        assert any(name.endswith("licenses/LICENSE") for name in archive.namelist())
    assert "License-Expression: MIT" in text
    assert "Author: The reserve-listener authors" in text
    assert "(`docs/events.md`)" in text or "docs/events.md" in text
    links = re.findall(r"\]\(([^)]+)\)", text)
    assert links
    assert all(link.startswith(("https://", "#")) for link in links), links


def test_what_simulate_prints_is_a_configuration(tmp_path: Path) -> None:
    """Copied into a file, what `simulate` says is all that the daemon needs, a store of this folder included."""
    with subprocess.Popen(
        [*COMMAND, "simulate", "--port", "0", "--rate", "0"],
        cwd=tmp_path,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        text=True,
        env=environment(PYTHONUNBUFFERED="1"),
    ) as simulator:
        assert simulator.stdout is not None
        lines: list[str] = []
        while not (lines and lines[-1].startswith("url")):
            lines.append(simulator.stdout.readline())
            assert lines[-1], lines
        simulator.terminate()
    (tmp_path / "config.toml").write_text("".join(lines[lines.index("[lark]\n") :]))
    config = load(tmp_path / "config.toml", environ={})
    assert config.lark.domain.startswith("http://127.0.0.1:")
    assert config.store.path is not None
    assert not config.store.path.is_absolute()


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_prints_a_script(shell: str, tmp_path: Path) -> None:
    """Each shell gets a script that calls the program by its name."""
    done = cli(tmp_path, "completion", shell)
    assert (done.returncode, done.stderr) == (0, "")
    assert "reserve-listener" in done.stdout
    assert "_RESERVE_LISTENER_COMPLETE" in done.stdout


def test_a_shell_completes_commands(tmp_path: Path) -> None:
    """bash, having read the script, completes `reserve-listener dead-letters re` to `retry`."""
    (tmp_path / "reserve-listener").write_text(
        f'#!/bin/sh\nexec "{sys.executable}" -m reserve_listener "$@"\n'
    )
    (tmp_path / "reserve-listener").chmod(0o755)
    script = """
eval "$(reserve-listener completion bash)"
COMP_WORDS=(reserve-listener dead-letters re) COMP_CWORD=2
_reserve_listener_completion reserve-listener
printf '%s\\n' "${COMPREPLY[@]}"
"""
    done = subprocess.run(
        ["bash", "-c", script],
        capture_output=True,
        text=True,
        timeout=patience(60),
        env=environment(PATH=f"{tmp_path}:{os.environ['PATH']}", PYTHONPATH=str(ROOT)),
        check=True,
    )
    assert done.stdout.split() == ["retry"], done.stderr


def test_the_version_is_an_option_too(tmp_path: Path) -> None:
    """`--version` before any command prints one line."""
    done = cli(tmp_path, "--version")
    assert (done.returncode, done.stdout) == (0, f"reserve-listener {__version__}\n")
