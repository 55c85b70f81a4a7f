"""What `check`, and the start, say about files: who can read them, what a store is, and where a relative path leads."""

from __future__ import annotations

import os
import sqlite3
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from reserve_listener.cli.checks import exposure
from reserve_listener.simulator import patience
from reserve_listener.store.sqlite import schema
from tests.commands import COMMANDS

if TYPE_CHECKING:
    from pathlib import Path

COMMAND = [sys.executable, "-m", "reserve_listener"]
FAILED_MARK, WARN_MARK = "FAIL", "warn"


@pytest.fixture
def config(tmp_path: Path) -> Path:
    """A good configuration that nobody else can read."""
    path = tmp_path / "config.toml"
    path.touch(mode=0o600)
    path.write_text(
        f'[lark]\napp_id = "cli_1"\napp_secret = "hush-hush"\n[store]\nurl = "sqlite:///{tmp_path}/events.db"\n'
        f'[[sinks]]\nname = "a"\ntype = "file"\npath = "{tmp_path}/out.jsonl"\n'
    )
    return path


def run(*arguments: str | Path, cwd: Path | None = None) -> tuple[int, str]:
    """Exit code and all that was said."""
    done = COMMANDS.run(*map(str, arguments), env=os.environ, timeout=patience(30), cwd=cwd)
    return done.returncode, done.stdout + done.stderr


def warnings(text: str) -> list[str]:
    return [line for line in text.splitlines() if line.startswith(WARN_MARK)]


# -- who can read it -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("mode", "warned"), [(0o600, False), (0o640, False), (0o644, True), (0o604, True)])
def test_a_configuration_with_secrets_is_nobody_elses(config: Path, mode: int, warned: bool) -> None:  # noqa: FBT001
    """Readable by others, with a secret in it: a warning that names the file and the command; exit code 0 all the same."""
    config.chmod(mode)
    code, text = run("check", "-c", config)
    assert code == 0
    assert bool(warnings(text)) is warned
    assert not warned or f"chmod o-rwx {config}" in text
    assert "hush-hush" not in text


def test_a_configuration_without_secrets_may_be_everybodys(config: Path, tmp_path: Path) -> None:
    """What keeps its secret in a file of its own is warned of that file, if others can read it."""
    secret = tmp_path / "secret"
    secret.write_text("hush-hush")
    secret.chmod(0o644)
    config.write_text(config.read_text().replace('app_secret = "hush-hush"', f'app_secret_file = "{secret}"'))
    config.chmod(0o644)
    (warning,) = warnings(run("check", "-c", config)[1])
    assert f"{secret} (lark.app_secret_file)" in warning
    secret.chmod(0o640)
    assert warnings(run("check", "-c", config)[1]) == []


def test_a_sinks_secret_is_looked_at_and_its_certificate_is_not(config: Path, tmp_path: Path) -> None:
    """Bearer tokens and signing secrets of http sinks are secrets; a bundle of certificates is public."""
    for name in ("token", "signing"):
        (tmp_path / name).write_text("whsec_" + "QUJDREVGR0hJSktMTU5PUFFSU1RVVldYWVo=")
        (tmp_path / name).chmod(0o644)
    config.write_text(
        config.read_text()
        + '[[sinks]]\nname = "b"\ntype = "http"\nurl = "https://example.invalid/"\n'
        + f'bearer_token_file = "{tmp_path}/token"\nsigning_secret_file = "{tmp_path}/signing"\n'
    )
    said = warnings(run("check", "-c", config)[1])
    assert len(said) == 2
    assert all(
        any(f"sinks[1].{key}" in line for line in said)
        for key in ("bearer_token_file", "signing_secret_file")
    )


def test_the_status_section_is_looked_at(config: Path, tmp_path: Path) -> None:
    """Where the page is and for whom; a token that others can read, and a certificate that is none."""
    text = config.read_text()
    config.write_text(text + "[status]\n")
    assert "http://127.0.0.1:9464, everybody on this machine may read" in run("check", "-c", config)[1]
    token = tmp_path / "token"
    token.write_text("t0ken-of-the-page")
    token.chmod(0o644)
    config.write_text(f'{text}[status]\nlisten = "0.0.0.0:80"\ntoken_file = "{token}"\n')
    code, said = run("check", "-c", config)
    assert (code, "http://0.0.0.0:80, with the token" in said) == (0, True)
    assert "t0ken" not in said
    (warning,) = warnings(said)
    assert f"{token} (status.token_file)" in warning
    token.write_text("short")
    code, said = run("check", "-c", config)
    assert (code, "status: the token has fewer than 16 characters" in said, "openssl rand" in said) == (
        78,
        True,
        True,
    )
    config.write_text(f'{text}[status]\ntls_cert_file = "{token}"\n')
    code, said = run("check", "-c", config)
    assert code == 78
    assert "status" in said
    assert f"{token}" in said


# -- what a store is -------------------------------------------------------------------------------------------------------


def store_with(path: Path, *statements: str) -> None:
    connection = sqlite3.connect(path)
    for statement in statements:
        connection.execute(statement)
    connection.commit()
    connection.close()


OURS = f"PRAGMA application_id = {schema.APPLICATION_ID}"
WRONG = {
    "no version": ((OURS, "CREATE TABLE events (seq INTEGER)"), "user_version 0"),
    "newer": (
        (OURS, "CREATE TABLE events (seq INTEGER)", "PRAGMA user_version = 99"),
        "newer reserve-listener",
    ),
    "foreign": (("PRAGMA application_id = 7", "CREATE TABLE a (b)"), "another program"),
    "unmarked": (("CREATE TABLE a (b)",), "another program"),
}


@pytest.mark.parametrize("kind", WRONG)
@pytest.mark.parametrize("command", ["check", "run"])
def test_a_store_that_this_version_cannot_take_is_78(
    config: Path, tmp_path: Path, kind: str, command: str
) -> None:
    """`check` and the start say the same, end with 78, and leave the file and the folder as they are."""
    path = tmp_path / "events.db"
    statements, words = WRONG[kind]
    store_with(path, *statements)
    before = path.read_bytes()
    code, text = run(command, "-c", config)
    assert code == 78
    assert words in text
    assert "Traceback" not in text
    assert path.read_bytes() == before
    if command == "check":
        assert {one.name for one in tmp_path.iterdir()} == {"config.toml", "events.db"}


@pytest.mark.parametrize("kind", ["newer", "foreign"])
@pytest.mark.parametrize("command", ["check", "run"])
def test_an_inbox_that_this_version_cannot_take_is_78(
    config: Path, tmp_path: Path, kind: str, command: str
) -> None:
    """The store's other file is looked at as the store is, and left as it is."""
    schema.open_writer(tmp_path / "events.db").close()
    inbox = tmp_path / "events.db-inbox"
    statements, words = WRONG[kind]
    id_of_inbox = f"PRAGMA application_id = {schema.INBOX_APPLICATION_ID}"
    store_with(inbox, *(id_of_inbox if statement == OURS else statement for statement in statements))
    before = inbox.read_bytes()
    code, text = run(command, "-c", config)
    assert code == 78
    assert f"{inbox} " in text
    assert words in text
    assert inbox.read_bytes() == before


def test_check_takes_a_store_that_is_good_old_or_empty(config: Path, tmp_path: Path) -> None:
    """Nothing yet, zero bytes, an older schema (the start brings it up to date): all well."""
    path = tmp_path / "events.db"
    assert run("check", "-c", config)[0] == 0
    path.touch()
    assert run("check", "-c", config)[0] == 0
    schema.open_writer(path).close()
    assert run("check", "-c", config)[0] == 0
    store_with(path, "PRAGMA user_version = 1")
    assert run("check", "-c", config)[0] == 0


@pytest.mark.parametrize("content", [b"SQLite format 3\x00" + b"\xff" * 5000, b"hello", b"\0" * 4096])
@pytest.mark.parametrize("command", ["check", "run"])
def test_a_damaged_file_is_told_in_a_sentence(
    config: Path, tmp_path: Path, content: bytes, command: str
) -> None:
    """What is no database, or only begins like one: words that name it, no traceback, not a byte changed."""
    path = tmp_path / "events.db"
    path.write_bytes(content)
    code, text = run(command, "-c", config)
    assert code in {1, 78}
    assert str(path) in text
    assert "Traceback" not in text
    assert path.read_bytes() == content


def test_a_database_that_is_away_is_warned_of(config: Path, tmp_path: Path) -> None:
    """The daemon would start and wait, so it is no failure; but nor is it well, and the password is not shown."""
    text = config.read_text().replace(
        f"sqlite:///{tmp_path}/events.db", "postgresql://u:hush-hush@127.0.0.1:1/d"
    )
    config.write_text(text)
    code, said = run("check", "-c", config)
    (warning,) = warnings(said)
    assert code == 0
    assert warning.startswith("warn\tstore\tthe store postgresql://u@127.0.0.1:1/d cannot be reached:")
    assert "hush-hush" not in said


def test_a_store_with_two_names_is_warned_of(config: Path, tmp_path: Path) -> None:
    """Under each name SQLite would keep another log."""
    path = tmp_path / "events.db"
    schema.open_writer(path).close()
    (tmp_path / "other.db").hardlink_to(path)
    (warning,) = warnings(run("check", "-c", config)[1])
    assert "2 names (hard links)" in warning


def test_a_store_that_is_a_mount_of_its_own_is_warned_of(
    config: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As with `docker run -v events.db:/data/events.db`: what lies beside the file is not kept."""
    from tests.configuring import load_explained  # noqa: PLC0415  # imports pydantic

    mounts = tmp_path / "mountinfo"
    blank = str(tmp_path / "a b.db").replace(" ", "\\040")
    mounts.write_text(
        f"36 35 98:0 / {tmp_path}/events.db rw,noatime master:1 - ext4 /dev/root rw\n"
        f"37 35 98:0 / {blank} rw - ext4 /dev/root rw\n"
    )
    monkeypatch.setattr(exposure, "_MOUNTS", mounts)
    loaded = load_explained(config, environ={})
    (warning,) = exposure.findings(loaded)
    assert "mounted as a single file" in warning.what
    assert str(tmp_path) in warning.do
    assert str(tmp_path / "a b.db") in exposure._mount_points()
    mounts.write_text(f"36 35 98:0 / {tmp_path} rw,noatime master:1 - ext4 /dev/root rw\n")
    assert list(exposure.findings(loaded)) == []


# -- places ----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("command", ["check", "run", "status", "events list", "config show", "sinks list"])
def test_a_working_directory_that_is_gone_is_told_with_the_key(
    config: Path, tmp_path: Path, command: str
) -> None:
    """Relative paths lead nowhere then: the message names key and path, and there is no traceback."""
    gone = tmp_path / "gone"
    gone.mkdir()
    config.write_text(config.read_text().replace(f"{tmp_path}/", ""))
    script = 'cd "$1" && rmdir "$1" && shift && exec "$@"'
    done = subprocess.run(
        ["sh", "-c", script, "sh", gone, *COMMAND, *command.split(), "-c", config],
        capture_output=True,
        text=True,
        timeout=patience(30),
        check=False,
        env={**os.environ, "PYTHONPATH": os.getcwd()},  # noqa: PTH109
    )
    said = done.stdout + done.stderr
    assert done.returncode == 78, said
    assert "store.url: events.db is relative to the working directory, which has been removed" in said
    assert "Traceback" not in said


@pytest.mark.parametrize("place", ["folder", "fifo", "below a file", "link to nowhere below a file"])
def test_a_store_in_an_impossible_place_is_told_in_a_sentence(
    config: Path, tmp_path: Path, place: str
) -> None:
    """Whatever stands in its way: the start ends with a sentence that names the path, at once."""
    path = tmp_path / "events.db"
    match place:
        case "folder":
            path.mkdir()
        case "fifo":
            os.mkfifo(path)
        case "below a file":
            (tmp_path / "file").touch()
            config.write_text(config.read_text().replace("events.db", "file/events.db"))
        case _:
            path.symlink_to(tmp_path / "config.toml" / "events.db")
    code, text = run("run", "-c", config)
    assert code in {1, 78}
    assert "events.db" in text
    assert "Traceback" not in text


@pytest.mark.skipif(os.geteuid() != 0, reason="mounts a file system that cannot be written")
def test_a_store_on_a_read_only_file_system_is_told_in_a_sentence(config: Path, tmp_path: Path) -> None:
    """The start ends with a sentence that names the path, with and without a store there."""
    folder = tmp_path / "ro"
    folder.mkdir()
    config.write_text(config.read_text().replace("events.db", "ro/events.db"))
    if subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "ro", "none", folder], check=False, capture_output=True
    ).returncode:
        pytest.skip("this machine lets nobody mount")
    try:
        code, text = run("run", "-c", config)
        assert code == 1
        assert "Read-only file system" in text
        assert "Traceback" not in text
        subprocess.run(["mount", "-o", "remount,rw", folder], check=True)
        schema.open_writer(folder / "events.db").close()
        subprocess.run(["mount", "-o", "remount,ro", folder], check=True)
        code, text = run("run", "-c", config)
        assert code == 1
        assert "Read-only file system" in text
        assert "Traceback" not in text
    finally:
        subprocess.run(["umount", folder], check=True)


@pytest.mark.skipif(os.geteuid() != 0, reason="mounts a file system that is full")
def test_a_full_disk_is_found_before_the_start(config: Path, tmp_path: Path) -> None:
    """Check fails for a store and for a file sink whose disk has no room, names it, and gives 1."""
    folder = tmp_path / "small"
    folder.mkdir()
    sink = f'[[sinks]]\nname = "audit"\ntype = "file"\npath = "{folder}/audit.jsonl"\n'
    config.write_text(config.read_text().replace("events.db", "small/events.db") + sink)
    if subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=4m", "none", folder], check=False, capture_output=True
    ).returncode:
        pytest.skip("this machine lets nobody mount")
    try:
        code, text = run("check", "-c", config)
        assert code == 0
        assert "small/events.db: will be created" in text
        (folder / "ballast").write_bytes(bytes(4_000_000))
        code, text = run("check", "-c", config)
        failed = [line for line in text.splitlines() if line.startswith(FAILED_MARK)]
        assert code == 1
        assert [line.split("\t")[1] for line in failed] == ["store", 'sink "audit"']
        assert all("its disk is full (" in line and line.endswith("; make room on it") for line in failed)
    finally:
        subprocess.run(["umount", folder], check=True)
