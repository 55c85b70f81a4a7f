"""From the API's JSON to what `answers` names. Pure.

The answers are foreign: what is missing or of another kind than documented is left out, never guessed.
"""

from __future__ import annotations

from datetime import UTC
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, Any, Final

from reserve_listener.lark.api.answers import Limits, Place, ScopeType
from reserve_listener.lark.api.codes import log_id_of
from reserve_listener.lark.api.errors import TryAgainError
from reserve_listener.model import SECTIONS

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

ID_KEYS: Final[dict[ScopeType, str]] = {"level": "room_level_id", "room": "room_id"}
PARENT_KEYS: Final[dict[ScopeType, str]] = {"level": "parent_id", "room": "room_level_id"}
WRITTEN_AS: Final = {"approve_config": "approval_config"}
"""A section's name in a write, where it differs from that in the answer. Either is read."""
PEOPLE: Final = {"approve_config": "approvers", "reserve_scope_config": "allow_users"}
LANGUAGES: Final = {"zh": "zh_cn", "en": "en_us"}
NO_PARENT: Final = frozenset({"", "0"})
RESOLUTION_MS: Final = 1_000
"""Of a `Date`."""


def place_of(kind: ScopeType, item: Any, *, root: str | None = None) -> Place | None:
    """A room or level as a list or a single answer has it, its path without itself and without the root."""
    if not isinstance(item, dict) or not (scope_id := text_of(item.get(ID_KEYS[kind]))):
        return None
    parent = text_of(item.get(PARENT_KEYS[kind]))
    path = [each for each in texts_of(item.get("path")) if each not in (scope_id, root)]
    if parent in NO_PARENT:
        parent = path[-1] if path else ""
    elif parent != root and parent not in path[-1:]:
        path.append(parent)
    return Place(
        scope_type=kind,
        scope_id=scope_id,
        name=text_of(item.get("name")),
        parent=parent or (None if kind == "level" else root),
        path=tuple(path),
    )


def text_of(value: Any) -> str:
    """The text; empty when it is none."""
    return value if isinstance(value, str) else ""


def texts_of(value: Any) -> list[str]:
    """The texts in a list."""
    return [each for each in value if isinstance(each, str) and each] if isinstance(value, list) else []


def objects_of(value: Any) -> list[dict[str, Any]]:
    """The objects in a list."""
    return [each for each in value if isinstance(each, dict)] if isinstance(value, list) else []


def limits_of(
    scope_type: ScopeType,
    scope_id: str,
    data: Mapping[str, Any],
    *,
    headers: Mapping[str, str],
    took_s: float,
) -> Limits:
    """What may be booked, and when that was so. Raises `TryAgainError` when the answer does not say when."""
    date_ms = _date_ms(headers)
    return Limits(
        scope_type=scope_type,
        scope_id=scope_id,
        config={name: section for name in SECTIONS if (section := _section(name, data)) is not None},
        as_of_ms=date_ms - round(took_s * 1000) - RESOLUTION_MS,
        until_ms=date_ms + RESOLUTION_MS,
    )


def _date_ms(headers: Mapping[str, str]) -> int:
    """When the answer was made, on the platform's clock.

    Ours is no substitute: if it were wrong by a minute, a change would be lost or an old one taken for news.
    """
    try:
        moment = parsedate_to_datetime(headers.get("date", ""))
        return round(moment.replace(tzinfo=moment.tzinfo or UTC).timestamp() * 1000)
    except (ValueError, OverflowError):
        text = "the answer has no usable Date header, so nobody knows when its limits were in force"
        hint = "check whether a proxy in between removes the header"
        raise TryAgainError(text, log_id=log_id_of(headers), hint=hint) from None


def _section(name: str, data: Mapping[str, Any]) -> Any:
    section = data.get(name)
    if section is None:
        section = data.get(WRITTEN_AS.get(name, name))
    key = PEOPLE.get(name)
    if not isinstance(section, dict) or key is None or not isinstance(section.get(key), list):
        return section
    return {**section, key: [_person(each) for each in section[key]]}


def _person(value: Any) -> Any:
    """One id, of the kind that was asked for, as an event would have it."""
    if isinstance(value, dict) and isinstance(value.get("user_id"), str):
        return {**value, "user_id": {"open_id": value["user_id"]}}
    return value


def names_of(users: Any, open_ids: Collection[str], language: str) -> dict[str, str]:
    """What these people are called, of those that were asked for and have a name."""
    named = {text_of(user.get("user_id")): _name(user, language) for user in objects_of(users)}
    return {open_id: name for open_id, name in named.items() if open_id in open_ids and name}


def _name(user: Mapping[str, Any], language: str) -> str:
    """In this language, else as the organisation writes it."""
    names = user.get("i18n_name")
    own = text_of(names.get(LANGUAGES[language])) if isinstance(names, dict) else ""
    return own or text_of(user.get("name"))
