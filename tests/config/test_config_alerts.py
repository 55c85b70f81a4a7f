"""`[alerts]` and `[heartbeat]`: what is taken, and how mistakes are told."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from reserve_listener.errors import ConfigError
from tests.configuring import load

if TYPE_CHECKING:
    from reserve_listener.config import Config

LARK = '[lark]\napp_id = "cli_a"\napp_secret = "s"\n'
OPS = '[[sinks]]\nname = "ops"\ntype = "http"\nurl = "https://ops.corp/x"\n'
FEISHU = '[[sinks]]\nname = "old"\ntype = "http"\nurl = "https://old.corp/x"\nformat = "feishu"\n'
TOKEN = "t0ken-of-the-monitor"
URL = f"https://uptime.corp/api/push/{TOKEN}?status=up"


@pytest.fixture(autouse=True)
def _empty_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def loaded(text: str, **environ: str) -> Config:
    """What a file says."""
    Path("config.toml").write_text(LARK + text, encoding="utf-8")
    return load(Path("config.toml"), environ=environ)


def mistakes(text: str, **environ: str) -> str:
    """What is wrong with a file; 78, and no secret in it."""
    with pytest.raises(ConfigError) as caught:
        loaded(text, **environ)
    assert TOKEN not in str(caught.value)
    assert caught.value.exit_code == 78
    return str(caught.value)


def test_a_sink_is_for_alerts_too_or_for_alerts_only() -> None:
    """Any sink can be named; `events = false` takes the events away from it."""
    config = loaded(OPS + 'events = false\n[alerts]\nsinks = ["ops"]\nrepeat = 60')
    assert config.alerts.sinks == ("ops",)
    assert config.sinks[0].events is False
    assert loaded(OPS).sinks[0].events is True
    assert loaded(OPS, RESERVE_LISTENER_ALERTS__SINKS="ops").alerts.sinks == ("ops",)
    assert loaded("[alerts]\nsinks = []").alerts.sinks == ()


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (OPS + '[alerts]\nsinks = ["opps"]', 'alerts.sinks: there is no sink "opps"; the sinks are ops'),
        ('[alerts]\nsinks = ["ops"]', "the sinks are console"),
        (FEISHU + '[alerts]\nsinks = ["old"]', 'alerts.sinks: the sink "old", which carries only'),
        ('[alerts]\nsinks = "ops"', "alerts.sinks: must be an array of strings"),
        ("[alerts]\ndisconnected_after = 0", "alerts.disconnected_after: must be more than 0"),
        ("[alerts]\nrepeat = -1", "alerts.repeat: must be more than 0"),
        ("[alerts]\nafter = 1", "alerts.after: unknown key"),
        (OPS + 'events = "no"', 'sinks[0] "ops".events: must be true or false'),
        ("[heartbeat]", "heartbeat: url_file is missing"),
        ("[heartbeat]\nevery = 60", "heartbeat: url_file is missing"),
        ('[heartbeat]\nurl_file = "/nowhere/url"', "heartbeat.url_file: cannot read /nowhere/url"),
        (f'[heartbeat]\nurl = "{URL}"\nurl_file = "x"', "both are given"),
        (f'[heartbeat]\nurl = "ftp://x/{TOKEN}"', "heartbeat.url: must begin with http:// or https://"),
        (f'[heartbeat]\nurl = "https://u:{TOKEN}@x/"', "heartbeat.url: must not contain a user name"),
        (
            '[heartbeat]\nurl = "https://uptime.example/api/push/the-token-itself"',
            "heartbeat.url: is still the example's value",
        ),
        (f'[heartbeat]\nurl = "{URL}"\nevery = 0', "heartbeat.every: must be more than 0"),
    ],
)
def test_mistakes(text: str, expected: str) -> None:
    """Each names its key and what is allowed."""
    assert expected in mistakes(text)


def test_a_mistake_in_the_file_of_the_url_does_not_show_it() -> None:
    """What stands in it is a secret whatever it is."""
    Path("monitor").write_text(f"nonsense {TOKEN}\n", encoding="utf-8")
    assert "heartbeat.url" in mistakes('[heartbeat]\nurl_file = "monitor"')


def test_the_url_of_the_heartbeat_is_masked() -> None:
    """Whole and in parts, as it would stand in a log; the file's name is no secret."""
    Path("monitor").write_text(f"{URL}\n", encoding="utf-8")
    config = loaded('[heartbeat]\nurl_file = "monitor"')
    assert config.heartbeat is not None
    assert config.heartbeat.url is not None
    assert config.heartbeat.url.get_secret_value() == URL
    assert {URL, TOKEN} <= {*config.secret_texts()}
    assert TOKEN not in repr(config)


def test_no_sink_writes_to_the_file_of_the_alerts() -> None:
    """Which alerts fire is kept beside the store."""
    text = '[store]\nurl = "sqlite:///e.db"\n[[sinks]]\nname = "a"\ntype = "file"\npath = "e.db-alerts"\n'
    assert "e.db-alerts is a file of the store" in mistakes(text)
