"""What is secret of a sink, in all that a real daemon says and keeps."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING
from urllib.parse import unquote

from reserve_listener.simulator import Answer, HttpServer, Receiver, Simulator, sample_event
from tests.daemon_process import ask, running, until, write_config

if TYPE_CHECKING:
    from pathlib import Path


async def test_a_secret_url_leaves_nowhere(tmp_path: Path) -> None:
    """Log at debug, store and commands hold no part of path and query, with a receiver that quotes them; nor of url_file."""
    target = "/hook/p4th%2Fpart-zz?key=qu3ry%20part-zz"
    receiver = Receiver()
    said = {"/hook/p4th/part-zz": f"no {target} {unquote(target)}", "/f1le-part-zz": "no /f1le-part-zz"}
    receiver.answer = lambda request: Answer(status=422, body=said.get(request.path, "").encode())
    async with Simulator() as platform, HttpServer(receiver) as server:
        (tmp_path / "url").write_text(f"{server.url}/f1le-part-zz\n")
        more = f'[[sinks]]\nname = "bot"\ntype = "http"\nurl_file = "{tmp_path}/url"\n'
        more += f'[[sinks]]\nname = "other"\ntype = "http"\nurl = "{server.url}{target}"'
        config = write_config(tmp_path, platform, server.url, more=more)
        async with running(tmp_path, config, "--log-level", "debug") as daemon:
            await platform.connected(20)
            assert await platform.push(sample_event()).answered() == 200
            await until(lambda: daemon.pending() == 0)
            told = [
                await asyncio.to_thread(ask, config, *command.split())
                for command in (
                    "status",
                    "sinks list",
                    "dead-letters list",
                    "sinks test other",
                    "config show",
                    "check",
                )
            ]
            assert await daemon.stop() == 0
    assert {request.path for request in receiver.received} == {"/hook", "/hook/p4th/part-zz", "/f1le-part-zz"}
    kept = await asyncio.to_thread(lambda: list(tmp_path.glob("events.*")))
    log = (tmp_path / "log.jsonl").read_bytes()
    assert b"HTTP Request: POST" in log
    assert b"HTTP 422: no ****" in b"".join(told)
    stored = [path.read_bytes() for path in kept]
    assert b"part-zz" not in b"".join([log, *told, *stored])
