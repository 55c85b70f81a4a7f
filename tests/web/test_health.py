"""Health checks: what probes, monitors and people read of them, and what they are made of."""

from __future__ import annotations

import asyncio
import sqlite3
import time
from contextlib import asynccontextmanager, closing
from typing import TYPE_CHECKING

import httpx2
import pytest

from reserve_listener.daemon import probes
from reserve_listener.daemon.probes import Probes
from reserve_listener.model import State
from reserve_listener.simulator import patience, sample_event
from reserve_listener.web.answers import Check
from tests.daemon_process import Daemon, running, until, write_config
from tests.helpers import append, small_event
from tests.web.serving import OK, Probed, a_site, served

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from reserve_listener.protocols.store import Store
    from reserve_listener.simulator import HttpServer, Simulator
    from tests.backends import Backend

BAD = Check(status="failing", since="2026-11-26T08:00:00.000Z", reason="it hangs")


@pytest.mark.parametrize(
    ("path", "checked"), [("/livez", "live"), ("/healthz", "live"), ("/readyz", "ready")]
)
async def test_what_is_said_of_good_and_bad_health(path: str, checked: str) -> None:
    """200 or 503; JSON for monitors, Kubernetes' lines with `?verbose`, a head alone with HEAD; never from a cache."""
    probed = Probed()
    async with served(a_site(probes=probed)) as client:
        probed.checks[checked] = {"a": OK}
        well = await client.get(path)
        assert (well.status_code, well.json()) == (200, {"status": "ok", "checks": {"a": {"status": "ok"}}})
        probed.checks[checked] = {"a": OK, "b": BAD}
        ill = await client.get(path)
        assert (ill.status_code, ill.json()["status"]) == (503, "failing")
        assert ill.json()["checks"] == {
            "a": {"status": "ok"},
            "b": {"status": "failing", "since": BAD.since, "reason": "it hangs"},
        }
        verbose = await client.get(f"{path}?verbose")
        assert (verbose.status_code, verbose.headers["content-type"]) == (503, "text/plain; charset=utf-8")
        assert verbose.text == f"[+]a ok\n[-]b failed: it hangs\n{path[1:]} check failed\n"
        head = await client.head(path)
        assert (head.status_code, head.content) == (503, b"")
        assert {answer.headers["cache-control"] for answer in (well, ill, verbose, head)} == {"no-store"}
        assert (await client.post(path)).status_code == 405


class Connection:
    """A transport that is in a state."""

    def __init__(self, name: str) -> None:
        self.state = State(name, time.monotonic())


@pytest.fixture
async def store(backend: Backend) -> AsyncIterator[Store]:
    """A store that is open."""
    store = await backend.open()
    yield store
    await store.close()


def of(store: Store, state: str = "connected", *, connects: bool = True) -> Probes:
    return Probes(store, Connection(state), connects=connects)  # type: ignore[arg-type]  # as far as it is asked


def statuses(checks: dict[str, Check]) -> dict[str, str]:
    return {name: check.status for name, check in checks.items()}


@pytest.mark.parametrize("state", ["starting", "connecting", "lost", "waiting"])
async def test_the_platform_is_no_matter_of_life(store: Store, state: str) -> None:
    """Not connected is not ready, and alive: a restart would not mend it."""
    assert statuses(of(store, state).live()) == {"loop": "ok", "writer": "ok"}
    assert statuses(of(store, state).ready()) == {"connection": "failing", "store": "ok"}


async def test_with_the_webhook_ready_is_a_store_that_takes_events(store: Store) -> None:
    """Out of traffic nothing would come in by which it could get ready."""
    assert statuses(of(store, "starting", connects=False).ready()) == {"store": "ok"}


@pytest.mark.parametrize("part", ["hold_projecting", "hold_receiving"])
async def test_a_thread_that_does_not_come_back_is_found(
    backend: Backend, store: Store, monkeypatch: pytest.MonkeyPatch, part: str
) -> None:
    """Either of the two that write; the reason holds no path, and it is over when the thread is back."""
    monkeypatch.setattr(probes, "STUCK_S", 0.05)
    held = await getattr(backend, part)(store).begun()
    try:
        await until(lambda: of(store).live()["writer"].status == "failing")
        said = of(store).live()["writer"]
        assert (said.reason or "").startswith("a write has been under way for")
        assert said.since is not None
    finally:
        await held.release()
    await until(lambda: of(store).live()["writer"].status == "ok")


async def test_a_store_that_takes_nothing_is_not_ready_and_alive(store: Store) -> None:
    """It fails, and its thread comes back each time: a restart would not mend it. The reason holds no path."""
    await append(store, small_event("one"))
    store.max_bytes = 1
    assert statuses(of(store).live()) == {"loop": "ok", "writer": "ok"}
    not_ready = of(store).ready()
    assert statuses(not_ready) == {"connection": "ok", "store": "failing"}
    assert "events.db" not in str(not_ready)


async def test_a_store_that_is_locked_is_progress_and_comes_back_without_a_push(
    tmp_path: Path, platform: Simulator, server: HttpServer
) -> None:
    """Alive all the time; ready again once the lock is gone, with no push to show it."""
    async with watched(tmp_path, platform, server) as (daemon, client):
        await _until(client, "/readyz", 200)
        with closing(sqlite3.connect(tmp_path / "events.db-inbox")) as other:
            other.execute("BEGIN IMMEDIATE")
            push = platform.push(sample_event(event_id="one"), retry=False)
            assert await push.answered() == 500
            await _until(client, "/readyz", 503)
            assert (await client.get("/livez")).status_code == 200
            other.rollback()
        await _until(client, "/readyz", 200)
        assert not daemon.query("SELECT 1 FROM events WHERE event_id = 'two'")


async def test_a_real_daemon_says_how_it_is(tmp_path: Path, platform: Simulator, server: HttpServer) -> None:
    """Ready once connected; alive and not ready while the platform refuses it."""
    async with watched(tmp_path, platform, server) as (_daemon, client):
        await _until(client, "/readyz", 200)
        platform.faults.endpoint_code = 1000040345
        await platform.drop(abort=True)
        await _until(client, "/readyz", 503)
        said = (await client.get("/readyz")).json()
        assert said["checks"]["connection"]["reason"].startswith("not connected to the platform: ")
        assert (await client.get("/livez")).json()["checks"] == {
            "loop": {"status": "ok"},
            "writer": {"status": "ok"},
        }


@asynccontextmanager
async def watched(
    folder: Path, platform: Simulator, server: HttpServer, *, sink: str = "", status: str = ""
) -> AsyncIterator[tuple[Daemon, httpx2.AsyncClient]]:
    """A daemon with `[status]`, and a client that asks it. `sink`: more of its http sink."""
    more = f'{sink}\n[status]\nlisten = "127.0.0.1:0"\n{status}'
    config = write_config(folder, platform, server.url, more=more)
    async with running(folder, config) as daemon:
        await until(lambda: _port(daemon))
        url = f"http://127.0.0.1:{_port(daemon)}"
        async with httpx2.AsyncClient(base_url=url, trust_env=False, timeout=patience(20)) as client:
            await platform.connected(20)
            yield daemon, client


def _port(daemon: Daemon) -> int | None:
    ports = [line["port"] for line in daemon.log() if line["event"] == "status.listening"]
    return ports[0] if ports else None


async def _until(client: httpx2.AsyncClient, path: str, status: int) -> None:
    async with asyncio.timeout(patience(30)):
        while (await client.get(path)).status_code != status:
            await asyncio.sleep(0.05)
