"""What Python is set to, in an interpreter of its own."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from reserve_listener.simulator import patience

if TYPE_CHECKING:
    from pathlib import Path

LOOK = """
import gc, json, sys
from reserve_listener.daemon import runtime
found = {"before": gc.isenabled()}
runtime.starting()
found |= {"starting": gc.isenabled(), "switch_s": sys.getswitchinterval()}
runtime.started()
class Knot:
    pass
def tie():
    knot = Knot()
    knot.itself = knot
for _ in range(2 * gc.get_threshold()[0]):
    tie()
knots = sum(type(one) is Knot for one in gc.get_objects())
found |= {"started": gc.isenabled(), "frozen": gc.get_freeze_count() > 0, "knots": knots, "after": gc.get_threshold()[0]}
found["rich"] = "rich" in sys.modules
import rich.console, structlog.dev
structlog.dev.ConsoleRenderer()
print(json.dumps(found))
"""


def test_garbage_is_collected_once_all_is_loaded() -> None:
    """Not while modules are loaded; afterwards it is, rarely, and without what was loaded. Rich is left for others."""
    done = subprocess.run(
        [sys.executable, "-c", LOOK], capture_output=True, text=True, timeout=patience(30), check=True
    )
    found = json.loads(done.stdout)
    assert (found["before"], found["starting"], found["started"], found["frozen"]) == (
        True,
        False,
        True,
        True,
    )
    assert found["switch_s"] < 0.005
    assert found["knots"] < found["after"]
    assert not found["rich"]


TRIM = """
import json, re
from pathlib import Path
from reserve_listener.daemon import runtime
def held_mib():
    return int(re.search(r"VmRSS:\\s+(\\d+)", Path("/proc/self/status").read_text())[1]) / 1024
blocks = [bytearray(4000) for _ in range(20_000)]
full = held_mib()
del blocks[:-1]  # the last stays: what is below it does not go back by itself
before = held_mib()
runtime.give_back_memory()
print(json.dumps([full, before, held_mib()]))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="glibc's")
def test_what_the_start_needed_is_given_back() -> None:
    """Memory that is free in the middle of the C library's heap goes back to the system."""
    done = subprocess.run(
        [sys.executable, "-c", TRIM], capture_output=True, text=True, timeout=patience(30), check=True
    )
    full, before, after = json.loads(done.stdout)
    assert before > full - 10
    assert after < before - 50


DUMPABLE = """
import asyncio, ctypes, sys
def instead(_, coroutine):
    coroutine.close()
    print("dumpable", ctypes.CDLL(None).prctl(3, 0, 0, 0, 0))
asyncio.Runner.run = instead
from reserve_listener.cli.main import app
print("before", ctypes.CDLL(None).prctl(3, 0, 0, 0, 0))
app(["run", "-c", sys.argv[1]])
"""


@pytest.mark.skipif(sys.platform != "linux", reason="prctl is Linux's")
def test_run_lets_nobody_dump_its_memory(tmp_path: Path) -> None:
    """Before anything is served PR_GET_DUMPABLE is 0: no core file and no other process gets at the secrets."""
    config = tmp_path / "config.toml"
    config.write_text(
        f'[lark]\napp_id = "cli_x"\napp_secret = "s3cret"\n[store]\nurl = "sqlite:///{tmp_path}/events.db"\n'
    )
    done = subprocess.run(
        [sys.executable, "-c", DUMPABLE, str(config)],
        capture_output=True,
        text=True,
        timeout=patience(60),
        check=False,
    )
    assert done.stdout.splitlines()[:2] == ["before 1", "dumpable 0"], done.stderr
