"""Replicas and their database, killed at random moments under load: nothing that was answered is lost, and no order is."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import random
import signal
import time
from collections import Counter, defaultdict
from typing import TYPE_CHECKING, NamedTuple

import psycopg
import pytest

from reserve_listener.simulator import HttpServer, Receiver, Simulator, sample_event
from tests.conftest import NO_WAITS
from tests.daemon_process import Daemon, until
from tests.replicas import configured, replicas, rows

if TYPE_CHECKING:
    from pathlib import Path

    from reserve_listener.simulator.receiver import Received
    from tests.postgres import Server

SCOPES = 7
NAMES = ("one", "two", "three")
DATABASE = "the database"
JUST_BEFORE_S = 5.0
"""An attempt may have been sent so long before it was read here."""


class Kill(NamedTuple):
    """What was killed when, by `time.monotonic()`."""

    what: str
    at: float


class World:
    """Three replicas, their database, and somebody who kills them."""

    def __init__(self, url: str, server: Server, daemons: list[Daemon], seed: int) -> None:
        self._url = url
        self._server = server
        self._daemons = dict(zip(NAMES, daemons, strict=True))
        self.chance = random.Random(seed)
        self.kills: list[Kill] = []

    async def kill(self, what: str) -> None:
        """It is gone at once, and begun again."""
        self.kills.append(Kill(what, time.monotonic()))
        if what == DATABASE:
            await asyncio.to_thread(self._kill_database)
        else:
            await self._kill_replica(self._daemons[what])

    def _kill_database(self) -> None:
        """One of its processes, which makes all others begin anew; or all of it."""
        if self.chance.random() < 0.5:
            self._server.kill_one(self.chance)
        else:
            self._server.kill()
            time.sleep(self.chance.random())
            self._server.start()

    async def _kill_replica(self, daemon: Daemon) -> None:
        dead = daemon.process.pid
        daemon.process.send_signal(signal.SIGKILL)
        await daemon.process.wait()
        await daemon.start()
        with contextlib.suppress(
            psycopg.Error
        ):  # away: then it takes the 15 s after which they run out by themselves
            rows(self._url, "UPDATE leases SET until_ms = 0 WHERE holder LIKE %s", f"%-{dead}-%")


async def push_until(ended: asyncio.Event, platform: Simulator) -> list[str]:
    """Twenty at a time, one after another; the ids."""
    pushed: list[str] = []
    while not ended.is_set():
        ids = [f"e{len(pushed) + number}" for number in range(20)]
        pushed += ids
        await platform.push_many(
            [sample_event(event_id=one, scope_id=f"omm_{int(one[1:]) % SCOPES}") for one in ids]
        )
        await asyncio.sleep(0.1)
    return pushed


@pytest.mark.parametrize("count", [5, pytest.param(100, marks=pytest.mark.long)])
async def test_kill_9_of_replicas_and_of_the_database_loses_nothing_that_was_answered(
    tmp_path: Path, server: HttpServer, receiver: Receiver, server_alone: Server, count: int
) -> None:
    """All that was answered arrives, in order by scope; what arrives again was under way when its replica or the database died."""
    url = server_alone.database()
    seed = int(os.environ.get("SEED") or random.randrange(2**32))
    print(f"SEED={seed}")  # shown when the test fails; give it back in the environment
    async with Simulator(retry_delays=[0.5] * 1_000, client_config=dict(NO_WAITS)) as platform:
        configs = [
            configured(
                tmp_path, name, url, platform, server.url, more=f'headers = {{ x-replica = "{name}" }}\n'
            )
            for name in NAMES
        ]
        async with replicas(configs) as daemons:
            await platform.connected(30, count=len(NAMES))
            world, ended = World(url, server_alone, daemons, seed), asyncio.Event()
            pushing = asyncio.create_task(push_until(ended, platform))
            for number in range(count):
                await asyncio.sleep(world.chance.random() * 0.7)
                await world.kill(DATABASE if number % 4 == 3 else world.chance.choice(NAMES))
            ended.set()
            pushed = await pushing
            await platform.until(lambda: len(platform.acknowledged) == len(pushed), 120)
            await until(lambda: not _pending(url), 120)
            for daemon in daemons:
                assert await daemon.stop() == 0
    sent = Counter(one.headers["webhook-id"] for one in receiver.received)
    in_files = {event_id for daemon in daemons for event_id in daemon.file_ids()}
    repeats = _repeats(receiver.received, world.kills)
    print(f"\n{count} kills: {len(pushed)} events, {platform.answers}, sent again {len(repeats)}")
    assert set(pushed) - set(sent) == set()
    assert set(pushed) - in_files == set()
    assert rows(url, "SELECT count(*), count(DISTINCT event_id) FROM events") == [(len(pushed),) * 2]
    assert [repeat for repeat in repeats if not repeat.because] == []
    _assert_in_order(url, receiver.received)


class Repeat(NamedTuple):
    """An event that was sent again, and what was killed between."""

    event_id: str
    because: list[str]


def _repeats(received: list[Received], kills: list[Kill]) -> list[Repeat]:
    last: dict[str, Received] = {}
    repeats: list[Repeat] = []
    for one in received:
        event_id = one.headers["webhook-id"]
        if event_id in last:
            before = last[event_id]
            could = {DATABASE, before.headers["x-replica"]}
            between = [
                kill.what
                for kill in kills
                if kill.what in could and before.at - JUST_BEFORE_S < kill.at < one.at
            ]
            repeats.append(Repeat(event_id, between))
        last[event_id] = one
    return repeats


def _pending(url: str) -> int:
    with contextlib.suppress(psycopg.OperationalError):
        return int(rows(url, "SELECT count(*) FROM deliveries WHERE state = 0")[0][0])
    return 1


def _assert_in_order(url: str, received: list[Received]) -> None:
    """By scope, each event for the first time that it was sent."""
    numbers = dict(rows(url, "SELECT event_id, seq FROM events"))
    sent: dict[str, list[int]] = defaultdict(list)
    known: set[str] = set()
    for one in received:
        event_id = one.headers["webhook-id"]
        if event_id not in known:
            known.add(event_id)
            sent[json.loads(one.body)["subject"]].append(numbers[event_id])
    assert len(sent) == SCOPES
    for scope, seqs in sent.items():
        assert (scope, seqs) == (scope, sorted(seqs))
