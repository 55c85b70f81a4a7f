"""A database that does not answer: pushes are not answered 200, waits end, daemons stay up, and afterwards all is as it was."""

from __future__ import annotations

import asyncio
from collections import Counter
from contextlib import asynccontextmanager, suppress
from functools import partial
from typing import TYPE_CHECKING

import psycopg
import pytest
from structlog.testing import capture_logs

from reserve_listener.daemon.probes import STUCK_S
from reserve_listener.errors import StoreError
from reserve_listener.model import Verdict
from reserve_listener.simulator import HttpServer, Receiver, Simulator, sample_event
from reserve_listener.store import open_store
from reserve_listener.store.postgres import waiting
from reserve_listener.store.postgres.connection import APPEND_LOCK
from reserve_listener.store.postgres.schema import DEFAULTS
from tests.conftest import NO_WAITS
from tests.daemon_process import Daemon, until
from tests.helpers import append, event, until as until_here
from tests.postgres import SERVER, Server
from tests.replicas import checked, configured, replicas, rows, until_checked
from tests.stalling import Way

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator
    from pathlib import Path

HURRY = """
import reserve_listener.intake.intake as intake
import reserve_listener.store.postgres.waiting as waiting
waiting.STATEMENT_TIMEOUT_S, waiting.GRACE_S = 1.0, 0.5
"""
"""In the daemons: what they wait for at the most is shorter, since the tests wait for it."""

MORE = '[status]\nlisten = "127.0.0.1:0"\n'


@pytest.fixture(scope="module")
def server_alone() -> Iterator[Server]:
    """One that is nobody else's: it is hindered."""
    server = Server()
    yield server
    server.stop()


@asynccontextmanager
async def stands_still(server: Server, _way: Way, _url: str) -> AsyncIterator[None]:
    """Its processes are stopped, their sockets stay open."""
    server.freeze()
    try:
        yield
    finally:
        server.thaw()


@asynccontextmanager
async def forwards_nothing(_server: Server, way: Way, _url: str) -> AsyncIterator[None]:
    """What is between takes everything and hands on nothing."""
    way.stall()
    try:
        yield
    finally:
        way.go_on()


@asynccontextmanager
async def is_locked(_server: Server, _way: Way, url: str) -> AsyncIterator[None]:
    """Somebody appends, and does not come to the end of it."""
    with psycopg.connect(url) as connection:
        connection.execute(f"SELECT pg_advisory_xact_lock({APPEND_LOCK})".encode())
        yield


@pytest.mark.parametrize("hinder", [stands_still, forwards_nothing, is_locked])
async def test_what_is_not_committed_in_time_is_not_answered_200(
    tmp_path: Path, server: HttpServer, receiver: Receiver, server_alone: Server, hinder: object
) -> None:
    """Each push has its 500 within the platform's 3 s; pushed again it is stored once and delivered once; probes see a live daemon."""
    assert callable(hinder)
    (tmp_path / "sitecustomize.py").write_text(HURRY)
    url = server_alone.database()
    socket = server_alone.folder / ".s.PGSQL.5432"
    async with (
        Way(socket).serve() as way,
        Simulator(retry_delays=[0.5] * 60, client_config=dict(NO_WAITS)) as platform,
    ):
        over_way = f"postgresql://postgres@127.0.0.1:{way.port}/{url.partition('?')[0].rpartition('/')[2]}"
        configs = [
            configured(tmp_path, name, over_way, platform, server.url, more=MORE) for name in ("one", "two")
        ]
        async with replicas(configs, [{"PYTHONPATH": str(tmp_path)}] * 2) as daemons:
            await platform.connected(30, count=2)
            assert await platform.push(sample_event(event_id="before")).answered(10) == 200
            async with hinder(server_alone, way, url):
                pushes = [
                    platform.push(sample_event(event_id=f"e{number}", scope_id=f"omm_{number % 3}"))
                    for number in range(12)
                ]
                assert [await push.answered(10) for push in pushes] == [500] * len(pushes)
                await platform.until(lambda: all(len(push.attempts) > 1 for push in pushes), 20)
                assert platform.acknowledged == {"before"}
                for daemon in daemons:
                    await until(partial(_gave_up, daemon))
                    assert await checked(daemon, "/livez") == 200
                    await until_checked(daemon, "/readyz", 503)
            assert {await push.over(30) for push in pushes} == {200}
            await until(lambda: not rows(url, "SELECT 1 FROM deliveries WHERE state = 0"))
            for daemon in daemons:
                await until_checked(daemon, "/readyz", 200)
    expected = {"before", *(f"e{number}" for number in range(12))}
    assert {event_id for (event_id,) in rows(url, "SELECT event_id FROM events")} == expected
    assert Counter(one.headers["webhook-id"] for one in receiver.received) == dict.fromkeys(expected, 1)


def _gave_up(daemon: Daemon) -> bool:
    texts = [str(line.get("error")) for line in daemon.log()]
    return any("in time" in text or "timeout" in text for text in texts)


def test_no_wait_is_longer_than_a_probe_takes_for_a_daemon_that_hangs() -> None:
    """Connecting and a whole transaction together end before /livez would have the daemon restarted."""
    assert waiting.STATEMENT_TIMEOUT_S + waiting.GRACE_S + 2 * int(DEFAULTS["connect_timeout"]) < STUCK_S


async def test_an_opening_that_is_broken_off_begins_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    """A server that goes away, or stands still, between the first connection and the end of the opening is waited for."""
    monkeypatch.setattr(waiting, "STATEMENT_TIMEOUT_S", 0.2)
    url = SERVER.database()
    await (await open_store(url, ["a"])).close()
    with psycopg.connect(url) as connection:
        connection.execute(b"LOCK TABLE reserve_listener.sinks")
        opening = asyncio.create_task(open_store(url, ["a", "b"]))
        with capture_logs() as told:
            await until_here(lambda: any(line["event"] == "store.unreachable" for line in told))
        assert not opening.done()
    store = await opening
    assert [one.name for one in await store.sinks()] == ["a", "b"]
    await store.close()


async def test_a_stop_does_not_wait_for_a_database_that_stands_still(
    tmp_path: Path, platform: Simulator, server: HttpServer, server_alone: Server
) -> None:
    """The daemon ends by itself, in order, although nothing can be given back."""
    (tmp_path / "sitecustomize.py").write_text(HURRY)
    config = configured(
        tmp_path,
        "one",
        server_alone.database(),
        platform,
        server.url,
        more="[delivery]\ndrain_timeout = 1\n",
    )
    async with replicas([config], [{"PYTHONPATH": str(tmp_path)}]) as (daemon,):
        await platform.connected(30)
        assert await platform.push(sample_event(event_id="one")).answered(10) == 200
        server_alone.freeze()
        try:
            assert await daemon.stop() == 0
        finally:
            server_alone.thaw()


async def test_a_commit_that_its_standby_has_not_is_none(
    server_alone: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While a synchronous standby is away nothing counts as stored, nor as known when it is pushed again; once it is back, it is."""
    monkeypatch.setattr(waiting, "STATEMENT_TIMEOUT_S", 0.3)
    monkeypatch.setattr(waiting, "GRACE_S", 0.7)
    store = await open_store(server_alone.database(), ["a"])
    _standby(server_alone, "nobody")
    try:
        for _ in range(2):
            with pytest.raises(StoreError):
                await append(store, event("e1"))
    finally:
        _standby(server_alone, "")
    async with asyncio.timeout(20):
        while True:
            with suppress(StoreError):
                assert await append(store, event("e1")) is Verdict.DUPLICATE
                break
            await asyncio.sleep(0.1)
    await store.close()


def _standby(server: Server, name: str) -> None:
    server.ask("postgres", f"ALTER SYSTEM SET synchronous_standby_names = '{name}'")
    server.ask("postgres", "SELECT pg_reload_conf()")
