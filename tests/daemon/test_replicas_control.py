"""Replicas that share a machine, and the commands that ask them."""

from __future__ import annotations

import asyncio
import json
import signal
from typing import TYPE_CHECKING

from reserve_listener.store import backend
from tests.daemon_process import ask, until
from tests.postgres import SERVER
from tests.replicas import two_in_turn

if TYPE_CHECKING:
    from pathlib import Path

    from reserve_listener.simulator import HttpServer, Simulator


async def test_replicas_share_a_machine(tmp_path: Path, platform: Simulator, server: HttpServer) -> None:
    """Each has a socket; `status` is answered while either lives, and one that is frozen or was killed is passed over."""
    url = SERVER.database()
    async with two_in_turn(tmp_path, url, platform, server.url) as (one, two):
        await until(lambda: len(backend(url).control_sockets) == 2)
        for frozen, asked in ((one, two), (two, one)):
            frozen.process.send_signal(signal.SIGSTOP)
            found = json.loads(
                await asyncio.to_thread(ask, tmp_path / "one" / "config.toml", "status", "--json")
            )
            frozen.process.send_signal(signal.SIGCONT)
            assert found["pid"] == asked.process.pid
            assert {replica["pid"] for replica in found["replicas"]} == {one.process.pid, two.process.pid}
        one.process.kill()
        await one.process.wait()
        found = json.loads(await asyncio.to_thread(ask, tmp_path / "one" / "config.toml", "status", "--json"))
        assert found["pid"] == two.process.pid
        assert await two.stop() == 0
    assert [path.name.split("-")[-1] for path in backend(url).control_sockets] == [f"{one.process.pid}.sock"]
    async with two_in_turn(tmp_path / "again", url, platform, server.url):
        await until(lambda: len(backend(url).control_sockets) == 2)
