"""What was stored a moment ago, in memory: a worker that keeps up gets it without a query.

What must stay true: a claim answered from here gets what the file would give. So this is complete from `after_seq` on, and
nothing is handed out twice. Whatever else changes a delivery (an outcome, a person, a dead letter) sends later claims to the
file until they have caught up.
"""

from __future__ import annotations

from collections import defaultdict, deque
from typing import TYPE_CHECKING, Final

from reserve_listener.model import Claimed, Delivery
from reserve_listener.store.shared.claiming import CLAIM_BYTES, age_since_ms

if TYPE_CHECKING:
    from collections.abc import Iterable

    from reserve_listener.store.shared.appending import Appended
    from reserve_listener.store.shared.claiming import Claim, Pauses

EVENTS_KEPT: Final = 4_096
BYTES_KEPT: Final = 8 * 1024 * 1024
"""How much is kept for a sink that falls behind: two projections. Beyond either bound it reads the file."""


class Recent:
    """What is kept for one sink. `newest_seq`: everything up to this event is in the file only."""

    def __init__(self, newest_seq: int) -> None:
        self._after_seq = newest_seq
        self._newest_seq = newest_seq
        self._events: deque[Appended] = deque()
        self._bytes = 0

    def add(self, appended: Iterable[Appended], newest_seq: int) -> None:
        """Keep what has just been committed for this sink."""
        for one in appended:
            self._events.append(one)
            self._bytes += one.size
        self._newest_seq = newest_seq
        if len(self._events) > EVENTS_KEPT or self._bytes > BYTES_KEPT:
            self.forget()

    def forget(self) -> None:
        """Look for everything up to now in the file."""
        self._events.clear()
        self._bytes = 0
        self._after_seq = self._newest_seq

    def settled(self, seqs: Iterable[int]) -> None:
        """These deliveries are no longer as they were stored."""
        if max(seqs, default=0) > self._after_seq:
            self.forget()

    def claim(self, claim: Claim, after_seq: int | None, pauses: Pauses) -> Claimed | None:
        """See `claiming.newer`; None if the file has to be asked."""
        if after_seq is None:
            self.forget()
            return None
        if after_seq < self._after_seq:
            return None
        return self._claim(claim, after_seq, pauses)

    def _claim(self, claim: Claim, after_seq: int, pauses: Pauses) -> Claimed:
        taken: list[Delivery] = []
        behind: set[int] = set()
        of_scope: defaultdict[int, int] = defaultdict(int)
        taken_bytes, seen_seq = 0, after_seq
        while self._events:
            if len(taken) >= claim.limit or taken_bytes >= CLAIM_BYTES:
                break
            one = self._events.popleft()
            self._bytes -= one.size
            if one.seq <= after_seq:
                continue
            seen_seq = one.seq
            if one.scope in behind:
                continue
            if one.scope in claim.skipping or of_scope[one.scope] >= claim.per_scope:
                behind.add(one.scope)
                continue
            of_scope[one.scope] += 1
            delivery = _delivery(one, pauses, raw=claim.raw)
            taken_bytes += len(delivery.body) + len(delivery.raw or b"")
            taken.append(delivery)
        at_end = not self._events
        if at_end:
            seen_seq = max(seen_seq, self._newest_seq)
        self._after_seq = seen_seq
        return Claimed(deliveries=taken, waiting={}, behind=behind, seen_seq=seen_seq, at_end=at_end)


def _delivery(one: Appended, pauses: Pauses, *, raw: bool) -> Delivery:
    event = one.event
    return Delivery(
        seq=one.seq,
        event_id=event.event_id,
        scope=one.scope,
        attempts=0,
        received_ms=age_since_ms(pauses, event.received_ms) if pauses else event.received_ms,
        body=event.body or b"",
        raw=event.raw if raw else None,
    )
