"""Whether an address can be reached: its name, a connection, its certificate. Nothing is asked of who answers."""

from __future__ import annotations

import asyncio
import socket
from typing import TYPE_CHECKING, Final
from urllib.parse import urlsplit

from reserve_listener.net.reaching import Reaching, Step

if TYPE_CHECKING:
    from reserve_listener.net.proxies import Proxy
    from reserve_listener.net.target import Target

STEP_TIMEOUT_S: Final = 5.0
"""For a connection, a proxy's answer, a handshake: each takes a second at most over any line that an event is sent over."""
STAGGER_S: Final = 0.25
"""Between two addresses of a name (RFC 8305)."""
HEAD_BYTES: Final = 16 * 1024


async def reach(target: Target) -> str:
    """How far it went, for people. Raises `UnreachableError`, which says at which step it failed and what to look at."""
    reaching = Reaching(target.url, proxy=target.proxy, setting=target.setting, proxy_key=target.proxy_key)
    with reaching.explained():
        return await _reach(target, reaching)


async def _reach(target: Target, reaching: Reaching) -> str:
    parts = urlsplit(target.url)
    host, port = parts.hostname or "", parts.port or (80 if target.tls is None else 443)
    place = (host, port) if target.proxy is None else (target.proxy.host, target.proxy.port)
    # Once on its own: the connection has its time to itself then.
    await asyncio.get_running_loop().getaddrinfo(*place, type=socket.SOCK_STREAM)
    reader, writer = await _connect(target.proxy, place)
    try:
        if target.tls is None:
            return "can be reached" if target.proxy is None else "its proxy can be reached"
        if target.proxy is not None:
            reaching.step = Step.PROXY
            async with asyncio.timeout(STEP_TIMEOUT_S):
                await _tunnel(
                    target.proxy, f"[{host}]:{port}" if ":" in host else f"{host}:{port}", reader, writer
                )
        reaching.step = Step.TLS
        async with asyncio.timeout(STEP_TIMEOUT_S):
            await writer.start_tls(target.tls, server_hostname=host)
        return "can be reached, and its certificate is trusted"
    finally:
        writer.transport.abort()


async def _connect(
    proxy: Proxy | None, place: tuple[str, int]
) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    encrypted = True if proxy is not None and proxy.scheme == "https" else None
    async with asyncio.timeout(STEP_TIMEOUT_S):
        return await asyncio.open_connection(
            *place, ssl=encrypted, limit=HEAD_BYTES, happy_eyeballs_delay=STAGGER_S
        )


async def _tunnel(
    proxy: Proxy, place: str, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
) -> None:
    head = f"CONNECT {place} HTTP/1.1\r\nHost: {place}\r\n"
    if proxy.authorization is not None:
        head += f"Proxy-Authorization: {proxy.authorization}\r\n"
    writer.write(f"{head}\r\n".encode())
    status = (await reader.readuntil(b"\r\n\r\n")).split(maxsplit=2)[1:2]
    if status != [b"200"]:
        raise ConnectionError(
            f"the proxy answers {status[0].decode('ascii', 'replace')[:3] if status else 'nothing'}"
        )
