"""Working with what happened: dead letters and replays, on a running daemon and on a stopped one."""

from __future__ import annotations

import asyncio
import json
import stat
from typing import TYPE_CHECKING, Any

import pytest

from reserve_listener.errors import ReserveListenerError
from reserve_listener.simulator import HttpServer, Receiver, Simulator, patience, sample_event
from reserve_listener.store import backend
from reserve_listener.web.answers import Count, SampleResult, Selection
from reserve_listener.web.client import post
from tests.commands import COMMANDS
from tests.daemon_process import COMMAND, environment, running, until, write_config
from tests.helpers import url_of

if TYPE_CHECKING:
    from pathlib import Path


async def cli(*arguments: str) -> tuple[int, str, str]:
    env = environment(COLUMNS="200")
    done = await asyncio.to_thread(COMMANDS.run, *arguments, env=env, timeout=patience(30))
    return done.returncode, done.stdout, done.stderr


async def as_json(*arguments: str) -> Any:
    code, out, err = await cli(*arguments, "--json")
    assert code == 0, err
    return json.loads(out)


async def test_dead_letters_are_listed_retried_and_dropped_on_a_running_daemon(
    tmp_path: Path, platform: Simulator, server: HttpServer, receiver: Receiver
) -> None:
    """A receiver that refuses for good makes dead letters; retried over the control socket they arrive."""
    config = str(write_config(tmp_path, platform, server.url))
    receiver.answer = 422
    async with running(tmp_path, tmp_path / "config.toml") as daemon:
        await platform.connected(20)
        for event_id, scope in (("one", "omm_a"), ("two", "omm_b"), ("three", "omm_b")):
            assert await platform.push(sample_event(event_id=event_id, scope_id=scope)).answered() == 200
        await until(lambda: daemon.pending() == 0)
        letters = await as_json("dead-letters", "list", "-c", config)
        assert {letter["event_id"] for letter in letters} == {"one", "two", "three"}
        assert all("HTTP 422" in letter["last_error"] for letter in letters)
        assert (
            len(await as_json("dead-letters", "list", "-c", config, "--scope", "omm_b", "--since", "1h")) == 2
        )
        _, table, _ = await cli("dead-letters", "list", "-c", config, "--sink", "booking")
        assert "HTTP 422" in table
        receiver.answer = 200
        receiver.received.clear()
        code, out, err = await cli("dead-letters", "retry", "-c", config, "--scope", "omm_b")
        assert (code, out) == (0, "2 dead letters will be retried.\n")
        assert err == "2 dead letters of omm_b.\n"
        await receiver.wait_for(2)
        assert [request.headers["webhook-id"] for request in receiver.received] == ["two", "three"]
        code, out, _ = await cli("dead-letters", "drop", "-c", config, "--event-id", "one", "--yes")
        assert (code, out) == (0, "1 dead letter dropped for good.\n")
        await until(lambda: daemon.pending() == 0)
        assert await as_json("dead-letters", "list", "-c", config) == []
        assert len(await as_json("events", "list", "-c", config)) == 3
        assert await daemon.stop() == 0


async def test_a_stopped_daemons_store_is_acted_on_directly(
    tmp_path: Path, platform: Simulator, server: HttpServer, receiver: Receiver
) -> None:
    """With no daemon running, retry and replay change the store under its lock; the next start delivers."""
    config = str(write_config(tmp_path, platform, server.url))
    receiver.answer = 422
    async with running(tmp_path, tmp_path / "config.toml") as daemon:
        await platform.connected(20)
        assert await platform.push(sample_event(event_id="one")).answered() == 200
        await until(lambda: daemon.pending() == 0)
        assert await daemon.stop() == 0
        receiver.answer = 200
        receiver.received.clear()
        code, out, _ = await cli("dead-letters", "retry", "-c", config, "--all", "--yes")
        assert (code, out) == (0, "1 dead letter will be retried.\n")
        assert (await cli("events", "replay", "-c", config, "--sink", "audit"))[1].startswith("1 delivery ")
        await daemon.start()
        await receiver.wait_for(1, 20)
        await until(lambda: daemon.file_ids() == ["one", "one"])
        await until(lambda: daemon.pending() == 0)
        assert daemon.logged_ids() == ["one"]
        assert await daemon.stop() == 0


async def test_replay_delivers_once_more_with_the_same_body(
    tmp_path: Path, platform: Simulator, server: HttpServer, receiver: Receiver
) -> None:
    """A replay on a running daemon posts the same bytes under the same id again, to the named sink only."""
    config = str(write_config(tmp_path, platform, server.url))
    async with running(tmp_path, tmp_path / "config.toml") as daemon:
        await platform.connected(20)
        assert await platform.push(sample_event(event_id="one")).answered() == 200
        await receiver.wait_for(1)
        await until(lambda: daemon.pending() == 0)
        await cli("events", "replay", "-c", config, "--sink", "booking", "--event-id", "one")
        first, second = await receiver.wait_for(2)
        assert first.body == second.body
        assert first.headers["webhook-id"] == second.headers["webhook-id"]
        await until(lambda: daemon.pending() == 0)
        assert daemon.file_ids() == ["one"]
        assert await daemon.stop() == 0


async def test_events_tail_follows(tmp_path: Path, platform: Simulator, server: HttpServer) -> None:
    """`events tail -f --json` prints what is there and then each event that comes, one object a line."""
    config = str(write_config(tmp_path, platform, server.url))
    async with running(tmp_path, tmp_path / "config.toml") as daemon:
        await platform.connected(20)
        assert await platform.push(sample_event(event_id="one")).answered() == 200
        follower = await asyncio.create_subprocess_exec(
            *COMMAND, "events", "tail", "-f", "--json", "-c", config,
            stdout=asyncio.subprocess.PIPE, env=environment(PYTHONUNBUFFERED="1"),
        )  # fmt: skip
        assert follower.stdout is not None
        async with asyncio.timeout(patience(20)):
            assert json.loads(await follower.stdout.readline())["id"] == "one"
            assert await platform.push(sample_event(event_id="two")).answered() == 200
            assert json.loads(await follower.stdout.readline())["id"] == "two"
        follower.terminate()
        await follower.wait()
        assert await daemon.stop() == 0


async def test_the_control_socket_is_private_and_survives_nonsense(
    tmp_path: Path, platform: Simulator, server: HttpServer
) -> None:
    """Mode 0600; garbage costs nothing; it is gone after the stop."""
    write_config(tmp_path, platform, server.url)
    store = url_of(tmp_path / "events.db")
    async with running(tmp_path, tmp_path / "config.toml") as daemon:
        await platform.connected(20)
        path = backend(store).control_socket
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        with pytest.raises(ReserveListenerError, match='has no sink "nope"'):
            await asyncio.to_thread(post, store, "/sinks/nope/test", SampleResult)
        _, writer = await asyncio.open_unix_connection(str(path))
        writer.write(b"\xff" * 100_000 + b"\n")
        writer.close()
        done = await asyncio.to_thread(post, store, "/dead-letters/drop", Count, Selection(all=True))
        assert done == Count(count=0)
        assert await daemon.stop() == 0
        assert not path.exists()
        assert await asyncio.to_thread(post, store, "/dead-letters/drop", Count, Selection(all=True)) is None


async def test_a_wrong_filter_is_said(tmp_path: Path, platform: Simulator, server: HttpServer) -> None:
    """A sink that the store never knew, and a time that cannot be read, are errors and not empty answers."""
    config = str(write_config(tmp_path, platform, server.url))
    async with running(tmp_path, tmp_path / "config.toml") as daemon:
        await platform.connected(20)
        code, _, err = await cli("dead-letters", "retry", "-c", config, "--sink", "bookin")
        assert code == 1
        assert 'has no sink "bookin"; it has' in err
        code, _, err = await cli("events", "list", "-c", config, "--since", "yesterday")
        assert code == 2
        assert "neither a span" in err
        assert await daemon.stop() == 0
