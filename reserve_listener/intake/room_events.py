"""Events about rooms and levels themselves: created, renamed, moved, deleted. They change names and nothing else. Pure.

What must stay true: whatever one contains, it is answered like any accepted event; one that cannot be read changes nothing.
"""

from __future__ import annotations

import hashlib
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from reserve_listener.intake.directory import is_id, shown
from reserve_listener.intake.normalize import create_time, identifier
from reserve_listener.model import IncomingEvent, PlaceNews

if TYPE_CHECKING:
    from collections.abc import Callable

Read = dict[str, Any]


def incoming(event_type: str, raw: bytes, envelope: Read, *, received_ms: int) -> IncomingEvent:
    """The event for the store; `news` is empty if it says nothing. `event_type`: one of `TYPES`."""
    header = _object(envelope, "header")
    tenant_key = header.get("tenant_key")
    news = TYPES[event_type](_object(envelope, "event"))
    return IncomingEvent(
        tenant_key=tenant_key if isinstance(tenant_key, str) else "",
        event_id=identifier(header.get("event_id")) or f"sha256:{hashlib.sha256(raw).hexdigest()}",
        raw=raw,
        received_ms=received_ms,
        created_ms=create_time(header.get("create_time"), lambda *_: None),
        news=() if news is None else (news,),
    )


def _room(event: Read, *, gone: bool = False) -> PlaceNews | None:
    room = _object(event, "room")
    return _news("room", room.get("room_id"), room.get("name"), room.get("room_level_id"), gone=gone)


def _level(event: Read) -> PlaceNews | None:
    level = _object(event, "room_level")
    return _news("level", level.get("room_level_id"), level.get("name"), level.get("parent_id"))


def _level_deleted(event: Read) -> PlaceNews | None:
    all_below = event.get("delete_child") is True
    return _news("level", event.get("room_level_id"), None, None, gone=True, all_below=all_below)


def _news(scope_type: str, scope_id: Any, name: Any, parent: Any, **more: bool) -> PlaceNews | None:
    if not is_id(scope_id):
        return None
    return PlaceNews(
        scope_type=scope_type,
        scope_id=scope_id,
        name=shown(name),
        parent=parent if is_id(parent) else None,
        **more,
    )


def _object(value: Read, key: str) -> Read:
    found = value.get(key)
    return found if isinstance(found, dict) else {}


TYPES: Final[dict[str, Callable[[Read], PlaceNews | None]]] = {
    "p2.vc.room.created_v1": _room,
    "p2.vc.room.updated_v1": _room,
    "p2.vc.room.deleted_v1": partial(_room, gone=True),
    "p2.vc.room_level.created_v1": _level,
    "p2.vc.room_level.updated_v1": _level,
    "p2.vc.room_level.deleted_v1": _level_deleted,
}
"""What reads each event, by the SDK's keys (`normalize.event_type_of`)."""
