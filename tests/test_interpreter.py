"""What Python is set to, in an interpreter of its own."""

from __future__ import annotations

import json
import subprocess
import sys

LOOK = """
import gc, json, sys
from reserve_listener import interpreter
found = {"before": gc.isenabled()}
interpreter.starting()
found |= {"starting": gc.isenabled(), "switch_s": sys.getswitchinterval()}
interpreter.started()
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
        [sys.executable, "-c", LOOK], capture_output=True, text=True, timeout=30, check=True
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
