"""A machine with the daemon installed, a platform for it, and the daemon as its unit."""

from __future__ import annotations

import secrets
import shutil
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from reserve_listener.simulator import Simulator
from tests.systemd.machine import ROOT, booted
from tests.systemd.service import Service

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator
    from pathlib import Path

    from tests.systemd.machine import Machine

QUICK_RETRIES = (0.3,) * 40


@pytest.fixture(scope="session")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    options = ("--quiet", "--disable-pip-version-check", "--no-deps", "--no-build-isolation")
    command = (sys.executable, "-m", "pip", "wheel", *options, f"--wheel-dir={folder}", str(ROOT))
    subprocess.run(command, check=True, timeout=120)
    (wheel,) = folder.glob("*.whl")
    return wheel


@pytest.fixture
def machine(tmp_path: Path, wheel: Path) -> Iterator[Machine]:
    """A booted Debian with the daemon installed as docs/service.md says."""
    with booted(tmp_path / "console.log") as machine:
        shutil.copy(wheel, machine.root / "root")
        pip = ("/opt/reserve-listener/bin/pip", "install", "--quiet", "--no-index", "--no-deps")
        machine.run_now(*pip, f"/root/{wheel.name}")
        for unit in (ROOT / "systemd").glob("*.service"):
            machine.write(f"/etc/systemd/system/{unit.name}", unit.read_text())
        machine.run_now("systemctl", "daemon-reload")
        yield machine


@pytest.fixture
async def platform() -> AsyncIterator[Simulator]:
    """A platform on this machine's loopback, with an app secret that nothing else knows."""
    async with Simulator(retry_delays=QUICK_RETRIES, app_secret=secrets.token_hex(16)) as simulator:
        yield simulator


@pytest.fixture
def service(machine: Machine, platform: Simulator) -> Service:
    return Service(machine, platform)
