"""What is known of rooms and levels, and how it came to be: whatever comes, in whatever order. Over every backend."""

from __future__ import annotations

import asyncio
import json
import tempfile
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
import pytest
from hypothesis import settings, strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    rule,
    run_state_machine_as_test,
)

from reserve_listener.intake.changes import Config, apply, config_of
from reserve_listener.intake.complete import completing
from reserve_listener.model import IncomingEvent, Known, Scope, Verdict
from reserve_listener.simulator import patience
from reserve_listener.store import open_reader
from tests.backends import BACKENDS
from tests.helpers import receive, unreadable_event
from tests.intake.test_changes import CONFIGS, canonical

if TYPE_CHECKING:
    from reserve_listener.model import HistoryEntry
    from reserve_listener.protocols.store import Store
    from tests.backends import Backend

BEGAN_MS = 1_790_000_000_000
SCOPES = [Scope(tenant_key=tenant, scope_type="room", scope_id=scope) for tenant, scope in ("ta", "tb", "ua")]
PUSHES = st.lists(
    st.tuples(
        st.sampled_from(["new"] * 5 + ["again", "nonsense"]),
        st.sampled_from(SCOPES),
        CONFIGS,
        st.sampled_from([None, -3, -2, -1, 0, 0, 1, 2, 3]),
    ),
    min_size=1,
    max_size=5,
)
complete = completing("en")


def push(event_id: str, scope: Scope, config: Config, created_ms: int | None) -> IncomingEvent:
    """A push as `normalize` leaves it."""
    told = {"scope_id": scope.scope_id, "scope_type": scope.scope_type} | config
    return IncomingEvent(
        tenant_key=scope.tenant_key,
        event_id=event_id,
        raw=b"{}",
        received_ms=BEGAN_MS,
        created_ms=created_ms,
        scope=scope,
        body=msgspec.json.encode({"id": event_id, "data": told}),
    )


class Expected:
    """A scope as the events that were taken in should have left it, worked out in the plainest way."""

    def __init__(self) -> None:
        self.config: Config = {}
        self.revision = 0
        self.created_ms: int | None = None

    def take(self, event: IncomingEvent) -> bool:
        """Whether it is not late."""
        created, known = event.created_ms, self.created_ms
        if created is not None and known is not None and created < known:
            return False
        self.config |= config_of(json.loads(event.body or b"")["data"])
        self.revision += 1
        self.created_ms = known if created is None else created
        return True


class Events(RuleBasedStateMachine):
    """Pushes, repeats, late ones and unreadable ones, alone and in batches, some of which are killed half-way."""

    kind: type[Backend]

    def __init__(self) -> None:
        super().__init__()
        self.folder = tempfile.TemporaryDirectory(prefix="reserve-listener-")
        self.backend = self.kind(Path(self.folder.name))
        self.loop = asyncio.new_event_loop()
        self.store: Store
        self.expected = {scope: Expected() for scope in SCOPES}
        self.stored: dict[tuple[str, str], IncomingEvent] = {}
        self.late: set[tuple[str, str]] = set()
        self.coming: list[IncomingEvent] = []
        self.number = 0
        self.open()

    def run(self, work: Any) -> Any:
        async def awaited() -> Any:
            async with asyncio.timeout(patience(20)):
                return await work()

        return self.loop.run_until_complete(awaited())

    def open(self) -> None:
        self.store = self.run(partial(self.backend.open, complete=complete))

    def teardown(self) -> None:
        try:
            self.run(self.store.close)
        finally:
            self.backend.let_go()
            self.loop.close()
            self.folder.cleanup()

    @rule(pushes=PUSHES)
    def pushed(self, pushes: list[Any]) -> None:
        """Some come, and are written together."""
        self.come(pushes)
        self.project()

    @rule(pushes=PUSHES)
    def killed(self, pushes: list[Any]) -> None:
        """The process dies in the middle of writing; what was answered is projected after the next start."""
        self.come(pushes)
        number = None
        if not self.backend.shared:
            self.run(partial(receive, self.store, *self.coming))
        self.run(partial(self.backend.crash, self.store, self.coming))
        self.open()
        if not self.backend.shared:
            ((number, left),) = self.run(self.store.left)
            assert left == self.coming
        self.project(number)

    def come(self, pushes: list[Any]) -> None:
        """New ones, often a little late; the same ones again; and such as cannot be read."""
        for kind, scope, config, moved in pushes:
            self.number += 1
            created = None if moved is None else BEGAN_MS + self.number + moved
            known = [*self.stored.values(), *self.coming]
            if kind == "again" and known:
                self.coming.append(known[self.number % len(known)])
            elif kind == "nonsense":
                self.coming.append(unreadable_event(b"nonsense"))
            else:
                self.coming.append(push(f"e{self.number}", scope, config, created))

    def project(self, number: int | None = None) -> None:
        """What has come is written, and what is said of each is right."""
        verdicts = self.run(partial(self.store.project, self.coming, number=number))
        for event, verdict in zip(self.coming, verdicts, strict=True):
            key = (event.tenant_key, event.event_id)
            assert (verdict is Verdict.DUPLICATE) == (key in self.stored)
            if key in self.stored:
                continue
            self.stored[key] = event
            if event.scope is not None and not self.expected[event.scope].take(event):
                self.late.add(key)
        self.coming = []

    @rule()
    def upgraded(self) -> None:
        """The history is lost, as in a store of an older version, and made again from the events."""
        self.run(self.store.close)
        self.backend.lose_history()
        self.open()
        self.run(self.backend.rebuilt)

    @initialize()
    def begin(self) -> None:
        """Nothing is known."""
        assert self.states() == {}

    def states(self) -> dict[Scope, Known]:
        with open_reader(self.backend.url) as reader:
            return {one.scope: one.known for one in reader.known_scopes()}

    def entries(self) -> dict[Scope, list[HistoryEntry]]:
        """The history of each scope, the oldest first."""
        with open_reader(self.backend.url) as reader:
            found = [entry for scope_id in "ab" for entry in reader.history(scope_id)]
        return {scope: [entry for entry in found if entry.scope == scope][::-1] for scope in SCOPES}

    @invariant()
    def the_state_is_what_was_told(self) -> None:
        """Of every scope: its configuration, its revision, and the time that it rests on."""
        states = self.states()
        for scope, expected in self.expected.items():
            if not expected.revision:
                assert scope not in states
                continue
            known = states[scope]
            assert (known.revision, known.created_ms) == (expected.revision, expected.created_ms)
            assert canonical(json.loads(known.config)) == canonical(expected.config)

    @invariant()
    def the_changes_add_up(self) -> None:
        """Applied one after the other to the first configuration they give the state; revisions have no gap."""
        entries = self.entries()
        for scope, known in self.states().items():
            taken = [entry for entry in entries[scope] if entry.revision]
            assert [entry.revision for entry in taken] == [*range(1, known.revision + 1)]
            reached = json.loads(taken[0].config)
            for entry in taken[1:]:
                reached = apply(json.loads(entry.changes or "[]"), reached)
            assert canonical(reached) == canonical(json.loads(known.config))

    @invariant()
    def bodies_say_what_the_history_says(self) -> None:
        """Sealed in the body are the same revision and changes; a late one says so, and only a late one."""
        entries = {entry.seq: entry for each in self.entries().values() for entry in each}
        bodies = {one.seq: one.body for one in self.backend.stored() if one.scope is not None}
        assert entries.keys() == bodies.keys()
        assert len(entries) == sum(event.scope is not None for event in self.stored.values())
        for seq, entry in entries.items():
            data = json.loads(bodies[seq] or b"")["data"]
            assert (data.get("revision"), data["summary"]) == (entry.revision, entry.summary)
            assert data["changes"] == (None if entry.changes is None else json.loads(entry.changes))
            late = (entry.scope.tenant_key, entry.event_id) in self.late
            assert data.get("superseded", False) is late


def machine(backend: type[Backend]) -> type[Events]:
    """The machine over stores of this kind; skips before it has made anything that would be left behind."""
    if backend.missing is not None:
        pytest.skip(backend.missing)

    class Machine(Events):
        kind = backend

    return Machine


@pytest.mark.slow
@pytest.mark.parametrize("kind", BACKENDS.values(), ids=BACKENDS)
def test_whatever_comes_the_changes_lead_to_the_state(kind: type[Backend]) -> None:
    """Pushes, repeats, late and unreadable ones, kills and upgrades: states, history and bodies fit each other."""
    run_state_machine_as_test(
        machine(kind),
        settings=settings(
            max_examples=4 if kind.shared else 40, stateful_step_count=12, deadline=None, derandomize=True
        ),
    )


@pytest.mark.long
@pytest.mark.parametrize("kind", BACKENDS.values(), ids=BACKENDS)
def test_whatever_comes_for_minutes(kind: type[Backend]) -> None:
    """The same with other dice each time, and longer lives."""
    run_state_machine_as_test(
        machine(kind),
        settings=settings(max_examples=12 if kind.shared else 600, stateful_step_count=40, deadline=None),
    )
