"""The API's client: which calls there are, and how often the platform takes each."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Any, Final

from reserve_listener.lark.api import reading, walk
from reserve_listener.lark.api.caller import ATTEMPTS, Caller, odd
from reserve_listener.lark.api.errors import ApiError, GoneError
from reserve_listener.lark.api.pace import MINUTE_S, Pace
from reserve_listener.meters import RoomsMeter

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Mapping, Sequence

    from reserve_listener.config import LarkConfig
    from reserve_listener.lark.api.answers import Limits, Place, ScopeType

CONNECTIONS_PATH: Final = "/open-apis/event/v1/connection"
LIMITS_PATH: Final = "/open-apis/vc/v1/reserve_configs/reserve_scope"
ROOT_PATH: Final = f"{walk.PATHS['level']}/0"
"""The organisation's own level, whose id nobody knows before."""
PEOPLE_PATH: Final = "/open-apis/contact/v3/users/basic_batch"

SCOPE_TYPES: Final[dict[ScopeType, str]] = {"level": "1", "room": "2"}
MGET_KEYS: Final[dict[ScopeType, str]] = {"level": "level_ids", "room": "room_ids"}
ROOMS: Final = ("vc:room:readonly", "vc:room")
PEOPLE: Final = ("contact:user.basic_profile:readonly",)

PEOPLE_AT_ONCE: Final = 10
"""The platform takes no more."""
LIMITS_PER_MINUTE: Final = 100
LIMITS_BURST: Final = 4
"""After a pause, so that `reconcile ROOM` need not wait for the first few."""
OTHERS_PER_MINUTE: Final = 900
OTHERS_BURST: Final = 25
"""The platform takes 1000 a minute and 50 a second: of these, 15 and 25 are the most in a second."""
PEOPLE_PER_MINUTE: Final = 240
"""The platform takes 5 a second: 4 of these are."""


def limits_pace(
    per_minute: int, *, clock: Callable[[], float], sleep: Callable[[float], Awaitable[None]]
) -> Pace:
    """How often limits are read. Never more than the platform takes, also in a minute in which other daemons take over.

    Those start over, so there is one burst in a minute. One call more than the share of a minute may lie at its edge, and one
    that had its turn just before another daemon took over may go out after that.
    """
    spare = LIMITS_PER_MINUTE - int(per_minute * 60 / MINUTE_S) - 2
    return Pace(per_minute, burst=min(LIMITS_BURST, spare), clock=clock, sleep=sleep)


class Client:
    """See `answers.RoomsApi`. One for all of a daemon: token, connections and pace are shared. Opens nothing by itself.

    `hide(secret, instead_of)` is told of each secret before it is used: the log shall mask it, and may forget the other one,
    a token that has ended.
    """

    def __init__(
        self,
        lark: LarkConfig,
        *,
        requests_per_minute: int = 80,
        attempts: int = ATTEMPTS,
        hide: Callable[[str, str], None],
        meter: RoomsMeter | None = None,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._language = lark.tells_in
        self._caller = Caller(
            lark, attempts=attempts, hide=hide, meter=meter or RoomsMeter(), clock=clock, sleep=sleep
        )
        self._limits = limits_pace(requests_per_minute, clock=clock, sleep=sleep)
        self._others = Pace(OTHERS_PER_MINUTE, burst=OTHERS_BURST, at_once=True, clock=clock, sleep=sleep)
        self._people = Pace(PEOPLE_PER_MINUTE, at_once=True, clock=clock, sleep=sleep)
        self._root: Place | None = None
        self._root_is_known = False

    async def places(self) -> AsyncIterator[Place]:
        """See `answers.RoomsApi`."""
        self._root_is_known = False  # its name may be another one by now
        async for place in walk.Walk(self._list, await self._find_root()).places():
            yield place

    async def place(self, scope_type: ScopeType, scope_id: str) -> Place:
        """See `answers.RoomsApi`."""
        root = await self._find_root()
        path, content = f"{walk.PATHS[scope_type]}/mget", {MGET_KEYS[scope_type]: [scope_id]}
        data, _ = await self._caller.call("place", self._others, "POST", path, content=content, needs=ROOMS)
        for item in reading.objects_of(data.get("items")):
            place = reading.place_of(scope_type, item, root=None if root is None else root.scope_id)
            if place is not None and place.scope_id == scope_id:
                return place
        raise GoneError(f"there is no such {scope_type}")

    async def limits(self, scope_type: ScopeType, scope_id: str) -> Limits:
        """See `answers.RoomsApi`."""
        params = {"scope_id": scope_id, "scope_type": SCOPE_TYPES[scope_type], "user_id_type": "open_id"}
        data, answer = await self._caller.call(
            "limits", self._limits, "GET", LIMITS_PATH, params=params, needs=ROOMS
        )
        return reading.limits_of(scope_type, scope_id, data, headers=answer.headers, took_s=answer.took_s)

    def taken_over(self) -> None:
        """See `answers.RoomsApi`."""
        self._limits.start_over()

    async def people(self, open_ids: Collection[str]) -> dict[str, str]:
        """See `answers.RoomsApi`."""
        asked = [each for each in dict.fromkeys(open_ids) if each]
        names: dict[str, str] = {}
        for at in range(0, len(asked), PEOPLE_AT_ONCE):
            names |= await self._names(asked[at : at + PEOPLE_AT_ONCE])
        return names

    async def sample(self) -> Place | None:
        """A room, or else the root: asks one call for levels and one for rooms. Raises as the others."""
        root = await self._find_root()
        page = await self._list(walk.PATHS["room"], {"page_size": "1"})
        rooms = (reading.place_of("room", item) for item in reading.objects_of(page.get("rooms")))
        return next(filter(None, rooms), root)

    async def connections(self) -> int:
        """How many clients of the app are connected now, over long connections. Raises as the others."""
        data, answer = await self._caller.call("connections", self._others, "GET", CONNECTIONS_PATH)
        count = data.get("online_instance_cnt")
        if type(count) is not int:
            raise odd(answer, "the answer has no number of connections")
        return count

    async def prove(self) -> None:
        """Whether the platform takes the app and its secret. Raises as the others."""
        await self._caller.token()

    async def close(self) -> None:
        """See `answers.RoomsApi`."""
        await self._caller.close()

    async def _find_root(self) -> Place | None:
        """The organisation's own level; None: the platform does not show it."""
        if not self._root_is_known:
            try:
                data = await self._list(ROOT_PATH, {})
                self._root = reading.place_of("level", data.get("room_level"))
            except ApiError as error:
                if type(error) not in (ApiError, GoneError):
                    raise
            self._root_is_known = True
        return self._root

    async def _list(self, path: str, params: Mapping[str, str]) -> dict[str, Any]:
        data, _ = await self._caller.call("places", self._others, "GET", path, params=params, needs=ROOMS)
        return data

    async def _names(self, open_ids: Sequence[str]) -> dict[str, str]:
        """Of at most ten. One id that the platform does not take spoils the call for the others: then halves are asked."""
        params, content = {"user_id_type": "open_id"}, {"user_ids": list(open_ids)}
        try:
            data, _ = await self._caller.call(
                "people", self._people, "POST", PEOPLE_PATH, params=params, content=content, needs=PEOPLE
            )
        except ApiError as error:
            if type(error) is not ApiError:
                raise
            half = len(open_ids) // 2
            return (
                {**await self._names(open_ids[:half]), **await self._names(open_ids[half:])} if half else {}
            )
        return reading.names_of(data.get("users"), open_ids, self._language)
