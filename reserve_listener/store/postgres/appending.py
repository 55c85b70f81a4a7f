"""How events get in while other replicas do the same: one at a time, each to its commit.

What must stay true: whoever numbers an event or looks at what is known of a scope holds the append lock. So numbers come in
the order of the commits, and `revision` and `changes` are right whichever replica heard the event before.
"""

from __future__ import annotations

from itertools import groupby, islice
from operator import attrgetter
from typing import TYPE_CHECKING, Any, NamedTuple

from reserve_listener.model import Verdict
from reserve_listener.store.postgres import listening
from reserve_listener.store.shared import projecting
from reserve_listener.store.shared.appending import Appending

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from reserve_listener.model import IncomingEvent
    from reserve_listener.store.postgres.connection import Connection
    from reserve_listener.store.shared.appending import Appended


class SharedAppending(Appending):
    """See `Appending`. Many are put in by two round trips, one alone would take more."""

    together = True

    def took(self, newest: int, connection: Any) -> None:
        """See `Appending.took`. Who is here holds the append lock, so nobody else has given any meanwhile."""
        connection.query("SELECT setval('events_seq', %s)", (newest,))


def locked(work: Callable[[Connection], Any], connection: Connection) -> Any:
    """Work that appends, or compares with what is known."""
    connection.lock_appends()
    return work(connection)


class Batch(NamedTuple):
    """Events that came together, and who puts them in."""

    appending: SharedAppending
    events: Sequence[IncomingEvent]


def append(replica: str, batches: Sequence[Batch], connection: Any) -> list[list[Appended]]:
    """Batches that came one after another, in one transaction and few statements; the other replicas are told once."""
    connection.lock_appends()
    results: list[list[Appended]] = []
    for who, some in groupby(batches, attrgetter("appending")):
        together = list(some)
        events = [event for batch in together for event in batch.events]
        appended = iter(projecting.project(who, events, None, connection))
        results += [list(islice(appended, len(batch.events))) for batch in together]
    if any(one.verdict is not Verdict.DUPLICATE for appended in results for one in appended):
        listening.tell(replica, listening.EVENTS, connection)
    return results
