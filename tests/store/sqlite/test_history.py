"""What is known of rooms and levels, and how it came to be, in the store: whatever comes, in whatever order."""

from __future__ import annotations

import json
import re
import sqlite3
import tempfile
from contextlib import closing
from pathlib import Path
from typing import Any

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
from reserve_listener.store.sqlite import history, projecting, rebuilding, schema
from reserve_listener.store.sqlite.appending import Appending
from reserve_listener.store.sqlite.reader import SqliteReader
from reserve_listener.store.sqlite.store import SqliteStore, as_it_is
from tests.helpers import unreadable_event, until
from tests.intake.test_changes import CONFIGS, canonical

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

    def __init__(self) -> None:
        super().__init__()
        self.folder = tempfile.TemporaryDirectory(prefix="reserve-listener-")
        self.path = Path(self.folder.name) / "events.db"
        self.connection = schema.open_writer(self.path)
        self.expected = {scope: Expected() for scope in SCOPES}
        self.stored: dict[tuple[str, str], IncomingEvent] = {}
        self.late: set[tuple[str, str]] = set()
        self.coming: list[IncomingEvent] = []
        self.number = 0

    def teardown(self) -> None:
        self.connection.close()
        self.folder.cleanup()

    @rule(pushes=PUSHES)
    def pushed(self, pushes: list[Any]) -> None:
        """Some come, and are written together with what a kill has left."""
        self.come(pushes)
        self.project()

    @rule(pushes=PUSHES)
    def killed(self, pushes: list[Any]) -> None:
        """The process dies in the middle of writing; what was answered is projected after the next start."""
        self.come(pushes)
        self.connection.execute("BEGIN")
        projecting.project(Appending((), {}, complete), self.coming, None, self.connection)
        self.connection.close()
        self.connection = schema.open_writer(self.path)
        self.project()

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

    def project(self) -> None:
        """What has come is written, and what is said of each is right."""
        position = projecting.Position("inbox", self.number)
        self.connection.execute("BEGIN")
        appended = projecting.project(Appending((), {}, complete), self.coming, position, self.connection)
        self.connection.execute("COMMIT")
        for event, one in zip(self.coming, appended, strict=True):
            key = (event.tenant_key, event.event_id)
            assert (one.verdict is Verdict.DUPLICATE) == (key in self.stored)
            if key in self.stored:
                continue
            self.stored[key] = event
            if event.scope is not None and not self.expected[event.scope].take(event):
                self.late.add(key)
        self.coming = []

    @rule()
    def upgraded(self) -> None:
        """The history is lost, as in a store of an older version, and made again from the events."""
        for table in ("states", "history"):
            self.connection.execute(f"DELETE FROM {table}")
        self.connection.execute("INSERT INTO unbuilt SELECT scope, seq FROM events WHERE body IS NOT NULL")
        while not rebuilding.some(complete, self.connection):
            pass

    @initialize()
    def begin(self) -> None:
        """Nothing is known."""
        assert self.states() == {}

    def states(self) -> dict[int, Known]:
        scopes = [number for (number,) in self.connection.execute("SELECT id FROM scopes")]
        return history.known_of(scopes, self.connection)

    @invariant()
    def the_state_is_what_was_told(self) -> None:
        """Of every scope: its configuration, its revision, and the time that it rests on."""
        states = self.states()
        for number, tenant, kind, scope_id in self.connection.execute("SELECT * FROM scopes"):
            expected = self.expected[Scope(tenant_key=tenant, scope_type=kind, scope_id=scope_id)]
            known = states[number]
            assert (known.revision, known.created_ms) == (expected.revision, expected.created_ms)
            assert canonical(json.loads(known.config)) == canonical(expected.config)

    @invariant()
    def the_changes_add_up(self) -> None:
        """Applied one after the other to the first configuration they give the state; revisions have no gap."""
        for number, known in self.states().items():
            rows = self.connection.execute(
                "SELECT event_id, revision, changes, config FROM history WHERE scope = ? ORDER BY seq",
                (number,),
            ).fetchall()
            taken = [
                (json.loads(changes or "[]"), config) for _, revision, changes, config in rows if revision
            ]
            assert [revision for _, revision, _, _ in rows if revision] == [*range(1, known.revision + 1)]
            reached = json.loads(taken[0][1])
            for changes, _ in taken[1:]:
                reached = apply(changes, reached)
            assert canonical(reached) == canonical(json.loads(known.config))

    @invariant()
    def bodies_say_what_the_history_says(self) -> None:
        """Sealed in the body are the same revision and changes; a late one says so, and only a late one."""
        rows = self.connection.execute(
            "SELECT e.tenant_key, e.event_id, e.body, h.revision, h.changes, h.summary"
            " FROM events AS e JOIN history AS h ON h.seq = e.seq"
        ).fetchall()
        assert len(rows) == sum(event.scope is not None for event in self.stored.values())
        for tenant, event_id, body, revision, changes, summary in rows:
            data = json.loads(body)["data"]
            assert (data.get("revision"), data["summary"]) == (revision, summary)
            assert data["changes"] == (None if changes is None else json.loads(changes))
            assert data.get("superseded", False) is ((tenant, event_id) in self.late)


@pytest.mark.slow
def test_whatever_comes_the_changes_lead_to_the_state() -> None:
    """Pushes, repeats, late and unreadable ones, kills and upgrades: states, history and bodies fit each other."""
    run_state_machine_as_test(
        Events, settings=settings(max_examples=40, stateful_step_count=12, deadline=None, derandomize=True)
    )


@pytest.mark.long
def test_whatever_comes_for_minutes() -> None:
    """The same with other dice each time, and longer lives."""
    run_state_machine_as_test(
        Events, settings=settings(max_examples=600, stateful_step_count=40, deadline=None)
    )


# -- the upgrade of a store that an older version has filled -----------------------------------------------------------------


def older_store(path: Path, events: list[IncomingEvent]) -> None:
    """A store as it was before there was a history: bodies that say nothing of what changed."""
    with closing(schema.open_writer(path)) as connection:
        connection.execute("BEGIN")
        for start in range(0, len(events), 2_000):
            Appending((), {}, as_it_is).all(events[start : start + 2_000], connection)
        connection.execute("COMMIT")
        scripts = schema.migrations()
        (first,) = [at for at, script in enumerate(scripts) if "CREATE TABLE unbuilt" in script]
        for table in re.findall(r"CREATE TABLE (\w+)", "".join(scripts[first:])):
            connection.execute(f"DROP TABLE {table}")
        connection.execute(f"PRAGMA user_version = {first}")


def many(count: int, rooms: int) -> list[IncomingEvent]:
    """Changes of some rooms, every seventh of them late."""
    return [
        push(
            f"e{number}",
            Scope(tenant_key="t", scope_type="room", scope_id=f"omm_{number % rooms}"),
            {
                "time_config": {
                    "time_switch": True,
                    "max_duration": number % 11,
                    "days_in_advance": number % 30,
                },
                "approve_config": {
                    "approvers": [{"open_id": f"ou_{number % 5}"}, {"open_id": f"ou_{number % 3}"}]
                },
            },
            BEGAN_MS + number - (number % 7 == 3) * 5 * rooms,
        )
        for number in range(count)
    ]


def computed(events: list[IncomingEvent]) -> dict[str, Any]:
    """The states and histories by a fresh computation, each scope's summary, changes and revision in order."""
    known: dict[Scope | None, Known] = {}
    told: dict[str, Any] = {}
    for event in events:
        completed = complete(event, known.get(event.scope))
        assert completed is not None
        if completed.known is not None:
            known[event.scope] = completed.known
        told[event.event_id] = (completed.revision, completed.changes, completed.summary, completed.config)
    return told


async def upgraded(path: Path) -> float:
    """Open it, and wait until the daemon's store has rebuilt the history; how long that took."""
    import time  # noqa: PLC0415  # for the figure alone

    began = time.monotonic()
    store = SqliteStore(path, complete=complete)
    await store.open([])
    with SqliteReader(path) as reader:
        await until(lambda: not reader.is_rebuilding(), timeout_s=300)
    took = time.monotonic() - began
    await store.close()
    return took


def rebuilt(path: Path) -> dict[str, Any]:
    with closing(sqlite3.connect(path)) as connection:
        return {
            event_id: rest
            for event_id, *rest in connection.execute(
                "SELECT event_id, revision, changes, summary, config FROM history ORDER BY seq"
            )
        }


@pytest.mark.parametrize(
    ("count", "rooms"), [(1_500, 40), pytest.param(100_000, 2_000, marks=pytest.mark.long)]
)
async def test_the_history_of_an_older_store_is_rebuilt(tmp_path: Path, count: int, rooms: int) -> None:
    """Every event of it has what a fresh computation says; the bodies stay as they were sent."""
    path, events = tmp_path / "events.db", many(count, rooms)
    older_store(path, events)
    took = await upgraded(path)
    print(f"{count} events of {rooms} rooms rebuilt in {took:.1f} s")
    assert rebuilt(path) == {key: list(value) for key, value in computed(events).items()}
    with closing(sqlite3.connect(path)) as connection:
        bodies = [body for (body,) in connection.execute("SELECT body FROM events ORDER BY seq")]
    assert bodies == [event.body for event in events]


def test_an_upgrade_that_is_broken_off_goes_on(tmp_path: Path) -> None:
    """Killed after each chunk, or in the middle of one, nothing is missed and nothing counted twice."""
    path, events = tmp_path / "events.db", many(1_000, 3)
    older_store(path, events)
    done = False
    while not done:
        with closing(schema.open_writer(path)) as connection:
            connection.execute("BEGIN")
            rebuilding.some(complete, connection)  # and killed before the commit
        with closing(schema.open_writer(path)) as connection:
            done = rebuilding.some(complete, connection)
    assert rebuilt(path) == {key: list(value) for key, value in computed(events).items()}


@pytest.mark.parametrize("together", [True, False])
def test_a_push_of_a_scope_that_is_not_rebuilt_yet_rebuilds_it(tmp_path: Path, *, together: bool) -> None:
    """It is compared with what was stored last of its scope, and others are left for later."""
    path, events = tmp_path / "events.db", many(900, 2)
    older_store(path, events)
    new = [
        push("new", events[0].scope or SCOPES[0], {"time_config": {"max_duration": 99}}, BEGAN_MS + 10_000)
    ]
    if together:
        new.append(push("newer", SCOPES[0], {}, None))
    with closing(schema.open_writer(path)) as connection:
        connection.execute("BEGIN")
        appending = Appending((), {}, complete, unbuilt=True)
        projecting.project(appending, new, None, connection)
        connection.execute("COMMIT")
        assert rebuilding.is_left(connection)
        while not rebuilding.some(complete, connection):
            pass
    expected = computed([*events, *new])
    assert rebuilt(path) == {key: list(value) for key, value in expected.items()}
    assert expected["new"][0] > 300


def test_an_old_event_that_cannot_be_compared_stops_no_other(tmp_path: Path) -> None:
    """It is left out, and its scope goes on from what was known before it."""
    path, events = tmp_path / "events.db", many(20, 1)
    events[5] = msgspec.structs.replace(events[5], body=b"not JSON")
    older_store(path, events)
    with closing(schema.open_writer(path)) as connection:
        assert rebuilding.some(complete, connection)
    del events[5]
    assert rebuilt(path) == {key: list(value) for key, value in computed(events).items()}
