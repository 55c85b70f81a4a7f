"""From the platform's bytes to the event that sinks receive. Pure.

What must stay true: nothing the platform sends is lost or changes its meaning. A value of a documented kind becomes a plain one
(switches become booleans, hours integers); anything else stays as it came and is named in `data.warnings`; unknown keys stay
where they are. The verification token has been blanked before (`redact.blank_tokens`), so all of this may be stored. The fields
and ranges are those of the event page (vc.reserve_config.updated_v1).
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import math
import re
from collections.abc import Callable
from functools import lru_cache
from typing import Any, Final
from urllib.parse import quote

import msgspec

from reserve_listener.clock import rfc3339
from reserve_listener.model import EVENT_TYPE, IncomingEvent, Scope

SCOPE_TYPES: Final = {1: "level", 2: "room"}
APPROVAL_CONDITIONS: Final = {0: "all", 1: "conditional"}
PERSON_IDS: Final = ("union_id", "user_id", "open_id")
SECONDS_OF_DAY: Final = (0, 86_400)
DAYS_IN_ADVANCE: Final = (1, 730)
MAX_DURATION_HOURS: Final = (1, 99)
OUR_KEYS: Final = (
    "scope_name",
    "scope_path",
    "revision",
    "changes",
    "summary",
    "superseded",
    "origin",
    "warnings",
)
"""Our own keys in `data`. Should the platform ever send one of them, its value moves into the warnings."""

REMEMBERED_CHARS: Final = 200
"""A `source` with longer ids is not cached: a sender of megabyte-long ids must not fill the memory."""

_MICROSECONDS_FROM: Final = 10**14
"""From here on `create_time` is taken for microseconds: as milliseconds this would be the year 5138."""

OLDEST_MS: Final = 1_420_070_400_000
"""2015. The platform is younger than that, so an older `create_time` comes from a wrong clock or a counter."""

_DIGITS: Final = re.compile(r"-?\d{1,18}", re.ASCII)

Warn = Callable[[str, Any, str], None]
Reader = Callable[[Any, str, Warn], Any]

_decode = msgspec.json.Decoder().decode
_encode = msgspec.json.Encoder().encode


class Unreadable(ValueError):  # noqa: N818  # it is a finding about the payload, and "unreadable" is its name everywhere
    """Not a JSON object, no `event_id`, or no `event` object with a `scope_id`."""


def parse(raw: bytes) -> dict[str, Any]:
    """The payload as a JSON object. Raises `Unreadable` with the reason if it is not one."""
    if not raw.strip():
        raise Unreadable("the payload is empty")
    try:
        envelope = _decode_any(raw)
    except (msgspec.DecodeError, UnicodeDecodeError, ValueError) as error:
        raise Unreadable(f"not JSON: {error}") from None
    except RecursionError:
        raise Unreadable("not JSON: nested too deeply") from None
    if not isinstance(envelope, dict):
        raise Unreadable(f"not a JSON object but {_kind(envelope)}")
    return envelope


def _decode_any(raw: bytes) -> Any:
    """JSON, including what msgspec refuses: half a surrogate pair stays as its escape, a number too large for a float as its text."""
    try:
        return _decode(raw)
    except msgspec.DecodeError:
        with contextlib.suppress(ValueError):  # the first error is the one to tell
            return _whole(json.loads(raw.decode(), parse_float=_float_or_text, parse_constant=_refuse))
        raise


def _whole(value: Any) -> Any:
    if isinstance(value, str):
        return value.encode("utf-8", "backslashreplace").decode()
    if isinstance(value, list):
        return [_whole(each) for each in value]
    if isinstance(value, dict):
        return {_whole(key): _whole(each) for key, each in value.items()}
    return value


def _float_or_text(text: str) -> float | str:
    number = float(text)
    return number if math.isfinite(number) else text


def _refuse(text: str) -> None:
    raise ValueError(f"{text} is not JSON")


def event_type_of(envelope: dict[str, Any]) -> str | None:
    """The key under which the SDK would look for a handler ("p2.vc.…"); None if the payload names no type.

    `p2` stands for an envelope with a schema, `p1` for the older form with a `uuid` (lark_oapi/event/dispatcher_handler.py).
    """
    header = envelope.get("header")
    if isinstance(header, dict) and isinstance(header.get("event_type"), str):
        return f"p2.{header['event_type']}"
    event = envelope.get("event")
    if "uuid" in envelope and isinstance(event, dict) and isinstance(event.get("type"), str):
        return f"p1.{event['type']}"
    return None


def incoming(raw: bytes, envelope: dict[str, Any], *, received_ms: int) -> IncomingEvent:
    """The event for the store. An envelope that cannot be normalised becomes an unreadable event."""
    try:
        return _readable(raw, envelope, received_ms=received_ms)
    except Unreadable as problem:
        return unreadable(raw, str(problem), received_ms=received_ms, envelope=envelope)
    except RecursionError:
        return unreadable(raw, "nested too deeply to be written out", received_ms=received_ms)


def unreadable(
    raw: bytes, problem: str, *, received_ms: int, envelope: dict[str, Any] | None = None
) -> IncomingEvent:
    """An unreadable event: the whole payload, under the hash of its bytes."""
    header = envelope.get("header") if envelope is not None else None
    tenant_key = header.get("tenant_key") if isinstance(header, dict) else None
    return IncomingEvent(
        tenant_key=tenant_key if isinstance(tenant_key, str) else "",
        event_id=f"sha256:{hashlib.sha256(raw).hexdigest()}",
        raw=raw,
        received_ms=received_ms,
        problem=problem,
    )


def _readable(raw: bytes, envelope: dict[str, Any], *, received_ms: int) -> IncomingEvent:
    header, event = envelope.get("header"), envelope.get("event")
    event_id = identifier(header.get("event_id")) if isinstance(header, dict) else None
    if not isinstance(header, dict) or event_id is None:
        raise Unreadable("no header.event_id")
    if not isinstance(event, dict) or event.get("scope_id") in (None, ""):
        raise Unreadable("no event.scope_id")
    warnings: list[dict[str, Any]] = []

    def warn(path: str, value: Any, problem: str) -> None:
        warnings.append({"path": path, "value": value, "problem": problem})

    tenant_key = _header_text(header, "tenant_key", warn)
    app_id = _header_text(header, "app_id", warn)
    created_ms = create_time(header.get("create_time"), warn)
    subject = _subject(event["scope_id"], warn)
    data = normalize(event, warn)
    if warnings:
        data["warnings"] = warnings
    body = {
        "specversion": "1.0",
        "id": event_id,
        "source": source(app_id, tenant_key),
        "type": EVENT_TYPE,
        "subject": subject,
        **({"time": rfc3339(created_ms)} if created_ms is not None else {}),
        "datacontenttype": "application/json",
        "data": data,
    }
    return IncomingEvent(
        tenant_key=tenant_key,
        event_id=event_id,
        raw=raw,
        received_ms=received_ms,
        created_ms=created_ms,
        scope=Scope(tenant_key=tenant_key, scope_type=_text(data.get("scope_type", "")), scope_id=subject),
        body=_encode(body),
    )


def normalize(event: dict[str, Any], warn: Warn) -> dict[str, Any]:
    """The `event` object of the event page as our `data`. `warn(path, value, problem)` is called for what stays as it came."""
    data = _object(event, "", warn, _EVENT)
    for key in OUR_KEYS:
        if key in data:
            warn(key, data.pop(key), "this key is reserved for the daemon")
    return data


def source(app_id: str, tenant_key: str) -> str:
    """The CloudEvents attribute `source`."""
    if len(app_id) + len(tenant_key) > REMEMBERED_CHARS:
        return _source.__wrapped__(app_id, tenant_key)
    return _source(app_id, tenant_key)


@lru_cache(maxsize=256)
def _source(app_id: str, tenant_key: str) -> str:
    return f"/apps/{quote(app_id, safe='')}/tenants/{quote(tenant_key, safe='')}"


# -- the header -------------------------------------------------------------------------------------------------------


def identifier(value: Any) -> str | None:
    """An event's id as text; None if it has none."""
    if isinstance(value, str) and value:
        return value
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    return None


def _header_text(header: dict[str, Any], key: str, warn: Warn) -> str:
    value = header.get(key)
    if isinstance(value, str) and value:
        return value
    warn(f"header.{key}", value, "missing" if value is None else "not a text" if value else "empty")
    return "" if value is None else _text(value)


def create_time(value: Any, warn: Warn) -> int | None:
    """Milliseconds since the epoch, from text or a number in milli- or microseconds; None if it is neither."""
    number = _whole_number(value)
    if number is not None and number >= _MICROSECONDS_FROM:
        number //= 1000
    if number is None or not 0 <= number < _MICROSECONDS_FROM:
        warn("header.create_time", value, "not a time in milliseconds")
        return None
    if number < OLDEST_MS:
        warn("header.create_time", value, "before 2015")
        return None
    return number


def _subject(scope_id: Any, warn: Warn) -> str:
    if not isinstance(scope_id, str):
        warn("scope_id", scope_id, "not a text")
    return _text(scope_id)


# -- values: each reader returns the plain value, or warns and returns what came ----------------------------------------


def _switch(value: Any, path: str, warn: Warn) -> Any:
    if type(value) is int and value in (0, 1):
        return bool(value)
    return _kept(value, path, warn, "neither 0 nor 1")


def _one_of(names: dict[int, str]) -> Reader:
    allowed = " nor ".join(map(str, names))

    def read(value: Any, path: str, warn: Warn) -> Any:
        if type(value) is int and value in names:
            return names[value]
        return _kept(value, path, warn, f"neither {allowed}")

    return read


def _integer(low: int, high: int) -> Reader:
    def read(value: Any, path: str, warn: Warn) -> Any:
        if type(value) is int and low <= value <= high:
            return value
        return _kept(value, path, warn, f"not a whole number from {low} to {high}")

    return read


def _seconds_of_day(value: Any, path: str, warn: Warn) -> Any:
    """The event page says text, the SDK's annotations say integer: both are accepted."""
    low, high = SECONDS_OF_DAY
    number = _whole_number(value)
    if number is not None and low <= number <= high:
        return number
    return _kept(value, path, warn, f"not a number of seconds from {low} to {high}")


def _hours(value: Any, path: str, warn: Warn) -> Any:
    if type(value) in (int, float) and value >= 0:
        return value
    return _kept(value, path, warn, "not a number of hours")


def _list_of(read: Reader) -> Reader:
    def read_all(value: Any, path: str, warn: Warn) -> Any:
        if not isinstance(value, list):
            return _kept(value, path, warn, "not a list")
        return [read(item, f"{path}[{index}]", warn) for index, item in enumerate(value)]

    return read_all


def _person(value: Any, path: str, warn: Warn) -> Any:
    """`{"user_id": {"union_id", "user_id", "open_id"}}` without its wrapper. Ids that the app may not see are left out."""
    ids = value.get("user_id") if isinstance(value, dict) else None
    if not isinstance(ids, dict):
        return _kept(value, path, warn, "not an object with a user's IDs")
    beside = {key: item for key, item in value.items() if key != "user_id"}
    if beside.keys() & ids.keys():
        return _kept(value, path, warn, "has the same ID twice")
    known = {key: item for key in PERSON_IDS if (item := ids.get(key)) not in (None, "")}
    person = known | {key: item for key, item in ids.items() if key not in PERSON_IDS}
    for key in PERSON_IDS:
        if not isinstance(person.get(key, ""), str):
            warn(f"{path}.{key}", person[key], "not a text")
    return person | beside


def _department(value: Any, path: str, warn: Warn) -> Any:
    if isinstance(value, dict) and isinstance(value.get("department_id"), str):
        return value
    return _kept(value, path, warn, "not an object with a department_id")


def _section(fields: dict[str, Reader]) -> Reader:
    def read(value: Any, path: str, warn: Warn) -> Any:
        if not isinstance(value, dict):
            return _kept(value, path, warn, "not an object")
        return _object(value, f"{path}.", warn, fields)

    return read


def _object(value: dict[str, Any], prefix: str, warn: Warn, fields: dict[str, Reader]) -> dict[str, Any]:
    """The documented keys in the order of the event page, whatever the platform's order, then the others as they came."""
    known = {key: read(value[key], prefix + key, warn) for key, read in fields.items() if key in value}
    return known | {key: item for key, item in value.items() if key not in fields}


def _as_it_came(value: Any, _path: str, _warn: Warn) -> Any:
    return value


def _kept(value: Any, path: str, warn: Warn, problem: str) -> Any:
    warn(path, value, problem)
    return value


_EVENT: Final[dict[str, Reader]] = {
    "scope_id": _as_it_came,
    "scope_type": _one_of(SCOPE_TYPES),
    "approve_config": _section(
        {
            "approval_switch": _switch,
            "approval_condition": _one_of(APPROVAL_CONDITIONS),
            "meeting_duration": _hours,
            "approvers": _list_of(_person),
        }
    ),
    "time_config": _section(
        {
            "time_switch": _switch,
            "days_in_advance": _integer(*DAYS_IN_ADVANCE),
            "opening_hour": _seconds_of_day,
            "start_time": _seconds_of_day,
            "end_time": _seconds_of_day,
            "max_duration": _integer(*MAX_DURATION_HOURS),
        }
    ),
    "reserve_scope_config": _section(
        {
            "allow_all_users": _switch,
            "allow_users": _list_of(_person),
            "allow_depts": _list_of(_department),
        }
    ),
}


def _whole_number(value: Any) -> int | None:
    if type(value) is int:
        return value
    if isinstance(value, str) and _DIGITS.fullmatch(value):
        return int(value)
    return None


def _text(value: Any) -> str:
    return value if isinstance(value, str) else _encode(value).decode()


def _kind(value: Any) -> str:
    names = {list: "an array", str: "a text", bool: "true or false", type(None): "null"}
    return names.get(type(value), "a number")
