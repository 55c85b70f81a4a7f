"""The proxy of a WebSocket, as the websockets library takes it.

The library takes a URL only, cuts it at `#`, `/` and `?`, and sends a login as it is written there, percent signs and
all. So it is given its own parsed form instead, past its parser: a hack, and the smallest one; the library's own way
through a proxy (CONNECT, TLS in TLS) stays in use. `tests/daemon/test_proxy.py` fails should the parser move.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from websockets.asyncio import client
from websockets.uri import Proxy, parse_proxy

if TYPE_CHECKING:
    from reserve_listener.net import proxies


def for_websockets(proxy: proxies.Proxy | None) -> Any:
    """What to hand to `websockets.connect` as `proxy`; None: straight there."""
    client.parse_proxy = _parse  # type: ignore[attr-defined]  # the library's own name, not exported
    if proxy is None:
        return None
    return Proxy(
        proxy.scheme, proxy.host, proxy.port, proxy.user, None if proxy.user is None else proxy.password or ""
    )


def _parse(proxy: Any) -> Proxy:
    return proxy if isinstance(proxy, Proxy) else parse_proxy(proxy)
