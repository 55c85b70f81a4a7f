"""Commands for tests without a start of Python for each: a process that has imported the package forks one for every command.

What runs is a process as any other, with its own folder, environment, standard streams, limits and exit code; the daemon is one
of them. What has to do with the interpreter's own start (PYTHON..., the locale) has one of its own.
"""

from __future__ import annotations

import array
import asyncio
import gc
import importlib
import json
import os
import pkgutil
import resource
import select
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from contextlib import ExitStack, suppress
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Final, NoReturn

import reserve_listener
from reserve_listener.cli.main import main
from reserve_listener.daemon import runtime
from reserve_listener.transports.long_connection import sdk
from reserve_listener.web.page import rendering

if TYPE_CHECKING:
    from collections.abc import Mapping

ANSWER: Final = array.array("i").itemsize
LIMITS: Final = sorted({getattr(resource, name) for name in dir(resource) if name.startswith("RLIMIT_")})
"""A process inherits all of them."""


class Forked:
    """A command that runs on, with what tests use of `asyncio.subprocess.Process`; being nobody's child here, it is watched there."""

    def __init__(self, asked: socket.socket, pid: int) -> None:
        self.pid = pid
        self.returncode: int | None = None
        self._end = asyncio.create_task(self._ended(asked), name=f"end-of-{pid}")

    async def _ended(self, asked: socket.socket) -> int:
        with asked:
            self.returncode = _number_in(await asyncio.get_running_loop().sock_recv(asked, ANSWER))
        return self.returncode

    async def wait(self) -> int:
        """The exit code, once there is one."""
        return await asyncio.shield(self._end)

    def send_signal(self, number: int) -> None:
        """Raises `ProcessLookupError` once the end is known."""
        if self.returncode is not None:
            raise ProcessLookupError
        with suppress(ProcessLookupError):  # it has just ended
            os.kill(self.pid, number)

    def kill(self) -> None:
        """No handler sees this one."""
        self.send_signal(signal.SIGKILL)


class Commands:
    """The process that forks; started when it is first asked, ended with the session or with whoever started it."""

    def __init__(self) -> None:
        self._stack = ExitStack()
        self._starting = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None
        self._address = ""

    def run(
        self,
        *arguments: str,
        env: Mapping[str, str],
        timeout: float,
        cwd: Path | None = None,
        python: str = sys.executable,
    ) -> subprocess.CompletedProcess[str]:
        """As `subprocess.run` has it, with nothing on standard input. Raises `TimeoutError`, and the command is killed.

        By another `python` it is really started.
        """
        if not _can_fork(python, env):
            command = [python, "-m", "reserve_listener", *arguments]
            done = subprocess.run(
                command,
                env=env,
                timeout=timeout,
                cwd=cwd,
                stdin=subprocess.DEVNULL,
                capture_output=True,
                check=False,
            )
            return subprocess.CompletedProcess(
                arguments, done.returncode, done.stdout.decode(), done.stderr.decode()
            )
        with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
            streams = out.fileno(), err.fileno()
            asked, process = self._begin(arguments, env, streams, cwd=cwd, timeout=timeout)
            with asked:
                try:
                    code = _number(asked)
                except TimeoutError:
                    with suppress(ProcessLookupError):
                        os.kill(process, signal.SIGKILL)
                    raise
            return subprocess.CompletedProcess(arguments, code, *map(_whole, streams))

    async def start(
        self,
        *arguments: str,
        env: Mapping[str, str],
        streams: tuple[int, int],
        timeout: float,  # noqa: ASYNC109  # the socket's
        session: bool = False,
        python: str = sys.executable,
        anew: bool = False,
        first: str = "",
    ) -> asyncio.subprocess.Process | Forked:
        """One that runs on: with these two for what it writes, and in a session of its own if asked for.

        `anew`: no fork. `first`: Python that a fork runs before the command.
        """
        if anew or not _can_fork(python, env):
            assert not first
            out, err = streams
            command = [python, "-m", "reserve_listener", *arguments]
            return await asyncio.create_subprocess_exec(
                *command, stdout=out, stderr=err, env=env, start_new_session=session
            )
        begin = partial(self._begin, arguments, env, streams, timeout=timeout, session=session, first=first)
        asked, process = await asyncio.to_thread(begin)
        asked.setblocking(False)
        return Forked(asked, process)

    def _begin(
        self,
        arguments: tuple[str, ...],
        env: Mapping[str, str],
        streams: tuple[int, int],
        *,
        timeout: float,
        cwd: Path | None = None,
        session: bool = False,
        first: str = "",
    ) -> tuple[socket.socket, int]:
        """Have it started; where its end will be said, and which process it is."""
        with self._starting:
            self._start()
        wanted = json.dumps(
            {
                "arguments": arguments,
                "folder": str(cwd or Path.cwd()),
                "environ": dict(env),
                "limits": [resource.getrlimit(each) for each in LIMITS],
                "session": session,
                "first": first,
            }
        ).encode()
        with ExitStack() as on_failure:
            asked = on_failure.enter_context(socket.socket(socket.AF_UNIX, socket.SOCK_STREAM))
            asked.settimeout(timeout)
            asked.connect(self._address)
            socket.send_fds(asked, [len(wanted).to_bytes(4, "big")], [*streams])
            asked.sendall(wanted)
            process = _number(asked)
            # Were it an exit code, killing it would hit others.
            assert process > 1, "it ended before it had begun"
            on_failure.pop_all()
        return asked, process

    def stop(self) -> None:
        """Give everything back."""
        self._stack.close()
        self._process = None

    def _start(self) -> None:
        if self._process is not None:
            return
        self._address = f"{self._stack.enter_context(tempfile.TemporaryDirectory())}/socket"
        command = [sys.executable, "-m", "tests.commands", self._address]
        pipe = subprocess.PIPE
        self._process = subprocess.Popen(command, stdin=pipe, stdout=pipe, cwd=Path(__file__).parents[1])
        self._stack.enter_context(self._process)  # it closes the pipes, which ends it, and waits
        assert self._process.stdout is not None
        assert self._process.stdout.readline() == b"ready\n"


COMMANDS: Final = Commands()
"""The session's. Stopped by `conftest`."""


def _can_fork(python: str, env: Mapping[str, str]) -> bool:
    """Whether nothing is wanted that an interpreter takes in only when it starts."""
    return python == sys.executable and _of_the_interpreter(env) == _of_the_interpreter(os.environ)


def _of_the_interpreter(env: Mapping[str, str]) -> dict[str, str]:
    return {name: value for name, value in env.items() if name.startswith(("PYTHON", "LANG", "LC_"))}


def _number(asked: socket.socket) -> int:
    return _number_in(asked.recv(ANSWER, socket.MSG_WAITALL))


def _number_in(answer: bytes) -> int:
    assert len(answer) == ANSWER, "the process that forks has died"
    return int.from_bytes(answer, "big", signed=True)


def _whole(descriptor: int) -> str:
    return os.pread(descriptor, os.fstat(descriptor).st_size, 0).decode()


def _serve(address: str) -> NoReturn:
    """Fork for each that asks, until standard input ends."""
    runtime._load_structlog()
    for module in pkgutil.walk_packages(reserve_listener.__path__, "reserve_listener."):
        if not module.name.endswith("__main__"):
            importlib.import_module(module.name)
    asyncio.run(_load_late())
    # A fork has no other threads, but whatever lock they held: it would wait for ever.
    assert len(list(Path("/proc/self/task").iterdir())) == 1, "importing the package starts a thread"
    gc.freeze()  # else the first collection of each child copies all of it
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody waits for those that answer
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    listener.bind(address)
    listener.listen(64)
    print("ready", flush=True)
    while sys.stdin not in select.select([listener, sys.stdin], [], [])[0]:
        asked = listener.accept()[0]
        if os.fork() == 0:
            listener.close()
            _answer(asked)
        asked.close()
    sys.exit()


async def _load_late() -> None:
    """What the daemon loads when it connects, posts and has a page."""
    sdk.load()
    rendering.templates()
    for name in ("anyio._backends._asyncio", "httpcore2", "truststore"):
        importlib.import_module(name)


def _answer(asked: socket.socket) -> NoReturn:
    """Run what is wanted in a process of its own; say which that is, and how it ended."""
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    length, descriptors, _, _ = socket.recv_fds(asked, 4, 2)
    wanted = json.loads(asked.recv(int.from_bytes(length, "big"), socket.MSG_WAITALL))
    process = os.fork()
    if process == 0:
        _become(*descriptors, **wanted)
        _say(os.getpid(), asked)  # not before it is what it is to be
        asked.close()
        _run()
    code = os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])
    with suppress(BrokenPipeError):  # whoever asked has given up
        _say(code, asked)
    os._exit(0)


def _say(number: int, asked: socket.socket) -> None:
    asked.sendall(number.to_bytes(ANSWER, "big", signed=True))


def _become(
    out: int,
    err: int,
    *,
    arguments: list[str],
    folder: str,
    environ: dict[str, str],
    limits: list[tuple[int, int]],
    session: bool,
    first: str,
) -> None:
    """What a process is before it is one of `python -m reserve_listener`."""
    if session:
        os.setsid()
    for there, here in ((os.open(os.devnull, os.O_RDONLY), 0), (out, 1), (err, 2)):
        os.dup2(there, here)
        os.close(there)
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(environ)
    time.tzset()
    tempfile.tempdir = None
    for which, values in zip(LIMITS, limits, strict=True):
        resource.setrlimit(which, (values[0], values[1]))
    sys.argv[1:] = arguments
    exec(first, {})


def _run() -> NoReturn:
    """The command."""
    try:
        main()
    except SystemExit as end:  # taking down all modules would cost more than most commands do
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(end.code if isinstance(end.code, int) else 1)
    sys.exit()


if __name__ == "__main__":
    _serve(sys.argv[1])
