"""Documentation that can be tested is tested."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any, Final

import pytest
import typer
from typer.testing import CliRunner

from reserve_listener.cli.main import app
from reserve_listener.errors import ConfigError, RefusedAtStartError, StoreInUseError

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()
OPERATING = (ROOT / "docs" / "operating.md").read_text()


def _commands(command: Any, name: str) -> list[tuple[str, Any]]:
    """A command and all below it, by what one types."""
    children = getattr(command, "commands", {})
    below = [pair for child, each in children.items() for pair in _commands(each, f"{name} {child}")]
    return [(name, command), *below]


COMMANDS: Final = dict(_commands(typer.main.get_command(app), "reserve-listener"))


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_and_option_is_explained(name: str) -> None:
    """`-h` of each command and group has an example on one line, and each option says what it and its value mean."""
    words, runner = name.split()[1:], CliRunner(env={"COLUMNS": "80", "TERMINAL_WIDTH": "80"})
    shown, same = (
        runner.invoke(app, [*words, option], prog_name="reserve-listener") for option in ("-h", "--help")
    )
    assert (shown.exit_code, shown.output) == (0, same.output)
    example = rf"^ *((Example|New here\? Try): |eval \"\$\()?{name}\b"
    assert re.search(example, shown.output, re.MULTILINE), shown.output
    _, _, options = shown.output.partition("\nOptions:")
    unexplained = re.search(r"<(str|int|float|path|text|list|int range|float range)\b", options)
    assert not unexplained, shown.output
    for parameter in COMMANDS[name].params:
        assert getattr(parameter, "help", None), f"{name} {parameter.name}"
    if not hasattr(COMMANDS[name], "commands"):
        assert "-c, --config FILE" in shown.output


def test_the_readme_names_the_commands_that_exist() -> None:
    """Every `make` target and every `reserve-listener` command in README and docs is there."""
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    known = {name.split()[1] for name in COMMANDS if " " in name}
    for path in [ROOT / "README.md", *(ROOT / "docs").glob("*.md")]:
        text = path.read_text()
        assert set(re.findall(r"^\$ make (\w+)", text, re.MULTILINE)) <= targets
        assert set(re.findall(r"^\$ (?:\S*/)?reserve-listener (\w[\w-]*)", text, re.MULTILINE)) <= known


def test_links_between_documents_lead_somewhere() -> None:
    """No relative link in README, ARCHITECTURE or docs is broken."""
    for path in [ROOT / "README.md", ROOT / "ARCHITECTURE.md", *(ROOT / "docs").glob("*.md")]:
        for link in re.findall(r"\]\((?!https?://)([^)#]+)", path.read_text()):
            assert (path.parent / link).exists(), f"{path.name}: {link}"


def test_the_readme_shows_an_event_as_sinks_receive_it() -> None:
    """The JSON in the README has exactly the attributes of the contract."""
    (block,) = re.findall(r"```json\n(.*?)```", README, re.DOTALL)
    event = json.loads(block)
    assert list(event) == [
        "specversion",
        "id",
        "source",
        "type",
        "subject",
        "time",
        "datacontenttype",
        "data",
    ]
    assert set(event["data"]) == {
        "scope_id",
        "scope_type",
        "approve_config",
        "time_config",
        "reserve_scope_config",
        "scope_name",
        "scope_path",
        "revision",
        "changes",
        "summary",
    }


def test_every_log_event_is_documented() -> None:
    """What the daemon logs at info and above stands in docs/operating.md."""
    logged: set[str] = set()
    for path in (ROOT / "reserve_listener").rglob("*.py"):
        if "simulator" not in path.parts:
            logged |= set(
                re.findall(
                    r"(?:log|tell)(?:\.(?:info|warning|error))?\(\s*\"([a-z_]+\.[a-z_]+)\"", path.read_text()
                )
            )
    assert len(logged) > 12
    for event in logged - {"library.log", "daemon.signal", "daemon.drained"}:
        component, verb = event.split(".")
        assert event in OPERATING or (f"`.{verb}`" in OPERATING and component in OPERATING), event


def test_exit_codes_are_documented() -> None:
    """The table of exit codes has the codes that the errors carry."""
    codes = {int(code) for code in re.findall(r"^\| (\d+) \|", OPERATING, re.MULTILINE)}
    assert codes == {0, 1, 2, StoreInUseError.exit_code, RefusedAtStartError.exit_code, ConfigError.exit_code}
