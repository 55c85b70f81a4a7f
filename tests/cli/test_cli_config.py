"""`check`, `config schema` and `config show`, as they are called."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import threading
import tomllib
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import typer
from typer.testing import CliRunner

from reserve_listener.cli import check as check_module
from reserve_listener.cli.check import check
from reserve_listener.cli.checks import findings
from reserve_listener.cli.config import config_app
from reserve_listener.errors import ConfigError
from tests.helpers import make_store, url_of

if TYPE_CHECKING:
    from typer.testing import Result

HIDDEN = "hunter2-hidden"
LARK = f'[lark]\napp_id = "cli_a"\napp_secret = "{HIDDEN}"\n'
STORE = '[store]\nurl = "sqlite:///events.db"\n'
HTTP = f'[[sinks]]\nname = "booking"\ntype = "http"\nurl = "https://booking.example/hook?key={HIDDEN}"\n'

app = typer.Typer()
app.command()(check)
app.add_typer(config_app, name="config")


@pytest.fixture(autouse=True)
def _empty_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("reserve_listener.config.loading.PLACES", (Path("config.toml"),))
    for name in list(os.environ):
        if name.startswith("RESERVE_LISTENER_") or name.endswith("S_DIRECTORY") or name == "STATE_DIRECTORY":
            monkeypatch.delenv(name)


def call(*arguments: str, text: str | None = None) -> Result:
    if text is not None:
        Path("config.toml").write_text(text, encoding="utf-8")
        Path("config.toml").chmod(0o600)
    result = CliRunner().invoke(app, arguments)
    assert HIDDEN not in result.output
    return result


def items(output: str) -> dict[str, str]:
    """What `check` says, by subject; each text begins with its mark."""
    rows = [re.fullmatch(r"(ok|warn|FAIL)\t(.+?)\t(.+)", line) for line in output.splitlines()]
    return {row[2]: f"{row[1]} {row[3]}" for row in rows if row}


# config show


def test_show_as_toml(monkeypatch: pytest.MonkeyPatch) -> None:
    """The configuration in effect is TOML again, with each key's origin and no secret."""
    monkeypatch.setenv("RESERVE_LISTENER_LARK__BACKOFF_BASE", "2.5")
    result = call("config", "show", text=LARK + HTTP)
    assert result.exit_code == 0
    for line in (
        '# file: "config.toml"',
        'app_id = "cli_a"  # file',
        'app_secret = "********"  # file',
        "# app_secret_file is not set",
        "backoff_base = 2.5  # environment RESERVE_LISTENER_LARK__BACKOFF_BASE",
        "backoff_cap = 60  # default",
        'url = "https://booking.example/hook?********"  # file',
    ):
        assert line in result.output.splitlines()
    tables = tomllib.loads(result.output)
    assert tables.keys() == {"lark", "store", "rooms", "delivery", "log", "alerts", "sinks"}
    assert tables["sinks"][0]["max_in_flight"] == 16


def test_what_is_shown_loads_again() -> None:
    """A secret from a file is shown as a comment beside its file's key: the output is a valid configuration."""
    Path("secret").write_text(HIDDEN, encoding="utf-8")
    shown = call(
        "config",
        "show",
        text='[lark]\napp_id = "a\\u007f\\"é"\napp_secret_file = "secret"\nbackoff_cap = 86399.125',
    )
    assert '# app_secret = "********"  # lark.app_secret_file' in shown.output.splitlines()
    again = call("config", "show", text=shown.output)
    assert tomllib.loads(again.output) == tomllib.loads(shown.output)
    assert tomllib.loads(again.output)["lark"]["backoff_cap"] == 86399.125


def test_show_a_stores_url_without_its_passwords() -> None:
    """Host, database and all other settings can be seen; what stands in the place of a password cannot, and `check` masks it, too."""
    url = f"postgresql://rl:{HIDDEN}%40x@db1:1,db2:2/rooms?sslmode=require&sslpassword={HIDDEN}"
    text = LARK + f'[store]\nurl = "{url}"\n'
    said = tomllib.loads(call("config", "show", text=text).stdout)["store"]["url"]
    assert said == "postgresql://rl:********@db1:1,db2:2/rooms?sslmode=require&sslpassword=********"
    plain = "postgresql://rl@/rooms?host=/run/pg&application_name="
    assert (
        tomllib.loads(call("config", "show", text=f'{LARK}[store]\nurl = "{plain}"\n').stdout)["store"]["url"]
        == plain
    )


def test_show_needs_no_readable_secret() -> None:
    """Whoever may read the configuration sees it whole; the secrets' files are named and not opened."""
    secrets = (
        'app_secret_file = "/nowhere/app_secret"\n' + STORE + HTTP + 'bearer_token_file = "/nowhere/token"\n'
    )
    shown = call("config", "show", text='[lark]\napp_id = "a"\n' + secrets)
    assert shown.exit_code == 0, shown.exception
    lines = shown.output.splitlines()
    assert '# app_secret = "********"  # lark.app_secret_file' in lines
    assert 'app_secret_file = "/nowhere/app_secret"  # file' in lines
    assert 'bearer_token_file = "/nowhere/token"  # file' in lines


def test_show_as_json() -> None:
    """--json gives one object: the file, the tables, and the origins by key."""
    shown = json.loads(call("config", "show", "--json", text=LARK).output)
    assert shown["file"] == "config.toml"
    assert shown["config"]["lark"]["app_secret"] == "********"
    (console,) = shown["config"]["sinks"]
    assert console["name"] == "console"
    assert console["retry"] == {"base": 1.0, "cap": 3600.0, "max_age": 259_200.0}
    assert shown["origins"]["sinks[0].name"] == "default"
    assert shown["origins"]["lark.app_id"] == "file"
    assert shown["origins"]["store.url"].startswith("default")


def test_show_under_systemd(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What systemd gave is told as such."""
    (tmp_path / "app_secret").write_text(HIDDEN, encoding="utf-8")
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(tmp_path))
    monkeypatch.setenv("STATE_DIRECTORY", "/var/lib/rl")
    monkeypatch.setenv("RESERVE_LISTENER_LARK__APP_ID", "cli_e")
    result = call("config", "show")
    assert result.output.startswith("# file: none found")
    assert f'app_secret_file = "{tmp_path}/app_secret"  # credential' in result.output
    assert 'url = "sqlite:////var/lib/rl/events.db"  # default ($STATE_DIRECTORY)' in result.output


def test_show_a_wrong_configuration() -> None:
    """A mistake reaches main() as a ConfigError, which is exit code 78."""
    result = call("config", "show", "-c", "nope.toml")
    assert isinstance(result.exception, ConfigError)


# config schema


def test_schema() -> None:
    """The schema is JSON, names its dialect, and describes the sections."""
    schema = json.loads(call("config", "schema").output)
    assert schema["$schema"] == "https://json-schema.org/draft/2020-12/schema"
    assert schema["properties"]["sinks"]["items"]["discriminator"]["propertyName"] == "type"
    assert schema["$defs"]["LarkConfig"]["properties"]["backoff_base"]["default"] == 1


# check


def test_check_of_what_is_well(tmp_path: Path) -> None:
    """Each item gets a line; nothing is created by looking."""
    file_sink = '[[sinks]]\nname = "audit"\ntype = "file"\npath = "audit.jsonl"\n[[sinks]]\nname = "l"\ntype = "log"\n'
    result = call("check", text=LARK + STORE + HTTP + file_sink)
    assert result.exit_code == 0
    assert items(result.output) == {
        "configuration": "ok config.toml",
        "lark.app_secret": "ok given as a value; app_secret_file keeps it out of the configuration",
        "lark.domain": "ok https://open.feishu.cn",
        "store": "ok events.db: will be created",
        'sink "booking"': "ok https://booking.example: not contacted; --online tries it",
        'sink "audit"': "ok audit.jsonl: will be created",
        'sink "l"': "ok the daemon's log",
    }
    assert [path.name for path in tmp_path.iterdir()] == ["config.toml"]


def test_check_of_files_that_are_there() -> None:
    """Files in place are looked at and left as they are."""
    make_store(url_of(Path("events.db")))
    Path("audit.jsonl").write_text("{}\n", encoding="utf-8")
    there = set(Path().iterdir())
    sink = '[[sinks]]\nname = "audit"\ntype = "file"\npath = "audit.jsonl"\n'
    result = call("check", text=LARK + STORE + sink)
    assert result.exit_code == 0
    assert items(result.output)["store"] == "ok events.db: exists"
    assert items(result.output)['sink "audit"'] == "ok audit.jsonl: exists; events will be appended"
    assert set(Path().iterdir()) == {*there, Path("config.toml")}


def test_check_of_a_secret_file() -> None:
    """Where the secret is read from is told."""
    Path("secret").write_text(HIDDEN, encoding="utf-8")
    result = call("check", text='[lark]\napp_id = "a"\napp_secret_file = "secret"\n' + STORE)
    assert items(result.output)["lark.app_secret"] == "ok read from secret"


def test_check_of_a_credential(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """That a credential is fixed until a restart is told."""
    (tmp_path / "app_secret").write_text(HIDDEN, encoding="utf-8")
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(tmp_path))
    result = call("check", text='[lark]\napp_id = "a"\n' + STORE)
    assert "restart" in items(result.output)["lark.app_secret"]


@pytest.mark.parametrize(
    ("settings", "subject", "expected"),
    [
        ('[store]\nurl = "sqlite:///a-directory"', "store", "FAIL a-directory: is not a regular file"),
        ('[store]\nurl = "sqlite:///config.toml"', "store", "FAIL config.toml: is not an SQLite database"),
        ('[store]\nurl = "sqlite:///config.toml/x/e.db"', "store", "FAIL config.toml"),
        (
            '[[sinks]]\nname="a"\ntype="file"\npath="no/e.jsonl"',
            'sink "a"',
            "FAIL no: the directory does not exist; create it",
        ),
        (
            '[[sinks]]\nname="a"\ntype="file"\npath="a-directory"',
            'sink "a"',
            "FAIL a-directory: is not a regular file",
        ),
        (
            '[[sinks]]\nname="a"\ntype="file"\npath="/dev/null"',
            'sink "a"',
            "FAIL /dev/null: is not a regular file",
        ),
        ('[[sinks]]\nname="a"\ntype="file"\npath="config.toml/e"', 'sink "a"', "FAIL config.toml"),
        (
            '[[sinks]]\nname="a"\ntype="http"\nurl="https://h"\nca_bundle="no.pem"',
            'sink "a"',
            "FAIL ca_bundle no.pem: No such file",
        ),
        (
            '[[sinks]]\nname="a"\ntype="http"\nurl="https://h"\nca_bundle="config.toml"',
            'sink "a"',
            "FAIL ca_bundle config.toml",
        ),
    ],
)
def test_check_of_what_is_wrong(settings: str, subject: str, expected: str) -> None:
    """An item that would not work is told with its reason, and makes the exit code 78."""
    Path("a-directory").mkdir()
    result = call("check", text=LARK + settings)
    assert result.exit_code == 78
    assert items(result.output)[subject].startswith(expected)


@pytest.mark.parametrize(
    ("settings", "subject", "path"),
    [
        (STORE, "store", "events.db"),
        (STORE, "store", "."),
        ('[[sinks]]\nname="a"\ntype="file"\npath="e.jsonl"', 'sink "a"', "e.jsonl"),
        ('[[sinks]]\nname="a"\ntype="file"\npath="new.jsonl"', 'sink "a"', "."),
    ],
)
def test_check_of_places_that_are_closed(
    settings: str, subject: str, path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file or directory that this user may not write is told; root may everything, so access() is scripted."""
    for name in ("events.db", "e.jsonl"):
        Path(name).touch()
    closed = Path(path).resolve()
    monkeypatch.setattr("os.access", lambda asked, *_, **__: Path(asked).resolve() != closed)
    result = call("check", text=LARK + settings)
    assert result.exit_code == 78
    assert items(result.output)[subject].startswith(f"FAIL {path}: this user (uid ")


def test_check_of_a_wrong_configuration() -> None:
    """Each mistake in the configuration is an item of its own."""
    result = call("check", text="[lark]\nzzz = 1")
    assert result.exit_code == 78
    lines = result.output.splitlines()
    assert len(lines) == 3
    assert all(line.startswith("FAIL\tconfiguration\tconfig.toml: lark.") for line in lines)


def test_check_says_which_proxy_each_address_uses(monkeypatch: pytest.MonkeyPatch) -> None:
    """The platform and each sink, by setting or by environment, without the login; NO_PROXY and loopback go straight."""
    monkeypatch.setenv("HTTPS_PROXY", f"user:{HIDDEN}@proxy.example:3128")
    monkeypatch.setenv("NO_PROXY", "booking.example")
    own = f'[[sinks]]\nname = "own"\ntype = "http"\nurl = "https://own.example"\nproxy = "http://u:{HIDDEN}@other:8080"\n'
    here = '[[sinks]]\nname = "here"\ntype = "http"\nurl = "https://localhost:8443/x"\n'
    result = call("check", text=LARK + STORE + HTTP + own + here)
    assert result.exit_code == 0
    told = items(result.output)
    assert (
        told["lark.domain"]
        == "ok https://open.feishu.cn, through the proxy http://proxy.example:3128 (HTTPS_PROXY)"
    )
    assert told['sink "booking"'].startswith("ok https://booking.example: ")
    assert told['sink "own"'].startswith(
        "ok https://own.example, through the proxy http://other:8080 (proxy): "
    )
    assert told['sink "here"'].startswith("ok https://localhost:8443: ")


def test_check_of_a_proxy_that_is_not_supported(monkeypatch: pytest.MonkeyPatch) -> None:
    """It fails for the addresses that would go through it, and names the variable."""
    monkeypatch.setenv("ALL_PROXY", f"socks5://user:{HIDDEN}@proxy.example:1080")
    monkeypatch.setenv("NO_PROXY", "feishu.cn")
    result = call("check", text=LARK + STORE + HTTP)
    assert result.exit_code == 78
    told = items(result.output)
    assert told["lark.domain"] == "ok https://open.feishu.cn"
    assert told['sink "booking"'].startswith("FAIL ALL_PROXY: socks5 proxies are not supported")


@pytest.mark.parametrize(
    ("settings", "where"),
    [
        ('[lark]\napp_id = "cli_a"\napp_secret = "the-secret-itself"\n', "lark.app_secret: "),
        (LARK + '[webhook]\nencrypt_key = "the-key-itself"\n', "webhook.encrypt_key: "),
        (LARK + '[webhook]\nverification_token = "the-token-itself"\n', "webhook.verification_token: "),
        (LARK + HTTP.replace("hook?key=hunter2-hidden", "hooks/rooms"), 'sinks[0] "booking".url: '),
    ],
)
def test_what_the_example_has_is_refused(settings: str, where: str) -> None:
    """Every value of the example that stands for one of one's own is an error that says so, of check and of the start."""
    result = call("check", text=settings + STORE)
    assert result.exit_code == 78
    assert f"{where}is still the example's value; replace it with " in result.output


@pytest.mark.parametrize("command", ["check", "config show"])
def test_the_examples_app_id_is_refused(command: str) -> None:
    """The example started as it stands says what to put in, instead of being refused by the platform."""
    result = call(
        *command.split(), text='[lark]\napp_id = "cli_a1b2c3d4e5f6g7h8"\napp_secret = "s"\n' + STORE
    )
    assert result.exit_code != 0
    assert (
        "lark.app_id: is still the example's value; replace it with your app's ID"
        in f"{result.output} {result.exception}"
    )


def test_check_warns_of_blanks_that_were_copied_along() -> None:
    """An id or a secret with blanks around it is said, with where it stands; it is no error."""
    Path("secret").write_text(f"{HIDDEN} \n", encoding="utf-8")
    Path("secret").chmod(0o600)
    result = call("check", text='[lark]\napp_id = " cli_a"\napp_secret_file = "secret"\n' + STORE)
    assert result.exit_code == 0
    warnings = [line for line in result.output.splitlines() if line.startswith("warn")]
    assert ["remove them from the value" in warnings[0], "remove them from secret" in warnings[1]] == [
        True,
        True,
    ]
    assert len(warnings) == 2


def test_check_does_not_hang(monkeypatch: pytest.MonkeyPatch) -> None:
    """A step that does not end is left behind and said, with what to look at."""
    hanging = threading.Event()
    monkeypatch.setattr(findings.within, "__defaults__", (0.05,))
    monkeypatch.setattr("reserve_listener.config.load_explained", lambda *_: hanging.wait(60))
    result = call("check", text=LARK)
    hanging.set()
    assert result.exit_code == 78
    assert result.output.startswith("FAIL\tconfiguration\tdoes not finish within 0.05 s; look at the files")


def test_check_marks_on_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    """A terminal gets ✓ and ✗, everything else plain words."""
    monkeypatch.setattr(check_module, "at_terminal", lambda: True)
    result = call("check", text=LARK + '[store]\nurl = "sqlite:///config.toml"')
    assert [line[0] for line in result.output.splitlines()] == ["✓", "✓", "✓", "✗", "✓"]


# For all of them


def test_help_has_an_example() -> None:
    """Each command explains its options and shows how it is called."""
    for command in (["check"], ["config", "schema"], ["config", "show"]):
        assert f"Example: reserve-listener {' '.join(command)}" in " ".join(
            call(*command, "--help").output.split()
        )


def test_nothing_heavy_is_imported() -> None:
    """The commands' modules import neither pydantic nor the SDK; the SDK is not needed for a check, either."""
    Path("config.toml").write_text(LARK + STORE, encoding="utf-8")
    code = (
        "import sys\n"
        "from reserve_listener.cli.check import check\n"
        "from reserve_listener.cli.config import config_app\n"
        "assert not {'pydantic', 'lark_oapi'} & sys.modules.keys()\n"
        "check(None)\n"
        "assert not {'lark_oapi', 'httpx2', 'ssl'} & sys.modules.keys()\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.stderr == ""
    assert done.returncode == 0
