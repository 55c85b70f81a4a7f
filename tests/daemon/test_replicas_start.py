"""A replica that starts while its database is away: what probes and people are told until it is there."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import httpx2

from reserve_listener.simulator import HttpServer, Receiver, Simulator, patience, sample_event
from reserve_listener.web.access import HEADERS
from tests.daemon_process import Daemon, running, until
from tests.replicas import configured, until_checked

if TYPE_CHECKING:
    from pathlib import Path

    from tests.postgres import Server

STATUS = '\n[status]\nlisten = "127.0.0.1:0"\n'


def opening(daemon: Daemon) -> str | None:
    """Where it answers meanwhile; None: not yet."""
    ports = [line["port"] for line in daemon.log() if line["event"] == "status.opening"]
    return f"http://127.0.0.1:{ports[0]}" if ports else None


async def test_a_start_that_waits_for_its_database_is_alive(
    tmp_path: Path, platform: Simulator, server: HttpServer, receiver: Receiver, server_alone: Server
) -> None:
    """Probes find it alive and not ready, everything else is told why; once the database is there, it serves all that it has."""
    config = configured(tmp_path, "one", server_alone.database(), platform, server.url, more=STATUS)
    server_alone.kill()
    async with running(config.parent, config) as daemon:
        await until(lambda: opening(daemon), 60)
        async with httpx2.AsyncClient(base_url=opening(daemon) or "", timeout=patience(20)) as client:
            live, ready = await client.get("/livez"), await client.get("/readyz")
            assert (live.status_code, live.json()["status"]) == (200, "ok")
            assert (ready.status_code, ready.json()["checks"]["store"]["reason"]) == (
                503,
                "it is being opened",
            )
            for path in ("/", "/api/v1/status", "/metrics"):
                other = await client.get(path)
                assert (other.status_code, other.headers["content-type"]) == (503, "application/problem+json")
                assert "waits for its store" in other.json()["detail"]
                assert HEADERS.items() <= dict(other.headers).items()
            assert platform.endpoint_calls == 0  # nothing is heard that could not be kept
            server_alone.start()
            await platform.connected(60)
            await until_checked_when_listening(daemon)
            assert (await client.get("/api/v1/status")).json()["connection"]["state"] == "connected"
        await platform.push_many([sample_event(event_id="e1")])
        await receiver.until(lambda: len(receiver.received) == 1, 60)
        assert json.loads(receiver.received[0].body)["id"] == "e1"


async def until_checked_when_listening(daemon: Daemon) -> None:
    """Wait until it is ready, and says where."""
    await until(lambda: any(line["event"] == "status.listening" for line in daemon.log()), 60)
    await until_checked(daemon, "/readyz", 200)


async def test_a_start_that_waits_can_be_stopped(
    tmp_path: Path, platform: Simulator, server: HttpServer, server_alone: Server
) -> None:
    """With 0, and without a word of a failure of its own."""
    config = configured(tmp_path, "one", server_alone.database(), platform, server.url, more=STATUS)
    server_alone.kill()
    async with running(config.parent, config) as daemon:
        await until(lambda: any(line["event"] == "store.unreachable" for line in daemon.log()), 60)
        assert await daemon.stop() == 0
        assert daemon.stderr() == ""
