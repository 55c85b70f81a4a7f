"""Rooms, levels and people as the API and events write them; and what nobody states about that."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from reserve_listener.simulator.estate import Person, Place


@dataclass(kw_only=True)
class Unstated:
    """What the platform's pages leave open. A client must do with either; tests turn them round."""

    root_in_path: bool = True
    """`path` begins with the organisation's root."""
    root_is_listed: bool = False
    """`room_levels` without an id lists the root itself; else the levels below it."""
    rooms_of_sublevels: bool = False
    """`rooms` of a level lists also the rooms of the levels below it."""
    cover_in_answers: bool = True
    """Limits carry `if_cover_child_scope`, as in the sample of the newer page."""
    inherited_in_answers: bool = True
    """The limits of a place that follows its level are answered; else none of the three sections is."""
    mget_at_most: int = 100
    """Ids that one `mget` takes."""
    hidden: set[str] = field(default_factory=set)
    """Ids that lists leave out, although they are answered by themselves."""


def path(place: Place, unstated: Unstated | None = None) -> list[str]:
    """The ids of the levels above a place."""
    above = [level.id for level in place.above]
    return above if unstated is None or unstated.root_in_path else above[1:]


def room(place: Place, unstated: Unstated | None = None) -> dict[str, Any]:
    """A room. Times are strings of seconds."""
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
    """A level."""
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
