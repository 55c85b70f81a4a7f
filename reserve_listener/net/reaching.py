"""What a failure to reach somebody says: what was tried, where, and which setting to look at."""

from __future__ import annotations

import contextlib
import socket
import ssl
from enum import Enum
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlsplit

from reserve_listener.errors import ConfigError
from reserve_listener.net.causes import chain, said_by_system, system_says

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from reserve_listener.net.proxies import Proxy

_PORTS: Final = {"http": 80, "ws": 80, "https": 443, "wss": 443}
_TRUST: Final = ("the clock", "whether a proxy intercepts TLS: if so, set SSL_CERT_FILE to its certificates")


class UnreachableError(Exception):
    """An attempt to reach an address failed on the way. The text says what was tried, and where."""

    def __init__(self, message: str, *, hint: str) -> None:
        super().__init__(message)
        self.hint = hint


class Step(Enum):
    """How far an attempt has come."""

    LOOKUP = "DNS lookup of"
    CONNECT = "TCP connect to"
    PROXY = "proxy CONNECT to"
    TLS = "TLS handshake with"
    HTTP = "HTTP request to"
    WEBSOCKET = "WebSocket handshake with"


class Reaching:
    """One attempt to reach an address. `setting`: the key that names it; None: the platform does.

    `proxy_key`: the key for a proxy to it; None: there is none.
    """

    def __init__(
        self, url: str, *, proxy: Proxy | None, setting: str | None, proxy_key: str | None = "lark.proxy"
    ) -> None:
        parts = urlsplit(url)
        self._host = parts.hostname or ""
        self._port = parts.port or _PORTS[parts.scheme]
        self._proxy = proxy
        self._setting = setting
        self._proxy_key = proxy_key
        self.step = Step.CONNECT

    @property
    def where(self) -> str:
        """Host and port."""
        return _place(self._host, self._port)

    @contextlib.contextmanager
    def explained(self, *themselves: type[Exception]) -> Iterator[None]:
        """Whatever fails within becomes an `UnreachableError`, but for what explains itself: `ConfigError` and these."""
        try:
            yield
        except Exception as error:
            if isinstance(error, (ConfigError, *themselves)):
                raise
            step = self._step(error)
            # The resolver's errors begin with the name, which has just been said.
            said = _outcome(error).replace(f" {self._proxy.host if self._proxy else self._host}: ", " ", 1)
            text = f"{self._attempt(step)}{said}"
            raise UnreachableError(text, hint=self._hint(step)) from error

    async def trace(self, event: str, facts: dict[str, Any]) -> None:
        """What httpx2 tells of its progress (its extension `trace`)."""
        if event.endswith("start_tls.started"):
            self.step = Step.TLS
        elif event.endswith("send_request_headers.started"):
            self.step = Step.PROXY if facts["request"].method == b"CONNECT" else Step.HTTP

    def _step(self, error: Exception) -> Step:
        links = list(chain(error))
        if any(isinstance(link, socket.gaierror) for link in links):
            return Step.LOOKUP
        return Step.TLS if any(isinstance(link, ssl.SSLError) for link in links) else self.step

    def _attempt(self, step: Step) -> str:
        """`TCP connect to open.feishu.cn:443`."""
        if self._proxy is None:
            return f"{step.value} {self._host if step is Step.LOOKUP else self.where}"
        if step is Step.LOOKUP:
            return f"{step.value} the proxy {self._proxy.host}"
        proxy = _place(self._proxy.host, self._proxy.port)
        if step is Step.CONNECT:
            return f"{step.value} the proxy {proxy}"
        return f"{step.value} {self.where} through the proxy {proxy}"

    def _hint(self, step: Step) -> str:
        if self._proxy is not None and step in (Step.LOOKUP, Step.CONNECT, Step.PROXY):
            return f"check {self._proxy.source}"
        named = "" if self._setting else "the platform names this address: "
        return f"{named}check {_listed([*filter(None, [self._setting]), *self._suspects(step)])}"

    def _suspects(self, step: Step) -> Sequence[str]:
        if step is Step.LOOKUP:
            return ["this machine's DNS"]
        if step is Step.TLS:
            return _TRUST
        if step is not Step.CONNECT:
            proxy = self._proxy.source if self._proxy is not None else self._proxy_key
            return [f"what is in between: a firewall{f', or {proxy}' if self._proxy_key is not None else ''}"]
        if self._proxy_key is None:
            return ["the firewall"]
        return ["the firewall", f"whether this machine needs a proxy ({self._proxy_key} or HTTPS_PROXY)"]


def _listed(things: Sequence[str]) -> str:
    """`a, b, and c`."""
    *most, last = things
    return f"{', '.join(most)}{',' * (len(most) > 1)} and {last}" if most else last


def _place(host: str, port: int) -> str:
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _outcome(error: Exception) -> str:
    links = list(chain(error))
    lookup = next((link for link in links if isinstance(link, socket.gaierror)), None)
    if lookup is not None:  # it says itself when it took too long
        return f" failed: {system_says(lookup)}"
    if any(isinstance(link, TimeoutError) or type(link).__name__.endswith("Timeout") for link in links):
        return ": no answer in time"
    said = said_by_system(error)
    if said is not None:
        return f" failed: {said}"
    return f" failed: {error}" if str(error) else f" failed: {type(error).__name__}"
