"""An organisation whose rooms the daemon knows already, as it does a few hours after its first start.

Without that it would ask for the names of ten thousand rooms while it is measured, and compare nothing: each event would be
the first of its room.
"""

from __future__ import annotations

import itertools
import time
from typing import TYPE_CHECKING, Any, Final

import msgspec

from reserve_listener.intake import fast_path
from reserve_listener.model import KnownPlace
from reserve_listener.simulator import Estate, Simulator, limits, sample_event
from reserve_listener.store import open_store

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

HOURS: Final = itertools.cycle(range(1, 25))
"""What each portion of pushes sets the longest booking to: every event is a change."""


def platform(rooms: int) -> Simulator:
    """One that manages so many rooms, and waits for answers however late."""
    return Simulator(answer_timeout=120, estate=Estate(rooms=rooms, depth=3))


def changes(room_ids: Sequence[str], count: int) -> Iterator[dict[str, Any]]:
    """So many events, room by room: the same new limit for each."""
    told = limits.usual()
    told["time_config"] = {**told["time_config"], "max_duration": next(HOURS)}
    for room_id in itertools.islice(itertools.cycle(room_ids), count):
        yield sample_event(scope_id=room_id, **told)


async def make_known(folder: Path, platform: Simulator) -> None:
    """The daemon's store in this folder, with a name and limits of each room."""
    store = await open_store(f"sqlite:///{folder}/events.db", [])
    try:
        now_ms = time.time_ns() // 1_000_000
        rooms = platform.estate.rooms
        await store.keep_places(
            [
                KnownPlace(
                    scope_type="room", scope_id=room.id, name=room.name, parent=None, top=True, seen_ms=now_ms
                )
                for room in rooms
            ]
        )
        await store.looked(platform.app_id, "places", now_ms)
        pushes = changes([room.id for room in rooms], len(rooms))
        read = (fast_path.read(msgspec.json.encode(push), received_ms=now_ms) for push in pushes)
        await store.project([event for event in read if event is not None])
    finally:
        await store.close()
