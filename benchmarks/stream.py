"""What listeners of `/api/v1/stream` cost the platform: the time to an answer, in a burst, without and with them.

1,000 listeners that read what they get, and 300 that do not read, from a process of their own, while events burst. Run it
with `python benchmarks/stream.py`; `--quick` is the short form that CI runs to see that it works.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import multiprocessing
import socket
import statistics
import sys
import tempfile
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from reserve_listener.net import descriptors
from reserve_listener.simulator import Simulator, realistic_events

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from multiprocessing.synchronize import Event

IN_FLIGHT: Final = 64
REQUEST: Final = b"GET /api/v1/stream HTTP/1.1\r\nhost: localhost\r\n\r\n"
CONNECTED_S: Final = 60.0
ROUNDS: Final = 3

CONFIG: Final = """
[lark]
app_id = "{app_id}"
app_secret = "{secret}"
domain = "{domain}"
[store]
url = "sqlite:///{folder}/events.db"
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


@dataclass(frozen=True)
class Load:
    """How much of each."""

    events: int
    reading: int
    slow: int


class _Listener(asyncio.Protocol):
    """Asks for the stream; a slow one stops reading at once."""

    def __init__(self, *, slow: bool) -> None:
        self._slow = slow

    def connection_made(self, transport: Any) -> None:
        transport.write(REQUEST)
        if self._slow:
            transport.pause_reading()


def listen(port: int, load: Load, ready: Event) -> None:
    """In a process of its own: listeners, until it is ended."""

    async def run() -> None:
        descriptors.raise_limit()
        loop = asyncio.get_running_loop()
        for number in range(load.reading + load.slow):
            slow = number < load.slow
            await loop.create_connection(lambda slow=slow: _Listener(slow=slow), "127.0.0.1", port)
        ready.set()
        await asyncio.Event().wait()

    with suppress(KeyboardInterrupt):
        asyncio.run(run())


@asynccontextmanager
async def listeners(port: int, load: Load) -> AsyncIterator[None]:
    """So many listeners."""
    context = multiprocessing.get_context("spawn")
    ready = context.Event()
    process = context.Process(target=listen, args=(port, load, ready), daemon=True)
    process.start()
    try:
        if not await asyncio.to_thread(ready.wait, CONNECTED_S):
            raise TimeoutError("the listeners did not connect")
        await asyncio.sleep(1)  # their first bytes are on the way
        yield
    finally:
        process.kill()
        await asyncio.to_thread(process.join)


async def burst(load: Load, *, with_listeners: bool) -> list[float]:
    """Seconds to each answer."""
    with tempfile.TemporaryDirectory(prefix="reserve-listener-bench-") as folder:
        async with Simulator() as platform:
            port = _free_port()
            _write(Path(folder), platform, port)
            command = [sys.executable, "-m", "reserve_listener", "run", "-c", f"{folder}/config.toml"]
            daemon = await asyncio.create_subprocess_exec(*command, stdout=asyncio.subprocess.DEVNULL)
            try:
                await platform.connected(CONNECTED_S)
                if with_listeners:
                    async with listeners(port, load):
                        return await _answers(platform, load.events)
                await asyncio.sleep(1)
                return await _answers(platform, load.events)
            finally:
                daemon.terminate()
                await daemon.wait()


async def _answers(platform: Simulator, count: int) -> list[float]:
    changes = realistic_events(rooms=100, levels=10)
    pushes = await platform.push_many((next(changes) for _ in range(count)), in_flight=IN_FLIGHT)
    wrong = [push for push in pushes if push.attempts[-1].code != 200]
    if wrong:
        raise RuntimeError(f"{len(wrong)} of {count} pushes were not answered 200")
    return [push.attempts[-1].elapsed for push in pushes]


def _write(folder: Path, platform: Simulator, port: int) -> None:
    text = CONFIG.format(
        app_id=platform.app_id, secret=platform.app_secret, domain=platform.domain, folder=folder, port=port
    )
    (folder / "config.toml").write_text(text)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def figures(seconds: list[float]) -> dict[str, float]:
    """In milliseconds."""
    cuts = statistics.quantiles(seconds, n=100)
    return {
        "p50": round(cuts[49] * 1000, 1),
        "p99": round(cuts[98] * 1000, 1),
        "max": round(max(seconds) * 1000, 1),
    }


async def main() -> None:
    """Both, in turns, since a machine is not the same for long."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="few of everything, to see that it works")
    quick = parser.parse_args().quick
    load = Load(events=300, reading=40, slow=10) if quick else Load(events=10_000, reading=1_000, slow=300)
    descriptors.raise_limit()
    for number in range(1 if quick else ROUNDS):
        for with_listeners in (False, True):
            found = figures(await burst(load, with_listeners=with_listeners))
            print(
                json.dumps({"round": number + 1, "listeners": with_listeners, "answer_ms": found}), flush=True
            )


if __name__ == "__main__":
    asyncio.run(main())
