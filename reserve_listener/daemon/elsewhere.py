"""How daemons are that share the database with this one, or with a command: what they have told it. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING

from msgspec.structs import replace

from reserve_listener.clock import now_ms, rfc3339
from reserve_listener.daemon import verdict
from reserve_listener.daemon.alerts.replicas import health_of, others, sinks_of
from reserve_listener.daemon.snapshot import described, stopped
from reserve_listener.web.answers import ConnectionStatus, Reason

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from reserve_listener.daemon.alerts.replicas import Told
    from reserve_listener.model import Insight
    from reserve_listener.web.answers import Status


def without_answer(store: str, insight: Insight) -> Status:
    """What `status` says on a machine without a daemon: that none runs; or how those are that live on others."""
    return seen_from_here(store, insight, now_ms=now_ms()) if insight.replicas else stopped(store, insight)


def seen_from_here(store: str, insight: Insight, *, now_ms: int) -> Status:
    """Of the replicas that live (`insight.replicas`), by what they have told."""
    told = list(others(insight.replicas, None))
    working = sinks_of(told)
    sinks = [
        described(sink, health_of(working[sink.name]) if sink.name in working else None)
        for sink in insight.sinks
        if sink.configured
    ]
    deaf = [one for _, one in told if one.deaf_since_ms is not None]
    hearing = len(insight.replicas) - len(deaf)
    reconciles = any(one.reconciles for _, one in told)
    gaps = verdict.open_gaps(insight.gaps, now_ms=now_ms, reconciles=reconciles)
    failing = [] if hearing else list(_nobody_hears(deaf))
    degraded = [
        *(verdict.deaf_replicas(told, now_ms=now_ms) if hearing else ()),
        *verdict.missed(gaps, reconciles=reconciles),
        *verdict.troubled_sinks(sinks, now_ms=now_ms),
        *verdict.dead_letters(sum(sink.dead for sink in insight.sinks), since_ms=insight.first_dead_ms),
        *verdict.different_sinks(insight.replicas),
    ]
    return replace(
        stopped(store, insight),
        status=verdict.FAILING if failing else verdict.DEGRADED if degraded else verdict.OK,
        reasons=failing + degraded,
        sinks=sinks,
        connection=ConnectionStatus(
            state="connected" if hearing else "waiting",
            text=f"{hearing} of {len(insight.replicas)} replicas are connected, as they have told the database",
        ),
    )


def _nobody_hears(deaf: Sequence[Told]) -> Iterator[Reason]:
    first = min(deaf, key=lambda one: one.deaf_since_ms or 0)
    yield Reason(
        part="connection",
        since=rfc3339(first.deaf_since_ms or 0),
        reason=f"no replica is connected: {first.connection}",
        hint=first.hint,
    )


def unknown(store: str, problem: str) -> Status:
    """What it says there while the database does not tell which replicas live."""
    hint = "once the store can be reached, `status` shows the replicas; until then each says how it is on its own machine"
    reason = Reason(
        part="store", since=None, reason=f"whether daemons run is not known: {problem}", hint=hint
    )
    return replace(stopped(store, None), status=verdict.FAILING, reasons=[reason])
