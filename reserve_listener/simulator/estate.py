"""What the platform manages: an organisation's levels and rooms, their names and limits, and its people.

What must stay true: API answers and events both come from the estate, so they differ only by when they were made.
"""

from __future__ import annotations

import random
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from reserve_listener.simulator import limits

if TYPE_CHECKING:
    from collections.abc import Iterator

LEVEL: Final = 1
ROOM: Final = 2

ROOMS_PER_FLOOR: Final = 10
CHILDREN: Final = 4
"""How many levels share a parent."""
PEOPLE: Final = 20
DEEPEST: Final = 10
"""How deep levels may be nested on the platform."""

_ROOMS: Final = (
    "西湖", "Aurora", "太湖", "Borealis", "洱海", "Cascade", "黄山", "Delta", "泰山", "Everest",
    "长江", "Fjord", "黄河", "Glacier", "敦煌", "Horizon", "漓江", "Island", "天池", "Jasper",
    "庐山", "Karoo", "鼓浪屿", "Lagoon", "九寨沟", "Meridian", "青海湖", "Nimbus", "峨眉", "Orchard",
    "武夷", "Pacific", "雁荡", "Quartz", "千岛湖", "Rainier", "玉龙", "Sierra", "稻城", "Tundra",
)  # fmt: skip
_SITES: Final = ("上海 Shanghai", "北京 Beijing", "深圳 Shenzhen", "杭州 Hangzhou")
_NAMES: Final = (
    ("王芳", "Wang Fang"), ("李伟", "Li Wei"), ("张敏", "Zhang Min"), ("刘洋", "Liu Yang"), ("陈静", "Chen Jing"),
    ("杨磊", "Yang Lei"), ("赵丽", "Zhao Li"), ("黄强", "Huang Qiang"), ("周婷", "Zhou Ting"), ("吴军", "Wu Jun"),
)  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Person:
    """Somebody with a name in two languages, and with the ids that events contain."""

    ids: dict[str, str]
    name: str
    english: str

    @property
    def told(self) -> dict[str, Any]:
        """The person as in an event."""
        return {"user_id": self.ids}


@dataclass(slots=True, eq=False, kw_only=True)
class Place:
    """A level (`omb_…`) or a room (`omm_…`). `own`: the limits set on it; None: it follows the level above."""

    id: str
    scope_type: int
    name: str
    parent: Place | None
    own: dict[str, Any] | None = None
    levels: list[Place] = field(default_factory=list)
    rooms: list[Place] = field(default_factory=list)
    capacity: int = 0
    status: bool = True

    @property
    def limits(self) -> dict[str, Any]:
        """The limits in force."""
        if self.own is not None:
            return self.own
        return self.parent.limits if self.parent else limits.usual()

    @property
    def above(self) -> list[Place]:
        """The levels above it, from the root."""
        return [*self.parent.above, self.parent] if self.parent else []

    def below(self) -> Iterator[Place]:
        """All levels and rooms below it."""
        yield from self.rooms
        for level in self.levels:
            yield level
            yield from level.below()


class Estate:
    """`rooms` rooms on floors of ten, with `depth` tiers of levels (site, building, floor) below the root.

    The same seed makes the same estate. Each place has limits of its own; with `following` none has, and all follow the root.
    """

    def __init__(
        self,
        *,
        rooms: int = 40,
        depth: int = 3,
        seed: int = 1,
        following: bool = False,
        name: str = "示例科技",
    ) -> None:
        if not 1 <= depth < DEEPEST:
            raise ValueError(f"an estate has 1 to {DEEPEST - 1} levels below its root, not {depth}")
        self.random = random.Random(seed)  # noqa: S311  # no secrets come from here
        self.people = [self._person(number) for number in range(PEOPLE)]
        self.root = Place(id=self._id("omb"), scope_type=LEVEL, name=name, parent=None, own=limits.usual())
        self._places = {self.root.id: self.root}
        self._following = following
        self._build(rooms, depth)

    @property
    def levels(self) -> list[Place]:
        """All levels but the root."""
        return [each for each in self._places.values() if each.scope_type == LEVEL and each is not self.root]

    @property
    def rooms(self) -> list[Place]:
        """All rooms."""
        return [each for each in self._places.values() if each.scope_type == ROOM]

    @property
    def places(self) -> list[Place]:
        """Everything that has limits: the root, levels and rooms."""
        return list(self._places.values())

    def get(self, place_id: str) -> Place | None:
        """The level or room with this id; "0" is the root, as in the API."""
        return self.root if place_id == "0" else self._places.get(place_id)

    def person(self, person_id: str) -> Person | None:
        """The person with this id, of whatever kind."""
        return next((each for each in self.people if person_id in each.ids.values()), None)

    # -- changes ------------------------------------------------------------------------------------------------------------

    def add(self, name: str, parent: Place, *, scope_type: int = ROOM) -> Place:
        """Add a room or level."""
        place = Place(
            id=self._id("omm" if scope_type == ROOM else "omb"),
            scope_type=scope_type,
            name=name,
            parent=parent,
            own=None if self._following else parent.limits,
            capacity=self.random.choice([4, 6, 8, 12, 20]) if scope_type == ROOM else 0,
        )
        self._places[place.id] = place
        _siblings(place).append(place)
        return place

    def move(self, place: Place, parent: Place) -> None:
        """Put it under another level. `ValueError` if that is a room, or below the place itself."""
        if parent.scope_type != LEVEL or place in (parent, *parent.above):
            raise ValueError(f"{place.name} cannot be put under {parent.name}")
        _siblings(place).remove(place)
        place.parent = parent
        _siblings(place).append(place)

    def remove(self, place: Place) -> None:
        """Delete it and everything below it. `ValueError` for the root."""
        _siblings(place).remove(place)
        for each in (place, *place.below()):
            del self._places[each.id]

    def _build(self, rooms: int, depth: int) -> None:
        sizes = [max(1, -(-rooms // ROOMS_PER_FLOOR))]
        while len(sizes) < depth:
            sizes.append(-(-sizes[-1] // CHILDREN))
        above = [self.root]
        for tier, size in enumerate(reversed(sizes)):
            up = depth - 1 - tier  # tiers between this one and the floors
            above = [
                self.add(
                    _level_name(up, number), above[min(number // CHILDREN, len(above) - 1)], scope_type=LEVEL
                )
                for number in range(size)
            ]
        staff = [person.told for person in self.people]
        for number in range(rooms):
            room = self.add(_room_name(number), above[number // ROOMS_PER_FLOOR])
            if room.own is not None and self.random.random() < 1 / 2:
                room.own = limits.at_random(room.own, self.random, staff)

    def _person(self, number: int) -> Person:
        ids = {"union_id": f"on_{self._hex(30)}", "open_id": f"ou_{self._hex(31)}"}
        if self.random.random() < 2 / 3:  # a user_id needs a permission of its own, and is not there without
            ids["user_id"] = self._hex(8)
        name, english = _NAMES[number % len(_NAMES)]
        again = f" {number // len(_NAMES) + 1}" if number >= len(_NAMES) else ""
        return Person(ids=ids, name=name + again, english=english + again)

    def _id(self, kind: str) -> str:
        return f"{kind}_{self._hex(32)}"

    def _hex(self, digits: int) -> str:
        return f"{self.random.getrandbits(4 * digits):0{digits}x}"


def _siblings(place: Place) -> list[Place]:
    if place.parent is None:
        raise ValueError("the root stays where it is")
    return place.parent.rooms if place.scope_type == ROOM else place.parent.levels


def _room_name(number: int) -> str:
    name = _ROOMS[number % len(_ROOMS)]
    return name if number < len(_ROOMS) else f"{name} {number // len(_ROOMS) + 1}"


def _level_name(up: int, number: int) -> str:
    if up == 0:
        return f"{number % CHILDREN + 1}F"
    if up == 1:
        return f"{chr(ord('A') + number % 26)} 座"
    if up == 2:  # noqa: PLR2004
        site = _SITES[number % len(_SITES)]
        return site if number < len(_SITES) else f"{site} {number // len(_SITES) + 1}"
    return f"区域 Region {up}.{number + 1}"
