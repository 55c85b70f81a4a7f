"""Whoever follows what is stored misses nothing, although several append at once and one of them commits late."""

from __future__ import annotations

import asyncio
import contextlib
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

import psycopg
import pytest

from reserve_listener.cli import events
from reserve_listener.errors import StoreError
from reserve_listener.intake.complete import completing
from reserve_listener.model import ChangeQuery, EventQuery, Outcome, Verdict
from reserve_listener.simulator import patience
from reserve_listener.store import open_reader, open_store
from reserve_listener.store.postgres import appending, requests, schema
from reserve_listener.store.postgres.connection import SKIPPED
from reserve_listener.store.postgres.database_clock import NOW
from reserve_listener.store.postgres.store import PostgresStore
from reserve_listener.store.shared import claiming
from tests.backends import Held, OnPostgres
from tests.helpers import NOW_MS, append, event, until

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from reserve_listener.model import IncomingEvent
    from reserve_listener.protocols.store import Store, StoreReader

T = TypeVar("T")


class Followers:
    """One of each kind, with where it has come to."""

    def __init__(self, store: Store, reader: StoreReader) -> None:
        self._store = store
        self._reader = reader
        self._claimed_to: int | None = None
        self._tailed_to = self._changed_to = 0
        self.found: dict[str, list[str]] = {"a claim": [], "events tail": [], "the stream of changes": []}
        self.found |= {"the list of events": [], "the list of changes": []}

    async def look(self) -> None:
        """Take what is new."""
        claimed = await self._store.claim(
            "a", limit=99, per_scope=99, now_ms=NOW_MS, after_seq=self._claimed_to, skipping=()
        )
        self._claimed_to = claimed.seen_seq
        self.found["a claim"] += [one.event_id for one in claimed.deliveries]
        for event_ in self._reader.events_after(self._tailed_to, EventQuery(), limit=99):
            self._tailed_to = event_.seq
            self.found["events tail"].append(event_.event_id)
        for change in self._reader.changes_after(self._changed_to, limit=99):
            self._changed_to = change.seq
            self.found["the stream of changes"].append(change.event_id)
        self.found["the list of events"] = [one.event_id for one in self._reader.events(limit=99)][::-1]
        changes = self._reader.changes(ChangeQuery(), limit=99)
        self.found["the list of changes"] = [one.event_id for one in changes][::-1]


def _appending(store: Store, one: IncomingEvent, hold: Callable[[Any], Any]) -> Awaitable[Any]:
    """It appends, and stands still before the commit."""
    assert isinstance(store, PostgresStore)
    inside = store

    def work(connection: Any) -> None:
        appending.append(inside.member.id, [appending.Batch(inside._appending(), [one])], connection)
        connection.sync()
        hold(connection)

    return inside._receiver.submit(work, writes=True)


def _waits_for_table(backend: OnPostgres) -> bool:
    return bool(backend.rows("SELECT 1 FROM pg_locks WHERE locktype = 'relation' AND NOT granted"))


def _waits(backend: OnPostgres) -> bool:
    return bool(backend.rows("SELECT 1 FROM pg_locks WHERE locktype = 'advisory' AND NOT granted"))


async def test_one_that_commits_late_is_missed_by_nobody(backend: OnPostgres) -> None:
    """The first has its number and stands still before its commit; the second comes, and everybody looks: both are found, in order."""
    stores = [await open_store(backend.url, ["a"], complete=completing("en")) for _ in range(2)]
    first, second = stores
    await append(first, event("e0", "omm_0"))
    held = await Held(partial(_appending, first, event("e1", "omm_1"))).begun()
    late = asyncio.ensure_future(append(second, event("e2", "omm_2")))
    await until(lambda: _waits(backend))
    with open_reader(backend.url) as reader:
        followers = Followers(first, reader)
        await followers.look()
        assert followers.found == {kind: ["e0"] for kind in followers.found}
        assert not late.done()
        await held.release()
        await late
        await followers.look()
        assert followers.found == {kind: ["e0", "e1", "e2"] for kind in followers.found}
    for store in stores:
        await store.close()


async def test_one_that_is_frozen_before_its_commit_is_not_waited_for(backend: OnPostgres) -> None:
    """The server ends its transaction after seconds: the others append, and what it had is stored by nobody until it comes again."""
    stores = [await open_store(backend.url, ["a"], complete=completing("en")) for _ in range(2)]
    first, second = stores
    failing: list[asyncio.Future[Any]] = []

    def ask(hold: Callable[[Any], Any]) -> Awaitable[Any]:
        failing.append(asyncio.ensure_future(_appending(first, event("e1"), hold)))
        return failing[0]

    held = await Held(ask).begun()
    assert await append(second, event("e2")) is Verdict.STORED
    held.let_go()
    with pytest.raises(StoreError):
        await failing[0]
    assert backend.rows("SELECT event_id FROM events") == [("e2",)]
    assert await append(first, event("e1")) is Verdict.STORED
    for store in stores:
        await store.close()


async def test_a_request_that_commits_late_has_the_lower_number(backend: OnPostgres) -> None:
    """A replica looks for what comes after the last request that it has seen, so the next one waits for it."""
    store = await open_store(backend.url, ["a"])
    insert = f"INSERT INTO requests (what, content, at_ms) VALUES ('reconnect', '', {NOW}) RETURNING id"
    with psycopg.connect(backend.url, options="-csearch_path=reserve_listener") as late:
        first = late.execute(insert.encode()).fetchone()
        with requests.asking(schema.target(backend.url)) as line:
            asked = asyncio.ensure_future(asyncio.to_thread(line.ask, "reconnect", b"{}", None))
            await until(lambda: _waits_for_table(backend))
            late.commit()
            second = await asked
            assert backend.rows("SELECT id FROM requests ORDER BY id") == [first, (second,)]
    await store.close()


def _fail_over(backend: OnPostgres) -> None:
    """To a standby that has not received the last two events of five, nor their rooms; all connections are lost."""
    for table in ("deliveries", "history", "events"):
        backend.rows(f"DELETE FROM {table} WHERE seq > 3")
    for table, column in (("states", "scope"), ("scopes", "id")):
        backend.rows(f"DELETE FROM {table} WHERE {column} > 3")
    backend.rows("SELECT setval('events_seq', 3), setval('scopes_id_seq', 3)")
    backend.rows(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
        " WHERE datname = current_database() AND pid <> pg_backend_pid()"
    )


async def _at_last(ask: Callable[[], Awaitable[T]]) -> T:
    """What comes of it once the connection for it is there again."""
    async with asyncio.timeout(patience(20)):
        while True:
            with contextlib.suppress(StoreError):
                return await ask()
            await asyncio.sleep(0.05)


async def test_after_a_failover_nobody_is_ahead_of_what_comes(backend: OnPostgres) -> None:
    """What comes is claimed behind the cursor, under its own room, and no attempt at a lost event settles it; workers look at all."""
    store = await open_store(backend.url, ["a"], complete=completing("en"))
    assert isinstance(store, PostgresStore)
    if store._beating is not None:
        store._beating.cancel()
    for number in range(1, 6):
        await append(store, event(f"e{number}", f"omm_{number}"))
    claim = partial(store.claim, "a", limit=99, per_scope=99, now_ms=NOW_MS, skipping=())
    before = await claim(after_seq=None)
    _fail_over(backend)
    for number in (7, 6, 5):
        await _at_last(partial(append, store, event(f"again{number}", f"omm_{number}")))
    claimed, found = before, list[str]()
    for _ in range(SKIPPED // claiming.WINDOW_SEQS + 1):
        claimed = await _at_last(partial(claim, after_seq=claimed.seen_seq))
        found += [one.event_id for one in claimed.deliveries]
    assert found == ["again7", "again6", "again5"]
    await store.settle("a", [Outcome(seq=seq, state="delivered", attempts=1) for seq in (4, 5)])
    assert backend.rows(
        "SELECT event_id, scope_id, state FROM deliveries AS d JOIN events USING (seq)"
        " JOIN scopes AS s ON s.id = d.scope WHERE event_id LIKE 'again_' ORDER BY seq"
    ) == [("again7", "omm_7", 0), ("again6", "omm_6", 0), ("again5", "omm_5", 0)]
    requeued: list[None] = []
    store.on_requeue = lambda: requeued.append(None)
    for _ in range(2):
        await _at_last(store._look_after)
    assert len(requeued) == 1
    await store.close()


@pytest.mark.parametrize(
    ("lost", "found"),
    [
        ("DELETE FROM sinks WHERE name = 'late'", ["between", "after"]),
        ("UPDATE sinks SET configured = false WHERE name = 'late'", ["between", "after"]),
        # Another replica, which has it from its start, was there first.
        ("UPDATE sinks SET id = DEFAULT WHERE name = 'late'", ["after"]),
    ],
)
async def test_a_sink_that_the_standby_does_not_know_is_there_again(
    backend: OnPostgres, lost: str, found: list[str]
) -> None:
    """One that a reload had just added: its deliveries are stored and made, and nobody takes it for removed."""
    store = await open_store(backend.url, ["a"])
    assert isinstance(store, PostgresStore)
    await store.set_sinks(["a", "late"])
    if store._beating is not None:
        store._beating.cancel()
    for number in range(1, 6):
        await append(store, event(f"e{number}", f"omm_{number}"))
    backend.rows("DELETE FROM deliveries WHERE sink IN (SELECT id FROM sinks WHERE name = 'late')")
    backend.rows(lost)
    backend.rows("SELECT setval('sinks_id_seq', max(id)) FROM sinks")
    _fail_over(backend)
    await _at_last(partial(append, store, event("between")))
    await _at_last(store._look_after)
    await _at_last(partial(append, store, event("after")))
    await store.dead_letter_removed()
    claim = partial(store.claim, "late", limit=99, per_scope=99, now_ms=NOW_MS, skipping=())
    claimed, ids = await claim(after_seq=None), list[str]()
    while True:
        ids += [one.event_id for one in claimed.deliveries]
        if claimed.at_end:
            break
        claimed = await claim(after_seq=claimed.seen_seq)
    assert ids == found
    other = await open_store(backend.url, ["a", "late", "new"])
    numbers = backend.rows("SELECT id FROM sinks")
    assert len(set(numbers)) == 3
    await other.close()
    await store.close()


async def test_events_tail_goes_on_after_a_failover(
    backend: OnPostgres, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With what comes from now on, although it has shown events with higher numbers, which are lost."""
    monkeypatch.setattr(events, "FOLLOW_S", 0)
    store = await open_store(backend.url, ["a"])
    await append(store, event("e1"))
    backend.rows("SELECT setval('events_seq', 1000)")
    await append(store, event("lost"))
    shown = events._newest(backend.url, EventQuery(), limit=9, follow=True)
    found = [[one.event_id for one in next(shown).events]]
    backend.rows("DELETE FROM deliveries WHERE seq > 1")
    backend.rows("DELETE FROM events WHERE seq > 1")
    backend.rows("SELECT setval('events_seq', 1)")
    found.append([one.event_id for one in next(shown).events])
    await append(store, event("e2"))
    found.append([one.event_id for one in next(shown).events])
    assert found == [["e1", "lost"], [], ["e2"]]
    await store.close()
