"""Draws dashboard.json as SVG, from what a Prometheus answers to its expressions: for docs/monitoring.md, which has no Grafana.

python deploy/grafana/draw.py http://127.0.0.1:9090 --minutes 10 > docs/dashboard.svg
"""

from __future__ import annotations

import argparse
import json
import math
import re
import sys
import time
from html import escape
from pathlib import Path
from typing import Any, Final

import httpx2

COLUMN, LINE, GAP = 50, 26, 6
"""Pixels of one of the 24 columns, of a unit of height, and between panels."""
POINTS: Final = 120
COLOURS: Final = ("#3274d9", "#56a64b", "#e0b400", "#e02f44", "#8f3bb8", "#ff780a", "#37a8b5", "#705da0")
STATES: Final = {"green": "#3f9a55", "yellow": "#c99700", "red": "#c4314b", "blue": "#3274d9"}

Series = tuple[str, list[tuple[float, float]]]


def main() -> None:
    """Print the picture."""
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("prometheus", help="the URL of a Prometheus that scrapes a daemon")
    arguments.add_argument("--minutes", type=float, default=10, help="how far back the picture goes")
    given = arguments.parse_args()
    dashboard = json.loads(Path(__file__).with_name("dashboard.json").read_text())
    with httpx2.Client(base_url=given.prometheus, trust_env=False) as client:
        sys.stdout.write(picture(dashboard["panels"], Questions(client, given.minutes * 60)))


class Questions:
    """What is asked of Prometheus, for the same span of time."""

    def __init__(self, client: httpx2.Client, span_s: float) -> None:
        self._client = client
        self.end = time.time()
        self.start = self.end - span_s
        self._step_s = max(1.0, span_s / POINTS)

    def ask(self, target: dict[str, Any]) -> list[Series]:
        """The series of an expression, with their legends."""
        window = f"{max(15, math.ceil(4 * self._step_s))}s"
        expression = target["expr"].replace("$job", ".*").replace("$instance", ".*")
        query = {
            "query": expression.replace("$__rate_interval", window),
            "start": self.start,
            "end": self.end,
        }
        answer = self._client.get("/api/v1/query_range", params={**query, "step": self._step_s})
        return [
            (
                _legend(target["legendFormat"], one["metric"]),
                [(at, float(value)) for at, value in one["values"]],
            )
            for one in answer.raise_for_status().json()["data"]["result"]
        ]


def picture(panels: list[dict[str, Any]], questions: Questions) -> str:
    """All panels in their places."""
    bottom = max(panel["gridPos"]["y"] + panel["gridPos"]["h"] for panel in panels)
    size = f'width="{24 * COLUMN}" height="{bottom * LINE}"'
    drawn = "".join(_panel(panel, questions) for panel in panels)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" {size} viewBox="0 0 {24 * COLUMN} {bottom * LINE}"'
        f' font-family="sans-serif" font-size="11" fill="#24292e"><rect width="100%" height="100%" fill="#f4f5f5"/>{drawn}</svg>\n'
    )


def _panel(panel: dict[str, Any], questions: Questions) -> str:
    place = panel["gridPos"]
    width, height = place["w"] * COLUMN - GAP, place["h"] * LINE - GAP
    if panel["type"] == "row":
        inner = f'<text x="2" y="16" font-size="14" font-weight="bold">{escape(panel["title"])}</text>'
    else:
        found = [series for target in panel["targets"] for series in questions.ask(target)]
        draw = _stat if panel["type"] == "stat" else _graph
        inner = draw(panel, found, (width, height), questions)
    return (
        f'<g transform="translate({place["x"] * COLUMN + GAP / 2} {place["y"] * LINE + GAP / 2})">{inner}</g>'
    )


def _stat(panel: dict[str, Any], found: list[Series], size: tuple[float, float], _: Questions) -> str:
    width, height = size
    defaults = panel["fieldConfig"]["defaults"]
    value = found[0][1][-1][1] if found else None
    if panel["options"]["textMode"] == "name":
        text = ", ".join(legend for legend, _ in found)
    else:
        text = _told(value, defaults)
    steps = [
        step
        for step in defaults["thresholds"]["steps"]
        if step["value"] is None or (value or 0) >= step["value"]
    ]
    return (
        f'<rect width="{width}" height="{height}" rx="3" fill="{STATES[steps[-1]["color"]]}"/>'
        f'<text x="8" y="17" fill="#fff">{escape(panel["title"])}</text>'
        f'<text x="{width / 2}" y="{height / 2 + 18}" font-size="{26 if len(text) < 12 else 18}" text-anchor="middle" fill="#fff">{escape(text)}</text>'
    )


def _graph(panel: dict[str, Any], found: list[Series], size: tuple[float, float], span: Questions) -> str:
    (width, height), defaults = size, panel["fieldConfig"]["defaults"]
    left, right, top, bottom = 52, width - 10, 28, height - 40
    found = [(legend, points) for legend, points in found if any(math.isfinite(value) for _, value in points)]
    highest = (
        max((value for _, points in found for _, value in points if math.isfinite(value)), default=1) or 1
    )
    shown = highest * 1.1 if "max" not in defaults else defaults["max"] * 1.1
    scaled = "log" in json.dumps(defaults["custom"].get("scaleDistribution", ""))

    def place(at: float, value: float) -> str:
        part = math.log10(1 + max(0.0, value)) / math.log10(1 + shown) if scaled else value / shown
        across = left + (at - span.start) / (span.end - span.start) * (right - left)
        return f"{across:.1f},{bottom - part * (bottom - top):.1f}"

    out = [
        f'<rect width="{width}" height="{height}" rx="3" fill="#fff" stroke="#dcdee0"/>',
        f'<text x="8" y="17" font-weight="bold">{escape(panel["title"])}</text>',
    ]
    for value in (0.0, highest):
        level = place(span.start, value).split(",")[1]
        out.append(
            f'<line x1="{left}" x2="{right}" y1="{level}" y2="{level}" stroke="#e4e7e7"/>'
            f'<text x="{left - 5}" y="{float(level) + 4}" text-anchor="end">{escape(_told(value, defaults))}</text>'
        )
    for at in (span.start, (span.start + span.end) / 2, span.end):
        across = place(at, 0).split(",")[0]
        anchor = {span.start: "start", span.end: "end"}.get(at, "middle")
        out.append(
            f'<text x="{across}" y="{bottom + 14}" text-anchor="{anchor}">{time.strftime("%H:%M", time.gmtime(at))}</text>'
        )
    legends, across = [], 8.0
    for number, (legend, points) in enumerate(found):
        colour = COLOURS[number % len(COLOURS)]
        out += [
            f'<polyline points="{" ".join(place(*point) for point in part)}" fill="none" stroke="{colour}" stroke-width="1.5"/>'
            for part in _pieces(points)
        ]
        if across + 7 * len(legend) + 24 < width:
            legends.append(
                f'<rect x="{across}" y="{height - 14}" width="10" height="3" fill="{colour}"/>'
                f'<text x="{across + 14}" y="{height - 9}">{escape(legend)}</text>'
            )
        across += 6.2 * len(legend) + 26
    return "".join(out + legends)


def _pieces(points: list[tuple[float, float]]) -> list[list[tuple[float, float]]]:
    """What is to be joined: a value that is none makes a gap."""
    pieces: list[list[tuple[float, float]]] = [[]]
    for at, value in points:
        if math.isfinite(value):
            pieces[-1].append((at, value))
        else:
            pieces.append([])
    return [_bends(piece) for piece in pieces if piece]


def _bends(points: list[tuple[float, float]]) -> list[tuple[float, float]]:
    """Without those in the middle of a level line, which most are."""
    middle = zip(points, points[1:], points[2:], strict=False)
    kept = [point for before, point, after in middle if not before[1] == point[1] == after[1]]
    return [*points[:1], *kept, *points[-1:]]


def _legend(form: str, labels: dict[str, str]) -> str:
    return re.sub(r"\{\{(\w+)\}\}", lambda found: labels.get(found[1], ""), form)


def _told(value: float | None, defaults: dict[str, Any]) -> str:
    if value is None:
        return str(defaults.get("noValue", ""))
    mapped = {
        key: option["text"] for one in defaults.get("mappings", []) for key, option in one["options"].items()
    }
    if f"{value:g}" in mapped:
        return str(mapped[f"{value:g}"])
    if defaults["unit"] == "percentunit":
        return f"{100 * value:.{0 if value >= 0.1 or not value else 1}f} %"
    if defaults["unit"] == "bytes":
        return f"{value / 2**20:.0f} MiB" if value < 2**30 else f"{value / 2**30:.1f} GiB"
    if defaults["unit"] == "s" and value:
        return (
            f"{value * 1000:.3g} ms"
            if value < 1
            else f"{value:.3g} s"
            if value < 60
            else f"{value / 60:.3g} min"
        )
    return f"{value:.3g}" + ("/s" if defaults["unit"] == "cps" and value else "")


if __name__ == "__main__":
    main()
