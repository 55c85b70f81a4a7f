"""Daemons that share a store: real processes, one of which dies in the middle."""

from __future__ import annotations

import json
from functools import partial
from typing import TYPE_CHECKING

from reserve_listener.simulator import HttpServer, Receiver, Simulator, sample_event
from reserve_listener.web.answers import Status
from reserve_listener.web.client import get
from tests.daemon_process import until
from tests.postgres import SERVER
from tests.replicas import configured, expire, holder, replicas, rows

if TYPE_CHECKING:
    from pathlib import Path

    from reserve_listener.simulator.receiver import Received

SCOPES = 5


async def test_what_one_replica_answered_another_delivers(
    tmp_path: Path, platform: Simulator, server: HttpServer, receiver: Receiver
) -> None:
    """The replica that works the sink is killed with a queue in hand: every answered event arrives, in order by scope."""
    url = SERVER.database()
    configs = _two(tmp_path, platform, server, url)
    envelopes = [sample_event(event_id=f"e{n}", scope_id=f"omm_{n % SCOPES}") for n in range(200)]
    receiver.answer = 503
    async with replicas(configs) as (one, two):
        await platform.connected(30, count=2)
        await platform.push_many(envelopes[:100])
        await until(lambda: holder(url))
        leader = next(daemon for daemon in (one, two) if daemon.process.pid == holder(url))
        leader.process.kill()
        await leader.process.wait()
        expire(url)
        refused = len(receiver.received)
        receiver.answer = 200
        await platform.push_many(envelopes[100:])
        await platform.until(lambda: len(platform.acknowledged) == len(envelopes), 60)
        taken = partial(_taken, receiver, refused)
        await until(lambda: platform.acknowledged <= {one.headers["webhook-id"] for one in taken()}, 60)
    _assert_in_order([one.body for one in taken()])


async def test_replicas_with_different_sinks_say_so(
    tmp_path: Path, platform: Simulator, server: HttpServer
) -> None:
    """Each is degraded, and both are named; what only one has is not taken from it, nor by one that has not watched for long."""
    url = SERVER.database()
    configs = _two(tmp_path, platform, server, url)
    configs[1].write_text(configs[1].read_text().replace('name = "booking"', 'name = "calendar"'))
    async with replicas(configs) as (one, two):
        await platform.connected(30, count=2)
        await until(lambda: len(_differing(url)) == 2, 30)
        lacks = {
            f"process {one.process.pid} has no sink calendar,",
            f"process {two.process.pid} has no sink booking,",
        }
        assert {reason.split(" which")[0] for reason in _differing(url)} == lacks
        assert await two.stop() == 0
        assert _known(url) >= {"booking", "calendar"}
        rows(url, "UPDATE sinks SET had_ms = had_ms - 600000 WHERE name = 'calendar'")
        await until(lambda: _differing(url) == [], 30)
        assert _known(url) >= {"booking", "calendar"}


def _differing(url: str) -> list[str]:
    status = get(url, "/status", Status, timeout_s=20)
    assert status is not None
    return [reason.reason for reason in status.reasons if reason.part.startswith("replica ")]


def _known(url: str) -> set[str]:
    return {name for (name,) in rows(url, "SELECT name FROM sinks WHERE configured")}


def _two(folder: Path, platform: Simulator, server: HttpServer, url: str) -> list[Path]:
    """Configurations of two daemons with this store."""
    return [configured(folder, name, url, platform, server.url) for name in ("one", "two")]


def _taken(receiver: Receiver, after: int) -> list[Received]:
    return receiver.received[after:]


def _assert_in_order(bodies: list[bytes]) -> None:
    """By scope, each event for the first time that it was taken."""
    revisions: dict[str, list[int]] = {}
    for body in bodies:
        told = json.loads(body)
        seen = revisions.setdefault(told["subject"], [])
        revision = told["data"].get(
            "revision"
        )  # two that were pushed at once may be stored the other way round
        if revision is not None and revision not in seen:
            seen.append(revision)
    assert len(revisions) == SCOPES
    for seen in revisions.values():
        assert seen == sorted(seen)
