"""The store: what is stored, once, and who gets it when. Over every backend."""

from __future__ import annotations

import asyncio
import random
from functools import partial
from typing import TYPE_CHECKING, Any

import msgspec
import pytest

from reserve_listener.errors import StoreError
from reserve_listener.model import DEAD, DELIVERED, MIB, PENDING, Claimed, Delivery, Outcome, Verdict
from tests.helpers import NOW_MS, Clock, append, event, small_event, unreadable_event

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from reserve_listener.protocols.store import Store
    from tests.backends import Backend


@pytest.fixture
async def store(backend: Backend) -> AsyncIterator[Store]:
    store = await backend.open("a", "b", now_ms=Clock())
    yield store
    await store.close()


async def reopened(backend: Backend, *sinks: str) -> Store:
    return await backend.open(*(sinks or ("a", "b")), now_ms=Clock())


async def claim(store: Store, sink: str = "a", *, now_ms: int = NOW_MS, **more: Any) -> Claimed:
    values = {"limit": 100, "per_scope": 100, "after_seq": None, "skipping": (), **more}
    return await store.claim(sink, now_ms=now_ms, **values)


async def due(store: Store, sink: str = "a", **more: Any) -> list[str]:
    return [one.event_id for one in (await claim(store, sink, **more)).deliveries]


async def first_due(store: Store, sink: str = "a") -> list[Delivery]:
    return (await claim(store, sink)).deliveries


# -- events in --------------------------------------------------------------------------------------------------------


async def test_the_first_push_is_stored_and_the_next_is_a_duplicate_also_after_a_restart(
    backend: Backend, store: Store
) -> None:
    """The verdicts are STORED, DUPLICATE and UNREADABLE, and a new process knows what the old one stored."""
    assert await append(store, event("e1")) is Verdict.STORED
    assert await append(store, event("e1", scope="omm_other")) is Verdict.DUPLICATE
    assert await append(store, unreadable_event(b"x")) is Verdict.UNREADABLE
    assert await append(store, unreadable_event(b"x")) is Verdict.DUPLICATE
    await store.close()
    again = await reopened(backend)
    try:
        assert await append(again, event("e1")) is Verdict.DUPLICATE
        assert await append(again, unreadable_event(b"x")) is Verdict.DUPLICATE
        assert await append(again, event("e2")) is Verdict.STORED
        assert await due(again) == ["e1", "e2"]
    finally:
        await again.close()


async def test_an_event_is_known_by_tenant_and_id(store: Store) -> None:
    """The same event_id of another tenant is another event, and the same scope_id another scope."""
    assert await append(store, event("e1", tenant="t1")) is Verdict.STORED
    assert await append(store, event("e1", tenant="t2")) is Verdict.STORED
    first, second = await first_due(store)
    assert first.scope != second.scope


async def test_duplicates_within_one_commit_are_told_apart(store: Store) -> None:
    """Of equal pushes that share a commit exactly the first is STORED, and each sink gets one delivery."""
    verdicts = await asyncio.gather(*(append(store, event(f"e{n % 10}")) for n in range(100)))
    assert verdicts == [Verdict.STORED] * 10 + [Verdict.DUPLICATE] * 90
    assert await store.backlog() == {"a": 10, "b": 10}


async def test_text_of_any_kind_comes_back_as_it_went_in(store: Store) -> None:
    """Identifiers with NUL, quotes and other scripts are neither cut nor taken for one another."""
    ids = ["e\x00a", "e\x00b", "e", "'; DROP TABLE events; --", "会议室", "\U0001f600"]
    for number, event_id in enumerate(ids):
        assert await append(store, event(event_id, scope=f"{event_id}{number}")) is Verdict.STORED
    assert await due(store) == ids


async def test_a_verdict_comes_only_after_the_commit(backend: Backend, store: Store) -> None:
    """At the moment a verdict is known another connection reads the event from the file."""
    seen: list[int] = []
    appends = [append(store, event(f"e{n}")) for n in range(50)]

    def look(event_id: str, _: object) -> None:
        seen.extend(backend.rows(f"SELECT count(*) FROM events WHERE event_id = '{event_id}'")[0])

    for number, appended in enumerate(appends):
        appended.add_done_callback(partial(look, f"e{number}"))
    await asyncio.gather(*appends)
    await asyncio.sleep(0)
    assert seen == [1] * 50


async def test_a_full_disk_fails_the_append_and_the_store_recovers(backend: Backend, store: Store) -> None:
    """With no page left nothing of the event is stored, what was stored is readable, and room makes it work again."""
    assert await append(store, event("before")) is Verdict.STORED
    big = small_event("big", size=1_000_000)
    async with backend.no_room_to_project(store):
        results = await asyncio.gather(append(store, big), append(store, big), return_exceptions=True)
        assert [type(result) for result in results] == [StoreError, StoreError]
        assert "full" in str(results[0])
        assert backend.rows("SELECT event_id FROM events") == [("before",)]
        assert await due(store) == ["before"]
    assert await append(store, big) is Verdict.STORED
    backend.require_sound()


async def test_on_commit_is_called_for_new_deliveries_only(backend: Backend, store: Store) -> None:
    """Workers are woken for a stored event, neither for a duplicate nor for an unreadable one."""
    calls: list[None] = []
    backend.leave_others_alone(store)
    store.on_commit = lambda: calls.append(None)
    for one in (event("e1"), event("e1"), unreadable_event()):
        await append(store, one)
    assert len(calls) == 1


async def test_a_cancelled_append_disturbs_nobody(backend: Backend, store: Store) -> None:
    """Cancelling the future of an append leaves the commit, the counts and the other appends as they were."""
    first, second = append(store, event("e1")), append(store, event("e2"))
    first.cancel()
    assert await second is Verdict.STORED
    assert await append(store, event("e1")) is Verdict.DUPLICATE
    assert backend.coming_bytes(store) == 0


async def test_after_close_an_append_fails(backend: Backend) -> None:
    """A closed store says so, instead of leaving its caller to wait."""
    store = await reopened(backend)
    await store.close()
    with pytest.raises(StoreError, match="closed"):
        await append(store, event())


async def test_close_commits_what_is_queued(backend: Backend) -> None:
    """What was appended before `close` is on the disk after it."""
    store = await reopened(backend)
    appends = [append(store, event(f"e{n}")) for n in range(300)]
    await store.close()
    assert await asyncio.gather(*appends) == [Verdict.STORED] * 300
    assert backend.rows("SELECT count(*) FROM events") == [(300,)]


# -- deliveries out -----------------------------------------------------------------------------------------------------


async def fill(store: Store, *events: tuple[str, str]) -> None:
    for event_id, scope in events:
        assert await append(store, event(event_id, scope)) is Verdict.STORED


async def test_a_claim_gives_the_oldest_first_and_changes_nothing(store: Store) -> None:
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


async def test_a_claim_carries_the_body_and_the_time_of_storing(store: Store) -> None:
    """What a sink gets is the normalised body byte for byte, and ages count from `received_ms`."""
    one = event("e1", received_ms=NOW_MS - 5)
    await append(store, one)
    (claimed,) = await first_due(store)
    assert (claimed.body, claimed.received_ms, claimed.event_id) == (one.body, NOW_MS - 5, "e1")


async def test_a_claim_reads_a_bounded_number_of_bytes(
    backend: Backend, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Bodies stop counting up at the bound, but one event larger than the bound still comes."""
    backend.tune(monkeypatch, claim_bytes=250)
    for number in range(5):
        await append(store, small_event(f"e{number}", size=100))
    await append(store, small_event("big", scope="omm_b", size=1_000))
    some = await claim(store)
    assert [one.event_id for one in some.deliveries] == ["e0", "e1", "e2"]
    assert await due(store, after_seq=some.seen_seq) == ["e3", "e4", "big"]
    await store.settle("a", [Outcome(seq=seq, state=DELIVERED, attempts=1) for seq in range(1, 6)])
    assert await due(store) == ["big"]


async def test_a_failed_delivery_holds_back_its_own_scope_only(store: Store) -> None:
    """Later events of the scope wait for the failed one, also new ones; other scopes and other sinks pass."""
    await fill(store, ("a1", "A"), ("a2", "A"), ("b1", "B"))
    first = (await first_due(store))[0]
    await store.settle("a", [Outcome.retry(first, due_ms=NOW_MS + 1000, error="down")])
    await fill(store, ("a3", "A"), ("b2", "B"))
    assert await due(store) == ["b1", "b2"]
    assert await due(store, now_ms=NOW_MS + 999) == ["b1", "b2"]
    assert await due(store, now_ms=NOW_MS + 1000) == ["a1", "a2", "b1", "a3", "b2"]
    assert await due(store, "b") == ["a1", "a2", "b1", "a3", "b2"]


async def test_what_came_before_a_failed_delivery_is_not_held_back(store: Store) -> None:
    """Only later events of the scope wait: an earlier one that is still pending goes out."""
    await fill(store, ("a1", "A"), ("a2", "A"), ("a3", "A"))
    second = (await first_due(store))[1]
    await store.settle("a", [Outcome.retry(second, due_ms=NOW_MS + 1000, error="down")])
    assert await due(store) == ["a1"]


@pytest.mark.parametrize("state", [DELIVERED, DEAD])
async def test_a_settled_delivery_releases_its_scope(store: Store, state: str) -> None:
    """A delivery and a dead letter alike let the next event of the scope go."""
    await fill(store, ("a1", "A"), ("a2", "A"))
    first = (await first_due(store))[0]
    await store.settle("a", [Outcome.retry(first, due_ms=NOW_MS + 1000, error="down")])
    assert await due(store) == []
    await store.settle("a", [Outcome(seq=first.seq, state=state, attempts=2)])
    assert await due(store) == ["a2"]


async def test_a_claim_says_what_it_left(store: Store) -> None:
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


async def test_a_due_time_beyond_reason_counts_as_now(store: Store) -> None:
    """What was put off while the clock was years ahead is not held back for years."""
    await fill(store, ("a1", "A"))
    (one,) = await first_due(store)
    await store.settle("a", [Outcome.retry(one, due_ms=NOW_MS + 10**12, error="x")])
    assert await due(store) == ["a1"]


async def test_settling_twice_is_settling_once(backend: Backend, store: Store) -> None:
    """The same outcomes again change nothing, and a settled delivery does not come back to life."""
    await fill(store, ("a1", "A"), ("b1", "B"))
    one, two = await first_due(store)
    outcomes = [Outcome.delivered(one), Outcome.dead(two, error="no")]
    await store.settle("a", outcomes)
    before = backend.rows("SELECT * FROM deliveries ORDER BY seq, sink")
    await store.settle("a", outcomes)
    await store.settle("a", [Outcome.retry(one, due_ms=5, error="late"), Outcome.delivered(two)])
    assert backend.rows("SELECT * FROM deliveries ORDER BY seq, sink") == before
    assert await store.backlog() == {"a": 0, "b": 2}


async def test_an_error_is_kept_short_and_whatever_its_text(backend: Backend, store: Store) -> None:
    """An error of any length and with a lone surrogate is stored: it must not stop the worker for ever."""
    await fill(store, ("a1", "A"))
    (one,) = await first_due(store)
    await store.settle("a", [Outcome.retry(one, due_ms=NOW_MS + 1, error="\udce4" + "x" * 10_000)])
    await store.close()
    (one_event,) = backend.stored()
    error = one_event.deliveries[0].last_error or ""
    assert error.startswith("\\udce4xxx")
    assert len(error) < 600


ODD_TEXTS = ["plain", 'a "quoted" \\ text', "new\nline", "\U0001f600", "nul\0inside", "1", "{}"]


@pytest.mark.parametrize("raw", [False, True])
@pytest.mark.parametrize("sizes", [[3], [0, 1, 70_000, 2], [8 * MIB, 5, 5]])
async def test_a_claim_hands_out_what_was_stored(backend: Backend, sizes: list[int], *, raw: bool) -> None:
    """Ids of any text, bodies and payloads of any length: each delivery holds its own, byte for byte."""
    stored = {
        f"{text}{size}": (b'{"body":"' + "\u00fc".encode() * size + b'"}', b'{"raw":"' + b"x" * size + b'"}')
        for size in sizes
        for text in ODD_TEXTS
    }
    if len(stored) * max(sizes) > 100_000_000:
        stored = dict(list(stored.items())[:: len(ODD_TEXTS)])
    store = await backend.open("a")
    for number, (event_id, (body, payload)) in enumerate(stored.items()):
        await append(store, msgspec.structs.replace(event(event_id, f"omm_{number}"), body=body, raw=payload))
    claimed: dict[str, tuple[bytes, bytes | None]] = {}
    seen, at_end = None, False
    while not at_end:
        found = await store.claim(
            "a", limit=1_000, per_scope=10, now_ms=NOW_MS, after_seq=seen, skipping=(), raw=raw
        )
        seen, at_end = found.seen_seq, found.at_end
        claimed |= {each.event_id: (each.body, each.raw) for each in found.deliveries}
    assert claimed == {key: (body, payload if raw else None) for key, (body, payload) in stored.items()}
    await store.close()


async def test_a_store_against_a_model(backend: Backend, store: Store) -> None:
    """Hundreds of random appends, claims and outcomes: what is due is always what a plain list says is due."""
    dice = random.Random(7)
    model: dict[str, dict[str, Any]] = {}
    now = NOW_MS
    for step in range(400):
        now += dice.randrange(50)
        if dice.random() < 0.5:
            await fill(store, (f"e{step}", f"omm_{dice.randrange(4)}"))
            (newest,) = backend.rows("SELECT seq, scope FROM events ORDER BY seq DESC LIMIT 1")
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


# -- sinks come and go ----------------------------------------------------------------------------------------------------


async def test_rows_of_a_removed_sink_become_dead_letters(backend: Backend, store: Store) -> None:
    """What a removed sink has not got is dead with "sink removed"; what it has got stays delivered; others are unharmed."""
    await fill(store, ("e1", "A"), ("e2", "A"))
    first = (await first_due(store, "b"))[0]
    await store.settle("b", [Outcome.delivered(first)])
    await store.close()
    again = await reopened(backend, "a")
    assert await again.backlog() == {"a": 2}
    await append(again, event("e3"))
    await again.close()
    states = {
        one.event_id: [(d.sink, d.state, d.last_error) for d in one.deliveries] for one in backend.stored()
    }
    assert states == {
        "e1": [("a", PENDING, None), ("b", DELIVERED, None)],
        "e2": [("a", PENDING, None), ("b", DEAD, "sink removed")],
        "e3": [("a", PENDING, None)],
    }


async def test_an_added_sink_starts_with_the_next_event(backend: Backend, store: Store) -> None:
    """A sink that is new gets nothing of the past and everything from now on."""
    await fill(store, ("e1", "A"))
    await store.close()
    again = await reopened(backend, "a", "b", "c")
    try:
        assert await due(again, "c") == []
        await fill(again, ("e2", "A"))
        assert await due(again, "c") == ["e2"]
        assert await due(again, "a") == ["e1", "e2"]
    finally:
        await again.close()


async def test_a_sink_that_comes_back_starts_with_the_next_event(backend: Backend, store: Store) -> None:
    """Removed and added again under its name, a sink keeps its dead letters and gets only what comes from now on."""
    await fill(store, ("e1", "A"))
    await store.close()
    without = await reopened(backend, "a")
    await fill(without, ("e2", "A"))
    await without.close()
    again = await reopened(backend, "a", "b")
    try:
        assert await due(again, "b") == []
        await fill(again, ("e3", "A"))
        assert await due(again, "b") == ["e3"]
        assert await again.backlog() == {"a": 3, "b": 1}
    finally:
        await again.close()


async def test_without_sinks_events_are_still_kept(backend: Backend) -> None:
    """A store without any sink stores events, with no deliveries."""
    store = await backend.open()
    assert await append(store, event("e1")) is Verdict.STORED
    assert await store.backlog() == {}
    await store.close()
    assert backend.rows("SELECT count(*) FROM deliveries") == [(0,)]


# -- callers -------------------------------------------------------------------------------------------------------------


async def test_a_caller_that_fails_disturbs_nobody(backend: Backend, store: Store) -> None:
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
    assert await backend.received(store) == ["e1", "e2"]
