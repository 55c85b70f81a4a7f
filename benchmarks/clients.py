"""The clients that are compared, and how each is started: on two cores, against one gateway."""

from __future__ import annotations

import asyncio
import os
import shutil
import subprocess
import sys
import tempfile
import time
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

import psutil

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Sequence

    from reserve_listener.simulator import Simulator

HERE: Final = Path(__file__).parent
PEERS: Final = HERE / "peers"
OURS: Final = "reserve-listener"
NODE: Final = "node"
PYTHON: Final = "python"
BLIND: Final = "blind"
CORES: Final = 2

LARK: Final = """
[lark]
app_id = "{app_id}"
app_secret = "{app_secret}"
domain = "{domain}"
"""
CONFIG: Final = (
    LARK
    + """
[store]
url = "sqlite:///{folder}/events.db"
"""
)
UNASKED: Final = """
[rooms]
names = false
reconcile = false
"""
"""The platform is asked for nothing."""
FILES: Final = """
[[sinks]]
name = "console"
type = "log"
[[sinks]]
name = "audit"
type = "file"
path = "{folder}/events.jsonl"
"""
UNDISTURBED: Final = """
[rooms]
reconcile = false
"""
"""What comparing all limits costs the answers is measured by itself (`reconcile.py`): it goes on for hours after a start."""


@dataclass(frozen=True)
class Started:
    """A connected client."""

    process: psutil.Process
    ready_s: float
    folder: Path


def pin() -> tuple[set[int], set[int]]:
    """The gateway's cores and the client's; all for both where there are too few. The gateway takes its own now."""
    cores = sorted(os.sched_getaffinity(0))
    if len(cores) <= CORES:
        return set(cores), set(cores)
    gateway, client = set(cores[:-CORES]), set(cores[-CORES:])
    os.sched_setaffinity(0, gateway)
    return gateway, client


def node_modules() -> Path | None:
    """A folder with the platform's Node SDK, installed once; None, having said why, when that cannot be."""
    node, npm = shutil.which("node"), shutil.which("npm")
    if node is None or npm is None:
        print("the Node sample is left out: node and npm are needed", file=sys.stderr)
        return None
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    folder = cache / "reserve-listener-bench" / "node"
    folder.mkdir(parents=True, exist_ok=True)
    wanted = (PEERS / "node" / "package.json").read_bytes()
    have = folder / "package.json"
    if not (folder / "node_modules").is_dir() or not have.exists() or have.read_bytes() != wanted:
        have.write_bytes(wanted)
        install = [npm, "install", "--no-audit", "--no-fund", "--no-package-lock", "--silent"]
        try:
            subprocess.run(install, cwd=folder, check=True, timeout=180, stdout=subprocess.DEVNULL)
        except (subprocess.SubprocessError, OSError) as error:
            have.unlink()
            print(f"the Node sample is left out: npm install failed: {error}", file=sys.stderr)
            return None
    shutil.copyfile(PEERS / "node" / "sample.cjs", folder / "sample.cjs")
    return folder


def command(
    client: str,
    platform: Simulator,
    folder: Path,
    *,
    node: Path | None,
    sinks: str,
    python: Sequence[str] = ("-m", "reserve_listener"),
) -> list[str]:
    """How a client is started; `python`: what Python is to run for ours."""
    to = [platform.domain, platform.app_id, platform.app_secret]
    if client == NODE:
        return ["node", str(node and node / "sample.cjs"), *to]
    if client != OURS:
        return [sys.executable, str(PEERS / f"{client}.py"), *to]
    values = {"app_id": to[1], "app_secret": to[2], "domain": to[0], "folder": folder}
    config = folder / "config.toml"
    config.write_text((CONFIG + sinks).format(**values))
    return [sys.executable, *python, "run", "-c", str(config)]


@asynccontextmanager
async def started(
    client: str,
    platform: Simulator,
    cores: set[int],
    *,
    node: Path | None = None,
    sinks: str = FILES,
    python: Sequence[str] = ("-m", "reserve_listener"),
    prepare: Callable[[Path], Awaitable[object]] | None = None,
) -> AsyncIterator[Started]:
    """The client in a process of its own on these cores, connected; `prepare` puts something into its folder before."""
    with tempfile.TemporaryDirectory(dir=os.environ.get("BENCH_DIR")) as name:
        folder = Path(name)
        if prepare is not None:
            await prepare(folder)
        pinned = (
            ["taskset", "--cpu-list", ",".join(map(str, sorted(cores)))] if shutil.which("taskset") else []
        )
        # An installed package is compiled: so is what a client loads from the second start on, whatever this shell prefers.
        environ = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
        begun = time.perf_counter()
        with (folder / "out").open("wb") as out:
            process = await asyncio.create_subprocess_exec(
                *pinned,
                *command(client, platform, folder, node=node, sinks=sinks, python=python),
                stdout=out,
                stderr=subprocess.STDOUT,
                env=environ,
            )
            try:
                await platform.connected(60)
                ready_s = time.perf_counter() - begun
                if client == NODE:  # on a busy machine it loses what comes while it is still at its handshake
                    await asyncio.sleep(1)
                yield Started(psutil.Process(process.pid), ready_s, folder)
            finally:
                process.terminate()
                await process.wait()
                await platform.disconnected(30)
