"""How soon the page is there, with 100,000 stored changes: each view over loopback, and the first paint in a browser.

Run it with `python benchmarks/page.py`; `--quick` is the short form that CI runs to see that it works. Without Debian's
`chromium` there is no first paint.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import sqlite3
import statistics
import sys
import tempfile
import time
from contextlib import asynccontextmanager, closing
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import httpx2
import msgspec

from reserve_listener.intake import normalize
from reserve_listener.intake.complete import completing
from reserve_listener.intake.directory import Directory
from reserve_listener.model import KnownPlace
from reserve_listener.simulator import Estate, Simulator, realistic_events
from reserve_listener.store import open_store

sys.path.insert(0, str(Path(__file__).parent.parent))
from tests.web.page import chromium

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from reserve_listener.model import IncomingEvent
    from tests.web.page.chromium import Page

CHANGES: Final = 100_000
ROOMS: Final = 600
DAYS: Final = 60
"""Over which they are spread, so that the last day has some 1,700."""
BATCH: Final = 500
TIMES: Final = 40
CONNECTED_S: Final = 60.0

CONFIG: Final = """
[lark]
app_id = "{app_id}"
app_secret = "{secret}"
domain = "{domain}"
[store]
url = "sqlite:///{folder}/events.db"
retention_days = 400
[rooms]
names = false
reconcile = false
[status]
listen = "127.0.0.1:{port}"
[[sinks]]
name = "audit"
type = "file"
path = "{folder}/events.jsonl"
"""

DELIVERED: Final = """
UPDATE deliveries SET state = 1, attempts = 1,
  settled_ms = 40 + seq % 90 + (SELECT received_ms FROM events WHERE events.seq = deliveries.seq)
"""


async def build(folder: Path, count: int) -> tuple[str, str]:
    """A store with so many changes, all delivered; the ids of a room and of a level in it."""
    directory = Directory()
    store = await open_store(
        f"sqlite:///{folder}/events.db", ["audit"], complete=completing("en", directory), directory=directory
    )
    estate = Estate(rooms=ROOMS)
    await store.keep_places([_known(place) for place in estate.places])
    changes = realistic_events(random.Random(1), estate=estate, rooms=ROOMS, levels=len(estate.levels))
    end_ms = round(time.time() * 1000)
    step_ms = DAYS * 86_400_000 / count
    for begin in range(0, count, BATCH):
        batch: list[IncomingEvent] = []
        for number in range(begin, min(begin + BATCH, count)):
            at_ms = round(end_ms - (count - number) * step_ms)
            envelope = next(changes)
            envelope["header"]["create_time"] = str(at_ms)
            batch.append(normalize.incoming(msgspec.json.encode(envelope), envelope, received_ms=at_ms))
        await store.project(batch)
    await store.close()
    with closing(sqlite3.connect(folder / "events.db", isolation_level=None)) as connection:
        connection.execute(DELIVERED)
    return estate.rooms[0].id, estate.levels[0].id


def _known(place: Any) -> KnownPlace:
    parent = place.parent
    return KnownPlace(
        scope_type="room" if place.id.startswith("omm_") else "level",
        scope_id=place.id,
        name=place.name,
        parent=None if parent is None else parent.id,
        top=parent is None,
        seen_ms=1,
        gone_ms=None,
    )


@asynccontextmanager
async def daemon(folder: Path) -> AsyncIterator[str]:
    """A daemon over that store; the address of its page."""
    async with Simulator() as platform:
        text = CONFIG.format(
            app_id=platform.app_id, secret=platform.app_secret, domain=platform.domain, folder=folder, port=0
        )
        (folder / "config.toml").write_text(text)
        command = [
            sys.executable,
            "-m",
            "reserve_listener",
            "run",
            "--log-format",
            "json",
            "-c",
            f"{folder}/config.toml",
        ]
        process = await asyncio.create_subprocess_exec(*command, stdout=asyncio.subprocess.PIPE)
        assert process.stdout is not None
        drain = None
        try:
            async for line in process.stdout:
                said = json.loads(line)
                if said["event"] == "status.listening":
                    break
            drain = asyncio.create_task(process.stdout.read())
            await platform.connected(CONNECTED_S)
            yield f"http://127.0.0.1:{said['port']}"
        finally:
            process.terminate()
            await process.wait()
            if drain is not None:
                await drain


async def answers(url: str, paths: dict[str, str], times: int) -> None:
    """Milliseconds to each view over loopback, and its bytes."""
    async with httpx2.AsyncClient(base_url=url, trust_env=False, timeout=60) as client:
        for name, path in paths.items():
            seconds = []
            for _ in range(times):
                began = time.perf_counter()
                answer = await client.get(path)
                seconds.append(time.perf_counter() - began)
                if answer.status_code != 200:
                    raise RuntimeError(f"{path}: {answer.status_code}")
            _say(view=name, first_ms=_ms(seconds[0]), p50_ms=_ms(statistics.median(seconds)), max_ms=_ms(max(seconds)),
                 bytes=len(answer.content))  # fmt: skip


async def paints(url: str, times: int) -> None:
    """Milliseconds from the navigation to the first paint, in a browser that runs and has nothing of the page yet.

    In turns with a page of one word, which shows what the machine itself takes at that moment.
    """
    if chromium.PROGRAM is None:
        return
    found: dict[str, list[tuple[float, int]]] = {"/livez": [], "/": []}
    with (
        tempfile.TemporaryDirectory(prefix="reserve-listener-bench-") as name,
        chromium.started(Path(name)) as devtools,
    ):
        for _ in range(times):
            for path, painted in found.items():
                painted.append(await _paint(devtools, url, path))
    for path, painted in found.items():
        milliseconds = [each for each, _ in painted]
        _say(path=path, first_paint_ms=round(statistics.median(milliseconds)), lowest=round(min(milliseconds)),
             highest=round(max(milliseconds)), bytes=painted[0][1])  # fmt: skip


async def _paint(devtools: str, url: str, path: str) -> tuple[float, int]:
    async with chromium.page_in(devtools) as page:
        await page.open(f"{url}/healthz")  # the browser's own process for this site
        await page.open(url + path)
        paint = await _painted(page)
        loaded = await page.run(
            "performance.getEntries().filter((one) => one.initiatorType !== 'fetch')"
            ".reduce((sum, one) => sum + (one.encodedBodySize || 0), 0)"
        )
        return paint, int(loaded)


async def _painted(page: Page) -> float:
    entry = "performance.getEntriesByName('first-contentful-paint')[0]"
    await page.until(entry)
    return float(await page.run(f"{entry}.startTime"))


def _ms(seconds: float) -> float:
    return round(seconds * 1000, 1)


def _say(**figures: Any) -> None:
    print(json.dumps(figures), flush=True)


async def main() -> None:
    """Build, start, ask."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="few of everything, to see that it works")
    quick = parser.parse_args().quick
    count, times = (2_000, 3) if quick else (CHANGES, TIMES)
    with tempfile.TemporaryDirectory(prefix="reserve-listener-bench-") as name:
        folder = Path(name)
        began = time.perf_counter()
        room, level = await build(folder, count)
        _say(changes=count, built_s=round(time.perf_counter() - began, 1))
        with closing(sqlite3.connect(folder / "events.db")) as connection:
            (event,) = connection.execute("SELECT event_id FROM events ORDER BY seq LIMIT 1").fetchone()
        paths = {
            "feed": "/", "a room": f"/scopes/{room}", "a level": f"/scopes/{level}", "rooms": "/scopes", "deliveries": "/deliveries",
            "kind": "/?kind=reserve_scope_config", "type": "/?type=level", "within a level": f"/?level={level}",
            "search by name": "/?q=aurora", "search by event": f"/?q={event[:12]}", "found nothing": "/?q=no-such-thing",
            "old days": "/?until=2020-01-01", "last page": "/?before=30",
        }  # fmt: skip
        async with daemon(folder) as url:
            await answers(url, paths, times)
            await paints(url, times)


if __name__ == "__main__":
    asyncio.run(main())
