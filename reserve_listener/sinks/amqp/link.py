"""The connection to RabbitMQ: made in the background when it is needed, and let go of when it is in doubt.

What must stay true: after a time-out nothing more goes over the same channel. One that has waited for a confirm in vain, of
a quorum queue whose node was killed, stays stuck for all queues.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, cast
from urllib.parse import urlsplit

import aio_pika

from reserve_listener.sinks.amqp.kind import port_of, virtual_host
from reserve_listener.sinks.brokers import settings as brokers

if TYPE_CHECKING:
    import ssl

    from aio_pika.abc import AbstractChannel, AbstractConnection
    from aiormq.channel import Channel

HEARTBEAT_S: Final = 30
CLOSE_S: Final = 2.0

# What they have to say comes as an exception to us, who tell it without the password in its URL.
for _library in ("aio_pika", "aiormq"):
    logging.getLogger(_library).setLevel(logging.CRITICAL)


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """A connection with the one channel that is used of it."""

    connection: AbstractConnection
    channel: AbstractChannel
    publisher: Channel
    """The channel beneath it."""

    @property
    def is_open(self) -> bool:
        """Whether it can be used, as far as is known."""
        return not self.connection.is_closed and not self.channel.is_closed


class Link:
    """Opens nothing before `line` is asked for."""

    def __init__(
        self, name: str, url: str, *, exchange: str, timeout_s: float, tls: ssl.SSLContext | None
    ) -> None:
        self._name = name
        self._url = url
        self._exchange = exchange
        self._timeout_s = timeout_s
        self._tls = tls
        self._opening: asyncio.Task[Line] | None = None
        self._leaving: set[asyncio.Task[None]] = set()

    async def line(self) -> Line:
        """What to publish over; all who ask share it. Cancelled, it goes on connecting for the next."""
        opening = self._opening
        if opening is not None and opening.done():
            if _is_usable(opening):
                return opening.result()
            self._let_go()
        if self._opening is None:
            self._opening = asyncio.create_task(self._open(), name=f"amqp-{self._name}")
        return await asyncio.shield(self._opening)

    @property
    def is_connecting(self) -> bool:
        """Whether somebody has asked for a line that there is not yet, or will not be."""
        return self._opening is not None and not _is_usable(self._opening)

    def drop(self, line: Line) -> None:
        """Let go of a connection that is in doubt, in the background; the next who asks gets another."""
        opening = self._opening
        if opening is not None and _is_usable(opening) and opening.result() is line:
            self._let_go()

    def _let_go(self) -> None:
        if (opening := self._opening) is not None:
            self._opening = None
            leaving = asyncio.create_task(_leave(opening), name=f"amqp-{self._name}-leave")
            self._leaving.add(leaving)
            leaving.add_done_callback(self._leaving.discard)

    async def close(self) -> None:
        """Does not raise, and takes `CLOSE_S` at most."""
        self._let_go()
        await asyncio.gather(*self._leaving)

    async def _open(self) -> Line:
        parts = urlsplit(self._url)
        user, password = brokers.login(parts)
        connection = await aio_pika.connect(
            host=parts.hostname or "",
            port=port_of(self._url),
            login=user or "guest",
            password=password or "guest",
            virtualhost=virtual_host(self._url),
            ssl=self._tls is not None,
            ssl_context=self._tls,
            timeout=self._timeout_s,
            heartbeat=HEARTBEAT_S,
            name="reserve-listener",
        )
        try:
            async with asyncio.timeout(self._timeout_s):
                # Without this a message that no queue takes is returned, and counts as published.
                channel = connection.channel(publisher_confirms=True, on_return_raises=True)
                await channel.initialize()
                if self._exchange:  # fails if there is none of that name
                    await channel.get_exchange(self._exchange)
                publisher = cast("Channel", await channel.get_underlay_channel())
        except BaseException:
            await _close(connection)
            raise
        return Line(connection=connection, channel=channel, publisher=publisher)


def _is_usable(opening: asyncio.Task[Line]) -> bool:
    """Whether it has come to a connection that is open, as far as is known."""
    if not opening.done() or opening.cancelled() or opening.exception() is not None:
        return False
    return opening.result().is_open


async def _leave(opening: asyncio.Task[Line]) -> None:
    opening.cancel()
    (found,) = await asyncio.gather(opening, return_exceptions=True)
    if isinstance(found, Line):
        await _close(found.connection)


async def _close(connection: AbstractConnection) -> None:
    with contextlib.suppress(Exception):
        async with asyncio.timeout(CLOSE_S):
            await connection.close()
