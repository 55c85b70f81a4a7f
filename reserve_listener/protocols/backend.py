"""A store as reached by its URL; only the implementation knows what kind of store it is."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol, TypedDict

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from contextlib import AbstractContextManager
    from pathlib import Path
    from typing import Unpack

    from reserve_listener.ages import Ages
    from reserve_listener.model import Answer, EventQuery, Replica, SinkFilter
    from reserve_listener.protocols import Complete
    from reserve_listener.protocols.copying import Copy, Original
    from reserve_listener.protocols.store import Directory, Store, StoreReader


class StoreOptions(TypedDict, total=False):
    """How to open a store; each of these may be left out."""

    max_bytes: int | None
    """The size at which pushes are refused; `Retention` keeps the store below it if it can. None: never."""
    now_ms: Callable[[], int]
    """The clock, for tests; by default the store has its own."""
    ages: Ages | None
    """How ages count by that clock, for tests."""
    complete: Complete
    """Completes what sinks receive; without it, bodies stay as they are."""
    directory: Directory | None
    """Receives all names that the store learns."""


class Asking(Protocol):
    """Commands for daemons that share a store. Each looks for requests every few seconds, and at once when it is notified."""

    def replicas(self) -> list[Replica]:
        """The daemons that are alive, or were a moment ago."""

    def ask(self, what: str, content: bytes, replica: str | None) -> int:
        """Ask this daemon, or all (None). Returns the request's number. A daemon obeys soon or not at all."""

    def answers(self, request: int, after: int = 0) -> list[Answer]:
        """The answers so far, after that one."""


class Backend(Protocol):
    """Opens a store, or works on it while no daemon holds it.

    Creating a backend touches nothing. All methods but `open` block; errors are `StoreError`.
    """

    @property
    def name(self) -> str:
        """The name of the store in messages: its file, or its URL without the password."""

    @property
    def files(self) -> Sequence[Path]:
        """The store's files, the main one first; none for a store on a server."""

    @property
    def control_socket(self) -> Path:
        """Where this process, if it is the store's daemon, listens for commands on this machine."""

    @property
    def control_sockets(self) -> Sequence[Path]:
        """Where daemons of this store may listen on this machine: replicas have one each."""

    async def open(
        self,
        sinks: Sequence[str],
        filters_by_sink: Mapping[str, SinkFilter] | None,
        **options: Unpack[StoreOptions],
    ) -> Store:
        """See `store.open_store`."""

    def reader(self) -> StoreReader:
        """A reader, also while a daemon runs."""

    def holder(self) -> str | None:
        """The process that holds the store, "unknown" if it left no number; None if nobody does, or there is no store."""

    def look_over(self) -> None:
        """Check that this is a store that this version accepts. Changes nothing, and leaves nothing behind."""

    def operate(
        self, operation: str, filters: EventQuery, filters_by_sink: Mapping[str, SinkFilter] | None
    ) -> int:
        """Do what `StoreAdmin.operate` does, here and now. Raises `StoreInUseError` if a daemon holds the store.

        `filters_by_sink` is None if the configuration cannot be read: a replay then only repeats earlier deliveries.
        """

    def count_matching(
        self, operation: str, filters: EventQuery, filters_by_sink: Mapping[str, SinkFilter] | None
    ) -> int:
        """How many deliveries `operate` would apply to now. Only reads, so a daemon may be running."""

    def disable_sink(self, name: str, reason: str) -> bool:
        """Do what `StoreAdmin.disable_sink` does, on a stopped daemon's store. Raises `StoreInUseError` if a daemon holds it."""

    def enable_sink(self, name: str) -> bool:
        """Do what `StoreAdmin.enable_sink` does, on a stopped daemon's store. Raises `StoreInUseError` if a daemon holds it."""

    def asking(self) -> AbstractContextManager[Asking] | None:
        """The way to ask daemons on any machine; None if there is only one, which listens on this machine."""

    def back_up(self, folder: Path) -> list[Path]:
        """Copy the store into the folder, also while its daemon runs. Returns the copied files; leaves none if it raises."""

    def original(self) -> AbstractContextManager[Original]:
        """The store as rows, to copy from. Raises `StoreInUseError` if a daemon works on it."""

    def copy_of(self, source: str) -> AbstractContextManager[Copy]:
        """A copy of the store with this name: a new one, or one to continue. Refused if there is anything else."""
