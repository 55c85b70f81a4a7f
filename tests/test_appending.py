"""Many events in one go are stored exactly as one after the other would be."""

from __future__ import annotations

import sqlite3
import subprocess
import sys
from contextlib import closing
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import HealthCheck, given, settings, strategies as st

from reserve_listener.model import IncomingEvent, Route, Scope, Verdict
from reserve_listener.store import appending, schema
from tests.helpers import patience, small_event

if TYPE_CHECKING:
    from pathlib import Path

    from reserve_listener.store.appending import Outlets

SINKS: Outlets = (
    (1, Route()),
    (2, Route(scope_ids=frozenset({"omm_1", "omm_\u00fc"}))),
    (3, Route(tenants=frozenset({"t2"}))),
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
    st.binary(max_size=20),
    st.sampled_from([True] * 9 + [False]),
)


def stored(path: Path, batches: list[list[IncomingEvent]], *, together: bool) -> tuple[list[Verdict], Any]:
    verdicts: list[Verdict] = []
    with closing(schema.open_writer(path)) as connection:
        connection.executemany("INSERT INTO sinks (name) VALUES (?)", [("a",), ("b",), ("c",)])
        for batch in batches:
            connection.execute("BEGIN")
            if together:
                verdicts += appending.append_all([(event, SINKS) for event in batch], connection)
            else:
                verdicts += [appending.append(event, SINKS, connection) for event in batch]
            connection.execute("COMMIT")
        events = [row[1:] for row in connection.execute(EVENT_ROWS)]  # numbers may have gaps
        return verdicts, (events, connection.execute(DELIVERY_ROWS).fetchall())


@settings(deadline=None, max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(batches=st.lists(st.lists(EVENTS, min_size=1, max_size=6), min_size=1, max_size=3))
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
            appending.append_all([(event, ((99, Route()),))], connection)
        connection.execute("ROLLBACK")
        assert connection.execute("SELECT count(*) FROM events").fetchone() == (0,)


MEMORY = """
import resource, sys
from pathlib import Path
from reserve_listener.model import IncomingEvent, Route, Scope
from reserve_listener.store import appending, schema

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
verdicts = appending.append_all([(event, ()) for event in events], connection)
connection.execute("COMMIT")
print(len(verdicts), peak() - before)
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
    items = [(small_event(f"e{n}", size=size), SINKS) for n, size in enumerate([30, 30, 30, 500, 10, 98, 1])]
    portions = [[event.event_id for event, _ in some] for some in appending._portions(items)]
    assert portions == [["e0", "e1", "e2"], ["e3"], ["e4"], ["e5"], ["e6"]]
