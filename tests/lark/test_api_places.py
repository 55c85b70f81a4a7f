"""Rooms and levels through the API: against the simulator in all its moods, and against lists that make no sense."""

from __future__ import annotations

import itertools
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import pytest

from reserve_listener.config import LarkConfig
from reserve_listener.lark.api import walk
from reserve_listener.lark.api.client import Client
from reserve_listener.lark.api.errors import (
    GoneError,
    PermissionMissingError,
    TryAgainError,
)
from reserve_listener.simulator import ApiFault, Estate, Simulator
from tests.lark.scripted import Asked, World, refused, world
from tests.lark.waiting import Clock

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from reserve_listener.lark.api.answers import Place, ScopeType
    from reserve_listener.simulator import Place as Simulated

LEVELS, ROOMS = walk.PATHS["level"], walk.PATHS["room"]


@asynccontextmanager
async def client_of(simulator: Simulator) -> AsyncIterator[Client]:
    """A client that waits on a clock of its own."""
    lark = LarkConfig(app_id=simulator.app_id, app_secret=simulator.app_secret, domain=simulator.domain)
    clock = Clock()
    client = Client(lark, hide=lambda *_: None, clock=clock, sleep=clock.sleep)
    try:
        yield client
    finally:
        await client.close()


async def all_of(client: Client) -> list[Place]:
    return [place async for place in client.places()]


def expected(place: Simulated) -> tuple[Any, ...]:
    """What is to be known of a level or room."""
    kind = "level" if place.scope_type == 1 else "room"
    above = tuple(level.id for level in place.above[1:])
    return kind, place.id, place.name, place.parent.id if place.parent else None, above


def known(place: Place) -> tuple[Any, ...]:
    return place.scope_type, place.scope_id, place.name, place.parent, place.path


@pytest.mark.parametrize(
    ("in_path", "listed", "deep"), list(itertools.product([True, False], repeat=3)), ids=str
)
async def test_everything_is_found_once(*, in_path: bool, listed: bool, deep: bool) -> None:
    """Whatever the platform's pages leave open, each room, level and the root comes once, with its path, below what it is in."""
    async with Simulator(estate=Estate(rooms=230, depth=4)) as simulator, client_of(simulator) as client:
        simulator.unstated.root_in_path = in_path
        simulator.unstated.root_is_listed = listed
        simulator.unstated.rooms_of_sublevels = deep
        found = await all_of(client)
    assert sorted(map(known, found), key=str) == sorted(map(expected, simulator.estate.places), key=str)
    seen: set[str] = set()
    for place in found:
        assert place.parent in seen or place.parent is None
        assert seen.issuperset(place.path)
        seen.add(place.scope_id)


@pytest.mark.parametrize("in_path", [True, False])
async def test_one_place(*, in_path: bool) -> None:
    """A single room or level is told as the walk tells it."""
    async with Simulator() as simulator, client_of(simulator) as client:
        simulator.unstated.root_in_path = in_path
        estate = simulator.estate
        for place in (estate.rooms[3], estate.levels[0], estate.levels[-1], estate.root):
            kind: ScopeType = "level" if place.scope_type == 1 else "room"
            assert known(await client.place(kind, place.id)) == expected(place)


async def test_a_place_that_is_gone() -> None:
    """So it is of a room that was deleted, and of a room's id that is asked for as a level's."""
    async with Simulator() as simulator, client_of(simulator) as client:
        room, other = simulator.estate.rooms[:2]
        simulator.estate.remove(room)
        asked: list[tuple[ScopeType, str]] = [
            ("room", room.id),
            ("level", other.id),
            ("room", "../0"),
            ("room", ""),
        ]
        for kind, scope_id in asked:
            with pytest.raises(GoneError):
                await client.place(kind, scope_id)


async def test_limits_of_what_is_not_there() -> None:
    """A deleted room and a wrong type are gone with a code; a room's id as a level's says nothing of the app."""
    async with Simulator() as simulator, client_of(simulator) as client:
        room, level = simulator.estate.rooms[0], simulator.estate.levels[0]
        simulator.estate.remove(room)
        for scope_id in (room.id, level.id):
            with pytest.raises(GoneError) as caught:
                await client.limits("room", scope_id)
            assert caught.value.code == 126001
        assert (await client.limits("level", level.id)).config.keys() == {
            "approve_config",
            "time_config",
            "reserve_scope_config",
        }


async def test_a_hundred_a_minute_are_never_exceeded() -> None:
    """The simulator counts as the platform does, for 300 reads at the highest pace; nobody is told to wait."""
    clock = Clock()
    async with Simulator(clock=clock) as simulator:
        lark = LarkConfig(app_id=simulator.app_id, app_secret=simulator.app_secret, domain=simulator.domain)
        client = Client(lark, requests_per_minute=100, hide=lambda *_: None, clock=clock, sleep=clock.sleep)
        for _ in range(300):
            await client.limits("room", simulator.estate.rooms[0].id)
        await client.close()
    assert {call.status for call in simulator.calls} == {200}


async def test_people_at_their_pace() -> None:
    """Five times a second is the platform's bound: a hundred people are asked for without one refusal."""
    clock = Clock()
    async with Simulator(clock=clock) as simulator:
        lark = LarkConfig(app_id=simulator.app_id, app_secret=simulator.app_secret, domain=simulator.domain)
        client = Client(lark, hide=lambda *_: None, clock=clock, sleep=clock.sleep)
        staff = {one.ids["open_id"]: one.name for one in simulator.estate.people}
        asked = [*staff, *(f"ou_{number}" for number in range(100))]
        assert (await client.people(asked)).keys() == staff.keys()
        await client.close()
    assert {call.status for call in simulator.calls} == {200}


async def test_a_missing_permission_ends_the_walk() -> None:
    """It is named, and nothing is taken for an organisation without rooms."""
    async with Simulator() as simulator, client_of(simulator) as client:
        simulator.permissions.clear()
        with pytest.raises(PermissionMissingError) as caught:
            await all_of(client)
    assert caught.value.permissions == ("vc:room", "vc:room:readonly")


async def test_tokens_that_die_early() -> None:
    """The platform forgets its tokens, as after a new secret: the next call gets a new one and succeeds."""
    async with Simulator() as simulator, client_of(simulator) as client:
        room = simulator.estate.rooms[0]
        await client.limits("room", room.id)
        simulator.expire_tokens()
        await client.limits("room", room.id)
        assert [call.code for call in simulator.calls if "reserve_scope" in call.path] == [0, 99991663, 0]


async def test_the_walk_survives_a_bad_day() -> None:
    """Each list fails once, is too often, or breaks off, and a token dies: everything is found all the same."""
    async with Simulator() as simulator, client_of(simulator) as client:
        simulator.faults.api += [
            ApiFault.too_often(1, path="/rooms"),
            ApiFault(path="/room_levels", times=2, status=500, code=121001),
            ApiFault(path="/rooms", times=1, cut=True),
            ApiFault(path="/rooms", times=1, status=502),
            ApiFault.token_refused(1),
        ]
        assert len(await all_of(client)) == len(simulator.estate.places)


# -- lists that make no sense -------------------------------------------------------------------------------------------


def level(level_id: str, parent: str = "", **more: Any) -> dict[str, Any]:
    return {"room_level_id": level_id, "name": f"name of {level_id}", "parent_id": parent, **more}


def room(room_id: str, parent: str = "", **more: Any) -> dict[str, Any]:
    return {"room_id": room_id, "name": f"name of {room_id}", "room_level_id": parent, **more}


def script(there: World, levels: dict[str, list[Any]], rooms: dict[str, list[Any]]) -> None:
    """What each level lists."""
    there.platform.answers[LEVELS] = [
        lambda asked: {"items": levels.get(asked.query.get("room_level_id", ""), [])}
    ]
    there.platform.answers[ROOMS] = [
        lambda asked: {"rooms": rooms.get(asked.query.get("room_level_id", ""), [])}
    ]


async def test_a_root_that_only_its_children_know() -> None:
    """If the root cannot be asked for, paths begin below it all the same."""
    async with world() as there:
        script(
            there,
            {"": [level("b1", "root"), level("b2", "root")], "b1": [level("f1", "b1")]},
            {"f1": [room("r1", "f1", path=["root", "b1", "f1"])], "": [room("r0", "root", path=["root"])]},
        )
        found = await all_of(there.client)
    assert {place.scope_id: place.path for place in found} == {
        "b1": (),
        "b2": (),
        "f1": ("b1",),
        "r1": ("b1", "f1"),
        "r0": (),
    }


async def test_a_root_that_is_listed_and_cannot_be_asked_for() -> None:
    """Alone at the top and without a level above it, it is the root: its name is in no path."""
    async with world() as there:
        script(there, {"": [level("root")], "root": [level("b1", "root")]}, {"b1": [room("r1", "b1")]})
        found = await all_of(there.client)
    assert {place.scope_id: (place.parent, place.path) for place in found} == {
        "root": (None, ()),
        "b1": ("root", ()),
        "r1": ("b1", ("b1",)),
    }


async def test_levels_in_a_circle_and_odd_items() -> None:
    """A level below itself, one that comes twice, and items that are none: the walk ends and tells each once."""
    async with world() as there:
        script(
            there,
            {
                "": [level("a"), level("b"), 7, None, {}, level(""), {"room_level_id": ["x"]}],
                "a": [level("b", "a"), level("a", "b"), level("c", "a", name=None, path="x")],
                "c": [level("a", "c")],
            },
            {"a": [room("r", "a"), room("r", "a"), {"room_id": 5}], "b": [room("r", "b")]},
        )
        found = await all_of(there.client)
    assert [(place.scope_id, place.name) for place in found] == [
        ("a", "name of a"),
        ("b", "name of b"),
        ("c", ""),
        ("r", "name of r"),
    ]


async def test_a_level_that_is_deleted_while_we_walk() -> None:
    """What is gone has no rooms; all others are found."""
    async with world() as there:
        script(there, {"": [level("a"), level("b")]}, {"b": [room("r", "b")]})
        (listed,) = there.platform.answers[ROOMS]
        there.platform.answers[ROOMS] = [
            lambda asked: (
                refused(121004, status=404) if asked.query.get("room_level_id") == "a" else listed(asked)
            )
        ]
        assert [place.scope_id for place in await all_of(there.client)] == ["a", "b", "r"]


@pytest.mark.parametrize("tokens", [["1", "1"], ["1", "2", "1"], [""], [None], [7]])
async def test_pages_that_do_not_end(tokens: list[Any]) -> None:
    """A page token that repeats or is missing is an error, not a loop."""
    asked: list[str] = []

    def page(request: Asked) -> dict[str, Any]:
        asked.append(request.query.get("page_token", ""))
        token = tokens[min(len(asked), len(tokens)) - 1]
        return {"items": [], "has_more": True, "page_token": token}

    async with world() as there:
        there.platform.answers[LEVELS] = [page]
        with pytest.raises(TryAgainError, match="does not end"):
            await all_of(there.client)
    assert len(asked) <= len(tokens)


async def test_pages_without_end(monkeypatch: pytest.MonkeyPatch) -> None:
    """A new token each time ends, too."""
    monkeypatch.setattr(walk, "MOST_PAGES", 50)
    numbers = itertools.count()
    async with world() as there:
        there.platform.answers[LEVELS] = [
            lambda _: {"items": [], "has_more": True, "page_token": f"p{next(numbers)}"}
        ]
        with pytest.raises(TryAgainError, match="does not end"):
            await all_of(there.client)
    assert next(numbers) == 50


async def test_levels_without_end(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each level has another one below it: there is a bound on how many are believed."""
    monkeypatch.setattr(walk, "MOST_PLACES", 50)
    numbers = itertools.count()
    async with world() as there:
        there.platform.answers[LEVELS] = [lambda _: {"items": [level(f"l{next(numbers)}")]}]
        with pytest.raises(TryAgainError, match="more than 50"):
            await all_of(there.client)


async def test_pages_are_followed() -> None:
    """The next page is asked for with the token of the last, and the largest page that there is."""
    async with world() as there:
        there.platform.answers[LEVELS] = [{}]
        there.platform.answers[ROOMS] = [
            {"rooms": [room("r1")], "has_more": True, "page_token": "two"},
            {"rooms": [room("r2")], "has_more": False, "page_token": "two"},
        ]
        assert [place.scope_id for place in await all_of(there.client)] == ["r1", "r2"]
        assert [each.query for each in there.platform.of(ROOMS)] == [
            {"page_size": "100"},
            {"page_size": "100", "page_token": "two"},
        ]
