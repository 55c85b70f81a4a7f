"""How the process is set for a daemon: when Python collects garbage, how often threads change places, no dumps of its memory."""

from __future__ import annotations

import contextlib
import ctypes
import gc
import importlib
import sys
from typing import Final

from reserve_listener.imports import replaced

COLLECT_AFTER: Final = 20_000
"""New objects, more than were given back, after which garbage is looked for: some thousand events."""

SWITCH_S: Final = 0.0005
"""How soon a thread that wants to go on gets its turn: the store's writer wants one after each step of SQLite, and at
Python's 5 ms the loop, when it is busy, keeps it waiting for most of a batch."""

LOADED_S: Final = 2.0
"""After so long everything is loaded that is not needed to connect."""


_PR_SET_DUMPABLE: Final = 4  # prctl(2)


def keep_memory_private() -> None:
    """No core dump, and no look by other processes of the same user: there are secrets in memory.

    Linux only; elsewhere nothing happens. What the process itself reads of /proc goes on working.
    """
    if sys.platform == "linux":
        with contextlib.suppress(OSError, AttributeError):  # a C library without it
            ctypes.CDLL(None).prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0)


def starting() -> None:
    """Before the daemon's modules are loaded, which make no garbage: nothing is collected until `started`."""
    gc.disable()
    sys.setswitchinterval(SWITCH_S)
    _load_structlog()


def _load_structlog() -> None:
    """Without rich, which it would load for tracebacks in colour: 30 ms and 3 MB, and ours are plain text."""
    with replaced({"rich": None}):
        importlib.import_module("structlog")


def started() -> None:
    """Once everything is loaded: it stays as long as the process, so the collector need not look through it again.

    At the usual 700 objects it would, every few dozen events of a burst, and every hundredth time through all there is.
    """
    gc.freeze()
    gc.set_threshold(COLLECT_AFTER, *gc.get_threshold()[1:])
    gc.enable()


def give_back_memory() -> None:
    """What loading and reading needed for a moment: 8 of 75 MiB, which the C library would keep. Takes some milliseconds.

    With glibc only; elsewhere nothing happens.
    """
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).malloc_trim(0)
