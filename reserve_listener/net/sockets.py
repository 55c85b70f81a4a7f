"""Listening sockets, one for each address of a name; and how a Unix socket is addressed."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import socket
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

LOOKUP_S: Final = 10.0
"""A name to listen on is this machine's own: what takes longer hangs."""

BACKLOG: Final = 2_048
"""Connections that the kernel holds for us while the loop is busy; it takes `somaxconn` (4,096) at the most."""

TRIES: Final = 5
"""With port 0 the port that is free on the first address may be taken on the next."""

ABSENT: Final = frozenset({errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT, errno.EPROTONOSUPPORT})
"""An address of the name that this machine does not have, such as ::1 of localhost where IPv6 is off."""

SocketInfo = tuple[socket.AddressFamily, socket.SocketKind, int, str, Any]


async def bound(host: str, port: int) -> list[socket.socket]:
    """Sockets that listen on all addresses of the host, on one port (0: a free one). Raises `OSError`."""
    try:
        async with asyncio.timeout(LOOKUP_S):
            found = await asyncio.get_running_loop().getaddrinfo(
                host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
            )
    except TimeoutError:
        raise TimeoutError(f"looking up {host} took more than {LOOKUP_S:g} s") from None
    found = list(dict.fromkeys(found))  # /etc/hosts may name an address twice
    for _ in range(TRIES - 1):
        try:
            return _bind_all(found, port)
        except OSError as error:
            if port or error.errno != errno.EADDRINUSE:
                raise
    return _bind_all(found, port)


def _bind_all(found: Sequence[SocketInfo], port: int) -> list[socket.socket]:
    sockets: list[socket.socket] = []
    absent: OSError | None = None
    try:
        for family, _, _, _, address in found:
            try:
                sockets.append(_bind(family, (address[0], port, *address[2:]), alone=len(found) == 1))
            except OSError as error:
                if error.errno not in ABSENT:
                    raise
                absent = error
            else:
                port = sockets[0].getsockname()[1]
        if absent is not None and not sockets:
            raise absent
    except OSError:
        for each in sockets:
            each.close()
        raise
    return sockets


def _bind(family: int, address: tuple[Any, ...], *, alone: bool) -> socket.socket:
    listener = socket.socket(family, socket.SOCK_STREAM)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6 and not alone:  # alone, [::] listens for IPv4 as well
            listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        listener.bind(address)
        listener.listen(BACKLOG)
    except OSError:
        listener.close()
        raise
    return listener


@contextlib.contextmanager
def socket_address(path: Path) -> Iterator[str]:
    """What to bind or connect to for a socket of that path, which may be longer than unix(7) has room for."""
    folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield f"/proc/self/fd/{folder}/{path.name}"
    finally:
        os.close(folder)
