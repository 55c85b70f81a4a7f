"""The outgoing heartbeat: the daemon requests a push monitor's URL while all is well; the monitor raises the alarm when that stops.

What must stay true: it waits for nothing and delays nothing; the URL is a secret and appears in no text; a monitor that cannot
be reached gets at most one log line an hour.
"""

from __future__ import annotations

import asyncio
import time
from http.cookiejar import CookieJar, DefaultCookiePolicy
from typing import TYPE_CHECKING, Final
from urllib.parse import parse_qsl, urlencode, urlsplit, urlunsplit

import httpx2
import structlog

from reserve_listener import __version__
from reserve_listener.config import certificates
from reserve_listener.daemon import verdict
from reserve_listener.net import proxies
from reserve_listener.net.reaching import Reaching, UnreachableError
from reserve_listener.observability.throttle import Throttle

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from reserve_listener.web.answers import Status

TIMEOUT_S: Final = 10.0
"""For all of one heartbeat. The next one comes anyway."""
MESSAGE_CHARS: Final = 200
"""Monitors show it in a line."""
COMPLAIN_EVERY_S: Final = 3600.0

log = structlog.get_logger("heartbeat")


class PushMonitor:
    """Asks `url` every `every_s` seconds, unless `look` says that the daemon is failing.

    Making one blocks for nothing and raises `ConfigError` for a proxy that cannot be used.
    """

    def __init__(
        self,
        url: str,
        *,
        every_s: float,
        look: Callable[[], Awaitable[Status]],
        redact: Callable[[str], str] = str,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
        timeout_s: float = TIMEOUT_S,
    ) -> None:
        self._url = url
        self._every_s = every_s
        self._look = look
        self._redact = redact
        self._sleep = sleep
        self._timeout_s = timeout_s
        self._proxy = proxies.decide(url, setting=None, key="heartbeat.url_file")
        self._complaints = Throttle(COMPLAIN_EVERY_S)
        self._has_failed = False

    async def run(self) -> None:
        """For ever, until cancelled."""
        async with await self._client() as client:
            while True:
                started = time.monotonic()
                status = await self._look()
                if status.status != verdict.FAILING:
                    await self._beat(client, status, took_s=time.monotonic() - started)
                await self._sleep(max(0.0, self._every_s - (time.monotonic() - started)))

    async def _client(self) -> httpx2.AsyncClient:
        """In a thread: reading the certificates takes some 20 ms."""

        def made() -> httpx2.AsyncClient:
            return httpx2.AsyncClient(
                verify=certificates.trusted() if self._url.startswith("https:") else False,
                proxy=proxies.for_httpx(self._proxy, certificates.trusted),
                trust_env=False,
                timeout=self._timeout_s,
                follow_redirects=False,
                headers={"user-agent": f"reserve-listener/{__version__}"},
                cookies=CookieJar(policy=DefaultCookiePolicy(allowed_domains=[])),  # none is kept
            )

        return await asyncio.to_thread(made)

    async def _beat(self, client: httpx2.AsyncClient, status: Status, *, took_s: float) -> None:
        reaching = Reaching(
            self._url, proxy=self._proxy, setting="heartbeat.url_file", proxy_key="HTTPS_PROXY"
        )
        target = beating(self._url, msg=message(status), ping_ms=max(1, round(took_s * 1000)))
        try:
            with reaching.explained():
                async with (
                    asyncio.timeout(self._timeout_s),
                    client.stream("GET", target, extensions={"trace": reaching.trace}) as response,
                ):
                    answered = response.status_code
        except UnreachableError as error:
            self._failed(str(error), error.hint)
            return
        if not httpx2.codes.is_success(answered):
            self._failed(
                f"HTTP {answered}", "check the URL in heartbeat.url_file; redirects are not followed"
            )
        elif self._has_failed:
            self._has_failed = False
            log.info("heartbeat.sent_again")

    def _failed(self, error: str, hint: str) -> None:
        self._has_failed = True
        self._complaints.tell(
            "failed", log.warning, "heartbeat.failed", error=self._redact(error), hint=self._redact(hint)
        )


def beating(url: str, *, msg: str, ping_ms: int) -> str:
    """The URL with what a push monitor wants to know; what it had of that is replaced, all else stays."""
    told = {"status": "up", "msg": msg, "ping": str(ping_ms)}
    parts = urlsplit(url)
    kept = [pair for pair in parse_qsl(parts.query, keep_blank_values=True) if pair[0] not in told]
    return urlunsplit(parts._replace(query=urlencode([*kept, *told.items()])))


def message(status: Status) -> str:
    """The verdict, and the parts that are concerned: no error's text, which may be nobody else's business."""
    parts = ", ".join(dict.fromkeys(reason.part for reason in status.reasons))
    return f"{status.status}: {parts}"[:MESSAGE_CHARS] if parts else status.status
