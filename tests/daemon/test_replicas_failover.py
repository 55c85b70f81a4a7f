"""A primary that dies, and its standby, which is promoted: the daemons find it by themselves."""

from __future__ import annotations

import asyncio
import subprocess
from functools import partial
from typing import TYPE_CHECKING

import pytest

from reserve_listener.simulator import HttpServer, Receiver, Simulator, sample_event
from reserve_listener.simulator.postgres import as_user
from tests.conftest import NO_WAITS
from tests.daemon_process import until
from tests.postgres import Server
from tests.replicas import configured, replicas, rows

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


class Standby(Server):
    """Follows another server until it is promoted; that one answers a commit only when this one has it, too."""

    def __init__(self, primary: Server) -> None:
        super().__init__()
        self._primary = primary

    def start(self) -> None:
        """Copy it, and begin to stream."""
        super().start()
        self._primary.ask("postgres", "ALTER SYSTEM SET synchronous_standby_names = '*'")
        self._primary.ask("postgres", "SELECT pg_reload_conf()")

    def _make(self, data: Path) -> None:
        program = str(self._bin / "pg_basebackup")
        source = ["-h", str(self._primary.folder), "-U", "postgres"]
        subprocess.run([program, *source, "-D", str(data), "-R", "-X", "stream"], check=True, **as_user())

    def _is_ready(self, data: Path) -> bool:
        try:
            said = (data / "postmaster.pid").read_text("utf-8").split()
        except OSError:
            return False
        return said[-1:] in (["standby"], ["ready"]) and said[0] == str(self.pid)


@pytest.fixture
def primary() -> Iterator[Server]:
    """It will die."""
    server = Server()
    server.start()
    yield server
    server.stop()


@pytest.fixture
def standby(primary: Server) -> Iterator[Standby]:
    """A synchronous one."""
    server = Standby(primary)
    try:
        server.start()
        yield server
    finally:
        server.stop()


async def test_a_failover_to_a_synchronous_standby_loses_nothing(
    tmp_path: Path, server: HttpServer, receiver: Receiver, primary: Server, standby: Standby
) -> None:
    """Under load the primary dies and the standby is promoted: both daemons go on there, and all that was answered is delivered."""
    name = primary.database().partition("?")[0].rpartition("/")[2]
    there = standby.url(name)
    url = f"postgresql://postgres@/{name}?host={primary.folder},{standby.folder}&target_session_attrs=read-write"
    await until(
        lambda: primary.ask("postgres", "SELECT 1 FROM pg_stat_replication WHERE sync_state = 'sync'")
    )
    async with Simulator(retry_delays=[0.5] * 200, client_config=dict(NO_WAITS)) as platform:
        configs = [configured(tmp_path, one, url, platform, server.url) for one in ("one", "two")]
        async with replicas(configs) as daemons:
            await platform.connected(30, count=2)
            envelopes = [sample_event(event_id=f"e{n}", scope_id=f"omm_{n % 5}") for n in range(300)]
            await platform.push_many(envelopes[:100])
            pushing = asyncio.create_task(platform.push_many(envelopes[100:]))
            await platform.until(lambda: len(platform.acknowledged) > 110, 20)
            primary.kill()
            answered = set(platform.acknowledged)
            standby.ask("postgres", "SELECT pg_promote()")
            await pushing
            assert answered <= {event_id for (event_id,) in rows(there, "SELECT event_id FROM events")}
            await platform.until(lambda: len(platform.acknowledged) == len(envelopes), 60)
            await until(lambda: not rows(there, "SELECT 1 FROM deliveries WHERE state = 0"), 60)
            for daemon in daemons:
                assert await daemon.stop() == 0
    delivered = {one.headers["webhook-id"] for one in receiver.received}
    assert platform.acknowledged - delivered == set()
    assert rows(there, "SELECT count(*), count(DISTINCT event_id) FROM events") == [(len(envelopes),) * 2]


async def test_a_failover_to_a_standby_that_lacks_the_last_events_costs_only_these(
    tmp_path: Path, server: HttpServer, receiver: Receiver, primary: Server, standby: Standby
) -> None:
    """It was cut off before they came. What comes afterwards, of the same rooms and under new numbers, is stored and delivered whole."""
    name = primary.database().partition("?")[0].rpartition("/")[2]
    there = standby.url(name)
    url = f"postgresql://postgres@/{name}?host={primary.folder},{standby.folder}&target_session_attrs=read-write"
    streams = partial(primary.ask, "postgres", "SELECT 1 FROM pg_stat_replication")
    await until(streams)
    async with (
        Simulator(retry_delays=[0.5] * 200, client_config=dict(NO_WAITS)) as platform,
        replicas([configured(tmp_path, "one", url, platform, server.url)]) as (daemon,),
    ):
        await platform.connected(30)
        await _pushed(platform, "known")
        await until(lambda: len(_told(there)) == EVENTS and not rows(there, PENDING))
        primary.ask("postgres", "ALTER SYSTEM SET synchronous_standby_names = ''")
        primary.ask("postgres", "SELECT pg_reload_conf()")
        standby.ask("postgres", "ALTER SYSTEM SET primary_conninfo = ''")
        standby.ask("postgres", "SELECT pg_reload_conf()")
        await until(lambda: not streams())
        await _pushed(platform, "lost")
        await until(lambda: len(receiver.received) >= 2 * EVENTS)
        primary.kill()
        standby.ask("postgres", "SELECT pg_promote()")
        await _pushed(platform, "later")
        await until(lambda: not rows(there, PENDING), 60)
        assert await daemon.stop() == 0
    assert _told(there) == _lot("known") | _lot("later")
    sent = {one.headers["webhook-id"] for one in receiver.received}
    assert sent == (_lot("known") | _lot("lost") | _lot("later")).keys()


EVENTS = 20
PENDING = "SELECT 1 FROM deliveries WHERE state = 0"


def _lot(when: str) -> dict[str, str]:
    """Some events with their rooms. Half of them are of one that was not known before; of what is lost, that comes again later."""
    new = "lost" if when == "later" else when
    return {f"{when}-{n}": f"omm_{n if n % 2 else new}" for n in range(EVENTS)}


async def _pushed(platform: Simulator, when: str) -> None:
    """All of them are answered."""
    lot = _lot(when)
    await platform.push_many([sample_event(event_id=one, scope_id=room) for one, room in lot.items()])
    await platform.until(lambda: lot.keys() <= platform.acknowledged, 60)


def _told(url: str) -> dict[str, str]:
    """The events in the history, with the rooms that they stand under."""
    return dict(
        rows(url, "SELECT h.event_id, s.scope_id FROM history AS h JOIN scopes AS s ON s.id = h.scope")
    )
