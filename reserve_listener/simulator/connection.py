"""One WebSocket to a client, with the faults of the wire."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, Final

from websockets.asyncio.server import ServerConnection, broadcast
from websockets.protocol import OPEN

from reserve_listener.simulator.faults import Faults, garbage

if TYPE_CHECKING:
    import random
    from collections.abc import Callable

    from reserve_listener.simulator.pushes import Push

SERVICE_ID: Final = 33554678
REORDER_HOLD: Final = 0.2
"""How many seconds an event waits for another one to overtake it."""


class Connection(ServerConnection):
    """A connection that writes without waiting, passes messages on as they arrive, and can be made half-open."""

    faults: Faults
    random: random.Random
    on_message: Callable[[Connection, bytes | str], None]

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self._unread = bytearray()
        self._stalled_for_good = False
        self._held: list[bytes] = []
        self._held_until = 0.0

    @property
    def open(self) -> bool:
        """Whether something can be sent."""
        return self.state is OPEN

    @property
    def stalled(self) -> bool:
        """Whether the connection is half-open."""
        return self._stalled_for_good or self.faults.stall

    def stall(self) -> None:
        """Make the connection half-open for good."""
        self._stalled_for_good = True

    def data_received(self, data: bytes) -> None:
        """While stalled, keep what arrives from the library, so that it answers neither pings nor a close."""
        if self.open and self.stalled:
            self._unread += data
            return
        if self._unread:
            data, self._unread = bytes(self._unread) + data, bytearray()
        super().data_received(data)

    def tick(self, now: float) -> None:
        """Do what is due. Called every few milliseconds with the loop's time."""
        if self._held and now >= self._held_until:
            held, self._held = self._held, []
            self.write(held)
        if self._unread and not self.stalled:
            self.data_received(b"")

    def carry(self, push: Push, message_id: str) -> None:
        """Send one attempt of a push."""
        self.push(push.wire(message_id, SERVICE_ID))

    def push(self, messages: list[bytes]) -> None:
        """Send the messages of one event, with the faults in force."""
        if self.faults.garbage:
            self.write([garbage(self.random)])
        if self.faults.reorder and not self._held:
            self._held = messages
            self._held_until = asyncio.get_running_loop().time() + REORDER_HOLD
            return
        held, self._held = self._held, []
        self.write(messages + held)

    def write(self, messages: list[bytes]) -> None:
        """Send without waiting for the client to read; while stalled the messages are lost."""
        if self.stalled:
            return
        for message in messages:
            broadcast((self,), message)

    def abort(self) -> None:
        """Reset the TCP connection, without a close frame."""
        self.transport.abort()

    async def serve(self) -> None:
        """Pass on all messages until the connection is closed."""
        async for message in self:
            self.on_message(self, message)
