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
    """How a store is opened; each may be left out."""

    max_bytes: int | None
    """The size at which pushes are refused; `Retention` keeps the store below it if it can. None: never."""
    now_ms: Callable[[], int]
    """The time of day, for tests: else the store has a clock of its own."""
    ages: Ages | None
    """How ages count by it, for tests."""
    complete: Complete
    """Says last what sinks receive; without it a body stays as it is."""
    directory: Directory | None
    """What the store knows by name is kept there, too."""


class Asking(Protocol):
    """Commands for the daemons that share a store. Each looks for requests every few seconds, and at once when it is told."""

    def replicas(self) -> list[Replica]:
        """Those that live, or did a moment ago."""

    def ask(self, what: str, content: bytes, replica: str | None) -> int:
        """Of this one, or of all (None); the request's number. Whoever is asked obeys soon or not at all."""

    def answers(self, request: int, after: int = 0) -> list[Answer]:
        """What was said by now, after that answer."""


class Backend(Protocol):
    """To open a store, or to see to it while no daemon holds it.

    Making one touches nothing. All but `open` block; errors are `StoreError`.
    """

    @property
    def name(self) -> str:
        """What messages call the store: its file, or its URL without the password."""

    @property
    def files(self) -> Sequence[Path]:
        """The store's files, its own first; none for a store on a server."""

    @property
    def control_socket(self) -> Path:
        """Where this process listens for the commands on this machine, if it is a daemon of this store."""

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
        """To read it, also beside a running daemon."""

    def holder(self) -> str | None:
        """The process that holds the store, "unknown" if it left no number; None: nobody does, or there is no store."""

    def look_over(self) -> None:
        """Whether what is there is a store that this version takes. Changes nothing, and leaves nothing behind."""

    def operate(
        self, operation: str, filters: EventQuery, filters_by_sink: Mapping[str, SinkFilter] | None
    ) -> int:
        """What `StoreAdmin.operate` does, here and now; `StoreInUseError` when a daemon holds the store.

        `filters_by_sink` is None when the configuration cannot be read: a replay then repeats the deliveries that there
        have been.
        """

    def count_matching(
        self, operation: str, filters: EventQuery, filters_by_sink: Mapping[str, SinkFilter] | None
    ) -> int:
        """How many deliveries `operate` would concern now. Only reads, also beside a running daemon."""

    def disable_sink(self, name: str, reason: str) -> bool:
        """What `StoreQueue.disable_sink` does, on a stopped daemon's store; `StoreInUseError` when a daemon holds it."""

    def enable_sink(self, name: str) -> bool:
        """What `StoreAdmin.enable_sink` does, on a stopped daemon's store; `StoreInUseError` when a daemon holds it."""

    def asking(self) -> AbstractContextManager[Asking] | None:
        """To ask daemons on any machine; None: there is but one, which listens on this machine."""

    def back_up(self, folder: Path) -> list[Path]:
        """Copy the store into the folder, also while its daemon runs: which files. Leaves no copy when it raises."""

    def original(self) -> AbstractContextManager[Original]:
        """The store as rows, to be copied. `StoreInUseError` when a daemon works on it."""

    def copy_of(self, source: str) -> AbstractContextManager[Copy]:
        """Where a copy of the store of this name is made, or was begun. Refused where there is anything else."""
