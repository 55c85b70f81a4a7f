"""`/metrics`: its names and labels are a contract, and counting must not cost."""

from __future__ import annotations

import asyncio
import re
import shutil
import signal
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from prometheus_client.openmetrics.parser import text_string_to_metric_families as read_openmetrics
from prometheus_client.parser import text_string_to_metric_families as read_text

from reserve_listener.meters import ANSWER_S, Histogram
from reserve_listener.simulator import Simulator, patience, sample_event
from reserve_listener.simulator.estate import Estate
from tests.conftest import NO_WAITS
from tests.daemon_process import until
from tests.web.test_health import watched

if TYPE_CHECKING:
    import httpx2

    from reserve_listener.simulator import HttpServer, Receiver

SINKS = ("console", "audit", "booking")
OUTCOMES = ("stored", "duplicate", "unreadable", "superseded", "refused", "other_type")
CALLS = ("token", "places", "place", "limits", "people")


def _each(label: str, values: tuple[str, ...], **more: tuple[str, ...]) -> set[frozenset[tuple[str, str]]]:
    found = [{label: value} for value in values]
    for name, others in more.items():
        found = [one | {name: value} for one in found for value in others]
    return {frozenset(one.items()) for one in found}


NONE = {frozenset[tuple[str, str]]()}
OF_SINKS = _each("sink", SINKS)
NAMES = {
    "build_info": ("gauge", None),
    "connected": ("gauge", _each("transport", ("long_connection",))),
    "connection_changes": (
        "counter",
        _each("reason", ("connected", "closed", "lost", "requested", "failed", "refused")),
    ),
    "last_frame_timestamp_seconds": ("gauge", NONE),
    "last_event_timestamp_seconds": ("gauge", set()),
    "events_received": ("counter", _each("outcome", OUTCOMES)),
    "answer_duration_seconds": ("histogram", NONE),
    "commit_duration_seconds": ("histogram", NONE),
    "commit_batch_events": ("histogram", NONE),
    "store_size_bytes": ("gauge", NONE),
    "store_limit_bytes": ("gauge", NONE),
    "deliveries": ("counter", _each("sink", SINKS, outcome=("delivered", "retry", "dead"))),
    "delivery_duration_seconds": ("histogram", OF_SINKS),
    "delivery_delay_seconds": ("histogram", OF_SINKS),
    "pending_events": ("gauge", _each("sink", SINKS, state=("ready", "in_flight", "waiting"))),
    "oldest_pending_timestamp_seconds": ("gauge", set()),
    "dead_letters": ("gauge", OF_SINKS),
    "sink_paused": ("gauge", _each("sink", SINKS, reason=("breaker", "misconfigured", "disabled"))),
    "api_requests": ("counter", _each("call", CALLS, outcome=("ok", "retry", "gone", "refused"))),
    "api_rate_limited": ("counter", _each("call", CALLS)),
    "reconciled_scopes": ("counter", _each("outcome", ("same", "changed", "gone", "failed"))),
    "last_reconciliation_timestamp_seconds": ("gauge", set()),
}
"""Name without its prefix, type, and the labels that are there before anything has happened."""


async def test_names_and_labels_are_all_there_from_the_start(
    tmp_path: Path, platform: Simulator, server: HttpServer
) -> None:
    """Each name, its type, and every combination of labels: a rate needs a zero to begin at; nothing else of ours."""
    async with watched(tmp_path, platform, server) as (_, client):
        text = (await client.get("/metrics")).text
    found = {family.name.removeprefix("reserve_listener_"): family for family in read_text(text)}
    ours = {family.name for family in read_text(text) if family.name.startswith("reserve_listener_")}
    assert ours == {f"reserve_listener_{name}" for name in NAMES}
    for name, (kind, combinations) in NAMES.items():
        family = found[name]
        assert family.type == kind, name
        labels = {
            frozenset(sample.labels.items() - {("le", sample.labels.get("le"))}) for sample in family.samples
        }
        assert combinations is None or labels == combinations, name
    (build,) = found["build_info"].samples
    assert (build.value, set(build.labels)) == (1, {"version", "python"})
    assert "process_resident_memory_bytes" in found
    assert "_created" not in text
    answers = [
        sample.labels["le"] for sample in found["answer_duration_seconds"].samples if "le" in sample.labels
    ]
    assert (answers[0], answers[-2:]) == ("0.001", ["3.0", "+Inf"])


async def test_what_happens_is_counted_once(
    tmp_path: Path, platform: Simulator, server: HttpServer, receiver: Receiver
) -> None:
    """Each push by what became of it, each attempt by its outcome; durations and delays of all of them."""
    async with watched(tmp_path, platform, server) as (daemon, client):
        now = 1_790_000_000_000
        for event_id, scope, created in (
            ("one", "omm_a", now),
            ("late", "omm_a", now - 60_000),
            ("one", "omm_a", now),
        ):
            push = platform.push(sample_event(event_id=event_id, scope_id=scope, create_time_ms=created))
            assert await push.answered() == 200
        platform.push(b"nonsense")
        other = sample_event(event_id="other")
        other["header"]["event_type"] = "im.message.receive_v1"
        platform.push(other)
        await until(lambda: daemon.pending() == 0)
        figures = await _figures(client, 'events_received_total{outcome="other_type"}', 1)
        received = {name: figures[f'events_received_total{{outcome="{name}"}}'] for name in OUTCOMES}
        assert received == {
            "stored": 1, "superseded": 1, "duplicate": 1, "unreadable": 1, "other_type": 1, "refused": 0,
        }  # fmt: skip
        assert figures["answer_duration_seconds_count"] == 5
        assert figures["commit_batch_events_sum"] == 4
        assert figures["commit_duration_seconds_count"] == figures["commit_batch_events_count"] <= 4
        for sink in SINKS:
            assert figures[f'deliveries_total{{outcome="delivered",sink="{sink}"}}'] == 2
            assert figures[f'delivery_delay_seconds_count{{sink="{sink}"}}'] == 2
            assert figures[f'delivery_duration_seconds_count{{sink="{sink}"}}'] >= 1
        assert figures['connected{transport="long_connection"}'] == 1
        assert figures["last_event_timestamp_seconds"] > now / 1000 - 1e9


async def test_a_sink_that_is_down_shows(
    tmp_path: Path, platform: Simulator, server: HttpServer, receiver: Receiver
) -> None:
    """Retries counted, what waits and since when, and that the breaker has opened."""
    receiver.answer = 503
    retry = "retry = { base = 0.05, cap = 0.2 }"
    async with watched(tmp_path, platform, server, sink=retry) as (_, client):
        await platform.push(sample_event(event_id="one")).answered()
        figures = await _figures(client, 'sink_paused{reason="breaker",sink="booking"}', 1)
        assert figures['deliveries_total{outcome="retry",sink="booking"}'] >= 1
        assert (
            sum(
                figures[f'pending_events{{sink="booking",state="{state}"}}']
                for state in ("ready", "in_flight", "waiting")
            )
            == 1
        )
        assert figures['oldest_pending_timestamp_seconds{sink="booking"}'] > 1.7e9
        assert 'oldest_pending_timestamp_seconds{sink="audit"}' not in figures
        receiver.answer = 400
        figures = await _figures(client, 'dead_letters{sink="booking"}', 1)
        assert figures['deliveries_total{outcome="dead",sink="booking"}'] == 1


async def test_a_sink_that_is_removed_leaves_its_dead_letters_and_what_was_counted(
    tmp_path: Path, platform: Simulator, server: HttpServer, receiver: Receiver
) -> None:
    """They wait for a person as before; a counter does not go. Nothing is pending for it any more."""
    receiver.answer = 400
    async with watched(tmp_path, platform, server) as (daemon, client):
        await platform.push(sample_event(event_id="one")).answered()
        await _figures(client, 'dead_letters{sink="booking"}', 1)
        config = (tmp_path / "config.toml").read_text()
        kept, _, rest = config.partition('[[sinks]]\nname = "booking"')
        (tmp_path / "config.toml").write_text(kept + rest[rest.index("[status]") :])
        daemon.process.send_signal(signal.SIGHUP)
        await until(lambda: any(line["event"] == "config.applied" for line in daemon.log()))
        figures = await _figures(client, 'dead_letters{sink="booking"}', 1)
    assert figures['deliveries_total{outcome="dead",sink="booking"}'] == 1
    assert 'pending_events{sink="booking",state="ready"}' not in figures
    assert 'pending_events{sink="audit",state="ready"}' in figures


async def test_reasons_of_a_connection_that_comes_and_goes_are_few(
    tmp_path: Path, platform: Simulator, server: HttpServer
) -> None:
    """Closed by the platform, lost, failed and refused are told apart."""
    async with watched(tmp_path, platform, server) as (_, client):
        await platform.drop(abort=True)
        await _figures(client, 'connection_changes_total{reason="connected"}', 2)
        platform.faults.endpoint_status = 500
        await platform.drop(1001)
        figures = await _figures(client, 'connection_changes_total{reason="failed"}', 1)
        assert figures['connection_changes_total{reason="closed"}'] == 1
        assert figures['connection_changes_total{reason="lost"}'] == 1
        assert figures['connected{transport="long_connection"}'] == 0


async def test_what_is_asked_of_the_platform_is_counted(tmp_path: Path, server: HttpServer) -> None:
    """Calls by name and outcome, and what comes of comparing rooms."""
    small = Simulator(estate=Estate(rooms=2, depth=1), client_config=dict(NO_WAITS))
    async with small as platform, watched(tmp_path, platform, server) as (_, client):
        places = len(platform.estate.places)
        figures = await _figures(client, 'reconciled_scopes_total{outcome="same"}', places)
        assert figures['api_requests_total{call="token",outcome="ok"}'] == 1
        assert figures['api_requests_total{call="limits",outcome="ok"}'] == places
        assert figures['api_requests_total{call="places",outcome="ok"}'] >= 1
        assert figures['reconciled_scopes_total{outcome="failed"}'] == 0
        async with asyncio.timeout(patience(20)):
            while "last_reconciliation_timestamp_seconds" not in figures:
                figures = await _figures(client, 'reconciled_scopes_total{outcome="same"}', places)


async def test_the_form_is_what_is_asked_for(tmp_path: Path, platform: Simulator, server: HttpServer) -> None:
    """OpenMetrics for who takes it, else the text of Prometheus before 3; both can be read; never from a cache."""
    async with watched(tmp_path, platform, server) as (_, client):
        plain = await client.get("/metrics", headers={"accept": ""})
        prometheus = "application/openmetrics-text;version=1.0.0;q=0.5,*/*;q=0.1"
        modern = await client.get("/metrics", headers={"accept": prometheus})
        head = await client.head("/metrics")
    assert plain.headers["content-type"] == "text/plain; version=0.0.4; charset=utf-8"
    assert modern.headers["content-type"].startswith("application/openmetrics-text; version=1.0.0")
    assert (plain.headers["cache-control"], head.status_code, head.content) == ("no-store", 200, b"")
    assert [family.name for family in read_text(plain.text)] == [
        family.name
        for family in read_openmetrics(modern.text)  # type: ignore[no-untyped-call]
    ]
    assert modern.text.endswith("# EOF\n")


def _checked(promtool: str, text: str) -> tuple[int, str]:
    done = subprocess.run(
        [promtool, "check", "metrics"], input=text, text=True, capture_output=True, check=False
    )
    return done.returncode, done.stdout + done.stderr


async def test_promtool_has_nothing_to_say(tmp_path: Path, platform: Simulator, server: HttpServer) -> None:
    """Names, units and help texts pass Prometheus' own check, with events and a backlog in them."""
    promtool = shutil.which("promtool")
    if promtool is None:
        pytest.skip("promtool is missing: it is in Debian's package prometheus")
    async with watched(tmp_path, platform, server) as (daemon, client):
        await platform.push(sample_event(event_id="one")).answered()
        await until(lambda: daemon.pending() == 0)
        text = (await client.get("/metrics")).text
    assert await asyncio.to_thread(_checked, promtool, text) == (0, "")


async def test_metrics_are_answered_while_the_store_is_not_there_to_be_read(
    tmp_path: Path, platform: Simulator, server: HttpServer
) -> None:
    """What only the store knows is left out, the rest is told."""
    async with watched(tmp_path, platform, server) as (_, client):
        (tmp_path / "events.db").rename(tmp_path / "away.db")
        figures = await _figures(client, 'connected{transport="long_connection"}', 1)
    assert 'dead_letters{sink="booking"}' not in figures
    assert figures['deliveries_total{outcome="dead",sink="booking"}'] == 0


def test_every_metric_is_documented() -> None:
    """docs/status.md has all names and all values of labels; its names are the ones that there are."""
    text = (Path(__file__).parents[2] / "docs" / "status.md").read_text()
    section = text.partition("## Metrics")[2].partition("\n## ")[0]
    documented = {
        name
        for cell in re.findall(r"^\| (`.*?`) \|", section, re.MULTILINE)
        for name in cell.strip("`").split("`, `")
    }
    assert documented - {"reserve_listener_…"} == {
        f"{name}_total" if kind == "counter" else name for name, (kind, _) in NAMES.items()
    }


def test_a_value_is_counted_where_its_bound_is() -> None:
    """A bound belongs to what is below it, as Prometheus has it; what is above the last has a place."""
    histogram = Histogram(ANSWER_S)
    for value in (0.0, 0.001, 0.0011, 3, 3.1):
        histogram.observe(value)
    assert histogram.counts == [2, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 1]
    assert histogram.total == pytest.approx(6.1021)


async def _figures(client: httpx2.AsyncClient, reaches: str, value: float) -> dict[str, float]:
    """All samples of ours, once one has this value, or one beyond: a counter may pass it between two looks."""
    figures: dict[str, float] = {}

    async def look() -> bool:
        text = (await client.get("/metrics")).text
        figures.clear()
        for name, labels, sample in re.findall(
            r"^reserve_listener_(\w+)(\{[^}]*\})? (\S+)$", text, re.MULTILINE
        ):
            ordered = ",".join(sorted(re.findall(r'\w+="[^"]*"', labels)))
            figures[f"{name}{{{ordered}}}" if ordered else name] = float(sample)
        return figures.get(reaches, -1) >= value

    async with asyncio.timeout(patience(30)):
        while not await look():
            await asyncio.sleep(0.05)
    return figures
