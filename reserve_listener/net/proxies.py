"""Which proxy an address is reached through: decided here, once per address, for everything that the daemon connects to.

What must stay true: no text of an error and no `repr` holds a proxy's login. The libraries decide nothing themselves
(`trust_env=False`), since each of them reads the environment in a way of its own.

The environment is read as curl reads it: a variable in small letters goes before one in capitals, an empty one counts as
not set, `ALL_PROXY` stands in for both others, and a value without a scheme means http.
"""

from __future__ import annotations

import base64
import ipaddress
import os
import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final
from urllib.parse import quote, unquote, urlsplit

from reserve_listener.errors import ConfigError
from reserve_listener.net.addresses import ip_address, is_loopback
from reserve_listener.net.url_secrets import SHORTEST_SECRET

if TYPE_CHECKING:
    import ssl
    from collections.abc import Callable, Iterator, Mapping

    import httpx2

VARIABLES: Final = ("http_proxy", "HTTP_PROXY", "https_proxy", "HTTPS_PROXY", "all_proxy", "ALL_PROXY")
FORM: Final = "http(s)://[user:password@]host:port"

_PORTS: Final = {"http": 80, "ws": 80, "https": 443, "wss": 443}
_HIGHEST_PORT: Final = 65_535
_SCHEME: Final = re.compile(r"([A-Za-z][A-Za-z0-9+.-]{0,15})://(.*)", re.DOTALL)
_HOST: Final = re.compile(r"[^\s/?#@\[\]:%\x00-\x1f\x7f]+|\[[0-9A-Fa-f:.]+(?:%[0-9A-Za-z_.-]+)?\]")


@dataclass(frozen=True, slots=True, kw_only=True)
class Proxy:
    """A proxy that can be used. `source`: who names it, such as `lark.proxy` or `HTTPS_PROXY`."""

    scheme: str
    host: str
    port: int
    user: str | None = field(default=None, repr=False)
    password: str | None = field(default=None, repr=False)
    source: str = ""

    @property
    def url(self) -> str:
        """The address without the login, for people and for libraries that take the login beside it."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{self.scheme}://{host}:{self.port}"

    @property
    def authorization(self) -> str | None:
        """The value of Proxy-Authorization; None without a login."""
        return None if self.user is None else f"Basic {_basic(self.user, self.password or '')}"


def _basic(user: str, password: str) -> str:
    return base64.b64encode(f"{user}:{password}".encode("utf-8", "surrogateescape")).decode()


def decide(
    url: str, *, setting: str | None, key: str, environ: Mapping[str, str] = os.environ
) -> Proxy | None:
    """The proxy to this http(s) or ws(s) address; None: straight there.

    `setting` is the value of `key` in the configuration. It goes before the environment and holds for every address,
    loopback's too. ConfigError names the key or the variable when the proxy cannot be used.
    """
    parts = urlsplit(url)
    host, port = parts.hostname or "", parts.port or _PORTS[parts.scheme]
    if setting is None:
        if is_loopback(host) or _is_excepted(host, port, _first(environ, "no_proxy", "NO_PROXY")[1]):
            return None
        kind = "https" if parts.scheme in ("https", "wss") else "http"
        key, setting = _first(
            environ, *(name for name in VARIABLES if name.lower() in (f"{kind}_proxy", "all_proxy"))
        )
        if not setting:
            return None
    try:
        return parse(setting, source=key)
    except ValueError as error:  # not chained: a library's may quote the value
        instead = f", or name {host} in NO_PROXY" if key in VARIABLES else ""
        raise ConfigError(f"{key}: {error}{instead}") from None


def way(url: str, *, setting: str | None, key: str) -> str:
    """How an address is reached, for the end of its description. Raises as `decide`."""
    proxy = decide(url, setting=setting, key=key)
    return "" if proxy is None else f", through the proxy {proxy.url} ({proxy.source})"


def parse(text: str, *, source: str = "") -> Proxy:
    """A proxy as it is written in the configuration or the environment. ValueError says what is allowed, and quotes nothing.

    Not by urllib: a password may hold what ends the host in a URL (`#`, `/`, `?`). So the login ends at the last `@`.
    """
    written = _SCHEME.fullmatch(text.strip())
    scheme, rest = (written[1].lower(), written[2]) if written else ("http", text.strip())
    if scheme not in ("http", "https"):
        raise ValueError(f"{scheme} proxies are not supported: must be {FORM}")
    login, at, place = rest.rpartition("@")
    host, port = _host_and_port(place.removesuffix("/"), default=_PORTS[scheme])
    user, colon, password = login.partition(":")
    return Proxy(
        scheme=scheme,
        host=host,
        port=port,
        user=unquote(user) if at else None,
        password=unquote(password) if colon else ("" if at else None),
        source=source,
    )


def _host_and_port(place: str, *, default: int) -> tuple[str, int]:
    host = _HOST.match(place)
    port = place[host.end() :] if host else ""
    digits = port.removeprefix(":")
    is_port = digits.isascii() and digits.isdigit() and 0 < int(digits[:6]) <= _HIGHEST_PORT
    if not host or not (port == "" or (port.startswith(":") and is_port)):
        raise ValueError(f"cannot be read: must be {FORM}")
    return host[0].removeprefix("[").removesuffix("]"), int(digits) if digits else default


def _first(environ: Mapping[str, str], *names: str) -> tuple[str, str]:
    """The first of these variables that is set, and its value; two empty texts when none is."""
    return next(((name, value) for name in names if (value := environ.get(name, "").strip())), ("", ""))


def _is_excepted(host: str, port: int, exceptions: str) -> bool:
    """Whether `NO_PROXY` names the host."""
    return any(_names(entry, host, port) for entry in re.split(r"[\s,]+", exceptions) if entry)


def _names(entry: str, host: str, port: int) -> bool:
    """Whether an entry of `NO_PROXY` means this host: `*`, a name and all below it, an address, a network; with a port or without."""
    if entry == "*":
        return True
    place = re.fullmatch(
        r"(\[[^\]]*\](?:/\d+)?|[^:]*):(\d{1,5})", entry
    )  # a bare IPv6 address has more colons
    if place is not None and int(place[2]) != port:
        return False
    name = (place[1] if place is not None else entry).replace("[", "").replace("]", "")
    if (address := ip_address(host)) is not None:
        return _holds(name, address)
    name = name.removeprefix("*").strip(".").lower()
    host = host.removesuffix(".").lower()
    return bool(name) and (host == name or host.endswith(f".{name}"))


def _holds(network: str, address: ipaddress.IPv4Address | ipaddress.IPv6Address) -> bool:
    try:
        return address in ipaddress.ip_network(network, strict=False)
    except ValueError:
        return False


def for_httpx(proxy: Proxy | None, trusted: Callable[[], ssl.SSLContext]) -> httpx2.Proxy | None:
    """The proxy as httpx2 takes it. Blocks for a proxy that speaks TLS: `trusted` reads the certificates."""
    import httpx2  # noqa: PLC0415  # the configuration needs this module, too, and not the client

    if proxy is None:
        return None
    # Left to itself, httpcore2 reads the certificates anew for each connection to a proxy that speaks TLS.
    tls = trusted() if proxy.scheme == "https" else None
    auth = None if proxy.user is None else (proxy.user, proxy.password or "")
    return httpx2.Proxy(proxy.url, ssl_context=tls, auth=auth)


def secret_texts(environ: Mapping[str, str] = os.environ) -> Iterator[str]:
    """The logins of all proxies in the environment, used or not, in the forms in which they could turn up in a text."""
    for name in VARIABLES:
        yield from login_texts(environ.get(name, ""))


def login_texts(text: str) -> Iterator[str]:
    """The login of a proxy as it is written, and what could betray it in an answer that quotes it."""
    login, at, _ = text.strip().rpartition("@")
    if not at:
        return
    written = _SCHEME.fullmatch(login)
    login = written[2] if written else login
    user, _, password = login.partition(":")
    header = _basic(unquote(user), unquote(password))  # Proxy-Authorization
    # Without a password the user is a token.
    secret = password or user
    forms = (login, unquote(login), secret, unquote(secret), quote(unquote(secret), safe=""))
    for form in dict.fromkeys((*forms, header)):
        if len(form) >= SHORTEST_SECRET:
            yield form
