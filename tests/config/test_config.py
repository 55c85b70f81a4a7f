"""Configuration: what is taken, from where, and how mistakes are told."""

from __future__ import annotations

import base64
import copy
import errno
import os
import re
import shlex
import stat
import subprocess
import tomllib
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import pytest
from hypothesis import HealthCheck, given, settings as hypothesis_settings, strategies as st
from pydantic import BaseModel, ValidationError

from reserve_listener.config import (
    Config,
    LarkConfig,
    find_config,
    signing_key,
)
from reserve_listener.config.default_store import default_store
from reserve_listener.config.environment import section_models, variable
from reserve_listener.config.reading import SecretFiles
from reserve_listener.config.secret_files import read_secret, read_signing_secrets
from reserve_listener.errors import ConfigError
from reserve_listener.sinks.kinds import KINDS
from tests.configuring import CONTEXT, TYPES, json_schema, load, load_explained, locate, made, model_of

ROOT = Path(__file__).parents[2]
HIDDEN = "hunter2-hidden"
WHSEC = "whsec_" + base64.b64encode(bytes(range(32))).decode()
LARK = '[lark]\napp_id = "cli_a"\napp_secret = "s"\n'
SINK_MODELS = {name: model_of(name) for name in KINDS.built_in}


@pytest.fixture(autouse=True)
def _empty_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(
        "reserve_listener.config.loading.PLACES", (Path("config.toml"), tmp_path / "etc/config.toml")
    )


def loaded(text: str = LARK, **environ: str) -> Config:
    Path("config.toml").write_text(text, encoding="utf-8")
    return load(environ=environ)


def mistakes(text: str = LARK, **environ: str) -> str:
    with pytest.raises(ConfigError) as caught:
        loaded(text, **environ)
    assert HIDDEN not in str(caught.value)
    assert caught.value.__context__ is None or HIDDEN not in repr(caught.value.__context__)
    assert caught.value.exit_code == 78
    return str(caught.value)


# What is taken


def test_a_store_on_a_server_is_reached_by_its_url_alone(tmp_path: Path) -> None:
    """The file of the password stands in it, so that whoever opens the store finds it; with SQLite there is no password."""
    file = tmp_path / "config.toml"
    file.write_text(f'{LARK}[store]\nurl = "postgresql://u@h/d?sslmode=require"\npassword_file = "/etc/p w"')
    config = load(file, environ={})
    assert config.store.url == "postgresql://u@h/d?sslmode=require&password_file=/etc/p%20w"
    assert config.store.path is None
    file.write_text(f'{LARK}[store]\nurl = "sqlite:///x.db"\npassword_file = "/etc/p"')
    with pytest.raises(ConfigError, match="password_file is for a url with postgresql"):
        load(file, environ={})


def test_defaults() -> None:
    """With an app's id and secret alone everything else has the documented default."""
    config = loaded()
    assert config.lark.app_secret is not None
    assert config.lark.app_secret.get_secret_value() == "s"
    assert config.model_dump(exclude={"lark": {"app_secret"}}) == {
        "lark": {
            "app_id": "cli_a",
            "app_secret_file": None,
            "domain": "https://open.feishu.cn",
            "language": None,
            "transport": "long_connection",
            "backoff_base": 1,
            "backoff_cap": 60,
            "refused_backoff": 300,
            "endpoint_timeout": 10,
            "liveness_timeout": 60,
            "proxy": None,
        },
        "store": {
            "url": f"sqlite:///{default_store({})[0]}",
            "password_file": None,
            "retention_days": 30,
            "history_days": 400,
            "max_size_mb": 4096,
        },
        "rooms": {
            "names": True,
            "people_names": False,
            "reconcile": True,
            "reconcile_every": 86_400,
            "requests_per_minute": 80,
        },
        "delivery": {"drain_timeout": 10},
        "log": {"level": "info"},
        "sinks": (
            {
                "name": "console",
                "type": "log",
                "retry": {"base": 1, "cap": 3600, "max_attempts": None, "max_age": 259_200},
                "scope_type": None,
                "scope_ids": None,
                "tenants": None,
                "changes_in": None,
                "events": True,
            },
        ),
        "webhook": None,
        "status": None,
        "alerts": {"sinks": (), "disconnected_after": 600, "oldest_pending": 900, "repeat": 21_600},
        "heartbeat": None,
    }


@pytest.mark.parametrize(
    ("given", "spoken"),
    [
        ("", "zh"),
        ('domain = "https://open.larksuite.com"', "en"),
        ('domain = "http://localhost:1"', "en"),
        ('domain = "https://notfeishu.cn"', "en"),
        ('language = "en"', "en"),
        ('domain = "https://open.larksuite.com"\nlanguage = "zh"', "zh"),
    ],
)
def test_the_language_is_the_platforms_unless_said(given: str, spoken: str) -> None:
    """Chinese on feishu.cn, English elsewhere."""
    assert loaded(LARK + given).lark.tells_in == spoken


@pytest.mark.parametrize(
    ("wanted", "said"),
    [
        ('["time_config.max_duraton"]', 'did you mean "time_config.max_duration"?'),
        ('["time_confg"]', 'did you mean "time_config"?'),
        ('["limits.max"]', "there is no such section"),
        ('["max duration"]', "a section or a path"),
        ("[]", "changes_in"),
    ],
)
def test_changes_that_cannot_be_are_refused(wanted: str, said: str) -> None:
    """A typing error would let nothing through, silently."""
    assert said in mistakes(LARK + f'[[sinks]]\nname = "a"\ntype = "log"\nchanges_in = {wanted}')


@pytest.mark.parametrize(
    "wanted", ["*", "time_config", "approve_config.approvers", "quiet_hours", "time_config.new"]
)
def test_changes_that_may_be(wanted: str) -> None:
    """Any change, a section, a path, and what the platform may add one day."""
    text = LARK + f'[[sinks]]\nname = "a"\ntype = "log"\nchanges_in = ["{wanted}"]'
    assert loaded(text).sinks[0].changes_in == (wanted,)


@pytest.mark.parametrize(
    ("key", "wrong", "right"),
    [
        ("requests_per_minute", "101", 100),
        ("requests_per_minute", "0", 1),
        ("reconcile_every", "59.9", 60.0),
        ("reconcile_every", "31536001", 31_536_000.0),
        ("people_names", '"yes"', True),
    ],
)
def test_what_is_asked_about_rooms_has_bounds(key: str, wrong: str, right: float) -> None:
    """The platform's own limit is not exceeded, and a typing error does not have it asked every second."""
    assert f"rooms.{key}" in mistakes(LARK + f"[rooms]\n{key} = {wrong}")
    written = str(right).lower()
    assert getattr(loaded(LARK + f"[rooms]\n{key} = {written}").rooms, key) == right


def test_sinks_of_every_type() -> None:
    """Each type of sink gets its own model with its own defaults."""
    config = loaded(
        LARK + '[[sinks]]\nname="a"\ntype="log"\n[[sinks]]\nname="b"\ntype="file"\npath="e.jsonl"\n'
        '[[sinks]]\nname="c"\ntype="http"\nurl="http://h:8080/x?y=1"\n'
    )
    assert config.sinks == (
        made("log", name="a"),
        made("file", name="b", path=Path("e.jsonl")),
        made("http", name="c", url="http://h:8080/x?y=1", timeout=10, max_in_flight=16),
    )


def test_an_empty_list_of_sinks_is_the_default_one() -> None:
    """`sinks = []` leaves nobody without events: it means the same as no sinks at all."""
    assert loaded("sinks = []\n" + LARK).sinks == (made("log", name="console"),)


def test_one_underscore_between_section_and_key_is_an_error() -> None:
    """The name that was meant is said; other names with the prefix are not ours."""
    said = mistakes(
        RESERVE_LISTENER_LARK_APP_ID="cli_b",
        RESERVE_LISTENER_STORE_MAX_SIZE_MB="9",
        RESERVE_LISTENER_HOME="/",
    )
    assert "RESERVE_LISTENER_LARK_APP_ID: section and key are separated by two underscores" in said
    assert said.splitlines()[0].endswith("RESERVE_LISTENER_LARK__APP_ID")
    assert said.splitlines()[1].endswith("RESERVE_LISTENER_STORE__MAX_SIZE_MB")
    assert "RESERVE_LISTENER_HOME" not in said


@pytest.mark.parametrize(
    ("url", "path"),
    [
        ("sqlite:///events.db", "events.db"),
        ("sqlite:////var/x/events.db", "/var/x/events.db"),
        ("sqlite:///a b/é.db", "a b/é.db"),
    ],
)
def test_store_paths(url: str, path: str) -> None:
    """Three slashes are relative to the working directory, four absolute."""
    assert loaded(LARK + f'[store]\nurl = "{url}"').store.path == Path(path)


def test_store_in_the_state_directory() -> None:
    """Under systemd the store goes to the unit's first state directory, unless the file says otherwise."""
    environ = {"STATE_DIRECTORY": "/var/lib/private/rl:/var/lib/other"}
    assert loaded(**environ).store.path == Path("/var/lib/private/rl/events.db")
    assert loaded(LARK + '[store]\nurl = "sqlite:///x.db"', **environ).store.path == Path("x.db")


@pytest.mark.parametrize(
    ("given_url", "normal"),
    [
        ("https://open.larksuite.com/", "https://open.larksuite.com"),
        ("http://localhost:8080", "http://localhost:8080"),
        ("http://127.0.0.1:1", "http://127.0.0.1:1"),
        ("http://127.9.9.9", "http://127.9.9.9"),
        ("http://[::1]:8080/", "http://[::1]:8080"),
    ],
)
def test_domains(given_url: str, normal: str) -> None:
    """A domain is https, or http on this machine, and comes without a slash at its end."""
    assert loaded(LARK + f'domain = "{given_url}"').lark.domain == normal


def test_a_proxy_is_a_secret() -> None:
    """A proxy may hold a password, which then shows nowhere."""
    config = loaded(LARK + f'proxy = "http://user:{HIDDEN}@proxy:3128"')
    assert config.lark.proxy is not None
    assert config.lark.proxy.get_secret_value() == f"http://user:{HIDDEN}@proxy:3128"
    assert HIDDEN not in repr(config)
    assert {HIDDEN, f"user:{HIDDEN}"} <= set(config.secret_texts())


@pytest.mark.parametrize("login", ["t0ken-of-proxy", "t0ken-of-proxy:", "t0ken%2Dof-proxy:"])
def test_a_proxys_user_without_a_password_is_a_token(login: str) -> None:
    """A token in the user's place is masked alone too, whether or not the colon of an empty password follows."""
    texts = loaded(LARK + f'proxy = "http://{login}@proxy:3128"').secret_texts()
    assert {"t0ken-of-proxy", login.removesuffix(":")} <= set(texts)


def test_an_empty_login_of_a_proxy_masks_no_colons() -> None:
    """Nothing is secret in `http://:@proxy` that other texts are made of, too."""
    assert ":" not in loaded(LARK + 'proxy = "http://:@proxy:3128"').secret_texts()


def test_byte_order_mark() -> None:
    """A file that an editor on Windows has saved is read."""
    assert loaded("\ufeff" + LARK).lark.app_id == "cli_a"


def test_models_by_hand() -> None:
    """A configuration can be built without a file; wrong sinks are refused there, too."""
    config = Config.model_validate({"lark": {"app_id": "a"}}, context=CONTEXT)
    assert config.sinks[0].name == "console"
    twin = {"name": "a", "type": "log"}
    with pytest.raises(ValidationError, match="names must be unique"):
        Config.model_validate({"lark": {"app_id": "a"}, "sinks": [twin, twin]}, context=CONTEXT)


# Where the file is


def test_find_config(tmp_path: Path) -> None:
    """-c goes before $RESERVE_LISTENER_CONFIG, that before ./config.toml, that before /etc."""
    named = {"RESERVE_LISTENER_CONFIG": "named.toml"}
    assert find_config(None, {}) is None
    (tmp_path / "etc").mkdir()
    (tmp_path / "etc/config.toml").touch()
    assert find_config(None, {}) == tmp_path / "etc/config.toml"
    Path("config.toml").touch()
    assert find_config(None, {"RESERVE_LISTENER_CONFIG": ""}) == Path("config.toml")
    assert find_config(None, named) == Path("named.toml")
    assert find_config(Path("x.toml"), named) == Path("x.toml")


def test_a_place_that_cannot_be_looked_at_is_not_passed_over(monkeypatch: pytest.MonkeyPatch) -> None:
    """A file that is there but closed to us is an error, not a reason to take another one."""

    def closed(path: Path) -> None:
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(Path, "stat", closed)
    assert find_config(None, {}) == Path("config.toml")


def test_without_a_file_the_environment_suffices() -> None:
    """No file is needed when the environment says it all."""
    environ = {"RESERVE_LISTENER_LARK__APP_ID": "cli_e", "RESERVE_LISTENER_LARK__APP_SECRET": "s"}
    assert load(environ=environ).lark.app_id == "cli_e"


def test_without_anything() -> None:
    """With nothing configured the file is what is missing: where it was looked for, how to begin, and no list of keys."""
    with pytest.raises(ConfigError) as caught:
        load(environ={})
    text = str(caught.value)
    assert text.startswith("configuration: no file was found")
    assert len(text.splitlines()) == 1
    for expected in ("$RESERVE_LISTENER_CONFIG", "etc/config.toml", "`reserve-listener config init`"):
        assert expected in text


# Environment


def test_environment_over_file() -> None:
    """A variable goes over the file, as the type of its key."""
    config = loaded(
        LARK + "backoff_base = 3",
        RESERVE_LISTENER_LARK__BACKOFF_BASE="2.5",
        RESERVE_LISTENER_DELIVERY__DRAIN_TIMEOUT="0",
        RESERVE_LISTENER_STORE__URL="sqlite:///env.db",
        RESERVE_LISTENER_UNRELATED="names without two underscores are no keys",
    )
    assert (config.lark.backoff_base, config.delivery.drain_timeout) == (2.5, 0)
    assert config.store.path == Path("env.db")


@pytest.mark.parametrize("section", sorted(section_models()))
def test_every_key_has_a_variable(section: str) -> None:
    """Each key of each section can be set from the environment; only the sinks are for the file alone."""
    for key in section_models()[section].model_fields:
        text = mistakes(LARK + "nonsense = 1", **{variable(section, key): ""})
        assert "unknown; did" not in text


@pytest.mark.parametrize("in_file", ["app_secret", "app_secret_file"])
def test_the_environments_form_of_a_secret_wins(in_file: str) -> None:
    """A value in one place and its _file in the other are no contradiction: the environment is taken."""
    Path("secret").write_text("from-file\n", encoding="utf-8")
    other = {"app_secret": "secret", "app_secret_file": "value"}[in_file]
    name = {"app_secret": "APP_SECRET_FILE", "app_secret_file": "APP_SECRET"}[in_file]
    config = loaded(f'[lark]\napp_id = "a"\n{in_file} = "nope"', **{f"RESERVE_LISTENER_LARK__{name}": other})
    assert (
        config.lark.read_app_secret().get_secret_value() == {"secret": "from-file", "value": "value"}[other]
    )


@pytest.mark.parametrize(
    ("environ", "expected"),
    [
        (
            {"LARK__APP_IDD": "x"},
            "RESERVE_LISTENER_LARK__APP_IDD: unknown; did you mean RESERVE_LISTENER_LARK__APP_ID?",
        ),
        ({"lark__app_id": "x"}, "unknown; did you mean RESERVE_LISTENER_LARK__APP_ID?"),
        ({"SINKS__0__URL": "x"}, "sinks can be configured only in the file"),
        ({"__": "x"}, "environment: RESERVE_LISTENER___: unknown"),
        (
            {"LARK__LIVENESS_TIMEOUT": "soon"},
            'RESERVE_LISTENER_LARK__LIVENESS_TIMEOUT: must be a number, found "soon"',
        ),
        (
            {"LARK__BACKOFF_CAP": "inf"},
            "RESERVE_LISTENER_LARK__BACKOFF_CAP: must be a finite number, found inf",
        ),
        ({"LARK__APP_ID": ""}, "RESERVE_LISTENER_LARK__APP_ID: must not be empty"),
        ({"LARK__APP_SECRET": ""}, "RESERVE_LISTENER_LARK__APP_SECRET: must not be empty"),
        (
            {"LARK__APP_SECRET": f"\udcff{HIDDEN}"},
            "RESERVE_LISTENER_LARK__APP_SECRET: must be one line of UTF-8 text",
        ),
        (
            {"WEBHOOK__TRUSTED_PROXIES": "10.0.0.0/8, nowhere"},
            'RESERVE_LISTENER_WEBHOOK__TRUSTED_PROXIES: must be addresses or networks, such as 10.0.0.0/8; "nowhere" is not one',
        ),
        (
            {"WEBHOOK__ALLOW_UNAUTHENTICATED": "yes"},
            "RESERVE_LISTENER_WEBHOOK__ALLOW_UNAUTHENTICATED: must be true or false",
        ),
        (
            {"STATUS__LISTEN": "h"},
            'RESERVE_LISTENER_STATUS__LISTEN: must be "host:port"',
        ),
        (
            {"LARK__APP_SECRET": HIDDEN, "LARK__APP_SECRET_FILE": "x"},
            "RESERVE_LISTENER_LARK__APP_SECRET and RESERVE_LISTENER_LARK__APP_SECRET_FILE: both are given",
        ),
    ],
)
def test_mistakes_in_the_environment(environ: dict[str, str], expected: str) -> None:
    """A mistake in the environment is told with the variable's name."""
    text = mistakes(**{f"RESERVE_LISTENER_{name}": value for name, value in environ.items()})
    assert expected in text
    assert "environment: " in text


# Secrets


@pytest.mark.parametrize("content", [b"s3cret", b"s3cret\n", b"s3cret\r\n", b"\xef\xbb\xbfs3cret\n"])
def test_secret_files(content: bytes) -> None:
    """The newline at the end of a secret's file is not part of the secret."""
    Path("file").write_bytes(content)
    assert read_secret(Path("file")).get_secret_value() == "s3cret"


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"", "is empty"),
        (b"\n", "is empty"),
        (b" \n", "is empty"),
        (HIDDEN.encode() + b"\nsecond", "has more than one line"),
        (HIDDEN.encode() + b"\xff", "is not UTF-8 text"),
        (HIDDEN.encode() * 10_000, "is larger than"),
    ],
)
def test_wrong_secret_files(content: bytes, expected: str) -> None:
    """What is wrong with a secret's file is told with key and path, and without its content."""
    Path("file").write_bytes(content)
    text = mistakes('[lark]\napp_id = "a"\napp_secret_file = "./file"')
    assert text.startswith("config.toml: lark.app_secret_file: ")
    assert expected in text
    assert "file" in text


@pytest.mark.parametrize(
    ("name", "expected"), [("./nope", "No such file"), ("./", "Is a directory"), ("a\\u0000b", "null")]
)
def test_secret_files_that_cannot_be_read(name: str, expected: str) -> None:
    """A secret's file that is missing or no file is one line, not a traceback."""
    assert expected in mistakes(f'[lark]\napp_id = "a"\napp_secret_file = "{name}"')


@pytest.mark.parametrize(
    "text",
    [
        '[lark]\napp_id = "a"\napp_secret_file = "my secret"',
        LARK + '[status]\ntoken_file = "my secret"',
        LARK + '[heartbeat]\nurl_file = "my secret"',
        LARK + '[[sinks]]\nname = "h"\ntype = "http"\nurl = "https://h"\nheader_files = { X = "my secret" }',
    ],
)
def test_a_missing_secret_file_is_created_as_the_error_says(text: str) -> None:
    """The command in the message makes a file that only its owner reads, and the key is satisfied."""
    command = re.findall("create it with `([^`]+)`", mistakes(text))
    assert len(command) == 1
    subprocess.run(shlex.split(command[0]), input=b"https://example.com/1\n", check=True)
    assert stat.S_IMODE(Path("my secret").stat().st_mode) == 0o600
    loaded(text)


def test_a_secret_file_of_somebody_else_is_told_so(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whose it must be, and with what mode. Root may read everything, so the refusal is a fake."""
    refused = PermissionError(errno.EACCES, os.strerror(errno.EACCES))
    monkeypatch.setattr(SecretFiles, "content", Mock(side_effect=refused))
    text = mistakes('[lark]\napp_id = "a"\napp_secret_file = "./file"')
    assert (
        "cannot read file: Permission denied; it must belong to the user that runs the daemon (mode 0600)"
        in text
    )


def test_credentials_go_before_the_working_directory(tmp_path: Path) -> None:
    """A name without a slash is a systemd credential first; one with a slash never is."""
    credentials = tmp_path / "credentials"
    credentials.mkdir()
    for path in (credentials / "name", Path("name")):
        path.write_text(str(path.parent), encoding="utf-8")
    environ = {"CREDENTIALS_DIRECTORY": str(credentials)}

    def secret(name: str, environ: dict[str, str]) -> LarkConfig:
        return loaded(f'[lark]\napp_id = "a"\napp_secret_file = "{name}"', **environ).lark

    assert secret("name", environ).read_app_secret().get_secret_value() == str(credentials)
    assert secret("name", environ).app_secret_is_credential
    assert secret("./name", environ).read_app_secret().get_secret_value() == "."
    assert not secret("./name", environ).app_secret_is_credential
    (credentials / "name").unlink()
    assert secret("name", environ).read_app_secret().get_secret_value() == "."


def test_the_credential_app_secret(tmp_path: Path) -> None:
    """The unit's credential is taken when no key says otherwise."""
    (tmp_path / "app_secret").write_text("credential\n", encoding="utf-8")
    environ = {"CREDENTIALS_DIRECTORY": str(tmp_path)}
    lark = loaded('[lark]\napp_id = "a"', **environ).lark
    assert lark.app_secret is not None
    assert lark.app_secret.get_secret_value() == "credential"
    assert lark.app_secret_is_credential
    assert not loaded(**environ).lark.app_secret_is_credential


def test_secret_is_read_again() -> None:
    """After a refusal a changed secret is found; a file that is gone is a readable error."""
    file = Path("secret")
    file.write_text("old", encoding="utf-8")
    lark = loaded('[lark]\napp_id = "a"\napp_secret_file = "secret"').lark
    file.write_text("new", encoding="utf-8")
    assert lark.read_app_secret().get_secret_value() == "new"
    file.unlink()
    with pytest.raises(ConfigError, match=r"lark\.app_secret_file: cannot read secret: No such file"):
        lark.read_app_secret()
    with pytest.raises(ConfigError, match=r"lark\.app_secret: not set"):
        LarkConfig(app_id="a").read_app_secret()


def test_signing_secrets() -> None:
    """All whsec_ secrets of the file are given, and what may not be logged of them."""
    second = "whsec_" + base64.b64encode(b"x" * 64).decode()
    Path("keys").write_text(f"{WHSEC}\n\n{second}\r\n", encoding="utf-8")
    config = loaded(LARK + '[[sinks]]\nname="h"\ntype="http"\nurl="https://h"\nsigning_secret_file="keys"')
    sink = config.sinks[0]
    secrets = sink.read_secrets()["signing_secret_file"]
    assert [signing_key(secret) for secret in secrets] == [bytes(range(32)), b"x" * 64]
    assert {"s", WHSEC, WHSEC.removeprefix("whsec_"), second} <= set(config.secret_texts())
    Path("keys").unlink()
    assert sink.read_secrets()["signing_secret_file"] == secrets
    unread = sink.model_validate(sink.model_dump())
    with pytest.raises(ConfigError, match='sink "h": signing_secret_file: cannot read keys'):
        unread.read_secrets()


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", "is empty"),
        (f"{WHSEC}\n{HIDDEN}", "line 2: does not begin with whsec_"),
        (f"whsec_{HIDDEN}!", "line 1: is not base64"),
        (
            "whsec_" + base64.b64encode(b"x" * 23).decode(),
            "line 1: decodes to 23 bytes; 24 to 64 are allowed",
        ),
        ("whsec_" + base64.b64encode(b"x" * 65).decode(), "65 bytes"),
        ("whsec_é", "is not base64"),
    ],
)
def test_wrong_signing_secrets(text: str, expected: str) -> None:
    """A signing secret that no receiver could verify is refused at start, with its line and not its value."""
    Path("keys").write_text(text, encoding="utf-8")
    with pytest.raises(ConfigError, match=expected):
        read_signing_secrets(Path("keys"))
    told = mistakes(LARK + '[[sinks]]\nname="h"\ntype="http"\nurl="https://h"\nsigning_secret_file="keys"')
    assert told.startswith('config.toml: sinks[0] "h".signing_secret_file: keys')


def test_secrets_show_nowhere() -> None:
    """Neither repr nor a dump of the configuration holds a secret."""
    config = loaded(f'[lark]\napp_id = "a"\napp_secret = "{HIDDEN}"')
    assert HIDDEN not in f"{config!r} {config} {config.model_dump()} {config.model_dump_json()}"
    assert HIDDEN in config.secret_texts()


# Mistakes


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ('[lark]\napp_secret = "s"', "config.toml: lark.app_id: missing"),
        (
            '[lark]\napp_id = ""\napp_secret = "s"',
            "config.toml: lark.app_id: must not be empty, found an empty string",
        ),
        ('[lark]\napp_id = "a"', "config.toml: lark.app_secret: missing; set app_secret_file"),
        ("lark = 3", "config.toml: lark: must be a section, [lark], found a number"),
        ("[[lark]]\napp_id = 'a'", "lark: must be a section, [lark], found an array"),
        (LARK + "backoff_bse = 1", 'lark.backoff_bse: unknown key; did you mean "backoff_base"?'),
        (
            LARK + "drain_timeout = 1",
            'lark.drain_timeout: unknown key; did you mean "delivery.drain_timeout"?',
        ),
        (LARK + "[stor]\nurl = 1", 'config.toml: stor: unknown key; did you mean "store"?'),
        ('app_id = "a"\n' + LARK, 'config.toml: app_id: unknown key; did you mean "lark.app_id"?'),
        (LARK + "[store]\nzzz = 1", "store.zzz: unknown key; the keys here are url"),
        (LARK + "[zzz]\na = 1", "zzz: unknown key; the sections here are lark, store"),
        (LARK + '"a\\nb" = 1', 'lark."a\\nb": unknown key'),
        (
            LARK + 'transport = "long_conection"',
            'must be one of "long_connection", "webhook", found "long_conection"; did you mean "long_connection"?',
        ),
        (LARK + "transport = 1", 'must be one of "long_connection", "webhook", found 1'),
        (LARK + "backoff_base = '1'", 'lark.backoff_base: must be a number, found "1"'),
        (LARK + "backoff_base = true", "lark.backoff_base: must be a number, found true"),
        (LARK + "backoff_base = 0", "lark.backoff_base: must be more than 0, found 0"),
        (LARK + "backoff_base = 1979-05-27", "lark.backoff_base: must be a number, found a date or time"),
        (LARK + "backoff_base = [1]", "lark.backoff_base: must be a number, found an array"),
        (LARK + "backoff_base = 86401", "lark.backoff_base: must be 86400 or less, found 86401"),
        (LARK + "backoff_base = 61", "lark.backoff_cap: must be at least backoff_base (61), found 60.0"),
        (LARK + f"backoff_base = 0x1{'0' * 5000}", "lark.backoff_base: must be"),
        (LARK + "[delivery]\ndrain_timeout = -1", "delivery.drain_timeout: must be 0 or more, found -1"),
        (LARK + 'domain = "http://open.feishu.cn"', "lark.domain: must begin with https://"),
        (LARK + 'domain = "https://open.feishu.cn/x"', "lark.domain: must end after the host"),
        (
            LARK + 'domain = "open.feishu.cn"',
            "lark.domain: must begin with http:// or https://, followed by a host",
        ),
        (LARK + 'domain = "https://h:99999"', "lark.domain: is not a URL"),
        (LARK + 'domain = "https://[::1"', "lark.domain: is not a URL"),
        (LARK + 'domain = "https://a b"', "lark.domain: must be a URL without spaces"),
        (
            LARK + f'domain = "https://u:{HIDDEN}@h"',
            'user name or password, which would show up in logs, found "https://*',
        ),
        (
            LARK + f'proxy = "socks5://u:{HIDDEN}@h"',
            "lark.proxy: socks5 proxies are not supported: must be http(s)://[",
        ),
        (LARK + f'proxy = "http://u:{HIDDEN}@h/x"', "lark.proxy: cannot be read: must be http(s)://["),
        (
            f'[lark]\napp_id = "a"\napp_secret = ["{HIDDEN}"]',
            "lark.app_secret: must be a string in quotes, found an array",
        ),
        (
            f'[lark]\napp_id = "a"\napp_secrt = "{HIDDEN}"',
            'lark.app_secrt: unknown key; did you mean "app_secret"?',
        ),
        (
            f'[lark]\napp_id = "a"\napp_secret = "{HIDDEN}"\napp_secret_file = "f"',
            "both are given; keep one of them",
        ),
        ('[lark]\napp_id = "a"\napp_secret_file = ""', "lark.app_secret_file: must name a file"),
        (LARK + '[store]\nurl = "sqlite:///"', "store.url: must name a file"),
        (LARK + '[store]\nurl = "sqlite:///:memory:"', "a store in memory would lose its events"),
        (LARK + '[store]\nurl = "sqlite://events.db"', 'must be "sqlite:///relative/file.db" or'),
        (LARK + '[store]\nurl = "sqlite:///x.db?mode=ro"', "must not have options"),
        (LARK + f'[store]\nurl = "postgresql://u:{HIDDEN}@h"', "must look like postgresql"),
        (LARK + f'[store]\nurl = "postgresql://u:1@{HIDDEN}@h/d"', '"@" is written %40'),
        (LARK + f'[store]\nurl = "postgresql://u:1/{HIDDEN}@h/d"', '"/" %2F'),
        (LARK + "[store]\nurl = 3", "store.url: must be a string in quotes, found 3"),
        (
            LARK + '[sinks]\nname = "a"',
            "sinks: must be a list of tables, found a table; write [[sinks]], not [sinks]",
        ),
        ("sinks = 3\n" + LARK, "sinks: must be a list of tables, found a number; begin each with [[sinks]]"),
        ("sinks = [3]\n" + LARK, "sinks[0]: must be a table, [[sinks]], found a number"),
        (LARK + '[[sinks]]\nname = "a"', f'sinks[0] "a": type must be one of {TYPES}, missing'),
        (LARK + '[[sinks]]\nname = "a"\ntype = "htp"', 'found "htp"; did you mean "http"?'),
        (
            LARK + '[[sinks]]\nname = "a"\ntype = 3',
            f'sinks[0] "a": type must be one of {TYPES}, found 3',
        ),
        (LARK + '[[sinks]]\ntype = "log"', "sinks[0].name: missing; give every sink a unique name"),
        (
            LARK + '[[sinks]]\nname = "Bad Name"\ntype = "log"',
            'sinks[0] "Bad Name".name: must be 1 to 64 characters from a-z',
        ),
        (LARK + '[[sinks]]\nname = "a\\n"\ntype = "log"', 'found "a\\n"'),
        (
            LARK + '[[sinks]]\nname = "a"\ntype = "file"\npth = "x"',
            'sinks[0] "a".pth: unknown key; did you mean "path"?',
        ),
        (LARK + '[[sinks]]\nname = "a"\ntype = "file"', 'sinks[0] "a".path: missing'),
        (LARK + '[[sinks]]\nname = "a"\ntype = "file"\npath = ""', 'sinks[0] "a".path: must name a file'),
        (
            LARK + '[[sinks]]\nname = "a"\ntype = "file"\npath = "d/"',
            'sinks[0] "a".path: must name a file, found "d/"',
        ),
        (
            LARK + '[[sinks]]\nname = "a"\ntype = "http"',
            'sinks[0] "a": url is missing: set url, the URL to post events to, or url_file',
        ),
        (
            LARK + f'[[sinks]]\nname = "a"\ntype = "http"\nurl = "https://u:{HIDDEN}@h"',
            "user name or password",
        ),
        (LARK + f'[[sinks]]\nname = "a"\ntype = "http"\nurl = "ftp://h?t={HIDDEN}"', 'found "ftp://h?*'),
        (
            LARK + '[[sinks]]\nname = "a"\ntype = "http"\nurl = "https://h"\nmax_in_flight = 1.5',
            "a whole number, found 1.5",
        ),
        (
            LARK + '[[sinks]]\nname = "a"\ntype = "log"\n' * 2,
            'sinks: names must be unique; used more than once: "a"',
        ),
        (
            LARK + '[webhook]\nlisten = "0.0.0.0:80"',
            "webhook: listen is 0.0.0.0:80, and without encrypt_key_file",
        ),
        (LARK + '[webhook]\ntls_key_file = "k"', "webhook: tls_key_file has no effect without tls_cert_file"),
        (LARK + "[webhook]\nfreshness = 172800", "webhook.freshness: must be 172740 or less"),
        (LARK + '[webhook]\nallowed_senders = ["1.2.3.4/33"]', "webhook.allowed_senders: must be addresses"),
        (
            LARK + '[status]\nlisten = "0.0.0.0:80"',
            "status: listen is 0.0.0.0:80, and without token_file anybody",
        ),
        (LARK + '[status]\ntls_key_file = "k"', "status: tls_key_file has no effect without tls_cert_file"),
        (LARK + '[status]\nallowed_hosts = ["*.corp"]', "status.allowed_hosts: must be host names"),
        (LARK + '[status]\nallowed_hosts = ["https://a"]', "status.allowed_hosts: must be host names"),
        (LARK + '[status]\npublic_url = "https://a/b"', "status.public_url: must end after the host"),
        (
            LARK + '[status]\ntoken = "a"\ntoken_file = "b"',
            "status.token and status.token_file: both are given",
        ),
        (LARK + '[status]\ntoken = "fifteen-letters"', "status: the token has fewer than 16 characters"),
        (LARK + '[status]\ntoken_file = "/nowhere/b"', "status.token_file: cannot read /nowhere/b"),
        (LARK + '[status]\nlisten = "9464"', 'status.listen: must be "host:port"'),
        (LARK + '[webhook]\nlisten = "::1:80"', "webhook.listen: must be"),
        (LARK + '[webhook]\nlisten = "[::1]:65536"', "webhook.listen: must be"),
        (LARK + '[webhook]\npath = "x"', "webhook.path: must be the path of a URL"),
        (
            LARK + f"[webhook]\nencrypt_key = {{a = '{HIDDEN}'}}",
            "webhook.encrypt_key: must be a string in quotes, found a table",
        ),
        (
            LARK + f"[webhook]\nverification_token = ['{HIDDEN}']",
            "webhook.verification_token: must be a string",
        ),
        (
            "[lark\n",
            "config.toml: not valid TOML: Expected ']' at the end of a table declaration (at line 1, column 6)",
        ),
        (
            f"[lark]\napp_secret = {HIDDEN}",
            "config.toml: not valid TOML: Invalid value (at line 2, column 14)",
        ),
        (f"a = {'9' * 5000}", "config.toml: not valid TOML: Exceeds the limit"),
        (f"a = {'[' * 5000}", "config.toml: nested too deeply"),
    ],
)
def test_mistakes_in_the_file(text: str, expected: str) -> None:
    """Each mistake is one line with file, key, what is allowed and what was found, and never with a secret."""
    told = mistakes(text)
    assert expected in told
    assert all(line.startswith("config.toml: ") for line in told.splitlines())


def test_all_mistakes_at_once() -> None:
    """One run tells all mistakes, each once, also those between keys."""
    text = mistakes(
        '[lark]\napp_idd = "a"\nbackoff_base = 70\n[[sinks]]\nname = "a"\ntype = "lg"\n[[sinks]]\nname = "a"\ntype = "log"\n[status]\nlisten = "9464"\n',
        RESERVE_LISTENER_STORE__ULR="x",
    )
    assert [line.split(": ")[1] for line in text.splitlines()] == [
        "RESERVE_LISTENER_STORE__ULR",
        "lark.app_id",
        "lark.backoff_cap",
        "lark.app_idd",
        'sinks[0] "a"',
        "status.listen",
        "sinks",
        "lark.app_secret",
    ]


@pytest.mark.parametrize(
    ("make", "expected"),
    [
        (lambda path: None, "cannot be read: No such file or directory"),
        (lambda path: path.mkdir(), "is a directory"),
        (lambda path: path.write_bytes(b"[lark]\n# \xff"), "not UTF-8 text (line 2)"),
        (lambda path: path.write_bytes(b"#" * 1_048_577), "not a configuration"),
    ],
)
def test_files_that_cannot_be_read(make: Any, expected: str) -> None:
    """A file that is missing, a directory, binary or huge is told as such."""
    make(Path("other.toml"))
    with pytest.raises(ConfigError) as caught:
        load(Path("other.toml"), environ={})
    assert str(caught.value).startswith("other.toml: ")
    assert expected in str(caught.value)


@pytest.mark.parametrize("name", ["a\0b", "a\nb", "\udcff", "x" * 5000])
def test_odd_file_names(name: str) -> None:
    """A name that no file can have, or that cannot be printed, still gives one printable line."""
    with pytest.raises(ConfigError) as caught:
        load(Path(name), environ={})
    assert str(caught.value).isprintable()


KEYS = st.sampled_from(
    [*Config.model_fields, *(key for model in section_models().values() for key in model.model_fields)]
    + [key for model in SINK_MODELS.values() for key in model.model_fields]
) | st.text(max_size=5)
LEAVES = (
    st.sampled_from(
        ["file", "http", "log", "webhook", "https://h", "http://u:p@h/?q", "a", "", "/", "sqlite:///x"]
    )
    | st.text(max_size=8)
    | st.integers()
    | st.floats()
    | st.booleans()
    | st.dates()
    | st.datetimes()
    | st.times()
)
VALUES = st.recursive(
    LEAVES,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(KEYS, inner, max_size=6),
    max_leaves=30,
)


@given(
    st.dictionaries(KEYS, VALUES, max_size=6) | st.fixed_dictionaries({"sinks": st.lists(VALUES, max_size=3)})
)
@hypothesis_settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
def test_anything_is_valid_or_a_readable_error(
    monkeypatch: pytest.MonkeyPatch, values: dict[str, Any]
) -> None:
    """Whatever TOML can hold, `load` gives a configuration or a ConfigError of printable lines, `locate` a store."""
    # Past the parser, which the table above has; TOML gives these same types.
    monkeypatch.setattr("reserve_listener.config.loading.read_toml", lambda file: copy.deepcopy(values))
    told = ""
    try:
        load(Path("any.toml"), environ={})
    except ConfigError as error:
        told = str(error)
    assert all(line.isprintable() for line in told.split("\n"))
    Path("any.toml").touch()
    monkeypatch.setattr("reserve_listener.config.tolerant.read_toml", lambda file: copy.deepcopy(values))
    assert locate(Path("any.toml"), environ={}).store.path is not None


@given(st.binary(max_size=200) | st.text(max_size=200).map(str.encode))
@hypothesis_settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
def test_any_bytes_are_no_traceback(content: bytes) -> None:
    """A file of arbitrary bytes is told as wrong: an id of an app is missing at the least."""
    Path("any.toml").write_bytes(content)
    with pytest.raises(ConfigError):
        load(Path("any.toml"), environ={})


# Example, documentation, schema


def uncommented_example() -> str:
    """The example with every key in it set: `#key = value` is one, `# prose` is not."""
    text = (ROOT / "config.example.toml").read_text(encoding="utf-8")
    return re.sub(r"^#(?=[a-z\[])", "", text, flags=re.MULTILINE)


def test_example_loads() -> None:
    """The example is a configuration as it stands, but for the app's id and secret."""
    Path("app_secret").write_text("s", encoding="utf-8")
    config = load(ROOT / "config.example.toml", environ={"RESERVE_LISTENER_LARK__APP_ID": "cli_mine"})
    assert config.sinks == (made("log", name="console"),)


SHARED = {"retry", "scope_type", "scope_ids", "tenants", "changes_in", "events"}
"""Keys of every sink, which the example tells once, with the http sink."""


def test_example_has_every_key() -> None:
    """The example shows each key of each section and of each type of sink."""
    tables = tomllib.loads(uncommented_example())
    assert tables.keys() == Config.model_fields.keys()
    for section, model in section_models().items():
        assert tables[section].keys() == model.model_fields.keys()
    sinks = {sink["type"]: sink for sink in tables["sinks"]}
    assert sinks["http"].keys() >= SHARED
    assert sinks.keys() == SINK_MODELS.keys()
    for kind, sink in sinks.items():
        assert sink.keys() | SHARED == SINK_MODELS[kind].model_fields.keys(), kind


def test_example_tells_the_defaults() -> None:
    """What the example states as a default is the default."""
    tables = tomllib.loads(uncommented_example())
    models: dict[str, type[BaseModel]] = {**section_models(), **SINK_MODELS}
    sinks = {sink["type"]: sink for sink in tables["sinks"]}
    told_once = {key: sinks["http"][key] for key in SHARED}
    tables |= {kind: told_once | sink for kind, sink in sinks.items()}
    for section, model in models.items():
        for key, field in model.model_fields.items():
            if field.default is not None and field.default_factory is None and not field.is_required():
                assert tables[section][key] == field.default, f"{section}.{key}"


def documented_rows(section: str) -> dict[str, str]:
    text = (ROOT / "docs/configuration.md").read_text(encoding="utf-8")
    chapter = text.partition(f"### `{section}`")[2].partition("\n### ")[0].partition("\n## ")[0]
    rows = [row for row in chapter.splitlines() if row.startswith("| `")]
    return {key: row for row in rows for key in re.findall(r"`(\w+)`", row.split("|")[1])}


def test_documentation_has_every_key() -> None:
    """docs/configuration.md lists exactly the keys there are, with their defaults."""
    for section, model in section_models().items():
        rows = documented_rows(f"[{section}]")
        assert rows.keys() == model.model_fields.keys()
        for key, field in model.model_fields.items():
            if isinstance(field.default, str | float):
                shown = f'"{field.default}"' if isinstance(field.default, str) else f"{field.default:g}"
                assert f"| `{shown}` |" in rows[key]
    here = [
        model for kind, model in SINK_MODELS.items() if not (ROOT / f"docs/sink-{kind}.md").exists()
    ]  # the others have a page of their own, tests/sinks/test_kinds.py
    assert documented_rows("[[sinks]]").keys() == {key for model in here for key in model.model_fields}


def test_every_key_is_described() -> None:
    """The schema, which editors show, describes each key."""
    described: list[type[BaseModel]] = [*section_models().values(), *SINK_MODELS.values()]
    missing = [
        key
        for model in described
        for key, field in model.model_fields.items()
        if not field.description and key != "type"
    ]
    assert missing == []


def test_schema_knows_no_null() -> None:
    """TOML has no null, so the schema allows none."""
    schema = json_schema()
    assert "null" not in repr(schema).replace("None", "null")
    assert schema["properties"].keys() == Config.model_fields.keys()
    assert schema["required"] == ["lark"]


def test_origins_name_the_layer() -> None:
    """`load_explained` tells which file was read and what the environment set."""
    Path("config.toml").write_text(LARK, encoding="utf-8")
    explained = load_explained(environ={"RESERVE_LISTENER_LARK__APP_ID": "e"})
    assert explained.file == Path("config.toml")
    assert explained.origins.keys() == {("lark", "app_id"), ("store", "url")}
    assert explained.origins["lark", "app_id"] == "environment RESERVE_LISTENER_LARK__APP_ID"


@pytest.mark.parametrize(
    "taken", ["e.db", "e.db-wal", "e.db.lock", "secret", "config.toml", "x/../e.db", "link", "one.jsonl"]
)
def test_a_file_sink_never_writes_to_a_file_that_is_taken(tmp_path: Path, taken: str) -> None:
    """The store, its companions, a secret, the configuration, another sink's file, by any spelling: refused."""
    (tmp_path / "x").mkdir()
    (tmp_path / "secret").write_text("s3cret")
    (tmp_path / "link").symlink_to(tmp_path / "e.db")
    config = tmp_path / "config.toml"
    text = f"""
[lark]
app_id = "cli_x"
app_secret_file = "{tmp_path}/secret"
[store]
url = "sqlite:///{tmp_path}/e.db"
[[sinks]]
name = "one"
type = "file"
path = "{tmp_path}/one.jsonl"
[[sinks]]
name = "two"
type = "file"
path = "{tmp_path}/"""
    config.write_text(f'{text}{taken}"\n')
    with pytest.raises(ConfigError, match=r'sink "two": path: .* is .*; name another path'):
        load(config, environ={})
    config.write_text(f'{text}two.jsonl"\n')
    assert len(load(config, environ={}).sinks) == 2
