"""A store as rows, for `store copy`: the source and the target. The rows are the same for every kind of store.

A row is a tuple of int, str, bytes or None in the order of its table's columns; a boolean is 0 or 1. Everything blocks; errors
are `StoreError`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple, Protocol, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Sequence

Row: TypeAlias = tuple[Any, ...]


class Table(NamedTuple):
    """The columns of a table to copy, those of its key first. `contents`: columns that may be long."""

    name: str
    key: tuple[str, ...]
    columns: tuple[str, ...]
    contents: tuple[str, ...] = ()

    def key_of(self, row: Row) -> Row:
        """The key of this row."""
        return row[: len(self.key)]


class Place(NamedTuple):
    """How far a copy has come: up to this row of this table, by its key; `()`: none of the table."""

    table: str
    after: Row = ()


class Rows(Protocol):
    """The rows of a store."""

    name: str
    """The name of the store in messages."""

    def count(self, table: Table) -> int:
        """How many rows the table has."""

    def page(self, table: Table, after: Row) -> list[Row]:
        """The next rows after this key, in the order of their keys; none if that was all."""


class Original(Rows, Protocol):
    """The store to copy from. While it is open, no daemon works on it."""

    def newest_ever(self) -> int:
        """The highest number that an event has ever had."""

    def alerts(self) -> bytes | None:
        """What the store remembers of alerts."""

    def require_unused(self) -> None:
        """Raises `StoreInUseError` if a daemon works on it all the same."""


class Copy(Rows, Protocol):
    """A store in the making. Nobody can use it as a store before it is published."""

    def place(self) -> Place | None:
        """How far an earlier run got; None if this is the first."""

    def put(self, table: Table, rows: Sequence[Row], last: Place) -> None:
        """Write rows and place in one transaction. Raises `StoreError` if somebody else has moved the place."""

    def finish(self, newest_ever: int, alerts: bytes | None) -> None:
        """Write everything that is not rows. May be repeated."""

    def discard(self) -> None:
        """Remove everything: the copy is not what it should be."""

    def publish(self) -> None:
        """Make it a store."""
