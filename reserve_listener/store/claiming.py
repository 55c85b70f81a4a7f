"""Which deliveries a sink gets next: work for the writer's thread that only reads.

What must stay true: of a scope the oldest pending delivery goes first, and none goes before it is due. The cost of a claim
is bounded by what it looks at, however much is pending.
"""

from __future__ import annotations

from collections import Counter
from contextlib import closing
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from reserve_listener.model import Claimed, Delivery
from reserve_listener.retry import LONGEST_WAIT_MS
from reserve_listener.store import sql

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Collection, Iterable, Mapping, Sequence

WINDOW_SEQS: Final = 5_000
"""Events that one claim looks at, at the most."""

CLAIM_BYTES: Final = 8 * 1024 * 1024
"""Bodies that one claim reads at the most (at least one is always read)."""

Pauses = list[tuple[int, int]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Claim:
    """What a worker asks for. `per_scope`: how many of one scope at the most; `skipping`: scopes it has in hand."""

    sink: int
    limit: int
    per_scope: int
    now_ms: int
    raw: bool
    skipping: Collection[int] = ()


def newer(claim: Claim, after_seq: int | None, pauses: Pauses, connection: sqlite3.Connection) -> Claimed:
    """Deliveries of events after this one; None: from the first that is pending."""
    newest = connection.execute(sql.NEWEST).fetchone()[0] or 0
    if after_seq is None:
        first = connection.execute(sql.FIRST_PENDING, (claim.sink,)).fetchone()[0]
        after_seq = newest if first is None else first - 1
    until = min(after_seq + WINDOW_SEQS, newest)
    basket = _Basket(claim, pauses)
    # Closed in any case: an open cursor would keep the WAL from being checkpointed.
    with closing(connection.execute(sql.PENDING_FROM, (after_seq, until, claim.sink))) as rows:
        for row in rows:
            basket.look_at(row, connection)
            if basket.full:
                return basket.claimed(seen_seq=row[0], at_end=row[0] >= newest)
    return basket.claimed(seen_seq=max(until, after_seq), at_end=until >= newest)


def of_scopes(claim: Claim, scopes: Sequence[int], pauses: Pauses, connection: sqlite3.Connection) -> Claimed:
    """Deliveries of these scopes, wherever they stand. Those of which there was no place for any stay behind."""
    basket = _Basket(claim, pauses)
    for scope in scopes:
        if basket.full:
            basket.behind.add(scope)
            continue
        rows = connection.execute(sql.PENDING_OF_SCOPE, (claim.sink, scope, claim.per_scope + 1)).fetchall()
        for row in rows:
            basket.look_at(row, connection)
    return basket.claimed(seen_seq=0, at_end=False)


@dataclass(slots=True)
class _Basket:
    claim: Claim
    pauses: Pauses
    deliveries: list[Delivery] = field(default_factory=list)
    waiting: dict[int, int] = field(default_factory=dict)
    behind: set[int] = field(default_factory=set)
    _of_scope: Counter[int] = field(default_factory=Counter)
    _bytes: int = 0

    @property
    def full(self) -> bool:
        return len(self.deliveries) >= self.claim.limit or self._bytes >= CLAIM_BYTES

    def look_at(self, row: tuple[int, int, int, int, int], connection: sqlite3.Connection) -> None:
        seq, scope, attempts, due_ms, held_ms = row
        claim = self.claim
        if scope in self.waiting or scope in self.behind:
            return
        if scope in claim.skipping or self.full or self._of_scope[scope] >= claim.per_scope:
            self.behind.add(scope)
        elif claim.now_ms < due_ms <= claim.now_ms + LONGEST_WAIT_MS:
            if self._of_scope[scope]:
                self.behind.add(scope)
            else:
                self.waiting[scope] = due_ms
        else:
            self._of_scope[scope] += 1
            self._take(seq, scope, attempts, held_ms, connection)

    def _take(
        self, seq: int, scope: int, attempts: int, held_ms: int, connection: sqlite3.Connection
    ) -> None:
        statement = sql.EVENT_TO_FORWARD if self.claim.raw else sql.EVENT_TO_DELIVER
        event_id, received_ms, body, *raw = connection.execute(statement, (seq,)).fetchone()
        self.deliveries.append(
            Delivery(
                seq=seq,
                event_id=event_id,
                scope=scope,
                attempts=attempts,
                received_ms=age_since_ms(self.pauses, received_ms + held_ms),
                body=body,
                raw=raw[0] if raw else None,
            )
        )
        self._bytes += len(body) + (len(raw[0]) if raw else 0)

    def claimed(self, *, seen_seq: int, at_end: bool) -> Claimed:
        return Claimed(
            deliveries=self.deliveries,
            waiting=self.waiting,
            behind=self.behind,
            seen_seq=seen_seq,
            at_end=at_end,
        )


def age_since_ms(pauses: Pauses, since_ms: int) -> int:
    """The beginning of an age, moved by the pauses that lie in it."""
    return since_ms + sum(max(0, to_ms - max(from_ms, since_ms)) for from_ms, to_ms in pauses)


def pauses_by_sink(rows: Iterable[Sequence[Any]]) -> Mapping[int, Pauses]:
    """Rows of `sql.PAUSES`, by the sink's number."""
    pauses: dict[int, Pauses] = {}
    for sink, from_ms, to_ms in rows:
        pauses.setdefault(sink, []).append((from_ms, to_ms))
    return pauses
