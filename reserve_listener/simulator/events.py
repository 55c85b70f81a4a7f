"""Events as the platform pushes them: one to build on, and a stream of a busy day's changes."""

from __future__ import annotations

import random as chances
from typing import TYPE_CHECKING, Any, Final
from uuid import uuid4

from reserve_listener.clock import now_ms

if TYPE_CHECKING:
    from collections.abc import Iterator
    from random import Random

EVENT_TYPE: Final = "vc.reserve_config.updated_v1"
LEVEL: Final = 1
ROOM: Final = 2
APP_ID: Final = "cli_5a1e7c0ffee5a1e7"
TENANT_KEY: Final = "70f0c2a95b3d4e18"
TOKEN: Final = "simulatedVerificationToken000001"  # noqa: S105  # what a test must never find in an output
ROOM_ID: Final = "omm_7d1f0a6c52e94b83a0c6e5d4f3b2a190"

_HOUR: Final = 3600


def sample_event(
    *,
    event_id: str | None = None,
    scope_id: str = ROOM_ID,
    scope_type: int = ROOM,
    create_time_ms: int | None = None,
    tenant_key: str = TENANT_KEY,
    app_id: str = APP_ID,
    token: str = TOKEN,
    **event: Any,
) -> dict[str, Any]:
    """The platform's envelope for one change: `{"schema", "header", "event"}`, hours of the day as strings.

    `event_id` is a new one and `create_time_ms` now unless given; further keywords replace or add keys of `event`
    (e.g. `time_config={…}`).
    """
    if create_time_ms is None:
        create_time_ms = now_ms()
    return {
        "schema": "2.0",
        "header": {
            "event_id": event_id or uuid4().hex,
            "event_type": EVENT_TYPE,
            "create_time": str(create_time_ms),
            "token": token,
            "app_id": app_id,
            "tenant_key": tenant_key,
        },
        "event": {"scope_id": scope_id, "scope_type": scope_type, **_configuration(), **event},
    }


def realistic_events(
    random: Random | None = None, *, rooms: int = 12, levels: int = 3, app_id: str = APP_ID
) -> Iterator[dict[str, Any]]:
    """Without end: changes to a building's rooms and levels, each on top of the scope's last configuration.

    Now and then the same scope is changed again at once, as an administrator who corrects a slip does.
    """
    random = random or chances.Random()  # noqa: S311  # no secrets come from here
    staff = [_person(random) for _ in range(20)]
    scopes = [(f"omm_{_hex(random, 32)}", ROOM) for _ in range(rooms)]
    scopes += [(f"omb_{_hex(random, 32)}", LEVEL) for _ in range(levels)]
    state = {scope: _configuration() for scope in scopes}
    scope = scopes[0]
    while True:
        if random.random() > 0.25:  # noqa: PLR2004
            scope = random.choice(scopes)
        state[scope] = random.choice(_CHANGES)(state[scope], random, staff)
        yield sample_event(
            event_id=_hex(random, 32), scope_id=scope[0], scope_type=scope[1], app_id=app_id, **state[scope]
        )


def _configuration() -> dict[str, Any]:
    """The three sections of a room that anybody may book on working days."""
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


def _with(config: dict[str, Any], section: str, **values: Any) -> dict[str, Any]:
    return {**config, section: {**config[section], **values}}


def _change_approval(config: dict[str, Any], random: Random, staff: list[dict[str, Any]]) -> dict[str, Any]:
    if config["approve_config"]["approval_switch"] and random.random() < 0.4:  # noqa: PLR2004
        return _with(config, "approve_config", approval_switch=0, approvers=[])
    return _with(
        config,
        "approve_config",
        approval_switch=1,
        approval_condition=random.randrange(2),
        meeting_duration=random.choice([1, 1.5, 2, 4]),
        approvers=random.sample(staff, random.randint(1, 3)),
    )


def _change_hours(config: dict[str, Any], random: Random, _staff: list[dict[str, Any]]) -> dict[str, Any]:
    start, end = random.choice([(0, 24), (7, 22), (8, 20), (9, 18)])
    return _with(
        config,
        "time_config",
        time_switch=1,
        opening_hour=str(random.choice([27000, 28800, 32400])),
        start_time=str(start * _HOUR),
        end_time=str(end * _HOUR),
    )


def _change_limits(config: dict[str, Any], random: Random, _staff: list[dict[str, Any]]) -> dict[str, Any]:
    return _with(
        config,
        "time_config",
        days_in_advance=random.choice([7, 14, 30, 90, 365]),
        max_duration=random.choice([1, 2, 4, 8, 24]),
    )


def _change_people(config: dict[str, Any], random: Random, staff: list[dict[str, Any]]) -> dict[str, Any]:
    if not config["reserve_scope_config"]["allow_all_users"] and random.random() < 0.3:  # noqa: PLR2004
        return _with(config, "reserve_scope_config", allow_all_users=1, allow_users=[], allow_depts=[])
    return _with(
        config,
        "reserve_scope_config",
        allow_all_users=0,
        allow_users=random.sample(staff, random.randint(1, 4)),
        allow_depts=[{"department_id": f"od-{_hex(random, 32)}"} for _ in range(random.randint(0, 2))],
    )


_CHANGES: Final = (_change_approval, _change_hours, _change_limits, _change_people)


def _person(random: Random) -> dict[str, Any]:
    """A person as the event has them; every third without a user_id, which needs a permission of its own."""
    ids = {"union_id": f"on_{_hex(random, 30)}", "open_id": f"ou_{_hex(random, 31)}"}
    if random.random() < 2 / 3:
        ids["user_id"] = _hex(random, 8)
    return {"user_id": ids}


def _hex(random: Random, digits: int) -> str:
    return f"{random.getrandbits(4 * digits):0{digits}x}"
