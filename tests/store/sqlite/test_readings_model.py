"""Limits are asked for while pushes come, late or not at all, and the process dies: what is known ends up as it is."""

from __future__ import annotations

import copy
import json
import tempfile
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import settings, strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from reserve_listener.intake import normalize
from reserve_listener.intake.changes import apply
from reserve_listener.intake.complete import completing
from reserve_listener.intake.reconcile import comparing, reading_of
from reserve_listener.lark.api.answers import Limits
from reserve_listener.model import Finding, Found, IncomingEvent, Known, Reading
from reserve_listener.simulator import sample_event
from reserve_listener.store.shared import history, projecting, readings
from reserve_listener.store.shared.appending import Appending
from reserve_listener.store.sqlite import schema
from tests.intake.test_changes import canonical

BEGAN_MS = 1_790_000_000_000
APP, TENANT = "cli_the_app", "tenant"
ROOMS = ["omm_a", "omm_b"]
PEOPLE = ["ou_1", "ou_2", "ou_3"]
complete, compare = completing("en"), comparing("en")

Config = dict[str, Any]


def configured(hours: int, people: list[str], *, free: bool) -> Config:
    """Limits as the platform holds them, and pushes them."""
    approvers = [{"user_id": {"union_id": f"on_{one}", "open_id": one}} for one in people]
    return {
        "approve_config": {"approval_switch": int(bool(people)), "approvers": approvers},
        "time_config": {"time_switch": 1, "max_duration": hours, "opening_hour": "28800"},
        "reserve_scope_config": {"allow_all_users": int(free), "allow_depts": [{"department_id": "od-1"}]},
    }


CONFIGS = st.builds(
    configured, st.integers(1, 3), st.lists(st.sampled_from(PEOPLE), unique=True), free=st.booleans()
)
LEFT_OUT = st.sets(
    st.sampled_from(["approve_config", "time_config", "max_duration", "approvers", "allow_depts"])
)
START = configured(8, [], free=True)


def as_answered(config: Config, left_out: set[str]) -> Config:
    """As the API's client hands it on, without these keys: people by one id, an instruction that is no limit."""
    told = copy.deepcopy({name: section for name, section in config.items() if name not in left_out})
    for section in told.values():
        for key in left_out & section.keys():
            del section[key]
        for person in section.get("approvers", ()):
            del person["user_id"]["union_id"]
    if "time_config" in told:
        told["time_config"]["if_cover_child_scope"] = True
    return told


def known_as(config: Config) -> Any:
    """What the state has to be when these are the limits."""
    plain = normalize.normalize(copy.deepcopy(config), lambda *_: None)
    return canonical(plain)


class Races(RuleBasedStateMachine):
    """A platform that changes limits, pushes and answers; and a store that hears of it in any order."""

    def __init__(self) -> None:
        super().__init__()
        self.folder = tempfile.TemporaryDirectory(prefix="reserve-listener-")
        self.path = Path(self.folder.name) / "events.db"
        self.connection = schema.open_writer(self.path)
        self.now_ms = BEGAN_MS
        self.limits = dict.fromkeys(ROOMS, START)
        self.pushes: list[IncomingEvent] = []
        self.in_hand: list[Reading] = []
        self.missed_ms = dict.fromkeys(ROOMS, 0)
        """By room when a change was made whose push is lost, or an answer was given that was not whole."""
        self.covered_ms = dict.fromkeys(ROOMS, 0)
        """And when an answer was given that has all until then."""
        self.attempts = dict.fromkeys(ROOMS, 0)
        self.baselines: dict[str, Any] = {}

    def teardown(self) -> None:
        try:
            self.all_is_found()
        finally:
            self.connection.close()
            self.folder.cleanup()

    # -- the platform -----------------------------------------------------------------------------------------------------

    @rule(room=st.sampled_from(ROOMS), config=CONFIGS)
    def change(self, room: str, config: Config) -> None:
        """A person changes a room's limits; the push of it is on its way."""
        self.now_ms += 1
        self.limits[room] = config
        envelope = sample_event(
            event_id=f"e{self.now_ms}",
            scope_id=room,
            tenant_key=TENANT,
            app_id=APP,
            create_time_ms=self.now_ms,
            **config,
        )
        self.pushes.append(
            normalize.incoming(msgspec.json.encode(envelope), envelope, received_ms=self.now_ms)
        )

    @rule(
        room=st.sampled_from(ROOMS),
        left_out=st.just(set()) | LEFT_OUT,
        early=st.integers(0, 3),
        late=st.integers(0, 3),
    )
    def ask(self, room: str, left_out: set[str], early: int, late: int) -> None:
        """The API answers what is so now; how it stands to the pushes of these days is known only roughly."""
        self.now_ms += 1
        self.in_hand.append(self.read(room, left_out, early, late))

    def read(self, room: str, left_out: set[str], early: int, late: int) -> Reading:
        if left_out:
            self.missed_ms[room] = self.now_ms
        limits = Limits(
            scope_type="room",
            scope_id=room,
            config=as_answered(self.limits[room], left_out),
            as_of_ms=self.now_ms - early,
            until_ms=self.now_ms + late,
        )
        return reading_of(limits, app_id=APP, received_ms=self.now_ms)

    # -- what the store hears ---------------------------------------------------------------------------------------------

    @precondition(lambda self: self.pushes)
    @rule(data=st.data(), how=st.sampled_from(["first", "any", "all", "lost"]))
    def push(self, data: st.DataObject, how: str) -> None:
        """Pushes arrive: in their order, out of it, several in one transaction; or one never does."""
        place = data.draw(st.integers(0, len(self.pushes) - 1)) if how in ("any", "lost") else 0
        if how == "lost":
            lost = self.pushes.pop(place)
            assert lost.scope is not None
            room = lost.scope.scope_id
            self.missed_ms[room] = max(self.missed_ms[room], lost.created_ms or 0)
        elif how == "all":
            self.take(self.pushes)
            self.pushes = []
        else:
            self.take([self.pushes.pop(place)])

    def take(self, events: list[IncomingEvent]) -> None:
        self.connection.execute("BEGIN")
        projecting.project(Appending((), {}, complete), events, None, self.connection)
        self.connection.execute("COMMIT")

    @precondition(lambda self: self.in_hand)
    @rule(killed=st.booleans(), dry_run=st.booleans())
    def compared(self, *, killed: bool, dry_run: bool) -> None:
        """The oldest answer is compared; or the process dies just before the commit, and the answer with it."""
        reading = self.in_hand.pop(0)
        before = self.dump()
        if dry_run:
            self.comparing(reading).try_out(Appending((), {}, complete), self.connection)
            assert self.dump() == before
        if not killed:
            self.comes_to(reading)
            return
        self.connection.execute("BEGIN")
        self.comparing(reading).take(Appending((), {}, complete), self.connection)
        self.connection.close()
        self.connection = schema.open_writer(self.path)
        assert self.dump() == before
        if self.in_hand:
            self.in_hand.pop()

    def comparing(self, reading: Reading) -> readings.Comparing:
        return readings.Comparing(reading, compare, number=1, now_ms=self.now_ms)

    def comes_to(self, reading: Reading) -> Found:
        known = self.known(reading.scope_id)
        self.connection.execute("BEGIN")
        found = self.comparing(reading).take(Appending((), {}, complete), self.connection)
        self.connection.execute("COMMIT")
        assert (known is None) == (found.finding is Finding.BASELINE)
        assert (found.entry is not None) == (found.finding is Finding.CHANGED)
        if known is None:
            self.baselines[reading.scope_id] = reading.told
        if found.entry is not None:
            changed = [change["path"].split(".") for change in json.loads(found.entry.changes or "")]
            assert all(key in reading.told[section] for section, key in changed), (
                "what was not told did not change"
            )
        self.note(reading.scope_id, reading.received_ms, found.finding)
        return found

    def note(self, room: str, read_ms: int, finding: Finding) -> None:
        """What was read, or will be read again, is known in the end."""
        self.attempts[room] = self.attempts[room] + 1 if finding is Finding.OUTDATED else 0
        if self.attempts[room] <= readings.ATTEMPTS - 1:
            self.covered_ms[room] = max(self.covered_ms[room], read_ms)

    def is_certain(self, room: str) -> bool:
        return self.missed_ms[room] < self.covered_ms[room] or not self.missed_ms[room]

    # -- what has to be true ----------------------------------------------------------------------------------------------

    @initialize()
    def begin(self) -> None:
        """The app is known, and nothing else."""
        readings.begin_pass(APP, self.now_ms, self.connection)

    def dump(self) -> list[str]:
        return list(self.connection.iterdump())

    def known(self, room: str) -> Known | None:
        found = self.connection.execute("SELECT id FROM scopes WHERE scope_id = ?", (room,)).fetchall()
        assert len(found) <= 1, "the tenant is taken over, not added"
        return (
            history.known_of([number for (number,) in found], self.connection).get(found[0][0])
            if found
            else None
        )

    @invariant()
    def the_changes_add_up(self) -> None:
        """Applied to the baseline, or to what was heard first, they give the state; revisions have no gap."""
        for room in ROOMS:
            known = self.known(room)
            rows = self.connection.execute(
                "SELECT h.revision, h.changes, h.config, h.origin, e.body FROM history AS h"
                " JOIN scopes AS s ON s.id = h.scope JOIN events AS e ON e.seq = h.seq"
                " WHERE s.scope_id = ? AND h.revision IS NOT NULL ORDER BY h.seq",
                (room,),
            ).fetchall()
            if known is None:
                assert rows == []
                continue
            assert [row[0] for row in rows] == [*range(1, known.revision + 1)]
            reached: Any = self.baselines.get(room)
            for _, changes, config, origin, body in rows:
                assert json.loads(body)["data"].get("origin") == origin
                assert not (origin and changes == "[]"), "what is the same is no event"
                reached = json.loads(config) if reached is None else apply(json.loads(changes), reached)
            assert canonical(copy.deepcopy(reached)) == canonical(json.loads(known.config))

    def all_is_found(self) -> None:
        """At last all pushes have come and doubts are cleared: what is known is so; a pass finds what was missed, once."""
        self.now_ms += 10
        self.take(self.pushes)
        for reading in self.in_hand:
            self.comes_to(reading)
        for _, room in readings.in_doubt(APP, 10, self.connection):
            found = self.comes_to(self.read(room, set(), 0, 0))
            assert found.finding in (Finding.CHANGED, Finding.SAME)
        for room in ROOMS:
            known = self.known(room)
            if known is not None and self.is_certain(room):
                assert canonical(json.loads(known.config)) == known_as(self.limits[room])
        for expected in ({Finding.CHANGED, Finding.SAME, Finding.BASELINE}, {Finding.SAME}):
            self.now_ms += 10
            for room in ROOMS:
                assert self.comes_to(self.read(room, set(), 0, 0)).finding in expected
                known = self.known(room)
                assert known is not None
                assert canonical(json.loads(known.config)) == known_as(self.limits[room])
        self.the_changes_add_up()


@pytest.mark.slow
def test_whatever_the_order_what_is_known_is_so_in_the_end() -> None:
    """Answers between pushes, late and lost ones, answers that lack keys, kills: nothing is missed, nothing told twice."""
    run_state_machine_as_test(
        Races, settings=settings(max_examples=60, stateful_step_count=20, deadline=None, derandomize=True)
    )


@pytest.mark.long
def test_whatever_the_order_for_minutes() -> None:
    """The same with other dice each time, and longer lives."""
    run_state_machine_as_test(
        Races, settings=settings(max_examples=800, stateful_step_count=40, deadline=None)
    )
