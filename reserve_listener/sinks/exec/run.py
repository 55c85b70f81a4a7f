"""One run of a command, in a thread: starting a process blocks, for ever if its file is on a disk that hangs.

What must stay true: a process is signalled only until it is reaped, since its number may be another's afterwards; and nobody
waits for what the command left behind, which may hold its output open for ever.
"""

from __future__ import annotations

import contextlib
import os
import selectors
import signal
import subprocess
import threading
import time
from dataclasses import dataclass
from typing import IO, TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

KEPT_BYTES: Final = 8 * 1024
"""The end of the output, which says why a command failed."""
READ_BYTES: Final = 64 * 1024
"""What a pipe holds."""
KILL_S: Final = 2.0
"""How long a killed process may take to be gone; longer only if it hangs in the kernel (a disk that is away)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Ended:
    """What came of a run. `status`: as `subprocess` has it, negative for a signal; None: it was never started, or is not gone yet."""

    status: int | None = None
    timed_out: bool = False
    output: bytes = b""
    not_started: OSError | None = None


class Run:
    """Call it in a thread of its own; `stop` kills, from any thread and at any time."""

    def __init__(
        self, command: Sequence[str], *, environment: Mapping[str, str], stdin: bytes, timeout_s: float
    ) -> None:
        self._command = command
        self._environment = environment
        self._left = memoryview(stdin)
        self._timeout_s = timeout_s
        self._output = b""
        self._lock = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None
        self._stopped = False

    def __call__(self) -> Ended:
        """Start it, feed it, drain it, reap it."""
        try:
            # A session of its own: no signal of a terminal reaches it, and one signal reaches all that it starts.
            process = subprocess.Popen(  # noqa: S603  # the administrator's own command, and no shell
                self._command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                bufsize=0,
                env=self._environment,
                start_new_session=True,
            )
        except OSError as error:
            return Ended(not_started=error)
        with self._lock:
            self._process = process
        if self._stopped:  # while it was being started
            self.stop()
        assert process.stdin is not None  # noqa: S101  # both were asked for
        assert process.stdout is not None  # noqa: S101
        try:
            timed_out = not self._attend(process.pid, process.stdin, process.stdout)
        except OSError as error:  # no descriptor is left to follow it by, or the system has none for that
            self.stop()
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(KILL_S)
            return Ended(not_started=error)
        with self._lock:
            # Gone, or hanging in the kernel: it is not waited for.
            status = process.poll()
        return Ended(status=status, timed_out=timed_out, output=self._output)

    def stop(self) -> None:
        """Kill the command and its group, if they still run."""
        self._stopped = True
        with self._lock:
            if self._process is not None and self._process.returncode is None:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(self._process.pid, signal.SIGKILL)

    def _attend(self, pid: int, stdin: IO[bytes], stdout: IO[bytes]) -> bool:
        """Until it has ended; whether it did so in time, or had to be killed."""
        with stdin, stdout, _ending(pid) as ended, selectors.DefaultSelector() as selector:
            selector.register(ended, selectors.EVENT_READ)
            for pipe in (stdin, stdout):
                os.set_blocking(pipe.fileno(), False)
            selector.register(stdin, selectors.EVENT_WRITE, self._feed)
            selector.register(stdout, selectors.EVENT_READ, self._drain)
            in_time = self._until_ended(selector, ended, self._timeout_s)
            if not in_time:
                self.stop()
                self._until_ended(selector, ended, KILL_S)
            for key in list(selector.get_map().values()):
                if key.data == self._drain:
                    self._drain(key.fd)  # what it said last
        return in_time

    def _until_ended(self, selector: selectors.BaseSelector, ended: int, timeout_s: float) -> bool:
        deadline_s = time.monotonic() + timeout_s
        while (left_s := deadline_s - time.monotonic()) > 0:
            for key, _ in selector.select(left_s):
                if key.fd == ended:
                    return True
                if not key.data(key.fd):
                    pipe: Any = selector.unregister(key.fileobj).fileobj
                    pipe.close()  # so that a command that reads sees the end
        return False

    def _feed(self, stdin: int) -> bool:
        """Write what fits; whether there is more to write. A command need not read."""
        try:
            self._left = self._left[os.write(stdin, self._left) :]
        except BlockingIOError:
            return True
        except BrokenPipeError:
            return False
        return bool(self._left)

    def _drain(self, stdout: int) -> bool:
        """Read what is there, and keep its end; whether there may be more."""
        try:
            new = os.read(stdout, READ_BYTES)
        except BlockingIOError:
            return True
        self._output = (self._output + new)[-KEPT_BYTES:]
        return bool(new)


@contextlib.contextmanager
def _ending(pid: int) -> Iterator[int]:
    """Something that becomes readable when the process has ended, whoever else still holds its pipes."""
    descriptor = os.pidfd_open(pid)
    try:
        yield descriptor
    finally:
        os.close(descriptor)
