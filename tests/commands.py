"""Commands for tests without a start of Python for each: a process that has imported the package forks one for every command.

What runs is a process as any other, with its own folder, environment, standard streams and exit code. What has to do with the
interpreter's own start (PYTHON..., the locale) has one of its own.
"""

from __future__ import annotations

import array
import gc
import importlib
import json
import os
import pkgutil
import select
import signal
import socket
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Final, NoReturn

import reserve_listener
from reserve_listener.cli.main import main

if TYPE_CHECKING:
    from collections.abc import Mapping

ANSWER: Final = array.array("i").itemsize


class Commands:
    """The process that forks; started when it is first asked, ended with the session or with whoever started it."""

    def __init__(self) -> None:
        self._stack = ExitStack()
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
        if python != sys.executable or _of_the_interpreter(env) != _of_the_interpreter(os.environ):
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
        self._start()
        with (
            socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as asked,
            tempfile.TemporaryFile() as out,
            tempfile.TemporaryFile() as err,
        ):
            asked.settimeout(timeout)
            asked.connect(self._address)
            wanted = json.dumps([arguments, str(cwd or Path.cwd()), dict(env)]).encode()
            socket.send_fds(asked, [len(wanted).to_bytes(4, "big")], [out.fileno(), err.fileno()])
            asked.sendall(wanted)
            process = _number(asked)
            try:
                code = _number(asked)
            except TimeoutError:
                with suppress(ProcessLookupError):
                    os.kill(process, signal.SIGKILL)
                raise
            return subprocess.CompletedProcess(arguments, code, _whole(out.fileno()), _whole(err.fileno()))

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


def _of_the_interpreter(env: Mapping[str, str]) -> dict[str, str]:
    return {name: value for name, value in env.items() if name.startswith(("PYTHON", "LANG", "LC_"))}


def _number(asked: socket.socket) -> int:
    answer = asked.recv(ANSWER, socket.MSG_WAITALL)
    assert len(answer) == ANSWER, "the process that forks has died"
    return int.from_bytes(answer, "big", signed=True)


def _whole(descriptor: int) -> str:
    return os.pread(descriptor, os.fstat(descriptor).st_size, 0).decode()


def _serve(address: str) -> NoReturn:
    """Fork for each that asks, until standard input ends."""
    for module in pkgutil.walk_packages(reserve_listener.__path__, "reserve_listener."):
        if not module.name.endswith("__main__"):
            importlib.import_module(module.name)
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


def _answer(asked: socket.socket) -> NoReturn:
    """Run what is wanted in a process of its own; say which that is, and how it ended."""
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    length, descriptors, _, _ = socket.recv_fds(asked, 4, 2)
    wanted = json.loads(asked.recv(int.from_bytes(length, "big"), socket.MSG_WAITALL))
    process = os.fork()
    if process == 0:
        asked.close()
        _become(*wanted, *descriptors)
    asked.sendall(process.to_bytes(ANSWER, "big", signed=True))
    code = os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])
    with suppress(BrokenPipeError):  # whoever asked has given up
        asked.sendall(code.to_bytes(ANSWER, "big", signed=True))
    os._exit(0)


def _become(arguments: list[str], folder: str, environ: dict[str, str], out: int, err: int) -> NoReturn:
    """The command, as `python -m reserve_listener` runs it."""
    for there, here in ((os.open(os.devnull, os.O_RDONLY), 0), (out, 1), (err, 2)):
        os.dup2(there, here)
        os.close(there)
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(environ)
    time.tzset()
    sys.argv[1:] = arguments
    try:
        main()
    except SystemExit as end:  # taking down all modules would cost more than most commands do
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(end.code if isinstance(end.code, int) else 1)
    sys.exit()


if __name__ == "__main__":
    _serve(sys.argv[1])
