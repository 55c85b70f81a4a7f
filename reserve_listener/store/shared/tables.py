"""What makes up a store, whatever keeps it: the tables that `store copy` copies, in the order of their references.

What must stay true: each table and column of either schema is here, unless it is among what a copy makes anew.
"""

from __future__ import annotations

from typing import Final

from reserve_listener.protocols.copying import Table


def _table(name: str, key: str, others: str = "", *, contents: str = "") -> Table:
    return Table(name, tuple(key.split()), (*key.split(), *others.split()), contents=tuple(contents.split()))


TABLES: Final = (
    _table("scopes", "id", "tenant_key scope_type scope_id"),
    _table(
        "events",
        "seq",
        "tenant_key event_id scope created_ms received_ms raw body problem",
        contents="raw body",
    ),
    _table("sinks", "id", "name configured disabled_ms disabled_reason"),
    _table("pauses", "sink from_ms", "to_ms"),
    _table("deliveries", "seq sink", "scope state attempts due_ms settled_ms last_error held_ms"),
    _table("attempts", "seq sink number", "at_ms outcome status took_ms error"),
    _table("apps", "app_id", "last_connected_ms"),
    _table("gaps", "app_id from_ms", "to_ms found not_read"),
    _table("jumps", "from_ms", "to_ms"),
    _table("states", "scope", "revision created_ms received_ms config"),
    _table(
        "history",
        "seq",
        "scope event_id created_ms received_ms revision changes config summary origin",
        contents="changes config",
    ),
    _table("unbuilt", "scope seq"),
    _table("places", "scope_type scope_id", "name parent top created_ms seen_ms gone_ms"),
    _table("people", "open_id", "name seen_ms"),
    _table("looks", "app_id what", "ended_ms"),
    _table("readings", "scope", "looked_ms pass from_ms until_ms doubt"),
    _table("passes", "app_id", "number started_ms ended_ms differences not_read last_ended_ms"),
    _table("batches", "number", "events", contents="events"),
)
"""`batches` is what is answered and not projected: SQLite's inbox, of which only the batches that are still to come count."""

ROWS_AT_ONCE: Final = 1_000
BYTES_AT_ONCE: Final = 8 * 1024 * 1024
"""A page of a table: so many rows, or so much content and one row more."""


def count(table: Table) -> str:
    """SQL for how many rows there are."""
    return f"SELECT count(*) FROM {table.name}"  # noqa: S608  # names that stand here


def page(table: Table, mark: str, *, first: bool) -> str:
    """SQL for the rows after a key, or for the first ones. `mark`: how a place for a value is written.

    A page of long contents is measured before it is read, so that none is larger than memory should have to hold.
    """
    key = ", ".join(table.key)
    after = "" if first else f" WHERE ({key}) > ({', '.join([mark] * len(table.key))})"
    some = f"FROM {table.name}{after} ORDER BY {key} LIMIT {ROWS_AT_ONCE}"
    if table.contents:
        size = " + ".join(f"coalesce(length({name}), 0)" for name in table.contents)
        measured = f"SELECT {key}, sum(size) OVER (ORDER BY {key}) - size AS before FROM (SELECT {key}, {size} AS size {some}) AS page"  # noqa: S608  # names that stand here
        within = f"SELECT {key} FROM ({measured}) AS measured WHERE before < {BYTES_AT_ONCE}"  # noqa: S608
        some = f"FROM {table.name} WHERE {key} IN ({within}) ORDER BY {key}"
    return f"SELECT {', '.join(table.columns)} {some}"
