"""How the program was called, so that every command that it prints can be typed as printed."""

import os
import shlex
import sys
from pathlib import Path

NAME = "reserve-listener"


def called() -> str:
    """`reserve-listener` if a shell finds this one by that name, else the way it was called just now."""
    from shutil import which

    words = [sys.argv[0]]
    if Path(sys.argv[0]).name == "__main__.py":
        python = Path(sys.executable)
        words = [str(python.relative_to(Path.cwd()) if python.is_relative_to(Path.cwd()) else python)]
        words += ["-m", "reserve_listener"]
    elif (found := which(NAME)) is not None and os.path.realpath(found) == os.path.realpath(sys.argv[0]):
        words = [NAME]
    return shlex.join(words)
