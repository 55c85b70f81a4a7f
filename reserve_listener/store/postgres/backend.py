"""A store on a server, by its URL: see `protocols.backend.Backend`. Each part is loaded when it is used."""

from __future__ import annotations

import contextlib
import hashlib
import os
import stat
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from reserve_listener.errors import ConfigError, StoreError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from contextlib import AbstractContextManager
    from typing import Unpack

    from reserve_listener.model import EventQuery, SinkFilter
    from reserve_listener.protocols.backend import Asking, StoreOptions
    from reserve_listener.protocols.copying import Copy, Original
    from reserve_listener.store.postgres.reader import PostgresReader
    from reserve_listener.store.postgres.schema import Target
    from reserve_listener.store.postgres.store import PostgresStore


class PostgresBackend:
    """See `protocols.backend.Backend`."""

    def __init__(self, target: Target) -> None:
        self._target = target

    @property
    def name(self) -> str:
        """See `Backend.name`."""
        return self._target.name

    @property
    def files(self) -> Sequence[Path]:
        """See `Backend.files`."""
        return ()

    @property
    def control_socket(self) -> Path:
        """See `Backend.control_socket`. Replicas may share a machine: each has its process's number in the name."""
        return self._sockets / f"{self._socket}-{os.getpid()}.sock"

    @property
    def control_sockets(self) -> Sequence[Path]:
        """See `Backend.control_sockets`. In a folder that all may write to, anybody may put one in their place."""
        return sorted(path for path in self._sockets.glob(f"{self._socket}-*.sock") if _is_own_socket(path))

    @property
    def _sockets(self) -> Path:
        folders = os.environ.get("RUNTIME_DIRECTORY", "").split(":")  # systemd names all that a unit has
        return Path(folders[0] or tempfile.gettempdir())

    @property
    def _socket(self) -> str:
        known = hashlib.sha256(self._target.name.encode()).hexdigest()[:16]
        return f"reserve-listener-{os.getuid()}-{known}"

    async def open(
        self,
        sinks: Sequence[str],
        filters_by_sink: Mapping[str, SinkFilter] | None,
        **options: Unpack[StoreOptions],
    ) -> PostgresStore:
        """See `Backend.open`."""
        from reserve_listener.store.postgres.store import PostgresStore

        self._forget_killed()
        store = PostgresStore(self._target, **options)
        await store.open(sinks, filters_by_sink)
        return store

    def _forget_killed(self) -> None:
        """Sockets that daemons left when they were killed. One that cannot be removed is in nobody's way."""
        for path in self.control_sockets:
            number = path.stem.rpartition("-")[2]
            if number.isdecimal() and not _runs(int(number)):
                with contextlib.suppress(OSError):
                    path.unlink()

    def reader(self) -> PostgresReader:
        """See `Backend.reader`."""
        from reserve_listener.store.postgres.reader import PostgresReader

        return PostgresReader(self._target)

    def holder(self) -> str | None:
        """See `Backend.holder`: nobody has it alone."""
        return None

    def look_over(self) -> None:
        """See `Backend.look_over`."""
        with self.reader():
            pass

    def operate(
        self, operation: str, filters: EventQuery, filters_by_sink: Mapping[str, SinkFilter] | None
    ) -> int:
        """See `Backend.operate`; also beside running replicas, which hear of it."""
        from reserve_listener.store.postgres import beside

        return beside.operate(self._target, operation, filters, filters_by_sink)

    def count_matching(
        self, operation: str, filters: EventQuery, filters_by_sink: Mapping[str, SinkFilter] | None
    ) -> int:
        """See `Backend.count_matching`."""
        from reserve_listener.store.postgres import beside

        return beside.operate(self._target, operation, filters, filters_by_sink, dry_run=True)

    def disable_sink(self, name: str, reason: str) -> bool:
        """See `Backend.disable_sink`; also beside running replicas, which hear of it."""
        from reserve_listener.store.postgres import beside

        return beside.disable_sink(self._target, name, reason)

    def enable_sink(self, name: str) -> bool:
        """See `Backend.enable_sink`; also beside running replicas, which hear of it."""
        from reserve_listener.store.postgres import beside

        return beside.enable_sink(self._target, name)

    def asking(self) -> AbstractContextManager[Asking]:
        """See `Backend.asking`."""
        from reserve_listener.store.postgres import requests

        return requests.asking(self._target)

    def back_up(self, folder: Path) -> list[Path]:
        """See `Backend.back_up`."""
        raise StoreError(
            f"the store {self.name} is copied by PostgreSQL's own tools, into {folder} for instance: pg_dump --schema"
            " reserve_listener"
        )

    def original(self) -> AbstractContextManager[Original]:
        """See `Backend.original`."""
        from reserve_listener.store.postgres import copying

        return copying.original(self._target)

    def copy_of(self, source: str) -> AbstractContextManager[Copy]:
        """See `Backend.copy_of`."""
        from reserve_listener.store.postgres import copying

        return copying.copy_of(self._target, source)


def _is_own_socket(path: Path) -> bool:
    """This user's. The folder's owner may do there what they like anyway, and gets what root makes in it."""
    try:
        found, folder = path.lstat(), path.parent.stat()
    except OSError:  # its daemon has just ended
        return False
    return stat.S_ISSOCK(found.st_mode) and found.st_uid in {os.geteuid(), folder.st_uid}


def _runs(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except (ProcessLookupError, OverflowError):  # a number that no process can have
        return False
    except OSError:  # another user's, for instance
        return True
    return True


def make(url: str) -> PostgresBackend:
    """Of a URL that begins with `postgresql://`."""
    try:
        from reserve_listener.store.postgres.schema import target
    except ImportError as error:
        if (error.name or "").partition(".")[0] != "psycopg" and "psycopg" not in str(error):
            raise
        raise ConfigError(
            "a store.url with postgresql:// needs psycopg, which is not installed:"
            " pip install 'reserve-listener[postgres]'"
        ) from None
    return PostgresBackend(target(url))
