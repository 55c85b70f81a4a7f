"""The dashboard for Grafana: it can be imported, and each of its panels has something to show."""

from __future__ import annotations

import asyncio
import json
import re
import shutil
import sys
from contextlib import asynccontextmanager
from itertools import combinations
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final
from xml.etree import ElementTree as ET

import httpx2
import pytest

from reserve_listener.daemon.verdict import FILLING
from reserve_listener.meters import ANSWER_S
from reserve_listener.simulator import Simulator, patience, sample_event
from reserve_listener.simulator.estate import Estate
from tests.conftest import NO_WAITS
from tests.deploy.expressions import names, needs_promtool, promtool, shown
from tests.web.test_health import watched

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from reserve_listener.simulator import HttpServer, Receiver

ROOT: Final = Path(__file__).parents[2]
GRAFANA: Final = ROOT / "deploy" / "grafana"
DASHBOARD: Final = json.loads((GRAFANA / "dashboard.json").read_text())
PANELS: Final = [panel for panel in DASHBOARD["panels"] if panel["type"] != "row"]
EXPRESSIONS: Final = [target["expr"] for panel in PANELS for target in panel["targets"]]
WINDOW_S: Final = 5


def asked(expression: str) -> str:
    """An expression as Grafana asks it, of all daemons."""
    return (
        expression.replace("$job", ".*")
        .replace("$instance", ".*")
        .replace("$__rate_interval", f"{WINDOW_S}s")
    )


def test_every_panel_says_what_it_shows() -> None:
    """A title of its own, a sentence, a unit, and the data source that is chosen on top."""
    chosen = {"type": "prometheus", "uid": "${datasource}"}
    for panel in PANELS:
        assert panel["description"].endswith("."), panel["title"]
        assert panel["fieldConfig"]["defaults"]["unit"], panel["title"]
        assert all(part["datasource"] == chosen for part in (panel, *panel["targets"])), panel["title"]
    titles = [panel["title"] for panel in DASHBOARD["panels"]]
    assert len({*titles}) == len(titles)
    assert all(titles)


def test_it_can_be_imported_anywhere() -> None:
    """No id of another Grafana; a fixed uid, so that it can be updated; the variables that its expressions have."""
    assert (DASHBOARD["id"], DASHBOARD["uid"]) == (None, "reserve-listener")
    variables = {variable["name"] for variable in DASHBOARD["templating"]["list"]}
    used = set(re.findall(r"\$\{?(\w+)", json.dumps(DASHBOARD)))
    assert used - {"__rate_interval", "__all"} == variables == {"datasource", "job", "instance"}
    assert all('job=~"$job", instance=~"$instance"' in expression for expression in EXPRESSIONS)


def test_no_panel_lies_on_another() -> None:
    """All within Grafana's 24 columns; each has a number of its own."""
    places = [panel["gridPos"] for panel in DASHBOARD["panels"]]
    assert all(place["x"] + place["w"] <= 24 for place in places)
    for one, other in combinations(places, 2):
        beside = one["x"] + one["w"] <= other["x"] or other["x"] + other["w"] <= one["x"]
        assert beside or one["y"] + one["h"] <= other["y"] or other["y"] + other["h"] <= one["y"]
    numbers = [panel["id"] for panel in DASHBOARD["panels"]]
    assert len({*numbers}) == len(numbers)


def test_limits_are_those_of_the_alerts() -> None:
    """What is red here is an alert there."""
    red = {panel["title"]: panel["fieldConfig"]["defaults"]["thresholds"]["steps"][-1] for panel in PANELS}
    assert red["Store filled"] == {"color": "red", "value": FILLING}
    assert red["Longest wait for a sink"] == red["From stored to delivered"] == {"color": "red", "value": 900}
    assert red["Time to the answer"] == {"color": "red", "value": ANSWER_S[-1]}


@needs_promtool
def test_every_expression_can_be_read(tmp_path: Path) -> None:
    """By Prometheus' own parser, annotations included."""
    marks = [mark["expr"] for mark in DASHBOARD["annotations"]["list"]]
    rules = [{"record": f"shown:{n}", "expr": asked(each)} for n, each in enumerate(EXPRESSIONS + marks)]
    path = tmp_path / "rules.yml"  # JSON is YAML
    path.write_text(json.dumps({"groups": [{"name": "shown", "rules": rules}]}))
    code, said = promtool("check", "rules", str(path))
    assert code == 0, said


async def test_every_metric_is_one_that_the_daemon_has(
    tmp_path: Path, platform: Simulator, server: HttpServer
) -> None:
    """And every one that it has of its own is shown."""
    async with watched(tmp_path, platform, server) as (_, client):
        exposition = (await client.get("/metrics")).text
    known = shown(exposition)
    assert names(json.dumps(DASHBOARD)) <= known
    roots = {re.sub(r"_(bucket|count|sum)$", "", name) for name in known if name.startswith("reserve_")}
    shown_here = {re.sub(r"_(bucket|count|sum)$", "", name) for name in names(" ".join(EXPRESSIONS))}
    assert roots <= shown_here


@pytest.mark.skipif(shutil.which("prometheus") is None, reason="it is in Debian's package prometheus")
async def test_every_panel_has_something_to_show(
    tmp_path: Path, server: HttpServer, receiver: Receiver
) -> None:
    """A real Prometheus scrapes a real daemon with a sink that is down: each expression finds series in it."""
    receiver.answer = 503
    small = Simulator(estate=Estate(rooms=2, depth=1), client_config=dict(NO_WAITS))
    retry = "retry = { base = 0.05, cap = 0.2 }"
    async with (
        small as platform,
        watched(tmp_path, platform, server, sink=retry) as (_, client),
        scraping(tmp_path, client.base_url.netloc.decode()) as prometheus,
    ):
        await platform.push(sample_event(event_id="one")).answered()
        empty = EXPRESSIONS
        async with asyncio.timeout(patience(60)):
            while empty := [each for each in empty if not await found(prometheus, each)]:
                await asyncio.sleep(0.2)
        drawn = await asyncio.create_subprocess_exec(
            sys.executable, str(GRAFANA / "draw.py"), str(prometheus.base_url), "--minutes", "1", stdout=-1
        )
        picture, _ = await drawn.communicate()
    assert titles_in(picture) == titles_in((ROOT / "docs" / "dashboard.svg").read_bytes())


def titles_in(picture: bytes) -> list[str]:
    """The titles of the panels that are in a picture of them, in order."""
    texts = [element.text for element in ET.fromstring(picture).iter() if element.text]
    return [panel["title"] for panel in DASHBOARD["panels"] if panel["title"] in texts]


def test_the_picture_in_the_documentation_has_every_panel() -> None:
    """A dashboard that has changed is to be drawn anew, as docs/monitoring.md says."""
    titles = [panel["title"] for panel in DASHBOARD["panels"]]
    assert titles_in((ROOT / "docs" / "dashboard.svg").read_bytes()) == titles


async def found(prometheus: httpx2.AsyncClient, expression: str) -> list[Any]:
    """The series that answer an expression."""
    answer = await prometheus.get("/api/v1/query", params={"query": asked(expression)})
    assert answer.status_code == 200, answer.text
    series: list[Any] = answer.json()["data"]["result"]
    return series


@asynccontextmanager
async def scraping(folder: Path, target: str) -> AsyncIterator[httpx2.AsyncClient]:
    """A Prometheus that scrapes this host and port each second, and a client that asks it."""
    scrape = {"job_name": "rooms", "static_configs": [{"targets": [target]}]}
    settings = {"global": {"scrape_interval": "1s"}, "scrape_configs": [scrape]}
    (folder / "prometheus.yml").write_text(json.dumps(settings))
    process = await asyncio.create_subprocess_exec(
        "prometheus", f"--config.file={folder}/prometheus.yml", f"--storage.tsdb.path={folder}/tsdb",
        "--web.listen-address=127.0.0.1:0", stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    try:
        url = f"http://127.0.0.1:{await listening(process)}"
        draining = asyncio.create_task(drain(process))
        async with httpx2.AsyncClient(base_url=url, trust_env=False, timeout=patience(20)) as client:
            yield client
        draining.cancel()
    finally:
        process.kill()
        await process.wait()


async def listening(process: asyncio.subprocess.Process) -> int:
    """The port that it says it has got."""
    assert process.stderr is not None
    async with asyncio.timeout(patience(30)):
        async for line in process.stderr:
            if port := re.search(rb'"Listening on".*127\.0\.0\.1:(\d+)', line):
                return int(port[1])
    raise AssertionError("it ended before it listened")


async def drain(process: asyncio.subprocess.Process) -> None:
    """Nobody reads what else it says; a pipe that is full would stop it."""
    assert process.stderr is not None
    while await process.stderr.read(65536):
        pass
