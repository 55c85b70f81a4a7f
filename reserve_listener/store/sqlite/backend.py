"""A store in a file, by its URL: see `protocols.backend.Backend`. Each part is imported when it is used."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from reserve_listener.model import SQLITE_URL
from reserve_listener.store.sqlite.places import inbox_path, socket_path

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from contextlib import AbstractContextManager
    from typing import Unpack

    from reserve_listener.model import EventQuery, SinkFilter
    from reserve_listener.protocols.backend import StoreOptions
    from reserve_listener.protocols.copying import Copy, Original
    from reserve_listener.store.sqlite.reader import SqliteReader
    from reserve_listener.store.sqlite.store import SqliteStore


class SqliteBackend:
    """See `protocols.backend.Backend`."""

    def __init__(self, path: Path) -> None:
        self._path = path

    @property
    def name(self) -> str:
        """See `Backend.name`."""
        return str(self._path)

    @property
    def files(self) -> Sequence[Path]:
        """See `Backend.files`."""
        return (self._path, inbox_path(self._path))

    @property
    def control_socket(self) -> Path:
        """See `Backend.control_socket`."""
        return socket_path(self._path)

    @property
    def control_sockets(self) -> Sequence[Path]:
        """See `Backend.control_sockets`."""
        return (self.control_socket,)

    async def open(
        self,
        sinks: Sequence[str],
        filters_by_sink: Mapping[str, SinkFilter] | None,
        **options: Unpack[StoreOptions],
    ) -> SqliteStore:
        """See `Backend.open`."""
        from reserve_listener.store.sqlite.store import SqliteStore

        store = SqliteStore(self._path, **options)
        await store.open(sinks, filters_by_sink)
        return store

    def reader(self) -> SqliteReader:
        """See `Backend.reader`."""
        from reserve_listener.store.sqlite.reader import SqliteReader

        return SqliteReader(self._path)

    def holder(self) -> str | None:
        """See `Backend.holder`."""
        from reserve_listener.store.sqlite.lock import holder

        return holder(self._path)

    def look_over(self) -> None:
        """See `Backend.look_over`."""
        from reserve_listener.store.sqlite import schema

        schema.require_header(self._path)
        for file, part in zip(self.files, (schema.STORE, schema.INBOX), strict=True):
            if file.exists():
                schema.look_at(file, part)

    def operate(
        self, operation: str, filters: EventQuery, filters_by_sink: Mapping[str, SinkFilter] | None
    ) -> int:
        """See `Backend.operate`."""
        from reserve_listener.store.sqlite import stopped

        return stopped.operate(self._path, operation, filters, filters_by_sink)

    def count_matching(
        self, operation: str, filters: EventQuery, filters_by_sink: Mapping[str, SinkFilter] | None
    ) -> int:
        """See `Backend.count_matching`."""
        from reserve_listener.store.sqlite import stopped

        return stopped.count_matching(self._path, operation, filters, filters_by_sink)

    def disable_sink(self, name: str, reason: str) -> bool:
        """See `Backend.disable_sink`."""
        from reserve_listener.store.sqlite import stopped

        return stopped.disable_sink(self._path, name, reason)

    def enable_sink(self, name: str) -> bool:
        """See `Backend.enable_sink`."""
        from reserve_listener.store.sqlite import stopped

        return stopped.enable_sink(self._path, name)

    def asking(self) -> None:
        """See `Backend.asking`."""
        return

    def back_up(self, folder: Path) -> list[Path]:
        """See `Backend.back_up`."""
        from reserve_listener.store.sqlite.backup import back_up

        return back_up(self._path, folder)

    def original(self) -> AbstractContextManager[Original]:
        """See `Backend.original`."""
        from reserve_listener.store.sqlite import copying

        return copying.original(self._path)

    def copy_of(self, source: str) -> AbstractContextManager[Copy]:
        """See `Backend.copy_of`."""
        from reserve_listener.store.sqlite import copying

        return copying.copy_of(self._path, source)


def make(url: str) -> SqliteBackend:
    """The backend of a URL that begins with `sqlite:///`; the rest is the file's path as it stands."""
    return SqliteBackend(Path(url.removeprefix(SQLITE_URL)))
