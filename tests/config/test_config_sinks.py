"""The keys of sinks, and of the store's limits: what is taken, how mistakes are told, and that no secret gets out."""

from __future__ import annotations

import base64
import json
import os
import re
import shutil
import subprocess
import tomllib
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import typer
from hypothesis import HealthCheck, given, settings as hypothesis_settings, strategies as st
from pydantic import ValidationError
from typer.testing import CliRunner

from reserve_listener.cli.check import check
from reserve_listener.cli.config import config_app
from reserve_listener.config.shown import header_name, secret_path_text, suggests_secret
from reserve_listener.errors import ConfigError
from reserve_listener.redact import redact
from reserve_listener.sinks.file.kind import FileSettings
from reserve_listener.sinks.file.sink import FileSink
from reserve_listener.sinks.http.kind import HttpSettings, headers_of, url_of
from tests.configuring import as_settings, json_schema, load, made, model_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from typer.testing import Result

    from reserve_listener.config import Config

ROOT = Path(__file__).parents[2]
HIDDEN = "hunter2-hidden"
WHSEC = "whsec_" + base64.b64encode(bytes(range(32))).decode()
LARK = '[lark]\napp_id = "cli_a"\napp_secret = "s"\n'
STORE = '[store]\nurl = "sqlite:///events.db"\n'
LOG = '[[sinks]]\nname = "a"\ntype = "log"\n'
FILE = '[[sinks]]\nname = "a"\ntype = "file"\npath = "e.jsonl"\n'
HTTP = '[[sinks]]\nname = "a"\ntype = "http"\nurl = "https://h"\n'
WHERE = 'config.toml: sinks[0] "a"'

SECRETS = {
    "header": "h34der-value",
    "scheme": "Token sch3me-value",
    "bearer": "b34rer-value",
    "password": "p4ssword, with blanks",
    "token": "verific4tion-token",
    "encrypt": "encrypt-k3y",
    "signing": WHSEC,
}
RICH = """
[lark]
app_id = "cli_a"
app_secret_file = "files/app"
proxy = "http://lark%40x:l4rk%2Fpw@proxy:3128"

[store]
url = "sqlite:///events.db"
retention_days = 2.5
max_size_mb = 64

[[sinks]]
name = "log"
type = "log"
retry = { max_attempts = 3 }
scope_type = "level"
tenants = ["70f0c2a95b3d4e18"]

[[sinks]]
name = "file"
type = "file"
path = "e.jsonl"
rotate_mb = 0.5
rotate_every = "week"
keep = 3
compress = true
scope_ids = ["omm_1", 'o"m\\m#é']

[[sinks]]
name = "plain"
type = "file"
path = "plain.jsonl"

[[sinks]]
name = "http"
type = "http"
url = "https://h/x"
format = "feishu"
retry = { base = 0.25, cap = 600, max_attempts = 12, max_age = 86400 }
scope_type = "room"
scope_ids = ["omm_1"]
timeout = 2.5
max_in_flight = 4
headers = { X-Plain = "a \\"b\\" # c", "X.Dotted" = "", "X-'" = "\\\\" }
header_files = { X-Api-Key = "files/header", X-Other = "files/scheme" }
basic_user = "us er"
basic_password_file = "files/password"
verification_token_file = "files/token"
encrypt_key_file = "files/encrypt"
signing_secret_file = "files/signing"
ca_bundle = "files/ca.pem"
client_cert_file = "files/cert.pem"
client_key_file = "files/key.pem"
proxy = "http://us%40er:pr%2Fxy-pw@proxy:3128"

[[sinks]]
name = "bearer"
type = "http"
url = "HTTPS://h"
bearer_token_file = "files/bearer"
client_cert_file = "files/cert.pem"
"""

app = typer.Typer()
app.command()(check)
app.add_typer(config_app, name="config")


@pytest.fixture(autouse=True)
def _empty_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("reserve_listener.config.loading.PLACES", (Path("config.toml"),))
    for name in list(os.environ):
        if name.startswith("RESERVE_LISTENER_") or name.endswith(("S_DIRECTORY", "STATE_DIRECTORY")):
            monkeypatch.delenv(name)
        if name.lower().endswith("_proxy"):
            monkeypatch.delenv(name)


@pytest.fixture
def rich() -> str:
    """A configuration that uses all keys of sinks, its files in place."""
    Path("files").mkdir()
    Path("files/app").write_text("4pp-secret", encoding="utf-8")
    for name, secret in SECRETS.items():
        Path("files", name).write_text(f"{secret}\n", encoding="utf-8")
    return RICH


def loaded(text: str, **environ: str) -> Config:
    Path("config.toml").write_text(text, encoding="utf-8")
    return load(environ=environ)


def mistakes(text: str, **environ: str) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        loaded(text, **environ)
    told = str(caught.value)
    assert HIDDEN not in told
    assert caught.value.__context__ is None or HIDDEN not in repr(caught.value.__context__)
    assert all(line.isprintable() for line in told.split("\n"))
    return told.split("\n")


def call(*arguments: str, text: str | None = None) -> Result:
    if text is not None:
        Path("config.toml").write_text(text, encoding="utf-8")
    result = CliRunner().invoke(app, arguments)
    assert HIDDEN not in result.output
    return result


def findings(text: str) -> dict[str, str]:
    """What `check` says, by subject; each text begins with its mark."""
    rows = [
        re.fullmatch(r"(ok|warn|FAIL)\t(.+?)\t(.+)", line)
        for line in call("check", text=text).output.splitlines()
    ]
    assert all(rows)
    return {row[2]: f"{row[1]} {row[3]}" for row in rows if row}


# Mistakes


@pytest.mark.parametrize(
    ("given_key", "expected"),
    [
        ("retry = 5", ".retry: must be a table, such as { base = 1, cap = 60 }, found a number"),
        ("retry = [1]", ".retry: must be a table, such as { base = 1, cap = 60 }, found an array"),
        ('retry = { base = "x" }', '.retry.base: must be a number, found "x"'),
        ("retry = { base = true }", ".retry.base: must be a number, found true"),
        ("retry = { base = 0 }", ".retry.base: must be more than 0, found 0"),
        ("retry = { base = 10, cap = 5 }", ".retry.cap: must be at least base (10), found 5"),
        ("retry = { base = 5000 }", ".retry.cap: must be at least base (5000), found 3600.0, the default"),
        ("retry = { max_attempts = 0 }", ".retry.max_attempts: must be 1 or more, found 0"),
        ("retry = { max_attempts = 1.5 }", ".retry.max_attempts: must be a whole number, found 1.5"),
        ("retry = { max_attempts = true }", ".retry.max_attempts: must be a whole number, found true"),
        ("retry = { max_age = 99999999 }", ".retry.max_age: must be 31536000 or less, found 99999999"),
        ("retry = { max_age = nan }", ".retry.max_age: must be a finite number, found nan"),
        ("retry = { bse = 1 }", '.retry.bse: unknown key; did you mean "base"?'),
        (
            "retry = { zzz = 1 }",
            ".retry.zzz: unknown key; the keys here are base, cap, max_attempts, max_age",
        ),
        ("max_attempts = 3", '.max_attempts: unknown key; did you mean "retry.max_attempts"?'),
        (
            'scope_type = "rom"',
            '.scope_type: must be one of "room", "level", found "rom"; did you mean "room"?',
        ),
        ('scope_ids = "x"', '.scope_ids: must be an array of strings, such as ["one", "two"], found "x"'),
        (
            "scope_ids = { a = 1 }",
            '.scope_ids: must be an array of strings, such as ["one", "two"], found a table',
        ),
        (
            "scope_ids = []",
            ".scope_ids: must have at least one item; to accept all, leave it out, found an empty array",
        ),
        ('scope_ids = [""]', ".scope_ids[0]: must not be empty, found an empty string"),
        ("scope_ids = [1]", ".scope_ids[0]: must be a string in quotes, found 1"),
        (
            'scope_ids = ["omm_1 "]',
            '.scope_ids[0]: must be an ID without spaces or control characters, found "omm_1 "',
        ),
        ("tenants = 3", '.tenants: must be an array of strings, such as ["one", "two"], found 3'),
        ('tenant = ["x"]', '.tenant: unknown key; did you mean "tenants"?'),
        ("rotate_mb = 1", '.rotate_mb: unknown key here; it belongs to sinks of type "file"'),
        ('basic_user = "a"', '.basic_user: unknown key here; it belongs to sinks of type "http"'),
    ],
)
def test_mistakes_in_any_sink(given_key: str, expected: str) -> None:
    """Retries and filters: one line a mistake, with the sink, the key, what is allowed and what was found."""
    assert mistakes(LARK + LOG + given_key) == [WHERE + expected]


@pytest.mark.parametrize(
    ("sink", "expected"),
    [
        ('type = "feishu_card"\nurl = "https://h/x"', '.url: unknown key; did you mean "url_file"?'),
        ('type = "amqp"\nurl = "amqp://h"', '.url: unknown key; did you mean "url_file"?'),
        ('type = "nats"\ntoken = "x"', '.token: unknown key; did you mean "token_file"?'),
        ('type = "kafka"\nuser = "x"', '.user: unknown key; did you mean "sasl_user"?'),
        ('type = "redis"\nsubject = "x"', '.subject: unknown key here; it belongs to sinks of type "nats"'),
        ('type = "exec"\ntypo_here = "x"', ".typo_here: unknown key"),
        ('type = "card"', 'found "card"; did you mean "feishu_card"?'),
        ('type = "queue"', ', found "queue"'),
    ],
)
def test_a_kinds_own_keys_are_thought_of_first(sink: str, expected: str) -> None:
    """What another kind calls so is not what was meant, if the kind itself has something like it; the far-fetched is left out."""
    (text,) = (line for line in mistakes(f'{LARK}[[sinks]]\nname = "a"\n{sink}') if expected in line)
    assert text.partition("; the keys here are ")[0].endswith(expected)


@pytest.mark.parametrize(
    ("given_keys", "expected"),
    [
        ("rotate_mb = 0", ".rotate_mb: must be 0.001 or more, found 0"),
        ("rotate_mb = 1e-9", ".rotate_mb: must be 0.001 or more, found 1e-09"),
        ('rotate_mb = "1"', '.rotate_mb: must be a number, found "1"'),
        ("rotate_mb = true", ".rotate_mb: must be a number, found true"),
        (
            'rotate_every = "dayly"',
            '.rotate_every: must be one of "hour", "day", "week", found "dayly"; did you mean "day"?',
        ),
        ("rotate_mb = 1\nkeep = 0", ".keep: must be 1 or more, found 0"),
        ("rotate_mb = 1\nkeep = true", ".keep: must be a whole number, found true"),
        ('rotate_mb = 1\ncompress = "yes"', '.compress: must be true or false, found "yes"'),
        ("rotate_mb = 1\ncompress = 1", ".compress: must be true or false, found 1"),
        ("keep = 3", ": keep has no effect without rotate_mb or rotate_every; set one of them"),
        ("compress = true", ": compress has no effect without rotate_mb or rotate_every; set one of them"),
        ('basic_user = "a"', '.basic_user: unknown key here; it belongs to sinks of type "http"'),
        (
            f'bearer_token_file = "./{HIDDEN}"',
            '.bearer_token_file: unknown key here; it belongs to sinks of type "http"',
        ),
    ],
)
def test_mistakes_in_a_file_sink(given_keys: str, expected: str) -> None:
    """Rotation: one line a mistake; the keys of a sink of another type are not looked at any further."""
    assert mistakes(LARK + FILE + given_keys) == [WHERE + expected]


DICT = 'must be a table, such as { "X-Name" = "value" }, found'
SECRET_HEADER = "looks like a secret: put its value in a file and name it in header_files"
ODD_NAME = "is not a header name (1 to 100 letters, digits, - and the like)"
OWN = "is set by the daemon and cannot be changed"
PLAIN_VALUE = "must be ASCII text without control characters or spaces around it"


@pytest.mark.parametrize(
    ("given_keys", "expected"),
    [
        ('headers = ["x"]', f".headers: {DICT} an array (not shown)"),
        (f'headers = "X-Api-Key: {HIDDEN}"', f".headers: {DICT} a string (not shown)"),
        ("headers = { X = 1 }", ".headers.X: must be a string in quotes, found a number (not shown)"),
        (
            f'headers = {{ X = ["{HIDDEN}"] }}',
            ".headers.X: must be a string in quotes, found an array (not shown)",
        ),
        (f'headers = {{ X-Api-Key = "{HIDDEN}" }}', f".headers: X-Api-Key {SECRET_HEADER}"),
        (f'headers = {{ authorization = "Basic {HIDDEN}" }}', f".headers: authorization {SECRET_HEADER}"),
        (f'headers = {{ X-Auth = "{HIDDEN}" }}', f".headers: X-Auth {SECRET_HEADER}"),
        (f'headers = {{ X = "Bearer {HIDDEN}" }}', f".headers: X {SECRET_HEADER}"),
        (f'headers = {{ "Authorization: {HIDDEN}" = "" }}', f'.headers: "Authorization…" {ODD_NAME}'),
        ('headers = { "" = "" }', f'.headers: "…" {ODD_NAME}'),
        ('headers = { Host = "x" }', f".headers: Host {OWN}"),
        ('headers = { Expect = "100-continue" }', f".headers: Expect {OWN}"),
        ('headers = { X-Lark-Foo = "x" }', f".headers: X-Lark-Foo {OWN}"),
        (f'headers = {{ X = "{HIDDEN}é" }}', f".headers: the value of X {PLAIN_VALUE}"),
        (f'headers = {{ X = "{HIDDEN}\\n" }}', f".headers: the value of X {PLAIN_VALUE}"),
        (f'headers = {{ X = " {HIDDEN}" }}', f".headers: the value of X {PLAIN_VALUE}"),
        (
            'headers = { A = "1", a = "2" }',
            ": headers and header_files set a more than once; keep one of them",
        ),
        (
            'headers = { X = "1" }\nheader_files = { x = "secret" }',
            ": headers and header_files set x more than once; keep one of them",
        ),
        (f'header_files = "X-Api-Key: {HIDDEN}"', f".header_files: {DICT} a string (not shown)"),
        ("header_files = { X = 1 }", ".header_files.X: must be a path in quotes, found a number (not shown)"),
        ('header_files = { X = "" }', ".header_files.X: must name a file, found an empty string"),
        ('header_files = { X = "d/" }', ".header_files.X: must name a file, found a string (not shown)"),
        (
            'header_files = { X = "a\\u0000b" }',
            ".header_files.X: must be a path without control characters, found a string (not shown)",
        ),
        ('header_files = { Host = "secret" }', f".header_files: Host {OWN}"),
        ('header_files = { X = "nope" }', ".header_files.X: cannot read nope: No such file or directory"),
        (
            'header_files = { X = "é" }',
            ".header_files.X: é cannot be sent in a header: it must be ASCII text without spaces around it",
        ),
        (
            'header_files = { Authorization = "secret" }\nbearer_token_file = "secret"',
            ": header_files sets authorization, and so does bearer_token_file or basic_user; keep one of them",
        ),
        (
            f'header_files = {{ X = "Bearer {HIDDEN}" }}',
            ".header_files.X: cannot read the file (its name looks like a secret and is not shown): No such file or directory",
        ),
        ("bearer_token_file = 1", ".bearer_token_file: must be a path in quotes, found a number (not shown)"),
        ('bearer_token_file = ""', ".bearer_token_file: must name a file, found an empty string"),
        ('bearer_token_file = "empty"', ".bearer_token_file: empty is empty"),
        (
            'bearer_token_file = "two"',
            ".bearer_token_file: two has more than one line, or control characters",
        ),
        (
            'bearer_token_file = "blank"',
            ".bearer_token_file: blank cannot be sent in a header: it must be ASCII text without spaces around it",
        ),
        (f'bearer_token = "{HIDDEN}"', '.bearer_token: unknown key; did you mean "bearer_token_file"?'),
        (f'encrypt_key = "{HIDDEN}"', '.encrypt_key: unknown key; did you mean "encrypt_key_file"?'),
        (
            'bearer_token_file = "secret"\nbasic_user = "u"\nbasic_password_file = "secret"',
            ": bearer_token_file and basic_user cannot be combined; keep one of them",
        ),
        ('basic_user = "u"', ": basic_user and basic_password_file need each other; set both or neither"),
        (
            'basic_password_file = "secret"',
            ": basic_user and basic_password_file need each other; set both or neither",
        ),
        (
            f'basic_user = "u:{HIDDEN}"\nbasic_password_file = "secret"',
            '.basic_user: must be a user name without ":" or control characters, found a string (not shown)',
        ),
        ('client_key_file = "k"', ": client_key_file has no effect without client_cert_file"),
        (
            'verification_token_file = "secret"',
            ': verification_token_file and encrypt_key_file are only for format = "feishu"',
        ),
        (
            'encrypt_key_file = "two"\nformat = "feishu"',
            ".encrypt_key_file: two has more than one line, or control characters",
        ),
        (
            'format = "feishy"',
            '.format: must be one of "cloudevents", "feishu", found "feishy"; did you mean "feishu"?',
        ),
        (
            f'proxy = "socks5://u:{HIDDEN}@h"',
            ".proxy: socks5 proxies are not supported: must be http(s)://[user:password@]host:port, found a string (not shown)",
        ),
        (f'proxy = ["{HIDDEN}"]', ".proxy: must be a string in quotes, found an array (not shown)"),
    ],
)
def test_mistakes_in_an_http_sink(given_keys: str, expected: str) -> None:
    """Headers, credentials, certificates, proxy: one line a mistake, which never shows what may be a secret."""
    Path("secret").write_text(HIDDEN, encoding="utf-8")
    Path("two").write_text(f"{HIDDEN}\n{HIDDEN}\n", encoding="utf-8")
    Path("blank").write_text(f"{HIDDEN} \n", encoding="utf-8")
    Path("é").write_text(f"{HIDDEN}é\n", encoding="utf-8")
    Path("empty").touch()
    told = [text.partition("; create it with")[0] for text in mistakes(LARK + HTTP + given_keys)]
    assert told == [WHERE + expected]


def test_a_certificate_is_for_https() -> None:
    """A client certificate would never be asked for over http; the scheme's case does not matter."""
    keys = 'client_cert_file = "c"'
    told = mistakes(LARK + HTTP.replace("https", "http") + keys)
    assert told == [f"{WHERE}: client_cert_file has no effect without an https:// url"]
    assert loaded(LARK + HTTP.replace("https", "HTTPS") + keys).sinks


def test_all_misfits_at_once() -> None:
    """What does not go together within a sink, or a table of headers, is told at once, a line each."""
    told = mistakes(LARK + HTTP + 'basic_user = "u"\nclient_key_file = "k"')
    assert [line.split(": ")[2].split()[0] for line in told] == ["basic_user", "client_key_file"]
    told = mistakes(LARK + HTTP + 'headers = { Host = "", X-Token = "", X = "é" }')
    assert [line.split(": ")[2].split()[0] for line in told] == ["Host", "X-Token", "the"]
    assert len(mistakes(LARK + FILE + "keep = 3\ncompress = true")) == 2


def test_the_sink_that_is_wrong_is_named() -> None:
    """Of several sinks the line has the one by place and name, also for what several keys make together."""
    told = mistakes(LARK + LOG + HTTP.replace('"a"', '"booking"') + 'basic_user = "u"')
    assert told[0].startswith('config.toml: sinks[1] "booking": basic_user')


def test_a_name_that_cannot_be_printed_is_told_once_more() -> None:
    """Two sinks with one unprintable name still make printable lines."""
    told = mistakes(LARK + LOG.replace('"a"', '"\\u001f"') * 2)
    assert told[-1] == 'config.toml: sinks: names must be unique; used more than once: "\\u001f"'


def test_models_by_hand_are_checked_too() -> None:
    """A sink that is built without a file obeys the same rules."""
    with pytest.raises(ValidationError, match="keep has no effect"):
        made("file", name="a", path=Path("x"), keep=3)
    with pytest.raises(ValidationError, match="need each other"):
        made("http", name="a", url="https://h", basic_user="u")


@pytest.mark.parametrize(
    ("given_key", "expected"),
    [
        ("retention_days = 1", "store.retention_days: must be 2 or more, found 1"),
        ("retention_days = 3651", "store.retention_days: must be 3650 or less, found 3651"),
        ('retention_days = "x"', 'store.retention_days: must be a number, found "x"'),
        ("retention = 9", 'store.retention: unknown key; did you mean "retention_days"?'),
        ("max_size_mb = 63", "store.max_size_mb: must be 64 or more, found 63"),
        ("max_size_mb = inf", "store.max_size_mb: must be a finite number, found inf"),
        ("max_size_mb = 99999999999", "store.max_size_mb: must be 16777216 or less, found 99999999999"),
    ],
)
def test_mistakes_in_the_store(given_key: str, expected: str) -> None:
    """Limits of the store: one line, and figures as people write them."""
    assert mistakes(LARK + "[store]\n" + given_key) == [f"config.toml: {expected}"]


def test_the_stores_limits_in_the_environment() -> None:
    """Retention and size can be set, and be wrong, in the environment."""
    days, size = "RESERVE_LISTENER_STORE__RETENTION_DAYS", "RESERVE_LISTENER_STORE__MAX_SIZE_MB"
    store = loaded(LARK, **{days: "2.5", size: "128"}).store
    assert (store.retention_days, store.max_size_mb) == (2.5, 128)
    assert mistakes(LARK, **{days: "1", size: "much"}) == [
        f"environment: {days}: must be 2 or more, found 1.0",
        f'environment: {size}: must be a number, found "much"',
    ]


KEYS = st.sampled_from(
    [*model_of("http").model_fields, *model_of("file").model_fields, "base", "cap", "X-Name", "Host", "a b"]
)
LEAVES = (
    st.sampled_from(["room", "https://h", "e.jsonl", "feishu", "Bearer x", "a\nb", ""])
    | st.text(max_size=6)
    | st.integers()
    | st.floats()
    | st.booleans()
    | st.dates()
)
VALUES = (
    LEAVES | st.lists(LEAVES, max_size=3) | st.dictionaries(KEYS | st.text(max_size=5), LEAVES, max_size=4)
)


@given(st.sampled_from(["log", "file", "http"]), st.dictionaries(KEYS, VALUES, max_size=8))
@hypothesis_settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
def test_any_sink_is_valid_or_a_readable_error(
    monkeypatch: pytest.MonkeyPatch, kind: str, keys: dict[str, Any]
) -> None:
    """Whatever the keys of a sink hold, `load` gives a configuration or printable lines that name a place."""
    sink = {"name": "a", "url": "https://h", "path": "p", **keys, "type": kind}
    values = {"lark": {"app_id": "a", "app_secret": "s"}, "sinks": [sink]}
    monkeypatch.setattr("reserve_listener.config.loading.read_toml", lambda file: values)
    told = ""
    try:
        load(Path("any.toml"), environ={})
    except ConfigError as error:
        told = str(error)
    assert all(line.isprintable() for line in told.split("\n"))
    assert all(line.startswith("any.toml: sinks[0]") for line in told.split("\n") if line)
    assert "input should" not in told


# Secrets


@pytest.mark.parametrize(
    "key", ["bearer_token_file", "encrypt_key_file", "ca_bundle", "client_cert_file", "header"]
)
def test_files_of_sinks_are_credentials_first(tmp_path: Path, key: str) -> None:
    """A name without a slash is a systemd credential first, then a file in the working directory."""
    credentials = tmp_path / "credentials"
    credentials.mkdir()
    for path in (credentials / "name", Path("name")):
        path.write_text("secret", encoding="utf-8")
    line = '{} = "name"' if key != "header" else 'header_files = {{ X-Api-Key = "name" }}'
    text = LARK + HTTP + 'format = "feishu"\n' + line.format(key)
    for expected in (credentials / "name", Path("name")):
        (sink,) = loaded(text, CREDENTIALS_DIRECTORY=str(credentials)).sinks
        assert list(sink.files_read()) == [expected]
        expected.unlink()


def test_without_secrets_none_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    """`secrets=False` opens nothing but the configuration: the secrets may be missing or closed to us."""
    Path("config.toml").write_text(RICH, encoding="utf-8")
    opened: list[str] = []
    really = os.open

    def noting(path: Any, *arguments: Any, **more: Any) -> int:
        opened.append(str(path))
        return really(path, *arguments, **more)

    monkeypatch.setattr(os, "open", noting)
    assert len(load(environ={}, secrets=False).sinks) == 5
    assert opened == ["config.toml"]


def test_what_is_sent_along(rich: str) -> None:
    """Headers from the file, from files of their own, and Authorization, which is made of user and password or token."""
    *_, http, bearer = loaded(rich).sinks
    assert headers_of(as_settings(HttpSettings, http), http.read_secrets()) == {
        "X-Plain": 'a "b" # c',
        "X.Dotted": "",
        "X-'": "\\",
        "X-Api-Key": "h34der-value",
        "X-Other": "Token sch3me-value",
        "Authorization": "Basic " + base64.b64encode(b"us er:p4ssword, with blanks").decode(),
    }
    assert headers_of(as_settings(HttpSettings, bearer), bearer.read_secrets()) == {
        "Authorization": "Bearer b34rer-value"
    }


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("header", 'sink "http": header_files.X-Api-Key: cannot read files/header'),
        ("password", 'sink "http": basic_password_file: cannot read files/password'),
        ("token", 'sink "http": verification_token_file: cannot read files/token'),
        ("encrypt", 'sink "http": encrypt_key_file: cannot read files/encrypt'),
        ("bearer", 'sink "bearer": bearer_token_file: cannot read files/bearer'),
    ],
)
def test_a_secret_that_went_away(rich: str, name: str, expected: str) -> None:
    """A secret's file that is gone when it is read for the first time is told with sink and key."""
    Path("config.toml").write_text(rich, encoding="utf-8")
    config = load(environ={}, secrets=False)
    Path("files", name).unlink()
    with pytest.raises(ConfigError, match=expected):
        config.secret_texts()


def test_secret_texts_hold_all_forms(rich: str) -> None:
    """Each secret is known in every spelling in which it goes over the wire or could be quoted, the longest first."""
    texts = loaded(rich).secret_texts()
    assert set(texts) >= {
        "4pp-secret",
        *SECRETS.values(),
        "sch3me-value",
        WHSEC.removeprefix("whsec_"),
        base64.b64encode(b"us er:p4ssword, with blanks").decode(),
        "us%40er:pr%2Fxy-pw",
        "pr%2Fxy-pw",
        "pr/xy-pw",
        base64.b64encode(b"us@er:pr/xy-pw").decode(),
        "l4rk/pw",
    }
    assert list(texts) == sorted(texts, key=len, reverse=True)
    assert "" not in texts


def test_a_proxy_without_a_password_is_no_secret() -> None:
    """A host alone may be seen, in `config show` and in the log."""
    config = loaded(LARK + HTTP + 'proxy = "http://proxy:3128"')
    assert config.secret_texts() == ("s",)
    assert 'proxy = "http://proxy:3128"  # file' in call("config", "show").output


def test_a_secret_that_begins_another_leaves_nothing_of_it() -> None:
    """With the longest masked first no rest of a longer secret stays."""
    Path("token").write_text("s3cret-and-more", encoding="utf-8")
    texts = loaded(LARK.replace('"s"', '"s3cret"') + HTTP + 'bearer_token_file = "token"').secret_texts()
    assert redact("x s3cret-and-more s3cret y", texts) == "x ******** ******** y"


def test_nothing_secret_is_shown(rich: str) -> None:
    """Neither `config show`, as TOML or JSON, nor `check`, nor a repr or dump of the configuration holds a secret."""
    config = loaded(rich)
    told = [call(*words).output for words in (("config", "show"), ("config", "show", "--json"), ("check",))]
    told += [f"{config!r} {config.model_dump()} {config.model_dump_json()}"]
    for secret in config.secret_texts():
        assert not any(secret in text for text in told), secret


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("X-Api-Key", True),
        ("X-AUTH", True),
        ("Cookie", True),
        ("X-Session-Id", True),
        ("X-Pass", True),
        ("X-Environment", False),
        ("X-Author", False),
        ("X-Passenger", False),
        ("User-Agent", False),
        ("Accept-Language", False),
    ],
)
def test_names_of_headers_that_suggest_a_secret(name: str, expected: bool) -> None:  # noqa: FBT001 - a parameter of the table
    """What is called like a credential is taken for one; everyday headers are not."""
    assert suggests_secret(name) is expected


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("booking_api_key", "booking_api_key"),
        ("/run/secrets/a1b2c3d4e5f6a7b8c9d0", "/run/secrets/a1b2c3d4e5f6a7b8c9d0"),
        ("a1b2c3d4e5f6a7b8c9d0", "the file (its name looks like a secret and is not shown)"),
        (WHSEC, "the file (its name looks like a secret and is not shown)"),
        ("a\nb", '"a\\nb"'),
    ],
)
def test_a_secret_in_place_of_its_file_is_not_shown(path: str, expected: str) -> None:
    """A path is shown, unless somebody seems to have put the secret itself where its file belongs."""
    assert secret_path_text(Path(path)) == expected


def test_names_of_headers_are_cut_where_they_go_wrong() -> None:
    """A line of a header that was pasted as a name loses its value."""
    assert header_name("X-Api-Key") == "X-Api-Key"
    assert header_name(f"X-Api-Key: {HIDDEN}") == '"X-Api-Key…"'


# Effective configuration


def without_null(sinks: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """As TOML has it: what is not set is left out."""
    return [{key: value for key, value in sink.items() if value is not None} for sink in sinks]


def shown_again(text: str) -> tuple[Config, Config, str]:
    config = loaded(text)
    result = call("config", "show")
    assert result.exit_code == 0, result.output
    return config, loaded(result.output), result.output


def test_what_is_shown_is_the_same_configuration(rich: str) -> None:
    """`config show` prints TOML that loads to an equal configuration, but for what is masked; tables on one line."""
    config, again, output = shown_again(rich)
    masked: Any = {"lark": {"proxy"}, "sinks": {3: {"proxy"}}}
    assert again.model_dump(exclude=masked) == config.model_dump(exclude=masked)
    assert 'proxy = "http://********@proxy:3128"  # file' in output
    assert 'headers = { "X-Plain" = "a \\"b\\" # c", "X.Dotted" = "", "X-\'" = "\\\\" }  # file' in output
    assert "retry = {" in output
    as_json = json.loads(call("config", "show", "--json").output)["config"]
    assert without_null(as_json["sinks"]) == tomllib.loads(output)["sinks"]


def test_defaults_of_rotation_may_be_stated() -> None:
    """A file sink that does not rotate is shown with the defaults of `keep` and `compress`, and loads again."""
    config, again, output = shown_again(LARK + FILE)
    assert config.sinks == again.sinks
    assert "keep = 10  # default" in output


def test_the_origin_of_a_sink_that_looks_like_the_default() -> None:
    """Somebody who writes the default sink has written it."""
    loaded(LARK + LOG.replace('"a"', '"console"'))
    assert 'name = "console"  # file' in call("config", "show").output
    for text in (LARK, "sinks = []\n" + LARK):
        assert 'name = "console"  # default' in call("config", "show", text=text).output


HEADER_NAMES = st.from_regex(r"[XY][a-z0-9!#$%&'*+.^`|~-]{0,8}", fullmatch=True).filter(
    lambda n: not suggests_secret(n)
)
HEADER_VALUES = st.from_regex(r"([!-~]([ -~]{0,8}[!-~])?)?", fullmatch=True)
RETRIES = st.fixed_dictionaries(
    {},
    optional={
        "base": st.floats(0.001, 60),
        "cap": st.floats(60, 86_400),
        "max_attempts": st.integers(1, 1_000_000),
        "max_age": st.floats(1e-9, 365 * 86_400),
    },
)
IDS = st.lists(
    st.text(st.characters(exclude_categories=("C", "Z")), min_size=1, max_size=8), min_size=1, max_size=3
)


@given(
    RETRIES,
    IDS,
    st.dictionaries(HEADER_NAMES, HEADER_VALUES, max_size=4).filter(
        lambda headers: len({name.lower() for name in headers}) == len(headers)
    ),
)
@hypothesis_settings(
    suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=60
)
def test_any_sink_is_shown_as_it_is(
    monkeypatch: pytest.MonkeyPatch, retry: dict[str, Any], ids: list[str], headers: dict[str, str]
) -> None:
    """Whatever numbers, ids and headers a sink has, `config show` gives them back as TOML and as JSON."""
    sink = {
        "name": "a",
        "type": "http",
        "url": "https://h",
        "retry": retry,
        "scope_ids": ids,
        "headers": headers,
    }
    values = {"lark": {"app_id": "a", "app_secret": "s"}, "sinks": [sink]}
    with monkeypatch.context() as patch:
        patch.setattr("reserve_listener.config.loading.read_toml", lambda file: values)
        config = load(Path("any.toml"), environ={})
        output = call("config", "show", "-c", "any.toml").output
        as_json = json.loads(call("config", "show", "-c", "any.toml", "--json").output)["config"]
    assert loaded(output) == config.model_copy(update={"lark": loaded(output).lark})
    assert tomllib.loads(output)["sinks"] == without_null(as_json["sinks"])


# Schema


TYPES: dict[str, Callable[[Any], bool]] = {
    "object": lambda value: isinstance(value, dict),
    "array": lambda value: isinstance(value, list),
    "string": lambda value: isinstance(value, str),
    "boolean": lambda value: isinstance(value, bool),
    "integer": lambda value: isinstance(value, int) and not isinstance(value, bool),
    "number": lambda value: isinstance(value, int | float) and not isinstance(value, bool),
}


def fits(schema: dict[str, Any], node: dict[str, Any], value: Any) -> bool:
    """As much of JSON Schema as ours uses."""
    if "$ref" in node:
        node = schema["$defs"][node["$ref"].rpartition("/")[2]]
    if "oneOf" in node:
        return sum(fits(schema, each, value) for each in node["oneOf"]) == 1
    if not TYPES[node["type"]](value) or value not in node.get("enum", [node.get("const", value)]):
        return False
    if isinstance(value, dict):
        return _table_fits(schema, node, value)
    if isinstance(value, list):
        enough = len(value) >= node.get("minItems", 0)
        return enough and all(fits(schema, node["items"], each) for each in value)
    size = value if isinstance(value, int | float) else len(value)
    lowest = node.get("minimum", node.get("minLength", size))
    return bool(lowest <= size <= node.get("maximum", size))


def _table_fits(schema: dict[str, Any], node: dict[str, Any], value: dict[str, Any]) -> bool:
    known, other = node.get("properties", {}), node.get("additionalProperties", False)
    if not set(node.get("required", ())) <= value.keys():
        return False
    return all(
        fits(schema, known[key], each) if key in known else other is not False and fits(schema, other, each)
        for key, each in value.items()
    )


def test_the_schema_takes_what_is_right() -> None:
    """The schema accepts a configuration with all keys, and so do editors."""
    schema = json_schema()
    assert fits(schema, schema, tomllib.loads(RICH))


@pytest.mark.parametrize(
    "wrong",
    [
        LOG + "retry = 5",
        LOG + "retry = { bse = 1 }",
        LOG + "scope_ids = []",
        LOG + 'scope_ids = [""]',
        LOG + 'scope_type = "rom"',
        FILE + 'rotate_every = "dayly"',
        FILE + "keep = 0",
        FILE + "compress = 1",
        FILE + 'headers = { X = "1" }',
        HTTP + "headers = { X = 1 }",
        HTTP + "header_files = { X = 1 }",
        HTTP + 'format = "x"',
        "[store]\nretention_days = 1",
        "[store]\nmax_size_mb = 1",
    ],
)
def test_the_schema_refuses_what_is_wrong(wrong: str) -> None:
    """An editor marks wrong kinds, choices, limits and unknown keys, also within `retry`."""
    schema = json_schema()
    assert not fits(schema, schema, tomllib.loads(LARK + wrong))
    assert "null" not in json.dumps(schema)


# Example


def test_a_url_from_a_file(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is used like `url`, is secret as a whole, shows nowhere, and is read again by each reload."""
    url = f"https://bot.example/open-apis/bot/v2/hook/{HIDDEN}?sign=a%2Fb-{HIDDEN}"
    Path("url").write_text(f"{url}\n", encoding="utf-8")
    config = loaded(LARK + STORE + HTTP.replace('url = "https://h"', 'url_file = "url"'))
    (sink,) = config.sinks
    assert (
        as_settings(HttpSettings, sink).url,
        url_of(as_settings(HttpSettings, sink), sink.read_secrets(), "a"),
    ) == (None, url)
    assert {url, "bot.example", HIDDEN, f"a/b-{HIDDEN}"} <= set(config.secret_texts())
    assert "open-apis" not in config.secret_texts()
    assert 'url_file = "url"  # file' in call("config", "show").output
    told = findings(LARK + STORE + HTTP.replace('url = "https://h"', 'url_file = "url"'))
    assert told['sink "a"'].startswith("ok the URL in url: not contacted")
    monkeypatch.setenv("HTTPS_PROXY", "socks5://p")
    Path("url").write_text(f"https://other.example/{HIDDEN}\n", encoding="utf-8")
    assert url_of(as_settings(HttpSettings, sink), sink.read_secrets(), "a") == url
    again = loaded(LARK + STORE + HTTP.replace('url = "https://h"', 'url_file = "url"')).sinks[0]
    assert (
        url_of(as_settings(HttpSettings, again), again.read_secrets(), "a")
        == f"https://other.example/{HIDDEN}"
    )


@pytest.mark.parametrize(
    ("keys", "content", "expected"),
    [
        ('url_file = "url"\nurl = "https://h"', "https://h", ": url and url_file cannot be combined; keep one of them"),
        ("", "", ": url is missing: set url, the URL to post events to, or url_file, a file that contains it"),
        ('url_file = "url"', f"ftp://h/{HIDDEN}", ".url_file: url: the URL in it must begin with http:// or https://, followed by a host"),
        ('url_file = "url"', f"https://u:{HIDDEN}@h", ".url_file: url: the URL in it must not contain a user name or password, which would show up in logs"),
        ('url_file = "url"', f"https://h/a\nhttps://h/{HIDDEN}", ".url_file: url has more than one line, or control characters"),
        (f'url_file = "https://h/{HIDDEN}"', "", ".url_file: cannot read the file (its name looks like a secret and is not shown): No such file or directory"),
        (f'url = "ftp://h/{HIDDEN}/hook"', "", '.url: must begin with http:// or https://, followed by a host, found "ftp://h/********/hook"'),
    ],
)  # fmt: skip
def test_a_url_file_is_validated_like_a_url(keys: str, content: str, expected: str) -> None:
    """Exactly one of the two, and no message holds what is in the file, or in the place of its name."""
    Path("url").write_text(content, encoding="utf-8")
    assert mistakes(LARK + HTTP.replace('url = "https://h"\n', f"{keys}\n")) == [WHERE + expected]


def test_the_path_of_a_url_is_shown_without_what_may_be_secret() -> None:
    """Usual words stay, so that one can see which receiver it is, and what is shown loads again."""
    url = f"https://h/api/v2/hooks/{HIDDEN}/rooms?key={HIDDEN}"
    text = LARK + HTTP.replace('url = "https://h"', f'url = "{url}"')
    loaded(text)
    assert 'url = "https://h/api/v2/hooks/********/rooms?********"  # file' in call("config", "show").output


def test_the_whole_example_loads() -> None:
    """With every line of the example uncommented, but for what excludes each other, the daemon could start."""
    text = re.sub(
        r"^#(?=[a-z\[])", "", (ROOT / "config.example.toml").read_text(encoding="utf-8"), flags=re.MULTILINE
    )
    text = text.replace("cli_a1b2c3d4e5f6g7h8", "cli_mine").replace(
        "booking.example/hooks", "booking.corp/hooks"
    )
    text = text.replace("uptime.example", "uptime.corp")
    urls = 'url_file(?! = "(?:amqp|group)_url")'
    either = ("user", "password_file", "token_file", "bearer_token_file", urls, "chat_id")
    for key in ("app_secret", "encrypt_key", "verification_token", "token", *either):
        text = re.sub(rf"^{key} = .*\n", "", text, flags=re.MULTILINE)
    for name in re.findall(r'_file = "([a-z_]+)"|" = "([a-z]+_[a-z_]+)"', text):
        Path("".join(name)).write_text(WHSEC, encoding="utf-8")
    Path("amqp_url").write_text("amqps://me:word@rabbit.corp", encoding="utf-8")
    Path("group_url").write_text("https://open.feishu.cn/open-apis/bot/v2/hook/0123", encoding="utf-8")
    text = text.replace('format = "cloudevents"', 'format = "feishu"').replace("tls = false", "tls = true")
    console, audit, booking = loaded(text).sinks[:3]
    assert console.name == "console"
    rotating = as_settings(FileSettings, audit)
    assert (rotating.rotate_mb, rotating.rotate_every, rotating.keep) == (100, "day", 10)
    assert as_settings(HttpSettings, booking).headers == {"X-Environment": "production"}
    assert headers_of(as_settings(HttpSettings, booking), booking.read_secrets())["X-Api-Key"] == WHSEC


# Files that are taken


@pytest.mark.parametrize(
    "key",
    ["bearer_token_file", "encrypt_key_file", "ca_bundle", "client_cert_file", "header_files"],
)
def test_a_file_sink_never_writes_to_a_sinks_secret(key: str) -> None:
    """A file that an http sink reads, by link or by name, is not a file sink's to append to."""
    Path("taken").write_text("secret", encoding="utf-8")
    Path("link").symlink_to("taken")
    line = f'{key} = "taken"' if key != "header_files" else 'header_files = { X = "taken" }'
    text = LARK + FILE.replace("e.jsonl", "link") + HTTP.replace('"a"', '"b"') + f'format = "feishu"\n{line}'
    told = 'config.toml: sinks: sink "a": path: link is a file that the sink "b" reads; name another path'
    assert mistakes(text) == [told]


# check


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """cert.pem with key.pem, other.pem a key of nobody, locked.pem and old.pem the key under a password."""
    if shutil.which("openssl") is None:
        pytest.skip("the openssl command makes the certificate, and it is missing")
    folder = tmp_path_factory.mktemp("tls")
    for command in (
        "req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2 -subj /CN=test -keyout key.pem -out cert.pem",
        "ecparam -name prime256v1 -genkey -noout -out other.pem",
        "genrsa -out rsa.pem 2048",
        f"pkcs8 -topk8 -in key.pem -out locked.pem -passout pass:{HIDDEN}",
        f"ec -in key.pem -aes128 -out old.pem -passout pass:{HIDDEN}",
    ):
        subprocess.run(["openssl", *command.split()], check=True, capture_output=True, cwd=folder)
    both = (folder / "cert.pem").read_text() + (folder / "key.pem").read_text()
    (folder / "both.pem").write_text(both)
    torn = (folder / "cert.pem").read_text().replace("MII", "!!!")
    (folder / "torn.pem").write_text(torn)
    return folder


MADE = "ok https://h: not contacted; --online tries it"


@pytest.mark.parametrize(
    ("cert", "key", "expected"),
    [
        ("cert.pem", "key.pem", MADE),
        ("both.pem", None, MADE),
        ("both.pem", "key.pem", MADE),
        (
            "cert.pem",
            "other.pem",
            "FAIL client_key_file {}/other.pem: the key does not belong to the certificate in {}/cert.pem",
        ),
        (
            "cert.pem",
            "rsa.pem",
            "FAIL client_key_file {}/rsa.pem: the key does not belong to the certificate in {}/cert.pem",
        ),
        (
            "cert.pem",
            None,
            "FAIL client_cert_file {}/cert.pem: contains no PEM private key; name its file in client_key_file",
        ),
        ("key.pem", "key.pem", "FAIL client_cert_file {}/key.pem: contains no PEM certificate"),
        ("cert.pem", "cert.pem", "FAIL client_key_file {}/cert.pem: contains no PEM private key"),
        ("no.pem", "key.pem", "FAIL client_cert_file {}/no.pem: No such file or directory"),
        ("cert.pem", "no.pem", "FAIL client_key_file {}/no.pem: No such file or directory"),
        ("cert.pem", "locked.pem", "FAIL client_key_file {}/locked.pem: the key is encrypted, and"),
        ("cert.pem", "old.pem", "FAIL client_key_file {}/old.pem: the key is encrypted, and"),
        ("torn.pem", "key.pem", "FAIL client_cert_file {}/torn.pem, client_key_file {}/key.pem: "),
    ],
)
def test_check_of_client_certificates(certificates: Path, cert: str, key: str | None, expected: str) -> None:
    """Certificate and key are tried, and the one that is wrong is named; nobody is asked for a password."""
    text = LARK + STORE + HTTP + f'client_cert_file = "{certificates}/{cert}"\n'
    if key is not None:
        text += f'client_key_file = "{certificates}/{key}"\n'
    told = findings(text)['sink "a"']
    assert told.startswith(expected.format(certificates, certificates))
    assert "_ssl.c" not in told


def test_check_of_authorities(certificates: Path) -> None:
    """A bundle of authorities that holds none is told without OpenSSL's own places."""
    assert findings(LARK + STORE + HTTP + f'ca_bundle = "{certificates}/cert.pem"')['sink "a"'] == MADE
    told = findings(LARK + STORE + HTTP + f'ca_bundle = "{certificates}/key.pem"')['sink "a"']
    assert told == f"FAIL ca_bundle {certificates}/key.pem: no certificate or crl found"


def test_check_asks_nobody_for_a_password(certificates: Path) -> None:
    """With a terminal at hand an encrypted key still ends in an answer, not in a question."""
    both = certificates / "locked-both.pem"
    both.write_text((certificates / "cert.pem").read_text() + (certificates / "locked.pem").read_text())
    told = findings(LARK + STORE + HTTP + f'client_cert_file = "{both}"')['sink "a"']
    assert told.startswith(
        f"FAIL client_cert_file {both}: the key is encrypted, and the daemon cannot ask anybody"
    )


def test_check_finds_a_proxy_of_the_environment_that_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    """What would keep the daemon from making the sink is found, without the proxy's credentials."""
    monkeypatch.setenv("HTTPS_PROXY", f"nonsense://u:{HIDDEN}@h")
    assert findings(LARK + STORE + HTTP)['sink "a"'].startswith(
        "FAIL HTTPS_PROXY: nonsense proxies are not supported: must be http(s)://[user:password@]host:port"
    )


@pytest.mark.parametrize("rotating", [False, True])
@pytest.mark.parametrize("there", [False, True])
@pytest.mark.parametrize("closed", [".", "e.jsonl", "nothing"])
def test_check_of_a_file_sink_agrees_with_the_sink(
    monkeypatch: pytest.MonkeyPatch,
    closed: str,
    there: bool,  # noqa: FBT001 - a parameter of the table
    rotating: bool,  # noqa: FBT001 - a parameter of the table
) -> None:
    """`check` is content exactly when the sink is; a folder need not be writable for a file that is never renamed."""
    shut = Path(closed).resolve()
    if there:
        Path("e.jsonl").touch()
    monkeypatch.setattr("os.access", lambda asked, *_, **__: Path(asked).resolve() != shut)
    told = findings(
        LARK + '[store]\nurl = "sqlite:////tmp/events.db"\n' + FILE + ("rotate_mb = 1" if rotating else "")
    )
    sink = FileSink("a", Path("e.jsonl"), rotate_bytes=1 if rotating else None)
    assert told['sink "a"'].startswith("ok ") is (sink.problem() is None)
    if closed == "." and there:
        assert told['sink "a"'].startswith("FAIL e.jsonl cannot be rotated" if rotating else "ok ")


def test_check_of_a_file_sink_whose_link_leads_nowhere() -> None:
    """The folder of the file that a link means has to be there, not only the link's own."""
    Path("e.jsonl").symlink_to("nowhere/e.jsonl")
    assert findings(LARK + STORE + FILE)['sink "a"'].startswith(
        "FAIL e.jsonl: No such file or directory: create the directory"
    )
