"""What a worker remembers of its sink's pending deliveries. Only in memory: after a restart it is read from the store again.

What must stay true: each pending delivery of the sink is in hand, or newer than `cursor`, or else its scope is behind (it has
deliveries that were seen but not taken) or waiting (its oldest delivery is not due yet).
"""

from __future__ import annotations

import heapq
from collections import defaultdict, deque
from itertools import islice
from typing import TYPE_CHECKING

from reserve_listener.ages import LONGEST_WAIT_MS

if TYPE_CHECKING:
    from collections.abc import Iterable

    from reserve_listener.model import Claimed, Delivery


class Pending:
    """One worker's bookkeeping. `ready`: the deliveries that can be started, in order."""

    def __init__(self) -> None:
        self.ready: deque[Delivery] = deque()
        self.cursor: int | None = None
        """Everything up to this event has been looked at; None: nothing has."""
        self.at_end = False
        """Whether nothing newer is known to be there."""
        self._hand: dict[int, int] = {}
        self._hand_scopes: defaultdict[int, int] = defaultdict(int)  # a Counter takes several times as long
        self._behind: dict[int, None] = {}
        self._waiting: dict[int, int] = {}
        self._due: list[tuple[int, int]] = []
        self._replayed: set[int] = set()

    @property
    def skipping(self) -> frozenset[int]:
        """The scopes that a claim of newer deliveries must leave out, since they have older ones pending."""
        return frozenset((*self._hand_scopes, *self._waiting, *self._behind))

    @property
    def next_due_ms(self) -> int | None:
        """When the first waiting scope is due; None if none is waiting."""
        while self._due and self._waiting.get(self._due[0][1]) != self._due[0][0]:
            heapq.heappop(self._due)
        return self._due[0][0] if self._due else None

    @property
    def unfinished(self) -> bool:
        """Whether the store may have deliveries that could be made now but are not in hand."""
        return not self.at_end or any(True for _ in self.claimable(1))

    def claimable(self, limit: int) -> Iterable[int]:
        """Scopes that have deliveries behind the cursor and none in hand, in the order in which they fell behind."""
        free = (scope for scope in self._behind if scope not in self._hand_scopes)
        return list(islice(free, limit))

    def mature(self, now_ms: int) -> None:
        """Scopes that are due by now can be claimed."""
        while (due_ms := self.next_due_ms) is not None and not now_ms < due_ms <= now_ms + LONGEST_WAIT_MS:
            _, scope = heapq.heappop(self._due)
            del self._waiting[scope]
            self._behind[scope] = None

    def mature_all(self) -> None:
        """All waiting scopes can be claimed: the store has released them."""
        self._behind.update(dict.fromkeys(self._waiting))
        self._waiting.clear()
        self._due.clear()

    def forget(self) -> None:
        """Start over, except for what is in hand."""
        self.cursor, self.at_end = None, False
        self._replayed.update(self._hand_scopes)
        self._behind.clear()
        self._waiting.clear()
        self._due.clear()

    def take(self, claimed: Claimed, *, asked: Iterable[int] = ()) -> None:
        """Take in the result of a claim. `asked`: the scopes that it was for."""
        for scope in asked:
            self._behind.pop(scope, None)
        self._behind.update(dict.fromkeys(claimed.behind))
        for scope, due_ms in claimed.waiting.items():
            self.wait(scope, due_ms)
        for delivery in claimed.deliveries:
            self._waiting.pop(delivery.scope, None)
            self._hand[delivery.seq] = delivery.scope
            self._hand_scopes[delivery.scope] += 1
        self.ready.extend(claimed.deliveries)

    def wait(self, scope: int, due_ms: int) -> None:
        """The oldest delivery of this scope is not due until then."""
        self._behind.pop(scope, None)
        if self._waiting.get(scope) != due_ms:
            self._waiting[scope] = due_ms
            heapq.heappush(self._due, (due_ms, scope))

    def retry(self, scope: int, due_ms: int) -> None:
        """A delivery of this scope failed: the scope waits for its retry, unless an older one may be pending again."""
        if scope in self._replayed:
            self._replayed.discard(scope)
            self.put_behind(scope)
        else:
            self.wait(scope, due_ms)

    def put_behind(self, scope: int) -> None:
        """This scope has deliveries that are not in hand."""
        if scope not in self._waiting:
            self._behind[scope] = None

    def settled(self, seqs: Iterable[int]) -> list[int]:
        """These deliveries' outcomes are committed, so they are no longer in hand. Returns their scopes."""
        return [self._drop(seq) for seq in seqs]

    def let_go(self, scopes: frozenset[int] | None = None) -> None:
        """Put back the ready deliveries of these scopes, or all of them."""
        back = [one for one in self.ready if scopes is None or one.scope in scopes]
        self.ready = deque(one for one in self.ready if not (scopes is None or one.scope in scopes))
        for delivery in back:
            self._drop(delivery.seq)
            self.put_behind(delivery.scope)

    def _drop(self, seq: int) -> int:
        scope = self._hand.pop(seq)
        self._hand_scopes[scope] -= 1
        if not self._hand_scopes[scope]:
            del self._hand_scopes[scope]
        return scope
