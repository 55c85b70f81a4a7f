"""What PromQL expressions ask for, and what the daemon's /metrics has of it."""

from __future__ import annotations

import re
import shutil
import subprocess
from typing import TYPE_CHECKING, Final

import pytest
from prometheus_client.parser import text_string_to_metric_families as read_text

if TYPE_CHECKING:
    from collections.abc import Iterator

SELECTOR: Final = re.compile(r"\b((?:reserve_listener|process)_\w+)(?:\{([^}]*)\})?")
MATCHER: Final = re.compile(r'(\w+)(=~|=)"([^"]*)"')

needs_promtool = pytest.mark.skipif(
    shutil.which("promtool") is None, reason="promtool is missing: it is in Debian's package prometheus"
)


def promtool(*arguments: str) -> tuple[int, str]:
    """Its exit code and all that it said."""
    done = subprocess.run(["promtool", *arguments], capture_output=True, text=True, check=False)
    return done.returncode, done.stdout + done.stderr


def names(text: str) -> set[str]:
    """The metrics that expressions in a text name."""
    return {name for name, _ in SELECTOR.findall(text)}


def shown(exposition: str) -> set[str]:
    """The names under which Prometheus knows what is exposed, with samples or without."""
    found = set()
    for family in read_text(exposition):
        endings = {"histogram": ("_bucket", "_count", "_sum"), "counter": ("_total",)}.get(family.type, ("",))
        found |= {family.name + ending for ending in endings}
    return found


def asked_in_vain(text: str, exposition: str) -> Iterator[str]:
    """Selectors whose labels no sample has."""
    samples = [sample for family in read_text(exposition) for sample in family.samples]
    for name, matchers in SELECTOR.findall(text):
        wanted = [
            (label, value if sign == "=~" else re.escape(value))
            for label, sign, value in MATCHER.findall(matchers)
            if label not in {"job", "instance"}  # Prometheus' own
        ]
        if wanted and not any(
            sample.name == name
            and all(re.fullmatch(pattern, sample.labels.get(label, "")) for label, pattern in wanted)
            for sample in samples
        ):
            yield f"{name}{{{matchers}}}"
