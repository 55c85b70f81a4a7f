"""Commands from a machine on which no daemon runs: daemons that share a store hear of them through the database."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

import pytest

from reserve_listener.simulator import Estate, HttpServer, Receiver, Simulator, patience, sample_event
from tests.commands import COMMANDS
from tests.conftest import NO_WAITS, QUICK_RETRIES
from tests.daemon_process import IN_A_HURRY, Daemon, environment, until
from tests.postgres import SERVER
from tests.replicas import configured, expire, rows, two_in_turn

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path


@pytest.fixture
async def platform() -> AsyncIterator[Simulator]:
    """With few rooms: the daemon reads some 80 a minute by the clock on the wall."""
    async with Simulator(
        retry_delays=QUICK_RETRIES, client_config=dict(NO_WAITS), estate=Estate(rooms=4, depth=1)
    ) as simulator:
        yield simulator


class Elsewhere(NamedTuple):
    """Two daemons, and a machine with the same configuration that has no socket of theirs."""

    url: str
    one: Daemon
    two: Daemon
    config: Path

    async def command(self, *arguments: str) -> tuple[int, str, str]:
        """What a command says there: exit code and both outputs."""
        elsewhere = str(self.config.parent)
        env = environment(RUNTIME_DIRECTORY=elsewhere, TMPDIR=elsewhere)
        command = partial(COMMANDS.run, *arguments, "-c", str(self.config), env=env, timeout=patience(60))
        done = await asyncio.to_thread(command)
        return done.returncode, done.stdout, done.stderr

    def replica(self, daemon: Daemon) -> str:
        """Its id."""
        ((found,),) = rows(self.url, "SELECT id FROM replicas WHERE pid = %s", daemon.process.pid)
        return str(found)


@asynccontextmanager
async def elsewhere(folder: Path, platform: Simulator, server: HttpServer) -> AsyncIterator[Elsewhere]:
    """While both run; the first leads everything."""
    url = SERVER.database()
    async with two_in_turn(folder, url, platform, server.url, first=IN_A_HURRY) as (one, two):
        yield Elsewhere(url, one, two, configured(folder, "elsewhere", url, platform, server.url))


def done(daemon: Daemon, operation: str) -> list[dict[str, Any]]:
    """The lines that say that it has obeyed."""
    return [
        line for line in daemon.log() if line["event"] == "control.done" and line["operation"] == operation
    ]


def reconnected(there: Elsewhere) -> list[int]:
    """How often each has said so."""
    return [len(done(daemon, "reconnect")) for daemon in (there.one, there.two)]


async def test_all_replicas_reconnect_or_the_one_that_is_named(
    tmp_path: Path, platform: Simulator, server: HttpServer
) -> None:
    """Each says that it is connected again; an id may be shortened as long as it is clear which one is meant."""
    async with elsewhere(tmp_path, platform, server) as there:
        code, said, complaint = await there.command("reconnect")
        assert (code, complaint) == (0, "")
        pids = {there.one.process.pid, there.two.process.pid}
        assert all(f"(process {pid}): connected (before: connected)." in said for pid in pids)
        await until(lambda: reconnected(there) == [1, 1])  # it is answered before it is logged
        two = there.replica(there.two)
        code, said, complaint = await there.command("reconnect", "--replica", two[:-2])
        assert (code, complaint) == (0, "")
        assert said.count("\n") == 1
        assert f"(process {there.two.process.pid}): connected" in said
        await until(lambda: reconnected(there) == [1, 2])
        shared = two.partition(str(there.two.process.pid))[0]
        for beginning in (shared, "nobody"):
            code, said, complaint = await there.command("reconnect", "--replica", beginning)
            assert (code, said) == (1, "")
            assert two in complaint
        assert reconnected(there) == [1, 2]


async def test_a_replica_that_was_killed_is_not_waited_for(
    tmp_path: Path, platform: Simulator, server: HttpServer
) -> None:
    """It counts as living for a while; once it does not, the command is content. Without any replica it says so."""
    async with elsewhere(tmp_path, platform, server) as there:
        there.two.process.kill()
        await there.two.process.wait()
        rows(there.url, "UPDATE replicas SET seen_ms = seen_ms - 14000 WHERE pid = %s", there.two.process.pid)
        code, said, complaint = await there.command("reconnect")
        assert code == 0
        assert f"(process {there.one.process.pid}): connected" in said
        assert f"(process {there.two.process.pid}): has ended." in complaint
        assert await there.one.stop() == 0
        for command in ("reconnect", "reconcile"):
            code, said, complaint = await there.command(command)
            assert (code, said) == (3, "")
            assert "no daemon runs on the store" in complaint


async def test_the_replica_that_compares_is_asked(
    tmp_path: Path, platform: Simulator, server: HttpServer
) -> None:
    """All rooms or one, to be stored or only told; after the lease has changed hands the next one is asked."""
    first, second, *_ = platform.estate.rooms
    async with elsewhere(tmp_path, platform, server) as there:
        await until(lambda: [line for line in there.one.log() if line["event"] == "reconcile.done"], 60)
        platform.admin.change(first, push=False, time_config={"max_duration": 3})
        code, said, complaint = await there.command("reconcile", first.id, "--dry-run")
        assert (code, said.split("\t")[0]) == (0, first.id)
        assert "nothing was stored" in complaint
        code, said, complaint = await there.command("reconcile")
        assert (code, said.split("\t")[0]) == (0, first.id)
        assert "1 differs" in complaint
        await until(lambda: len(done(there.one, "reconcile")) == 2)
        assert not done(there.two, "reconcile")
        platform.admin.change(second, push=False, time_config={"max_duration": 5})
        there.one.process.kill()
        await there.one.process.wait()
        expire(there.url)
        code, said, complaint = await there.command("reconcile", second.id)
        assert code == 0, complaint
        assert "1 of 1 compared" in complaint
        await until(lambda: len(done(there.two, "reconcile")) == 1)


async def test_sinks_and_deliveries_are_acted_on(
    tmp_path: Path, platform: Simulator, server: HttpServer, receiver: Receiver
) -> None:
    """A sink is disabled and enabled, dead letters are retried and dropped, events replayed: the daemons go by it."""
    taken = receiver.received
    async with elsewhere(tmp_path, platform, server) as there:
        code, _, complaint = await there.command("sinks", "disable", "booking")
        assert code == 0, complaint
        await platform.push(sample_event(event_id="e1", scope_id="omm_1")).answered()
        assert (await there.command("sinks", "enable", "booking"))[0] == 0
        await until(lambda: len(taken) == 1, 30)
        receiver.answer = 400
        await platform.push(sample_event(event_id="e2", scope_id="omm_1")).answered()
        await until(lambda: rows(there.url, "SELECT 1 FROM deliveries WHERE state = 2"), 30)
        receiver.answer = 200
        assert (await there.command("dead-letters", "retry", "--event-id", "e2"))[0] == 0
        await until(lambda: not rows(there.url, "SELECT 1 FROM deliveries WHERE state <> 1"), 30)
        before = len(taken)
        code, _, complaint = await there.command("events", "replay", "e1", "--sink", "booking")
        assert code == 0, complaint
        await until(lambda: len(taken) == before + 1, 30)
