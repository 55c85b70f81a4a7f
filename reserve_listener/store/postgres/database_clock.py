"""The database's time of day, which all replicas go by: a machine's own clock may be wrong.

What must stay true: it is off by what one question to the database takes, at the most, whatever this machine's clock shows and
however often that is set.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from reserve_listener import clock
from reserve_listener.ages import running_ms

if TYPE_CHECKING:
    from collections.abc import Callable

    from reserve_listener.store.postgres.connection import Connection

NOW: Final = "(extract(epoch FROM clock_timestamp()) * 1000)::bigint"
"""As the database says it, in milliseconds since the epoch."""


class DatabaseClock:
    """Goes on between two looks by a clock of this machine that nobody can set. May be read in any thread."""

    def __init__(self, running_ms: Callable[[], int] = running_ms) -> None:
        self._running_ms = running_ms
        self._offset_ms = clock.now_ms() - running_ms()
        self._has_looked = False

    def now_ms(self) -> int:
        """The time of day; before the first look, this machine's."""
        return self._running_ms() + self._offset_ms

    def look(self, connection: Connection) -> None:
        """Ask the database. Work for a writer's thread."""
        before_ms = self._running_ms()
        now_ms = told_ms(connection)
        self._correct(now_ms - self._running_ms(), now_ms - before_ms)

    def _correct(self, lowest_ms: int, highest_ms: int) -> None:
        """The offset lies between these. One that did already is kept: a slow answer must not look like a clock that was set."""
        known_ms = self._offset_ms if self._has_looked else (lowest_ms + highest_ms) // 2
        self._offset_ms = min(max(known_ms, lowest_ms), highest_ms)
        self._has_looked = True


def told_ms(connection: Connection) -> int:
    """What the database's clock shows."""
    return int(connection.query(f"SELECT {NOW}").fetchone()[0])
