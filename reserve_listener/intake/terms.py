"""Names for the limits, for tables and spreadsheets: the words of the platform's console, and values as people write them."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from reserve_listener.intake.changes import IDS
from reserve_listener.intake.summary import name_of
from reserve_listener.intake.words import SECOND_OF_DAY, clock

if TYPE_CHECKING:
    from reserve_listener.intake.changes import Config
    from reserve_listener.intake.summary import Names


@dataclass(frozen=True)
class Term:
    """One limit. `names`, `values` and `units` are by language; a value without words of its own is shown as it is.

    A limit has the same name wherever people meet it.
    """

    section: str
    key: str
    names: dict[str, str]
    values: dict[str, dict[Any, str]] | None = None
    is_time: bool = False
    units: dict[str, str] | None = None

    def heading(self, language: str) -> str:
        """Its name with the unit, for values that are shown without."""
        if self.units is None:
            return self.names[language]
        return HEADINGS[language].format(self.names[language], self.units[language])

    @property
    def path(self) -> str:
        """Its path, as in `changes`."""
        return f"{self.section}.{self.key}"

    def read(self, config: Config, language: str, names: Names | None = None) -> str:
        """The value in this configuration, or "" if not known. With `names`, people are shown by name."""
        section = config.get(self.section)
        if not isinstance(section, dict) or self.key not in section:
            return ""
        return self.show(section[self.key], language, names)

    def show(self, value: Any, language: str, names: Names | None = None) -> str:
        """A value as people write it."""
        if self.is_time and type(value) is int and 0 <= value <= SECOND_OF_DAY:
            return clock(value)
        if self.values is not None and isinstance(value, bool | str):
            return self.values[language].get(value, as_it_is(value))
        if self.key in IDS and isinstance(value, list):
            return (", " if names else " ").join(self.entry(entry, names) for entry in value)
        return as_it_is(value)

    def entry(self, entry: Any, names: Names | None = None) -> str:
        """A person or department by name, if known, else by the first id that there is."""
        if names and (name := name_of(self.key, entry, names)):
            return name
        ids = [entry.get(kind) for kind in IDS[self.key]] if isinstance(entry, dict) else []
        return next((known for known in ids if isinstance(known, str) and known), as_it_is(entry))


def as_it_is(value: Any) -> str:
    """A value without words of its own."""
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


HEADINGS = {"en": "{} ({})", "zh": "{}({})"}
HOURS = {"en": "hours", "zh": "小时"}

TERMS = (
    Term(
        "approve_config",
        "approval_switch",
        {"en": "Approval", "zh": "预定审批"},
        {"en": {True: "required", False: "not required"}, "zh": {True: "需要审批", False: "无需审批"}},
    ),
    Term(
        "approve_config",
        "approval_condition",
        {"en": "Bookings that need approval", "zh": "审批条件"},
        {
            "en": {"all": "every booking", "conditional": "longer bookings"},
            "zh": {"all": "所有预定", "conditional": "满足条件的预定"},
        },
    ),
    Term(
        "approve_config",
        "meeting_duration",
        {"en": "Approval over", "zh": "需审批的预定时长"},
        units=HOURS,
    ),
    Term("approve_config", "approvers", {"en": "Approvers", "zh": "审批人"}),
    Term(
        "time_config",
        "time_switch",
        {"en": "Time limits", "zh": "预定时间限制"},
        {"en": {True: "on", False: "off"}, "zh": {True: "开启", False: "关闭"}},
    ),
    Term(
        "time_config",
        "days_in_advance",
        {"en": "Bookable ahead", "zh": "最早可提前预定"},
        units={"en": "days", "zh": "天"},
    ),
    Term(
        "time_config", "opening_hour", {"en": "A new day opens at", "zh": "开放当天可开始预定"}, is_time=True
    ),
    Term("time_config", "start_time", {"en": "Bookable from", "zh": "每日可预定开始"}, is_time=True),
    Term("time_config", "end_time", {"en": "Bookable until", "zh": "每日可预定结束"}, is_time=True),
    Term(
        "time_config",
        "max_duration",
        {"en": "Longest booking", "zh": "单次可预定时长上限"},
        units=HOURS,
    ),
    Term(
        "reserve_scope_config",
        "allow_all_users",
        {"en": "Who may book", "zh": "可预定成员范围"},
        {
            "en": {True: "all members", False: "selected members"},
            "zh": {True: "全部成员", False: "部分成员"},
        },
    ),
    Term("reserve_scope_config", "allow_users", {"en": "Members", "zh": "可预定成员"}),
    Term("reserve_scope_config", "allow_depts", {"en": "Departments", "zh": "可预定部门"}),
)

BY_PATH = {term.path: term for term in TERMS}

ABOUT = {
    "scope_id": {"en": "ID", "zh": "ID"},
    "scope_type": {"en": "Type", "zh": "类型"},
    "name": {"en": "Name", "zh": "名称"},
    "path": {"en": "Levels above", "zh": "所属层级"},
    "revision": {"en": "Revision", "zh": "版本"},
    "time": {"en": "As of", "zh": "更新时间"},
}
"""What a table shows of a room or level besides its limits."""

SCOPE_TYPES = {"en": {"room": "room", "level": "level"}, "zh": {"room": "会议室", "level": "层级"}}
