"""Sinks of others: found by their entry point, checked like our own, and harmless while nobody uses them."""

from __future__ import annotations

import json
import sys
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from typer.testing import CliRunner

from reserve_listener import config
from reserve_listener.cli.main import app
from reserve_listener.errors import ConfigError
from reserve_listener.sinks import kinds
from reserve_listener.sinks.registry import look_over, make_sink_spec
from tests.configuring import TYPES

if TYPE_CHECKING:
    from collections.abc import Iterator

    from reserve_listener.config import Config

HIDDEN = "hunter2-hidden"
LARK = '[lark]\napp_id = "cli_a"\napp_secret = "s"\n'
TOY = '[[sinks]]\nname = "a"\ntype = "toy"\ntoken_file = "token"\n'
LOG = '[[sinks]]\nname = "a"\ntype = "log"\n'
SOURCE = """
from pathlib import Path
from pydantic import BaseModel, SecretStr
class Settings(BaseModel):
    "Plays."
    size: int = 1
    token_file: Path | None = None
    pin: SecretStr | None = None
    password: str = "none"
class Sink:
    batch_size, max_in_flight, needs_raw = 1, 1, False
    def __init__(self, name, settings, token): self.name, self.settings, self.token = name, settings, token
    async def deliver(self, deliveries): pass
    async def close(self): pass
class Toy:
    name, settings, secrets, docs = "toy", Settings, ("token_file",), "plays"
    def build(self, settings, secrets, runtime):
        return Sink(runtime.name, settings, secrets.get("token_file"))
KIND = Toy()
"""


class Site:
    """Packages that are installed for a test."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.modules: list[str] = []

    def install(self, package: str, source: str = SOURCE, *, offers: str = "toy", of: str = "KIND") -> None:
        """A package with one module, and an entry point for it."""
        module = f"{package.replace('-', '_')}_module"
        self.modules.append(module)
        (self.folder / f"{module}.py").write_text(source)
        info = self.folder / f"{package.replace('-', '_')}-1.0.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {package}\nVersion: 1.0\n")
        (info / "entry_points.txt").write_text(f"[{kinds.GROUP}]\n{offers} = {module}:{of}\n")


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Site]:
    """An empty working directory, a secret in it, and a folder to install into."""
    (tmp_path / "site").mkdir()
    (tmp_path / "token").write_text(HIDDEN)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path / "site")
    monkeypatch.setattr(kinds, "KINDS", kinds.Kinds())
    site = Site(tmp_path / "site")
    yield site
    for module in site.modules:
        sys.modules.pop(module, None)


def load(text: str, **environ: str) -> Config:
    Path("config.toml").write_text(text)
    return config.load(kinds.KINDS, Path("config.toml"), environ=environ)


def mistake(text: str) -> str:
    with pytest.raises(ConfigError) as caught:
        load(text)
    assert HIDDEN not in str(caught.value)
    assert str(caught.value).isprintable()
    return str(caught.value)


async def nowhere(_: object) -> None:
    """Nothing writes to a log here."""


@contextmanager
def stepped(path: Path, text: str) -> Iterator[None]:
    """A file with another content, for a while."""
    before = path.read_text()
    path.write_text(text)
    yield
    path.write_text(before)


def call(*arguments: str, text: str) -> tuple[int, str]:
    Path("config.toml").write_text(text)
    result = CliRunner().invoke(app, [*arguments, "-c", "config.toml"])
    shown = f"{result.exception} " if isinstance(result.exception, ConfigError) else ""
    assert HIDDEN not in shown + result.output
    return result.exit_code, shown + result.output


# -- one that is good ------------------------------------------------------------------------------------------------------


def test_a_plugin_is_a_sink_like_others(site: Site) -> None:
    """Its settings beside the common keys; its secret, read once, goes to the sink, the masks and the fingerprint."""
    site.install("toys")
    loaded = load(LARK + TOY + 'size = 3\npin = "4-pin-4"\nretry = { base = 2 }\nscope_type = "room"\n')
    (table,) = loaded.sinks
    spec = make_sink_spec(table, nowhere)
    sink: Any = spec.sink
    assert (sink.name, sink.settings.size, sink.token.get_secret_value()) == ("a", 3, HIDDEN)
    assert (spec.policy.base_s, table.scope_type) == (2, "room")
    assert {HIDDEN, "4-pin-4"} <= set(loaded.secret_texts())
    assert HIDDEN not in f"{loaded!r} {loaded.model_dump_json()}"
    with stepped(Path("token"), "another-secret"):
        assert make_sink_spec(table, nowhere).settings == spec.settings  # what was read counts
        again = load(Path("config.toml").read_text())
    assert again == loaded
    assert make_sink_spec(again.sinks[0], nowhere).settings != spec.settings
    same = load(Path("config.toml").read_text())
    assert make_sink_spec(same.sinks[0], nowhere).settings == spec.settings  # a reload leaves it alone


@pytest.mark.parametrize(
    ("keys", "expected"),
    [
        (
            'size = "x"',
            '.size: must be a whole number, found "x"',
        ),
        ("sise = 1", '.sise: unknown key; did you mean "size"?'),
        ("rotate_mb = 1", '.rotate_mb: unknown key here; it belongs to sinks of type "file"'),
        ("retry = { cap = 0.5 }", ".retry.cap: must be at least base (1), found 0.5"),
        (
            "scope_ids = []",
            ".scope_ids: must have at least one item; to accept all, leave it out, found an empty array",
        ),
        (f'pin = ["{HIDDEN}"]', ".pin: must be a string in quotes, found an array (not shown)"),
        (f'pasword = "{HIDDEN}"', '.pasword: unknown key; did you mean "password"?'),
    ],
)
def test_mistakes_in_a_plugins_settings(site: Site, keys: str, expected: str) -> None:
    """File, sink and key, what is allowed and what was found, as for our own sinks; no secret, whatever it stands in."""
    site.install("toys")
    assert mistake(LARK + TOY + keys) == f'config.toml: sinks[0] "a"{expected}'


def test_a_plugin_that_lets_anything_pass_still_refuses_unknown_keys(site: Site) -> None:
    """Whatever its model says of other keys: one that is mistyped would be lost without a word."""
    site.install(
        "toys", SOURCE.replace('    "Plays."\n', '    model_config = {"extra": "allow", "frozen": False}\n')
    )
    assert "unknown key" in mistake(LARK + TOY + "sise = 1")


def test_a_plugins_secret_that_cannot_be_read(site: Site, tmp_path: Path) -> None:
    """A secret is a credential first; one that is missing or no line is told with its key; the file is nobody's to write to."""
    site.install("toys")
    (tmp_path / "credentials").mkdir()
    (tmp_path / "credentials/token").write_text("from-systemd")
    loaded = load(LARK + TOY, CREDENTIALS_DIRECTORY=str(tmp_path / "credentials"))
    assert "from-systemd" in loaded.secret_texts()
    taken = LARK + TOY + '[[sinks]]\nname = "f"\ntype = "file"\npath = "token"\n'
    assert 'sink "f": path: token is a file that the sink "a" reads; name another path' in mistake(taken)
    (tmp_path / "token").write_text("two\nlines\n")
    assert ".token_file: token has more than one line" in mistake(LARK + TOY)
    (tmp_path / "token").unlink()
    assert ".token_file: cannot read token: No such file" in mistake(LARK + TOY)


def test_what_commands_say_of_a_plugin(site: Site) -> None:
    """`check`, `config show` and `config schema` know it, and hold no secret of it."""
    site.install("toys")
    text = LARK + '[store]\nurl = "sqlite:///events.db"\n' + TOY + f'password = "{HIDDEN}"\n'
    code, output = call("check", text=text)
    assert (code, 'sink "a"' in output, "plays" in output) == (0, True, True)
    code, output = call("config", "show", text=text)
    assert 'type = "toy"  # file' in output
    assert 'password = "********"' in output
    _, output = call("config", "schema", text=text)
    toy = json.loads(output)["$defs"]["ToySink"]
    assert (toy["description"], toy["properties"]["type"]["const"]) == ("Plays.", "toy")
    assert {"name", "retry", "size", "token_file"} <= toy["properties"].keys()
    assert toy["additionalProperties"] is False


# -- those that are not ----------------------------------------------------------------------------------------------------

BROKEN = {
    "import nothing_of_this_name": "cannot be loaded: ModuleNotFoundError: No module named 'nothing_of_this_name'",
    "1 +": "cannot be loaded: SyntaxError: ",
    "raise SystemExit(3)": "cannot be loaded: SystemExit: 3",
    "raise RuntimeError('one\\ntwo\\x1b[31m')": "cannot be loaded: RuntimeError: one\\ntwo\\x1b[31m",
    "OTHER = 1": "cannot be loaded: AttributeError: ",
    "KIND = 1": "is no kind of sink: its settings are not a pydantic model",
    SOURCE.replace("KIND = Toy()", "KIND = Toy"): "is no kind of sink: it is a class; name an instance of it",
    SOURCE.replace('"toy", Settings', '"boy", Settings'): "is no kind of sink: its name is 'boy'",
    SOURCE.replace("def build", "def make"): "is no kind of sink: it has no build",
    SOURCE.replace('("token_file",)', '("tokenfile",)'): "is no kind of sink: its settings have no tokenfile",
}


@pytest.mark.parametrize(("source", "expected"), BROKEN.items())
def test_a_plugin_that_does_not_load_is_told_when_it_is_used(site: Site, source: str, expected: str) -> None:
    """An error of the configuration (78) with file, sink, package and cause; commands that need the store go on."""
    site.install("broken-toys", source)
    told = mistake(LARK + TOY)
    assert told.startswith(
        'config.toml: sinks[0] "a": type "toy": the plugin broken_toys_module:KIND of the package broken-toys '
    )
    assert expected in told
    assert call("check", text=LARK + TOY)[0] == 78
    assert config.locate(kinds.KINDS, Path("config.toml"), environ={}).problems == (told,)


@pytest.mark.parametrize("source", BROKEN)
def test_a_plugin_that_is_not_used_harms_nothing(site: Site, source: str) -> None:
    """It is not even loaded; the schema is that of the others."""
    site.install("broken-toys", source)
    assert load(LARK + LOG).sinks[0].type == "log"
    assert "broken_toys_module" not in sys.modules
    assert f'must be one of {TYPES}, "toy", found "lag"' in mistake(LARK + LOG.replace("log", "lag"))
    assert "broken_toys_module" not in sys.modules
    code, output = call("config", "schema", text="")
    assert (code, "FileSink" in output, "ToySink" in output) == (0, True, False)


def test_two_plugins_of_one_name(site: Site) -> None:
    """Nobody can say which one is meant, so neither is; unused they are no trouble."""
    site.install("toys")
    site.install("more-toys")
    assert mistake(LARK + TOY).endswith(
        'type "toy" is offered twice, by the package more-toys and the package toys; uninstall one of them'
    )
    assert load(LARK + LOG).sinks[0].type == "log"


def test_a_plugin_with_the_name_of_a_type_of_ours(site: Site) -> None:
    """Ours stands, the plugin is never loaded, and `check` says so."""
    site.install("logs", SOURCE.replace('"toy"', '"log"'), offers="log")
    assert (
        type(make_sink_spec(load(LARK + LOG).sinks[0], nowhere).sink).__module__
        == "reserve_listener.sinks.log"
    )
    assert "logs_module" not in sys.modules
    _, output = call("check", text=LARK + '[store]\nurl = "sqlite:///events.db"\n' + LOG)
    assert 'the package logs offers the type "log", which is built in; it is not used' in output


def test_a_plugin_must_not_take_the_daemons_keys(site: Site) -> None:
    """`retry` and the like mean the same for every sink."""
    site.install(
        "toys", SOURCE.replace("size: int = 1", "size: int = 1\n    retry: int = 1\n    use: int = 1")
    )
    assert "retry, use: every sink has this key already; the plugin must use another name" in mistake(
        LARK + TOY
    )


def test_what_a_type_needs_is_told_as_a_line_to_type(site: Site) -> None:
    """A module that is not installed: the `pip install` line that does it."""
    needs = 'needs = {"nothing_here.at.all": "reserve-listener[toys]", "json": "json"}'
    site.install("toys", SOURCE.replace("class Toy:", f"class Toy:\n    {needs}"))
    assert mistake(LARK + TOY).endswith(
        "type \"toy\" needs what is not installed: pip install 'reserve-listener[toys]'"
    )


@pytest.mark.parametrize(
    ("build", "expected"),
    [
        ('raise KeyError(secrets["token_file"].get_secret_value())', "fails in build: KeyError: '********'"),
        ('raise __import__("reserve_listener.errors").errors.ConfigError("no size fits")', "no size fits"),
        ('return Sink("other", settings, None)', "must have the name runtime.name"),
    ],
)
def test_a_plugin_that_cannot_make_its_sink(site: Site, build: str, expected: str) -> None:
    """An error of the configuration that names the sink, for `check` and at the start, and quotes no secret."""
    site.install(
        "toys", SOURCE.replace('return Sink(runtime.name, settings, secrets.get("token_file"))', build)
    )
    (table,) = load(LARK + TOY).sinks
    with pytest.raises(ConfigError) as caught:
        make_sink_spec(table, nowhere)
    assert str(caught.value).startswith('sink "a": ')
    assert expected in str(caught.value)
    assert HIDDEN not in str(caught.value)
    with pytest.raises(ConfigError) as caught:
        look_over(table)
    assert expected in str(caught.value)
    assert 'sink "a"' not in str(caught.value).partition("must have")[0]
