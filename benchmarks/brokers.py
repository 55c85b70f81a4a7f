"""What each kind of sink carries in the daemon, against its bare client library, and what a kill loses and doubles.

A daemon with one sink has events waiting in its store; the sink is enabled, and the events are counted where they arrive. In turn
with it, the bare library (`peers/publish.py`) publishes the same bodies, as many at a time. What counts is the ratio within a round.
What the ratio can be at best shows a sink that does nothing: store and worker alone take their time for each event, of which the bare
client keeps no account. Then, for each kind, the daemon is killed (SIGKILL) while it delivers, and so is the server. Nothing may be lost.

Run it with `python benchmarks/brokers.py`; `--quick` is the short form that CI runs to see that it works. A kind whose server is not
installed is left out.
"""

from __future__ import annotations

import argparse
import asyncio
import logging
import statistics
import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Final

import backlog
import organisation
import places
import pytest
import structlog
from clients import CONFIG, PEERS, UNASKED
from rows import push

from reserve_listener.delivery import Worker
from reserve_listener.delivery.retry import RetryPolicy
from reserve_listener.store import open_store
from reserve_listener.web.answers import Changed
from reserve_listener.web.client import post
from tests.daemon_process import Daemon, running, until

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from reserve_listener.model import Delivery
    from reserve_listener.simulator import Simulator

BUS: Final = """
[[sinks]]
name = "bus"
type = "{kind}"
{keys}
"""
LOOK_S: Final = 0.005
LONGEST_S: Final = 900.0
"""For one kind. Some minutes on a busy machine; what takes longer hangs."""
HEADS: Final = (
    *("sink", "bare client, events/s", "in the daemon, events/s", "ratio"),
    *("lost", "doubled: daemon killed", "doubled: server killed"),
)


@dataclass
class Found:
    """Of a kind: events a second by round, and how many a kill doubled."""

    bare: list[float] = field(default_factory=list)
    ours: list[float] = field(default_factory=list)
    doubled: dict[str, list[int]] = field(default_factory=lambda: {"daemon": [], "server": []})
    lost: int = 0
    killed: int = 0
    """How many events were under way in all, over the kills."""


@dataclass
class Bench:
    """A daemon with one sink, to one place."""

    place: places.Place
    platform: Simulator
    daemon: Daemon
    events: int
    found: Found = field(default_factory=Found)

    async def fill(self) -> list[str]:
        """Let events wait for the sink; their ids."""
        (last,) = self.daemon.query("SELECT coalesce(max(seq), 0) FROM events")[0]
        await self.switch("disable")
        await push(self.platform, self.events, 512)
        await until(lambda: self.daemon.pending() >= self.events, 60)
        return [row[0] for row in self.daemon.query(f"SELECT event_id FROM events WHERE seq > {last}")]

    async def switch(self, how: str) -> None:
        """What `sinks enable` and `sinks disable` do, without the process, which would take the daemon's time."""
        await asyncio.to_thread(
            post, f"sqlite:///{self.daemon.folder}/events.db", f"/sinks/bus/{how}", Changed
        )

    async def ours(self) -> float:
        """Events a second that arrive, once the sink is enabled."""
        await self.fill()
        before = await self.place.count()
        enabling = asyncio.create_task(self.switch("enable"))
        first_s, first = 0.0, 0
        while (arrived := await self.place.count() - before) < self.events:
            if not first and arrived:
                first_s, first = time.perf_counter(), arrived
            await asyncio.sleep(LOOK_S)
        took_s = time.perf_counter() - first_s
        await enabling
        await until(lambda: self.daemon.pending() == 0, 60)
        return (self.events - first) / took_s

    async def bare(self) -> float:
        """Events a second by the bare client."""
        rows = self.daemon.query(f"SELECT body FROM events ORDER BY seq DESC LIMIT {self.events}")
        bodies = self.place.folder / "bodies"
        bodies.write_bytes(b"\n".join(row[0] for row in rows))
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, str(PEERS / "publish.py"), self.place.kind, self.place.bare),
            *(str(self.place.in_flight), str(bodies)),
            stdout=asyncio.subprocess.PIPE,
        )
        output, _ = await process.communicate()
        return float(output)

    async def killed(self, which: str, kill: Callable[[], Awaitable[None]]) -> None:
        """Kill, when a third of what waited has arrived; all the rest has to come."""
        ids = set(await self.fill())
        before = await self.place.count()
        enabling = asyncio.create_task(self.switch("enable"))
        while await self.place.count() - before < self.events // 3:  # noqa: ASYNC110  # another process sets no event
            await asyncio.sleep(LOOK_S)
        await kill()
        await enabling
        await self.platform.connected(60)
        await until(lambda: self.daemon.pending() == 0, 120)
        arrived = Counter(one for one in await self.place.ids() if one in ids)
        self.found.killed += len(ids)
        self.found.lost += len(ids) - len(arrived)
        self.found.doubled[which].append(arrived.total() - len(arrived))

    async def kill_daemon(self) -> None:
        """As a crash does; it is started again at once, as by systemd."""
        self.daemon.process.kill()
        await self.daemon.process.wait()
        await self.daemon.start()

    async def kill_server(self) -> None:
        """The same."""
        assert self.place.server is not None
        self.place.server.kill()
        await asyncio.to_thread(self.place.server.start)

    async def measure(self, rounds: int, kills: int) -> Found:
        """All of it."""
        await self.ours()  # warm
        for number in range(rounds):
            for one in ("bare", "ours") if number % 2 == 0 else ("ours", "bare"):
                getattr(self.found, one).append(await getattr(self, one)())
        for _ in range(kills):
            await self.killed("daemon", self.kill_daemon)
            if self.place.server is not None and not self.place.forgets:
                await self.killed("server", self.kill_server)
        return self.found


async def measured(make: type[places.Place], folder: Path, events: int, rounds: int, kills: int) -> Found:
    """One kind."""
    events //= make.slower
    async with (
        asyncio.timeout(LONGEST_S),
        organisation.platform(events) as platform,
        make(folder) as place,
    ):
        values = {"app_id": platform.app_id, "app_secret": platform.app_secret, "domain": platform.domain}
        config = folder / "config.toml"
        config.write_text(
            (CONFIG + UNASKED + BUS).format(kind=place.kind, keys=place.keys(), folder=folder, **values)
        )
        async with running(folder, config) as daemon:
            await platform.connected(60)
            return await Bench(place, platform, daemon, events).measure(rounds, kills)


class Nothing:
    """A sink that has no receiver."""

    name: Final = "a"
    batch_size: Final = 1
    max_in_flight: Final = 64
    needs_raw: Final = False

    async def deliver(self, _: Sequence[Delivery]) -> None:
        """Let the others have their turn, as a receiver's answer would."""
        await asyncio.sleep(0)

    async def close(self) -> None:
        """Nothing is held."""


async def without_receiver(folder: Path, events: int) -> float:
    """Events a second out of a store and noted in it, in this process."""
    await backlog.build(folder / "events.db", events, scopes=events, size=700)
    store = await open_store(f"sqlite:///{folder}/events.db", backlog.SINKS)
    worker = Worker(Nothing(), store, policy=RetryPolicy(base_s=1, cap_s=60), now_ms=lambda: backlog.NOW_MS)
    worker.drain()
    begun = time.perf_counter()
    await worker.run()
    took_s = time.perf_counter() - begun
    await store.close()
    return events / took_s


def row(kind: str, found: Found) -> str:
    """A line of the table."""
    ratios = [ours / bare for ours, bare in zip(found.ours, found.bare, strict=True)]
    doubled = (_doubled(found.doubled[which]) for which in ("daemon", "server"))
    cells = [f"`{kind}`", _spread(found.bare, ",.0f"), _spread(found.ours, ",.0f"), _spread(ratios, ".2f")]
    cells += [f"{found.lost} of {found.killed:,}", *doubled]
    return f"| {' | '.join(cells)} |"


def _spread(values: Sequence[float], style: str) -> str:
    low, middle, high = (format(pick(values), style) for pick in (min, statistics.median, max))
    return middle if len(values) == 1 else f"{middle} ({low} to {high})"


def _doubled(counts: Sequence[int]) -> str:
    return ", ".join(map(str, counts)) if counts else "n/a"


async def main(kinds: Sequence[str], events: int, rounds: int, kills: int) -> None:
    """Print the table, a kind as soon as it is measured."""
    print(f"| {' | '.join(HEADS)} |\n|{'---|' * len(HEADS)}")
    for make in places.PLACES:
        if kinds and make.kind not in kinds:
            continue
        with tempfile.TemporaryDirectory(prefix="reserve-listener-bench-") as folder:
            try:
                found = await measured(make, Path(folder), events, rounds, kills)
            except pytest.skip.Exception as missing:
                print(f"{make.kind} is left out: {missing}", file=sys.stderr)
            else:
                print(row(make.kind, found), flush=True)
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
    alone = []
    for _ in range(rounds):
        with tempfile.TemporaryDirectory(prefix="reserve-listener-bench-") as folder:
            alone.append(await without_receiver(Path(folder), events))
    print(f"\nStore and worker alone, with a sink that does nothing: {_spread(alone, ',.0f')} events/s.")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("kinds", nargs="*", help="only these")
    parser.add_argument("--events", type=int, default=5_000, help="for a broker, in each round")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--kills", type=int, default=3, help="of the daemon, and as many of the server")
    parser.add_argument("--quick", action="store_true", help="few events: only to see that it works")
    chosen = parser.parse_args()
    if chosen.quick:
        chosen.events, chosen.rounds, chosen.kills = 300, 1, 1
    asyncio.run(main(chosen.kinds, chosen.events, chosen.rounds, chosen.kills))
