"""Which deliveries a sink gets next: work for the writer's thread that only reads.

What must stay true: within a scope the oldest pending delivery goes first, and none goes before it is due. What a claim costs is
bounded, however much is pending.
"""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

import msgspec

from reserve_listener.ages import LONGEST_WAIT_MS
from reserve_listener.model import Claimed, Delivery
from reserve_listener.store.shared import sql

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence

WINDOW_SEQS: Final = 5_000
"""The most events that one claim looks at."""

LEAST_ROWS: Final = 100
"""How many pending deliveries to read at a time, if fewer may be taken."""

CLAIM_BYTES: Final = 8 * 1024 * 1024
"""The most bytes of bodies that one claim reads; one body is always read."""

Pauses = list[tuple[int, int]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Claim:
    """What a worker asks for. `per_scope`: at most so many of one scope; `skipping`: scopes to leave out."""

    sink: int
    limit: int
    per_scope: int
    now_ms: int
    raw: bool
    skipping: Collection[int] = ()


def newer(claim: Claim, after_seq: int | None, pauses: Pauses, connection: sqlite3.Connection) -> Claimed:
    """The deliveries of events after `after_seq`; None: from the first pending one on."""
    newest = connection.execute(sql.NEWEST).fetchone()[0] or 0
    if after_seq is None:
        first = connection.execute(sql.FIRST_PENDING, (claim.sink,)).fetchone()[0]
        after_seq = newest if first is None else first - 1
    until = min(after_seq + WINDOW_SEQS, newest)
    seen_seq, at_a_time = after_seq, max(claim.limit, LEAST_ROWS)
    basket = _Basket(claim, pauses)
    while seen_seq < until:
        rows = _rows(connection, sql.PENDING_FROM, (seen_seq, until, claim.sink, at_a_time))
        for row in rows:
            basket.look_at(row)
            seen_seq = row.seq
            if basket.full:
                return basket.claimed(connection, seen_seq=seen_seq, at_end=seen_seq >= newest)
        seen_seq = seen_seq if len(rows) == at_a_time else until
    return basket.claimed(connection, seen_seq=seen_seq, at_end=seen_seq >= newest)


def of_scopes(claim: Claim, scopes: Sequence[int], pauses: Pauses, connection: sqlite3.Connection) -> Claimed:
    """The deliveries of these scopes, wherever they are. Scopes for which there was no room at all stay behind."""
    basket = _Basket(claim, pauses)
    for scope in scopes:
        if basket.full:
            basket.behind.add(scope)
            continue
        for row in _rows(connection, sql.PENDING_OF_SCOPE, (claim.sink, scope, claim.per_scope + 1)):
            basket.look_at(row)
    return basket.claimed(connection, seen_seq=0, at_end=False)


class _Row(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """A pending delivery, as `sql.PENDING_FROM` returns it."""

    seq: int
    scope: int
    attempts: int
    due_ms: int
    held_ms: int
    event_id: str
    received_ms: int
    body_bytes: int
    raw_bytes: int


_decode_rows = msgspec.json.Decoder(list[_Row]).decode


def _rows(connection: sqlite3.Connection, statement: str, values: tuple[int, ...]) -> list[_Row]:
    (text,) = connection.execute(statement, values).fetchone()
    return _decode_rows(text)


@dataclass(slots=True)
class _Basket:
    claim: Claim
    pauses: Pauses
    taken: list[_Row] = field(default_factory=list)
    waiting: dict[int, int] = field(default_factory=dict)
    behind: set[int] = field(default_factory=set)
    _of_scope: Counter[int] = field(default_factory=Counter)
    _bytes: int = 0

    @property
    def full(self) -> bool:
        return len(self.taken) >= self.claim.limit or self._bytes >= CLAIM_BYTES

    def look_at(self, row: _Row) -> None:
        scope, claim = row.scope, self.claim
        if scope in self.waiting or scope in self.behind:
            return
        if scope in claim.skipping or self.full or self._of_scope[scope] >= claim.per_scope:
            self.behind.add(scope)
        elif claim.now_ms < row.due_ms <= claim.now_ms + LONGEST_WAIT_MS:
            if self._of_scope[scope]:
                self.behind.add(scope)
            else:
                self.waiting[scope] = row.due_ms
        else:
            self._of_scope[scope] += 1
            self._bytes += row.body_bytes + (row.raw_bytes if claim.raw else 0)
            self.taken.append(row)

    def claimed(self, connection: sqlite3.Connection, *, seen_seq: int, at_end: bool) -> Claimed:
        return Claimed(
            deliveries=list(self._deliveries(connection)) if self.taken else [],
            waiting=self.waiting,
            behind=self.behind,
            seen_seq=seen_seq,
            at_end=at_end,
        )

    def _deliveries(self, connection: sqlite3.Connection) -> Iterator[Delivery]:
        raw = self.claim.raw
        statement = sql.BODIES_AND_RAW if raw else sql.BODIES
        (all_of_them,) = connection.execute(
            statement, (json.dumps([row.seq for row in self.taken]),)
        ).fetchone()
        place = 0
        for row in self.taken:
            body_end = place + row.body_bytes
            end = body_end + (row.raw_bytes if raw else 0)
            yield Delivery(
                seq=row.seq,
                event_id=row.event_id,
                scope=row.scope,
                attempts=row.attempts,
                received_ms=age_since_ms(self.pauses, row.received_ms + row.held_ms),
                body=all_of_them[place:body_end],
                raw=all_of_them[body_end:end] if raw else None,
            )
            place = end


def age_since_ms(pauses: Pauses, since_ms: int) -> int:
    """When an age begins, moved by the pauses within it."""
    return since_ms + sum(max(0, to_ms - max(from_ms, since_ms)) for from_ms, to_ms in pauses)


def pauses_by_sink(rows: Iterable[Sequence[Any]]) -> Mapping[int, Pauses]:
    """The rows of `sql.PAUSES`, by the sink's number."""
    pauses: dict[int, Pauses] = {}
    for sink, from_ms, to_ms in rows:
        pauses.setdefault(sink, []).append((from_ms, to_ms))
    return pauses
