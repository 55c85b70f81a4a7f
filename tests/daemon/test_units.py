"""The systemd units as they are shipped, read by systemd itself. Their behaviour: tests/systemd."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from reserve_listener.simulator import patience

UNITS = Path(__file__).parents[2] / "systemd"
NAMES = ("reserve-listener.service", "reserve-listener@.service")
PROGRAM = "/opt/reserve-listener/bin/reserve-listener"
HIGHEST_EXPOSURE = 1.3

needs_systemd = pytest.mark.skipif(
    shutil.which("systemd-analyze") is None, reason="systemd-analyze is missing: apt-get install systemd"
)


def analyze(*arguments: str) -> tuple[int, str]:
    done = subprocess.run(
        ["systemd-analyze", "--no-pager", *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=patience(60),
        check=False,
    )
    return done.returncode, done.stdout


@needs_systemd
@pytest.mark.parametrize("name", NAMES)
def test_systemd_finds_no_fault_with_a_unit(name: str, tmp_path: Path) -> None:
    """`systemd-analyze verify` has nothing to say, when a program stands where the daemon would be installed."""
    true = shutil.which("true")
    assert true is not None
    (tmp_path / name).write_text((UNITS / name).read_text().replace(PROGRAM, true))
    assert analyze("verify", "--man=no", str(tmp_path / name)) == (0, "")


@needs_systemd
@pytest.mark.parametrize("name", NAMES)
def test_a_unit_is_hardly_exposed(name: str) -> None:
    """`systemd-analyze security` gives a unit an exposure of 1.3 at most, on a scale to 10."""
    code, output = analyze("security", "--offline=true", str(UNITS / name))
    found = re.search(r"Overall exposure level for .*: ([0-9.]+) ", output)
    assert found is not None, output
    assert code == 0
    assert float(found[1]) <= HIGHEST_EXPOSURE, output


def test_the_template_differs_only_in_its_folders() -> None:
    """An instance of the template is the plain unit with a folder of its own in each place."""
    plain, template = ((UNITS / name).read_text() for name in NAMES)
    _comment, _, rest = template.partition("\n")
    assert rest.replace("/%i", "").replace("-%i", "").replace(" for %i", "") == plain
