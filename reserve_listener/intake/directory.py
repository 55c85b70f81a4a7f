"""Rooms, levels and people by name, in memory: a sentence about an event looks here, and waits for nothing.

What must stay true: nothing is guessed. A path with a level in it that is not known, or that is gone while the room is not,
is no path. The store's thread changes it, in the order in which events are stored, and seals them with what it holds; others
only look. Each step is one of a dictionary's own, so nobody waits for anybody. Should the commit fail, it knows what the
platform told, and is told so again.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, TypeGuard

from reserve_listener.model import LONGEST_NAME
from reserve_listener.text import visible

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from reserve_listener.model import KnownPlace

DEEPEST: Final = 32
"""Levels above a room that are followed: the platform has up to 10, and a circle must end."""

ROOM: Final = "room"
LEVEL: Final = "level"

LONGEST_ID: Final = 200
"""The platform's have some 40 characters."""

Key = tuple[str, str]
"""scope_type and scope_id."""


class Directory:
    """What is known by name."""

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
        """Names by open_id: the same object as long as they are the same."""
        return self._people

    def take(self, places: Iterable[KnownPlace]) -> None:
        """These are known, or known better, from now on."""
        for place in places:
            self._places[place.scope_type, place.scope_id] = place
            if place.top and place.parent is not None:
                self._roots.add(place.parent)
            elif place.top and place.scope_type == LEVEL:
                self._alone.add(place.scope_id)

    def take_people(self, names: Mapping[str, str]) -> None:
        """The same of people."""
        if not names.items() <= self._people.items():
            self._people = self._people | dict(names)

    def forget_people(self) -> None:
        """Nobody's name is known any more."""
        self._people.clear()

    def name(self, scope_type: str, scope_id: str) -> str | None:
        """The name of a room or level, also of one that is gone; None: not known."""
        place = self._places.get((scope_type, scope_id))
        return None if place is None else place.name

    def path(self, scope_type: str, scope_id: str) -> list[str] | None:
        """The names of the levels above, from the top, without the organisation's root; None: not all are known."""
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
        """Either a level has been said to be right below it, or it alone is in nothing: two such are just levels."""
        return level in self._roots or (level in self._alone and len(self._alone) == 1)

    def is_gone(self, scope_type: str, scope_id: str) -> bool:
        """Whether it is known that there is no such room or level any more."""
        place = self._places.get((scope_type, scope_id))
        return place is not None and place.gone_ms is not None


def called(places: Iterable[KnownPlace], text: str) -> tuple[list[KnownPlace], list[KnownPlace]]:
    """Rooms and levels with this name, whatever the case, and those whose names begin so. What is gone only if nothing else is."""
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
    """A name as it is kept and shown; None: the platform told none."""
    return visible(name.strip(), LONGEST_NAME) or None if isinstance(name, str) else None


def is_id(value: object) -> TypeGuard[str]:
    """Whether this can be the id of a room or level."""
    return isinstance(value, str) and 0 < len(value) <= LONGEST_ID and value.isprintable()
