"""A connection that never waits for an answer without a limit.

The server ends a statement that takes too long, and the system notices a server that has vanished. Neither helps if the server
is frozen, or if something in between answers for it but no longer forwards: so the client limits its waits, too.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any, Final

import psycopg

if TYPE_CHECKING:
    from collections.abc import Generator

STATEMENT_TIMEOUT_S: Final = 20.0
"""The longest step, a chunk of retention, takes some tenths of a second; a server that is so slow is as good as away."""

GRACE_S: Final = 2.0
"""So much longer we wait than the server is told to: if it says itself what took so long, that is the better message."""


class BoundedConnection(psycopg.Connection[Any]):
    """Used by one thread, which says with `allow` how long it will wait."""

    _until_s = _end_s = float("inf")

    def allow(self, seconds: float) -> None:
        """All that is waited for from now on has to be there within so long."""
        self._until_s = time.monotonic() + seconds

    def end_within(self, seconds: float) -> None:
        """Whatever is allowed: after so long nothing is waited for any more. May be called in any thread."""
        self._end_s = time.monotonic() + seconds

    def wait(self, gen: Generator[Any, Any, Any], *arguments: Any, **options: Any) -> Any:
        """As psycopg's, which all its waiting goes through. When it takes too long, the connection is of no use any more."""
        try:
            return super().wait(self._bounded(gen), *arguments, **options)
        except NoAnswerError:
            self.close()
            raise

    def _bounded(self, steps: Generator[Any, Any, Any]) -> Generator[Any, Any, Any]:
        """The same steps. Whoever takes them looks in about ten times a second when nothing is ready."""
        try:
            wanted = next(steps)
            while True:
                is_ready = yield wanted
                if not is_ready and time.monotonic() > min(self._until_s, self._end_s):
                    raise NoAnswerError("the server has not answered in time")
                wanted = steps.send(is_ready)
        except StopIteration as end:
            return end.value


class NoAnswerError(psycopg.OperationalError):
    """The server stands still, or the way to it does."""
