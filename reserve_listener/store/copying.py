"""`store copy`: copies a whole store of any kind into a new store of any kind.

What must stay true: a copy that is interrupted at any moment can be continued and has no row twice; the target becomes a store
only once it has, row by row, the content of the original; and nobody uses the original meanwhile.
"""

from __future__ import annotations

import hashlib
from functools import partial
from typing import TYPE_CHECKING, Final, NamedTuple

import msgspec

from reserve_listener.errors import StoreError
from reserve_listener.protocols.copying import Place
from reserve_listener.store import backend
from reserve_listener.store.shared.tables import ROWS_AT_ONCE, TABLES

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from reserve_listener.protocols.copying import Copy, Original, Row, Rows, Table

CHECKSUM_BYTES: Final = 16

_encode = msgspec.msgpack.Encoder().encode


class Progress(NamedTuple):
    """How many of all rows have been copied or checked, and the current table."""

    doing: str
    table: str
    done: int
    total: int


class Sum(NamedTuple):
    """How many rows a table has, and their checksum, which does not depend on their order."""

    rows: int
    checksum: str


def copy(source: str, target: str, show: Callable[[Progress], None]) -> dict[str, Sum]:
    """Copy a store to a URL where there is none yet. Returns what the copy has, by table. Raises `StoreError`."""
    with backend(source).original() as original, backend(target).copy_of(original.name) as made:
        counts = {table.name: original.count(table) for table in TABLES}
        _fill(original, made, counts, show)
        made.finish(original.newest_ever(), original.alerts())
        found = _checked(original, made, counts, show)
        original.require_unused()
        made.publish()
        return found


def _fill(original: Original, made: Copy, counts: dict[str, int], show: Callable[[Progress], None]) -> None:
    place, total = made.place() or Place(TABLES[0].name), sum(counts.values())
    names = [table.name for table in TABLES]
    left = names.index(place.table)
    done = sum(counts[name] for name in names[:left]) + (made.count(TABLES[left]) if place.after else 0)
    for table in TABLES[left:]:
        after = place.after if table.name == place.table else ()
        show(Progress("copied", table.name, done, total))
        while rows := original.page(table, after):
            after = table.key_of(rows[-1])
            made.put(table, rows, Place(table.name, after))
            done += len(rows)
            show(Progress("copied", table.name, done, total))


def _checked(
    original: Original, made: Copy, counts: dict[str, int], show: Callable[[Progress], None]
) -> dict[str, Sum]:
    found: dict[str, Sum] = {}
    total, done = sum(counts.values()), 0

    def tell(name: str, before: int, rows: int) -> None:
        show(Progress("checked", name, before + rows, total))

    for table in TABLES:
        tell(table.name, done, 0)
        there = _sum(table, made, partial(tell, table.name, done))
        if there != _sum(table, original, lambda _rows: None):
            made.discard()
            raise StoreError(
                f"the copy of {original.name} in {made.name} is not the same: {table.name}. Has a daemon worked on the store"
                " since the copy was begun? The copy was removed; run the command again."
            )
        found[table.name] = there
        done += there.rows
    tell(table.name, done, 0)
    return found


def _sum(table: Table, store: Rows, tell: Callable[[int], None]) -> Sum:
    rows = checksum = 0
    for row in _all(table, store):
        rows += 1
        if rows % ROWS_AT_ONCE == 0:
            tell(rows)
        checksum += int.from_bytes(hashlib.blake2b(_encode(row), digest_size=CHECKSUM_BYTES).digest())
    return Sum(rows, (checksum % (1 << 8 * CHECKSUM_BYTES)).to_bytes(CHECKSUM_BYTES).hex())


def _all(table: Table, store: Rows) -> Iterator[Row]:
    after: Row = ()
    while rows := store.page(table, after):
        after = table.key_of(rows[-1])
        yield from rows
