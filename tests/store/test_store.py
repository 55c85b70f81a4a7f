"""The store: what is stored, once, and who gets it when. On real files."""

from __future__ import annotations

import asyncio
import random
import sqlite3
import stat
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest

from reserve_listener.errors import StoreError
from reserve_listener.model import DEAD, DELIVERED, PENDING, Claimed, Delivery, Outcome, Verdict
from reserve_listener.simulator import patience
from reserve_listener.store.sqlite import claiming, schema, sql, store as sqlite_store
from reserve_listener.store.sqlite.store import SqliteStore
from tests.helpers import NOW_MS, Clock, append, event, small_event, stored, unreadable_event, until

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "events.db"


@pytest.fixture
async def store(path: Path) -> AsyncIterator[SqliteStore]:
    store = SqliteStore(path, now_ms=Clock())
    await store.open(["a", "b"])
    yield store
    await store.close()


async def reopened(path: Path, *sinks: str) -> SqliteStore:
    store = SqliteStore(path, now_ms=Clock())
    await store.open(sinks or ("a", "b"))
    return store


async def on_writer(store: SqliteStore, work: Any) -> Any:
    """Run something on the writer's own connection."""
    return await store._writer.submit(work, writes=False)


def rows(path: Path, statement: str) -> list[Any]:
    connection = sqlite3.connect(path)
    try:
        return connection.execute(statement).fetchall()
    finally:
        connection.close()


async def claim(store: SqliteStore, sink: str = "a", *, now_ms: int = NOW_MS, **more: Any) -> Claimed:
    values = {"limit": 100, "per_scope": 100, "after_seq": None, "skipping": (), **more}
    return await store.claim(sink, now_ms=now_ms, **values)


async def due(store: SqliteStore, sink: str = "a", **more: Any) -> list[str]:
    return [one.event_id for one in (await claim(store, sink, **more)).deliveries]


async def first_due(store: SqliteStore, sink: str = "a") -> list[Delivery]:
    return (await claim(store, sink)).deliveries


# -- events in --------------------------------------------------------------------------------------------------------


async def test_the_first_push_is_stored_and_the_next_is_a_duplicate_also_after_a_restart(
    store: SqliteStore, path: Path
) -> None:
    """The verdicts are STORED, DUPLICATE and UNREADABLE, and a new process knows what the old one stored."""
    assert await append(store, event("e1")) is Verdict.STORED
    assert await append(store, event("e1", scope="omm_other")) is Verdict.DUPLICATE
    assert await append(store, unreadable_event(b"x")) is Verdict.UNREADABLE
    assert await append(store, unreadable_event(b"x")) is Verdict.DUPLICATE
    await store.close()
    again = await reopened(path)
    try:
        assert await append(again, event("e1")) is Verdict.DUPLICATE
        assert await append(again, unreadable_event(b"x")) is Verdict.DUPLICATE
        assert await append(again, event("e2")) is Verdict.STORED
        assert await due(again) == ["e1", "e2"]
    finally:
        await again.close()


async def test_an_event_is_known_by_tenant_and_id(store: SqliteStore) -> None:
    """The same event_id of another tenant is another event, and the same scope_id another scope."""
    assert await append(store, event("e1", tenant="t1")) is Verdict.STORED
    assert await append(store, event("e1", tenant="t2")) is Verdict.STORED
    first, second = await first_due(store)
    assert first.scope != second.scope


async def test_duplicates_within_one_commit_are_told_apart(store: SqliteStore) -> None:
    """Of equal pushes that share a commit exactly the first is STORED, and each sink gets one delivery."""
    verdicts = await asyncio.gather(*(append(store, event(f"e{n % 10}")) for n in range(100)))
    assert verdicts == [Verdict.STORED] * 10 + [Verdict.DUPLICATE] * 90
    assert await store.backlog() == {"a": 10, "b": 10}


async def test_text_of_any_kind_comes_back_as_it_went_in(store: SqliteStore) -> None:
    """Identifiers with NUL, quotes and other scripts are neither cut nor taken for one another."""
    ids = ["e\x00a", "e\x00b", "e", "'; DROP TABLE events; --", "会议室", "\U0001f600"]
    for number, event_id in enumerate(ids):
        assert await append(store, event(event_id, scope=f"{event_id}{number}")) is Verdict.STORED
    assert await due(store) == ids


async def test_a_writer_that_dies_leaves_nobody_waiting(tmp_path: Path) -> None:
    """Should the writer's thread end by itself, `ended` says why, and who asks it gets an error instead of silence."""

    class Dying(BaseException):
        pass

    def die(_connection: sqlite3.Connection) -> None:
        raise Dying("a defect")

    store = SqliteStore(tmp_path / "dying.db")
    await store.open(["log"])
    last = store._writer.submit(die, writes=True)
    async with asyncio.timeout(patience(5)):
        with pytest.raises(StoreError, match="a defect"):
            await store.ended()
        with pytest.raises(StoreError, match="a defect"):
            await last
        with pytest.raises(StoreError):
            await store.backlog()
        await store.close()


async def test_event_and_deliveries_are_one_transaction(store: SqliteStore, path: Path) -> None:
    """When a delivery row cannot be written none of its event's is there: it is kept whole, its neighbours are unharmed."""

    def refuse(connection: sqlite3.Connection) -> None:
        connection.execute(
            "CREATE TEMP TRIGGER refuse BEFORE INSERT ON main.deliveries"
            " WHEN NEW.sink = (SELECT id FROM sinks WHERE name = 'b')"
            " AND (SELECT event_id FROM events WHERE seq = NEW.seq) = 'bad'"
            " BEGIN SELECT RAISE(ABORT, 'no delivery'); END"
        )

    await on_writer(store, refuse)
    verdicts = await store.project([event(event_id) for event_id in ("good1", "bad", "good2")])
    assert verdicts == [Verdict.STORED, Verdict.UNREADABLE, Verdict.STORED]
    assert rows(path, "SELECT event_id, problem FROM events ORDER BY seq") == [
        ("good1", None),
        ("bad", "a bug in reserve-listener: IntegrityError: no delivery"),
        ("good2", None),
    ]
    assert rows(path, "SELECT count(*) FROM deliveries") == [(4,)]
    assert await store.project([event("bad2")]) == [Verdict.STORED]


async def test_many_appends_share_a_commit(store: SqliteStore) -> None:
    """A thousand pushes that wait together cost a handful of commits, and each verdict follows its commit."""
    statements: list[str] = []
    gate = asyncio.get_running_loop().create_future()
    await on_writer(store, lambda connection: connection.set_trace_callback(statements.append))
    async with asyncio.timeout(patience(20)):
        appends = [append(store, event(f"e{n}", scope=f"omm_{n % 7}")) for n in range(1_000)]
        appends[-1].add_done_callback(lambda _: gate.set_result(statements.count("COMMIT")))
        verdicts = await asyncio.gather(*appends)
    await on_writer(store, lambda connection: connection.set_trace_callback(None))
    assert verdicts == [Verdict.STORED] * 1_000
    assert 1 <= await gate <= 20


async def test_a_verdict_comes_only_after_the_commit(store: SqliteStore, path: Path) -> None:
    """At the moment a verdict is known another connection reads the event from the file."""
    seen: list[int] = []
    appends = [append(store, event(f"e{n}")) for n in range(50)]

    def look(event_id: str, _: object) -> None:
        seen.extend(rows(path, f"SELECT count(*) FROM events WHERE event_id = '{event_id}'")[0])

    for number, appended in enumerate(appends):
        appended.add_done_callback(partial(look, f"e{number}"))
    await asyncio.gather(*appends)
    await asyncio.sleep(0)
    assert seen == [1] * 50


async def test_a_job_that_fails_fails_alone(store: SqliteStore) -> None:
    """A defect in one job of a shared commit reaches its caller as a StoreError and nobody else."""

    def broken(_: sqlite3.Connection) -> None:
        raise ZeroDivisionError("a defect")

    first = append(store, event("e1"))
    failing = store._writer.submit(broken, writes=True)
    last = append(store, event("e2"))
    assert await first is Verdict.STORED
    assert await last is Verdict.STORED
    with pytest.raises(StoreError, match="a defect"):
        await failing


async def test_a_full_disk_fails_the_append_and_the_store_recovers(store: SqliteStore, path: Path) -> None:
    """With no page left nothing of the event is stored, what was stored is readable, and room makes it work again."""
    assert await append(store, event("before")) is Verdict.STORED
    (pages,) = await on_writer(store, lambda c: c.execute("PRAGMA page_count").fetchone())
    await on_writer(store, lambda c: c.execute(f"PRAGMA max_page_count = {pages}").fetchone())
    big = small_event("big", size=1_000_000)
    results = await asyncio.gather(append(store, big), append(store, big), return_exceptions=True)
    assert [type(result) for result in results] == [StoreError, StoreError]
    assert "full" in str(results[0])
    assert rows(path, "SELECT event_id FROM events") == [("before",)]
    assert await due(store) == ["before"]
    await on_writer(store, lambda c: c.execute("PRAGMA max_page_count = 1073741823").fetchone())
    assert await append(store, big) is Verdict.STORED
    assert rows(path, "PRAGMA integrity_check") == [("ok",)]


async def test_a_busy_file_fails_a_shared_commit_once_and_not_job_by_job(
    store: SqliteStore, path: Path
) -> None:
    """While another program holds the write lock all waiting pushes fail after one busy timeout, then it works again."""
    await on_writer(store, lambda c: c.execute("PRAGMA busy_timeout = 100").fetchone())
    intruder = sqlite3.connect(path, isolation_level=None)
    try:
        intruder.execute("BEGIN IMMEDIATE")
        async with asyncio.timeout(patience(5)):  # one by one it would be 20 s
            results = await asyncio.gather(
                *(append(store, event(f"e{n}")) for n in range(200)), return_exceptions=True
            )
        assert {type(result) for result in results} == {StoreError}
    finally:
        intruder.close()
    assert await append(store, event("e1")) is Verdict.STORED


async def test_on_commit_is_called_for_new_deliveries_only(store: SqliteStore) -> None:
    """Workers are woken for a stored event, neither for a duplicate nor for an unreadable one."""
    calls: list[None] = []
    store.on_commit = lambda: calls.append(None)
    for one in (event("e1"), event("e1"), unreadable_event()):
        await append(store, one)
    assert len(calls) == 1


async def test_a_cancelled_append_disturbs_nobody(store: SqliteStore) -> None:
    """Cancelling the future of an append leaves the commit, the counts and the other appends as they were."""
    first, second = append(store, event("e1")), append(store, event("e2"))
    first.cancel()
    assert await second is Verdict.STORED
    assert await append(store, event("e1")) is Verdict.DUPLICATE
    assert store._coming_bytes == 0


async def test_after_close_an_append_fails(path: Path) -> None:
    """A closed store says so, instead of leaving its caller to wait."""
    store = await reopened(path)
    await store.close()
    with pytest.raises(StoreError, match="closed"):
        await append(store, event())


async def test_close_commits_what_is_queued(path: Path) -> None:
    """What was appended before `close` is on the disk after it."""
    store = await reopened(path)
    appends = [append(store, event(f"e{n}")) for n in range(300)]
    await store.close()
    assert await asyncio.gather(*appends) == [Verdict.STORED] * 300
    assert rows(path, "SELECT count(*) FROM events") == [(300,)]


# -- deliveries out -----------------------------------------------------------------------------------------------------


async def fill(store: SqliteStore, *events: tuple[str, str]) -> None:
    for event_id, scope in events:
        assert await append(store, event(event_id, scope)) is Verdict.STORED


async def test_a_claim_gives_the_oldest_first_and_changes_nothing(store: SqliteStore) -> None:
    """Order is that of arrival, `limit` and `excluding` hold, and a second claim gives the same."""
    await fill(store, *((f"e{n}", f"omm_{n % 3}") for n in range(10)))
    everything = [f"e{n}" for n in range(10)]
    assert await due(store) == everything
    assert await due(store) == everything
    assert await due(store, limit=4) == everything[:4]
    assert await due(store, limit=1) == everything[:1]
    some = await claim(store, limit=5)
    assert not some.at_end
    assert await due(store, limit=3, after_seq=some.seen_seq) == everything[5:8]
    rest = await claim(store, after_seq=some.seen_seq)
    assert (rest.at_end, await due(store, after_seq=rest.seen_seq)) == (True, [])
    assert [one.attempts for one in await first_due(store)] == [0] * 10


async def test_a_claim_carries_the_body_and_the_time_of_storing(store: SqliteStore) -> None:
    """What a sink gets is the normalised body byte for byte, and ages count from `received_ms`."""
    one = event("e1", received_ms=NOW_MS - 5)
    await append(store, one)
    (claimed,) = await first_due(store)
    assert (claimed.body, claimed.received_ms, claimed.event_id) == (one.body, NOW_MS - 5, "e1")


async def test_a_claim_reads_a_bounded_number_of_bytes(
    store: SqliteStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Bodies stop counting up at the bound, but one event larger than the bound still comes."""
    monkeypatch.setattr(claiming, "CLAIM_BYTES", 250)
    for number in range(5):
        await append(store, small_event(f"e{number}", size=100))
    await append(store, small_event("big", scope="omm_b", size=1_000))
    some = await claim(store)
    assert [one.event_id for one in some.deliveries] == ["e0", "e1", "e2"]
    assert await due(store, after_seq=some.seen_seq) == ["e3", "e4", "big"]
    await store.settle("a", [Outcome(seq=seq, state=DELIVERED, attempts=1) for seq in range(1, 6)])
    assert await due(store) == ["big"]


async def test_a_failed_delivery_holds_back_its_own_scope_only(store: SqliteStore) -> None:
    """Later events of the scope wait for the failed one, also new ones; other scopes and other sinks pass."""
    await fill(store, ("a1", "A"), ("a2", "A"), ("b1", "B"))
    first = (await first_due(store))[0]
    await store.settle("a", [Outcome.retry(first, due_ms=NOW_MS + 1000, error="down")])
    await fill(store, ("a3", "A"), ("b2", "B"))
    assert await due(store) == ["b1", "b2"]
    assert await due(store, now_ms=NOW_MS + 999) == ["b1", "b2"]
    assert await due(store, now_ms=NOW_MS + 1000) == ["a1", "a2", "b1", "a3", "b2"]
    assert await due(store, "b") == ["a1", "a2", "b1", "a3", "b2"]


async def test_what_came_before_a_failed_delivery_is_not_held_back(store: SqliteStore) -> None:
    """Only later events of the scope wait: an earlier one that is still pending goes out."""
    await fill(store, ("a1", "A"), ("a2", "A"), ("a3", "A"))
    second = (await first_due(store))[1]
    await store.settle("a", [Outcome.retry(second, due_ms=NOW_MS + 1000, error="down")])
    assert await due(store) == ["a1"]


@pytest.mark.parametrize("state", [DELIVERED, DEAD])
async def test_a_settled_delivery_releases_its_scope(store: SqliteStore, state: str) -> None:
    """A delivery and a dead letter alike let the next event of the scope go."""
    await fill(store, ("a1", "A"), ("a2", "A"))
    first = (await first_due(store))[0]
    await store.settle("a", [Outcome.retry(first, due_ms=NOW_MS + 1000, error="down")])
    assert await due(store) == []
    await store.settle("a", [Outcome(seq=first.seq, state=state, attempts=2)])
    assert await due(store) == ["a2"]


async def test_a_claim_says_what_it_left(store: SqliteStore) -> None:
    """Scopes that wait are named with their time, those that are skipped or have more as being behind."""
    await fill(store, ("a1", "A"), ("b1", "B"), ("c1", "C"), ("a2", "A"), ("c2", "C"), ("c3", "C"))
    first, second, third, *_ = await first_due(store)
    await store.settle("a", [Outcome.retry(first, due_ms=NOW_MS + 500, error="x")])
    found = await claim(store, per_scope=2, skipping={second.scope})
    assert [one.event_id for one in found.deliveries] == ["c1", "c2"]
    assert found.waiting == {first.scope: NOW_MS + 500}
    assert found.behind == {second.scope, third.scope}
    of_scopes = await store.claim_scopes(
        "a", [first.scope, second.scope, third.scope], limit=3, per_scope=2, now_ms=NOW_MS
    )
    assert [one.event_id for one in of_scopes.deliveries] == ["b1", "c1", "c2"]
    assert (of_scopes.waiting, of_scopes.behind) == ({first.scope: NOW_MS + 500}, {third.scope})


async def test_a_due_time_beyond_reason_counts_as_now(store: SqliteStore) -> None:
    """What was put off while the clock was years ahead is not held back for years."""
    await fill(store, ("a1", "A"))
    (one,) = await first_due(store)
    await store.settle("a", [Outcome.retry(one, due_ms=NOW_MS + 10**12, error="x")])
    assert await due(store) == ["a1"]


async def test_settling_twice_is_settling_once(store: SqliteStore, path: Path) -> None:
    """The same outcomes again change nothing, and a settled delivery does not come back to life."""
    await fill(store, ("a1", "A"), ("b1", "B"))
    one, two = await first_due(store)
    outcomes = [Outcome.delivered(one), Outcome.dead(two, error="no")]
    await store.settle("a", outcomes)
    before = rows(path, "SELECT * FROM deliveries ORDER BY seq, sink")
    await store.settle("a", outcomes)
    await store.settle("a", [Outcome.retry(one, due_ms=5, error="late"), Outcome.delivered(two)])
    assert rows(path, "SELECT * FROM deliveries ORDER BY seq, sink") == before
    assert await store.backlog() == {"a": 0, "b": 2}


async def test_settle_is_all_or_none(store: SqliteStore) -> None:
    """When one row of a settle fails, none of it is stored and the caller hears it."""
    await fill(store, ("a1", "A"), ("b1", "B"))
    one, two = await first_due(store)
    await on_writer(
        store,
        lambda c: c.execute(
            f"CREATE TEMP TRIGGER no BEFORE UPDATE ON main.deliveries WHEN NEW.seq = {two.seq}"
            " BEGIN SELECT RAISE(ABORT, 'no update'); END"
        ),
    )
    with pytest.raises(StoreError, match="no update"):
        await store.settle("a", [Outcome.delivered(one), Outcome.delivered(two)])
    assert await due(store) == ["a1", "b1"]


async def test_an_error_is_kept_short_and_whatever_its_text(store: SqliteStore, path: Path) -> None:
    """An error of any length and with a lone surrogate is stored: it must not stop the worker for ever."""
    await fill(store, ("a1", "A"))
    (one,) = await first_due(store)
    await store.settle("a", [Outcome.retry(one, due_ms=NOW_MS + 1, error="\udce4" + "x" * 10_000)])
    await store.close()
    (one_event,) = stored(path)
    error = one_event.deliveries[0].last_error or ""
    assert error.startswith("\\udce4xxx")
    assert len(error) < 600


async def test_a_store_against_a_model(store: SqliteStore) -> None:
    """Hundreds of random appends, claims and outcomes: what is due is always what a plain list says is due."""
    dice = random.Random(7)
    model: dict[str, dict[str, Any]] = {}
    now = NOW_MS
    for step in range(400):
        now += dice.randrange(50)
        if dice.random() < 0.5:
            await fill(store, (f"e{step}", f"omm_{dice.randrange(4)}"))
            (newest,) = await on_writer(store, newest_row)
            model[f"e{step}"] = {"seq": newest[0], "scope": newest[1], "state": PENDING, "due": 0}
        claimed = (await claim(store, now_ms=now)).deliveries
        waiting = {
            scope: min(
                one["seq"]
                for one in model.values()
                if one["scope"] == scope and one["state"] == PENDING and one["due"] > now
            )
            for scope in {
                one["scope"] for one in model.values() if one["state"] == PENDING and one["due"] > now
            }
        }
        expected = [
            event_id
            for event_id, one in model.items()
            if one["state"] == PENDING
            and one["due"] <= now
            and one["seq"] < waiting.get(one["scope"], float("inf"))
        ]
        assert [one.event_id for one in claimed] == expected
        if claimed and dice.random() < 0.7:
            one = dice.choice(claimed)
            outcome = dice.choice(
                [
                    Outcome.delivered(one),
                    Outcome.dead(one, error="x"),
                    Outcome.retry(one, due_ms=now + dice.randrange(1, 200), error="x"),
                ]
            )
            await store.settle("a", [outcome])
            model[one.event_id].update(state=outcome.state, due=outcome.due_ms)


def newest_row(connection: sqlite3.Connection) -> list[Any]:
    return connection.execute("SELECT seq, scope FROM events ORDER BY seq DESC LIMIT 1").fetchall()


# -- sinks come and go ----------------------------------------------------------------------------------------------------


async def test_rows_of_a_removed_sink_become_dead_letters(store: SqliteStore, path: Path) -> None:
    """What a removed sink has not got is dead with "sink removed"; what it has got stays delivered; others are unharmed."""
    await fill(store, ("e1", "A"), ("e2", "A"))
    first = (await first_due(store, "b"))[0]
    await store.settle("b", [Outcome.delivered(first)])
    await store.close()
    again = await reopened(path, "a")
    assert await again.backlog() == {"a": 2}
    await append(again, event("e3"))
    await again.close()
    states = {one.event_id: [(d.sink, d.state, d.last_error) for d in one.deliveries] for one in stored(path)}
    assert states == {
        "e1": [("a", PENDING, None), ("b", DELIVERED, None)],
        "e2": [("a", PENDING, None), ("b", DEAD, "sink removed")],
        "e3": [("a", PENDING, None)],
    }


async def test_an_added_sink_starts_with_the_next_event(store: SqliteStore, path: Path) -> None:
    """A sink that is new gets nothing of the past and everything from now on."""
    await fill(store, ("e1", "A"))
    await store.close()
    again = await reopened(path, "a", "b", "c")
    try:
        assert await due(again, "c") == []
        await fill(again, ("e2", "A"))
        assert await due(again, "c") == ["e2"]
        assert await due(again, "a") == ["e1", "e2"]
    finally:
        await again.close()


async def test_a_sink_that_comes_back_starts_with_the_next_event(store: SqliteStore, path: Path) -> None:
    """Removed and added again under its name, a sink keeps its dead letters and gets only what comes from now on."""
    await fill(store, ("e1", "A"))
    await store.close()
    without = await reopened(path, "a")
    await fill(without, ("e2", "A"))
    await without.close()
    again = await reopened(path, "a", "b")
    try:
        assert await due(again, "b") == []
        await fill(again, ("e3", "A"))
        assert await due(again, "b") == ["e3"]
        assert await again.backlog() == {"a": 3, "b": 1}
    finally:
        await again.close()


async def test_without_sinks_events_are_still_kept(path: Path) -> None:
    """A store without any sink stores events, with no deliveries."""
    store = SqliteStore(path)
    await store.open([])
    assert await append(store, event("e1")) is Verdict.STORED
    assert await store.backlog() == {}
    await store.close()
    assert rows(path, "SELECT count(*) FROM deliveries") == [(0,)]


# -- the file -------------------------------------------------------------------------------------------------------------


async def test_the_files_are_for_the_owner_only(store: SqliteStore, path: Path) -> None:
    """Database, WAL, shared memory and lock are 0600, whatever the umask lets through."""
    await append(store, event())
    modes = {file.name: stat.S_IMODE(file.stat().st_mode) for file in path.parent.iterdir()}
    files = [
        f"{name}{ending}" for name in ("events.db", "events.db-inbox") for ending in ("", "-wal", "-shm")
    ]
    assert modes == dict.fromkeys([*files, "events.db.lock"], 0o600)


async def test_a_folder_that_is_made_is_for_the_owner_only(tmp_path: Path) -> None:
    """A store in a folder that is missing makes it, 0700."""
    store = SqliteStore(tmp_path / "new" / "events.db")
    await store.open(["a"])
    await store.close()
    assert stat.S_IMODE((tmp_path / "new").stat().st_mode) == 0o700


async def test_the_pragmas_that_durability_rests_on(store: SqliteStore) -> None:
    """WAL, synchronous=FULL (2) and foreign keys are really set on the connection that writes."""

    def pragmas(connection: sqlite3.Connection) -> list[Any]:
        return [
            connection.execute(f"PRAGMA {name}").fetchone()[0]
            for name in ("journal_mode", "synchronous", "foreign_keys", "application_id", "user_version")
        ]

    assert await on_writer(store, pragmas) == ["wal", 2, 1, schema.APPLICATION_ID, len(schema.migrations())]


PLANS = {
    "PENDING_FROM": ((0, 5000, 1, 100), ["SEARCH deliveries USING PRIMARY KEY (seq>? AND seq<?)"]),
    "PENDING_OF_SCOPE": (
        (1, 1, 10),
        ["SEARCH deliveries USING INDEX deliveries_pending (sink=? AND scope=?)"],
    ),
    "FIRST_PENDING": ((1,), ["SEARCH deliveries USING INDEX deliveries_pending (sink=?)"]),
    "PENDING_AGES": ((0, 5000, 1), ["SEARCH d USING PRIMARY KEY (seq>? AND seq<?)"]),
    "RELEASE": ((1,), ["SEARCH deliveries USING INDEX deliveries_due (sink=? AND due_ms>?)"]),
    "BACKLOG": ((10_000,), ["SEARCH deliveries USING INDEX deliveries_pending (sink=?)"]),
    "BURY_REMOVED": ({"now_ms": 0, "limit": 10}, ["SEARCH deliveries USING INDEX deliveries_pending"]),
    "SETTLE": ((1, 1, 1, 1, "", 1, 1), ["SEARCH deliveries USING PRIMARY KEY"]),
    "OLDEST_EVENTS": ((0, 10), ["SEARCH events USING INTEGER PRIMARY KEY (rowid>?)"]),
}


# BURY_REMOVED runs once a start, and with statistics of a tiny table a scan is right.
ANALYZED = [(name, True) for name in PLANS if name != "BURY_REMOVED"]


@pytest.mark.parametrize(("name", "analyzed"), [*((name, False) for name in PLANS), *ANALYZED])
async def test_the_hot_statements_use_their_indexes(store: SqliteStore, name: str, *, analyzed: bool) -> None:
    """The plans search the partial indexes and never scan or sort deliveries, with and without statistics."""
    values, expected = PLANS[name]
    await fill(store, *((f"e{n}", f"omm_{n % 5}") for n in range(50)))

    def explain(connection: sqlite3.Connection) -> list[str]:
        if analyzed:
            connection.execute("ANALYZE")
        statement = f"EXPLAIN QUERY PLAN {getattr(sql, name)}"
        return [row[3] for row in connection.execute(statement, values)]  # type: ignore[arg-type]

    # COVERING or not is the SQLite version's choice.
    plan = [line.replace("COVERING ", "") for line in await on_writer(store, explain)]
    for step in expected:
        assert any(line.startswith(step) for line in plan), plan
    assert not [line for line in plan if line.startswith(("SCAN d", "SCAN w", "SCAN deliveries", "SCAN e"))]
    assert not [line for line in plan if "ORDER BY" in line]


async def test_the_loop_goes_on_while_the_writer_is_busy(store: SqliteStore) -> None:
    """A slow job blocks the writer's thread and not the event loop."""
    release = asyncio.Event()
    loop = asyncio.get_running_loop()

    def slow(_: sqlite3.Connection) -> str:
        asyncio.run_coroutine_threadsafe(release.wait(), loop).result()
        return "done"

    job = store._writer.submit(slow, writes=True)
    claimed = asyncio.create_task(claim(store))
    await asyncio.sleep(0)
    assert not job.done()
    release.set()
    assert await job == "done"
    assert (await claimed).deliveries == []


async def test_a_cancelled_open_gives_the_lock_back(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """When opening fails after the connection is there, its thread ends and the store can be opened again."""
    store = SqliteStore(path)
    monkeypatch.setattr(sqlite_store, "_know_sinks", partial(lambda *_: 1 / 0))
    with pytest.raises(StoreError, match="division"):
        await store.open(["a"])
    await until(lambda: not store._writer._thread.is_alive())
    monkeypatch.undo()
    again = await reopened(path)
    await again.close()


async def test_a_caller_that_fails_disturbs_nobody(store: SqliteStore) -> None:
    """An error in what waits for a commit is reported to the loop; those behind it in the batch get their verdicts."""
    reported: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _loop, context: reported.append(context))

    def fail(_number: int, _error: object) -> None:
        raise ValueError("a bug")

    received: asyncio.Future[object] = asyncio.get_running_loop().create_future()
    store.receive([event("e1")], fail)
    store.receive([event("e2")], lambda _number, error: received.set_result(error))
    assert await received is None
    assert [str(context["exception"]) for context in reported] == ["a bug"]
    assert [[one.event_id for one in batch.events] for batch in await store.left()] == [["e1"], ["e2"]]
