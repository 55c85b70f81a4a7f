"""What commands do to the store while replicas run: the replicas are notified and look again."""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

import psycopg

from reserve_listener.errors import StoreError
from reserve_listener.store.postgres import looking, schema
from reserve_listener.store.postgres.connection import told
from reserve_listener.store.postgres.database_clock import told_ms
from reserve_listener.store.postgres.requests import COMMAND
from reserve_listener.store.shared import sql
from reserve_listener.store.shared.operations import operation_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from reserve_listener.model import EventQuery, SinkFilter
    from reserve_listener.store.postgres.connection import Connection
    from reserve_listener.store.postgres.schema import Target
    from reserve_listener.store.shared.operations import Operation

T = TypeVar("T")


def operate(
    target: Target,
    operation: str,
    filters: EventQuery,
    filters_by_sink: Mapping[str, SinkFilter] | None,
    *,
    dry_run: bool = False,
) -> int:
    """See `Backend.operate` and, with `dry_run`, `Backend.count_matching`."""
    with _connected(target) as connection:

        def begin(connection: Any) -> Operation:
            now_ms = told_ms(connection)
            return operation_of(operation, filters, filters_by_sink, connection, now_ms=now_ms)

        work = replace(_done(connection, begin, dry_run=dry_run), dry_run=dry_run)
        step = work.first()
        while not step.done:
            step = _done(connection, partial(work.step, step), dry_run=dry_run)
        return step.count


def disable_sink(target: Target, name: str, reason: str) -> bool:
    """See `Backend.disable_sink`."""

    def disable(connection: Connection) -> bool:
        return connection.execute(sql.DISABLE_SINK, (told_ms(connection), reason, name)).rowcount > 0

    with _connected(target) as connection:
        return _done(connection, disable)


def enable_sink(target: Target, name: str) -> bool:
    """See `Backend.enable_sink`."""

    def enable(connection: Connection) -> bool:
        connection.execute(sql.ADD_PAUSE, (told_ms(connection), name))
        return connection.execute(sql.ENABLE_SINK, (name,)).rowcount > 0

    with _connected(target) as connection:
        return _done(connection, enable)


def _done(connection: Connection, work: Callable[[Any], T], *, dry_run: bool = False) -> T:
    def done(connection: Connection) -> T:
        found = work(connection)
        if not dry_run:
            looking.reopened(COMMAND, connection)
        return found

    return connection.do(done, reads=dry_run)


@contextmanager
def _connected(target: Target) -> Iterator[Connection]:
    connection = target.connect()
    try:
        with connection.transaction(reads=True):
            schema.require_version(connection, target)
        yield connection
    except psycopg.Error as error:
        raise StoreError(f"the store {target.name} failed: {told(error)}") from error
    finally:
        connection.close()
