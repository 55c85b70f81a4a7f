"""What root installs for the service is pinned, byte by byte."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


def pins(name: str) -> dict[str, str]:
    """Of a requirements file: each package's version."""
    text = (ROOT / "requirements" / name).read_text()
    return dict(re.findall(r"^([a-z0-9-]+)==([^ \\;]+)", text, flags=re.MULTILINE))


def test_the_builds_tools_are_pinned_to_what_the_tests_build_with() -> None:
    """The backend and all that it needs have versions and hashes, and those of the development environment."""
    build, dev = pins("build.txt"), pins("dev.txt")
    assert "hatchling" in build
    assert build.items() <= dev.items()
    requirements = (ROOT / "requirements" / "build.txt").read_text()
    assert len(re.findall(r"--hash=sha256:", requirements)) >= len(build)


@pytest.mark.parametrize("document", ["docs/service.md"])
def test_no_install_of_the_service_fetches_what_nobody_has_pinned(document: str) -> None:
    """Each `pip install` as root takes hashes, or builds with what is there and fetches nothing."""
    commands = re.findall(r"^# .*pip install (.*)$", (ROOT / document).read_text(), flags=re.MULTILINE)
    assert len(commands) >= 4
    for command in commands:
        pinned = "--require-hashes" in command
        assert pinned or {"--no-deps", "--no-build-isolation"} <= set(command.split()), command


@pytest.mark.parametrize("file", ["Makefile", ".ci/run", "docs/service.md", "Containerfile"])
def test_nothing_but_the_pins_is_looked_for(file: str) -> None:
    """Pip 23 lets `coverage[toml]`, which a pin asks for, be a release of today, and then refuses it for having no hash."""
    lines = (ROOT / file).read_text().replace("$(INSTALL)", "pip install --no-deps").splitlines()
    installs = [line for line in lines if "--require-hashes" in line]
    assert installs
    assert all("--no-deps" in line for line in installs), installs


@pytest.mark.parametrize("file", ["Makefile", ".ci/run", "docs/service.md", "Containerfile"])
def test_nothing_is_built_of_a_foreign_source(file: str) -> None:
    """What has no wheel would be built by pip, with tools of today that nobody has pinned."""
    installs = [line for line in (ROOT / file).read_text().splitlines() if "--require-hashes" in line]
    assert installs
    assert all("--only-binary=:all:" in line for line in installs), installs


@pytest.mark.parametrize("unit", ["reserve-listener.service", "reserve-listener@.service"])
def test_the_units_bound_the_memory(unit: str) -> None:
    """More than what the daemon's own bounds add up to, and less than a small machine has."""
    (size,) = re.findall(r"^MemoryHigh=(\d+)M$", (ROOT / "systemd" / unit).read_text(), flags=re.MULTILINE)
    assert 512 <= int(size) <= 1024
