"""A command at a terminal: a pseudo-terminal that a test reads and types into."""

from __future__ import annotations

import fcntl
import os
import pty
import re
import select
import struct
import subprocess
import termios
import time
from typing import TYPE_CHECKING, Self

from reserve_listener.simulator import patience
from tests.daemon_process import COMMAND, environment

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

TIMEOUT_S = 60.0
_ESCAPES = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")


class Terminal:
    """`with Terminal("events", "list", cwd=…) as terminal:`; standard input, output and error are the terminal."""

    def __init__(
        self, *arguments: str, cwd: Path, width: int = 80, env: Mapping[str, str] | None = None
    ) -> None:
        self._master, slave = pty.openpty()
        fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 24, width, 0, 0))
        whole = environment(**{"TERM": "xterm", "TZ": "UTC", **(env or {})})
        whole.pop("COLUMNS", None)
        self._process = subprocess.Popen(
            [*COMMAND, *arguments],
            cwd=cwd,
            stdin=slave,
            stdout=slave,
            stderr=slave,
            env=whole,
            start_new_session=True,
        )
        os.close(slave)
        self._read = bytearray()
        self._seen = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._process.poll() is None:
            self._process.kill()
        self._process.wait()
        os.close(self._master)

    @property
    def raw(self) -> str:
        """All that was written so far, as it came."""
        return self._read.decode(errors="replace")

    @property
    def text(self) -> str:
        """The same without colours and carriage returns."""
        return _ESCAPES.sub("", self.raw).replace("\r\n", "\n")

    def answer(self, question: str, reply: str, *, hidden: bool = False) -> None:
        """Wait for a question, then type a line. `hidden`: not before the terminal has stopped echoing."""
        deadline = time.monotonic() + patience(TIMEOUT_S)
        while question not in self.text[self._seen :]:
            assert self._more(deadline), f"{question!r} was not asked: {self.text}"
        self._seen = len(self.text)
        while hidden and termios.tcgetattr(self._master)[3] & termios.ECHO:
            # Switching it off throws away what was typed before.
            assert time.monotonic() < deadline, "what is typed would be shown"
            time.sleep(0.005)
        os.write(self._master, f"{reply}\n".encode())

    def ended(self) -> int:
        """Read to the end; the exit code."""
        deadline = time.monotonic() + patience(TIMEOUT_S)
        while self._more(deadline):
            pass
        return self._process.wait(patience(TIMEOUT_S))

    def _more(self, deadline: float) -> bool:
        ready, _, _ = select.select([self._master], [], [], max(0.0, deadline - time.monotonic()))
        assert ready, f"nothing more came: {self.text}"
        try:
            chunk = os.read(self._master, 65_536)
        except OSError:  # EIO: the last one that had the terminal open is gone
            return False
        self._read += chunk
        return bool(chunk)


def at_terminal(
    *arguments: str, cwd: Path, width: int = 80, env: Mapping[str, str] | None = None
) -> tuple[int, str]:
    """A command that asks nothing; its exit code and what it wrote."""
    with Terminal(*arguments, cwd=cwd, width=width, env=env) as terminal:
        code = terminal.ended()
        return code, terminal.text
