"""Short files: read once, within a time and a size, whatever is in their place."""

from __future__ import annotations

import os
import subprocess
import threading
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from reserve_listener.config import Config, SinkTable, reading
from reserve_listener.config.reading import SecretFiles, read_within
from reserve_listener.errors import ConfigError
from reserve_listener.simulator import patience
from reserve_listener.sinks.http.kind import HttpSettings, headers_of
from reserve_listener.sinks.registry import make_sink_spec
from tests.configuring import CONTEXT, as_settings, load
from tests.daemon_process import COMMAND, environment

if TYPE_CHECKING:
    from collections.abc import Iterator

LARK = '[lark]\napp_id = "cli_x"\n'
HTTP = """
[[sinks]]
name = "h"
type = "http"
url = "http://127.0.0.1:1/x"
bearer_token_file = "bearer"
signing_secret_file = "keys"
header_files = { x-key = "header" }
"""
FILES = {
    "bearer": "b34rer-value",
    "keys": "whsec_AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=",
    "header": "h34der-value",
}


@pytest.fixture(autouse=True)
def in_a_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The secrets of an http sink, and a configuration that names them."""
    monkeypatch.chdir(tmp_path)
    for name, text in FILES.items():
        Path(name).write_text(f"{text}\n")
    Path("config.toml").write_text(LARK + 'app_secret = "s3cret"\n' + HTTP)


def config() -> Config:
    return load(environ={})


def http(config: Config) -> SinkTable:
    return config.sinks[0]


async def _write(_: object) -> None:
    """No log sink is among them."""


def test_a_file_is_read_to_its_bound() -> None:
    """Up to the bound all of it, beyond it one byte more, so that the reader can tell."""
    Path("file").write_bytes(b"x" * 10)
    assert read_within(Path("file"), 10) == b"x" * 10
    assert read_within(Path("file"), 9) == b"x" * 10
    assert read_within(Path("file"), 5) == b"x" * 6


@pytest.mark.parametrize("kind", ["pipe", "device", "folder", "missing"])
def test_what_is_no_regular_file_is_refused_at_once(kind: str) -> None:
    """A pipe without a writer, an endless device, a folder: an error, and nobody waits."""
    path = Path("/dev/zero") if kind == "device" else Path(kind)
    if kind == "pipe":
        os.mkfifo(path)
    elif kind == "folder":
        path.mkdir()
    with pytest.raises(OSError, match=r"not a regular file|Is a directory|No such file"):
        read_within(path, 10)


@pytest.fixture
def dead_disk(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """A file system that does not answer, until the test is over; the paths that were asked for."""
    asked, over = [], threading.Event()

    def hangs(path: str, _size: int) -> bytes:
        asked.append(str(path))
        over.wait(60)
        return b""

    monkeypatch.setattr(reading, "_content", hangs)
    monkeypatch.setattr(reading, "WITHIN_S", 0.2)
    monkeypatch.setattr(reading, "LEAST_S", 0.02)
    yield asked
    over.set()


def test_a_disk_that_hangs_is_an_error_in_time(dead_disk: list[str]) -> None:
    """Reading ends with a reason; of many files each is asked once, and the time is for all of them together."""
    files = SecretFiles()
    for name in ("a", "b", "a"):
        with pytest.raises(TimeoutError, match="does not respond"):
            files.content(Path(name))
    assert dead_disk == ["a", "b"]


def test_one_thread_at_the_most_hangs_for_each_file(dead_disk: list[str]) -> None:
    """Who asks again and again, as each attempt to connect does, leaves no more behind than who asks once."""
    before = set(threading.enumerate())
    for _ in range(5):
        with pytest.raises(TimeoutError):
            read_within(Path("a"), 10, within_s=0.02)
    assert dead_disk == ["a"]
    assert len(set(threading.enumerate()) - before) == 1


def test_an_app_secret_on_a_disk_that_hangs(dead_disk: list[str]) -> None:
    """What each attempt to connect reads anew has an end, too, and is told with its key."""
    lark = Config.model_validate({"lark": {"app_id": "a", "app_secret_file": "secret"}}, context=CONTEXT).lark
    with pytest.raises(
        ConfigError, match=r"lark\.app_secret_file: cannot read secret: the file system does not respond"
    ):
        lark.read_app_secret()
    assert dead_disk == ["secret"]


PLACES_OF_CERTIFICATES = {
    "ca_bundle": HTTP + 'ca_bundle = "pipe"\n',
    "client_cert": HTTP + 'client_cert_file = "pipe"\n',
    "SSL_CERT_FILE": HTTP,
    "tls_cert_file": '[webhook]\nverification_token = "t0kent0ken"\ntls_cert_file = "pipe"\n',
}


@pytest.mark.parametrize("place", PLACES_OF_CERTIFICATES)
@pytest.mark.parametrize("command", ["check", "run"])
def test_a_pipe_in_the_place_of_certificates_hangs_no_command(place: str, command: str) -> None:
    """OpenSSL would wait for it for ever: exit code 78, and a line that names it."""
    os.mkfifo("pipe")
    more = PLACES_OF_CERTIFICATES[place].replace("http://127.0.0.1:1", "https://localhost:1")
    transport = 'transport = "webhook"\n' if "[webhook]" in more else 'app_secret = "s3cret"\n'
    Path("config.toml").write_text(LARK + transport + '[store]\nurl = "sqlite:///events.db"\n' + more)
    extra = {"SSL_CERT_FILE": "pipe"} if place == "SSL_CERT_FILE" else {}
    done = subprocess.run(
        [*COMMAND, command, "-c", "config.toml"],
        capture_output=True,
        text=True,
        timeout=patience(60),
        env=environment(**extra),
        check=False,
    )
    assert done.returncode == 78, done.stdout + done.stderr
    assert place in done.stdout + done.stderr
    assert "it is not a regular file" in done.stdout + done.stderr


@pytest.mark.parametrize("name", [*FILES, "config.toml"])
@pytest.mark.parametrize("command", ["check", "run"])
def test_a_pipe_in_the_place_of_a_file_hangs_no_command(name: str, command: str) -> None:
    """It is an error of the configuration that names the file, and the command ends."""
    Path(name).unlink()
    os.mkfifo(name)
    done = subprocess.run(
        [*COMMAND, command, "-c", "config.toml"],
        capture_output=True,
        text=True,
        timeout=patience(60),
        env=environment(),
        check=False,
    )
    assert done.returncode == 78, done.stderr
    assert f"{name}" in done.stdout + done.stderr
    assert "it is not a regular file" in done.stdout + done.stderr


def test_secrets_are_read_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Loading, masking, the sink and its fingerprint rest on one read of each file."""
    opened: list[str] = []
    really = reading._content

    def noting(path: str, size: int) -> bytes:
        opened.append(Path(path).name)
        return really(path, size)

    monkeypatch.setattr(reading, "_content", noting)
    monkeypatch.delenv("SSL_CERT_FILE", raising=False)  # looked at, too, but no secret
    loaded = config()
    loaded.secret_texts()
    make_sink_spec(loaded.sinks[0], _write)
    assert sorted(opened) == ["bearer", "config.toml", "header", "keys"]


@pytest.mark.parametrize("name", FILES)
def test_what_is_used_is_what_is_masked(name: str) -> None:
    """A file that changes right after it was read changes nothing until the next load, which then sees another sink."""
    before = config()
    spec = make_sink_spec(before.sinks[0], _write)
    Path(name).write_text({"keys": FILES["keys"].replace("AAEC", "BBBB")}.get(name, "another-value"))
    assert FILES[name] in before.secret_texts()
    assert make_sink_spec(before.sinks[0], _write).settings == spec.settings
    settings, secrets = as_settings(HttpSettings, http(before)), http(before).read_secrets()
    used = (
        *headers_of(settings, secrets).values(),
        *(s.get_secret_value() for s in secrets["signing_secret_file"]),
    )
    assert any(FILES[name] in each for each in used)
    after = config()
    assert after == before  # the settings are the same, and what the files hold is not one of them
    assert make_sink_spec(after.sinks[0], _write).settings != spec.settings
    assert FILES[name] not in after.secret_texts()
