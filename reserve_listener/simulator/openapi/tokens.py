"""Tenant tokens: two hours long; the same one while half an hour is left, then a new one, and both are valid."""

from __future__ import annotations

import secrets
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable

LIFE_S: Final = 7200
RENEWED_WITHIN_S: Final = 1800


class Tokens:
    """`clock` tells seconds."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._expiry: dict[str, float] = {}

    def give(self) -> tuple[str, int]:
        """A token, and how many seconds it has left."""
        now = self._clock()
        self._expiry = {token: end for token, end in self._expiry.items() if end > now}
        for token, end in self._expiry.items():
            if end - now >= RENEWED_WITHIN_S:
                return token, int(end - now)
        token = f"t-{secrets.token_hex(16)}"
        self._expiry[token] = now + LIFE_S
        return token, LIFE_S

    def good(self, token: str) -> bool:
        """Whether it was given here and lives."""
        return self._expiry.get(token, 0.0) > self._clock()

    def expire(self) -> None:
        """All tokens given so far are dead."""
        self._expiry.clear()
