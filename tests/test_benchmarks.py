"""The benchmark works and says what it found; its figures are nothing to assert."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from reserve_listener.simulator import patience

BENCHMARKS = Path(__file__).parent.parent / "benchmarks"


def test_the_node_sample_is_pinned_and_names_no_address() -> None:
    """The peer's package has one exact version, and neither a lock nor the address of a registry beside it."""
    folder = BENCHMARKS / "peers" / "node"
    package = json.loads((folder / "package.json").read_text())
    assert all(version[0].isdigit() for version in package["dependencies"].values())
    assert sorted(file.name for file in folder.iterdir()) == ["package.json", "sample.cjs"]
    assert "//" not in (folder / "package.json").read_text()


@pytest.mark.long
def test_a_short_comparison_has_its_figures() -> None:
    """Of a few hundred rooms: with and without comparing them, in every row."""
    done = subprocess.run(
        [sys.executable, BENCHMARKS / "reconcile.py", "--quick"],
        capture_output=True,
        text=True,
        timeout=patience(120),
        check=False,
    )
    assert done.returncode == 0, done.stderr
    rows = {line.split()[0]: line.split()[1:] for line in done.stdout.splitlines()[1:]}
    assert {"minutes_unscaled", "answer_p99_ms", "most_mib"} < rows.keys()
    assert all(len(figures) == 2 for figures in rows.values())


@pytest.mark.long
def test_a_short_run_writes_table_figures_and_chart(tmp_path: Path) -> None:
    """One round of a few events with each client: every row has a figure, and the chart is an image."""
    figures, chart = tmp_path / "figures.json", tmp_path / "chart.svg"
    done = subprocess.run(
        [sys.executable, BENCHMARKS / "bench.py", "--quick", "--output", figures, "--plot", chart],
        capture_output=True,
        text=True,
        timeout=patience(180),
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "| events/s, 64 in flight |" in done.stdout
    assert "against the Python sample" in done.stdout
    found = json.loads(figures.read_text())
    assert set(found) == {"facts", "results", "once"}
    assert chart.read_text().startswith("<svg ")
