"""The daemon, durable, with a log and a file sink, against the platform's own samples, which keep nothing.

Every client runs on two cores in a process of its own against the same local gateway, in turn, for several rounds.
Figures are medians with their spread; what counts is the ratio within a round. `blind` answers whatever comes and looks
at nothing: what it reaches is the gateway's own ceiling.

`make bench` runs all of it (minutes); `make bench ARGS=--quick` shows that it works.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import platform as machine
import sqlite3
import statistics
import subprocess
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import plot
import rows
from clients import BLIND, NODE, OURS, PEERS, PYTHON, node_modules, pin

if TYPE_CHECKING:
    from collections.abc import Callable

Rounds = dict[str, list[rows.Figures]]

QUICK_EVENTS: Final = 1_000
"""Up to so many events a run only shows that it works: the slow rows are cut short, too."""

LABELS: Final = {
    "ready_s": "process start to connected, s",
    "idle_mib": "memory, idle and connected, MiB",
    "per_s_1": "events/s, 1 in flight",
    "p50_ms_1": "answer p50, 1 in flight, ms",
    "per_s_64": "events/s, 64 in flight",
    "per_s_512": "events/s, 512 in flight",
    "burst_s": "burst: last answer, s",
    "burst_late": "burst: answered after 3 s (pushed again)",
    "sustained_per_s": "sustained: events/s over ten times as many, 512 in flight",
}


async def measure(rounds: int, events: int) -> dict[str, Any]:
    """All figures, by round and client, and the ones that are taken once."""
    gateway, cores = pin()
    node = node_modules()
    clients = [client for client in rows.CLIENTS if client != NODE or node is not None]
    results: Rounds = {client: [] for client in clients}
    for number in range(rounds):
        for client in clients if number % 2 == 0 else reversed(clients):
            results[client].append(await rows.start(client, cores, node))
            results[client][-1] |= await rows.answers(client, events, cores, node)
            if client in {
                OURS,
                NODE,
            }:  # the others show nothing more in it, and the Python sample takes a minute
                results[client][-1] |= await rows.sustained(client, events, cores, node)
    quick = events <= QUICK_EVENTS
    once = await rows.idle_cpu(1 if quick else 20, cores)
    once |= await rows.http_sink(200 if quick else 4_000, cores)
    once |= await rows.filled_store(10_000 if quick else 1_000_000, events, cores)
    once |= await rows.first_sight(events, cores)
    once |= await rows.memory(1_000 if quick else 1_000_000, cores)
    once |= await asyncio.to_thread(rows.help_s, 1 if quick else 15)
    facts = {
        "python": machine.python_version(),
        "sqlite": sqlite3.sqlite_version,
        "lark-oapi": version("lark-oapi"),
        "websockets": version("websockets"),
        "machine": machine.platform(),
        "cores": f"{len(cores)} for the client, {len(gateway)} for the gateway",
        "events": events,
        "rounds": rounds,
    }
    if node is not None:
        pinned = json.loads((PEERS / "node" / "package.json").read_text())["dependencies"]
        facts["node"] = (await asyncio.to_thread(_output, ["node", "--version"])).strip()
        facts["node-sdk"] = pinned["@larksuiteoapi/node-sdk"]
    return {"facts": facts, "results": results, "once": once}


def _output(command: list[str]) -> str:
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def table(found: dict[str, Any]) -> str:
    """The figures as Markdown."""
    results, facts = found["results"], found["facts"]
    clients = list(results)
    lines = [
        ", ".join(f"{name} {value}" for name, value in facts.items()) + f", load {os.getloadavg()[0]:.1f}",
        "",
        "| median (lowest to highest) | " + " | ".join(clients) + " |",
        "|---|" + "---|" * len(clients),
    ]
    for name, label in LABELS.items():
        cells = (_spread([each[name] for each in results[client] if name in each]) for client in clients)
        lines.append(f"| {label} | " + " | ".join(cells) + " |")
    lines += ["", "| ratio | median (lowest to highest) | target |", "|---|---|---|"]
    lines += [f"| {label} | {_spread(values)} | {target} |" for label, values, target in ratios(found)]
    return "\n".join(lines)


def _spread(values: list[float]) -> str:
    if not values:
        return ""
    middle = f"{_short(statistics.median(values))}"
    return middle if len(values) == 1 else f"{middle} ({_short(min(values))} to {_short(max(values))})"


def _short(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 or value == int(value) else f"{value:.3g}"


def ratios(found: dict[str, Any]) -> list[tuple[str, list[float], str]]:
    """The targets: what they compare, the value in each round, and what is wanted."""
    results, once = found["results"], found["once"]

    def by_round(value: Callable[[rows.Figures, rows.Figures], float], peer: str) -> list[float]:
        return [value(ours, its) for ours, its in zip(results[OURS], results[peer], strict=True)]

    def against(name: str, peer: str) -> list[float]:
        return by_round(lambda ours, its: ours[name] / its[name], peer)

    ours: list[rows.Figures] = results[OURS]
    p50 = by_round(lambda mine, blind: mine["p50_ms_1"] / (blind["p50_ms_1"] + mine["commit_ms"]), BLIND)
    found_rows = [
        ("events/s, 64 in flight, against the Python sample", against("per_s_64", PYTHON), "≥ 6"),
        ("events/s, 512 in flight, against the Python sample", against("per_s_512", PYTHON), ""),
    ]
    if NODE in results:
        found_rows.append(
            ("events/s, 64 in flight, against the Node sample", against("per_s_64", NODE), "≥ 0.9")
        )
        found_rows.append(
            ("events/s, 512 in flight, against the Node sample", against("per_s_512", NODE), "")
        )
        found_rows.append(("burst: last answer, against the Node sample", against("burst_s", NODE), "≤ 2"))
        found_rows.append(("sustained, against the Node sample", against("sustained_per_s", NODE), "≥ 0.6"))
    return [
        *found_rows,
        ("burst: last answer, s", [each["burst_s"] for each in ours], "< 3"),
        ("burst: pushed twice", [each["burst_late"] for each in ours], "0"),
        ("burst: last line in the file, s", [each["burst_file_s"] for each in ours], ""),
        ("burst: last line in the file / last answer", [each["burst_file_ratio"] for each in ours], "≤ 2"),
        (
            "sustained: last line in the file after the last answer, s",
            [each["sustained_file_s"] for each in ours],
            "≤ 0.5",
        ),
        ("sustained: memory after it, MiB", [each["sustained_mib"] for each in ours], ""),
        ("answer p50, 1 in flight / (blind p50 + a bare commit)", p50, "≤ 1.5"),
        ("start to connected, against the Python sample", against("ready_s", PYTHON), "≤ 0.25"),
        ("memory, idle, against the Python sample", against("idle_mib", PYTHON), "≤ 0.40"),
        ("idle CPU, % of a core", [once["idle_cpu_percent"]], "< 0.1"),
        ("http sink, 20 ms receiver / bare loop", [once["http_per_s"] / once["http_bare_per_s"]], "≥ 0.8"),
        ("cost of an event, full store / empty", [once["per_s_empty"] / once["per_s_filled"]], "≤ 1.2"),
        (
            "answer p50, 1 in flight, rooms with a history / at first sight",
            [once["p50_ms_known"] / once["p50_ms_first"]],
            "1",
        ),
        (
            "memory, after 1,000,000 events / after 100,000",
            [once["memory_mib_after"] / once["memory_mib_before"]],
            "flat",
        ),
        ("--help / an empty Typer app", [once["help_s"] / once["help_typer_s"]], "≤ 1.5"),
        ("--help, s", [once["help_s"]], "< 0.2"),
    ]


def chart(found: dict[str, Any]) -> str:
    """Answers a second, as SVG."""
    groups = {
        f"{in_flight} in flight": {
            client: [each[f"per_s_{in_flight}"] for each in rounds]
            for client, rounds in found["results"].items()
        }
        for in_flight in rows.IN_FLIGHT
    }
    return plot.bars(
        "Answered events a second; reserve-listener commits each before its answer, the others keep nothing",
        groups,
    )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--events", type=int, default=10_000)
    parser.add_argument("--quick", action="store_true", help="one round of few events: does it work?")
    parser.add_argument("--output", type=Path, help="where the figures go, as JSON")
    parser.add_argument("--plot", type=Path, help="where the chart goes, as SVG")
    options = parser.parse_args()
    if options.quick:
        options.rounds, options.events = 1, 300
    everything = asyncio.run(measure(options.rounds, options.events))
    print(table(everything))
    if options.output is not None:
        options.output.write_text(json.dumps(everything, indent=2) + "\n")
    if options.plot is not None:
        options.plot.write_text(chart(everything))
