"""What the API tells of rooms and levels, and how it is asked.

Names are the platform's, as they came: whoever shows one makes it safe to show (`text.visible`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal, Protocol, TypeAlias

import msgspec

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Collection

ScopeType: TypeAlias = Literal["level", "room"]


class Place(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """A room or a level."""

    scope_type: ScopeType
    scope_id: str
    name: str
    parent: str | None
    """The level that it is in; None: the organisation's root has none."""
    path: tuple[str, ...] = ()
    """The ids of the levels above it, from the top, without the organisation's root. The last one is `parent`, unless that is
    the root."""


class Limits(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """What may be booked in a scope, as the API answered."""

    scope_type: ScopeType
    scope_id: str
    config: dict[str, Any]
    """Its sections, in the words of the event, so that `intake.normalize` reads them like an event's: each under the event's
    name, people as `{"user_id": {"open_id": "ou_…"}}`. What the answer lacks is absent, and was not told. Numbers and texts are
    still as they came, and unknown keys, `if_cover_child_scope` among them, stay where they stood."""
    as_of_ms: int
    """The start of the read on the platform's clock, and no later: the answer's `Date` less the call's duration less 1 s, which
    is the resolution of a `Date`. A push with an older `create_time` is contained in the answer."""
    until_ms: int
    """The end of the read on the platform's clock, and no earlier: the answer's `Date` plus 1 s. A push with a later
    `create_time` is newer than the answer; of one in between nobody can say, so the scope is read again."""


class RoomsApi(Protocol):
    """The API, as those who ask about rooms see it.

    Each method may wait for its turn (the platform bounds the calls per minute) and is safe to cancel. Each raises `ApiError`
    (see `errors` for its kinds) and nothing else; none retries longer than a few seconds by itself: what passes later is a
    `TryAgainError`, for the caller to wait out.
    """

    def places(self) -> AsyncIterator[Place]:
        """All levels and rooms there are, each once; a level comes before what is in it."""

    async def place(self, scope_type: ScopeType, scope_id: str) -> Place:
        """One room or level. `GoneError`: it does not exist (any more)."""

    async def limits(self, scope_type: ScopeType, scope_id: str) -> Limits:
        """What may be booked in it now: one call of `requests_per_minute`.

        `GoneError` has a `code`: 121004 says that it does not exist, 126001 also that id and type do not match.
        """

    def taken_over(self) -> None:
        """This daemon reads limits from now on, and another did until now: `requests_per_minute` counts for both."""

    async def people(self, open_ids: Collection[str]) -> dict[str, str]:
        """The names of these people by open_id, in the language of the daemon; absent: not known to the platform."""

    async def close(self) -> None:
        """Give back what is held. May be called twice; does not raise."""
