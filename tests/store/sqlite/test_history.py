"""A store that an older version has filled: its history is made of its events, and meanwhile nothing waits for that."""

from __future__ import annotations

import re
import sqlite3
from contextlib import closing
from typing import TYPE_CHECKING, Any

import msgspec
import pytest

from reserve_listener.model import IncomingEvent, Known, Scope
from reserve_listener.store.shared import projecting, rebuilding
from reserve_listener.store.shared.appending import Appending
from reserve_listener.store.shared.store import as_it_is
from reserve_listener.store.sqlite import schema
from reserve_listener.store.sqlite.reader import SqliteReader
from reserve_listener.store.sqlite.store import SqliteStore
from tests.helpers import until
from tests.store.test_history import BEGAN_MS, SCOPES, complete, push

if TYPE_CHECKING:
    from pathlib import Path


def older_store(path: Path, events: list[IncomingEvent]) -> None:
    """A store as it was before there was a history: bodies that say nothing of what changed."""
    with closing(schema.open_writer(path)) as connection:
        connection.execute("BEGIN")
        for start in range(0, len(events), 2_000):
            Appending((), {}, as_it_is).all(events[start : start + 2_000], connection)
        connection.execute("COMMIT")
        scripts = schema.migrations()
        (first,) = [at for at, script in enumerate(scripts) if "CREATE TABLE unbuilt" in script]
        dropped = re.findall(r"CREATE TABLE (\w+)", "".join(scripts[first:]))
        for table in dropped:
            connection.execute(f"DROP TABLE {table}")
        for table, column in re.findall(r"ALTER TABLE (\w+) ADD COLUMN (\w+)", "".join(scripts[first:])):
            if table not in dropped:
                connection.execute(f"ALTER TABLE {table} DROP COLUMN {column}")
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
