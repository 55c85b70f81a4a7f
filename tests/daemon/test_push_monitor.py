"""The heartbeat that goes out to a push monitor."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager, suppress
from typing import TYPE_CHECKING
from urllib.parse import parse_qsl

import pytest
from starlette.requests import Request
from starlette.responses import Response
from structlog.testing import capture_logs

from reserve_listener.daemon.push_monitor import PushMonitor, beating, message
from reserve_listener.errors import ConfigError
from reserve_listener.simulator import HttpServer, Simulator, sample_event
from reserve_listener.web.answers import Reason, Status, StoreStatus
from tests.daemon_process import ask, running, until as until_there, write_config
from tests.helpers import until

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from starlette.types import Receive, Scope, Send

TOKEN = "pushtoken5up3rsecret"


class Monitor:
    """A push monitor: keeps what it is asked, and answers `status`; None: never."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, str, dict[str, str]]] = []
        self.cookies: list[str] = []
        self.status: int | None = 200

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Keep the request, then answer it."""
        request = Request(scope, receive)
        self.asked.append((request.method, request.url.path, dict(parse_qsl(request.url.query))))
        self.cookies.append(request.headers.get("cookie", ""))
        if self.status is None:
            await asyncio.Event().wait()
        headers = {"set-cookie": "session=1", "location": "/elsewhere"}
        await Response(b"{}", status_code=self.status or 200, headers=headers)(scope, receive, send)


@pytest.fixture
def monitor() -> Monitor:
    """What is asked."""
    return Monitor()


@pytest.fixture
async def url(monitor: Monitor) -> AsyncIterator[str]:
    """Where it is asked."""
    async with HttpServer(monitor) as server:
        yield f"{server.url}/api/push/{TOKEN}"


def told(status: str = "ok", *parts: str) -> Status:
    """What the daemon says of itself."""
    reasons = [Reason(part=part, since=None, reason=f"secret of {part}", hint=None) for part in parts]
    return Status(status=status, reasons=reasons, version="1", store=StoreStatus(path="x"))


class Beating:
    """A monitor's client whose hours pass when the test says so."""

    def __init__(self, url: str, *, timeout_s: float = 10.0) -> None:
        self.status = told()
        self.waits: list[float] = []
        self._next = asyncio.Semaphore(0)
        self.client = PushMonitor(
            url, every_s=60, look=self._look, redact=lambda text: text, sleep=self._sleep, timeout_s=timeout_s
        )

    async def _look(self) -> Status:
        return self.status

    async def _sleep(self, seconds: float) -> None:
        self.waits.append(seconds)
        await self._next.acquire()

    async def beat(self) -> None:
        """Let one more come to its end."""
        count = len(self.waits)
        self._next.release()
        await until(lambda: len(self.waits) > count)


@asynccontextmanager
async def at_work(beating: Beating) -> AsyncIterator[Beating]:
    """The client, after its first heartbeat."""
    task = asyncio.create_task(beating.client.run())
    try:
        await until(lambda: beating.waits or task.done())
        yield beating
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task


async def test_it_asks_while_nothing_is_failing(monitor: Monitor, url: str) -> None:
    """Ok and degraded are up, with what is degraded; while the daemon is failing nobody asks, and then somebody does again."""
    async with at_work(Beating(url)) as beating:
        beating.status = told("degraded", "sink booking", "dead_letters", "dead_letters")
        await beating.beat()
        beating.status = told("failing", "connection")
        await beating.beat()
        beating.status = told()
        await beating.beat()
    paths = {(method, path) for method, path, _ in monitor.asked}
    assert paths == {("GET", f"/api/push/{TOKEN}")}
    assert [query["status"] for *_, query in monitor.asked] == ["up"] * 3
    assert [query["msg"] for *_, query in monitor.asked] == [
        "ok",
        "degraded: sink booking, dead_letters",
        "ok",
    ]
    assert all(int(query["ping"]) >= 1 for *_, query in monitor.asked)
    assert {*monitor.cookies} == {""}
    assert all(59 < wait <= 60 for wait in beating.waits)


@pytest.mark.parametrize("how", ["404", "302", "hangs", "gone"])
async def test_a_monitor_that_fails_is_a_line_an_hour(monitor: Monitor, how: str) -> None:
    """Without the URL, and with a line once it works again; the heartbeats go on meanwhile."""
    async with HttpServer(monitor) as server:
        url = f"{server.url}/api/push/{TOKEN}?secret=q1w2e3"
        monitor.status = {"404": 404, "302": 302, "hangs": None}.get(how, 200)
        target = url if how != "gone" else url.replace(str(server.port), "1")
        with capture_logs() as lines:
            async with at_work(Beating(target, timeout_s=0.05 if how == "hangs" else 10)) as beating:
                for _ in range(3):
                    await beating.beat()
                if how != "gone":
                    monitor.status = 200
                    await beating.beat()
                    await beating.beat()
    failed, *rest = lines
    assert (failed["event"], failed["log_level"]) == ("heartbeat.failed", "warning")
    assert failed["hint"]
    assert TOKEN not in str(lines)
    assert "q1w2e3" not in str(lines)
    assert [line["event"] for line in rest] == ([] if how == "gone" else ["heartbeat.sent_again"])
    assert len(monitor.asked) == (0 if how == "gone" else 6)


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("https://m.example/p", "https://m.example/p?status=up&msg=ok&ping=3"),
        ("https://m.example/p?status=down&msg=OK&ping=", "https://m.example/p?status=up&msg=ok&ping=3"),
        ("https://m.example/p?key=a%26b&x=", "https://m.example/p?key=a%26b&x=&status=up&msg=ok&ping=3"),
    ],
)
def test_what_the_url_has_already_is_replaced_or_kept(url: str, expected: str) -> None:
    """Push monitors show a URL with the three keys in it, others want keys of their own."""
    assert beating(url, msg="ok", ping_ms=3) == expected


def test_the_message_is_short_and_quotes_nobody() -> None:
    """Parts only; what an error says may be nobody else's business."""
    long = told("degraded", *(f"sink {number}" for number in range(100)))
    assert len(message(long)) == 200
    assert "secret" not in message(told("degraded", "store"))


def test_a_proxy_that_cannot_be_used_is_a_wrong_configuration(monkeypatch: pytest.MonkeyPatch) -> None:
    """Said at the start, with the variable's name."""
    monkeypatch.setenv("HTTPS_PROXY", "socks5://p:1")
    with pytest.raises(ConfigError, match="HTTPS_PROXY"):
        Beating("https://m.example/p")


async def test_the_daemon_sends_it_and_stops_while_it_is_failing(
    tmp_path: Path, platform: Simulator, server: HttpServer, monitor: Monitor, url: str
) -> None:
    """The connection drops: no heartbeat until it is back; a sink that is down is no reason. No text has the URL."""
    (tmp_path / "monitor").write_text(f"{url}\n")
    more = (
        f'retry = {{ base = 0.05, cap = 0.1 }}\n[heartbeat]\nurl_file = "{tmp_path}/monitor"\nevery = 0.1\n'
    )
    config = write_config(tmp_path, platform, server.url, more=more)
    async with running(tmp_path, config) as daemon:
        await platform.connected(20)
        await until_there(lambda: monitor.asked)
        platform.faults.endpoint_status = 500
        await platform.drop(abort=True)
        calls = platform.endpoint_calls
        await until_there(lambda: platform.endpoint_calls > calls + 1)
        before = len(monitor.asked)
        await until_there(lambda: platform.endpoint_calls > calls + 6)
        assert len(monitor.asked) <= before + 1
        platform.faults.endpoint_status = 200
        await until_there(lambda: len(monitor.asked) > before + 3)
        assert await platform.push(sample_event()).answered() == 200
        checked = await asyncio.to_thread(ask, config, "check")
        shown = await asyncio.to_thread(ask, config, "config", "show")
        assert await daemon.stop() == 0
    assert b"heartbeat" in checked
    assert b"[heartbeat]" in shown
    for text in (checked, shown, (tmp_path / "log.jsonl").read_bytes(), daemon.stderr().encode()):
        assert TOKEN.encode() not in text


async def test_a_monitor_that_hangs_keeps_nothing_waiting(
    tmp_path: Path, platform: Simulator, server: HttpServer, monitor: Monitor, url: str
) -> None:
    """Events are answered and delivered, and the stop is as quick as ever."""
    monitor.status = None
    (tmp_path / "monitor").write_text(url)
    more = f'[heartbeat]\nurl_file = "{tmp_path}/monitor"\nevery = 0.1\n'
    async with running(tmp_path, write_config(tmp_path, platform, server.url, more=more)) as daemon:
        await until_there(lambda: monitor.asked)
        await platform.connected(20)
        assert await platform.push(sample_event()).answered() == 200
        await until_there(lambda: daemon.pending() == 0)
        assert await daemon.stop() == 0
