"""The tables that make up a store on any database, in the order of their references, for `store copy`.

What must stay true: each table and column of either schema is listed here, except what a copy creates itself.
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
"""`batches`: what is answered but not projected. That is SQLite's inbox, of which only unprojected batches count."""

ROWS_AT_ONCE: Final = 1_000
BYTES_AT_ONCE: Final = 8 * 1024 * 1024
"""The size of a page of a table: this many rows, or this much content and one row more."""


def count(table: Table) -> str:
    """SQL that counts the rows."""
    return f"SELECT count(*) FROM {table.name}"  # noqa: S608  # names that stand here


def page(table: Table, mark: str, *, first: bool) -> str:
    """SQL for the rows after a key, or for the first ones. `mark`: the database's placeholder.

    A page is measured before it is read, so that long contents do not fill the memory.
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
