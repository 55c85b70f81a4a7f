"""The last attempts of a delivery that failed are kept, a bounded number of them; one that succeeds at once costs nothing."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from reserve_listener.model import AttemptRecord, DeliveryState, EventQuery, Outcome
from reserve_listener.simulator import HttpServer, Receiver, Simulator, sample_event
from reserve_listener.store import open_reader
from tests.cli.test_operate import cli
from tests.cli.test_status import told
from tests.daemon_process import running, until, write_config
from tests.helpers import NOW_MS, append, event

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from reserve_listener.protocols.store import Store
    from tests.backends import Backend


@pytest.fixture
async def store(backend: Backend) -> AsyncIterator[Store]:
    """A store with two sinks and one event for them."""
    store = await backend.open("a", "b")
    await append(store, event("one", "omm_a"))
    yield store
    await store.close()


def made(number: int, outcome: str = "retry", error: str | None = "HTTP 503") -> Outcome:
    """What the n-th attempt at the event came to."""
    state = "pending" if outcome == "retry" else outcome
    record = AttemptRecord(NOW_MS + number, outcome, 503, 20, error)
    return Outcome(seq=1, state=state, attempts=number, due_ms=1, error=error, attempt=record)


def history(backend: Backend) -> dict[str, DeliveryState]:
    """How far the event has come, by sink."""
    (found,) = backend.stored()
    return {delivery.sink: delivery for delivery in found.deliveries}


async def test_the_last_ten_are_kept_in_order_with_the_final_success(backend: Backend, store: Store) -> None:
    """After fourteen failures and a success the newest ten stand there, the success last, of that sink only."""
    for number in range(1, 15):
        await store.settle("a", [made(number)])
    await store.settle("a", [made(15, "delivered", None)])
    kept = history(backend)["a"].history
    assert [record.at_ms - NOW_MS for record in kept] == list(range(6, 16))
    assert len(kept) == 10
    assert kept[-1] == AttemptRecord(NOW_MS + 15, "delivered", 503, 20, None)
    assert history(backend)["b"].history == ()


async def test_a_clock_set_back_does_not_lose_the_newest(backend: Backend, store: Store) -> None:
    """They are kept in the order in which they were made, whatever the clock said."""
    for number in (100, 101, 7, *range(200, 208), 3):
        await store.settle("a", [made(number)])
    assert [record.at_ms - NOW_MS for record in history(backend)["a"].history][-2:] == [207, 3]


async def test_settling_again_keeps_them_once(backend: Backend, store: Store) -> None:
    """An outcome that is written once more, since nobody heard that it was, is no second attempt."""
    for _ in range(2):
        await store.settle("a", [made(1)])
    assert len(history(backend)["a"].history) == 1


async def test_an_error_is_cut(backend: Backend, store: Store) -> None:
    """Ten long texts a delivery would fill a store; the whole text of the last one stands with the delivery."""
    await store.settle("a", [made(1, error="\udcff" + "x" * 400)])
    found = history(backend)["a"]
    assert found.last_error == "\\udcff" + "x" * 400
    assert found.history[0].error == "\\udcff" + "x" * 99


async def test_they_go_with_their_delivery(backend: Backend, store: Store) -> None:
    """A dead letter that is dropped takes its attempts along; what comes of it later is nothing to keep, and no error."""
    await store.settle("a", [made(1, "dead")])
    await store.settle("b", [made(1, "dead")])
    assert await store.operate("drop", EventQuery(sink="a")) == 1
    await store.settle("a", [made(2)])
    assert backend.rows("SELECT sink FROM attempts") == [(2,)]
    await store.operate("drop", EventQuery(sink="b"))
    await store.prune(0, NOW_MS + 1_000, strip=False)
    assert backend.stored() == []


async def test_the_last_failures_are_the_latest_of_different_deliveries(
    backend: Backend, store: Store
) -> None:
    """Five at the most, each once however often it failed, the latest first."""
    for number in range(2, 8):
        await append(store, event(f"e{number}", f"omm_{number}"))
        for attempt in range(3):
            record = AttemptRecord(NOW_MS + 10 * number + attempt, "retry", None, 1, "no answer")
            await store.settle("a", [Outcome(seq=number, state="pending", attempts=1, attempt=record)])
    with open_reader(backend.url) as reader:
        failures = reader.insight(gaps_since_ms=0).failures
    assert [failure.event_id for failure in failures] == ["e7", "e6", "e5", "e4", "e3"]
    assert {len(failure.attempts) for failure in failures} == {3}


async def test_a_person_sees_what_was_tried(
    tmp_path: Path, platform: Simulator, server: HttpServer, receiver: Receiver
) -> None:
    """A receiver that answers 503, 404 and then takes it: `status` and the log tell each attempt with its status."""
    config = write_config(tmp_path, platform, server.url, more="[sinks.retry]\nbase = 0.1\ncap = 0.2\n")
    receiver.answer = [503, 404]
    async with running(tmp_path, config) as daemon:
        await platform.connected(20)
        assert await platform.push(sample_event(event_id="one", scope_id="omm_x")).answered() == 200
        await until(lambda: daemon.pending() == 0)
        _, found = await told(config)
        (failure,) = found["failures"]
        assert (failure["sink"], failure["event_id"], failure["scope_id"]) == ("booking", "one", "omm_x")
        assert (failure["state"], failure["next_attempt"]) == ("delivered", None)
        tried = [(attempt["outcome"], attempt["status"]) for attempt in failure["attempts"]]
        assert tried == [("retry", 503), ("retry", 404), ("delivered", None)]
        assert all(attempt["duration_s"] >= 0 for attempt in failure["attempts"])
        _, out, _ = await cli("status", "-c", str(config))
        assert "failure\tbooking: event one of room omm_x: delivered" in out
        _, out, _ = await cli("events", "show", "one", "-c", str(config))
        shown = [line.split("\t") for line in out.splitlines() if line.startswith("attempt\t")]
        assert [(line[2], line[3]) for line in shown] == [
            ("retry", "HTTP 503"),
            ("retry", "HTTP 404"),
            ("delivered", ""),
        ]
        _, out, _ = await cli("events", "show", "one", "--json", "-c", str(config))
        last = {delivery["sink"]: delivery["last_attempts"] for delivery in json.loads(out)["deliveries"]}
        assert last == {"console": [], "audit": [], "booking": failure["attempts"]}
        _, out, _ = await cli("events", "list", "-c", str(config))
        assert "; all members may book" in out or "; selected members may book" in out
        lines = [line for line in daemon.log() if line["event"].startswith("delivery.")]
        assert [said(line) for line in lines if line["sink"] != "booking"] == [
            ("audit", "one", "room", "omm_x", 1, "delivered", None)
        ]
        lines = [line for line in lines if line["sink"] == "booking"]
        assert [line["event"] for line in lines] == [
            "delivery.retry",
            "delivery.sink_misconfigured",
            "delivery.done",
        ]
        assert [said(line) for line in lines] == [
            ("booking", "one", "room", "omm_x", 1, "retry", 503),
            ("booking", "one", "room", "omm_x", 2, "retry", 404),
            ("booking", "one", "room", "omm_x", 3, "delivered", None),
        ]
        assert all("duration_s" in line for line in lines)
        assert lines[0]["next_attempt"] > lines[0]["timestamp"][:19]
        assert await daemon.stop() == 0


def said(line: dict[str, Any]) -> tuple[Any, ...]:
    """What a line says of a delivery, without the times."""
    keys = ("sink", "event_id", "scope_type", "scope_id", "attempt", "outcome", "status")
    return tuple(line[key] for key in keys)
