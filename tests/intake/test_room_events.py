"""Events about rooms and levels themselves: what each of them tells."""

from __future__ import annotations

from typing import Any

import pytest

from reserve_listener.intake.room_events import TYPES, incoming
from reserve_listener.model import PlaceNews

ROOM = {
    "room_id": "omm_1",
    "name": "3F-Ada",
    "capacity": 8,
    "room_level_id": "omb_3",
    "path": ["omb_1", "omb_3"],
    "room_status": {"status": True},
}
LEVEL = {
    "room_level_id": "omb_3",
    "name": "3F",
    "parent_id": "omb_1",
    "path": ["omb_1", "omb_3"],
    "has_child": True,
}


def news(event_type: str, event: dict[str, Any]) -> PlaceNews | None:
    header = {"event_id": "e1", "create_time": "1790000000000", "tenant_key": "t1"}
    told = incoming(f"p2.{event_type}", b"{}", {"header": header, "event": event}, received_ms=7)
    assert (told.event_id, told.tenant_key, told.created_ms, told.received_ms) == (
        "e1",
        "t1",
        1790000000000,
        7,
    )
    assert (told.scope, told.body, told.problem, told.is_unreadable) == (None, None, None, False)
    assert told.news is not None
    return told.news[0] if told.news else None


@pytest.mark.parametrize("event_type", ["vc.room.created_v1", "vc.room.updated_v1", "vc.room.deleted_v1"])
def test_a_room(event_type: str) -> None:
    """Its name and where it is; of a deleted one that it is gone as well."""
    assert news(event_type, {"room": ROOM}) == PlaceNews(
        scope_type="room", scope_id="omm_1", name="3F-Ada", parent="omb_3", gone="deleted" in event_type
    )


@pytest.mark.parametrize("event_type", ["vc.room_level.created_v1", "vc.room_level.updated_v1"])
def test_a_level(event_type: str) -> None:
    """Its name and where it is."""
    told = PlaceNews(scope_type="level", scope_id="omb_3", name="3F", parent="omb_1")
    assert news(event_type, {"room_level": LEVEL}) == told


@pytest.mark.parametrize(
    ("delete_child", "all_below"), [(True, True), (False, False), (None, False), ("yes", False)]
)
def test_a_level_that_is_deleted(delete_child: object, all_below: bool) -> None:  # noqa: FBT001  # a column
    """All below it is gone only if that is said."""
    told = news("vc.room_level.deleted_v1", {"room_level_id": "omb_3", "delete_child": delete_child})
    assert told == PlaceNews(scope_type="level", scope_id="omb_3", gone=True, all_below=all_below)


def test_what_is_missing_was_not_told() -> None:
    """No name, no level, or such as are none: nothing is known of it."""
    for odd in ({}, {"name": "", "room_level_id": ""}, {"name": 7, "room_level_id": ["omb_3"]}):
        assert news("vc.room.updated_v1", {"room": {"room_id": "omm_1"} | odd}) == PlaceNews(
            scope_type="room", scope_id="omm_1"
        )


def test_a_name_is_made_safe_on_its_way_in() -> None:
    """What would drive a terminal is shown as its escape, and a long name is cut."""
    told = news("vc.room.updated_v1", {"room": {"room_id": "omm_1", "name": "a\x1b[2J" + "b" * 100}})
    assert told is not None
    assert told.name == "a\\x1b[2J" + "b" * 51 + "…"


@pytest.mark.parametrize("event_type", TYPES)
def test_without_an_id_nothing_is_told(event_type: str) -> None:
    """Nobody knows which room it is about."""
    assert (
        news(event_type.removeprefix("p2."), {"room": {"name": "Ada"}, "room_level": {"name": "3F"}}) is None
    )
