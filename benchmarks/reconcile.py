"""A comparison of all limits: how long it takes, what memory it takes, and what it costs the answers meanwhile.

Run it with `python benchmarks/reconcile.py`; `--quick` is the short form that CI runs to see that it works. The platform's
bound of calls per minute is scaled, by `--faster`, for daemon and simulator alike: what takes two hours takes a minute, and the
daemon has that many times the usual work to do beside its answers.
"""

from __future__ import annotations

import argparse
import asyncio
import statistics
import time
from typing import TYPE_CHECKING, Final

from clients import FILES, OURS, pin, started
from rows import push

from reserve_listener.simulator import Estate, Simulator, patience

if TYPE_CHECKING:
    from pathlib import Path

    import psutil

FASTER: Final = 100
PER_MINUTE: Final = 80
SCOPES: Final = 10_000
EVENTS: Final = 200
"""In each portion of pushes, a few in flight, as on a busy day."""
IN_FLIGHT: Final = 4
LONGEST: Final = 10
"""Times as long as its pace alone would take, and a minute: then something is wrong. A busy machine is slower than the pace."""
STRANGERS: Final = [f"omm_{number}" for number in range(EVENTS)]
"""Rooms that the platform does not tell of: a comparison finds no differences that the pushes have made."""

HURRIED: Final = (
    # The client first: the calls that it can spare are counted in the platform's own minute.
    "from reserve_listener.lark.api import client, pace; pace.MINUTE_S /= {faster};"
    " from reserve_listener.cli.main import main; main()"
)
ROOMS: Final = """
[rooms]
names = false
reconcile = {reconcile}
"""


async def measure(scopes: int, faster: int, cores: set[int], *, reconcile: bool) -> dict[str, float]:
    """One daemon, pushed to until its first comparison has ended, or for as long as that would take."""
    estate = Estate(rooms=scopes, depth=3)
    code = ["-c", HURRIED.format(faster=faster)]
    sinks = FILES + ROOMS.format(reconcile=str(reconcile).lower())
    usual_s = 60 * len(estate.places) / PER_MINUTE
    async with (
        Simulator(estate=estate, time_scale=1 / faster, answer_timeout=120 * faster) as platform,
        started(OURS, platform, cores, sinks=sinks, python=code) as running,
    ):
        begun = time.perf_counter()
        answers: list[float] = []
        most = mib(running.process)
        while time.perf_counter() - begun < LONGEST * usual_s / faster + patience(60):
            answers += (await push(platform, EVENTS, IN_FLIGHT, STRANGERS))[1]
            most = max(most, mib(running.process))
            if (reconcile and has_ended(running.folder)) or (
                not reconcile and time.perf_counter() - begun > usual_s / faster
            ):
                break
        took_s = time.perf_counter() - begun
        if reconcile and not has_ended(running.folder):
            raise TimeoutError(f"not compared within {took_s:.0f} s")
    ranks = statistics.quantiles(answers, n=100)
    return {
        "scopes": float(len(estate.places)),
        "seconds": took_s,
        "minutes_unscaled": took_s * faster / 60,
        "answer_p50_ms": ranks[49] * 1000,
        "answer_p99_ms": ranks[98] * 1000,
        "most_mib": most,
    }


def has_ended(folder: Path) -> bool:
    """Whether the log says so."""
    return b"reconcile.done" in (folder / "out").read_bytes()


def mib(process: psutil.Process) -> float:
    """What the daemon takes."""
    return float(process.memory_info().rss) / 2**20


async def main(scopes: int, faster: int) -> None:
    """Print the table."""
    _, cores = pin()
    rows = {
        name: await measure(scopes, faster, cores, reconcile=on)
        for name, on in (("without", False), ("with", True))
    }
    print(f"{'':>18} {'without':>10} {'with':>10}")
    for key in rows["with"]:
        print(f"{key:>18} {rows['without'][key]:>10.1f} {rows['with'][key]:>10.1f}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--scopes", type=int, default=SCOPES)
    parser.add_argument("--faster", type=int, default=FASTER)
    chosen = parser.parse_args()
    asyncio.run(main(300 if chosen.quick else chosen.scopes, chosen.faster))
