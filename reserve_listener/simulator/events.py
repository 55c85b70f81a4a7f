"""Events as the platform pushes them: a sample to build on, events about limits or names, and the changes of a busy day."""

from __future__ import annotations

import random as chances
from typing import TYPE_CHECKING, Any, Final
from uuid import uuid4

from reserve_listener.clock import now_ms
from reserve_listener.simulator import limits
from reserve_listener.simulator.estate import LEVEL as LEVEL, ROOM as ROOM, Estate, Place  # noqa: PLC0414

if TYPE_CHECKING:
    from collections.abc import Iterator
    from random import Random

EVENT_TYPE: Final = "vc.reserve_config.updated_v1"
APP_ID: Final = "cli_5a1e7c0ffee5a1e7"
TENANT_KEY: Final = "70f0c2a95b3d4e18"
TOKEN: Final = "simulatedVerificationToken000001"  # noqa: S105  # what a test must never find in an output
ROOM_ID: Final = "omm_7d1f0a6c52e94b83a0c6e5d4f3b2a190"


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
    """One change in the platform's envelope: `{"schema", "header", "event"}`, with times of day as strings.

    By default `event_id` is new and `create_time_ms` is now. Further keywords replace or add keys of `event`, e.g.
    `time_config={…}`.
    """
    return envelope(
        {"scope_id": scope_id, "scope_type": scope_type, **limits.usual(), **event},
        event_id=event_id,
        create_time_ms=create_time_ms,
        tenant_key=tenant_key,
        app_id=app_id,
        token=token,
    )


def envelope(
    event: dict[str, Any],
    event_type: str = EVENT_TYPE,
    *,
    event_id: str | None = None,
    create_time_ms: int | None = None,
    tenant_key: str = TENANT_KEY,
    app_id: str = APP_ID,
    token: str = TOKEN,
) -> dict[str, Any]:
    """Any type of event in the platform's envelope."""
    return {
        "schema": "2.0",
        "header": {
            "event_id": event_id or uuid4().hex,
            "event_type": event_type,
            "create_time": str(now_ms() if create_time_ms is None else create_time_ms),
            "token": token,
            "app_id": app_id,
            "tenant_key": tenant_key,
        },
        "event": event,
    }


def limits_event(place: Place) -> dict[str, Any]:
    """The `vc.reserve_config.updated_v1` event for a level or room, with its limits now."""
    sections = {name: dict(section) for name, section in place.limits.items()}
    return {"scope_id": place.id, "scope_type": place.scope_type, **sections}


def realistic_events(
    random: Random | None = None,
    *,
    rooms: int = 12,
    levels: int = 3,
    app_id: str = APP_ID,
    estate: Estate | None = None,
) -> Iterator[dict[str, Any]]:
    """Changes to an estate's first rooms and levels, each based on the scope's last limits, for as long as one of them is left.

    Taking an event changes the estate, which is a new one by default. Now and then the same scope changes again at once, as if
    an administrator corrected a slip.
    """
    random = random or chances.Random()  # noqa: S311  # no secrets come from here
    estate = estate or Estate(rooms=rooms, seed=random.getrandbits(32))
    scopes = [*estate.rooms[:rooms], *estate.levels[:levels]]
    staff = [person.told for person in estate.people]
    scope = scopes[0]
    while scopes:
        if random.random() > 0.25 or scope not in scopes:  # noqa: PLR2004
            scope = random.choice(scopes)
        if estate.get(scope.id) is None:  # deleted meanwhile
            scopes.remove(scope)
            continue
        scope.own = limits.at_random(scope.limits, random, staff)
        yield envelope(limits_event(scope), event_id=f"{random.getrandbits(128):032x}", app_id=app_id)
