"""Tenant tokens, valid for two hours: the same one while half an hour is left, then a new one; both are valid."""

from __future__ import annotations

import secrets
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable

LIFE_S: Final = 7200
RENEWED_WITHIN_S: Final = 1800


class Tokens:
    """Gives out tokens. `clock`: the time in seconds."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._expiry: dict[str, float] = {}

    def give(self) -> tuple[str, int]:
        """A token, and for how many seconds it is still valid."""
        now = self._clock()
        self._expiry = {token: end for token, end in self._expiry.items() if end > now}
        for token, end in self._expiry.items():
            if end - now >= RENEWED_WITHIN_S:
                return token, int(end - now)
        token = f"t-{secrets.token_hex(16)}"
        self._expiry[token] = now + LIFE_S
        return token, LIFE_S

    def good(self, token: str) -> bool:
        """Whether the token was given out here and is still valid."""
        return self._expiry.get(token, 0.0) > self._clock()

    def expire(self) -> None:
        """Make all tokens given out so far invalid."""
        self._expiry.clear()
