"""The usual payload, decoded straight into its types, in a third of the time that `normalize` takes.

What must stay true: the result is byte for byte the one of `normalize`. So whatever departs from the event page (an
undocumented key, another type, a value out of range, another form of time) is left to `normalize`, which knows how to warn.
`tests/intake/test_fast_path.py` compares the two.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Annotated, Any, Final, Literal

import msgspec
from msgspec import UNSET, Meta, Struct, UnsetType

from reserve_listener.clock import rfc3339
from reserve_listener.intake import normalize
from reserve_listener.model import EVENT_TYPE, IncomingEvent, Scope

DIGITS: Final = 13
SECONDS_DIGITS: Final = 5

# The fields stand in the order in which `normalize` writes them. What is read as the platform's value and written as ours
# is replaced in place, which is why some are declared as either.
_Text = Annotated[str, Meta(min_length=1)]


class _Header(Struct, forbid_unknown_fields=True, gc=False):
    event_id: _Text
    event_type: Literal["vc.reserve_config.updated_v1"]
    create_time: str
    app_id: _Text
    tenant_key: _Text
    token: str | UnsetType = UNSET


class _Ids(Struct, forbid_unknown_fields=True, gc=False):
    union_id: _Text | UnsetType = UNSET
    user_id: _Text | UnsetType = UNSET
    open_id: _Text | UnsetType = UNSET


class _Person(Struct, forbid_unknown_fields=True, gc=False):
    user_id: _Ids


class _Department(Struct, forbid_unknown_fields=True, gc=False):
    department_id: str


class _Approve(Struct, forbid_unknown_fields=True, gc=False):
    approval_switch: Literal[0, 1] | UnsetType = UNSET
    approval_condition: Literal[0, 1] | UnsetType = UNSET
    meeting_duration: int | float | UnsetType = UNSET
    approvers: list[_Person] | UnsetType = UNSET


class _Time(Struct, forbid_unknown_fields=True, gc=False):
    time_switch: Literal[0, 1] | UnsetType = UNSET
    days_in_advance: Annotated[int, Meta(ge=1, le=730)] | UnsetType = UNSET
    opening_hour: str | UnsetType = UNSET
    start_time: str | UnsetType = UNSET
    end_time: str | UnsetType = UNSET
    max_duration: Annotated[int, Meta(ge=1, le=99)] | UnsetType = UNSET


class _Reserve(Struct, forbid_unknown_fields=True, gc=False):
    allow_all_users: Literal[0, 1] | UnsetType = UNSET
    allow_users: list[_Person] | UnsetType = UNSET
    allow_depts: list[_Department] | UnsetType = UNSET


class _Event(Struct, forbid_unknown_fields=True, gc=False):
    scope_id: _Text
    scope_type: Literal[1, 2]
    approve_config: _Approve | UnsetType = UNSET
    time_config: _Time | UnsetType = UNSET
    reserve_scope_config: _Reserve | UnsetType = UNSET


class _Envelope(Struct, forbid_unknown_fields=True, gc=False):
    header: _Header
    event: _Event
    schema: str | UnsetType = UNSET


class _Body(Struct, kw_only=True, gc=False):
    specversion: str = "1.0"
    id: str
    source: str
    type: str = EVENT_TYPE
    subject: str
    time: str
    datacontenttype: str = "application/json"
    data: _Event


class _UnusualError(Exception):
    """Not a usual payload: it is for `normalize`."""


_decode = msgspec.json.Decoder(_Envelope).decode
_encode = msgspec.json.Encoder().encode


def read(raw: bytes, *, received_ms: int) -> IncomingEvent | None:
    """The event for the store; None if the payload is not a usual one."""
    try:
        envelope = _decode(raw)
        header, event = envelope.header, envelope.event
        created_ms = _created_ms(header.create_time)
        scope_type = normalize.SCOPE_TYPES[event.scope_type]
        _make_ours(event, scope_type)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError, _UnusualError):
        return None
    tenant_key, scope_id = header.tenant_key, event.scope_id
    body = _Body(
        id=header.event_id,
        source=normalize.source(header.app_id, tenant_key),
        subject=scope_id,
        time=rfc3339(created_ms),
        data=event,
    )
    return IncomingEvent(
        tenant_key=tenant_key,
        event_id=header.event_id,
        raw=raw,
        received_ms=received_ms,
        created_ms=created_ms,
        scope=Scope(tenant_key=tenant_key, scope_type=scope_type, scope_id=scope_id),
        body=_encode(body),
    )


def _created_ms(text: str) -> int:
    if (
        len(text) == DIGITS
        and text.isascii()
        and text.isdigit()
        and (number := int(text)) >= normalize.OLDEST_MS
    ):
        return number
    raise _UnusualError


def _make_ours(event: Any, scope_type: str) -> None:
    """Turn the platform's values into ours, in place. `Any`, since their types change."""
    event.scope_type = scope_type
    if event.approve_config is not UNSET:
        _approve_ours(event.approve_config)
    if event.time_config is not UNSET:
        _time_ours(event.time_config)
    if (reserve := event.reserve_scope_config) is not UNSET:
        if reserve.allow_all_users is not UNSET:
            reserve.allow_all_users = reserve.allow_all_users == 1
        if reserve.allow_users:
            reserve.allow_users = [person.user_id for person in reserve.allow_users]


def _approve_ours(approve: Any) -> None:
    if approve.approval_switch is not UNSET:
        approve.approval_switch = approve.approval_switch == 1
    if approve.approval_condition is not UNSET:
        approve.approval_condition = normalize.APPROVAL_CONDITIONS[approve.approval_condition]
    if approve.meeting_duration is not UNSET and approve.meeting_duration < 0:
        raise _UnusualError
    if approve.approvers:
        approve.approvers = [person.user_id for person in approve.approvers]


def _time_ours(time: Any) -> None:
    if time.time_switch is not UNSET:
        time.time_switch = time.time_switch == 1
    if time.opening_hour is not UNSET:
        time.opening_hour = _seconds(time.opening_hour)
    if time.start_time is not UNSET:
        time.start_time = _seconds(time.start_time)
    if time.end_time is not UNSET:
        time.end_time = _seconds(time.end_time)


@lru_cache(maxsize=512)  # the hours that people set are few
def _seconds(text: str) -> int:
    low, high = normalize.SECONDS_OF_DAY
    if (
        len(text) <= SECONDS_DIGITS
        and text.isascii()
        and text.isdigit()
        and low <= (number := int(text)) <= high
    ):
        return number
    raise _UnusualError
