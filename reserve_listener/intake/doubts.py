"""Scopes to read again: a push arrived during their reading, and nobody can tell whether the answer already contains it.

What must stay true: the store remembers these scopes; this module only knows when to ask for them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from reserve_listener.intake.jobs import Target, kind_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from reserve_listener.protocols.store import StoreReadings

AT_ONCE: Final = 100


class Doubts:
    """`wait_s`: how long to leave a scope alone after a push. `due_s` is on the monotonic `clock`."""

    def __init__(
        self, store: StoreReadings, *, app_id: str, wait_s: float, clock: Callable[[], float]
    ) -> None:
        self._store = store
        self._app_id = app_id
        self._wait_s = wait_s
        self._clock = clock
        self.due_s: float | None = None
        """When to `take` the scopes; None if there are none."""

    def add(self) -> None:
        """There is another scope."""
        if self.due_s is None:
            self.due_s = self._clock() + self._wait_s

    def put_off(self) -> None:
        """The scopes taken last have not been read yet."""
        self.due_s = self._clock() + self._wait_s

    async def take(self) -> list[Target]:
        """The first scopes. If there may be more, they are due soon."""
        found = await self._store.in_doubt(self._app_id, limit=AT_ONCE)
        self.due_s = None
        if len(found) == AT_ONCE:
            self.add()
        return [Target(kind, scope_id) for scope_type, scope_id in found if (kind := kind_of(scope_type))]
