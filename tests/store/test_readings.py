"""Limits that were asked for, in the store: a baseline, a difference, a doubt; and how far a pass has come."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
from msgspec.structs import replace

from reserve_listener.errors import StoreError
from reserve_listener.intake import normalize
from reserve_listener.intake.complete import completing
from reserve_listener.intake.reconcile import comparing, reading_of
from reserve_listener.lark.api.answers import Limits
from reserve_listener.model import (
    DELIVERED,
    Asked,
    EventQuery,
    Finding,
    Found,
    Outcome,
    Pass,
    Scope,
    SinkFilter,
)
from reserve_listener.simulator import sample_event
from reserve_listener.store import open_reader
from tests.helpers import NOW_MS, Clock, push

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from reserve_listener.model import HistoryEntry, IncomingEvent, KnownScope, Reading
    from reserve_listener.protocols.store import Store
    from tests.backends import Backend

APP, TENANT, ROOM = "cli_a", "t1", "omm_1"
compare = comparing("en")


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
async def store(backend: Backend, clock: Clock) -> AsyncIterator[Store]:
    store = await opened(backend, clock)
    yield store
    await store.close()


async def opened(backend: Backend, clock: Clock) -> Store:
    return await backend.open("a", now_ms=clock, complete=completing("en"))


def hours(number: int) -> dict[str, Any]:
    return {"time_config": {"time_switch": 1, "max_duration": number}}


def reading(number: int, *, at_ms: int = NOW_MS, room: str = ROOM, wide_ms: int = 0) -> Reading:
    """So many hours, as of then; a push from then until `wide_ms` later may be in it or not."""
    limits = Limits(
        scope_type="room", scope_id=room, config=hours(number), as_of_ms=at_ms, until_ms=at_ms + wide_ms
    )
    return reading_of(limits, app_id=APP, received_ms=at_ms)


def heard(number: int, at_ms: int, *, room: str = ROOM, tenant: str = TENANT) -> IncomingEvent:
    """A push that tells of so many hours, and of nothing else."""
    envelope = sample_event(scope_id=room, tenant_key=tenant, app_id=APP, create_time_ms=at_ms)
    envelope["event"] = {"scope_id": room, "scope_type": 2} | hours(number)
    return normalize.incoming(json.dumps(envelope).encode(), envelope, received_ms=at_ms)


def known(backend: Backend) -> KnownScope:
    with open_reader(backend.url) as reader:
        (one,) = reader.known_scopes(ROOM)
    return one


def history(backend: Backend) -> list[HistoryEntry]:
    with open_reader(backend.url) as reader:
        return list(reader.history(ROOM))


async def test_the_first_answer_is_the_baseline(backend: Backend, store: Store) -> None:
    """It is what is known, with revision 0: no event, no history, nothing to deliver; the first push says what changed."""
    assert await store.compare(reading(8), compare) == Found(Finding.BASELINE)
    assert (known(backend).known.revision, known(backend).known.created_ms) == (0, NOW_MS)
    assert (history(backend), backend.stored(), await store.backlog()) == ([], [], {"a": 0})
    await push(store, heard(2, NOW_MS + 5_000))
    (entry,) = history(backend)
    assert entry.revision == 1
    assert json.loads(entry.changes or "")[0] == {
        "path": "time_config.max_duration",
        "before": 8,
        "after": 2,
    }


async def test_an_answer_without_limits_is_no_baseline(backend: Backend, store: Store) -> None:
    """Nothing was told, so the first push is the first sight."""
    nothing = Limits(
        scope_type="room", scope_id=ROOM, config={"time_config": {}}, as_of_ms=NOW_MS, until_ms=NOW_MS
    )
    await store.compare(reading_of(nothing, app_id=APP, received_ms=NOW_MS), compare)
    await push(store, heard(2, NOW_MS + 5_000))
    assert [(entry.revision, entry.changes) for entry in history(backend)] == [(1, None)]


async def test_a_difference_is_an_event_like_any_other(backend: Backend, store: Store, clock: Clock) -> None:
    """Stored, delivered, in the history with its origin, and what the next push is compared with."""
    await push(store, heard(8, NOW_MS))
    found = await store.compare(reading(2, at_ms=NOW_MS + 60_000), compare)
    assert found.finding is Finding.CHANGED
    assert found.entry is not None
    assert found.entry.event_id.startswith("reconcile-")
    newest = history(backend)[0]
    assert newest == found.entry
    assert (newest.revision, newest.origin, newest.created_ms) == (2, "reconcile", NOW_MS + 60_000)
    assert json.loads(newest.changes or "") == [{"path": "time_config.max_duration", "before": 8, "after": 2}]
    claimed = await store.claim(
        "a", limit=10, per_scope=10, now_ms=clock(), after_seq=None, skipping=(), raw=True
    )
    body = json.loads(claimed.deliveries[-1].body)
    assert (body["id"], body["data"]["origin"], body["data"]["revision"]) == (newest.event_id, "reconcile", 2)
    pushed = json.loads(claimed.deliveries[-1].raw or b"")
    assert pushed["event"]["time_config"] == {"time_switch": 1, "max_duration": 2}
    assert known(backend).known.revision == 2


async def test_the_same_moves_the_time_that_is_known(backend: Backend, store: Store) -> None:
    """Nothing is stored but as of when it is so; what was pushed before that is superseded, and turns nothing back."""
    await push(store, heard(8, NOW_MS))
    assert await store.compare(reading(8, at_ms=NOW_MS + 60_000), compare) == Found(Finding.SAME)
    assert len(history(backend)) == 1
    await push(store, heard(3, NOW_MS + 59_999))
    assert [(entry.revision, entry.changes) for entry in history(backend)] == [(None, None), (1, None)]
    assert known(backend).known.created_ms == NOW_MS + 60_000


async def test_the_push_of_a_found_change_says_nothing_new(backend: Backend, store: Store) -> None:
    """If it should still come it is superseded, or compared and the same."""
    await push(store, heard(8, NOW_MS))
    await store.compare(reading(2, at_ms=NOW_MS + 60_000, wide_ms=2_000), compare)
    await push(store, heard(2, NOW_MS + 61_000))
    await push(store, heard(2, NOW_MS + 30_000))
    assert [(entry.revision, entry.changes) for entry in history(backend)[:2]] == [(None, None), (3, "[]")]


@pytest.mark.parametrize(
    ("after_ms", "doubted"), [(-1, False), (0, True), (1_000, True), (2_000, True), (2_001, False)]
)
async def test_a_push_from_while_it_was_read_has_it_read_again(
    store: Store, after_ms: int, *, doubted: bool
) -> None:
    """From as-of to until nobody can say whether the answer has it; before and after that it is certain."""
    doubts: list[None] = []
    store.on_doubt = lambda: doubts.append(None)
    await store.compare(reading(8, wide_ms=2_000), compare)
    await push(store, heard(2, NOW_MS + after_ms))
    assert await store.in_doubt(APP, limit=5) == ([("room", ROOM)] if doubted else [])
    assert bool(doubts) == doubted  # a beat that comes just then tells it again
    await store.compare(reading(2, at_ms=NOW_MS + 10_000), compare)
    assert await store.in_doubt(APP, limit=5) == []


async def test_a_doubt_outlives_a_restart(backend: Backend, store: Store, clock: Clock) -> None:
    """It was stored with the push."""
    await store.compare(reading(8, wide_ms=2_000), compare)
    await push(store, heard(2, NOW_MS))
    await store.close()
    again = await opened(backend, clock)
    assert await again.in_doubt(APP, limit=5) == [("room", ROOM)]
    await again.close()


async def test_a_reading_older_than_a_push_says_nothing(backend: Backend, store: Store) -> None:
    """It is made again, as often as may help: a push from the future is not waited for."""
    await push(store, heard(8, NOW_MS + 3_000))
    assert await store.compare(reading(2), compare) == Found(Finding.OUTDATED)
    assert await store.in_doubt(APP, limit=5) == [("room", ROOM)]
    assert len(history(backend)) == 1
    for _ in range(3):
        await store.compare(reading(2), compare)
    assert await store.in_doubt(APP, limit=5) == []
    found = await store.compare(reading(2, at_ms=NOW_MS + 9_000), compare)
    assert found.finding is Finding.CHANGED


@pytest.mark.parametrize(
    ("hours_told", "finding"), [(8, Finding.SAME), (2, Finding.CHANGED)], ids=["same", "changed"]
)
async def test_a_reading_within_the_second_of_the_last_one_is_the_later(
    backend: Backend, store: Store, hours_told: int, finding: Finding
) -> None:
    """`Date` counts whole seconds, so one that took longer looks older; a push between the two is still the newer."""
    assert await store.compare(reading(8, wide_ms=2_000), compare) == Found(Finding.BASELINE)
    slower = reading(hours_told, at_ms=NOW_MS - 300, wide_ms=2_300)
    assert (await store.compare(slower, compare)).finding is finding
    assert known(backend).known.created_ms == NOW_MS
    await push(store, heard(5, NOW_MS + 1))
    assert await store.compare(slower, compare) == Found(Finding.OUTDATED)


async def test_a_reading_from_before_the_last_one_by_clocks_that_contradict_each_other(store: Store) -> None:
    """It ends before the last one began, which cannot be: nothing is made of it."""
    await store.compare(reading(8, wide_ms=2_000), compare)
    assert await store.compare(reading(2, at_ms=NOW_MS - 2_001, wide_ms=2_000), compare) == Found(
        Finding.OUTDATED
    )


async def test_what_is_only_tried_out_is_not_written(backend: Backend, store: Store) -> None:
    """A difference is said, and found again by the next reading; a room that is not known does not become so."""
    await push(store, heard(8, NOW_MS))
    told = reading(2, at_ms=NOW_MS + 60_000)
    tried = await store.compare(told, compare, dry_run=True)
    other = await store.compare(reading(2, room="omm_2"), compare, dry_run=True)
    assert (tried.finding, other.finding) == (Finding.CHANGED, Finding.BASELINE)
    assert len(history(backend)) == 1
    assert [one.scope_id for one in await store.asked(APP)] == [ROOM]
    found = await store.compare(told, compare)
    assert tried.entry is not None
    assert found.entry is not None
    assert tried.entry.event_id == found.entry.event_id


async def test_the_baseline_takes_the_tenant_of_the_first_event(backend: Backend, store: Store) -> None:
    """It stood under the app's id: the API knows no tenant. All of it moves, and is compared with."""
    await store.begin_pass(APP)
    for room in (ROOM, "omm_2"):
        await store.compare(reading(8, room=room), compare)
    assert known(backend).scope == Scope(tenant_key=APP, scope_type="room", scope_id=ROOM)
    await push(store, heard(2, NOW_MS + 5_000))
    assert known(backend).scope == Scope(tenant_key=TENANT, scope_type="room", scope_id=ROOM)
    assert history(backend)[0].revision == 1
    found = await store.compare(reading(4, room="omm_2", at_ms=NOW_MS + 9_000), compare)
    assert found.entry is not None
    assert found.entry.scope == Scope(tenant_key=TENANT, scope_type="room", scope_id="omm_2")


async def test_a_baseline_of_a_store_with_events_has_their_tenant(backend: Backend, store: Store) -> None:
    """Of a room of which nothing was heard, too."""
    await push(store, heard(2, NOW_MS, room="omm_2"))
    await store.compare(reading(8), compare)
    assert known(backend).scope.tenant_key == TENANT


async def test_several_tenants_are_told_apart_by_nobody(backend: Backend, store: Store) -> None:
    """The API would not say whose limits it tells."""
    await push(store, heard(2, NOW_MS))
    await push(store, heard(2, NOW_MS, tenant="t2"))
    assert await store.compare(reading(8, at_ms=NOW_MS + 9_000), compare) == Found(Finding.SEVERAL_TENANTS)
    assert {entry.revision for entry in history(backend)} == {1}
    assert await store.asked(APP) == []


async def test_a_pass_knows_how_far_it_is(backend: Backend, store: Store, clock: Clock) -> None:
    """Also after a restart: what it is done with, what it found, and when each scope was last looked at."""
    assert await store.last_pass(APP) is None
    await push(store, heard(8, NOW_MS))
    begun = await store.begin_pass(APP)
    assert begun == Pass(number=1, started_ms=NOW_MS, ended_ms=None, differences=0)
    clock.advance(60)
    await store.compare(reading(2, at_ms=clock()), compare, number=1)
    level = Scope(tenant_key=APP, scope_type="level", scope_id="omb_1")
    for _ in range(2):  # and counts once
        await store.asked_in_vain(level, number=1)
    await store.asked_in_vain(replace(level, scope_id="omb_gone"), number=1, gone=True)
    await store.close()
    again = await opened(backend, clock)
    assert await again.last_pass(APP) == Pass(1, NOW_MS, None, differences=1, not_read=1)
    assert sorted(await again.asked(APP), key=lambda one: one.scope_id) == [
        Asked("level", "omb_1", clock(), in_pass=1, was_read=False),
        Asked("level", "omb_gone", clock(), in_pass=1, was_read=False),
        Asked("room", ROOM, clock(), in_pass=1, was_read=True),
    ]
    ended_ms = clock()
    assert await again.end_pass(APP) == Pass(1, NOW_MS, ended_ms, 1, not_read=1, last_ended_ms=ended_ms)
    clock.advance(60)
    begun = await again.begin_pass(APP)
    assert begun == Pass(2, clock(), None, differences=0, not_read=0, last_ended_ms=ended_ms)
    assert await again.last_pass(APP) == begun
    assert (await again.begin_pass("cli_b")).number == 3
    await again.close()


async def gaps(store: Store) -> list[tuple[int, int, int | None, int | None]]:
    return (await store.insight(APP, gaps_since_ms=0)).gaps


async def test_a_gap_ends_with_what_was_found_after_it(store: Store, clock: Clock) -> None:
    """By the first pass that began after it; one that was under way may have read before the gap."""
    await push(store, heard(8, NOW_MS))
    await store.know_app(APP)
    await store.begin_pass(APP)
    since_ms = clock()
    clock.advance(8 * 3600)
    await store.know_app(APP, gap_since_ms=since_ms, longer_than_ms=1)
    await store.end_pass(APP)
    assert await gaps(store) == [(since_ms, clock(), None, None)]
    number = (await store.begin_pass(APP)).number
    await store.compare(reading(2, at_ms=clock()), compare, number=number)
    await store.end_pass(APP)
    assert await gaps(store) == [(since_ms, clock(), 1, 0)]


async def test_a_gap_tells_of_all_that_was_found_since_and_of_what_could_not_be_read(
    store: Store, clock: Clock
) -> None:
    """A room that somebody asked for on its own counts, while offline or after; what was found before does not."""
    rooms = ["omm_1", "omm_2", "omm_3", "omm_4", "omm_5"]
    for room in rooms:
        await push(store, heard(8, NOW_MS, room=room))
    clock.advance(60)
    await store.compare(reading(2, room="omm_1", at_ms=clock()), compare)
    clock.advance(60)
    since_ms = clock()
    clock.advance(3600)
    await store.compare(reading(2, room="omm_2", at_ms=clock()), compare)
    clock.advance(8 * 3600)
    to_ms = clock()
    await store.know_app(APP, gap_since_ms=since_ms, longer_than_ms=1)
    await store.compare(reading(2, room="omm_3", at_ms=clock()), compare)
    number = (await store.begin_pass(APP)).number
    await store.compare(reading(2, room="omm_4", at_ms=clock()), compare, number=number)
    await store.asked_in_vain(Scope(tenant_key=APP, scope_type="room", scope_id="omm_5"), number=number)
    await store.end_pass(APP)
    assert await gaps(store) == [(since_ms, to_ms, 3, 1)]
    await store.compare(reading(3, room="omm_4", at_ms=clock() + 1), compare)
    await store.begin_pass(APP)
    await store.end_pass(APP)
    assert await gaps(store) == [(since_ms, to_ms, 3, 1)]


async def test_what_is_tried_out_leaves_nothing_behind(backend: Backend, clock: Clock) -> None:
    """Neither a number of the scope that another one has by now, nor bytes of a baseline that was not written."""
    probe = await opened(backend, clock)
    found = await probe.compare(reading(8, room="omm_x"), compare, dry_run=True)
    assert found.finding is Finding.BASELINE
    await probe.compare(reading(7, room="omm_y"), compare)
    await push(probe, heard(2, NOW_MS + 5_000, room="omm_y"))
    await push(probe, heard(3, NOW_MS + 5_000, room="omm_x"))
    with open_reader(backend.url) as reader:
        told = {one.scope.scope_id: (one.known.revision, one.known.config) for one in reader.known_scopes()}
    assert {room: (revision, json.loads(config)) for room, (revision, config) in told.items()} == {
        "omm_x": (1, {"time_config": {"time_switch": True, "max_duration": 3}}),
        "omm_y": (1, {"time_config": {"time_switch": True, "max_duration": 2}}),
    }
    await probe.close()


async def test_a_difference_before_the_first_push_goes_to_whoever_wants_the_tenant(
    backend: Backend, clock: Clock
) -> None:
    """Whose tenant it is nobody knows yet, so no event names one; but the app has only one, and a filter lets it through."""
    store = await backend.open(
        "a", filters={"a": SinkFilter(tenants=frozenset({TENANT}))}, now_ms=clock, complete=completing("en")
    )
    await store.begin_pass(APP)
    await store.compare(reading(8), compare)
    found = await store.compare(reading(2, at_ms=NOW_MS + 9_000), compare)
    assert found.finding is Finding.CHANGED
    claimed = await store.claim(
        "a", limit=10, per_scope=10, now_ms=clock(), after_seq=None, skipping=(), raw=True
    )
    (delivery,) = claimed.deliveries
    body, pushed = json.loads(delivery.body), json.loads(delivery.raw or b"")
    assert body["source"] == f"/apps/{APP}/tenants/"
    assert body["data"]["warnings"] == [{"path": "header.tenant_key", "value": "", "problem": "empty"}]
    assert not pushed["header"]["tenant_key"]
    await store.settle("a", [Outcome(seq=delivery.seq, state=DELIVERED, attempts=1)])
    assert await store.operate("replay", EventQuery(event_id=body["id"])) == 1
    await push(store, heard(3, NOW_MS + 20_000, tenant="another"))
    assert await store.backlog() == {"a": 1}
    assert known(backend).scope.tenant_key == "another"
    await store.close()


async def test_a_store_that_is_full_takes_no_difference(backend: Backend, clock: Clock) -> None:
    """As it takes no push: the caller hears why, and asks again later."""
    if backend.shared:
        pytest.skip("how large it may become is the server's business")
    store = await backend.open("a", now_ms=clock, complete=completing("en"), max_bytes=1)
    with pytest.raises(StoreError, match="max_size_mb"):
        await store.compare(reading(8), compare)
    await store.close()
