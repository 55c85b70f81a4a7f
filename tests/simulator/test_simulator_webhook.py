"""The platform that pushes to an address, against the real daemon: what it gets answered, and what it pushes again."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from reserve_listener.simulator import (
    Faults,
    HttpServer,
    Receiver,
    WebhookPlatform,
    patience,
    realistic_events,
    sample_event,
)
from tests.daemon_process import COMMAND, Daemon, environment, running, until
from tests.helpers import free_port
from tests.pushing import KEY, write_webhook_config

if TYPE_CHECKING:
    from pathlib import Path


def configured(folder: Path, receiver_url: str) -> tuple[Path, str]:
    """A daemon's configuration with the webhook on a free port, and the webhook's address."""
    listen = f"127.0.0.1:{free_port()}"
    return write_webhook_config(folder, receiver_url, listen=listen), f"http://{listen}/hook"


async def test_a_thousand_events_of_two_tenants_arrive_once_though_pushed_twice(
    tmp_path: Path, server: HttpServer, receiver: Receiver
) -> None:
    """After the challenge each event, pushed twice, is answered 200 and reaches each sink exactly once."""
    config, url = configured(tmp_path, server.url)
    async with (
        running(tmp_path, config) as daemon,
        WebhookPlatform(
            url, encrypt_key=KEY, faults=Faults(duplicate=True), answer_timeout=patience(3)
        ) as platform,
    ):
        await platform.connected(20)
        events = [
            sample_event(event_id=f"e{n:04}", tenant_key=f"t{n % 2}", scope_id=f"omm_{n % 9}")
            for n in range(1_000)
        ]
        await platform.push_many(events, in_flight=32)
        await platform.until(lambda: sum(platform.answers.values()) == 2_000, 20)
        assert dict(platform.answers) == {200: 2_000}
        await until(lambda: daemon.pending() == 0)
        assert sorted(daemon.file_ids()) == sorted(daemon.logged_ids()) == [f"e{n:04}" for n in range(1_000)]
        assert len(receiver.received) == 1_000
        assert await daemon.stop() == 0


async def test_what_is_not_answered_while_the_daemon_is_away_is_pushed_again(
    tmp_path: Path, server: HttpServer
) -> None:
    """A kill -9 in the middle, and pushes to nobody: with the platform's retries everything arrives, nothing is lost."""
    config, url = configured(tmp_path, server.url)
    async with (
        WebhookPlatform(url, encrypt_key=KEY, retry_delays=(0.3,) * 20, answer_timeout=1.0) as platform,
        running(tmp_path, config) as daemon,
    ):
        await platform.connected(20)
        changes = realistic_events()
        for _ in range(3):
            pushes = [platform.push(next(changes)) for _ in range(30)]
            daemon.process.kill()
            await daemon.process.wait()
            late = platform.push(next(changes))
            await daemon.start()
            for push in (*pushes, late):
                assert await push.over(30) == 200
        await until(lambda: daemon.pending() == 0)
        assert platform.acknowledged <= set(daemon.file_ids())
        assert len(platform.acknowledged) == 93
        assert await daemon.stop() == 0


@pytest.mark.parametrize("fault", ["wrong_signature", "stale", "wrong_token", "plain"])
async def test_a_push_that_is_not_right_is_refused_and_a_right_one_taken(
    tmp_path: Path, server: HttpServer, fault: str
) -> None:
    """401 for each fault, nothing of it is stored, and the next right push flows."""
    config, url = configured(tmp_path, server.url)
    async with running(tmp_path, config) as daemon, WebhookPlatform(url, encrypt_key=KEY) as platform:
        await platform.connected(20)
        setattr(platform.faults, fault, True)
        assert await platform.push(sample_event(event_id="wrong"), retry=False).answered() == 401
        setattr(platform.faults, fault, False)
        assert await platform.push(sample_event(event_id="right")).answered() == 200
        await until(lambda: daemon.file_ids() == ["right"])
        assert daemon.query("SELECT count(*) FROM events") == [(1,)]
        (line,) = [line for line in daemon.log() if line["event"] == "webhook.refused"]
        assert (line["status"], line["client"]) == (401, "127.0.0.1")
        assert await daemon.stop() == 0


async def test_simulate_pushes_to_a_webhook(tmp_path: Path, server: HttpServer) -> None:
    """`simulate --webhook` waits until somebody answers the challenge, pushes, and says how each was answered."""
    config, url = configured(tmp_path, server.url)
    simulating = await asyncio.create_subprocess_exec(
        *COMMAND, "simulate", "--webhook", url, "--events", "3", "--rate", "50", "--port", "0",
        "--encrypt-key-file", str(tmp_path / "key"), "--verification-token-file", str(tmp_path / "token"),
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE, env=environment(),
    )  # fmt: skip
    daemon = Daemon(tmp_path, config)
    await daemon.start()
    try:
        out, err = await asyncio.wait_for(simulating.communicate(), patience(30))
        assert (simulating.returncode, err) == (0, b"")
        text = out.decode()
        assert "the challenge was answered" in text
        assert text.count(" 200 in ") == 3
        await until(lambda: len(daemon.file_ids()) == 3)
        assert await daemon.stop() == 0
    finally:
        if daemon.process.returncode is None:
            daemon.process.kill()
            await daemon.process.wait()


async def test_simulate_says_what_it_cannot_read(tmp_path: Path) -> None:
    """A key's file that is not there is an error of usage that names the option."""
    process = await asyncio.create_subprocess_exec(
        *COMMAND, "simulate", "--webhook", "http://127.0.0.1:1/", "--encrypt-key-file", str(tmp_path / "none"),
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE, env=environment(),
    )  # fmt: skip
    _, err = await asyncio.wait_for(process.communicate(), patience(30))
    assert process.returncode == 2
    assert b"--encrypt-key-file" in err


async def test_simulate_knows_of_no_absence_without_a_connection() -> None:
    """With --webhook nobody sees when the daemon is away, so what would be done then is an error of usage."""
    process = await asyncio.create_subprocess_exec(
        *COMMAND, "simulate", "--webhook", "http://127.0.0.1:1/", "--away-change", "1",
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE, env=environment(),
    )  # fmt: skip
    _, err = await asyncio.wait_for(process.communicate(), patience(30))
    assert process.returncode == 2
    assert b"press E, N or X" in err
