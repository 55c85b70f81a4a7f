"""Compares an answer of the platform's API with what is known; a difference becomes an event. Pure.

What must stay true: a difference found by asking is an event like any other: applied in its turn, its changes lead from the
known state to the new one. Its id follows from the scope, the limits and the revision, so a reading that is repeated after a
kill, or by another replica, makes the same event. And what the API does not mention does not change.
"""

from __future__ import annotations

import hashlib
from functools import partial
from typing import TYPE_CHECKING, Any, Final

import msgspec

from reserve_listener.intake import normalize
from reserve_listener.intake.changes import IDS, NOT_COMPARED, Config, completed, diff, merge
from reserve_listener.intake.complete import Telling, in_words, is_late, seal
from reserve_listener.intake.directory import Directory
from reserve_listener.model import EVENT_TYPE, SECTIONS, Compared, Finding, IncomingEvent, Known, Reading

if TYPE_CHECKING:
    from reserve_listener.lark.api.answers import Limits
    from reserve_listener.protocols import Compare

ORIGIN: Final = "reconcile"

ID_DIGITS: Final = 32
"""Digits of the hash: 128 bits, so no two events of a store will ever share an id."""

_SCOPE_TYPES: Final = {name: number for number, name in normalize.SCOPE_TYPES.items()}
_CONDITIONS: Final = {name: number for number, name in normalize.APPROVAL_CONDITIONS.items()}
_SECONDS: Final = frozenset({"opening_hour", "start_time", "end_time"})

_encode = msgspec.json.Encoder().encode
_encode_sorted = msgspec.json.Encoder(order="sorted").encode
_decode_config = msgspec.json.Decoder(dict[str, Any]).decode


def comparing(language: str, directory: Directory | None = None) -> Compare:
    """A function that compares, with sentences in this language and names from this directory."""
    return partial(compare, telling=Telling(language, directory or Directory()))


def reading_of(limits: Limits, *, app_id: str, received_ms: int) -> Reading:
    """An API answer in the form of an event, as far as the answer goes."""
    return Reading(
        app_id=app_id,
        scope_type=limits.scope_type,
        scope_id=limits.scope_id,
        as_of_ms=limits.as_of_ms,
        until_ms=limits.until_ms,
        received_ms=received_ms,
        told=normalize.normalize(_told(limits.config), _silent),
    )


def compare(reading: Reading, tenant_key: str, previous: Known | None, *, telling: Telling) -> Compared:
    """See `protocols.Compare`."""
    if previous is None:
        return Compared(Finding.BASELINE, _baseline(reading))
    if is_late(reading.as_of_ms, previous):
        return Compared(Finding.OUTDATED)
    before = _decode_config(previous.config)
    told = completed(before, reading.told)
    changes = diff(before, told)
    if not changes:
        return Compared(Finding.SAME, Known(previous.revision, reading.as_of_ms, previous.config))
    after = merge(before, told)
    revision = previous.revision + 1
    event = _event(reading, tenant_key, after, revision)
    comparison = in_words(after, changes, telling)
    sealed = seal(event, comparison, telling.directory, revision=revision, created_ms=reading.as_of_ms)
    return Compared(Finding.CHANGED, sealed.known, event, sealed)


def _silent(_path: str, _value: Any, _problem: str) -> None:
    """An unknown kind of value stays as it came; if it becomes an event, that one has the warning."""


def _told(config: dict[str, Any]) -> dict[str, Any]:
    """Of each section only the keys that events have, too: any other would come with each reading and go with each event."""
    return {
        section: {key: told[key] for key in keys if told.get(key) is not None}
        for section, keys in SECTIONS.items()
        if isinstance(told := config.get(section), dict)
    }


def _baseline(reading: Reading) -> Known | None:
    """The first known state; None if the answer says nothing."""
    if not any(reading.told.values()):
        return None
    return Known(0, reading.as_of_ms, _encode(reading.told).decode())


def _event(reading: Reading, tenant_key: str, after: Config, revision: int) -> IncomingEvent:
    """The event as the platform would have pushed it: the sections of the answer, completed with what else is known of them.

    While the tenant is not known, the event names none. It is stored under the app's id, which nobody must take for a tenant.
    """
    scope = {"scope_id": reading.scope_id, "scope_type": _SCOPE_TYPES[reading.scope_type]}
    envelope = {
        "schema": "2.0",
        "header": {
            "event_id": _event_id(reading, tenant_key, after, revision),
            "event_type": EVENT_TYPE,
            "create_time": str(reading.as_of_ms),
            "token": "",
            "app_id": reading.app_id,
            "tenant_key": "" if tenant_key == reading.app_id else tenant_key,
        },
        "event": scope
        | {section: _pushed(after[section]) for section in SECTIONS if section in reading.told},
    }
    event = normalize.incoming(_encode(envelope), envelope, received_ms=reading.received_ms)
    stands = msgspec.structs.replace(reading.asked_for, tenant_key=tenant_key)
    return msgspec.structs.replace(event, origin=ORIGIN, tenant_key=tenant_key, scope=stands)


def _event_id(reading: Reading, tenant_key: str, after: Config, revision: int) -> str:
    content = [tenant_key, reading.scope_type, reading.scope_id, _in_order(after), revision]
    return f"reconcile-{hashlib.sha256(_encode_sorted(content)).hexdigest()[:ID_DIGITS]}"


def _in_order(config: Config) -> Config:
    """With sorted lists, whatever their order in the answer."""
    return {
        section: {
            key: sorted(value, key=_encode_sorted) if key in IDS and isinstance(value, list) else value
            for key, value in told.items()
            if key != NOT_COMPARED
        }
        if isinstance(told, dict)
        else told
        for section, told in config.items()
    }


# -- from our words back into the platform's, for receivers that were built for its pushes --------------------------------


def _pushed(section: Any) -> Any:
    return (
        {key: _pushed_value(key, value) for key, value in section.items()}
        if isinstance(section, dict)
        else section
    )


def _pushed_value(key: str, value: Any) -> Any:
    if isinstance(value, bool):
        return int(value)
    if key == "approval_condition":
        return _CONDITIONS.get(value, value) if isinstance(value, str) else value
    if key in _SECONDS and isinstance(value, int):
        return str(value)
    if key in ("approvers", "allow_users") and isinstance(value, list):
        return [{"user_id": person} if isinstance(person, dict) else person for person in value]
    return value
