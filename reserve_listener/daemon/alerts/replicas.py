"""What a replica tells the others of itself, so that one of them can tell the alerts of all. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import msgspec

from reserve_listener.daemon.alerts.conditions import SinkNow  # noqa: TC001  # msgspec looks at it
from reserve_listener.delivery import SinkHealth

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from reserve_listener.model import Replica

SINK: Final = "sink:"
"""What a replica leads begins with that, if it is a sink."""


class Told(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Of one replica, now."""

    silent_since_ms: int | None = None
    """Since when it hears nothing; None while it does, or while it tells that itself."""
    connection: str = ""
    """In words, with who it is."""
    hint: str | None = None
    deaf_since_ms: int | None = None
    """Since when it hears nothing, whoever tells that; None while it does."""
    reconciles: bool = False
    """Whether it compares the rooms with the platform after a gap, if it is the one that does."""
    sinks: dict[str, SinkNow] = {}
    """As its workers know them."""


def others(replicas: Iterable[Replica], own: str | None) -> Iterator[tuple[Replica, Told]]:
    """What the others have told. One of another version may tell what is not understood here."""
    for replica in replicas:
        if replica.id != own and replica.told is not None:
            try:
                yield replica, msgspec.json.decode(replica.told, type=Told)
            except msgspec.MsgspecError:
                continue


def health_of(sink: SinkNow) -> SinkHealth:
    """The same as that of a worker in this process."""
    state = "disabled" if sink.state == "gone" else sink.state
    return SinkHealth(state=state, last_error=sink.error, failing_since_ms=sink.since_ms)


def sinks_of(told: Iterable[tuple[Replica, Told]]) -> dict[str, SinkNow]:
    """The sinks that others work now, as they know them."""
    return {
        name: one.sinks[name]
        for replica, one in told
        for name in (lead.removeprefix(SINK) for lead in replica.leads if lead.startswith(SINK))
        if name in one.sinks
    }


def quietest(told: Iterable[Told]) -> Told | None:
    """The one that has heard nothing for longest, of those that hear nothing."""
    silent = [(one.silent_since_ms, one.connection, one) for one in told if one.silent_since_ms is not None]
    return min(silent, key=lambda one: one[:2])[2] if silent else None
