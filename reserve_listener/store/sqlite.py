"""The store on SQLite: WAL, `synchronous=FULL`, one writer thread with group commit."""

from __future__ import annotations

import asyncio
import json
import time
from dataclasses import asdict
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from reserve_listener.model import DEAD, DELIVERED, PENDING, Delivery, IncomingEvent, Outcome, Verdict
from reserve_listener.store import schema, sql
from reserve_listener.store.lock import StoreLock
from reserve_listener.store.writer import Writer

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Callable, Collection, Sequence
    from pathlib import Path

    from reserve_listener.model import Filters

STATES: Final = {PENDING: 0, DELIVERED: 1, DEAD: 2}

WAITING_EVENTS: Final = 50_000
WAITING_BYTES: Final = 128 * 1024 * 1024
"""What may wait for the commit; beyond either bound a push is answered 500 at once."""

CLAIM_BYTES: Final = 8 * 1024 * 1024
"""Bodies that one claim reads at the most (at least one is always read)."""

OPERATIONS: Final = {"retry": sql.RETRY_DEAD, "drop": sql.DROP_DEAD, "replay": sql.REPLAY}

LAST_ERROR_CHARS: Final = 500


class SqliteStore:
    """See `protocols.Store`. `on_commit` is called on the loop after each commit that added deliveries."""

    def __init__(
        self, path: Path, *, now_ms: Callable[[], int] = lambda: time.time_ns() // 1_000_000
    ) -> None:
        self.path = path
        self.on_commit: Callable[[], None] = lambda: None
        self._now_ms = now_ms
        self._lock = StoreLock(path)
        self._sinks: dict[str, int] = {}
        self._waiting_events = 0
        self._waiting_bytes = 0
        self._writer: Writer

    async def open(self, sinks: Sequence[str]) -> None:
        """Lock, open, migrate, and make `sinks` the ones that get deliveries. Raises `StoreError`.

        What a sink that is no longer configured has not got becomes dead letters ("sink removed").
        """
        self._lock.acquire()
        self._writer = Writer(partial(schema.open_writer, self.path))
        try:
            await self._writer.open()
            await self.set_sinks(sinks)
        except BaseException:
            await self.close()
            raise

    async def set_sinks(self, names: Sequence[str]) -> None:
        """From now on these sinks get deliveries. What a sink that is none of them has not got becomes dead letters."""
        work = partial(_know_sinks, list(names), self._now_ms())
        # Those that are gone keep their numbers: a worker of theirs may still be at its last attempt.
        self._sinks |= await self._writer.submit(work, writes=True)

    async def close(self) -> None:
        """Commit what is queued and give back file and lock."""
        await self._writer.close()
        self._lock.release()

    # -- events in --------------------------------------------------------------------------------------------------------

    def append(self, event: IncomingEvent) -> asyncio.Future[Verdict]:
        """See `protocols.Store.append`."""
        size = len(event.raw) + len(event.body or b"")
        if self._waiting_events >= WAITING_EVENTS or self._waiting_bytes + size > WAITING_BYTES:
            overloaded: asyncio.Future[Verdict] = asyncio.get_running_loop().create_future()
            overloaded.set_result(Verdict.OVERLOADED)
            return overloaded
        self._waiting_events += 1
        self._waiting_bytes += size
        future = self._writer.submit(partial(_append, event), writes=True)
        future.add_done_callback(partial(self._appended, size))
        return future

    def _appended(self, size: int, future: asyncio.Future[Verdict]) -> None:
        self._waiting_events -= 1
        self._waiting_bytes -= size
        if not future.cancelled() and future.exception() is None and future.result() is Verdict.STORED:
            self.on_commit()

    # -- deliveries out ---------------------------------------------------------------------------------------------------

    async def claim(
        self, sink: str, *, limit: int, now_ms: int, excluding: Collection[int]
    ) -> list[Delivery]:
        """See `protocols.Store.claim`."""
        values = {"sink": self._sinks[sink], "now": now_ms, "excluding": json.dumps(list(excluding))}
        claimed: list[Delivery] = await self._writer.submit(partial(_claim, values, limit), writes=False)
        return claimed

    async def next_due_ms(self, sink: str, *, after_ms: int) -> int | None:
        """See `protocols.Store.next_due_ms`."""
        values = (self._sinks[sink], max(after_ms, 0))
        row = await self._writer.submit(partial(_one, sql.NEXT_DUE, values), writes=False)
        due: int | None = row[0]
        return due

    async def settle(self, sink: str, outcomes: Sequence[Outcome]) -> None:
        """See `protocols.Store.settle`."""
        now = self._now_ms()
        rows = [_outcome_row(outcome, self._sinks[sink], now) for outcome in outcomes]
        await self._writer.submit(partial(_execute_many, sql.SETTLE, rows), writes=True)

    async def operate(self, operation: str, filters: Filters) -> int:
        """`retry` or `drop` dead letters, or `replay` events, all that match; how many deliveries it concerned."""
        values = asdict(filters) | {"now_ms": self._now_ms()}
        count: int = await self._writer.submit(partial(_operate, OPERATIONS[operation], values), writes=True)
        if count:
            self.on_commit()
        return count

    async def backlog(self) -> dict[str, int]:
        """Deliveries that are not settled yet, for each configured sink."""
        rows = await self._writer.submit(partial(_all, sql.BACKLOG, ()), writes=False)
        return dict(rows)

    async def ended(self) -> None:
        """Returns only when the writer's thread has ended."""
        await self._writer.ended()

    # -- apps -------------------------------------------------------------------------------------------------------------

    async def last_connected_ms(self, app_id: str) -> int | None:
        """When this app was last seen connected with this store; None: never."""
        row = await self._writer.submit(partial(_one, sql.APP_LAST_CONNECTED, (app_id,)), writes=False)
        return None if row is None else int(row[0])

    async def know_app(
        self, app_id: str, *, gap_since_ms: int | None = None, longer_than_ms: int = 0
    ) -> int | None:
        """Remember that this app is connected now. A gap that is longer than that is recorded, and its length returned."""
        now = self._now_ms()
        gap_ms = now - gap_since_ms if gap_since_ms is not None else 0
        if gap_ms > longer_than_ms > 0:
            gap = [(app_id, gap_since_ms, now)]
            await self._writer.submit(partial(_execute_many, sql.RECORD_GAP, gap), writes=True)
        await self._writer.submit(partial(_execute_many, sql.KNOW_APP, [(app_id, now)]), writes=True)
        return gap_ms if gap_ms > longer_than_ms > 0 else None


# -- work for the writer's thread -------------------------------------------------------------------------------------------


def _append(event: IncomingEvent, connection: sqlite3.Connection) -> Verdict:
    scope = _scope_number(event, connection)
    row = connection.execute(
        sql.APPEND_EVENT,
        (
            event.tenant_key,
            event.event_id,
            scope,
            event.created_ms,
            event.received_ms,
            event.raw,
            event.body,
            event.problem,
        ),
    ).fetchone()
    if row is None:
        return Verdict.DUPLICATE
    if scope is None:
        return Verdict.UNREADABLE
    connection.execute(sql.ADD_DELIVERIES, (row[0], scope))
    return Verdict.STORED


def _scope_number(event: IncomingEvent, connection: sqlite3.Connection) -> int | None:
    if event.scope is None:
        return None
    key = (event.scope.tenant_key, event.scope.scope_type, event.scope.scope_id)
    row = (
        connection.execute(sql.FIND_SCOPE, key).fetchone()
        or connection.execute(sql.ADD_SCOPE, key).fetchone()
    )
    return int(row[0])


def _claim(values: dict[str, Any], limit: int, connection: sqlite3.Connection) -> list[Delivery]:
    claimed: list[Delivery] = []
    size = 0
    cursor = connection.execute(sql.CLAIM, values)
    try:
        for seq, event_id, scope, attempts, received_ms, body in cursor:
            claimed.append(
                Delivery(
                    seq=seq,
                    event_id=event_id,
                    scope=scope,
                    attempts=attempts,
                    received_ms=received_ms,
                    body=body,
                )
            )
            size += len(body)
            if len(claimed) >= limit or size >= CLAIM_BYTES:
                break
    finally:
        cursor.close()  # an open read would keep the WAL from being checkpointed
    return claimed


def _outcome_row(outcome: Outcome, sink: int, now_ms: int) -> tuple[object, ...]:
    settled_ms = None if outcome.state == PENDING else now_ms
    error = None
    if outcome.error is not None:
        # A lone surrogate (a path that is not UTF-8) is no text to SQLite.
        error = outcome.error[:LAST_ERROR_CHARS].encode("utf-8", "backslashreplace").decode()
    return (STATES[outcome.state], outcome.attempts, outcome.due_ms, settled_ms, error, outcome.seq, sink)


def _operate(statement: str, values: dict[str, Any], connection: sqlite3.Connection) -> int:
    return connection.execute(statement, values).rowcount


def _know_sinks(names: list[str], now_ms: int, connection: sqlite3.Connection) -> dict[str, int]:
    connection.execute(sql.FORGET_SINKS, (json.dumps(names),))
    numbers = {name: int(connection.execute(sql.KNOW_SINK, (name,)).fetchone()[0]) for name in names}
    connection.execute(sql.BURY_REMOVED, (now_ms,))
    return numbers


def _execute_many(statement: str, rows: Sequence[tuple[object, ...]], connection: sqlite3.Connection) -> None:
    connection.executemany(statement, rows)


def _one(statement: str, values: tuple[object, ...], connection: sqlite3.Connection) -> Any:
    return connection.execute(statement, values).fetchone()


def _all(statement: str, values: tuple[object, ...], connection: sqlite3.Connection) -> list[Any]:
    return connection.execute(statement, values).fetchall()
