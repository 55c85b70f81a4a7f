"""A Debian of its own, booted with its systemd by systemd-nspawn; its changes are in memory and vanish with it."""

from __future__ import annotations

import asyncio
import fcntl
import json
import os
import subprocess
import sys
import time
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator

HERE = Path(__file__).parent
ROOT = HERE.parent.parent
BUILD_TIMEOUT_S = 420.0
BOOT_TIMEOUT_S = 60.0
COMMAND_TIMEOUT_S = 60.0
HALT_TIMEOUT_S = 20.0
TURN_TIMEOUT_S = 300.0
LOCK = Path("/run/lock/reserve-listener-test")
BOOTED = "systemctl is-system-running --wait 2>/dev/null"


class Machine:
    """A booted container. It shares this machine's network: 127.0.0.1 is the same one inside and outside."""

    def __init__(self, leader: int) -> None:
        self._leader = leader
        self.root = Path(f"/proc/{leader}/root")
        """Its file system, as seen from here."""

    async def run(self, *command: str, check: bool = True, timeout_s: float = COMMAND_TIMEOUT_S) -> str:
        """Run a command inside as root; what it wrote to stdout and stderr."""
        code, output = await self.result(*command, timeout_s=timeout_s)
        assert code == 0 or not check, f"{' '.join(command)}: exit {code}\n{output}"
        return output

    async def result(self, *command: str, timeout_s: float = COMMAND_TIMEOUT_S) -> tuple[int, str]:
        """Run a command inside as root; its exit code and output."""
        process = await asyncio.create_subprocess_exec(
            *self._entering(command), stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT
        )
        try:
            output, _ = await asyncio.wait_for(process.communicate(), timeout_s)
        except TimeoutError:
            with suppress(ProcessLookupError):
                process.kill()
            await process.wait()
            raise
        return int(process.returncode or 0), output.decode(errors="replace")

    def run_now(self, *command: str, timeout_s: float = COMMAND_TIMEOUT_S) -> str:
        """As `run`, outside a loop."""
        done = subprocess.run(
            self._entering(command), capture_output=True, text=True, timeout=timeout_s, check=False
        )
        assert done.returncode == 0, (
            f"{' '.join(command)}: exit {done.returncode}\n{done.stdout}{done.stderr}"
        )
        return done.stdout

    def write(self, path: str, text: str, mode: int = 0o644) -> None:
        """Write a file inside; missing directories are made."""
        file = self.root / path.lstrip("/")
        file.parent.mkdir(parents=True, exist_ok=True)
        file.touch(mode=mode)
        file.chmod(mode)
        file.write_text(text)

    def read(self, path: str) -> str:
        """Read a file inside; "" when there is none."""
        with suppress(FileNotFoundError):
            return (self.root / path.lstrip("/")).read_text()
        return ""

    async def show(self, unit: str) -> dict[str, str]:
        """What `systemctl show` says of a unit."""
        lines = (await self.run("systemctl", "show", unit)).splitlines()
        return dict(line.split("=", 1) for line in lines if "=" in line)

    async def journal(self, unit: str) -> list[dict[str, Any]]:
        """The unit's journal, oldest first: its own lines and what systemd says of it."""
        output = await self.run("journalctl", "--unit", unit, "--output", "json", "--no-pager")
        return [json.loads(line) for line in output.splitlines() if line.startswith("{")]

    def _entering(self, command: tuple[str, ...]) -> list[str]:
        clean = ("env", "-i", "PATH=/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL=C.UTF-8")
        spaces = ("--mount", "--uts", "--ipc", "--pid", "--root", "--wd")
        return ["nsenter", f"--target={self._leader}", *spaces, "--", *clean, *command]


@contextmanager
def booted(log: Path) -> Iterator[Machine]:
    """A machine that has finished booting; its console goes to `log`. It is gone at the end, also after a failure."""
    with _turn():
        yield from _booted(log)


def _booted(log: Path) -> Iterator[Machine]:
    command = (
        "setpriv",
        "--pdeathsig=TERM",  # a killed test run takes it along
        "systemd-nspawn",
        "--quiet",
        "--boot",
        "--register=no",
        "--volatile=overlay",
        "--link-journal=no",
        "--resolv-conf=off",
        "--timezone=off",
        "--console=pipe",
        f"--machine=reserve-listener-test-{os.getpid()}",
        f"--directory={_base()}",
        # Where systemd runs this machine, the container gets a scope of its own; elsewhere nobody can give it one.
        *(() if Path("/run/systemd/system").is_dir() else ("--keep-unit",)),
    )
    with log.open("wb") as console:
        nspawn = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=console, stderr=console)
    leader = 0
    try:
        leader = _leader(nspawn, log)
        machine = Machine(leader)
        _wait_booted(machine, log)
        yield machine
    finally:
        _halt(nspawn, leader)


@contextmanager
def _turn() -> Iterator[None]:
    """One machine at a time: where systemd does not run the host, all of them share a control group and clear it up."""
    deadline = time.monotonic() + TURN_TIMEOUT_S
    with LOCK.open("w") as file:
        while True:
            with suppress(BlockingIOError):
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            if time.monotonic() > deadline:
                raise TimeoutError(f"another machine has {LOCK} for {TURN_TIMEOUT_S} s")
            time.sleep(0.1)
        yield


def _base() -> Path:
    done = subprocess.run(
        ["timeout", "--kill-after=10", str(BUILD_TIMEOUT_S), HERE / "rootfs", sys.executable],
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    return Path(done.stdout.strip())


def _leader(nspawn: subprocess.Popen[bytes], log: Path) -> int:
    """The container's process 1, as this machine numbers it, once it is there."""
    deadline = time.monotonic() + BOOT_TIMEOUT_S
    while time.monotonic() < deadline:
        assert nspawn.poll() is None, f"systemd-nspawn ended: {log.read_text(errors='replace')}"
        for child in Path(f"/proc/{nspawn.pid}/task/{nspawn.pid}/children").read_text().split():
            with suppress(OSError):
                if Path(f"/proc/{child}/comm").read_text().strip() == "systemd":
                    return int(child)
        time.sleep(0.05)
    raise TimeoutError(f"no systemd within {BOOT_TIMEOUT_S} s: {log.read_text(errors='replace')}")


def _wait_booted(machine: Machine, log: Path) -> None:
    deadline = time.monotonic() + BOOT_TIMEOUT_S
    while time.monotonic() < deadline:
        # "degraded": a unit of Debian's own failed, which is nothing to us.
        if machine.run_now("sh", "-c", f"{BOOTED} || true").strip() in ("running", "degraded"):
            return
        time.sleep(0.05)
    raise TimeoutError(f"not booted within {BOOT_TIMEOUT_S} s: {log.read_text(errors='replace')}")


def _halt(nspawn: subprocess.Popen[bytes], leader: int) -> None:
    nspawn.terminate()  # an orderly shutdown
    try:
        nspawn.wait(HALT_TIMEOUT_S)
    except subprocess.TimeoutExpired:
        if leader:
            with suppress(ProcessLookupError):
                os.kill(leader, 9)  # with process 1 all of its processes end, and its mounts go with them
        nspawn.kill()
        nspawn.wait()
