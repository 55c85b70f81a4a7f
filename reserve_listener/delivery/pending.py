"""What a worker knows of its sink's pending deliveries, in memory: found anew after a restart, so nothing of it is stored.

What must stay true: every pending delivery of the sink is in hand, or its scope is behind (has deliveries that were looked
at and not taken) or waiting (its oldest delivery is not due yet), or it is newer than `cursor`.
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
    """The bookkeeping of one worker. `ready` is what can be started, in order."""

    def __init__(self) -> None:
        self.ready: deque[Delivery] = deque()
        self.cursor: int | None = None
        """Everything up to this event was looked at; None: nothing was."""
        self.at_end = False
        """Whether nothing newer is known of."""
        self._hand: dict[int, int] = {}
        self._hand_scopes: defaultdict[int, int] = defaultdict(int)  # a Counter takes several times as long
        self._behind: dict[int, None] = {}
        self._waiting: dict[int, int] = {}
        self._due: list[tuple[int, int]] = []
        self._replayed: set[int] = set()

    @property
    def skipping(self) -> frozenset[int]:
        """The scopes of which a claim of what is newer may take nothing: something older is pending."""
        return frozenset((*self._hand_scopes, *self._waiting, *self._behind))

    @property
    def next_due_ms(self) -> int | None:
        """When the first scope that waits is due; None when none does."""
        while self._due and self._waiting.get(self._due[0][1]) != self._due[0][0]:
            heapq.heappop(self._due)
        return self._due[0][0] if self._due else None

    @property
    def unfinished(self) -> bool:
        """Whether the store may hold deliveries that could be made now and are not in hand."""
        return not self.at_end or any(True for _ in self.claimable(1))

    def claimable(self, limit: int) -> Iterable[int]:
        """Scopes with deliveries behind the cursor, of which nothing is in hand; those first that came first."""
        free = (scope for scope in self._behind if scope not in self._hand_scopes)
        return list(islice(free, limit))

    def mature(self, now_ms: int) -> None:
        """Scopes whose time has come may be claimed."""
        while (due_ms := self.next_due_ms) is not None and not now_ms < due_ms <= now_ms + LONGEST_WAIT_MS:
            _, scope = heapq.heappop(self._due)
            del self._waiting[scope]
            self._behind[scope] = None

    def mature_all(self) -> None:
        """Everything that waits may be claimed: the store has released it."""
        self._behind.update(dict.fromkeys(self._waiting))
        self._waiting.clear()
        self._due.clear()

    def forget(self) -> None:
        """Look at everything anew, but for what is in hand."""
        self.cursor, self.at_end = None, False
        self._replayed.update(self._hand_scopes)
        self._behind.clear()
        self._waiting.clear()
        self._due.clear()

    def take(self, claimed: Claimed, *, asked: Iterable[int] = ()) -> None:
        """What a claim found; `asked`: the scopes it was for."""
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
        """The oldest delivery of this scope waits until then."""
        self._behind.pop(scope, None)
        if self._waiting.get(scope) != due_ms:
            self._waiting[scope] = due_ms
            heapq.heappush(self._due, (due_ms, scope))

    def retry(self, scope: int, due_ms: int) -> None:
        """A delivery of this scope failed. Unless an older one may be pending again, the scope waits for it."""
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
        """The outcomes of these deliveries are committed: they are not in hand any more. Their scopes."""
        return [self._drop(seq) for seq in seqs]

    def let_go(self, scopes: frozenset[int] | None = None) -> None:
        """Put back what is ready, of these scopes or of all."""
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
