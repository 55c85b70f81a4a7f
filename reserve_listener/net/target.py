"""An address that somebody may want to reach."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import ssl

    from reserve_listener.net.proxies import Proxy


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """What to reach, and how. `tls`: None for an address without. `proxy_key`: None where proxies are never used."""

    url: str
    setting: str | None
    proxy: Proxy | None
    proxy_key: str | None = "lark.proxy"
    tls: ssl.SSLContext | None
