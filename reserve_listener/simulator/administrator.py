"""What an administrator does in the platform's console: changes the estate, with or without a push."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any, Final

from reserve_listener.simulator import limits
from reserve_listener.simulator.estate import LEVEL, ROOM, Estate, Place
from reserve_listener.simulator.events import EVENT_TYPE, envelope, limits_event
from reserve_listener.simulator.openapi import forms

if TYPE_CHECKING:
    from collections.abc import Callable

    from reserve_listener.simulator.pushes import Push

_KINDS: Final = {LEVEL: "room_level", ROOM: "room"}


class Administrator:
    """Changes the estate. `push=False`: nobody is told, as if the daemon were away for longer than the platform retries.

    Methods take a place or its id, and return the pushes that they made. `KeyError`: there is no place with this id.
    `clock`: the time of the events, in seconds.
    """

    def __init__(
        self,
        estate: Estate,
        *,
        app_id: str,
        push: Callable[[dict[str, Any]], Push],
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._estate = estate
        self._clock = clock
        self._app_id = app_id
        self._push = push

    def change(
        self,
        place: Place | str,
        *,
        push: bool = True,
        cover: bool = False,
        push_below: bool = False,
        **sections: dict[str, Any],
    ) -> list[Push]:
        """Set keys of the limits: `change(room, time_config={"max_duration": 4})`.

        `cover` also applies the limits to everything below a level. The platform's pages do not say whether it then pushes an
        event for each of them (`push_below`).
        """
        place = self._place(place)
        new = place.limits
        for section, values in sections.items():
            new = limits.changed(new, section, **values)
        place.own = new
        below = list(place.below()) if cover else []
        for each in below:
            each.own = new
        return [self.tell(each) for each in ([place, *below] if push_below else [place])] if push else []

    def tell(self, place: Place) -> Push:
        """Push the limits of a level or room as they are now."""
        return self._send(EVENT_TYPE, limits_event(place))

    def change_at_random(self, place: Place | str | None = None, *, push: bool = True) -> list[Push]:
        """Make some change to this place's limits, or to any room's."""
        random = self._estate.random
        place = self._place(place) if place is not None else random.choice(self._estate.rooms)
        staff = [person.told for person in self._estate.people]
        before = place.limits
        while place.limits == before:
            place.own = limits.at_random(before, random, staff)
        return [self.tell(place)] if push else []

    def rename(self, place: Place | str, name: str, *, push: bool = True) -> list[Push]:
        """Give the place another name."""
        place = self._place(place)
        place.name = name
        return self._updated(place) if push else []

    def move(self, place: Place | str, parent: Place | str, *, push: bool = True) -> list[Push]:
        """Put a room or level under another level."""
        place = self._place(place)
        self._estate.move(place, self._place(parent))
        return self._updated(place) if push else []

    def add(self, name: str, parent: Place | str, *, scope_type: int = ROOM, push: bool = True) -> list[Push]:
        """Add a room or level."""
        place = self._estate.add(name, self._place(parent), scope_type=scope_type)
        kind = _KINDS[scope_type]
        return [self._send(f"vc.{kind}.created_v1", {kind: self._told(place)})] if push else []

    def remove(self, place: Place | str, *, push: bool = True) -> list[Push]:
        """Delete a room, or a level with everything below it, for which the platform sends a single event."""
        place = self._place(place)
        told = self._told(place)
        self._estate.remove(place)
        if not push:
            return []
        if place.scope_type == ROOM:
            return [self._send("vc.room.deleted_v1", {"room": told})]
        return [self._send("vc.room_level.deleted_v1", {"room_level_id": place.id, "delete_child": True})]

    def _place(self, place: Place | str) -> Place:
        if isinstance(place, Place):
            return place
        found = self._estate.get(place)
        if found is None:
            raise KeyError(place)
        return found

    def _updated(self, place: Place) -> list[Push]:
        kind = _KINDS[place.scope_type]
        return [self._send(f"vc.{kind}.updated_v1", {kind: self._told(place)})]

    def _told(self, place: Place) -> dict[str, Any]:
        return forms.room(place) if place.scope_type == ROOM else forms.level(place)

    def _send(self, event_type: str, event: dict[str, Any]) -> Push:
        created_ms = int(self._clock() * 1000)
        return self._push(envelope(event, event_type, app_id=self._app_id, create_time_ms=created_ms))
