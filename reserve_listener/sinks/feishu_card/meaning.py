"""Whether a change lets people book more or less: what a card's colour says. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from reserve_listener.intake.changes import SWITCHES

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from reserve_listener.intake.changes import Change

LOOSER: Final = "green"
TIGHTER: Final = "orange"
NEWS: Final = "blue"
"""Neither, or both."""
NO_EFFECT: Final = "grey"

MORE_IS_LOOSER: Final = {
    "approve_config.approval_switch": False,
    "approve_config.approval_condition": True,
    "approve_config.meeting_duration": True,
    "time_config.time_switch": False,
    "time_config.days_in_advance": True,
    "time_config.opening_hour": False,
    "time_config.start_time": False,
    "time_config.end_time": True,
    "time_config.max_duration": True,
    "reserve_scope_config.allow_all_users": True,
    "reserve_scope_config.allow_users": True,
    "reserve_scope_config.allow_depts": True,
}
"""What is not here, such as who approves, is neither more nor less."""

CONDITIONS: Final = {"all": 0, "conditional": 1}

_SWITCH_PATHS: Final = {section: f"{section}.{switch}" for section, (switch, _) in SWITCHES.items()}


def colour(changes: Sequence[Change]) -> str:
    """Of one change's card."""
    effective = [change for change in changes if change.get("effective") is not False]
    if not effective:
        return NO_EFFECT
    turned = {change["path"] for change in effective} & set(_SWITCH_PATHS.values())
    directions = {
        _direction(change)
        for change in effective
        # A switch that was turned decides what the rest of its section means.
        if change["path"] in turned or _SWITCH_PATHS.get(change["path"].partition(".")[0]) not in turned
    } - {0}
    return (LOOSER if max(directions) > 0 else TIGHTER) if len(directions) == 1 else NEWS


def together(colours: Iterable[str]) -> str:
    """Of a card with several changes."""
    found = set(colours)
    telling = found - {NO_EFFECT} or found
    return telling.pop() if len(telling) == 1 else NEWS


def _direction(change: Change) -> int:
    """1: looser, -1: tighter, 0: neither."""
    is_looser = MORE_IS_LOOSER.get(change["path"])
    if is_looser is None:
        return 0
    more = _sign(len(change["added"]), len(change["removed"])) if "added" in change else _grown(change)
    return more if is_looser else -more


def _grown(change: Change) -> int:
    before, after = _number(change.get("before")), _number(change.get("after"))
    return 0 if before is None or after is None else _sign(after, before)


def _number(value: Any) -> float | None:
    if isinstance(value, str):
        return CONDITIONS.get(value)
    return value if isinstance(value, bool | int | float) else None


def _sign(one: float, other: float) -> int:
    return (one > other) - (one < other)
