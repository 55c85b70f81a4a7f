"""What there is to read: the levels and rooms that the platform lists, and any others that are known.

What must stay true: known scopes never wait for unknown ones.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from reserve_listener.errors import NotFoundError
from reserve_listener.intake.jobs import Target, whole
from reserve_listener.lark.api.errors import ApiError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from reserve_listener.intake.directory import Directory
    from reserve_listener.intake.survey import Survey
    from reserve_listener.lark.api.answers import ScopeType
    from reserve_listener.protocols.store import StoreReadings

KINDS: Final[tuple[ScopeType, ...]] = ("room", "level")


class Inventory:
    """One app's."""

    def __init__(self, store: StoreReadings, survey: Survey, directory: Directory, *, app_id: str) -> None:
        self._store = store
        self._survey = survey
        self._directory = directory
        self._app_id = app_id

    async def places(self, *, no_older_s: float) -> tuple[list[Target], ApiError | None]:
        """All there are (see `Survey.look`), or those of the last look together with the error.

        Raises `ApiError` if nothing is known that could be read meanwhile.
        """
        try:
            return await self._survey.look(no_older_s=no_older_s), None
        except ApiError as error:
            known = self._survey.known()
            if not known and not await self._store.asked(self._app_id):
                raise
            return known, error

    async def left(self, places: Sequence[Target], number: int | None = None) -> tuple[list[Target], int]:
        """What a pass still has to read: see `jobs.whole`."""
        asked = await self._store.asked(self._app_id)
        return whole(places, asked, self._directory.is_gone, number)

    async def targets(self, scope_ids: Sequence[str]) -> list[Target]:
        """The scopes that these ids stand for. Raises `NotFoundError`."""
        known = {
            (one.scope_type, one.scope_id) for one in await self._store.asked(self._app_id)
        } | self._directory.places.keys()
        targets = [
            Target(kind, scope_id) for scope_id in scope_ids for kind in KINDS if (kind, scope_id) in known
        ]
        if unknown := set(scope_ids) - {target.scope_id for target in targets}:
            raise NotFoundError(f"nothing is known of {', '.join(sorted(unknown))}.")
        return list(dict.fromkeys(targets))
