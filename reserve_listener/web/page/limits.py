"""Limits and their changes by name and value, for people: `24 h → 2 h`, and who was added. Pure.

What must stay true: it never raises, whatever the platform sent. What has no words is shown as it came.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from reserve_listener.intake.changes import FIELDS, IDS, path_of
from reserve_listener.intake.terms import BY_PATH, TERMS
from reserve_listener.intake.words import SECOND_OF_DAY, clock, fill

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from reserve_listener.intake.changes import Change, Config
    from reserve_listener.web.page.words import Words

BY_KEY: Final = {term.key: term for term in TERMS}

UNITS: Final = {"days_in_advance": "days", "max_duration": "hours", "meeting_duration": "hours"}

LONGEST_VALUE: Final = 200
MOST_ENTRIES: Final = 50
"""Of a list of people or departments: more would fill the page, and the count says the rest."""


@dataclass(frozen=True)
class Fact:
    """One limit as it is. `entries`: of a list."""

    name: str
    value: str
    entries: tuple[str, ...] = ()
    more: int = 0


@dataclass(frozen=True)
class Section:
    """The limits that belong together."""

    name: str
    facts: tuple[Fact, ...]


@dataclass(frozen=True)
class Difference:
    """One change. `before`, `after`: of a value; `added`, `removed`: of a list."""

    name: str
    before: str | None = None
    after: str | None = None
    added: tuple[str, ...] = ()
    removed: tuple[str, ...] = ()
    more: int = 0
    moot: bool = False


class Limits:
    """In the words of one language. `people`: names by open_id."""

    def __init__(self, words: Words, language: str, people: Mapping[str, str]) -> None:
        self._words = words
        self._language = language
        self._people = people

    def sections(self, config: Config) -> list[Section]:
        """All that is known, section by section, in the order of the console."""
        found = []
        for name in FIELDS:
            section = config.get(name)
            if isinstance(section, dict):
                found.append(Section(self._words[name], tuple(self._facts(name, section))))
        others = tuple(Fact(path_of(key), _json(value)) for key, value in config.items() if key not in FIELDS)
        return found + ([Section("…", others)] if others else [])

    def differences(self, changes: list[Change] | None, *, most: int = MOST_ENTRIES) -> list[Difference]:
        """What changed, one by one, with so many entries of a list."""
        return [self._difference(change, most) for change in changes or ()]

    def _facts(self, name: str, section: Config) -> Iterator[Fact]:
        together, told = self._together(name, section)
        yield from together
        moot = _moot(name, section) | told
        for key in (*(term.key for term in TERMS if term.section == name), *section):
            known = key in FIELDS[name]
            if key in section and key not in moot:
                value = section[key]
                if known and key in IDS and isinstance(value, list):
                    shown, more = self._entries(key, value)
                    yield Fact(self._name(path_of(name, key)), self._count(value), shown, more)
                elif known:
                    yield Fact(self._name(path_of(name, key)), self._value(path_of(name, key), value))
                else:
                    yield Fact(path_of(name, key), _json(value))
                moot = moot | {key}  # once: a known key is in both

    def _together(self, name: str, section: Config) -> tuple[list[Fact], frozenset[str]]:
        """What several keys say in one line, and which ones those are."""
        words = self._words
        if name == "approve_config" and section.get("approval_switch") is True:
            condition, hours = section.get("approval_condition"), section.get("meeting_duration")
            keys = frozenset({"approval_switch", "approval_condition", "meeting_duration"})
            title = words[path_of(name, "approval_switch")]
            if condition == "all":
                return [Fact(title, words["approval_all"])], keys
            if condition == "conditional" and type(hours) in (int, float):
                return [Fact(title, fill(words["approval_over"], fill(words["hours"], f"{hours:g}")))], keys
        day = bookable({name: section}) if name == "time_config" else None
        if day is not None and section.get("time_switch") is True:
            span = words["all_day"] if day == (0, SECOND_OF_DAY) else "–".join(bounds(day))  # noqa: RUF001  # its sign
            return [Fact(words["bookable_hours"], span)], frozenset({"time_switch", "start_time", "end_time"})
        return [], frozenset()

    def _difference(self, change: Change, most: int) -> Difference:
        path = str(change["path"])
        moot = change.get("effective") is False
        if "added" in change and path in BY_PATH:
            key = BY_PATH[path].key
            added, more = self._entries(key, change["added"], most)
            removed, left = self._entries(key, change["removed"], most)
            return Difference(self._name(path), added=added, removed=removed, more=more + left, moot=moot)
        sides = [
            self._value(path, change[side]) if side in change else self._words["not_set"]
            for side in ("before", "after")
        ]
        return Difference(self._name(path), before=sides[0], after=sides[1], moot=moot)

    def _name(self, path: str) -> str:
        return self._words.get(path, path)

    def _value(self, path: str, value: Any) -> str:
        term = BY_PATH.get(path)
        if term is None:
            return _json(value)
        unit = UNITS.get(term.key)
        if unit is not None and type(value) in (int, float):
            return fill(self._words[f"{unit}_1" if (unit, value) == ("days", 1) else unit], f"{value:g}")
        return term.show(value, self._language)[:LONGEST_VALUE]

    def _count(self, entries: list[Any]) -> str:
        return str(len(entries)) if entries else self._words["nobody"]

    def _entries(self, key: str, entries: Any, most: int = MOST_ENTRIES) -> tuple[tuple[str, ...], int]:
        if not isinstance(entries, list):
            return (_json(entries),), 0
        return tuple(self._entry(key, one) for one in entries[:most]), max(0, len(entries) - most)

    def _entry(self, key: str, entry: Any) -> str:
        """By name where it is known, else by the id that is known best."""
        return BY_KEY[key].entry(entry, self._people)[:LONGEST_VALUE]


def bookable(config: Config) -> tuple[int, int] | None:
    """The seconds of the day from and until which the room can be booked; None: that is not known, or no part of a day."""
    times = config.get("time_config")
    if not isinstance(times, dict):
        return None
    if times.get("time_switch") is False:
        return 0, SECOND_OF_DAY
    start, end = times.get("start_time"), times.get("end_time")
    if type(start) is not int or type(end) is not int or not 0 <= start < end <= SECOND_OF_DAY:
        return None
    return start, end


def bounds(day: tuple[int, int]) -> tuple[str, str]:
    """The same as people write it."""
    return clock(day[0]), clock(day[1])


def _moot(name: str, section: Config) -> frozenset[str]:
    """What the section's switch makes meaningless: shown, it would look like a limit."""
    if name == "approve_config" and section.get("approval_switch") is False:
        return frozenset({"approval_condition", "meeting_duration", "approvers"})
    if name == "approve_config" and section.get("approval_condition") == "all":
        return frozenset({"meeting_duration"})
    if name == "time_config" and section.get("time_switch") is False:
        return frozenset(FIELDS[name]) - {"time_switch"}
    if name == "reserve_scope_config" and section.get("allow_all_users") is True:
        return frozenset({"allow_users", "allow_depts"})
    return frozenset()


def _json(value: Any) -> str:
    try:
        return json.dumps(value, ensure_ascii=False)[:LONGEST_VALUE]
    except (RecursionError, TypeError, ValueError):
        return "…"
