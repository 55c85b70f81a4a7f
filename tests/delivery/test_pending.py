"""A worker's bookkeeping: against a naive model of the store, with everything that may happen at any moment."""

from __future__ import annotations

from dataclasses import dataclass, field

from hypothesis import given, settings, strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from reserve_listener.ages import LONGEST_WAIT_MS
from reserve_listener.delivery.pending import Pending
from reserve_listener.model import Claimed, Delivery
from tests.helpers import NOW_MS, delivery

SCOPES = st.integers(1, 4)


def of_scope(seq: int, scope: int) -> Delivery:
    return Delivery(seq=seq, event_id=f"e{seq}", scope=scope, attempts=0, received_ms=NOW_MS, body=b"{}")


def claimed(
    *deliveries: Delivery,
    waiting: dict[int, int] | None = None,
    behind: set[int] | None = None,
    seen_seq: int = 0,
    at_end: bool = False,
) -> Claimed:
    return Claimed(
        deliveries=list(deliveries),
        waiting=waiting or {},
        behind=behind or set(),
        seen_seq=seen_seq,
        at_end=at_end,
    )


@dataclass
class Rows:
    """A naive store: for each event its scope, and while it is pending when it is due."""

    scope: dict[int, int] = field(default_factory=dict)
    due: dict[int, int] = field(default_factory=dict)
    now_ms: int = NOW_MS

    def claim(
        self, seqs: list[int], skipping: frozenset[int], *, limit: int, per_scope: int, window: int
    ) -> Claimed:
        found = claimed(at_end=True)
        taken: list[Delivery] = []
        seen = 0
        for number, seq in enumerate(seqs):
            if number >= window or len(taken) >= limit:
                found = claimed(waiting=found.waiting, behind=found.behind, seen_seq=seen)
                break
            seen, scope = seq, self.scope[seq]
            if scope in found.waiting or scope in found.behind:
                continue
            of_it = sum(one.scope == scope for one in taken)
            if scope in skipping or of_it >= per_scope:
                found.behind.add(scope)
            elif self.now_ms < self.due[seq] <= self.now_ms + LONGEST_WAIT_MS:
                (found.behind.add(scope) if of_it else found.waiting.update({scope: self.due[seq]}))
            else:
                taken.append(of_scope(seq, scope))
        return claimed(*taken, waiting=found.waiting, behind=found.behind, seen_seq=seen, at_end=found.at_end)


class PendingMachine(RuleBasedStateMachine):
    """Claims, ends of attempts, replays, pauses and jumps of the clock, in any order."""

    def __init__(self) -> None:
        super().__init__()
        self.rows = Rows()
        self.pending = Pending()
        self.begun: list[Delivery] = []
        self.replayed: set[int] = set()

    def seqs(self, after: int = 0, scopes: frozenset[int] | None = None) -> list[int]:
        return [
            seq
            for seq in sorted(self.rows.due)
            if seq > after and (scopes is None or self.rows.scope[seq] in scopes)
        ]

    @rule(scope=SCOPES)
    def arrives(self, scope: int) -> None:
        seq = len(self.rows.scope) + 1
        self.rows.scope[seq], self.rows.due[seq] = scope, 0
        self.pending.at_end = False

    @rule(limit=st.integers(1, 4), per_scope=st.integers(1, 3), window=st.integers(1, 5))
    def claims_newer(self, limit: int, per_scope: int, window: int) -> None:
        self.pending.mature(self.rows.now_ms)
        cursor = self.pending.cursor or 0
        found = self.rows.claim(
            self.seqs(cursor), self.pending.skipping, limit=limit, per_scope=per_scope, window=window
        )
        self.pending.cursor = max(cursor, found.seen_seq)
        self.pending.at_end = found.at_end
        self.pending.take(found)

    @rule(limit=st.integers(1, 4), per_scope=st.integers(1, 3), places=st.integers(1, 4))
    def claims_scopes(self, limit: int, per_scope: int, places: int) -> None:
        self.pending.mature(self.rows.now_ms)
        asked = list(self.pending.claimable(limit))
        parts = []
        left = places
        for scope in asked:
            seqs = self.seqs(scopes=frozenset([scope]))
            if left <= 0:
                parts.append(claimed(behind={scope}))
                continue
            parts.append(self.rows.claim(seqs, frozenset(), limit=99, per_scope=per_scope, window=99))
            left -= len(parts[-1].deliveries)
        whole = claimed(
            *(one for part in parts for one in part.deliveries),
            waiting={scope: due for part in parts for scope, due in part.waiting.items()},
            behind={scope for part in parts for scope in part.behind},
        )
        self.pending.take(whole, asked=asked)

    @precondition(lambda self: self.pending.ready)
    @rule()
    def begins(self) -> None:
        busy = {one.scope for one in self.begun}
        for one in list(self.pending.ready):
            if one.scope not in busy:
                self.pending.ready.remove(one)
                of_it = self.seqs(scopes=frozenset([one.scope]))
                older = [seq for seq in of_it if seq < one.seq and seq not in self.replayed]
                assert older == [], f"{one.seq} overtakes {older}"
                self.begun.append(one)
                return

    @precondition(lambda self: self.begun)
    @rule(delay_ms=st.none() | st.integers(0, 5_000), index=st.integers(0, 3))
    def ends(self, delay_ms: int | None, index: int) -> None:
        one = self.begun.pop(index % len(self.begun))
        if delay_ms is None:
            del self.rows.due[one.seq]
            assert self.pending.settled([one.seq]) == [one.scope]
            return
        self.pending.let_go(frozenset([one.scope]))
        due_ms = self.rows.now_ms + delay_ms if delay_ms else 0
        self.rows.due[one.seq] = due_ms
        self.pending.settled([one.seq])
        if due_ms:
            self.pending.retry(one.scope, due_ms)
        else:
            self.pending.put_behind(one.scope)

    @precondition(lambda self: len(self.rows.scope) > len(self.rows.due))
    @rule(data=st.data())
    def is_replayed(self, data: st.DataObject) -> None:
        settled = sorted(set(self.rows.scope) - set(self.rows.due))
        seq = data.draw(st.sampled_from(settled))
        self.rows.due[seq] = 0
        self.replayed.add(seq)
        self.pending.forget()

    @rule()
    def is_looked_at_anew(self) -> None:
        self.pending.forget()

    @rule()
    def is_released(self) -> None:
        self.rows.due = dict.fromkeys(self.rows.due, 0)
        self.pending.mature_all()

    @rule()
    def lets_go(self) -> None:
        self.pending.let_go()

    @rule(ms=st.sampled_from([1, 1_000, 5_000, 3_600_000, -3_600_000, 400 * 86_400_000, -400 * 86_400_000]))
    def time_passes(self, ms: int) -> None:
        self.rows.now_ms += ms

    @invariant()
    def every_pending_delivery_is_known_of(self) -> None:
        pending = self.pending
        hand = {one.seq for one in (*pending.ready, *self.begun)}
        assert hand == set(pending._hand)
        for seq in self.rows.due:
            scope = self.rows.scope[seq]
            assert (
                seq in hand
                or scope in pending._behind
                or scope in pending._waiting
                or seq > (pending.cursor or 0)
            ), seq

    @invariant()
    def what_waits_is_found_when_it_is_due(self) -> None:
        timed = {(due_ms, scope) for due_ms, scope in self.pending._due}
        assert {(due_ms, scope) for scope, due_ms in self.pending._waiting.items()} <= timed
        next_ms = self.pending.next_due_ms
        assert next_ms == min(self.pending._waiting.values(), default=None)

    @invariant()
    def a_scope_waits_for_its_oldest_delivery(self) -> None:
        hand = set(self.pending._hand)
        for scope, due_ms in self.pending._waiting.items():
            oldest = next(seq for seq in self.seqs(scopes=frozenset([scope])) if seq not in hand)
            assert self.rows.due[oldest] == due_ms, scope

    def teardown(self) -> None:
        """However it went, all of it is delivered when nothing fails any more."""
        self.rows.now_ms = max(self.rows.now_ms, NOW_MS) + 800 * 86_400_000
        for _ in range(20 + 10 * len(self.rows.scope)):
            while self.begun:
                self.ends(None, 0)
            if self.pending.ready:
                self.begins()
                continue
            self.claims_scopes(2, 1, 2)
            if not self.pending.ready:
                self.claims_newer(2, 1, 3)
        assert self.rows.due == {}


TestPending = PendingMachine.TestCase
TestPending.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
TestPending.runTest.__doc__ = (
    "Whatever happens, every pending delivery is known of and none overtakes another."
)


def test_what_is_older_goes_first_whatever_could_not_be_taken_yet() -> None:
    """A scope of which something stands behind is left out by a claim of what is newer."""
    pending = Pending()
    pending.take(claimed(behind={1, 2}, waiting={3: NOW_MS}))
    pending.take(claimed(of_scope(9, 4)))
    assert pending.skipping == {1, 2, 3, 4}


def test_scopes_that_stood_behind_first_are_claimed_first() -> None:
    """One that was asked for and has more goes to the end of the line, and one in hand is passed over."""
    pending = Pending()
    pending.take(claimed(behind={1}))
    pending.take(claimed(behind={2}))
    pending.take(claimed(behind={3}))
    assert list(pending.claimable(2)) == [1, 2]
    pending.take(claimed(of_scope(1, 1), behind={1}), asked=[1])
    assert list(pending.claimable(9)) == [2, 3]
    pending.settled([1])
    assert list(pending.claimable(9)) == [2, 3, 1]


def test_what_is_put_back_is_not_ready_and_its_scope_is_behind() -> None:
    """Of the scopes that are named, or of all; what is under way stays in hand."""
    pending = Pending()
    pending.take(claimed(*(of_scope(seq, 1 + seq % 3) for seq in range(6))))
    pending.let_go(frozenset([2]))
    assert [one.seq for one in pending.ready] == [0, 2, 3, 5]
    assert list(pending.claimable(9)) == [2]
    pending.ready.popleft()
    pending.let_go()
    assert (list(pending.ready), pending._hand) == ([], {0: 1})
    assert set(pending.claimable(9)) == {2, 3}


def test_a_scope_that_waits_is_not_behind_and_the_other_way_round() -> None:
    """Put back while its oldest delivery waits it still waits; taken, it waits no more."""
    pending = Pending()
    pending.wait(1, NOW_MS + 1)
    pending.put_behind(1)
    assert (list(pending.claimable(9)), pending.next_due_ms) == ([], NOW_MS + 1)
    pending.take(claimed(of_scope(1, 1)))
    assert pending.next_due_ms is None
    pending.let_go()
    assert list(pending.claimable(9)) == [1]
    pending.wait(1, NOW_MS)
    assert list(pending.claimable(9)) == []


def test_a_scope_matures_exactly_when_it_is_due() -> None:
    """Not a millisecond before; at once when it is due beyond all waits, for the clock was wrong then."""
    pending = Pending()
    pending.wait(1, NOW_MS)
    pending.mature(NOW_MS - 1)
    assert list(pending.claimable(9)) == []
    pending.mature(NOW_MS)
    assert list(pending.claimable(9)) == [1]
    pending.wait(2, NOW_MS + LONGEST_WAIT_MS)
    pending.mature(NOW_MS)
    assert list(pending.claimable(9)) == [1]
    pending.wait(2, NOW_MS + LONGEST_WAIT_MS + 1)
    pending.mature(NOW_MS)
    assert list(pending.claimable(9)) == [1, 2]


def test_events_for_a_scope_that_waits_cost_no_memory() -> None:
    """However often a claim says that a scope waits until then, it is noted once."""
    pending = Pending()
    for _ in range(1_000):
        pending.take(claimed(waiting={1: NOW_MS}))
    assert len(pending._due) == 1


def test_it_is_unfinished_while_something_could_be_claimed() -> None:
    """Not at the end, or a scope behind of which nothing is in hand; what waits for its time does not count."""
    pending = Pending()
    seen = [pending.unfinished]
    pending.at_end = True
    pending.wait(1, NOW_MS)
    seen.append(pending.unfinished)
    pending.take(claimed(of_scope(1, 2), behind={2}))
    seen.append(pending.unfinished)
    pending.settled([1])
    seen.append(pending.unfinished)
    assert seen == [True, False, False, True]
    pending.forget()
    assert (pending.unfinished, pending.cursor, pending.next_due_ms) == (True, None, None)
    assert list(pending.claimable(9)) == []


@given(
    waits=st.lists(st.tuples(SCOPES, st.integers(0, 1_000)), max_size=20), releases=st.sampled_from([0, 1])
)
def test_the_next_due_time_is_the_first_of_what_waits(waits: list[tuple[int, int]], releases: int) -> None:
    """The last word on each scope counts; after a release nothing waits and all of it is behind."""
    pending = Pending()
    last = {}
    for scope, due_ms in waits:
        pending.wait(scope, NOW_MS + due_ms)
        last[scope] = NOW_MS + due_ms
    assert pending.next_due_ms == min(last.values(), default=None)
    if releases:
        pending.mature_all()
        assert pending.next_due_ms is None
        assert set(pending.claimable(9)) == set(last)


def test_a_delivery_is_in_hand_until_it_is_settled() -> None:
    """Several of one scope are counted one by one."""
    pending = Pending()
    pending.take(claimed(of_scope(1, 1), of_scope(2, 1), delivery(3)))
    pending.ready.clear()
    assert pending.settled([1]) == [1]
    assert pending.skipping == {1}
    assert pending.settled([2, 3]) == [1, 1]
    assert pending.skipping == frozenset()
