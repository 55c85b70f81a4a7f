"""The names of rooms, levels and people, in memory: sentences about events take names from here without waiting.

What must stay true: nothing is guessed. If a level above a room is unknown, or is gone while the room is not, there is no
path. Only the store's thread writes, in the order in which events are stored, and it seals events with the names of that
moment; everybody else only reads. Each step is a single operation on a dict, so nobody waits for anybody. If a commit fails,
the names are true all the same (the platform said so), and will be written again.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, TypeGuard

from reserve_listener.model import LONGEST_NAME
from reserve_listener.text import visible

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from reserve_listener.model import KnownPlace

DEEPEST: Final = 32
"""How many levels above a room are followed: the platform has at most 10, and a cycle must end."""

ROOM: Final = "room"
LEVEL: Final = "level"

LONGEST_ID: Final = 200
"""The platform's ids have about 40 characters."""

Key = tuple[str, str]
"""scope_type and scope_id."""


class Directory:
    """All known names."""

    def __init__(self) -> None:
        self._places: dict[Key, KnownPlace] = {}
        self._people: dict[str, str] = {}
        self._roots: set[str] = set()
        self._alone: set[str] = set()

    @property
    def places(self) -> Mapping[Key, KnownPlace]:
        """All rooms and levels."""
        return self._places

    @property
    def people(self) -> Mapping[str, str]:
        """Names by open_id. The object stays the same as long as the names do."""
        return self._people

    def take(self, places: Iterable[KnownPlace]) -> None:
        """Add these places, or update them."""
        for place in places:
            self._places[place.scope_type, place.scope_id] = place
            if place.top and place.parent is not None:
                self._roots.add(place.parent)
            elif place.top and place.scope_type == LEVEL:
                self._alone.add(place.scope_id)

    def take_people(self, names: Mapping[str, str]) -> None:
        """The same for people."""
        if not names.items() <= self._people.items():
            self._people = self._people | dict(names)

    def forget_people(self) -> None:
        """Forget all people's names."""
        self._people.clear()

    def name(self, scope_type: str, scope_id: str) -> str | None:
        """The name of a room or level, even if it is gone; None if not known."""
        place = self._places.get((scope_type, scope_id))
        return None if place is None else place.name

    def path(self, scope_type: str, scope_id: str) -> list[str] | None:
        """The names of the levels above, from the top, without the organisation's root; None if not all are known."""
        place = at = self._places.get((scope_type, scope_id))
        names: list[str] = []
        while place is not None and at is not None and len(names) < DEEPEST:
            if at.top or self._is_root(at.parent):
                return names[::-1]
            at = self._places.get((LEVEL, at.parent or ""))
            if at is None or at.name is None or (at.gone_ms is not None and place.gone_ms is None):
                return None
            names.append(at.name)
        return None

    def _is_root(self, level: str | None) -> bool:
        """Whether this is the root: some level is known to be right below it, or it is the only level without a parent."""
        return level in self._roots or (level in self._alone and len(self._alone) == 1)

    def is_gone(self, scope_type: str, scope_id: str) -> bool:
        """Whether the room or level is known to be gone."""
        place = self._places.get((scope_type, scope_id))
        return place is not None and place.gone_ms is not None


def called(places: Iterable[KnownPlace], text: str) -> tuple[list[KnownPlace], list[KnownPlace]]:
    """Rooms and levels with this name, in any case, and those whose names begin with it. Gone ones only if there are no others."""
    text = text.strip().casefold()
    named = [(place, place.name.casefold()) for place in places if place.name is not None]
    exactly = [place for place, name in named if name == text]
    begin_so = [place for place, name in named if name.startswith(text)]
    return _rather_there(exactly), _rather_there(begin_so)


def _rather_there(places: list[KnownPlace]) -> list[KnownPlace]:
    return [place for place in places if place.gone_ms is None] or places


def along(
    names: Iterable[str], scope_id: str, *, named: bool, gone: bool
) -> tuple[bool, bool, list[str], str]:
    """The order of a list of places, by the names from the top: each level, then what is in it; the unnamed and the gone last."""
    return gone, not named, [name.casefold() for name in names], scope_id


def shown(name: object) -> str | None:
    """A name as it is stored and shown; None if the platform gave none."""
    return visible(name.strip(), LONGEST_NAME) or None if isinstance(name, str) else None


def is_id(value: object) -> TypeGuard[str]:
    """Whether this can be the id of a room or level."""
    return isinstance(value, str) and 0 < len(value) <= LONGEST_ID and value.isprintable()
