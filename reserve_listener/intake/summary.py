"""Changes and limits in one sentence, in Chinese or English. Pure.

What must stay true: it never raises, whatever the platform sent; it is one line of at most `LONGEST` characters; it does
not name its scope; and it says nothing that cannot be known (who did it, in which time zone a room lies).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import Any, Final

import msgspec

from reserve_listener.intake.changes import FIELDS, IDS, Change, Config
from reserve_listener.intake.words import LANGUAGES, SECOND_OF_DAY, Words, clock, fill
from reserve_listener.model import LONGEST_NAME
from reserve_listener.text import visible

LONGEST: Final = 300
LONGEST_VALUE: Final = 24
"""How many characters are shown of a value whose kind the event page does not know."""

MOST_CLAUSES: Final = 3
LARGEST_NUMBER: Final = 1_000_000
"""Anything larger is not a number of hours or days, and would fill the line."""

Names = Mapping[str, str]
"""Names of people and departments by id, as far as they are known."""

_NONE: Final[Any] = msgspec.UNSET
"""Stands for an absent value, since null is a value."""


def summarise(
    changes: Sequence[Change] | None, after: Config, language: str, names: Names | None = None
) -> str:
    """What changed; with nothing to compare (None), the limits as they are.

    `after` is the scope's state after the changes: a clause may also mention what did not change.
    """
    words = LANGUAGES[language]
    if changes is None:
        clauses = _limits(words, after, names or {})
    elif changes:
        clauses = _Telling(words, changes, after, names or {}).clauses()
    else:
        clauses = [words.no_change]
    return visible(_joined(words, clauses), LONGEST)


def limits(config: Config, language: str, names: Names | None = None) -> str:
    """The current limits in words."""
    return summarise(None, config, language, names)


def _joined(words: Words, clauses: list[str]) -> str:
    text = words.joint.join(clauses[:MOST_CLAUSES])
    if len(clauses) <= MOST_CLAUSES:
        return text
    return fill(words.more, text, len(clauses) - (0 if words.more_counts_all else MOST_CLAUSES))


# -- what changed -------------------------------------------------------------------------------------------------------


class _Telling:
    """The clauses for a list of changes. Those without effect come last and say so."""

    def __init__(self, words: Words, changes: Sequence[Change], after: Config, names: Names) -> None:
        self._words = words
        self._after = after
        self._names = names
        self._changes = {str(change["path"]): change for change in changes}
        self._clauses: list[tuple[bool, str]] = []

    def clauses(self) -> list[str]:
        """The clauses, in the order of the changes."""
        for section, tell in (
            ("approve_config", self._approval),
            ("time_config", self._times),
            ("reserve_scope_config", self._members),
        ):
            if any(self._change(section, key) for key in FIELDS[section]):
                tell()
        for path, change in self._changes.items():
            self._say(fill(self._words.changed, visible(path, LONGEST_NAME)), [change])
        effective = [text for moot, text in self._clauses if not moot]
        return effective + [fill(self._words.moot, text) for moot, text in self._clauses if moot]

    def _approval(self) -> None:
        switch = self._take("approve_config", "approval_switch")
        if switch is not None and _bools(switch):
            told = [switch, *self._taken("approve_config", "approval_condition", "meeting_duration")]
            self._say(self._approval_switched(switch), told)
        elif switch is not None:
            self._say(self._odd(switch), [switch])
        self._rule()
        self._list("approve_config", "approvers")

    def _approval_switched(self, switch: Change) -> str:
        if switch.get("after") is not True:
            return self._words.no_approval_now
        rule = _rule(self._words, _section(self._after, "approve_config"))
        if isinstance(rule, str):
            return fill(self._words.detail, self._words.approval_now, fill(self._words.condition, rule))
        return self._words.every_booking_now if rule else self._words.approval_now

    def _rule(self) -> None:
        """Condition and duration, which are one rule to people."""
        told = self._taken("approve_config", "approval_condition", "meeting_duration")
        if not told:
            return
        words, after = self._words, _section(self._after, "approve_config")
        old, new = _rule(words, self._before(after, told)), _rule(words, after)
        durations = [change for change in told if change["path"].endswith("meeting_duration")]
        if isinstance(old, str) and isinstance(new, str) and old != new:
            self._say(fill(words.over, f"{old} → {new}"), told)
        elif isinstance(new, str) and old is True:
            self._say(fill(words.over_now, new), told)
        elif new is True and old is not True and old is not None:
            self._say(words.every_booking_now, told)
        elif told == durations:
            self._phrase(durations[0], words.threshold, partial(_hours, words))
        else:
            for change in told:
                self._say(self._odd(change), [change])

    def _times(self) -> None:
        words = self._words
        switch = self._take("time_config", "time_switch")
        if switch is not None and _bools(switch):
            told = [switch, *self._taken("time_config", *FIELDS["time_config"])]
            if switch.get("after") is True:
                detail = words.comma.join(_time_limits(words, _section(self._after, "time_config")))
                self._say(fill(words.detail, words.limits_on, detail) if detail else words.limits_on, told)
            else:
                self._say(words.limits_off, told)
        elif switch is not None:
            self._say(self._odd(switch), [switch])
        self._field("time_config", "days_in_advance", words.days, partial(_days, words))
        self._field("time_config", "opening_hour", words.opening, _time)
        self._daily()
        self._field("time_config", "max_duration", words.longest, partial(_hours, words))

    def _daily(self) -> None:
        told = self._taken("time_config", "start_time", "end_time")
        if not told:
            return
        after = _section(self._after, "time_config")
        old, new = _daily(self._words, self._before(after, told)), _daily(self._words, after)
        if old is None or new is None:
            for change in told:
                self._phrase(change, f"{change['path']} {{}}", _time)
        else:
            words = self._words
            phrase = words.daily_named if words.all_day in (old, new) else words.daily
            self._say(fill(phrase, f"{old} → {new}"), told)

    def _members(self) -> None:
        switch = self._take("reserve_scope_config", "allow_all_users")
        if switch is not None and _bools(switch):
            told = [switch, *self._taken("reserve_scope_config", "allow_users", "allow_depts")]
            if switch.get("after") is True:
                self._say(self._words.all_members_now, told)
            else:
                clause = self._words.selected_members_now
                self._say(_selected(self._words, clause, self._after, self._names), told)
        elif switch is not None:
            self._say(self._odd(switch), [switch])
        self._list("reserve_scope_config", "allow_users")
        self._list("reserve_scope_config", "allow_depts")

    # -- one change -----------------------------------------------------------------------------------------------------

    def _change(self, section: str, key: str) -> Change | None:
        return self._changes.get(f"{section}.{key}")

    def _take(self, section: str, key: str) -> Change | None:
        return self._changes.pop(f"{section}.{key}", None)

    def _taken(self, section: str, *keys: str) -> list[Change]:
        return [change for key in keys if (change := self._take(section, key)) is not None]

    def _say(self, text: str, told: Iterable[Change]) -> None:
        self._clauses.append((all(change.get("effective") is False for change in told), text))

    def _field(self, section: str, key: str, phrase: str, show: Callable[[Any], str | None]) -> None:
        change = self._take(section, key)
        if change is not None:
            self._phrase(change, phrase, show)

    def _phrase(self, change: Change, phrase: str, show: Callable[[Any], str | None]) -> None:
        """`before → after`, or only the new value. What these words do not fit is shown as it came."""
        old, new = change.get("before", _NONE), change.get("after", _NONE)
        shown = [show(value) for value in (old, new) if value is not _NONE]
        if new is _NONE or None in shown:
            self._say(self._odd(change), [change])
        else:
            self._say(fill(phrase, " → ".join(map(str, shown))), [change])

    def _odd(self, change: Change) -> str:
        sides = [
            self._words.not_set if value is _NONE else _as_json(value)
            for value in (change.get("before", _NONE), change.get("after", _NONE))
        ]
        return fill(self._words.odd, visible(str(change["path"]), LONGEST_NAME), " → ".join(sides))

    def _list(self, section: str, key: str) -> None:
        change = self._take(section, key)
        if change is None:
            return
        if "added" not in change:
            self._say(self._odd(change), [change])
            return
        sides = ((self._words.added, change["added"]), (self._words.removed, change["removed"]))
        told = [fill(phrase, self._entries(key, entries)) for phrase, entries in sides if entries]
        self._say(fill(self._words.kinds[key].told, self._words.both.join(told)), [change])

    def _entries(self, key: str, entries: list[Any]) -> str:
        if len(entries) == 1 and (name := name_of(key, entries[0], self._names)):
            return fill(self._words.kinds[key].named, visible(name, LONGEST_NAME))
        return _counted(self._words, key, entries)

    @staticmethod
    def _before(after: Config, told: list[Change]) -> Config:
        """The section as it was before, computed from what it is now."""
        before = dict(after)
        for change in told:
            before[change["path"].rpartition(".")[2]] = change.get("before", _NONE)
        return before


# -- what is ------------------------------------------------------------------------------------------------------------


def _limits(words: Words, config: Config, names: Names) -> list[str]:
    told = [_approval_limits(words, _section(config, "approve_config"))]
    times = _section(config, "time_config")
    if times.get("time_switch") is False:
        told.append(words.no_limits)
    elif times.get("time_switch") is True:
        told.append(words.comma.join(_time_limits(words, times)))
    everybody = _section(config, "reserve_scope_config").get("allow_all_users")
    if everybody is True:
        told.append(words.all_members)
    elif everybody is False:
        told.append(_selected(words, words.selected_members, config, names))
    return [clause for clause in told if clause] or [words.nothing_known]


def _approval_limits(words: Words, section: Config) -> str:
    if section.get("approval_switch") is False:
        return words.no_approval
    if section.get("approval_switch") is not True:
        return ""
    rule = _rule(words, section)
    if isinstance(rule, str):
        return fill(words.over, rule)
    return words.every_booking if rule else words.approval


def _time_limits(words: Words, section: Config) -> list[str]:
    told = []
    if (days := _days(words, section.get("days_in_advance"))) is not None:
        told.append(fill(words.days, days))
    if (opening := _time(section.get("opening_hour"))) is not None:
        told.append(fill(words.opening, opening))
    if (daily := _daily(words, section)) is not None:
        told.append(words.bookable_all_day if daily == words.all_day else fill(words.daily, daily))
    if (longest := _hours(words, section.get("max_duration"))) is not None:
        told.append(fill(words.longest, longest))
    return told


def _selected(words: Words, clause: str, config: Config, names: Names) -> str:
    """How many are selected. User groups are in neither list, so two empty lists do not mean nobody."""
    section = _section(config, "reserve_scope_config")
    counts = [(key, section.get(key)) for key in ("allow_users", "allow_depts")]
    told = [_alone(words, key, items, names) for key, items in counts if isinstance(items, list) and items]
    return fill(words.detail, clause, words.comma.join(told)) if told else clause


def _alone(words: Words, key: str, entries: list[Any], names: Names) -> str:
    kind = words.kinds[key]
    if len(entries) == 1 and (name := name_of(key, entries[0], names)):
        return fill(kind.named_alone or kind.named, visible(name, LONGEST_NAME))
    return fill(kind.counted, len(entries)) if kind.counted else _counted(words, key, entries)


def _counted(words: Words, key: str, entries: list[Any]) -> str:
    kind = words.kinds[key]
    return fill(kind.one if len(entries) == 1 else kind.many, len(entries))


def _rule(words: Words, section: Config) -> str | bool | None:
    """Which bookings need approval: True for all, or the hours beyond which they do; None if not known."""
    condition, duration = section.get("approval_condition"), section.get("meeting_duration")
    if condition == "all":
        return True
    return _hours(words, duration) if condition == "conditional" else None


def name_of(key: str, entry: Any, names: Names) -> str | None:
    """The name of this person or department in a list; None if not known."""
    ids = [entry.get(kind) for kind in IDS[key]] if isinstance(entry, dict) else []
    return next((name for known in ids if isinstance(known, str) and (name := names.get(known))), None)


# -- values -------------------------------------------------------------------------------------------------------------


def _section(config: Config, name: str) -> Config:
    section = config.get(name)
    return section if isinstance(section, dict) else {}


def _bools(change: Change) -> bool:
    return isinstance(change.get("after"), bool) and isinstance(change.get("before", False), bool)


def _number(value: Any) -> str | None:
    if isinstance(value, bool) or not isinstance(value, int | float) or not abs(value) < LARGEST_NUMBER:
        return None
    return f"{round(value, 2):g}" if isinstance(value, float) else str(value)


def _hours(words: Words, value: Any) -> str | None:
    number = _number(value)
    return None if number is None else fill(words.hour, number)


def _days(words: Words, value: Any) -> str | None:
    number = _number(value)
    return None if number is None else fill(words.day if number == "1" else words.days_of, number)


def _time(value: Any) -> str | None:
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= SECOND_OF_DAY:
        return None
    return clock(value)


def _daily(words: Words, section: Config) -> str | None:
    start, end = _time(section.get("start_time")), _time(section.get("end_time"))
    if start is None or end is None:
        return None
    return words.all_day if (start, end) == (clock(0), clock(SECOND_OF_DAY)) else f"{start}\N{EN DASH}{end}"


def _as_json(value: Any) -> str:
    try:
        text = msgspec.json.encode(value).decode()
    except (OverflowError, RecursionError, TypeError, ValueError):
        return "…"
    return visible(text, LONGEST_VALUE)
