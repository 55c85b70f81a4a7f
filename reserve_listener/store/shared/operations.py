"""What people and the daemon's housekeeping do to many rows: in chunks, so that no push waits for all of them."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final

from msgspec.structs import asdict

from reserve_listener.model import EventQuery, Pruned, Scope, SinkFilter
from reserve_listener.store.shared import history, readings, sql
from reserve_listener.store.shared.claiming import WINDOW_SEQS, age_since_ms

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Iterator, Mapping, Sequence

    from reserve_listener.store.shared.claiming import Pauses

CHUNK_ROWS: Final = 1_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """The result of one chunk of an operation. `after_…`: how far it got; `top_seq`: where a replay ends."""

    count: int
    done: bool
    after_sink: int = 0
    after_seq: int = 0
    top_seq: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Operation:
    """`retry`, `drop` or `replay` of what matches `filters`. `filters_by_sink`: the configured sinks by name, with their numbers."""

    name: str
    filters: EventQuery
    filters_by_sink: Mapping[str, tuple[int, SinkFilter]]
    now_ms: int
    repeat_only: bool = False
    """Whether a replay only repeats earlier deliveries, since it is not known which sink takes what."""
    dry_run: bool = False
    """Whether to count only what would be done, and write nothing."""

    def first(self) -> Step:
        """Where to begin."""
        return Step(count=0, done=False)

    def step(self, last: Step, connection: sqlite3.Connection) -> Step:
        """Do the next chunk, in the caller's transaction; `count` continues from the last one."""
        values = asdict(self.filters) | {"after": last.after_seq, "limit": CHUNK_ROWS}
        if self.name == "replay":
            return self._replay(last, values, connection)
        retrying = self.name == "retry"
        statement = sql.DEAD_TO_RETRY if retrying else sql.DEAD_TO_DROP
        rows = connection.execute(statement, values | {"after_sink": last.after_sink}).fetchall()
        if not rows:
            return replace(last, done=True)
        if self.dry_run:
            pass
        elif retrying:
            connection.executemany(sql.RETRY_DEAD, [(self.now_ms, *row) for row in rows])
        else:
            connection.executemany(sql.DROP_DEAD, rows)
        sink, seq = rows[-1]
        done = len(rows) < CHUNK_ROWS
        return Step(count=last.count + len(rows), done=done, after_sink=sink, after_seq=seq)

    def _replay(self, last: Step, values: dict[str, Any], connection: sqlite3.Connection) -> Step:
        top_seq = last.top_seq
        if top_seq is None:
            top_seq = connection.execute(sql.NEWEST).fetchone()[0] or 0
        rows = connection.execute(sql.TO_REPLAY, values | {"top": top_seq}).fetchall()
        return Step(
            count=last.count + self._deliver_again(list(self._deliveries(rows, connection)), connection),
            done=len(rows) < CHUNK_ROWS,
            after_seq=rows[-1][0] if rows else last.after_seq,
            top_seq=top_seq,
        )

    def _deliver_again(
        self, deliveries: Sequence[tuple[int, int, int, int]], connection: sqlite3.Connection
    ) -> int:
        """Make these deliveries pending again. Returns how many; those that are pending anyway do not count."""
        if not deliveries:
            return 0
        if not self.dry_run:
            statement = sql.REPEAT if self.repeat_only else sql.REPLAY
            return connection.executemany(statement, deliveries).rowcount
        states = (connection.execute(sql.STATE_OF, (seq, sink)).fetchone() for seq, sink, *_ in deliveries)
        return sum(not self.repeat_only if state is None else state[0] != 0 for state in states)

    def _deliveries(
        self, rows: Sequence[tuple[Any, ...]], connection: sqlite3.Connection
    ) -> Iterator[tuple[int, int, int, int]]:
        paths = history.paths_of([row[0] for row in rows], connection)
        apps = readings.apps(connection)
        for seq, number, tenant_key, scope_type, scope_id, received_ms in rows:
            scope = Scope(tenant_key=tenant_key, scope_type=scope_type, scope_id=scope_id)
            for name, (sink, sink_filter) in self.filters_by_sink.items():
                if self.filters.sink in (None, name) and sink_filter.takes(
                    scope, paths.get(seq), tenant_known=tenant_key not in apps
                ):
                    yield seq, sink, number, self.now_ms - received_ms


def dead_letter_removed(now_ms: int, connection: sqlite3.Connection) -> bool:
    """Make dead letters of a chunk of what removed sinks did not get. Returns whether that was all."""
    values = {"now_ms": now_ms, "limit": CHUNK_ROWS}
    return connection.execute(sql.BURY_REMOVED, values).rowcount < CHUNK_ROWS


def dead_letter_expired(  # noqa: PLR0917  # bound by `partial`, all but the last
    sink: int,
    after_seq: int | None,
    before_ms: int,
    now_ms: int,
    error: str,
    pauses: Pauses,
    connection: sqlite3.Connection,
) -> tuple[int, int | None]:
    """Make dead letters of a chunk of a sink's deliveries older than that. Returns how many, and where to continue."""
    if after_seq is None:
        first = connection.execute(sql.FIRST_PENDING, (sink,)).fetchone()[0]
        if first is None:
            return 0, None
        after_seq = first - 1
    newest = connection.execute(sql.NEWEST).fetchone()[0] or 0
    until_seq = min(after_seq + WINDOW_SEQS, newest)
    rows = connection.execute(sql.PENDING_AGES, (after_seq, until_seq, sink)).fetchall()
    expired = [seq for seq, since_ms, _ in rows if age_since_ms(pauses, since_ms) < before_ms]
    connection.executemany(sql.BURY, [(now_ms, error, seq, sink) for seq in expired])
    # They come about in the order of their age, but for what was retried or replayed by hand: once none is old enough,
    # later ones are not either.
    over = until_seq >= newest or (not expired and any(not held_ms for *_, held_ms in rows))
    return len(expired), None if over else until_seq


def receive_now(now_ms: int, before_seq: int | None, connection: sqlite3.Connection) -> int | None:
    """After the clock was set back, date a chunk of the events from the future to now. Returns where to continue."""
    newest = connection.execute(sql.NEWEST).fetchone()[0] or 0
    before_seq = newest + 1 if before_seq is None else before_seq
    rows = connection.execute(sql.NEWEST_BEFORE, (before_seq, CHUNK_ROWS)).fetchall()
    ahead = [(now_ms, seq) for seq, received_ms in rows if received_ms > now_ms]
    connection.executemany(sql.RECEIVED_AT, ahead)
    connection.executemany(history.RECEIVED_AT, ahead)
    return rows[-1][0] if rows and ahead else None


def prune(after_seq: int, before_ms: int, *, strip: bool, connection: sqlite3.Connection) -> Pruned:
    """Drop events stored before this time that every sink has, oldest first; with `strip`, also the content of newer ones.

    A stripped event is still known: if it is pushed again, the push is answered and not delivered.
    """
    rows = connection.execute(sql.OLDEST_EVENTS, (after_seq, CHUNK_ROWS)).fetchall()
    dropped = [(seq,) for seq, received_ms, settled, _ in rows if settled and received_ms < before_ms]
    stripped = [
        (seq,)
        for seq, received_ms, settled, is_stripped in rows
        if strip and settled and received_ms >= before_ms and not is_stripped
    ]
    keys = [connection.execute(sql.KEY_OF, one).fetchone() for one in stripped]
    connection.executemany(sql.DROP_DELIVERIES_OF, dropped + stripped)
    connection.executemany(sql.DROP_EVENT, dropped + stripped)
    connection.executemany(sql.ADD_KEY, keys)
    over = len(rows) < CHUNK_ROWS or not (
        strip or any(received_ms < before_ms for _, received_ms, *_ in rows)
    )
    return Pruned(events=len(dropped) + len(stripped), after_seq=None if over else rows[-1][0])


def forget(before_ms: int, history_before_ms: int | None, connection: sqlite3.Connection) -> bool:
    """Drop a chunk of pauses and gaps that ended before that. Returns whether that was all. None: keep gaps, as the history."""
    pauses = {"before_ms": before_ms, "limit": CHUNK_ROWS}
    dropped = connection.execute(sql.DROP_PAUSES, pauses).rowcount
    if history_before_ms is not None:
        gaps = {"before_ms": history_before_ms, "limit": CHUNK_ROWS}
        dropped = max(dropped, connection.execute(sql.DROP_GAPS, gaps).rowcount)
    return dropped < CHUNK_ROWS


def operation_of(
    operation: str,
    filters: EventQuery,
    filters_by_sink: Mapping[str, SinkFilter] | None,
    connection: sqlite3.Connection,
    *,
    now_ms: int,
) -> Operation:
    """The operation on the configured sinks."""
    numbers = {name: number for number, name in connection.execute(sql.CONFIGURED_SINKS)}
    known = {
        name: (number, (filters_by_sink or {}).get(name, SinkFilter())) for name, number in numbers.items()
    }
    return Operation(
        name=operation,
        filters=filters,
        filters_by_sink=known,
        now_ms=now_ms,
        repeat_only=filters_by_sink is None,
    )
