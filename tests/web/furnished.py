"""A store as an office leaves it after a day: levels and rooms by name, and changes of their limits."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import msgspec

from reserve_listener.intake import normalize
from reserve_listener.model import KnownPlace
from reserve_listener.simulator import sample_event
from tests.helpers import append

if TYPE_CHECKING:
    from reserve_listener.model import IncomingEvent
    from reserve_listener.protocols.store import Store

MINUTE_MS: Final = 60_000
HOUR_MS: Final = 60 * MINUTE_MS

LEVELS: Final = {
    "omb_hq": ("Shanghai HQ", None),
    "omb_a": ("Tower A", "omb_hq"),
    "omb_b": ("Tower B", "omb_hq"),
    "omb_3f": ("3F", "omb_b"),
    "omb_5f": ("5F", "omb_b"),
    "omb_12f": ("12F", "omb_a"),
}
ROOMS: Final = {
    "omm_ada": ("3F-Ada", "omb_3f"),
    "omm_turing": ("5F-Turing", "omb_5f"),
    "omm_board": ("Boardroom", "omb_12f"),
    "omm_lake": ("西湖厅", "omb_12f"),
}

TIMES: Final = {
    "time_switch": 1,
    "days_in_advance": 30,
    "opening_hour": "27900",
    "start_time": "28800",
    "end_time": "72000",
    "max_duration": 24,
}
APPROVAL: Final = {"approval_switch": 0, "approval_condition": 0, "meeting_duration": 3, "approvers": []}
MEMBERS: Final = {"allow_all_users": 1, "allow_users": [], "allow_depts": []}


def place(
    kind: str, scope_id: str, name: str | None, parent: str | None, *, gone_ms: int | None = None
) -> KnownPlace:
    """As the platform's API tells of it."""
    return KnownPlace(
        scope_type=kind,
        scope_id=scope_id,
        name=name,
        parent=parent,
        top=parent is None,
        seen_ms=1,
        gone_ms=gone_ms,
    )


def changed(event_id: str, scope_id: str, at_ms: int, **sections: Any) -> IncomingEvent:
    """A push with these values in its sections, the others as usual."""
    told = {
        "approve_config": APPROVAL | sections.get("approve", {}),
        "time_config": TIMES | sections.get("time", {}),
        "reserve_scope_config": MEMBERS | sections.get("members", {}),
    }
    kind = 1 if scope_id.startswith("omb_") else 2
    envelope = sample_event(
        event_id=event_id, scope_id=scope_id, scope_type=kind, create_time_ms=at_ms, **told
    )
    return normalize.incoming(msgspec.json.encode(envelope), envelope, received_ms=at_ms)


async def furnish(store: Store, now_ms: int) -> None:
    """The office, and some changes in it, the last a few minutes ago."""
    await store.keep_places(
        [place("level", one, *rest) for one, rest in LEVELS.items()]
        + [place("room", one, *rest) for one, rest in ROOMS.items()]
    )
    user = {"open_id": "ou_lilei", "union_id": "on_1", "user_id": "u1"}
    steps: list[tuple[str, int, dict[str, Any]]] = [
        ("omm_ada", 26 * HOUR_MS, {}),
        ("omm_board", 25 * HOUR_MS, {}),
        ("omb_b", 24 * HOUR_MS, {"time": {"start_time": "27900", "end_time": "79200"}}),
        ("omm_turing", 9 * HOUR_MS, {}),
        ("omm_turing", 6 * HOUR_MS, {"time": {"days_in_advance": 60}}),
        ("omb_b", 4 * HOUR_MS, {}),
        ("omm_board", 2 * HOUR_MS, {"members": {"allow_all_users": 0, "allow_users": [user]}}),
        ("omm_ada", 7 * MINUTE_MS, {
            "time": {"max_duration": 2},
            "approve": {"approval_switch": 1, "approval_condition": 1, "meeting_duration": 1, "approvers": [user]},
        }),
    ]  # fmt: skip
    for number, (scope_id, ago_ms, sections) in enumerate(steps):
        await append(store, changed(f"ev-{number}", scope_id, now_ms - ago_ms, **sections))
