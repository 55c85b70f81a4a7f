"""Answers per second: the daemon, durable, with a log and a file sink, against clients that keep nothing.

Every client runs in a process of its own against the same local platform, in turn, for several rounds; figures are
medians, and what counts is the ratio within a round. Run it with `make bench`; `--rounds 1 --events 200` is the short form
that CI runs to see that it works.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import platform as machine
import statistics
import subprocess
import sys
import tempfile
import time
from contextlib import asynccontextmanager
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

import psutil

from reserve_listener.simulator import Simulator, sample_event

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

PEERS = Path(__file__).parent / "peers"
IN_FLIGHT = (1, 64, 512)

CONFIG = """
[lark]
app_id = "{app_id}"
app_secret = "{app_secret}"
domain = "{domain}"
[store]
url = "sqlite:///{folder}/events.db"
[[sinks]]
name = "console"
type = "log"
[[sinks]]
name = "audit"
type = "file"
path = "{folder}/events.jsonl"
"""


def command(client: str, platform: Simulator, folder: Path) -> list[str]:
    """How a client is started."""
    if client != "reserve-listener":
        return [
            sys.executable,
            str(PEERS / f"{client}.py"),
            platform.domain,
            platform.app_id,
            platform.app_secret,
        ]
    config = folder / "config.toml"
    config.write_text(
        CONFIG.format(
            app_id=platform.app_id, app_secret=platform.app_secret, domain=platform.domain, folder=folder
        )
    )
    return [sys.executable, "-m", "reserve_listener", "run", "-c", str(config)]


@asynccontextmanager
async def started(client: str, platform: Simulator) -> AsyncIterator[tuple[float, psutil.Process]]:
    """A connected client: the seconds from start to connection, and its process."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        begun = time.perf_counter()
        with (folder / "out").open("wb") as out:
            process = await asyncio.create_subprocess_exec(
                *command(client, platform, folder), stdout=out, stderr=subprocess.STDOUT
            )
            try:
                await platform.connected(60)
                yield time.perf_counter() - begun, psutil.Process(process.pid)
            finally:
                process.terminate()
                await process.wait()
                await platform.disconnected(30)


async def measure(client: str, events: int) -> dict[str, float]:
    """One round of one client."""
    figures: dict[str, float] = {}
    async with Simulator(answer_timeout=60) as platform, started(client, platform) as (ready_s, process):
        figures["ready_s"] = ready_s
        figures["idle_rss_mib"] = process.memory_info().rss / 2**20
        await platform.push_many((sample_event() for _ in range(min(events, 200))), retry=False)  # warm
        for in_flight in IN_FLIGHT:
            envelopes = [
                sample_event(scope_id=f"omm_{n}") for n in range(events if in_flight > 1 else events // 10)
            ]
            begun = time.perf_counter()
            pushes = await platform.push_many(envelopes, in_flight=in_flight, retry=False)
            took = time.perf_counter() - begun
            assert all(push.code == 200 for push in pushes)
            figures[f"events_per_s_{in_flight}"] = len(envelopes) / took
            if in_flight == 1:
                elapsed = [push.attempts[-1].elapsed * 1000 for push in pushes]
                figures["p50_ms_1"] = statistics.median(elapsed)
        burst = [sample_event(scope_id=f"omm_{n}") for n in range(events)]
        pushes = await platform.push_many(burst, in_flight=len(burst), retry=False)
        figures["burst_last_answer_s"] = max(push.attempts[-1].elapsed for push in pushes)
    return figures


async def main(rounds: int, events: int, output: Path | None) -> None:
    """Run the rounds, print the table, write the JSON."""
    clients = ("reserve-listener", "blind", "sdk")
    results: dict[str, list[dict[str, float]]] = {client: [] for client in clients}
    for number in range(rounds):
        for client in clients if number % 2 == 0 else reversed(clients):
            results[client].append(await measure(client, events))
    print(f"{'median of ' + str(rounds):28}" + "".join(f"{client:>18}" for client in clients) + "   ours/sdk")
    for name in results["blind"][0]:
        medians = [statistics.median(figures[name] for figures in results[client]) for client in clients]
        ratio = statistics.median(
            ours[name] / sdk[name]
            for ours, sdk in zip(results["reserve-listener"], results["sdk"], strict=True)
        )
        print(f"{name:28}" + "".join(f"{value:18.2f}" for value in medians) + f"{ratio:11.2f}")
    if output is not None:
        facts = {
            "python": machine.python_version(),
            "machine": machine.platform(),
            "cpus": psutil.cpu_count(),
            "lark-oapi": version("lark-oapi"),
            "events": events,
        }
        text = json.dumps({"facts": facts, "results": results}, indent=2)
        await asyncio.to_thread(output.write_text, text)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--events", type=int, default=10_000)
    parser.add_argument("--output", type=Path, help="where the figures go, as JSON")
    options = parser.parse_args()
    asyncio.run(main(options.rounds, options.events, options.output))
