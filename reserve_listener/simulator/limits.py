"""A scope's limits, in three sections: in the forms of events and of the API, and how they change.

An estate keeps them in the form of events, with three ids for each person. A dict of limits is replaced, never changed, since
scopes may share it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from random import Random

SECTIONS: Final = ("approve_config", "time_config", "reserve_scope_config")
_HOUR: Final = 3600


def usual() -> dict[str, Any]:
    """The limits of a room that anybody may book on working days."""
    return {
        "approve_config": {
            "approval_switch": 0,
            "approval_condition": 0,
            "meeting_duration": 2,
            "approvers": [],
        },
        "time_config": {
            "time_switch": 1,
            "days_in_advance": 60,
            "opening_hour": "28800",
            "start_time": "0",
            "end_time": "86400",
            "max_duration": 8,
        },
        "reserve_scope_config": {"allow_all_users": 1, "allow_users": [], "allow_depts": []},
    }


def changed(limits: dict[str, Any], section: str, **values: Any) -> dict[str, Any]:
    """The limits with these values in one section."""
    return {**limits, section: {**limits[section], **values}}


# -- what an administrator does on a busy day -------------------------------------------------------------------------------


def at_random(limits: dict[str, Any], random: Random, staff: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """The limits after some change."""
    return random.choice(_CHANGES)(limits, random, staff)


def _approval(limits: dict[str, Any], random: Random, staff: Sequence[dict[str, Any]]) -> dict[str, Any]:
    if limits["approve_config"]["approval_switch"] and random.random() < 0.4:  # noqa: PLR2004
        return changed(limits, "approve_config", approval_switch=0, approvers=[])
    return changed(
        limits,
        "approve_config",
        approval_switch=1,
        approval_condition=random.randrange(2),
        meeting_duration=random.choice([1, 1.5, 2, 4]),
        approvers=random.sample(staff, random.randint(1, 3)),
    )


def _hours(limits: dict[str, Any], random: Random, _staff: Sequence[dict[str, Any]]) -> dict[str, Any]:
    start, end = random.choice([(0, 24), (7, 22), (8, 20), (9, 18)])
    return changed(
        limits,
        "time_config",
        time_switch=1,
        opening_hour=str(random.choice([27000, 28800, 32400])),
        start_time=str(start * _HOUR),
        end_time=str(end * _HOUR),
    )


def _bounds(limits: dict[str, Any], random: Random, _staff: Sequence[dict[str, Any]]) -> dict[str, Any]:
    return changed(
        limits,
        "time_config",
        days_in_advance=random.choice([7, 14, 30, 90, 365]),
        max_duration=random.choice([1, 2, 4, 8, 24]),
    )


def _people(limits: dict[str, Any], random: Random, staff: Sequence[dict[str, Any]]) -> dict[str, Any]:
    if not limits["reserve_scope_config"]["allow_all_users"] and random.random() < 0.3:  # noqa: PLR2004
        return changed(limits, "reserve_scope_config", allow_all_users=1, allow_users=[], allow_depts=[])
    return changed(
        limits,
        "reserve_scope_config",
        allow_all_users=0,
        allow_users=random.sample(staff, random.randint(1, 4)),
        allow_depts=[
            {"department_id": f"od-{random.getrandbits(128):032x}"} for _ in range(random.randint(0, 2))
        ],
    )


_CHANGES: Final = (_approval, _hours, _bounds, _people)

# -- the API's forms --------------------------------------------------------------------------------------------------------

_PEOPLE: Final = {"approvers": "approve_config", "allow_users": "reserve_scope_config"}
COVERING: Final = ("time_config", "reserve_scope_config")
"""The sections that carry `if_cover_child_scope`."""


def answered(limits: dict[str, Any], id_type: str, *, cover: bool) -> dict[str, Any]:
    """The limits as the API returns them: one id for each person, of the kind asked for; people without one are left out."""
    answer = {name: dict(section) for name, section in limits.items()}
    for key, section in _PEOPLE.items():
        people = answer.get(section, {}).get(key, [])
        ids = [person["user_id"].get(id_type) for person in people]
        if section in answer:
            answer[section][key] = [{"user_id": each} for each in ids if each is not None]
    for section in COVERING if cover else ():
        if section in answer:
            answer[section]["if_cover_child_scope"] = False
    return answer


def taken(
    limits: dict[str, Any], body: dict[str, Any], person: Callable[[str], dict[str, Any]]
) -> dict[str, Any]:
    """The limits after a `PATCH` with this body. `person` finds people by id; `KeyError` if there is nobody.

    As on the platform, what a section leaves out returns to its default.
    """
    patch = {
        name: body[key]
        for name, key in zip(SECTIONS, ("approval_config", *SECTIONS[1:]), strict=True)
        if isinstance(body.get(key), dict)
    }
    for key, section in _PEOPLE.items():
        for given in patch.get(section, {}).get(key, []):
            person(given["user_id"])
    return limits | {name: _whole(name, section, person) for name, section in patch.items()}


def covers(body: dict[str, Any]) -> bool:
    """Whether a `PATCH` applies the limits to everything below, too."""
    sections = (body.get(name) for name in COVERING)
    return any(isinstance(each, dict) and each.get("if_cover_child_scope") is True for each in sections)


def _whole(name: str, section: dict[str, Any], person: Callable[[str], dict[str, Any]]) -> dict[str, Any]:
    told = {key: value for key, value in section.items() if key != "if_cover_child_scope"}
    for key in told.keys() & _PEOPLE.keys():
        told[key] = [person(given["user_id"]) for given in told[key]]
    return _DEFAULTS[name] | told


_DEFAULTS: Final[dict[str, dict[str, Any]]] = {
    "approve_config": {
        "approval_switch": 0,
        "approval_condition": 0,
        "meeting_duration": 99,
        "approvers": [],
    },
    "time_config": {
        "time_switch": 1,
        "days_in_advance": 365,
        "opening_hour": "28800",
        "start_time": "0",
        "end_time": "86400",
        "max_duration": 2,
    },
    "reserve_scope_config": {"allow_all_users": 1, "allow_users": [], "allow_depts": []},
}
