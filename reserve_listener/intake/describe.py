"""A room's limits in one sentence, for the lines that people read. Total: whatever an event holds, there is a sentence."""

from __future__ import annotations

from typing import Any, Final

SECONDS_OF_HOUR: Final = 3600


def describe(data: Any) -> str:
    """The limits that an event's `data` tells, in a glance: `approval off · 30 days ahead · 07:45-20:00 · …`."""
    approve, when, who = (
        _section(data, name) for name in ("approve_config", "time_config", "reserve_scope_config")
    )
    condition = approve.get("approval_condition", "on") if approve.get("approval_switch") else "off"
    facts = [f"approval {condition}"]
    if when.get("time_switch"):
        facts.append(f"{when.get('days_in_advance')} days ahead")
        facts.append(f"{_clock(when.get('start_time'))}-{_clock(when.get('end_time'))}")
        facts.append(f"at most {when.get('max_duration')} h")
    users, departments = _count(who.get("allow_users")), _count(who.get("allow_depts"))
    facts.append("everyone" if who.get("allow_all_users") else f"{users} people, {departments} departments")
    return " · ".join(facts)


def _section(data: Any, name: str) -> dict[str, Any]:
    section = data.get(name) if isinstance(data, dict) else None
    return section if isinstance(section, dict) else {}


def _count(people: Any) -> int:
    return len(people) if isinstance(people, list) else 0


def _clock(seconds: Any) -> str:
    if not isinstance(seconds, int):
        return str(seconds)
    return f"{seconds // SECONDS_OF_HOUR:02d}:{seconds % SECONDS_OF_HOUR // 60:02d}"
