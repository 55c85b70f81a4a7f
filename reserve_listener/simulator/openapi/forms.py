"""The forms in which the API and events show rooms, levels and people; and what the documentation leaves open about them."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from reserve_listener.simulator.estate import Person, Place


@dataclass(kw_only=True)
class Unstated:
    """What the platform's documentation leaves open. A client must cope with either; tests try both."""

    root_in_path: bool = True
    """`path` begins with the organisation's root."""
    root_is_listed: bool = False
    """`room_levels` without an id lists the root itself; else the levels below it."""
    rooms_of_sublevels: bool = False
    """`rooms` of a level also lists the rooms of the levels below it."""
    cover_in_answers: bool = True
    """Limits contain `if_cover_child_scope`, as in the sample of the newer page."""
    inherited_in_answers: bool = True
    """A place that follows its level is answered with those limits; else with none of the three sections."""
    mget_at_most: int = 100
    """How many ids one `mget` takes."""
    hidden: set[str] = field(default_factory=set)
    """Ids that lists leave out, although asking for one of them works."""


def path(place: Place, unstated: Unstated | None = None) -> list[str]:
    """The ids of the levels above a place."""
    above = [level.id for level in place.above]
    return above if unstated is None or unstated.root_in_path else above[1:]


def room(place: Place, unstated: Unstated | None = None) -> dict[str, Any]:
    """A room in the form of the API. Times are seconds as strings."""
    assert place.parent is not None  # noqa: S101  # a room is below a level
    return {
        "room_id": place.id,
        "name": place.name,
        "capacity": place.capacity,
        "description": "",
        "display_id": f"LM{int(place.id[4:12], 16):010d}",
        "custom_room_id": "",
        "room_level_id": place.parent.id,
        "path": path(place, unstated),
        "room_status": {
            "status": place.status,
            "schedule_status": True,
            "disable_start_time": "0",
            "disable_end_time": "0",
            "disable_reason": "",
            "contact_ids": [],
            "disable_notice": False,
            "resume_notice": False,
        },
        "device": [{"name": "TV"}],
    }


def level(place: Place, unstated: Unstated | None = None) -> dict[str, Any]:
    """A level in the form of the API."""
    return {
        "room_level_id": place.id,
        "name": place.name,
        "parent_id": place.parent.id if place.parent else "0",
        "path": path(place, unstated),
        "has_child": bool(place.levels),
        "custom_group_id": "",
    }


def person(one: Person, id_type: str) -> dict[str, Any]:
    """Somebody's name."""
    return {
        "user_id": one.ids[id_type],
        "name": one.name,
        "i18n_name": {"zh_cn": one.name, "en_us": one.english, "ja_jp": ""},
    }
