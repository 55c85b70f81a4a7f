"""The tenant token: what the app proves itself with, for up to two hours.

With 30 minutes or more left the platform gives the same token again, with less a new one beside it. So it is renewed within
its last 30 minutes, and if that fails, the old one serves until it ends.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final, NamedTuple

from reserve_listener.lark.api.errors import ApiError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

RENEWED_S: Final = 1800.0
"""Before its end: earlier the platform gives the same one again."""
PAUSE_S: Final = 60.0
"""Between two attempts to renew a token that still serves."""


class Given(NamedTuple):
    """A token, and how many seconds it lives."""

    token: str
    life_s: float


class TenantToken:
    """One token for all calls. `ask` gets it from the platform, and raises `ApiError`; it is never asked twice at a time."""

    def __init__(self, ask: Callable[[], Awaitable[Given]], *, clock: Callable[[], float]) -> None:
        self._ask = ask
        self._clock = clock
        self._token: str | None = None
        self._ends_s = 0.0
        self._renewal_s = 0.0
        self._renewing = asyncio.Lock()

    async def get(self) -> str:
        """The token, renewed when it is time; meanwhile others get the old one. Raises as `ask` when there is none."""
        serves = self._serving()
        if serves is not None and (self._clock() < self._renewal_s or self._renewing.locked()):
            return serves
        async with self._renewing:
            serves = self._serving()  # somebody else may have asked meanwhile
            if serves is None or self._clock() >= self._renewal_s:
                serves = await self._renew(serves)
            return serves

    def refused(self, token: str) -> None:
        """The platform takes this one no more, whatever it said of its life."""
        if token == self._token:
            self._token = None

    def _serving(self) -> str | None:
        return self._token if self._clock() < self._ends_s else None

    async def _renew(self, serves: str | None) -> str:
        asked_s = self._clock()
        self._renewal_s = asked_s + PAUSE_S
        try:
            given = await self._ask()
        except ApiError:
            if serves is None:
                raise
            return serves
        self._token, self._ends_s = given.token, asked_s + given.life_s
        self._renewal_s = max(self._ends_s - RENEWED_S, self._renewal_s)
        return given.token
