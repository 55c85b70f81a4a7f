"""What is known by name, in memory: names of rooms and levels, and of the levels above, never guessed."""

from __future__ import annotations

import json
from typing import Any

import pytest

from reserve_listener.intake import directory as directory_module
from reserve_listener.intake.complete import completing
from reserve_listener.intake.directory import Directory
from reserve_listener.model import IncomingEvent, KnownPlace
from tests.helpers import NOW_MS, event


def level(scope_id: str, name: str | None, parent: str | None, **more: Any) -> KnownPlace:
    return place("level", scope_id, name, parent, **more)


def place(scope_type: str, scope_id: str, name: str | None, parent: str | None, **more: Any) -> KnownPlace:
    known: dict[str, Any] = {"top": False, "seen_ms": NOW_MS} | more
    return KnownPlace(scope_type=scope_type, scope_id=scope_id, name=name, parent=parent, **known)


HOUSE = (
    level("root", "Example Ltd", None, top=True),
    level("beijing", "Beijing", "root", top=True),
    level("tower", "Tower A", "beijing"),
    place("room", "ada", "3F-Ada", "tower"),
    place("room", "hall", "Hall", "root", top=True),
)


def directory(*places: KnownPlace) -> Directory:
    found = Directory()
    found.take(places or HOUSE)
    return found


def data(sealing: Any, one: IncomingEvent) -> dict[str, Any]:
    completed = sealing(one, None)
    found: dict[str, Any] = json.loads(completed.body)["data"]
    return found


@pytest.mark.parametrize(
    ("scope_type", "scope_id", "path"),
    [
        ("room", "ada", ["Beijing", "Tower A"]),
        ("level", "tower", ["Beijing"]),
        ("level", "beijing", []),
        ("room", "hall", []),
        ("level", "root", []),
        ("room", "unknown", None),
    ],
)
def test_a_path_names_the_levels_above_without_the_organisation(
    scope_type: str, scope_id: str, path: list[str] | None
) -> None:
    """From the top down; nothing above is an empty list, and not known is none."""
    assert directory().path(scope_type, scope_id) == path


def test_the_root_need_not_be_known() -> None:
    """What is directly below it says which one it is, also for a room that an event has moved there."""
    known = directory(HOUSE[1], place("room", "moved", "Moved", "root"))
    assert known.path("room", "moved") == []


def test_the_root_alone_is_the_root() -> None:
    """What an event says is right below it has nothing above, before anything else was asked for."""
    known = directory(HOUSE[0], level("new", "New", "root"), place("room", "ada", "3F-Ada", "new"))
    assert known.path("room", "ada") == ["New"]


def test_several_levels_in_nothing_are_no_root() -> None:
    """An organisation whose root the platform does not show: its top levels are told."""
    known = directory(
        level("beijing", "Beijing", None, top=True),
        level("shanghai", "Shanghai", None, top=True),
        place("room", "ada", "3F-Ada", "beijing"),
    )
    assert known.path("room", "ada") == ["Beijing"]


@pytest.mark.parametrize(
    "above",
    [
        (),
        (level("tower", None, "beijing"),),
        (level("tower", "Tower A", None),),
        (level("tower", "Tower A", "elsewhere"),),
        (level("tower", "Tower A", "tower"),),
        (level("tower", "Tower A", "beijing", gone_ms=NOW_MS), HOUSE[1]),
    ],
    ids=["unknown", "no name", "not told where", "unknown above it", "a circle", "gone"],
)
def test_a_path_is_known_whole_or_not_at_all(above: tuple[KnownPlace, ...]) -> None:
    """A level that is not known, has no name or is gone leaves the room without a path, and with its name."""
    known = directory(HOUSE[3], *above)
    assert known.path("room", "ada") is None
    assert known.name("room", "ada") == "3F-Ada"


def test_what_is_gone_keeps_its_name_and_its_path() -> None:
    """Its history is still looked at."""
    gone = [
        level("tower", "Tower A", "beijing", gone_ms=NOW_MS),
        place("room", "ada", "3F-Ada", "tower", gone_ms=NOW_MS),
    ]
    known = directory(*HOUSE[:2], *gone)
    assert known.path("room", "ada") == ["Beijing", "Tower A"]
    assert (known.is_gone("room", "ada"), known.is_gone("room", "hall")) == (True, False)


def test_an_event_is_sealed_with_the_names_of_the_moment() -> None:
    """The keys come in the contract's order, and stay out while nothing is known; a rename is in the next event."""
    known = Directory()
    seal = completing("en", known)
    before = data(seal, event(scope="ada"))
    assert not {"scope_name", "scope_path"} & before.keys()
    known.take(HOUSE)
    named = data(seal, event(scope="ada"))
    assert list(named)[-5:] == ["scope_name", "scope_path", "revision", "changes", "summary"]
    assert (named["scope_name"], named["scope_path"]) == ("3F-Ada", ["Beijing", "Tower A"])
    known.take([place("room", "ada", "3F-Lovelace", "nobody knows")])
    renamed = data(seal, event(scope="ada"))
    assert renamed["scope_name"] == "3F-Lovelace"
    assert "scope_path" not in renamed


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("3F-Ada", "3F-Ada"),
        ("  3F ", "3F"),
        ("", None),
        (" \n", None),
        (None, None),
        (7, None),
        ("a\nb\x1b[31m", "a\\nb\\x1b[31m"),
        ("会" * 61, "会" * 59 + "…"),
    ],
)
def test_a_name_is_made_safe_once(name: object, shown: str | None) -> None:
    """Cut at 60 characters and without what drives a terminal; an empty one is not known."""
    assert directory_module.shown(name) == shown
