"""The daemon's parts in the words of Prometheus.

Names and labels never change; docs/status.md lists them. Every combination of labels exists from the start, so that a rate
has a zero to begin at. No label names a room, an event or an error's text.
"""

from __future__ import annotations

import platform
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily

from reserve_listener import __version__
from reserve_listener.clock import wall_ms
from reserve_listener.errors import StoreError
from reserve_listener.meters import API_CALLS, API_OUTCOMES, CONNECTION_CHANGES, RECONCILED
from reserve_listener.model import Verdict

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from prometheus_client.core import Metric

    from reserve_listener.daemon.snapshot import Health
    from reserve_listener.delivery import Worker, Workers
    from reserve_listener.intake.intake import Intake
    from reserve_listener.meters import DeliveryMeter, Histogram, RoomsMeter
    from reserve_listener.model import Backlog
    from reserve_listener.protocols import Transport
    from reserve_listener.protocols.store import StoreHealth
    from reserve_listener.web.reads import Reads

PREFIX: Final = "reserve_listener_"

OUTCOMES: Final = {
    "stored": (Verdict.STORED,),
    "duplicate": (Verdict.DUPLICATE,),
    "unreadable": (Verdict.UNREADABLE,),
    "superseded": (Verdict.SUPERSEDED,),
    "refused": (Verdict.OVERLOADED, Verdict.FAILED),
    "other_type": (Verdict.OTHER_TYPE,),
}

PAUSES: Final = {"breaker": "down", "misconfigured": "misconfigured", "disabled": "disabled"}
"""Why a sink is not sent to, by the state in which it is then."""


@dataclass(frozen=True, kw_only=True)
class Metrics:
    """See `web.metrics.Metrics`. `transport_name`: of `lark.transport`."""

    store: StoreHealth
    intake: Intake
    transport: Transport
    transport_name: str
    workers: Workers
    rooms: RoomsMeter
    health: Health
    reads: Reads

    async def collect(self) -> Sequence[Metric]:
        """All of it, as it is now."""
        try:
            backlog = await self.reads.ask(lambda reader: reader.backlog(self.store.now_ms()))
        except StoreError:  # what only the store knows is left out, rather than told from memory
            backlog = None
        return [
            _gauge("build_info", "Always 1; the labels say what runs.", ("version", "python"),
                   [((__version__, platform.python_version()), 1)]),
            *self._connection(),
            *self._intake(backlog),
            *self._store(),
            *self._deliveries(self.workers.all(), self.workers.meters()),
            *_waiting(backlog, self.workers),
            *_rooms(self.rooms),
        ]  # fmt: skip

    def _connection(self) -> Iterator[Metric]:
        is_connected = int(self.transport.state.is_receiving)
        yield _gauge(
            "connected",
            "Whether pushes can arrive.",
            ("transport",),
            [((self.transport_name,), is_connected)],
        )
        yield _counter(
            "connection_changes", "Changes of the connection, by reason.", ("reason",),
            [((change,), self.health.changes[change]) for change in CONNECTION_CHANGES],
        )  # fmt: skip
        frame_s = self.transport.last_frame_s
        yield _moment(
            "last_frame_timestamp_seconds",
            "When something was last read from the platform.",
            None if frame_s is None else wall_ms(frame_s),
        )

    def _intake(self, backlog: Backlog | None) -> Iterator[Metric]:
        last_ms = None if backlog is None else backlog.last_event_ms
        yield _moment("last_event_timestamp_seconds", "When the last event was stored.", last_ms)
        counts, meter = self.intake.counts, self.intake.meter
        yield _counter(
            "events_received", "Pushes, each counted once, by outcome.", ("outcome",),
            [((name,), sum(counts[verdict] for verdict in verdicts)) for name, verdicts in OUTCOMES.items()],
        )  # fmt: skip
        yield _histogram(
            "answer_duration_seconds",
            "From a push to its verdict; the platform waits 3 s.",
            (),
            [((), meter.answers_s)],
        )
        yield _histogram(
            "commit_duration_seconds", "Making a batch of pushes durable.", (), [((), meter.commits_s)]
        )
        yield _histogram(
            "commit_batch_events", "Pushes that were made durable together.", (), [((), meter.batches)]
        )

    def _store(self) -> Iterator[Metric]:
        yield _gauge("store_size_bytes", "The store's size on its disk.", (), [((), self.store.size_bytes)])
        bound = self.store.max_bytes
        yield _gauge(
            "store_limit_bytes", "The size at which pushes are refused.", (), [((), bound)] if bound else []
        )

    def _deliveries(
        self, workers: Sequence[Worker], counted: Mapping[str, DeliveryMeter]
    ) -> Iterator[Metric]:
        meters = counted.items()
        yield _counter(
            "deliveries", "Attempts to deliver an event, by outcome; dead includes events given up without an attempt.",
            ("sink", "outcome"),
            [((name, outcome), count) for name, meter in meters for outcome, count in meter.outcomes.items()],
        )  # fmt: skip
        yield _histogram(
            "delivery_duration_seconds", "One attempt, of one event or a batch.", ("sink",),
            [((name,), meter.attempts_s) for name, meter in meters],
        )  # fmt: skip
        yield _histogram(
            "delivery_delay_seconds", "From when an event was stored to when the sink had it.", ("sink",),
            [((name,), meter.delays_s) for name, meter in meters],
        )  # fmt: skip
        yield _gauge(
            "sink_paused", "Whether a sink is only probed, retried slowly or sent nothing, and why.", ("sink", "reason"),
            [
                ((worker.sink.name, reason), int(worker.health.state == state))
                for worker in workers
                for reason, state in PAUSES.items()
            ],
        )  # fmt: skip


def _waiting(backlog: Backlog | None, workers: Workers) -> Iterator[Metric]:
    sinks = [] if backlog is None else backlog.sinks
    states: list[_Row] = []
    for sink in filter(lambda sink: sink.configured, sinks):
        worker = workers.worker(sink.name)
        in_flight = min(0 if worker is None else worker.in_flight, sink.pending)
        waiting = min(sink.waiting, sink.pending - in_flight)
        states += [
            ((sink.name, "ready"), sink.pending - in_flight - waiting),
            ((sink.name, "in_flight"), in_flight),
            ((sink.name, "waiting"), waiting),
        ]
    yield _gauge(
        "pending_events",
        "Events not delivered yet; waiting: they failed, and are not due yet.",
        ("sink", "state"),
        states,
    )
    yield _gauge(
        "oldest_pending_timestamp_seconds", "When the oldest undelivered event was stored.", ("sink",),
        [((sink.name,), sink.oldest_ms / 1000) for sink in sinks if sink.oldest_ms is not None],
    )  # fmt: skip
    yield _gauge(
        "dead_letters",
        "Deliveries that were given up; also of sinks that have been removed.",
        ("sink",),
        [((sink.name,), sink.dead) for sink in sinks],
    )


def _rooms(meter: RoomsMeter) -> Iterator[Metric]:
    calls = [
        ((call, outcome), meter.requests[call, outcome]) for call in API_CALLS for outcome in API_OUTCOMES
    ]
    yield _counter("api_requests", "Calls to the platform's API.", ("call", "outcome"), calls)
    yield _counter(
        "api_rate_limited",
        "Calls that the platform's rate limit refused.",
        ("call",),
        [((call,), meter.limited[call]) for call in API_CALLS],
    )
    yield _counter(
        "reconciled_scopes",
        "Rooms and levels that were compared with the platform.",
        ("outcome",),
        [((outcome,), meter.reconciled[outcome]) for outcome in RECONCILED],
    )
    yield _moment(
        "last_reconciliation_timestamp_seconds", "When all were last compared.", meter.reconciled_ms
    )


_Row = tuple[tuple[str, ...], float]


def _gauge(name: str, text: str, labels: tuple[str, ...], rows: Iterable[_Row]) -> Metric:
    family = GaugeMetricFamily(PREFIX + name, text, labels=labels)
    for values, value in rows:
        family.add_metric(values, value)
    return family


def _counter(name: str, text: str, labels: tuple[str, ...], rows: Iterable[_Row]) -> Metric:
    family = CounterMetricFamily(PREFIX + name, text, labels=labels)
    for values, value in rows:
        family.add_metric(values, value)
    return family


def _moment(name: str, text: str, ms: int | None) -> Metric:
    """Absent as long as it has not come."""
    return _gauge(name, text, (), [] if ms is None else [((), ms / 1000)])


def _histogram(
    name: str, text: str, labels: tuple[str, ...], rows: Iterable[tuple[tuple[str, ...], Histogram]]
) -> Metric:
    family = HistogramMetricFamily(PREFIX + name, text, labels=labels)
    for values, histogram in rows:
        total, buckets = 0, []
        bounds = (*(repr(float(bound)) for bound in histogram.bounds), "+Inf")
        for bound, count in zip(bounds, list(histogram.counts), strict=True):
            total += count
            buckets.append((bound, total))
        family.add_metric(values, buckets, histogram.total)
    return family
