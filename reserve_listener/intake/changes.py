"""What changed between two configurations of a room or level. Pure.

What must stay true: `apply(diff(before, told), before)` equals `merge(before, told)`, whatever the two contain. Equality
ignores the order of lists, duplicate entries, ids that a permission hides, and `if_cover_child_scope`.

A configuration is an event's `data` without the keys that name the scope and without our own keys: the three sections of
the event page, and whatever else the platform sent. A section is the unit: an absent one says nothing, a present one
replaces the old.
"""

from __future__ import annotations

import re
from typing import Any, Final

import msgspec

from reserve_listener.intake.normalize import OUR_KEYS, PERSON_IDS
from reserve_listener.model import SECTIONS

SCOPE_KEYS: Final = frozenset({"scope_id", "scope_type"})
NOT_COMPARED: Final = "if_cover_child_scope"
"""An instruction for the last write, not a limit. The API page documents it, the event page does not."""

FIELDS: Final = SECTIONS
"""In the order in which changes are listed."""

IDS: Final[dict[str, tuple[str, ...]]] = {
    "approvers": ("open_id", "union_id", "user_id"),
    "allow_users": ("open_id", "union_id", "user_id"),
    "allow_depts": ("department_id",),
}
"""The lists, and the ids of their entries: two entries are the same if any of these ids agrees."""

SWITCHES: Final[dict[str, tuple[str, Any]]] = {
    "approve_config": ("approval_switch", False),
    "time_config": ("time_switch", False),
    "reserve_scope_config": ("allow_all_users", True),
}
"""The switch of each section, and the value at which nothing else in the section has an effect."""

Config = dict[str, Any]
Change = dict[str, Any]
"""`{"path", "before", "after"}`, the absent side left out; for a list `{"path", "added", "removed"}`."""

_ABSENT: Final[Any] = msgspec.UNSET
_PLAIN_KEY: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_-]*", re.ASCII)
_PATH: Final = re.compile(
    rf"(?P<section>{'|'.join(FIELDS)})(?:\.(?P<plain>[^.\[]+)|\[(?P<quoted>.*)\])", re.DOTALL
)

_encode = msgspec.json.Encoder(order="sorted").encode


def config_of(data: dict[str, Any]) -> Config:
    """The configuration in an event's `data`."""
    return {
        key: value
        for key, value in data.items()
        if key not in SCOPE_KEYS and key not in OUR_KEYS and not (key in FIELDS and value is None)
    }


def diff(before: Config, told: Config) -> list[Change]:
    """What `told` changes in `before`, in a fixed order: the fields of the event page, then unknown keys by name."""
    changes: list[Change] = []
    unknown: list[Change] = []
    for section, fields in FIELDS.items():
        old, new = before.get(section, _ABSENT), told.get(section, _ABSENT)
        if new is _ABSENT or (old is not _ABSENT and _encode(old) == _encode(new)):
            continue
        if not isinstance(new, dict) or not (isinstance(old, dict) or old is _ABSENT):
            _compare(changes, section, old, new)
            continue
        old = {} if old is _ABSENT else old
        for key in fields:
            _compare_field(changes, section, key, old, new)
        for key in sorted((old.keys() | new.keys()) - set(fields) - {NOT_COMPARED}):
            _compare(unknown, path_of(section, key), old.get(key, _ABSENT), new.get(key, _ABSENT))
    for key in told.keys() - FIELDS.keys() - {NOT_COMPARED}:
        _compare(unknown, path_of(key), before.get(key, _ABSENT), told[key])
    return changes + sorted(unknown, key=lambda change: str(change["path"]))


def apply(changes: list[Change], before: Config) -> Config:
    """The configuration after the changes."""
    after = {key: dict(value) if isinstance(value, dict) else value for key, value in before.items()}
    for change in changes:
        section, key = _split(change["path"])
        held = after if section is None else after.setdefault(section, {})
        if "added" in change:
            held[key] = _exchanged(held.get(key), change, IDS[key])
        elif "after" in change:
            held[key] = change["after"]
        else:
            held.pop(key, None)
    return after


def merge(before: Config, told: Config) -> Config:
    """The state after `told`: what it does not mention stays, and so does every id ever known of a person."""
    state = dict(before)
    for name, new in told.items():
        old = before.get(name)
        if name in FIELDS and isinstance(new, dict):
            known = old if isinstance(old, dict) else {}
            new = {key: _with_known_ids(key, known.get(key), value) for key, value in new.items()}  # noqa: PLW2901
        state[name] = new
    return state


def completed(before: Config, told: Config) -> Config:
    """An API answer, with the keys that it lacks taken from `before`: in the API, an absent key says nothing."""
    return {
        section: {**before[section], **value}
        if isinstance(value, dict) and isinstance(before.get(section), dict)
        else value
        for section, value in told.items()
    }


def path_of(*keys: str) -> str:
    """`time_config.max_duration`; a key that is not a plain name goes in brackets: `time_config["a.b"]`."""
    path = ""
    for key in keys:
        if _PLAIN_KEY.fullmatch(key):
            path += f".{key}" if path else key
        else:
            path += f"[{msgspec.json.encode(key).decode()}]"
    return path


# -- one field ----------------------------------------------------------------------------------------------------------


def _compare_field(changes: list[Change], section: str, key: str, old: Config, new: Config) -> None:
    before, after = old.get(key, _ABSENT), new.get(key, _ABSENT)
    count = len(changes)
    if key in IDS and _is_list(before) and _is_list(after):
        _compare_lists(changes, f"{section}.{key}", before or [], after or [], IDS[key])
    else:
        _compare(changes, f"{section}.{key}", before, after)
    if len(changes) > count and _is_moot(section, key, old, new):
        changes[-1]["effective"] = False


def _compare(changes: list[Change], path: str, before: Any, after: Any) -> None:
    if before is _ABSENT and after is _ABSENT:
        return
    if before is not _ABSENT and after is not _ABSENT and _same_at_any_depth(before, after):
        return
    sides = {"before": before, "after": after}
    changes.append({"path": path} | {side: value for side, value in sides.items() if value is not _ABSENT})


def _same_at_any_depth(one: Any, other: Any) -> bool:
    """Equality for JSON that is nested deeper than Python can compare."""
    try:
        return _same(one, other)
    except RecursionError:
        return _encode(one) == _encode(other)


def _same(one: Any, other: Any) -> bool:
    """JSON's equality: 2 is 2.0, and true is not 1."""
    if isinstance(one, bool) or isinstance(other, bool):
        return one is other
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(_same(one[key], other[key]) for key in one)
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(map(_same, one, other))
    return bool(one == other)


def _is_moot(section: str, key: str, old: Config, new: Config) -> bool:
    """Whether the change affects nobody's booking, since the section's switch makes it moot before and after."""
    switch, moot = SWITCHES[section]
    if key != switch and old.get(switch) is moot and new.get(switch) is moot:
        return True
    return (
        key == "meeting_duration" and old.get("approval_condition") == new.get("approval_condition") == "all"
    )


# -- lists of people and departments --------------------------------------------------------------------------------------


class _Entry:
    """One person or department, as it stands in each of the two lists."""

    __slots__ = ("after", "before", "keys")

    def __init__(self) -> None:
        self.keys: set[tuple[str, str]] = set()
        self.before: list[Any] = []
        self.after: list[Any] = []

    def take(self, other: _Entry) -> None:
        """Take in another entry that turned out to be the same."""
        self.keys |= other.keys
        self.before += other.before
        self.after += other.after

    def merged(self, *sides: list[Any]) -> Any:
        """Everything known of it; what was heard last wins."""
        entries = [item for side in sides for item in side]
        if not all(isinstance(item, dict) for item in entries):
            return entries[-1]
        known = {key: value for item in entries for key, value in item.items()}
        return {key: known[key] for key in PERSON_IDS if key in known} | known


def _is_list(value: Any) -> bool:
    return value is _ABSENT or isinstance(value, list)


def _compare_lists(
    changes: list[Change], path: str, before: list[Any], after: list[Any], ids: tuple[str, ...]
) -> None:
    if before == after:
        return
    entries = _entries(before, after, ids)
    added = [entry.merged(entry.after) for entry in entries if not entry.before]
    removed = [entry.merged(entry.before) for entry in entries if not entry.after]
    if added or removed:
        changes.append({"path": path, "added": added, "removed": removed})


def _entries(before: list[Any], after: list[Any], ids: tuple[str, ...]) -> list[_Entry]:
    """The entries of both lists, each once, in the order of their first appearance."""
    by_key: dict[tuple[str, str], _Entry] = {}
    for items, side in ((before, "before"), (after, "after")):
        for item in items:
            keys = _identity(item, ids)
            found = list({id(by_key[key]): by_key[key] for key in keys if key in by_key}.values())
            entry = found[0] if found else _Entry()
            for other in found[1:]:
                entry.take(other)
            entry.keys.update(keys)
            getattr(entry, side).append(item)
            by_key.update(dict.fromkeys(entry.keys, entry))
    return list({id(entry): entry for entry in by_key.values()}.values())


def _identity(item: Any, ids: tuple[str, ...]) -> list[tuple[str, str]]:
    """The keys that identify an entry; without an id, all of its content does."""
    if isinstance(item, dict):
        known = [(name, item[name]) for name in ids if isinstance(item.get(name), str) and item[name]]
        if known:
            return known
    return [("", _encode(item).decode())]


def _exchanged(held: Any, change: Change, ids: tuple[str, ...]) -> list[Any]:
    gone = {key for item in change["removed"] for key in _identity(item, ids)}
    items: list[Any] = held or []
    kept = [item for item in items if gone.isdisjoint(_identity(item, ids))]
    return [*kept, *change["added"]]


def _with_known_ids(key: str, old: Any, new: Any) -> Any:
    if key not in IDS or not isinstance(new, list) or not old or old == new:
        return new
    old = old if isinstance(old, list) else []
    return [entry.merged(entry.before, entry.after) for entry in _entries(old, new, IDS[key]) if entry.after]


def _split(path: str) -> tuple[str | None, str]:
    """The section and the key; the section is None for the configuration's own keys."""
    found = _PATH.fullmatch(path)
    if found is not None:
        quoted = found["quoted"]
        return found["section"], found["plain"] if quoted is None else str(msgspec.json.decode(quoted))
    if path.startswith("["):
        return None, str(msgspec.json.decode(path[1:-1]))
    return None, path
