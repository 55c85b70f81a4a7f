"""One exchange with the platform's API over HTTP: it has an end and a size, and nothing of it shows a secret.

What must stay true: no text of an error holds the app's secret, a token or a proxy's login, whatever the platform or something
on the way put into its answer.
"""

from __future__ import annotations

import asyncio
from http.cookiejar import CookieJar, DefaultCookiePolicy
from typing import TYPE_CHECKING, Any, Final

import httpx2
import msgspec

from reserve_listener import __version__
from reserve_listener.config import certificates
from reserve_listener.errors import ConfigError
from reserve_listener.lark.api.codes import log_id_of
from reserve_listener.lark.api.errors import AppRefusedError, TryAgainError
from reserve_listener.net import proxies
from reserve_listener.net.reaching import Reaching, UnreachableError
from reserve_listener.redact import redact
from reserve_listener.text import visible

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from reserve_listener.config import LarkConfig

TIMEOUT_S: Final = 30.0
"""An exchange takes no longer, whatever `lark.endpoint_timeout` allows."""
ANSWER_BYTES: Final = 4 * 1024 * 1024
"""A page of 100 rooms with all they have takes some 200 KiB, 20,000 people who may book a room some 1.5 MiB."""
CONNECTIONS: Final = 8
"""More than are asked side by side."""
SHOWN_CHARS: Final = 300
SEEN_CHARS: Final = 16 * 1024
"""What is looked through for secrets of a text that is foreign: megabytes would hold the loop up."""
LONGEST_SECRET: Final = 4 * 1024
"""What the platform says a token may come to. Of a text that is cut, so much is dropped: half a secret is not masked."""
SECRETS: Final = 4
"""How many secrets are remembered to be masked: the last two app secrets and the last two tokens. An older one is dead."""


class Answer(msgspec.Struct, frozen=True, kw_only=True):
    """What came back, whatever it is."""

    status: int
    headers: Mapping[str, str]
    body: bytes
    took_s: float
    """From before the request was sent until the answer was read."""


class Exchange:
    """HTTP to `lark.domain`, through its proxy, over few connections that are kept. Made in a loop or outside of one."""

    def __init__(self, lark: LarkConfig, *, clock: Callable[[], float]) -> None:
        self._domain = lark.domain
        self._proxy = None if lark.proxy is None else lark.proxy.get_secret_value()
        self._timeout_s = min(lark.endpoint_timeout, TIMEOUT_S)
        self._clock = clock
        self._client: httpx2.AsyncClient | None = None
        self._opening = asyncio.Lock()
        self._secrets: tuple[str, ...] = ()
        self._logins = (*proxies.login_texts(self._proxy or ""), *proxies.secret_texts())

    def hide(self, secret: str) -> None:
        """Mask this from now on."""
        self._secrets = (secret, *(each for each in self._secrets if each != secret))[:SECRETS]

    def shown(self, text: str) -> str:
        """Somebody else's text as one short line without our credentials."""
        line = redact(" ".join(text[:SEEN_CHARS].split()), (*self._secrets, *self._logins))
        return visible(line if len(text) <= SEEN_CHARS else line[:-LONGEST_SECRET], SHOWN_CHARS)

    async def ask(
        self,
        method: str,
        path: str,
        *,
        token: str | None = None,
        params: Mapping[str, str] | None = None,
        content: Any = None,
    ) -> Answer:
        """The answer, of whatever kind. Raises `TryAgainError` when there is none, `AppRefusedError` when none can be had."""
        try:
            way = proxies.decide(self._domain, setting=self._proxy, key="lark.proxy")
            reaching = Reaching(self._domain, proxy=way, setting="lark.domain")
            with reaching.explained(TryAgainError):
                async with asyncio.timeout(self._timeout_s):
                    client = await self._opened(way)
                    headers = {} if token is None else {"authorization": f"Bearer {token}"}
                    request = client.build_request(
                        method,
                        self._domain + path,
                        params=params,
                        json=content,
                        headers=headers,
                        extensions={"trace": reaching.trace},
                    )
                    return await self._read(client, request)
        except ConfigError as error:
            raise AppRefusedError(str(error)) from None  # our own text, safe and without secrets
        except UnreachableError as error:
            raise TryAgainError(self.shown(str(error)), hint=error.hint) from None

    async def close(self) -> None:
        """Give the connections back. May be called twice."""
        client, self._client = self._client, None
        if client is not None:
            await client.aclose()

    async def _read(self, client: httpx2.AsyncClient, request: httpx2.Request) -> Answer:
        start_s, body = self._clock(), b""
        response = await client.send(request, stream=True)
        try:
            async for piece in response.aiter_raw():  # never unpacked: a small answer could become a huge one
                body += piece
                if len(body) > ANSWER_BYTES:
                    text = f"the answer is longer than {ANSWER_BYTES} bytes"
                    raise TryAgainError(text, log_id=log_id_of(response.headers))
        finally:
            await response.aclose()
        return Answer(
            status=response.status_code, headers=response.headers, body=body, took_s=self._clock() - start_s
        )

    async def _opened(self, way: proxies.Proxy | None) -> httpx2.AsyncClient:
        async with self._opening:
            if self._client is None:
                self._client = await asyncio.to_thread(self._make, way)
            return self._client

    def _make(self, way: proxies.Proxy | None) -> httpx2.AsyncClient:
        """Reads certificates, so it blocks."""
        return httpx2.AsyncClient(
            verify=certificates.trusted() if self._domain.startswith("https:") else False,
            proxy=proxies.for_httpx(way, certificates.trusted),
            trust_env=False,
            timeout=self._timeout_s,
            limits=httpx2.Limits(max_connections=CONNECTIONS, max_keepalive_connections=CONNECTIONS),
            follow_redirects=False,
            headers={"user-agent": f"reserve-listener/{__version__}", "accept-encoding": "identity"},
            cookies=CookieJar(policy=DefaultCookiePolicy(allowed_domains=[])),
        )
