"""What the API says of levels, rooms, their limits, and people: all of it from the estate."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from reserve_listener.simulator import limits
from reserve_listener.simulator.estate import LEVEL, ROOM, Estate, Place
from reserve_listener.simulator.openapi import forms
from reserve_listener.simulator.openapi.answers import (
    BAD_PARAMETER,
    BAD_SCOPE,
    NOT_ALLOWED,
    RefusedError,
    invalid,
    not_there,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from reserve_listener.simulator.openapi.calls import Call
    from reserve_listener.simulator.openapi.forms import Unstated

PEOPLE_AT_MOST: Final = 10
USER_ID: Final = "contact:user.employee_id:readonly"


class Places:
    """Each method answers one call with its `data`, or raises `RefusedError`.

    `granted` says whether the app has a permission; `on_change` is called with a place whose limits were written.
    """

    def __init__(
        self,
        estate: Estate,
        unstated: Unstated,
        *,
        granted: Callable[[str], bool],
        on_change: Callable[[Place], object],
    ) -> None:
        self._estate = estate
        self._unstated = unstated
        self._granted = granted
        self._on_change = on_change

    # -- levels and rooms ---------------------------------------------------------------------------------------------------

    def list_levels(self, call: Call) -> dict[str, Any]:
        """The levels directly below one."""
        asked = call.query.get("room_level_id")
        levels = self._level(asked).levels if asked else self._top()
        return call.page("items", self._listed(levels))

    def list_rooms(self, call: Call) -> dict[str, Any]:
        """The rooms of a level or, without one, of the organisation."""
        asked = call.query.get("room_level_id")
        level = self._level(asked) if asked else self._estate.root
        deep = self._unstated.rooms_of_sublevels
        below = [each for each in level.below() if each.scope_type == ROOM] if deep else level.rooms
        return call.page("rooms", self._listed(below))

    def get_level(self, call: Call) -> dict[str, Any]:
        """One level."""
        return {"room_level": self._told(self._level(call.ids["id"]))}

    def get_room(self, call: Call) -> dict[str, Any]:
        """One room."""
        place = self._estate.get(call.ids["id"])
        if place is None or place.scope_type != ROOM:
            raise not_there()
        return {"room": self._told(place)}

    def mget_levels(self, call: Call) -> dict[str, Any]:
        """The levels with these ids, as far as there are any."""
        return {"items": self._found(call.listed("level_ids", self._unstated.mget_at_most), LEVEL)}

    def mget_rooms(self, call: Call) -> dict[str, Any]:
        """The rooms with these ids, as far as there are any."""
        return {"items": self._found(call.listed("room_ids", self._unstated.mget_at_most), ROOM)}

    def _top(self) -> list[Place]:
        return [self._estate.root] if self._unstated.root_is_listed else self._estate.root.levels

    def _level(self, level_id: str) -> Place:
        place = self._estate.get(level_id)
        if place is None or place.scope_type != LEVEL:
            raise not_there()
        return place

    def _found(self, ids: list[str], scope_type: int) -> list[dict[str, Any]]:
        found = (self._estate.get(each) for each in ids)
        return [self._told(place) for place in found if place is not None and place.scope_type == scope_type]

    def _listed(self, places: list[Place]) -> list[dict[str, Any]]:
        return [self._told(place) for place in places if place.id not in self._unstated.hidden]

    def _told(self, place: Place) -> dict[str, Any]:
        form = forms.room if place.scope_type == ROOM else forms.level
        return form(place, self._unstated)

    # -- limits -------------------------------------------------------------------------------------------------------------

    def get_limits(self, call: Call) -> dict[str, Any]:
        """`reserve_scope`: the limits of a level or room."""
        place = self._scope(call.needed("scope_id"), call.needed("scope_type"))
        if place.own is None and not self._unstated.inherited_in_answers:
            return {}
        return limits.answered(place.limits, self._id_type(call), cover=self._unstated.cover_in_answers)

    def patch_limits(self, call: Call) -> dict[str, Any]:
        """Write the limits. Here the scope's type is a string, and the approval section has another name."""
        place = self._scope(call.ids["id"], call.content.get("scope_type"))
        kind = self._id_type(call)

        def person(person_id: str) -> dict[str, Any]:
            return next(each.told for each in self._estate.people if each.ids.get(kind) == person_id)

        try:
            place.own = limits.taken(place.limits, call.content, person)
        except (KeyError, TypeError, AttributeError, StopIteration):
            raise RefusedError(BAD_PARAMETER, "param error") from None
        for each in place.below() if limits.covers(call.content) else ():
            each.own = place.own
        self._on_change(place)
        return {}

    def _scope(self, scope_id: str, scope_type: object) -> Place:
        if scope_type not in {str(LEVEL), str(ROOM)}:
            raise invalid("scope_type", scope_type, '"1" or "2"')
        place = self._estate.get(scope_id)
        if place is not None and place.scope_type == ROOM and scope_type == str(LEVEL):
            raise RefusedError(NOT_ALLOWED, "no permission", status=404)
        if place is None or scope_type != str(place.scope_type):
            raise RefusedError(BAD_SCOPE, "invalid reserve scope id")
        return place

    # -- people -------------------------------------------------------------------------------------------------------------

    def name_people(self, call: Call) -> dict[str, Any]:
        """The names of at most ten people. Unknown ones are left out."""
        kind, wanted = self._id_type(call), call.listed("user_ids", PEOPLE_AT_MOST)
        known = {one.ids[kind]: one for one in self._estate.people if kind in one.ids}
        return {"users": [forms.person(known[each], kind) for each in wanted if each in known]}

    def _id_type(self, call: Call) -> str:
        """The kind of ids to answer with; if the app lacks the permission for it, a kind that nobody has."""
        kind = call.id_type
        return kind if kind != "user_id" or self._granted(USER_ID) else ""
