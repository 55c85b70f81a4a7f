"""All levels and rooms there are, by walking from the top: the levels first, then the rooms of each.

What must stay true: it ends, whatever the answers hold. Each id is met once, no page is asked for twice, and there are bounds.

Nobody says whether listing the rooms of a level lists those of the levels below as well: each level is asked, and what comes
twice counts once.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, Final, TypeAlias

from msgspec.structs import replace

from reserve_listener.lark.api.errors import GoneError, TryAgainError
from reserve_listener.lark.api.reading import objects_of, place_of, text_of

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Sequence

    from reserve_listener.lark.api.answers import Place, ScopeType

    Ask: TypeAlias = Callable[[str, dict[str, str]], Awaitable[dict[str, Any]]]
    """A path and its parameters in, the answer's `data` out."""

PATHS: Final[dict[ScopeType, str]] = {
    "level": "/open-apis/vc/v1/room_levels",
    "room": "/open-apis/vc/v1/rooms",
}
LISTS: Final[dict[ScopeType, str]] = {"level": "items", "room": "rooms"}
PAGE_SIZE: Final = 100
"""The most that the platform takes."""
MOST_PAGES: Final = 2_000
"""Of one list: 200,000 rooms."""
MOST_PLACES: Final = 200_000
"""Twenty times what a large organisation has."""
SIDE_BY_SIDE: Final = 4
"""Lists that are read at the same time: enough to reach the pace at 200 ms an answer."""
TENANT: Final = ""
"""What everything is below of; it lists what the root has."""


class Walk:
    """One look at everything."""

    def __init__(self, ask: Ask, root: Place | None) -> None:
        self._ask = ask
        self._root = root
        self._levels: dict[str, tuple[str, ...]] = {}
        """What the paths of those in a level are: the levels above it and itself, nothing of the root."""
        self._rooms: set[str] = set()

    async def places(self) -> AsyncIterator[Place]:
        """Each level and room once, a level before what is in it."""
        top = [TENANT]
        if self._root is not None:
            self._levels[self._root.scope_id] = ()
            top.append(self._root.scope_id)
            yield self._root
        async for place in self._below(top):
            yield place
        async for place in self._in([TENANT, *self._levels]):
            yield place

    async def _below(self, ahead: list[str]) -> AsyncIterator[Place]:
        while ahead:
            now, ahead = ahead[:SIDE_BY_SIDE], ahead[SIDE_BY_SIDE:]
            for above, items in await self._lists("level", now):
                for item in items:
                    place = place_of("level", item)
                    if place is None or place.scope_id in self._levels:
                        continue
                    place = self._level(place, above, alone=len(items) == 1)
                    self._count()
                    yield place
                    if item.get("has_child") is not False:
                        ahead.append(place.scope_id)

    def _level(self, place: Place, above: str, *, alone: bool) -> Place:
        """The level with the path that the walk came. Without a parent, alone at the top, it is the root."""
        if self._root is None and above == TENANT and place.parent is None and alone:
            self._levels[place.scope_id] = ()
            return replace(place, path=())
        path = self._levels.get(place.parent or above, self._levels.get(above, ()))
        self._levels[place.scope_id] = (*path, place.scope_id)
        return replace(place, path=path, parent=place.parent or above or self._root_id)

    async def _in(self, levels: Sequence[str]) -> AsyncIterator[Place]:
        for at in range(0, len(levels), SIDE_BY_SIDE):
            for above, items in await self._lists("room", levels[at : at + SIDE_BY_SIDE]):
                for place in filter(None, (place_of("room", item) for item in items)):
                    if place.scope_id not in self._rooms:
                        self._rooms.add(place.scope_id)
                        self._count()
                        yield self._room(place, above)

    def _room(self, place: Place, above: str) -> Place:
        parent = place.parent or above or self._root_id
        known = tuple(each for each in place.path if self._levels.get(each))
        return replace(place, path=self._levels.get(parent or TENANT, known), parent=parent)

    @property
    def _root_id(self) -> str | None:
        return None if self._root is None else self._root.scope_id

    def _count(self) -> None:
        if len(self._levels) + len(self._rooms) > MOST_PLACES:
            raise TryAgainError(
                f"there are more than {MOST_PLACES} rooms and levels, if the answers are right"
            )

    async def _lists(
        self, kind: ScopeType, levels: Sequence[str]
    ) -> Iterable[tuple[str, list[dict[str, Any]]]]:
        """What each level lists. One after the other is awaited to its end also if one fails: none is left behind."""
        lists = await asyncio.gather(*(self._list(kind, level) for level in levels), return_exceptions=True)
        found = []
        for level, each in zip(levels, lists, strict=True):
            if isinstance(each, BaseException):
                raise each
            found.append((level, each))
        return found

    async def _list(self, kind: ScopeType, level: str) -> list[dict[str, Any]]:
        params = {"page_size": str(PAGE_SIZE)} | ({"room_level_id": level} if level != TENANT else {})
        items: list[dict[str, Any]] = []
        tokens: set[str] = set()
        for _ in range(MOST_PAGES):
            try:
                page = await self._ask(PATHS[kind], params)
            except GoneError:
                if level == TENANT:
                    raise
                return items  # deleted while we walk
            items += objects_of(page.get(LISTS[kind]))
            if page.get("has_more") is not True:
                return items
            params["page_token"] = token = text_of(page.get("page_token"))
            if not token or token in tokens:
                break
            tokens.add(token)
        raise TryAgainError(
            f"a list of {kind}s does not end: its page_token is missing, repeats, or goes on for {MOST_PAGES} pages"
        )
