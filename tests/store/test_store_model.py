"""The store against a model of it: whatever happens in whatever order, it holds what the model says."""

from __future__ import annotations

import asyncio
import shutil
import sys
import tempfile
import traceback
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import HealthCheck, settings, strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    rule,
    run_state_machine_as_test,
)

from reserve_listener.ages import LONGEST_WAIT_MS
from reserve_listener.delivery.pending import Pending
from reserve_listener.model import EventQuery, IncomingEvent, Outcome, Scope, SinkFilter, Verdict
from reserve_listener.simulator import patience
from reserve_listener.store import open_reader
from tests.backends import BACKENDS
from tests.helpers import Clock, append

if TYPE_CHECKING:
    from collections.abc import Iterable

    from reserve_listener.model import Delivery
    from reserve_listener.protocols.store import Store
    from tests.backends import Backend

HOUR_MS = 3_600_000
KNOWN_MS = 48 * HOUR_MS
PENDING, DELIVERED, DEAD = range(3)

ROUTES = {
    "a": SinkFilter(),
    "b": SinkFilter(tenants=frozenset({"t1"})),
    "c": SinkFilter(scope_type="room", scope_ids=frozenset({"omm_1", "omm_2"})),
}
SINKS = st.sampled_from(["a", "a", "b", "c"])
SOME_SINKS = st.sampled_from([["a", "b", "c"], ["a", "b"], ["b", "c"], ["a"], []])
TENANTS = st.sampled_from(["t1", "t2"])
SCOPES = st.sampled_from(["omm_0", "omm_1", "omm_2"])
OUTCOMES = st.sampled_from(["delivered", "delivered", "dead", "retry", "uncounted"])
IDS = st.integers(0, 25).map("e{}".format)
FILTERS = st.builds(
    EventQuery,
    sink=st.none() | SINKS,
    scope_id=st.none() | SCOPES,
    event_id=st.none() | IDS,
)

EVENT_ROWS = "SELECT seq, tenant_key, event_id, raw IS NULL FROM events ORDER BY seq"
DELIVERY_ROWS = """
SELECT d.seq, k.name, d.state, d.attempts, d.due_ms FROM deliveries AS d JOIN sinks AS k ON k.id = d.sink
ORDER BY d.seq, k.id
"""


@dataclass
class Known:
    """An event of the model."""

    seq: int
    key: tuple[str, str]
    scope: Scope | None
    received_ms: int
    stripped: bool = False


@dataclass
class Due:
    """A delivery of the model. `since_ms`, `paused_ms`: when its age began, and how long its sink had been off by then."""

    known: Known
    since_ms: int
    paused_ms: int
    state: int = PENDING
    attempts: int = 0
    due_ms: int = 0


@dataclass
class ModelSink:
    """What the model knows of a sink. `off_ms`: for how long it was disabled, all told."""

    number: int
    disabled: bool = False
    off_ms: int = 0
    worker: Pending = field(default_factory=Pending)


class StoreMachine(RuleBasedStateMachine):
    """Does to a store what a daemon, its people and the world do to it."""

    kind: type[Backend]
    monkeypatch: pytest.MonkeyPatch

    def __init__(self) -> None:
        super().__init__()
        self.loop = asyncio.new_event_loop()
        self.folder = Path(tempfile.mkdtemp(prefix="store-model-"))
        self.clock = Clock()
        self.backend = self.kind(self.folder)
        self.store: Store
        self.configured: list[str] = []
        self.sinks: dict[str, ModelSink] = {}
        self.events: dict[tuple[str, str], Known] = {}
        self.deliveries: dict[tuple[int, str], Due] = {}
        self.answered: dict[tuple[str, str], int] = {}
        self.newest = 0
        self.epoch = 0

    # -- what the machine does itself ----------------------------------------------------------------------------------------

    def run(self, work: Any) -> Any:
        async def awaited() -> Any:
            async with asyncio.timeout(patience(20)):
                return await work()

        return self.loop.run_until_complete(awaited())

    def open(self, names: list[str]) -> None:
        self.store = self.run(partial(self.backend.open, *names, filters=ROUTES, now_ms=self.clock))
        self.store.on_commit = self.woken
        self.store.on_requeue = self.requeued
        self.configure(names, keeping=())

    def configure(self, names: list[str], *, keeping: Iterable[str]) -> None:
        self.configured = names
        for name in names:
            sink = self.sinks.setdefault(name, ModelSink(len(self.sinks)))
            if name not in keeping:
                sink.worker = Pending()
        for (_, name), due in self.deliveries.items():
            if due.state == PENDING and name not in names:
                due.state = DEAD

    def woken(self) -> None:
        for sink in self.sinks.values():
            sink.worker.at_end = False

    def requeued(self) -> None:
        """On PostgreSQL at any time: a beat has seen that something was changed. A claim under way then counts for nothing."""
        self.epoch += 1
        for sink in self.sinks.values():
            sink.worker.forget()

    def pending(self, name: str) -> list[Due]:
        return sorted(
            (due for (_, sink), due in self.deliveries.items() if sink == name and due.state == PENDING),
            key=lambda due: due.known.seq,
        )

    def age_since_ms(self, name: str, due: Due) -> int:
        return due.since_ms + self.sinks[name].off_ms - due.paused_ms

    def put_in(self, name: str, known: Known, since_ms: int) -> Due:
        due = Due(known, since_ms, self.sinks[name].off_ms)
        self.deliveries[known.seq, name] = due
        return due

    def matching(self, filters: EventQuery, name: str, known: Known) -> bool:
        return (
            known.scope is not None
            and filters.sink in (None, name)
            and filters.scope_id in (None, known.scope.scope_id)
            and filters.event_id in (None, known.key[1])
            and (filters.since_ms is None or known.received_ms >= filters.since_ms)
        )

    # -- events in ------------------------------------------------------------------------------------------------------------

    def incoming(self, tenant: str, event_id: str, scope: str | None) -> IncomingEvent:
        kind = "level" if scope == "omm_2" else "room"
        return IncomingEvent(
            tenant_key=tenant,
            event_id=event_id,
            raw=b"{}",
            received_ms=self.clock.now_ms,
            scope=None if scope is None else Scope(tenant_key=tenant, scope_type=kind, scope_id=scope),
            body=None if scope is None else b"body",
            problem="not JSON" if scope is None else None,
        )

    @initialize(
        names=SOME_SINKS, claim_bytes=st.sampled_from([5, 12, 1_000]), window=st.sampled_from([4, 100])
    )
    def begin(self, names: list[str], claim_bytes: int, window: int) -> None:
        self.backend.tune(self.monkeypatch, chunk_rows=3, window=window, claim_bytes=claim_bytes)
        self.open(names)

    @rule(pushes=st.lists(st.tuples(TENANTS, IDS, SCOPES | st.none()), min_size=1, max_size=12))
    def push(self, pushes: list[tuple[str, str, str | None]]) -> None:
        events = [self.incoming(*one) for one in pushes]

        async def together() -> list[Verdict]:
            return await asyncio.gather(*(append(self.store, one) for one in events))

        for event, verdict in zip(events, self.run(together), strict=True):
            key = event.tenant_key, event.event_id
            if key in self.events:
                assert verdict is Verdict.DUPLICATE
            else:
                assert self.clock.now_ms - self.answered.get(key, 0) > KNOWN_MS
                assert verdict is (Verdict.UNREADABLE if event.scope is None else Verdict.STORED)
                self.stored(event, key)
            self.answered[key] = self.clock.now_ms if verdict is not Verdict.DUPLICATE else self.answered[key]

    def stored(self, event: IncomingEvent, key: tuple[str, str]) -> None:
        (newest,) = self.backend.rows(
            f"SELECT seq FROM events WHERE tenant_key = '{key[0]}' AND event_id = '{key[1]}'"
        )
        assert newest[0] > self.newest
        self.newest = newest[0]
        known = self.events[key] = Known(self.newest, key, event.scope, event.received_ms)
        for name in self.configured:
            if event.scope is not None and ROUTES[name].takes(event.scope):
                self.put_in(name, known, event.received_ms)

    # -- deliveries out -------------------------------------------------------------------------------------------------------

    @rule(name=SINKS, slots=st.integers(1, 3), per_scope=st.integers(1, 3))
    def claim(self, name: str, slots: int, per_scope: int) -> None:
        if name in self.configured and not self.sinks[name].disabled:
            self.claimed(name, slots, per_scope)

    def claimed(self, name: str, slots: int, per_scope: int) -> None:
        worker, now_ms, epoch = self.sinks[name].worker, self.clock.now_ms, self.epoch
        had = {one.seq for one in worker.ready}
        limit = 4 * slots
        worker.mature(now_ms)
        if scopes := list(worker.claimable(limit)):
            claim = partial(
                self.store.claim_scopes, name, scopes, limit=limit, per_scope=per_scope, now_ms=now_ms
            )
            found = self.run(claim)
            if epoch == self.epoch:
                worker.take(found, asked=scopes)
        if slots > len(worker.ready) and not worker.at_end:
            claim = partial(
                self.store.claim,
                name,
                limit=limit,
                per_scope=per_scope,
                now_ms=now_ms,
                after_seq=worker.cursor,
                skipping=worker.skipping,
            )
            epoch, worker.at_end = self.epoch, True  # unless woken meanwhile
            found = self.run(claim)
            if epoch == self.epoch:
                worker.cursor, worker.at_end = found.seen_seq, worker.at_end and found.at_end
                worker.take(found)
        self.check_taken(name, [one for one in worker.ready if one.seq not in had])

    def check_taken(self, name: str, taken: list[Delivery]) -> None:
        worker, now_ms = self.sinks[name].worker, self.clock.now_ms
        hand = [one.seq for one in worker.ready]
        assert len(hand) == len(set(hand))
        for one in taken:
            due = self.deliveries[one.seq, name]
            assert due.state == PENDING
            assert not now_ms < due.due_ms <= now_ms + LONGEST_WAIT_MS
            assert (one.event_id, one.attempts) == (due.known.key[1], due.attempts)
            assert one.received_ms == self.age_since_ms(name, due)
            for older in self.pending(name):
                if older.known.seq < one.seq and older.known.scope == due.known.scope:
                    assert older.known.seq in hand[: hand.index(one.seq)]

    @rule(name=SINKS, outcome=OUTCOMES, rounds=st.integers(1, 6), slots=st.integers(1, 3))
    def work(self, name: str, outcome: str, rounds: int, slots: int) -> None:
        """Several turns of a worker."""
        for _ in range(rounds):
            self.claim(name, slots, 1)
            self.settle(name, outcome, 60_000, slots)

    @rule(
        name=SINKS,
        outcome=OUTCOMES,
        delay_ms=st.sampled_from([1, 500, 5_000, HOUR_MS, 30 * HOUR_MS]),
        count=st.integers(1, 4),
    )
    def settle(self, name: str, outcome: str, delay_ms: int, count: int) -> None:
        for _ in range(count):
            if name in self.configured and self.sinks[name].worker.ready:
                self.settled(name, outcome, delay_ms)

    def settled(self, name: str, how: str, delay_ms: int) -> None:
        worker = self.sinks[name].worker
        one = worker.ready.popleft()
        due = self.deliveries[one.seq, name]
        due_ms = self.clock.now_ms + delay_ms
        if how == "delivered":
            outcome = Outcome.delivered(one)
        elif how == "dead":
            outcome = Outcome.dead(one, error="no")
        elif how == "retry":
            outcome = Outcome.retry(one, due_ms=due_ms, error="no")
        else:
            outcome = Outcome.uncounted(one, due_ms=0 if delay_ms == 1 else due_ms, error="down")
        if how != "delivered":
            worker.let_go(frozenset({one.scope}))
        for _ in range(2):  # once more changes nothing
            self.run(lambda: self.store.settle(name, [outcome]))
        due.state = {"delivered": DELIVERED, "dead": DEAD}.get(how, PENDING)
        due.attempts += how != "uncounted"
        due.due_ms = outcome.due_ms
        (scope,) = worker.settled([one.seq])
        if due.state == PENDING and due.due_ms:
            worker.wait(scope, due.due_ms)
        elif due.state == PENDING:
            worker.put_behind(scope)

    @rule(name=SINKS)
    def release(self, name: str) -> None:
        if name in self.configured:
            self.run(lambda: self.store.release(name))
            self.sinks[name].worker.mature_all()
            for due in self.pending(name):
                due.due_ms = 0

    @rule(name=SINKS, hours=st.sampled_from([1, 72]))
    def dead_letter_expired(self, name: str, hours: int) -> None:
        if name not in self.configured or self.sinks[name].disabled:
            return
        self.sinks[name].worker.let_go()
        before_ms = self.clock.now_ms - hours * HOUR_MS
        expired = [due for due in self.pending(name) if self.age_since_ms(name, due) < before_ms]
        work = partial(self.store.dead_letter_expired, name, before_ms=before_ms, error="down")
        assert self.run(work) == len(expired)
        for due in expired:
            due.state = DEAD
        self.sinks[name].worker.forget()

    # -- people ----------------------------------------------------------------------------------------------------------------

    @rule(seconds=st.sampled_from([0.001, 1, 60, 3_600, 24 * 3_600, 49 * 3_600]))
    def advance(self, seconds: float) -> None:
        self.clock.advance(seconds)
        for sink in self.sinks.values():
            sink.off_ms += round(seconds * 1000) if sink.disabled else 0

    @rule(name=SINKS)
    def disable(self, name: str) -> None:
        if name in self.configured:
            changed = self.run(lambda: self.store.disable_sink(name, "by hand"))
            assert changed is not self.sinks[name].disabled
            self.sinks[name].disabled = True
            self.sinks[name].worker.let_go()

    @rule(name=SINKS)
    def enable(self, name: str) -> None:
        if name in self.configured:
            assert self.run(lambda: self.store.enable_sink(name)) is self.sinks[name].disabled
            self.sinks[name].disabled = False
            self.sinks[name].worker.forget()

    @rule(
        operation=st.sampled_from(["retry", "drop"]), filters=FILTERS, since_h=st.none() | st.integers(0, 60)
    )
    def on_dead(self, operation: str, filters: EventQuery, since_h: int | None) -> None:
        filters = self.with_since(filters, since_h)
        concerned = {
            (seq, name): due
            for (seq, name), due in self.deliveries.items()
            if due.state == DEAD
            and self.matching(filters, name, due.known)
            and (operation == "drop" or name in self.configured)
        }
        assert self.run(lambda: self.store.operate(operation, filters)) == len(concerned)
        for (seq, name), due in concerned.items():
            del self.deliveries[seq, name]
            if operation == "retry":
                self.put_in(name, due.known, self.clock.now_ms)

    @rule(filters=FILTERS, since_h=st.none() | st.integers(0, 60))
    def replay(self, filters: EventQuery, since_h: int | None) -> None:
        filters = self.with_since(filters, since_h)
        concerned = [
            (name, known)
            for known in self.events.values()
            for name in self.configured
            if not known.stripped
            and self.matching(filters, name, known)
            and known.scope is not None
            and ROUTES[name].takes(known.scope)
            and (
                (known.seq, name) not in self.deliveries or self.deliveries[known.seq, name].state != PENDING
            )
        ]
        assert self.run(lambda: self.store.operate("replay", filters)) == len(concerned)
        for name, known in concerned:
            self.put_in(name, known, self.clock.now_ms)

    def with_since(self, filters: EventQuery, since_h: int | None) -> EventQuery:
        since_ms = None if since_h is None else self.clock.now_ms - since_h * HOUR_MS
        return EventQuery(
            sink=filters.sink, scope_id=filters.scope_id, event_id=filters.event_id, since_ms=since_ms
        )

    @rule(strip=st.booleans(), hours=st.sampled_from([48, 100]))
    def prune(self, *, strip: bool, hours: int) -> None:
        before_ms = self.clock.now_ms - hours * HOUR_MS

        async def all_of_it() -> None:
            after_seq: int | None = 0
            while after_seq is not None:
                after_seq = (await self.store.prune(after_seq, before_ms, strip=strip)).after_seq

        self.run(all_of_it)
        kept = {seq for (seq, _), due in self.deliveries.items() if due.state != DELIVERED}
        for known in list(self.events.values()):
            old = known.received_ms < before_ms
            if known.seq in kept or not (old or strip):
                continue
            if old:
                del self.events[known.key]
            known.stripped = True
            for name in self.sinks:
                self.deliveries.pop((known.seq, name), None)

    # -- lives -----------------------------------------------------------------------------------------------------------------

    @rule(names=SOME_SINKS)
    def reopen(self, names: list[str]) -> None:
        self.run(self.store.close)
        self.open(names)

    @rule(names=SOME_SINKS)
    def reload(self, names: list[str]) -> None:
        keeping = set(self.configured)
        self.run(lambda: self.store.set_sinks(names, ROUTES))
        self.run(self.store.dead_letter_removed)
        self.configure(names, keeping=keeping)

    @rule(names=SOME_SINKS, tenant=TENANTS, event_id=IDS)
    def crash(self, names: list[str], tenant: str, event_id: str) -> None:
        """In the middle of a transaction: what is in it was answered to nobody, and is gone."""
        self.run(partial(self.backend.crash, self.store, [self.incoming(tenant, event_id, "omm_0")]))
        self.open(names)

    # -- what must be true -----------------------------------------------------------------------------------------------------

    @invariant()
    def the_store_is_the_model(self) -> None:
        known = sorted(self.events.values(), key=lambda one: one.seq)
        assert self.backend.rows(EVENT_ROWS) == [(one.seq, *one.key, int(one.stripped)) for one in known]
        assert sorted(self.backend.rows(DELIVERY_ROWS)) == [
            (seq, name, due.state, due.attempts, due.due_ms)
            for (seq, name), due in sorted(self.deliveries.items())
        ]
        assert self.store.problem is None

    @invariant()
    def nothing_pending_is_out_of_sight(self) -> None:
        for name in self.configured:
            worker = self.sinks[name].worker
            hand = {one.seq for one in worker.ready}
            scopes: dict[tuple[str, str, str], int] = {}
            if worker.cursor is None or not self.pending(name):
                continue
            for number, *key in self.backend.rows("SELECT id, tenant_key, scope_type, scope_id FROM scopes"):
                scopes[key[0], key[1], key[2]] = number
            for due in self.pending(name):
                scope = due.known.scope
                assert scope is not None
                number = scopes[scope.tenant_key, scope.scope_type, scope.scope_id]
                seen = due.known.seq in hand or number in worker._behind or number in worker._waiting
                assert seen or due.known.seq > worker.cursor
                assert seen or not worker.at_end

    @rule()
    def read(self) -> None:
        with open_reader(self.backend.url) as reader:
            listed = {one.seq for one in reader.events(limit=1_000)}
            states = {one.name: one for one in reader.sinks()}
        assert listed == {one.seq for one in self.events.values() if not one.stripped}
        for name, sink in self.sinks.items():
            assert states[name].pending == len(self.pending(name))
            assert (states[name].disabled_ms is not None) is sink.disabled
            assert states[name].configured is (name in self.configured)

    def teardown(self) -> None:
        if isinstance(error := sys.exception(), Exception):
            traceback.print_exception(
                error
            )  # one that does not come again is all that says why: hypothesis drops it
        try:
            if hasattr(self, "store"):
                for name in list(self.configured):
                    self.drain(name)
                self.the_store_is_the_model()
                self.backend.require_sound()
        finally:
            if hasattr(self, "store"):
                self.run(self.store.close)
            self.backend.let_go()
            self.loop.close()
            shutil.rmtree(self.folder)

    def drain(self, name: str) -> None:
        """In the end a sink that is there gets everything."""
        self.enable(name)
        self.release(name)
        worker = self.sinks[name].worker
        for _ in range(2_000):
            if not (worker.ready or worker.unfinished):
                break
            self.claimed(name, 2, 2)
            while worker.ready:
                self.settled(name, "delivered", 1)
        assert self.pending(name) == []


def machine(backend: type[Backend], undone: pytest.MonkeyPatch) -> type[StoreMachine]:
    """The machine over stores of this kind; skips before it has made anything that would be left behind."""
    if backend.missing is not None:
        pytest.skip(backend.missing)

    class Machine(StoreMachine):
        kind, monkeypatch = backend, undone

    return Machine


COMMON: dict[str, Any] = {
    "deadline": None,
    "suppress_health_check": list(HealthCheck),
    "database": None,
}


@pytest.mark.slow
@pytest.mark.parametrize("kind", BACKENDS.values(), ids=BACKENDS)
def test_the_store_does_what_the_model_does(kind: type[Backend], monkeypatch: pytest.MonkeyPatch) -> None:
    """Pushes, claims, outcomes, crashes, reloads, operations and retention in any order, over every backend."""
    run_state_machine_as_test(
        machine(kind, monkeypatch),
        settings=settings(
            max_examples=8 if kind.shared else 80, stateful_step_count=50, derandomize=True, **COMMON
        ),
    )


@pytest.mark.long
@pytest.mark.parametrize("kind", BACKENDS.values(), ids=BACKENDS)
def test_the_store_does_what_the_model_does_for_minutes(
    kind: type[Backend], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same with other dice each time, longer lives and more of them."""
    run_state_machine_as_test(
        machine(kind, monkeypatch),
        settings=settings(max_examples=15 if kind.shared else 400, stateful_step_count=80, **COMMON),
    )
