"""The connection to NATS: made in the background when it is first needed, again for ever, and let go of when it is in doubt.

What must stay true: no login is sent over a connection that should be encrypted and is not. And nobody waits long for a server
that is connected and silent (frozen, or behind a network that has gone): the client itself notices after six minutes.
"""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING, Any, Final

from nats import errors
from nats.aio.client import Client

from reserve_listener.sinks.nats.answers import Answers

if TYPE_CHECKING:
    from collections.abc import Mapping

AGAIN_S: Final = 1
"""Between two attempts at a server; the client knows whole seconds only."""
FOR_EVER: Final = -1
"""By default the client gives up after 60 attempts, two minutes, and stays closed."""
CLOSE_S: Final = 2.0


class _Client(Client):
    """The client goes on in plain text when a server does not offer TLS, whatever the address says."""

    def __init__(self) -> None:
        super().__init__()
        self._auth_configured = True  # or it never looks at `signature_cb`
        self.answers = Answers(self)

    def _connect_command(self) -> bytes:
        server = self._current_server
        if server is not None and server.uri.scheme == "tls" and not self._server_info.get("tls_required"):
            raise errors.SecureConnWantedError
        command: bytes = super()._connect_command()
        return command

    def drop(self) -> None:
        """Let go of a connection that `close` leaves open, as it does after an attempt that failed."""
        transport: Any = self._transport
        if transport is not None:
            transport.close()


class Link:
    """`servers` and `options` as the client takes them. Opens nothing before `client` is asked for."""

    def __init__(self, name: str, servers: list[str], options: Mapping[str, Any]) -> None:
        self._name = name
        self._servers = servers
        self._options = options
        self._client: _Client | None = None
        self._connecting: asyncio.Task[None] | None = None
        self._leaving: set[asyncio.Task[None]] = set()
        self._news = asyncio.Event()
        self._failures = 0
        self.last_error: Exception | None = None
        """What the client said last: errors of a server come to nobody who waits."""

    async def client(self) -> _Client:
        """A client that is connected. When each server has failed once meanwhile, raises what the last one said."""
        client, failures = self._current(), self._failures
        while not (client.is_connected and client.answers.are_heard):
            if self._failures >= failures + len(self._servers) or client.is_closed:
                raise self.last_error or errors.ConnectionClosedError
            self._news.clear()
            await self._news.wait()
        return client

    def drop(self, client: _Client) -> None:
        """Let go of a client that gets no answers, in the background; the next who asks gets another."""
        if client is self._client:
            self._let_go()

    async def close(self) -> None:
        """Give up connecting, and close. Does not raise, and takes `CLOSE_S` at most."""
        self._let_go()
        await asyncio.gather(*self._leaving)

    def _current(self) -> _Client:
        """A server that refuses the login later on closes the client for good: it needs a new one then."""
        if self._client is None or self._client.is_closed:
            self._let_go()
            self._client = client = _Client()
            self._connecting = asyncio.create_task(self._connect(client), name=f"nats-{self._name}")
        return self._client

    def _let_go(self) -> None:
        client, connecting, self._client, self._connecting = self._client, self._connecting, None, None
        if client is not None and connecting is not None:
            leaving = asyncio.create_task(_leave(client, connecting), name=f"nats-{self._name}-leave")
            self._leaving.add(leaving)
            leaving.add_done_callback(self._leaving.discard)

    async def _connect(self, client: _Client) -> None:
        try:
            await client.connect(
                self._servers,
                name="reserve-listener",
                error_cb=self._failed,
                disconnected_cb=client.answers.lost,
                reconnected_cb=self._changed,
                closed_cb=self._changed,
                reconnect_time_wait=AGAIN_S,
                max_reconnect_attempts=FOR_EVER,
                **self._options,
            )
            await client.answers.listen()
        except Exception as error:  # noqa: BLE001  # whatever it is, whoever waits is told
            self.last_error = error
            self._failures += len(self._servers)
        self._news.set()

    async def _failed(self, error: Exception) -> None:
        self.last_error = error
        self._failures += 1
        self._news.set()

    async def _changed(self) -> None:
        self._news.set()


async def _leave(client: _Client, connecting: asyncio.Task[None]) -> None:
    connecting.cancel()
    await asyncio.gather(connecting, return_exceptions=True)
    with contextlib.suppress(Exception):
        async with asyncio.timeout(CLOSE_S):
            await client.close()
    client.drop()
