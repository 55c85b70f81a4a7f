"""Failures of the platform's API: each is logged once, and says how long to wait."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import structlog

from reserve_listener.errors import StoreError
from reserve_listener.lark.api.errors import (
    ApiError,
    AppRefusedError,
    PermissionMissingError,
    TryAgainError,
)

if TYPE_CHECKING:
    from collections.abc import Collection

MENDED_S: Final = 600.0
"""How often to check whether a permission has been granted or a secret corrected: a call costs nothing."""
BACKOFF_S: Final = 5.0
BACKOFF_CAP_S: Final = 600.0
"""The longest wait between attempts at what may pass; the client itself has tried for some seconds by then."""


class Troubles:
    """The failures of one part: `part` is its name in the log, `meanwhile` says what still works.

    `told`: what has been logged since the start. All parts share it, so that a missing permission is logged once.
    """

    def __init__(self, part: str, meanwhile: str, told: set[tuple[str, ...]] | None = None) -> None:
        self._log = structlog.get_logger(part)
        self._part = part
        self._meanwhile = meanwhile
        self._told = set() if told is None else told
        self._failed: dict[str, int] = {}

    def pause_s(self, what: str, error: Exception) -> float:
        """Log what has failed and why. Returns after how long to try again."""
        if isinstance(error, PermissionMissingError):
            self._once(error.permissions, what, error, permissions=error.permissions)
            return MENDED_S
        if isinstance(error, AppRefusedError):
            self._once(("app",), what, error)
            return MENDED_S
        before = self._failed.get(what, 0)
        self._failed[what] = before + 1
        if not before:
            defect = None if isinstance(error, (ApiError, StoreError)) else error
            self._log.warning(
                f"{self._part}.interrupted",
                what=what,
                error=str(error),
                hint=self.hint_of(error),
                exc_info=defect,
            )
        asked_s = error.after_s if isinstance(error, TryAgainError) else None
        return min(asked_s or BACKOFF_S * 2 ** min(before, 10), BACKOFF_CAP_S)

    def over(self, what: str) -> None:
        """It works again."""
        self._failed.pop(what, None)

    def hint_of(self, error: Exception) -> str:
        """What a person can do, and what still works."""
        hint = error.hint if isinstance(error, ApiError) else None
        return f"{hint}; {self._meanwhile}" if hint else self._meanwhile

    def _once(self, key: tuple[str, ...], what: str, error: Exception, **more: Collection[str]) -> None:
        if key not in self._told:
            self._told.add(key)
            self._log.warning(
                f"{self._part}.unavailable", what=what, error=str(error), **more, hint=self.hint_of(error)
            )
