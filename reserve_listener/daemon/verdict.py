"""The verdict over a daemon: ok, degraded or failing, with reasons. Pure.

Failing: events are not received, or not accepted. Degraded: something is late or needs a person, but nothing is lost.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Final

from reserve_listener.clock import rfc3339
from reserve_listener.web.answers import Reason

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from reserve_listener.daemon.alerts.replicas import Told
    from reserve_listener.model import Replica, State
    from reserve_listener.web.answers import SinkStatus

OK: Final = "ok"
DEGRADED: Final = "degraded"
FAILING: Final = "failing"
STOPPED: Final = "stopped"

FILLING: Final = 0.7
"""From here on the store is warned of everywhere."""

GAP_LEFT_MS: Final = 24 * 3600 * 1000
"""A gap that nothing will look into is told for so long: longer would not bring anything back."""

DEAF_MS: Final = 60_000
"""A replica that starts or reconnects is connected before that."""

LATE_MS: Final = 300_000
"""A sink that fails for so long is late; what a restarted receiver refuses for a minute is not worth waking anybody."""

Missed = tuple[int, int, int | None, int | None]
"""A gap, as `Insight` has it: from, to, how many changes were found afterwards, how many places could not be read."""

_BY_HAND: Final = (
    "nothing compares the rooms with the platform: turn rooms.reconcile on, or look through them by hand"
)
_SINK_HINTS: Final = {
    "down": "its deliveries wait, and it is probed at least once a minute; to see its answer, run:"
    " reserve-listener sinks test {name}",
    "misconfigured": "check its url and credentials, then run: reserve-listener sinks test {name}",
    "failing": "its deliveries are retried; to see its answer, run: reserve-listener sinks test {name}",
    "disabled": "its deliveries wait; to resume, run: reserve-listener sinks enable {name}",
}


def not_connected(state: State, *, text: str, since_ms: int) -> Iterator[Reason]:
    """Events do not come in."""
    if state.is_receiving:
        return
    hint = state.hint
    if state.until is not None:
        wait_s = max(0.0, state.until - time.monotonic())
        hint = "; ".join(
            filter(
                None, (hint, f"it retries in {wait_s:.0f} s; to retry now, run: reserve-listener reconnect")
            )
        )
    yield Reason(part="connection", since=rfc3339(since_ms), reason=f"not connected: {text}", hint=hint)


def not_taking(problem: str | None, *, since_ms: int | None) -> Iterator[Reason]:
    """Pushes are answered 500."""
    if problem is not None:
        yield Reason(
            part="store",
            since=_at(since_ms),
            reason=f"pushes are answered 500: {problem}",
            hint="the platform retries after 15 s, 5 min, 1 h and 6 h: make the store writable before then",
        )


def not_telling(silence: str | None, *, since_ms: int | None) -> Iterator[Reason]:
    """The store takes pushes as far as is known, but does not say what is in it."""
    if silence is not None:
        yield Reason(
            part="store",
            since=_at(since_ms),
            reason=f"what is in it is not known: {silence}",
            hint="pushes are still accepted; if this lasts, see how busy its disk or database is",
        )


def open_gaps(gaps: Sequence[Missed], *, now_ms: int, reconciles: bool) -> list[Missed]:
    """Those of which nobody knows yet what was missed: until the rooms are compared, or for a day if nobody does that."""
    return [gap for gap in gaps if gap[2] is None and (reconciles or now_ms - gap[1] <= GAP_LEFT_MS)]


def missed(gaps: Sequence[Missed], *, reconciles: bool) -> Iterator[Reason]:
    """Changes may have been lost: `gaps` are open."""
    if gaps:
        from_ms, to_ms, _, _ = max(gaps, key=lambda gap: gap[1])
        more = f" (and {len(gaps) - 1} such times before)" if len(gaps) > 1 else ""
        yield Reason(
            part="gap",
            since=rfc3339(to_ms),
            reason=f"changes from {rfc3339(from_ms)} to {rfc3339(to_ms)} may have been missed{more}",
            hint="all rooms and levels are being compared with the platform" if reconciles else _BY_HAND,
        )


def troubled_sinks(sinks: Sequence[SinkStatus], *, now_ms: int) -> Iterator[Reason]:
    """Sinks that somebody should look at."""
    late = rfc3339(now_ms - LATE_MS)
    for sink in sinks:
        if sink.state not in _SINK_HINTS:
            continue
        is_late = sink.pending > 0 and sink.failing_since is not None and sink.failing_since <= late
        if sink.state == "failing" and not is_late:
            continue
        yield Reason(
            part=f"sink {sink.name}",
            since=sink.failing_since,
            reason=f"{sink.state}: {sink.last_error}" if sink.last_error else sink.state,
            hint=_SINK_HINTS[sink.state].format(name=sink.name),
        )


def dead_letters(count: int, *, since_ms: int | None) -> Iterator[Reason]:
    """Deliveries that were given up wait for a decision."""
    if count:
        yield Reason(
            part="dead_letters",
            since=_at(since_ms),
            reason="1 delivery was given up" if count == 1 else f"{count} deliveries were given up",
            hint="to see why, run: reserve-listener dead-letters list; then retry or drop them",
        )


def deaf_replicas(told: Iterable[tuple[Replica, Told]], *, now_ms: int) -> Iterator[Reason]:
    """Some hear nothing, while others do: the platform sends to those."""
    for replica, one in told:
        if one.deaf_since_ms is not None and now_ms - one.deaf_since_ms >= DEAF_MS:
            yield Reason(
                part=f"replica {replica.host}",
                since=rfc3339(one.deaf_since_ms),
                reason=f"process {replica.pid} is not connected: {one.connection}",
                hint=one.hint,
            )


def different_sinks(replicas: Sequence[Replica]) -> Iterator[Reason]:
    """Daemons that share the store are not configured alike: what the one that works a sink says goes."""
    every = {name for replica in replicas for name in replica.sinks}
    for replica in replicas:
        if missing := sorted(every.difference(replica.sinks)):
            yield Reason(
                part=f"replica {replica.host}",
                since=None,
                reason=f"process {replica.pid} has no sink {', '.join(missing)}, which another replica has",
                hint="give all replicas the same [[sinks]]; what none has had for 10 minutes becomes dead letters",
            )


def is_filling(size_bytes: int | None, max_bytes: int | None) -> bool:
    """Whether the store nears its bound."""
    return size_bytes is not None and max_bytes is not None and size_bytes > max_bytes * FILLING


def filling(size_bytes: int | None, max_bytes: int | None, *, since_ms: int | None) -> Iterator[Reason]:
    """The store nears its bound."""
    if size_bytes is not None and max_bytes is not None and is_filling(size_bytes, max_bytes):
        yield Reason(
            part="store",
            since=_at(since_ms),
            reason=f"it is {100 * size_bytes / max_bytes:.0f} % full",
            hint="lower store.retention_days or raise store.max_size_mb; to see what is waiting, run: reserve-listener sinks list",
        )


def stopped(store: str, problem: str | None) -> Iterator[Reason]:
    """No daemon runs."""
    hint = "to start it, run: systemctl start reserve-listener, or reserve-listener run"
    yield Reason(part="daemon", since=None, reason=f"no daemon runs on the store {store}", hint=hint)
    if problem is not None:
        yield Reason(part="store", since=None, reason=problem, hint=None)


def _at(ms: int | None) -> str | None:
    return None if ms is None else rfc3339(ms)
