"""`status` of replicas: on a machine where none runs, while the database is away, and of a sink that another replica works."""

from __future__ import annotations

import asyncio
import json
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import msgspec
import pytest

from reserve_listener.clock import rfc3339
from reserve_listener.daemon.alerts.conditions import SinkNow
from reserve_listener.daemon.alerts.replicas import Told
from reserve_listener.daemon.elsewhere import seen_from_here
from reserve_listener.model import Insight, Replica, SinkState
from reserve_listener.simulator import HttpServer, Receiver, Simulator, patience, sample_event
from tests.commands import COMMANDS
from tests.daemon_process import COMMAND, Daemon, environment, until
from tests.postgres import SERVER
from tests.replicas import configured, holder, replicas

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping
    from pathlib import Path

    from tests.postgres import Server

NOW_MS = 1_790_000_000_000


async def status(config: Path, *, at: Path, command: str = "status") -> tuple[int, Any]:
    """What it says on the machine whose sockets are in this folder: the exit code and the JSON."""
    done = await asyncio.to_thread(
        COMMANDS.run,
        *(*command.split(), "--json", "-c", str(config)),
        env=environment(RUNTIME_DIRECTORY=str(at)),
        timeout=patience(60),
        python=COMMAND[0],
    )
    assert done.stderr == ""
    return done.returncode, json.loads(done.stdout)


@asynccontextmanager
async def on_two_machines(
    tmp_path: Path, url: str, platform: Simulator, receiver_url: str
) -> AsyncIterator[tuple[list[Path], list[Daemon]]]:
    """Two replicas that are connected, each with a folder for its sockets; the folders, and the first leads all."""
    machines = [tmp_path / f"machine-{name}" for name in ("one", "two")]
    for machine in machines:
        machine.mkdir()
    more = "retry = { base = 0.05, cap = 0.1 }"
    configs = [configured(tmp_path, name, url, platform, receiver_url, more=more) for name in ("one", "two")]
    environs: list[Mapping[str, str]] = [{"RUNTIME_DIRECTORY": str(machine)} for machine in machines]
    async with replicas(configs[:1], environs[:1]) as (one,):
        await platform.connected(30)
        async with replicas(configs[1:], environs[1:]) as (two,):
            await platform.connected(30, count=2)
            yield machines, [one, two]


async def test_status_where_no_daemon_runs(
    tmp_path: Path, platform: Simulator, server: HttpServer, receiver: Receiver
) -> None:
    """It says how the replicas are, by what they told: well, with a sink that is down, and, once all are stopped, stopped."""
    url = SERVER.database()
    config, here = tmp_path / "one" / "config.toml", tmp_path / "here"
    here.mkdir()
    async with on_two_machines(tmp_path, url, platform, server.url) as (_, daemons):
        async with asyncio.timeout(patience(30)):
            while True:
                code, told = await status(config, at=here)
                if code == 0 and {sink["state"] for sink in told["sinks"]} == {
                    "ok"
                }:  # whoever works them has told
                    break
                await asyncio.sleep(0.1)
        assert (told["status"], told["reasons"], len(told["replicas"])) == ("ok", [], 2)
        assert told["connection"]["text"] == "2 of 2 replicas are connected, as they have told the database"
        receiver.answer = 503
        await platform.push_many([sample_event(event_id=f"e{n}", scope_id=f"omm_{n}") for n in range(8)])
        async with asyncio.timeout(patience(30)):
            while (found := await status(config, at=here))[1]["status"] != "degraded":
                await asyncio.sleep(0.1)
        code, told = found
        assert (code, [reason["part"] for reason in told["reasons"]]) == (1, ["sink booking"])
        _, sinks = await status(config, at=here, command="sinks list")
        (booking,) = [sink for sink in sinks if sink["name"] == "booking"]
        assert (booking["state"], booking["pending"]) == ("down", 8)
        for daemon in daemons:
            assert await daemon.stop() == 0
    code, told = await status(config, at=here)
    assert (code, told["status"], told["replicas"]) == (3, "stopped", [])


async def test_a_sink_is_shown_as_whoever_works_it_knows_it(
    tmp_path: Path, platform: Simulator, server: HttpServer, receiver: Receiver
) -> None:
    """The replica that does not work the sink has tried nothing: its `status` says what the other has told."""
    url = SERVER.database()
    async with on_two_machines(tmp_path, url, platform, server.url) as (machines, (one, two)):
        await until(lambda: holder(url) in {one.process.pid, two.process.pid})
        other = machines[1] if holder(url) == one.process.pid else machines[0]
        receiver.answer = 503
        await platform.push_many([sample_event(event_id=f"e{n}", scope_id=f"omm_{n}") for n in range(8)])
        async with asyncio.timeout(patience(30)):
            while True:
                code, told = await status(tmp_path / "one" / "config.toml", at=other)
                (booking,) = [sink for sink in told["sinks"] if sink["name"] == "booking"]
                if booking["state"] == "down":
                    break
                await asyncio.sleep(0.1)
        assert (code, told["status"]) == (1, "degraded")
        assert "503" in booking["last_error"]


async def test_while_the_database_is_away_nobody_is_said_to_be_stopped(tmp_path: Path) -> None:
    """Daemons may run on other machines: a monitor is told what is known, in whole sentences."""
    config = tmp_path / "config.toml"
    config.write_text(
        '[lark]\napp_id = "cli_x"\n[store]\nurl = "postgresql://somebody@127.0.0.1:1/nowhere"\n'
    )
    code, told = await status(config, at=tmp_path)
    assert (code, told["status"]) == (1, "failing")
    (reason,) = told["reasons"]
    assert reason["part"] == "store"
    assert reason["reason"].startswith(
        "whether daemons run is not known: the store postgresql://somebody@127.0.0.1:1/nowhere"
    )
    assert "Connection refused. Is the server running, and is the address" in reason["reason"]


async def test_while_the_database_is_away_nobody_is_told_that_there_are_no_sinks(
    tmp_path: Path, platform: Simulator, server: HttpServer, server_alone: Server
) -> None:
    """The daemon answers without them: `sinks list` says why, and fails."""
    config = configured(tmp_path, "one", server_alone.database(), platform, server.url)
    async with replicas([config], [{"RUNTIME_DIRECTORY": str(tmp_path)}]):
        await platform.connected(30)
        code, sinks = await status(config, at=tmp_path, command="sinks list")
        assert (code, {sink["name"] for sink in sinks}) == (0, {"console", "audit", "booking"})
        server_alone.kill()
        done = await asyncio.to_thread(
            COMMANDS.run,
            *("sinks", "list", "-c", str(config)),
            env=environment(RUNTIME_DIRECTORY=str(tmp_path)),
            timeout=patience(60),
            python=COMMAND[0],
        )
    assert (done.returncode, done.stdout) == (1, "")
    assert "which sinks there are is not known: " in done.stderr


def replica(name: str, told: Told | None, *leads: str) -> Replica:
    """One that lives."""
    return Replica(
        id=name,
        host=name,
        pid=1,
        version="1",
        seen_ms=NOW_MS,
        connection="connected" if told is None or told.deaf_since_ms is None else "waiting",
        leads=list(leads),
        sinks=["bus"],
        told=None if told is None else msgspec.json.encode(told),
    )


DEAF = Told(deaf_since_ms=NOW_MS - 120_000, connection="waiting 20 s (HTTP 500)", hint="ask the network team")
JUST_NOW = Told(deaf_since_ms=NOW_MS - 1_000, connection="connecting")
WELL = Told()


@pytest.mark.parametrize(
    ("tellers", "status_", "parts"),
    [
        ((WELL, WELL), "ok", []),
        ((WELL, None), "ok", []),  # of an older version
        ((WELL, JUST_NOW), "ok", []),
        ((WELL, DEAF), "degraded", ["replica r1"]),
        ((JUST_NOW, DEAF), "failing", ["connection"]),
        ((DEAF,), "failing", ["connection"]),
    ],
)
def test_who_hears_nothing(tellers: tuple[Told | None, ...], status_: str, parts: list[str]) -> None:
    """Nobody: failing. One of several, for longer than a reconnect takes: degraded, with what it told."""
    insight = Insight(replicas=[replica(f"r{n}", told) for n, told in enumerate(tellers)])
    found = seen_from_here("a store", insight, now_ms=NOW_MS)
    assert (found.status, [reason.part for reason in found.reasons]) == (status_, parts)
    for reason in found.reasons:
        assert reason.since == rfc3339(NOW_MS - 120_000)
        assert "HTTP 500" in reason.reason
        assert reason.hint == "ask the network team"


def test_a_sink_is_as_its_holder_says() -> None:
    """What a replica that does not work it thinks of it does not count; of one that nobody works nothing is known."""
    down = Told(sinks={"bus": SinkNow(state="down", since_ms=NOW_MS - 1_000, error="HTTP 503")})
    fine = Told(sinks={"bus": SinkNow(state="ok")})
    sink = SinkState(name="bus", configured=True, pending=3, dead=0, disabled_ms=None, disabled_reason=None)
    insight = Insight(sinks=[sink], replicas=[replica("a", fine), replica("b", down, "sink:bus")])
    found = seen_from_here("a store", insight, now_ms=NOW_MS)
    assert (found.sinks[0].state, found.sinks[0].last_error, found.status) == ("down", "HTTP 503", "degraded")
    found = seen_from_here("a store", Insight(sinks=[sink], replicas=[replica("a", down)]), now_ms=NOW_MS)
    assert (found.sinks[0].state, found.status) == ("unknown", "ok")
