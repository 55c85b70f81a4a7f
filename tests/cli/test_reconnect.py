"""`reconnect`: a person has mended something and does not want to wait."""

from __future__ import annotations

from typing import TYPE_CHECKING

from reserve_listener.simulator import HttpServer, Simulator, sample_event
from tests.cli.test_operate import cli
from tests.daemon_process import running, until, write_config
from tests.pushing import write_webhook_config

if TYPE_CHECKING:
    from pathlib import Path


async def test_a_wait_ends_now(tmp_path: Path, platform: Simulator, server: HttpServer) -> None:
    """A daemon that waits for minutes after a refusal connects at once; while the refusal lasts it says so, exit 1."""
    config = str(write_config(tmp_path, platform, server.url, lark="refused_backoff = 1000"))
    async with running(tmp_path, tmp_path / "config.toml") as daemon:
        await platform.connected(20)
        await until(lambda: daemon.query("SELECT 1 FROM apps"))
        platform.faults.endpoint_code = 514
        await platform.drop()
        await until(lambda: any("code 514" in line.get("reason", "") for line in daemon.log()))
        code, _, err = await cli("reconnect", "-c", config)
        assert code == 1
        assert "code 514" in err
        platform.faults.endpoint_code = 0
        code, out, err = await cli("reconnect", "-c", config)
        assert (code, err) == (0, "")
        assert out.startswith("Connected (before: waiting ")
        assert platform.connections == 1
        assert await daemon.stop() == 0


async def test_a_connection_is_made_anew_and_loses_nothing(
    tmp_path: Path, platform: Simulator, server: HttpServer
) -> None:
    """While events come, a working connection is replaced: every push is answered 200 in the end and arrives once."""
    config = str(write_config(tmp_path, platform, server.url))
    async with running(tmp_path, tmp_path / "config.toml") as daemon:
        await platform.connected(20)
        pushes = [platform.push(sample_event(event_id=f"before-{number}")) for number in range(200)]
        code, out, err = await cli("reconnect", "-c", config)
        assert (code, err) == (0, "")
        assert out == "Connected (before: connected).\n"
        pushes += [platform.push(sample_event(event_id=f"after-{number}")) for number in range(20)]
        assert {await push.answered(20) for push in pushes} == {200}
        await until(lambda: daemon.pending() == 0)
        assert sorted(daemon.file_ids()) == sorted(str(push.event_id) for push in pushes)
        assert platform.connections == 1
        lost = [line for line in daemon.log() if line["event"] == "connection.lost"]
        assert [(line["level"], line["reason"]) for line in lost] == [
            ("info", "a new connection was requested")
        ]
        assert await daemon.stop() == 0


async def test_without_a_daemon_there_is_nothing_to_ask(
    tmp_path: Path, platform: Simulator, server: HttpServer
) -> None:
    """Exit 3, as `status` does, and a sentence."""
    config = str(write_config(tmp_path, platform, server.url))
    code, out, err = await cli("reconnect", "-c", config)
    assert (code, out) == (3, "")
    assert "no daemon runs on the store" in err


async def test_a_webhook_has_no_connection(tmp_path: Path, server: HttpServer) -> None:
    """Where the platform pushes, the answer is a sentence and exit 1."""
    config = str(write_webhook_config(tmp_path, server.url))
    async with running(tmp_path, tmp_path / "config.toml") as daemon:
        await until(lambda: any(line["event"] == "webhook.listening" for line in daemon.log()))
        code, _, err = await cli("reconnect", "-c", config)
        assert code == 1
        assert "no connection to renew" in err
        assert (await cli("status", "--quiet", "-c", config))[0] == 0
        assert await daemon.stop() == 0
