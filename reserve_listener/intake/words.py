"""The words of a summary in each language, taken from the platform's console and help pages.

A phrase takes one value, or two with an arrow between them. Values include their unit where the language repeats it
(`24 h → 2 h`), and come without where the phrase names it once (`24 → 2 小时`).
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

MINUTES_OF_HOUR: Final = 60
SECONDS_OF_MINUTE: Final = 60
SECOND_OF_DAY: Final = 86_400


@dataclass(frozen=True, slots=True, kw_only=True)
class Kind:
    """What a list holds: approvers, members or departments."""

    one: str
    many: str
    """`{}` is the count, for use within `told`."""
    counted: str | None = None
    """The same for use on its own; None if it is no different."""
    named: str
    """`{}` is the name, for use within `told`."""
    named_alone: str | None = None
    """The same for use on its own; None if it is no different."""
    told: str
    """`{}` says what was added and removed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Words:
    """One language."""

    joint: str
    """Between the clauses of a sentence."""
    comma: str
    """Between the parts of a clause."""
    detail: str
    """A clause with something in brackets."""
    more: str
    more_counts_all: bool
    """Whether the number counts all clauses (等 N 项) or those left out (and N more)."""
    moot: str
    changed: str
    odd: str
    """A path, with the value before and the value now."""
    no_change: str
    nothing_known: str
    not_set: str

    every_booking: str
    every_booking_now: str
    approval: str
    approval_now: str
    no_approval: str
    no_approval_now: str
    over: str
    over_now: str
    threshold: str
    condition: str

    limits_on: str
    limits_off: str
    no_limits: str
    days: str
    opening: str
    daily: str
    daily_named: str
    """The same if one of the two is not a range of hours."""
    all_day: str
    bookable_all_day: str
    longest: str
    hour: str
    day: str
    days_of: str

    all_members: str
    all_members_now: str
    selected_members: str
    selected_members_now: str
    added: str
    removed: str
    both: str
    """Between what was added and what was removed."""
    kinds: dict[str, Kind]


ENGLISH: Final = Words(
    joint="; ",
    comma=", ",
    detail="{} ({})",
    more="{} and {} more",
    more_counts_all=False,
    moot="{} (no effect now)",
    changed="{} changed",
    odd="{}: {}",
    no_change="no change",
    nothing_known="limits not known",
    not_set="not set",
    every_booking="every booking needs approval",
    every_booking_now="every booking now needs approval",
    approval="approval required",
    approval_now="approval now required",
    no_approval="no approval",
    no_approval_now="approval no longer required",
    over="bookings over {} need approval",
    over_now="only bookings over {} now need approval",
    threshold="approval threshold {}",
    condition="over {}",
    limits_on="time limits turned on",
    limits_off="time limits turned off",
    no_limits="no time limits",
    days="up to {} ahead",
    opening="a new day opens for booking at {}",
    daily="bookable daily {}",
    daily_named="bookable daily: {}",
    all_day="all day",
    bookable_all_day="bookable all day",
    longest="at most {} per booking",
    hour="{} h",
    day="{} day",
    days_of="{} days",
    all_members="all members may book",
    all_members_now="all members may now book",
    selected_members="selected members may book",
    selected_members_now="only selected members may now book",
    added="{} added",
    removed="{} removed",
    both=", ",
    kinds={
        "approvers": Kind(one="{} approver", many="{} approvers", named="approver {}", told="{}"),
        "allow_users": Kind(one="{} member", many="{} members", named="member {}", told="who may book: {}"),
        "allow_depts": Kind(
            one="{} department", many="{} departments", named="department {}", told="who may book: {}"
        ),
    },
)

CHINESE: Final = Words(
    joint="；",
    comma="，",
    detail="{}（{}）",
    more="{}等{}项",
    more_counts_all=True,
    moot="{}（当前不生效）",
    changed="{}有变更",
    odd="{}：{}",
    no_change="无变化",
    nothing_known="预定限制未知",
    not_set="未设置",
    every_booking="所有预定均需审批",
    every_booking_now="改为所有预定均需审批",
    approval="需要审批",
    approval_now="改为需要审批",
    no_approval="无需审批",
    no_approval_now="改为无需审批",
    over="超过{}小时的预定需要审批",
    over_now="改为仅超过{}小时的预定需要审批",
    threshold="需审批的预定时长{}小时",
    condition="超过{}小时",
    limits_on="开启预定时间限制",
    limits_off="关闭预定时间限制",
    no_limits="未开启预定时间限制",
    days="最早可提前{}天预定",
    opening="开放当天可于{}开始预定",
    daily="每日可预定时间范围{}",
    daily_named="每日可预定时间范围：{}",
    all_day="全天",
    bookable_all_day="全天可预定",
    longest="单次可预定时长上限{}小时",
    hour="{}",
    day="{}",
    days_of="{}",
    all_members="全部成员可预定",
    all_members_now="可预定成员范围改为全部成员",
    selected_members="部分成员可预定",
    selected_members_now="可预定成员范围改为部分成员",
    added="新增{}",
    removed="移除{}",
    both="、",
    kinds={
        "approvers": Kind(one="{}人", many="{}人", counted="审批人{}人", named="{}", told="审批人{}"),
        "allow_users": Kind(
            one="{}人", many="{}人", counted="成员{}人", named="{}", named_alone="成员{}", told="可预定成员{}"
        ),
        "allow_depts": Kind(
            one="{}个", many="{}个", counted="部门{}个", named="{}", named_alone="部门{}", told="可预定部门{}"
        ),
    },
)

LANGUAGES: Final = {"en": ENGLISH, "zh": CHINESE}


# A Chinese text has a space where a number or a Latin word meets a character, and none between characters.
_SEAM: Final = re.compile(
    r"(?<=[\u2e80-\u2fdf\u3040-\u30ff\u3400-\u9fff])(?=[0-9A-Za-z])|(?<=[0-9A-Za-z])(?=[\u3400-\u9fff])"
)


def fill(phrase: str, *values: object) -> str:
    """The phrase with its values, spaced as the language requires; the values themselves are not touched."""
    parts = [*phrase.split("{}"), ""]
    text = parts[0]
    for value, rest in zip(map(str, values), parts[1:], strict=False):
        text = _beside(_beside(text, value), rest)
    return text


def _beside(left: str, right: str) -> str:
    seam = _SEAM.match(left[-1:] + right[:1], 1)
    return f"{left} {right}" if seam else left + right


def clock(second: int) -> str:
    """A second of the day as a clock time; the end of the day is 24:00."""
    minutes = second // SECONDS_OF_MINUTE
    return f"{minutes // MINUTES_OF_HOUR:02d}:{minutes % MINUTES_OF_HOUR:02d}"
