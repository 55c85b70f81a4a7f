"""Names in the store: what is known as of later stays, what is gone is marked, and the directory in memory follows."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from reserve_listener.intake.complete import completing
from reserve_listener.intake.directory import Directory
from reserve_listener.model import IncomingEvent, KnownPlace, PlaceNews, Verdict
from tests import helpers
from tests.helpers import NOW_MS, Clock, append, push, small_event

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from reserve_listener.protocols.store import Store
    from tests.backends import Backend

ROOT = "omb_root"


@pytest.fixture
def directory() -> Directory:
    return Directory()


@pytest.fixture
async def store(backend: Backend, clock: Clock, directory: Directory) -> AsyncIterator[Store]:
    store = await opened(backend, clock, directory)
    yield store
    await store.close()


async def opened(backend: Backend, clock: Clock, directory: Directory) -> Store:
    return await backend.open("a", now_ms=clock, directory=directory, complete=completing("en", directory))


def place(
    scope_id: str, name: str | None, parent: str | None = ROOT, *, seen_ms: int = NOW_MS, kind: str = "room"
) -> KnownPlace:
    return KnownPlace(
        scope_type=kind, scope_id=scope_id, name=name, parent=parent, top=parent == ROOT, seen_ms=seen_ms
    )


def news(
    scope_id: str,
    name: str | None = None,
    *,
    at_ms: int | None = NOW_MS,
    event_id: str | None = None,
    **more: Any,
) -> IncomingEvent:
    """An event about a room or level itself, created then and received as the clock stands in these tests."""
    told = PlaceNews(**({"scope_type": "room", "scope_id": scope_id, "name": name} | more))
    return IncomingEvent(
        tenant_key="t1",
        event_id=event_id or f"{scope_id} {name} {at_ms}",
        raw=b"{}",
        received_ms=NOW_MS + 1,
        created_ms=at_ms,
        news=(told,),
    )


def gone(directory: Directory) -> set[str]:
    return {key[1] for key, one in directory.places.items() if one.gone_ms is not None}


def same(backend: Backend, directory: Directory) -> bool:
    """Whether what is in memory is what a reader finds in the file."""
    found = backend.directory()
    return dict(found.places) == dict(directory.places) and dict(found.people) == dict(directory.people)


async def test_names_outlive_a_restart(
    backend: Backend, store: Store, directory: Directory, clock: Clock
) -> None:
    """What the API told is in the file, and in memory again after the next start, people and the last look included."""
    await store.keep_places([place("omb_1", "Tower", kind="level"), place("omm_1", "Ada", "omb_1")])
    await store.keep_people({"ou_1": "Zhang"})
    await store.looked("cli_a", "places", NOW_MS)
    assert same(backend, directory)
    await store.close()
    later = Directory()
    again = await opened(backend, clock, later)
    assert (later.name("room", "omm_1"), later.path("room", "omm_1")) == ("Ada", ["Tower"])
    assert dict(later.people) == {"ou_1": "Zhang"}
    assert await again.last_look("cli_a", "places") == NOW_MS
    assert (await again.last_look("cli_b", "places"), await again.last_look("cli_a", "people")) == (
        None,
        None,
    )
    await again.close()


async def test_an_answer_of_before_turns_nothing_back(
    backend: Backend, store: Store, directory: Directory, clock: Clock
) -> None:
    """Neither a name that is known as of later, nor that a room is gone; an answer of later does both."""
    await store.keep_places([place("omm_1", "Now"), place("omm_2", "Hall")])
    clock.advance(60)
    await store.mark_gone("room", "omm_2")
    before = NOW_MS - 1
    await store.keep_places([place("omm_1", "Then", seen_ms=before), place("omm_2", "Hall", seen_ms=before)])
    assert (directory.name("room", "omm_1"), gone(directory)) == ("Now", {"omm_2"})
    clock.advance(60)
    await store.keep_places([place("omm_2", "Hall again", seen_ms=clock.now_ms)])
    assert (directory.name("room", "omm_2"), gone(directory)) == ("Hall again", set())
    assert same(backend, directory)


async def test_what_was_written_while_the_clock_was_wrong_holds_nothing_up(
    store: Store, directory: Directory
) -> None:
    """A time that lies in the future counts for nothing."""
    await store.keep_places([place("omm_1", "From the future", seen_ms=NOW_MS * 2)])
    await store.keep_places([place("omm_1", "Now", seen_ms=NOW_MS)])
    assert directory.name("room", "omm_1") == "Now"


async def test_a_name_that_was_not_told_stays(store: Store, directory: Directory) -> None:
    """A key that is missing means a permission that is missing, not a room without a name."""
    await store.keep_places([place("omm_1", "Ada")])
    await store.keep_places([place("omm_1", None)])
    assert directory.name("room", "omm_1") == "Ada"


async def test_only_what_nothing_was_heard_of_is_gone(
    backend: Backend, store: Store, directory: Directory, clock: Clock
) -> None:
    """A room that was not among all there are is gone, unless something was heard of it while they were read."""
    rooms = [place("omm_1", "Ada"), place("omm_2", "Bo")]
    await store.keep_places(rooms)
    clock.advance(1)
    await append(store, news("omm_2", "Bo is here"))
    assert await store.mark_unseen(rooms) == 1
    assert gone(directory) == {"omm_1"}
    assert same(backend, directory)


async def test_what_was_read_is_there_again(
    backend: Backend, store: Store, directory: Directory, clock: Clock
) -> None:
    """A room that was marked because nobody saw it; but not one of whose deletion an event told that is newer than the answer."""
    await store.keep_places([place("omm_1", "Ada"), place("omm_2", "Bo"), place("omm_3", "Cy")])
    clock.advance(1)
    await store.mark_gone("room", "omm_1")
    await append(store, news("omm_2", gone=True, at_ms=NOW_MS + 500))
    await append(store, news("omm_3", gone=True, at_ms=NOW_MS + 2_000))
    for room in ("omm_1", "omm_2", "omm_3", "omm_unknown"):
        await store.mark_there("room", room, as_of_ms=NOW_MS + 1_000)
    assert gone(directory) == {"omm_3"}
    assert directory.name("room", "omm_1") == "Ada"
    assert same(backend, directory)


async def test_an_event_renames_and_nobody_gets_it(
    backend: Backend, store: Store, directory: Directory
) -> None:
    """Names change with the commit; there is no delivery, no history, nothing to list. The same event again is known."""
    await store.keep_places([place("omm_1", "Ada")])
    assert await push(store, news("omm_1", "Lovelace", event_id="n")) is Verdict.STORED
    assert await push(store, news("omm_1", "never", event_id="n")) is Verdict.DUPLICATE
    assert directory.name("room", "omm_1") == "Lovelace"
    assert (backend.stored(), backend.stored(unreadable=True)) == ([], [])
    for table in ("deliveries", "history", "states", "scopes"):
        assert backend.rows(f"SELECT count(*) FROM {table}") == [(0,)]
    assert same(backend, directory)


async def test_events_among_each_other_count_by_when_they_were_made(
    store: Store, directory: Directory
) -> None:
    """A push that comes late turns no name back, and brings no room back."""
    await append(store, news("omm_1", "second", at_ms=2))
    await append(store, news("omm_1", "first", at_ms=1))
    assert directory.name("room", "omm_1") == "second"
    await append(store, news("omm_1", at_ms=4, gone=True))
    await append(store, news("omm_1", "third", at_ms=3))
    assert (directory.name("room", "omm_1"), gone(directory)) == ("second", {"omm_1"})
    await append(store, news("omm_1", "without a time", at_ms=None))
    assert (directory.name("room", "omm_1"), gone(directory)) == ("without a time", set())


async def test_what_an_event_does_not_tell_stays(store: Store, directory: Directory) -> None:
    """A deletion has neither name nor level: what was known of the room is still shown."""
    await store.keep_places([place("omb_1", "Tower", kind="level"), place("omm_1", "Ada", "omb_1")])
    await append(store, news("omm_1", gone=True))
    assert (directory.name("room", "omm_1"), directory.path("room", "omm_1")) == ("Ada", ["Tower"])
    assert gone(directory) == {"omm_1"}


async def test_a_level_moved_takes_what_is_below_it_along(store: Store, directory: Directory) -> None:
    """One event of the level is enough."""
    await store.keep_places(
        [
            place("omb_1", "Beijing", kind="level"),
            place("omb_2", "Tower", kind="level"),
            place("omm_1", "Ada", "omb_2"),
        ]
    )
    await append(store, news("omb_2", "Tower", scope_type="level", parent="omb_1"))
    assert directory.path("room", "omm_1") == ["Beijing", "Tower"]
    await append(store, news("omb_2", "Tower", at_ms=NOW_MS + 1, scope_type="level", parent=ROOT))
    assert directory.path("room", "omm_1") == ["Tower"]


@pytest.mark.parametrize("all_below", [True, False])
async def test_a_level_deleted_with_all_below_it(
    backend: Backend, store: Store, directory: Directory, *, all_below: bool
) -> None:
    """Levels and rooms at any depth are gone with one event, or none but the level itself; neighbours stay."""
    await store.keep_places(
        [
            place("omb_1", "Tower", kind="level"),
            place("omb_2", "Floor", "omb_1", kind="level"),
            place("omm_1", "Ada", "omb_2"),
            place("omm_2", "Bo", "omb_1"),
            place("omm_3", "Neighbour"),
            place("omb_1", "A room with a level's id", "omb_9"),
        ]
    )
    await append(store, news("omb_1", scope_type="level", gone=True, all_below=all_below))
    told = {key for key, one in directory.places.items() if one.gone_ms is not None}
    below = {("level", "omb_2"), ("room", "omm_1"), ("room", "omm_2")} if all_below else set()
    assert told == {("level", "omb_1"), *below}
    assert same(backend, directory)


async def test_a_circle_of_levels_ends(store: Store, directory: Directory) -> None:
    """Two levels that are said to be in each other hang nothing."""
    await append(store, news("omb_1", "One", scope_type="level", parent="omb_2"))
    await append(store, news("omb_2", "Two", scope_type="level", parent="omb_1"))
    assert directory.path("level", "omb_1") is None
    await append(store, news("omb_1", at_ms=NOW_MS + 1, scope_type="level", gone=True, all_below=True))
    assert gone(directory) == {"omb_1", "omb_2"}


async def test_an_event_is_sealed_with_the_name_that_an_event_told(backend: Backend, store: Store) -> None:
    """The whole way: a rename that is committed is in what sinks get of the next change."""
    await push(store, news("omm_1", "Lovelace"))
    await push(store, helpers.event("e1", "omm_1"))
    (one,) = backend.stored()
    assert b'"scope_name":"Lovelace"' in (one.body or b"")


async def test_a_rename_is_known_to_the_next_event_of_the_same_transaction(
    backend: Backend, store: Store
) -> None:
    """Events are sealed with the names of the events before them, however many are stored at once."""
    events = [
        helpers.event("e1", "omm_1"),
        news("omm_1", "Ada", at_ms=1),
        helpers.event("e2", "omm_1"),
        news("omm_1", "Bo", at_ms=2),
        helpers.event("e3", "omm_1"),
    ]
    await store.project(events)
    bodies = [json.loads(one.body or b"")["data"] for one in backend.stored()]
    assert [body.get("scope_name") for body in bodies] == ["Bo", "Ada", None]


async def test_many_at_once_are_as_one_after_the_other(
    backend: Backend, store: Store, directory: Directory
) -> None:
    """In one transaction with changes of limits, duplicates and what tells nothing: each gets its verdict."""
    nothing = IncomingEvent(tenant_key="t1", event_id="empty", raw=b"{}", received_ms=NOW_MS, news=())
    body = b'{"data":{"scope_id":"s"}}'
    events = [
        news("omm_1", "first", at_ms=1, event_id="n1"),
        small_event("e1", body=body),
        nothing,
        news("omm_1", "second", at_ms=2, event_id="n2"),
        news("omm_1", "first", at_ms=1, event_id="n1"),
        small_event("e2", body=body),
    ]
    stored = [Verdict.STORED] * 4
    assert await store.project(events) == [*stored, Verdict.DUPLICATE, Verdict.STORED]
    assert directory.name("room", "omm_1") == "second"
    assert [one.event_id for one in backend.stored()] == ["e2", "e1"]
    assert same(backend, directory)
