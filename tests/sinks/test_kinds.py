"""The kinds of sinks that come with the daemon: each is one module or folder, and its documentation."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from reserve_listener.config import SinkTable
from reserve_listener.sinks.kinds import KINDS
from tests.configuring import json_schema, model_of

ROOT = Path(__file__).parents[2]


def test_kinds_are_found_where_they_stand() -> None:
    """A module of `sinks/` is a kind, but for those that look after them or are shared; there is no list to keep."""
    files = {path.stem for path in (ROOT / "reserve_listener/sinks").iterdir() if path.name[0] != "_"}
    assert set(KINDS.built_in) == files - {"kinds", "registry", "brokers"}
    assert {"log", "file", "http"} <= set(KINDS.built_in)


@pytest.mark.parametrize("name", KINDS.built_in)
def test_each_key_of_a_kind_is_explained(name: str) -> None:
    """In the schema by its description, and for people in docs/configuration.md or on the kind's own page."""
    page = ROOT / f"docs/sink-{name}.md"
    text = (page if page.exists() else ROOT / "docs/configuration.md").read_text(encoding="utf-8")
    for key, field in model_of(name).model_fields.items():
        if key not in SinkTable.model_fields:
            assert field.description, key
            assert f"`{key}`" in text, key
    assert f"{name.title()}Sink" in json_schema()["$defs"]
    assert getattr(KINDS.find(name), "docs", "")


def test_a_kind_that_is_not_used_is_not_loaded() -> None:
    """A configuration with a log sink loads neither the other kinds, nor the HTTP client, nor a list of what is installed."""
    code = """
import sys
from pathlib import Path
from unittest import mock
import reserve_listener.config as config
from reserve_listener.sinks import kinds
with mock.patch.object(kinds, "_entries", side_effect=AssertionError):
    config.locate(kinds.KINDS, Path(sys.argv[1]), environ={})
loaded = {name for name in sys.modules if name.startswith("reserve_listener.sinks.")}
print(sorted(loaded), "httpx2" in sys.modules)
"""
    command = [sys.executable, "-c", code, str(ROOT / "config.example.toml")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    expected = "['reserve_listener.sinks.kinds', 'reserve_listener.sinks.log'] False\n"
    assert (done.stdout, done.stderr) == (expected, "")
