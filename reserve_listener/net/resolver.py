"""Names become addresses here, for everything that runs on the daemon's loop.

What must stay true: a name whose lookup hangs keeps up those who asked for it, for `TIMEOUT_S`, and nobody else. So a lookup
has a thread of its own, never one of the loop's pool; whoever asks for a name that is being looked up shares that lookup.
`getaddrinfo` cannot be told to stop: a thread that hangs is left behind until it comes back, or the process ends.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import threading
from typing import TYPE_CHECKING, Any, Final, NamedTuple, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Callable

TIMEOUT_S: Final = 8.0
"""Longer than the 5 s after which libc asks the next name server, shorter than the 10 s that a sink and the endpoint have by
default: then the error says that it was DNS."""
LOOKUPS: Final = 64
"""So many names are looked up at once, more than the sinks and addresses of a daemon. What hangs beyond it would be a leak."""

Found: TypeAlias = list[Any]
"""What `getaddrinfo` returns."""


class Question(NamedTuple):
    """What is asked of `getaddrinfo`, without the port: that is the same question for another service."""

    host: str
    service: bytes | str | int | None
    family: int
    type: int
    proto: int
    flags: int


class Resolver:
    """Looks names up for one loop. `lookup` has the signature of `socket.getaddrinfo`, and blocks."""

    def __init__(
        self, lookup: Callable[..., Any] = socket.getaddrinfo, *, timeout_s: float = TIMEOUT_S
    ) -> None:
        self._lookup = lookup
        self._timeout_s = timeout_s
        self._running: dict[Question, asyncio.Future[Found]] = {}

    async def resolve(self, question: Question, port: int | None = None) -> Found:
        """The addresses; `gaierror` names the host. Cancelled, it leaves the lookup to those who share it."""
        found = await self._shared(question)
        if port is None:
            return found
        return [(*one[:4], (one[4][0], port, *one[4][2:])) for one in found]

    async def _shared(self, question: Question) -> Found:
        lookup = self._running.get(question) or self._start(question)
        try:
            async with asyncio.timeout(self._timeout_s):
                return await asyncio.shield(lookup)
        except TimeoutError:
            why = f"{question.host}: the name server does not answer within {self._timeout_s:g} s"
            raise socket.gaierror(socket.EAI_AGAIN, why) from None
        except socket.gaierror as error:  # one of its own for each: it is shared
            raise socket.gaierror(error.errno, f"{question.host}: {error.strerror}") from None

    def _start(self, question: Question) -> asyncio.Future[Found]:
        if len(self._running) >= LOOKUPS:
            raise socket.gaierror(
                socket.EAI_AGAIN, f"{LOOKUPS} name lookups are pending and none of them finishes"
            )
        loop = asyncio.get_running_loop()
        self._running[question] = future = loop.create_future()
        future.add_done_callback(lambda _: self._running.pop(question))
        # Nobody may be waiting any more when it fails.
        future.add_done_callback(lambda done: done.cancelled() or done.exception())
        threading.Thread(target=self._look, args=(question, future, loop), name="dns", daemon=True).start()
        return future

    def _look(
        self, question: Question, future: asyncio.Future[Found], loop: asyncio.AbstractEventLoop
    ) -> None:
        host, service, family, kind, proto, flags = question
        settle: tuple[Callable[..., None], Any]
        try:
            settle = future.set_result, self._lookup(host or None, service, family, kind, proto, flags)
        except Exception as error:  # noqa: BLE001  # raised again where it is waited for
            settle = future.set_exception, error
        with contextlib.suppress(RuntimeError):  # the loop has ended meanwhile
            loop.call_soon_threadsafe(*settle)


class Loop(asyncio.SelectorEventLoop):
    """asyncio's usual loop with names looked up as above: the one place that httpx2, websockets and asyncio all ask."""

    def __init__(self) -> None:
        super().__init__()
        self._resolver = Resolver()

    async def getaddrinfo(
        self,
        host: bytes | str | None,
        port: bytes | str | int | None,
        *,
        family: int = 0,
        type: int = 0,  # noqa: A002  # the base class's signature
        proto: int = 0,
        flags: int = 0,
    ) -> Found:
        """See `asyncio.loop.getaddrinfo`."""
        name = host.decode("ascii") if isinstance(host, bytes) else host or ""
        service, number = (None, port) if name and isinstance(port, int) else (port, None)
        return await self._resolver.resolve(Question(name, service, family, type, proto, flags), number)
