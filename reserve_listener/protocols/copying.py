"""A store as rows, for `store copy`: the source and the target. The rows are the same for every kind of store.

A row is a tuple of int, str, bytes or None in the order of its table's columns; a truth value is 0 or 1. Everything blocks;
errors are `StoreError`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple, Protocol, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Sequence

Row: TypeAlias = tuple[Any, ...]


class Table(NamedTuple):
    """What is copied of a table. The columns of its key come first; `contents` are those that may be long."""

    name: str
    key: tuple[str, ...]
    columns: tuple[str, ...]
    contents: tuple[str, ...] = ()

    def key_of(self, row: Row) -> Row:
        """What the row is known by."""
        return row[: len(self.key)]


class Place(NamedTuple):
    """How far a copy is: up to the row with this key of the table of this name; `()`: none of it."""

    table: str
    after: Row = ()


class Rows(Protocol):
    """What is in a store."""

    name: str
    """What messages call it."""

    def count(self, table: Table) -> int:
        """How many rows it has."""

    def page(self, table: Table, after: Row) -> list[Row]:
        """The next rows after this key, in the order of their keys; none: that was all."""


class Original(Rows, Protocol):
    """A store that is copied. While it is open, no daemon works on it."""

    def newest_ever(self) -> int:
        """The highest number that an event ever had."""

    def alerts(self) -> bytes | None:
        """What it remembers of alerts."""

    def require_unused(self) -> None:
        """Raises `StoreInUseError` when a daemon works on it all the same."""


class Copy(Rows, Protocol):
    """A store that is being made. Nobody can use it as a store before it is published."""

    def place(self) -> Place | None:
        """How far an earlier run has come; None: this is the first."""

    def put(self, table: Table, rows: Sequence[Row], last: Place) -> None:
        """Rows and place, in one transaction. Raises `StoreError` when somebody else has moved the place."""

    def finish(self, newest_ever: int, alerts: bytes | None) -> None:
        """What is not rows. May be done again."""

    def discard(self) -> None:
        """It is not what it should be: nothing of it stays."""

    def publish(self) -> None:
        """From now on it is a store."""
