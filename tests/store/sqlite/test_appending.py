"""Many events in one go are stored exactly as one after the other would be."""

from __future__ import annotations

import sqlite3
import subprocess
import sys
from contextlib import closing
from typing import TYPE_CHECKING, Any

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings, strategies as st

from reserve_listener.intake.complete import completing
from reserve_listener.model import IncomingEvent, Scope, SinkFilter, Verdict
from reserve_listener.simulator import patience
from reserve_listener.store.shared import appending
from reserve_listener.store.shared.appending import Appended, Appending
from reserve_listener.store.shared.store import as_it_is
from reserve_listener.store.sqlite import schema
from tests.helpers import small_event

if TYPE_CHECKING:
    from pathlib import Path

    from reserve_listener.model import Completed, Known
    from reserve_listener.store.shared.appending import SinkFilters

SINKS: SinkFilters = (
    (1, SinkFilter()),
    (2, SinkFilter(scope_ids=frozenset({"omm_1", "omm_\u00fc"}))),
    (3, SinkFilter(tenants=frozenset({"t2"}))),
)
EVENT_ROWS = """
SELECT e.seq, e.tenant_key, e.event_id, s.tenant_key, s.scope_type, s.scope_id, e.created_ms, e.received_ms,
  e.raw, e.body, e.problem
FROM events AS e LEFT JOIN scopes AS s ON s.id = e.scope ORDER BY e.seq
"""
DELIVERY_ROWS = """
SELECT e.event_id, e.tenant_key, d.sink, d.scope = e.scope, d.state, d.attempts, d.due_ms, d.held_ms
FROM deliveries AS d JOIN events AS e ON e.seq = d.seq ORDER BY d.seq, d.sink
"""

HISTORY_ROWS = """
SELECT e.event_id, e.tenant_key, h.scope = e.scope, h.event_id, h.created_ms, h.received_ms, h.revision, h.changes,
  h.config, h.summary
FROM history AS h JOIN events AS e ON e.seq = h.seq ORDER BY h.seq
"""
STATE_ROWS = """
SELECT s.tenant_key, s.scope_id, t.revision, t.created_ms, t.received_ms, t.config
FROM states AS t JOIN scopes AS s ON s.id = t.scope ORDER BY s.tenant_key, s.scope_id
"""
BODY = b'{"data":{"scope_id":"s","time_config":{"max_duration":%d}}}'

TEXTS = st.sampled_from(
    ["omm_1", "omm_\u00fc", 'a "quoted" \\ text', "new\nline", "\U0001f600", "nul\0inside", "1"]
)
EVENTS = st.builds(
    lambda tenant, number, scope, created, raw, body, readable: IncomingEvent(
        tenant_key=tenant,
        event_id=number,
        raw=raw,
        received_ms=1_790_000_000_000,
        created_ms=created,
        scope=Scope(tenant_key=tenant, scope_type="room", scope_id=scope) if readable else None,
        body=body if readable else None,
        problem=None if readable else "why not",
    ),
    st.sampled_from(["t1", "t2", ""]),
    st.one_of(st.sampled_from(["e1", "e2", "e3"]), TEXTS),
    TEXTS,
    st.one_of(st.none(), st.integers(0, 10**14)),
    st.binary(max_size=20),
    st.integers(1, 3).map(lambda hours: BODY % hours),
    st.sampled_from([True] * 9 + [False]),
)


def stored(path: Path, batches: list[list[IncomingEvent]], *, together: bool) -> tuple[list[Verdict], Any]:
    appended: list[Appended] = []
    scopes: dict[Scope, int] = {}
    with closing(schema.open_writer(path)) as connection:
        connection.executemany("INSERT INTO sinks (name) VALUES (?)", [("a",), ("b",), ("c",)])
        for batch in batches:
            appending = Appending(SINKS, scopes, completing("en"))
            connection.execute("BEGIN")
            if together:
                some = appending.all(batch, connection)
            else:
                some = [appending.one(event, connection) for event in batch]
            connection.execute("COMMIT")
            scopes |= {one.event.scope: one.scope for one in some if one.event.scope and one.scope}
            appended += some
        check_told(appended, connection)
        events = [row[1:] for row in connection.execute(EVENT_ROWS)]  # numbers may have gaps
        rest = [connection.execute(rows).fetchall() for rows in (DELIVERY_ROWS, HISTORY_ROWS, STATE_ROWS)]
        return [one.verdict for one in appended], (events, *rest)


def check_told(appended: list[Appended], connection: sqlite3.Connection) -> None:
    """What is said of the numbers is what is in the file: workers get their deliveries by it."""
    told = {(one.seq, sink, one.scope) for one in appended for sink in one.takers}
    assert told == set(connection.execute("SELECT seq, sink, scope FROM deliveries"))
    stored = [one for one in appended if one.verdict in (Verdict.STORED, Verdict.SUPERSEDED)]
    rows = connection.execute("SELECT seq, event_id, body FROM events WHERE scope IS NOT NULL ORDER BY seq")
    assert rows.fetchall() == [(one.seq, one.event.event_id, one.event.body) for one in stored]


@settings(deadline=None, max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(batches=st.lists(st.lists(EVENTS, min_size=1, max_size=12), min_size=1, max_size=3))
def test_together_as_one_by_one(batches: list[list[IncomingEvent]], tmp_path_factory: Any) -> None:
    """Whatever is in a batch (duplicates, unreadable ones, odd texts, routes), verdicts, rows and order are the same."""
    folder = tmp_path_factory.mktemp("stores")
    assert stored(folder / "a.db", batches, together=True) == stored(folder / "b.db", batches, together=False)


def test_a_batch_that_fails_leaves_nothing(tmp_path: Path) -> None:
    """An error in one go reaches the caller, whose transaction takes all of it back."""
    event = IncomingEvent(
        tenant_key="t",
        event_id="e",
        raw=b"{}",
        received_ms=1,
        scope=Scope(tenant_key="t", scope_type="room", scope_id="s"),
        body=b"{}",
    )
    with closing(schema.open_writer(tmp_path / "a.db")) as connection:
        connection.execute("BEGIN")
        with pytest.raises(sqlite3.IntegrityError):  # no such sink
            Appending(((99, SinkFilter()),), {}, as_it_is).all([event, event], connection)
        connection.execute("ROLLBACK")
        assert connection.execute("SELECT count(*) FROM events").fetchone() == (0,)


def test_more_than_one_statement_takes(tmp_path: Path) -> None:
    """A thousand events and one, some of them twice, are all there, each once, with their deliveries."""
    events = [
        small_event(f"e{number % 1_001}", f"omm_{number % 7}", body=BODY % (number % 5))
        for number in range(1_100)
    ]
    verdicts, (rows, deliveries, history, states) = stored(tmp_path / "a.db", [events], together=True)
    assert verdicts == [Verdict.STORED] * 1_001 + [Verdict.DUPLICATE] * 99
    assert [row[1] for row in rows] == [f"e{number}" for number in range(1_001)]
    assert len(deliveries) == 1_001 + sum(number % 7 == 1 for number in range(1_001))
    assert len(history) == 1_001
    assert [row[2] for row in states] == [143] * 7


def test_a_known_scope_is_not_asked_for(tmp_path: Path) -> None:
    """A number that is known is used as it is."""
    with closing(schema.open_writer(tmp_path / "a.db")) as connection:
        connection.execute("INSERT INTO sinks (name) VALUES ('a')")
        first = Appending(SINKS[:1], {}, as_it_is).all([small_event("e1"), small_event("e2")], connection)
        scope = first[0].event.scope
        assert scope is not None
        asked: list[str] = []
        connection.set_trace_callback(asked.append)
        Appending(SINKS[:1], {scope: first[0].scope}, as_it_is).all(
            [small_event("e3"), small_event("e4")], connection
        )
        assert not [statement for statement in asked if "scopes" in statement]


def test_the_body_is_sealed_once_the_event_is_known_to_be_new(tmp_path: Path) -> None:
    """What `complete` makes of an event is what is stored and delivered; of a duplicate it hears nothing."""
    heard: list[tuple[str, int]] = []
    seal = completing("en")

    def complete(event: IncomingEvent, previous: Known | None) -> Completed | None:
        heard.append((event.event_id, previous.revision if previous else 0))
        return seal(event, previous)

    with closing(schema.open_writer(tmp_path / "a.db")) as connection:
        connection.execute("INSERT INTO sinks (name) VALUES ('a')")
        appending = Appending(SINKS[:1], {}, complete)
        some = [
            small_event(event_id, body=BODY % hours) for event_id, hours in (("e1", 1), ("e1", 1), ("e2", 2))
        ]
        appended = appending.all(some, connection)
        appended.append(appending.one(small_event("e3", body=BODY % 2), connection))
        appending.one(small_event("e2", body=BODY % 2), connection)
        assert heard == [("e1", 0), ("e2", 1), ("e3", 2)]
        bodies = [body for (body,) in connection.execute("SELECT body FROM events")]
    assert [one.event.body for one in appended if one.takers] == bodies
    assert [msgspec.json.decode(body)["data"]["summary"] for body in bodies] == [
        "limits not known",
        "at most 1 h → 2 h per booking",
        "no change",
    ]


def test_a_sink_gets_what_changes_in_lets_through(tmp_path: Path) -> None:
    """First sights and changes of what it names; nothing that changes something else, nothing, or comes late."""
    told = [("e1", 5, 1), ("e2", 6, 2), ("e3", 7, 2), ("e4", 4, 3), ("e5", 8, 4)]
    events = [
        small_event(event_id, body=BODY % hours, created_ms=created) for event_id, created, hours in told
    ]
    takers = {}
    specs = (
        (1, SinkFilter(changes_in=("time_config",))),
        (2, SinkFilter(changes_in=("approve_config", "time_config.max"))),
        (3, SinkFilter(changes_in=("*",), scope_type="level")),
        (4, SinkFilter()),
    )
    with closing(schema.open_writer(tmp_path / "a.db")) as connection:
        connection.executemany("INSERT INTO sinks (name) VALUES (?)", [("a",), ("b",), ("c",), ("d",)])
        for one in Appending(specs, {}, completing("en")).all(events, connection):
            takers[one.event.event_id] = one.takers
    assert takers == {"e1": (1, 2, 4), "e2": (1, 4), "e3": (4,), "e4": (4,), "e5": (1, 4)}


MEMORY = """
import resource, sys
from pathlib import Path
from reserve_listener.model import IncomingEvent, SinkFilter, Scope
from reserve_listener.store.sqlite import schema
from reserve_listener.store.shared.appending import Appending
from reserve_listener.store.shared.store import as_it_is

def peak() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024

connection = schema.open_writer(Path(sys.argv[1]))
scope = Scope(tenant_key="t", scope_type="room", scope_id="omm_1")
half = 8 * 1024 * 1024
events = [
    IncomingEvent(tenant_key="t", event_id=f"e{n}", raw=b"r" * half, received_ms=1, created_ms=1, scope=scope, body=b"b" * half)
    for n in range(8)
]
before = peak()
connection.execute("BEGIN IMMEDIATE")
appended = Appending((), {}, as_it_is).all(events, connection)
connection.execute("COMMIT")
print(len(appended), peak() - before)
"""


def test_large_events_are_not_in_memory_three_times_over(tmp_path: Path) -> None:
    """128 MiB in one commit take a few portions more than they hold themselves."""
    command = [sys.executable, "-c", MEMORY, str(tmp_path / "events.db")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=patience(60), check=True)
    count, more_mib = map(int, done.stdout.split())
    assert count == 8
    assert more_mib < 4 * appending.PORTION_BYTES // (1024 * 1024)


def test_portions_keep_the_order_and_lose_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each as large as allowed, an event that is larger by itself."""
    monkeypatch.setattr(appending, "PORTION_BYTES", 100)
    events = [small_event(f"e{n}", size=size) for n, size in enumerate([30, 30, 30, 500, 10, 98, 1])]
    portions = [list(some) for some in appending._portions(events, range(7))]
    assert portions == [[0, 1, 2], [3], [4], [5], [6]]
