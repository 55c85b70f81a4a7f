"""The WebSocket under the long connection: websockets' own client, without what it spends on each message.

A message goes to its handler as it is read instead of through a queue and a task that waits at it, and what is to be
sent at the same time goes out in one system call. Each message remains a WebSocket message of its own. The handler may
not block, so nothing has to hold back the peer; what waits for the commit is bounded by the store, and what the peer does
not take by `UNSENT_BYTES`.
"""

from __future__ import annotations

import secrets
from struct import Struct
from typing import TYPE_CHECKING, Any, Final

from websockets.asyncio.client import ClientConnection
from websockets.frames import Frame, Opcode, apply_mask  # type: ignore[attr-defined]  # the compiled one, if there is
from websockets.protocol import State

from reserve_listener.transports.failures import ConnectionLostError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from websockets.protocol import Event

UNSENT_BYTES: Final = 16 * 1024 * 1024
"""What waits for a peer that does not read: some 100,000 answers. Beyond it the connection is given up."""

_BINARY: Final = 0x82
_SHORTEST: Final = 125
_SHORT, _LONGER, _LONG = Struct("!BB"), Struct("!BBH"), Struct("!BBQ")


class Wire(ClientConnection):
    """Given to `websockets.connect` as `create_connection`."""

    def __init__(
        self,
        *args: Any,
        on_message: Callable[[bytes], None],
        on_error: Callable[[Exception], None],
        **options: Any,
    ) -> None:
        super().__init__(*args, **options)
        self._on_message = on_message
        self._on_error = on_error
        self._going: list[bytes] = []

    def process_event(self, event: Event) -> None:
        """Whole binary messages, which is what the platform sends; anything else takes the library's way to `recv`."""
        if type(event) is not Frame or event.opcode is not Opcode.BINARY or not event.fin:
            super().process_event(event)
            return
        try:
            self._on_message(event.data)  # type: ignore[arg-type]  # bytes, as read from the socket
        except Exception as error:  # noqa: BLE001  # whatever it was, the connection must not seem to be heard
            self._on_error(error)

    def send_soon(self, message: bytes) -> None:
        """Send a message, together with the others of this turn of the loop. Once the connection closes, it goes nowhere."""
        if not self._going:
            self.loop.call_soon(self._send_going)
        self._going.append(message)

    async def flush(self) -> None:
        """Wait until what was to be sent is on its way. Waits while the peer does not read."""
        self._send_going()
        await self.drain()

    def _send_going(self) -> None:
        messages, self._going = self._going, []
        try:
            if self.transport.get_write_buffer_size() > UNSENT_BYTES:
                raise ConnectionLostError("the peer takes no answers", by_server=False)
            if messages and self.protocol.state is State.OPEN:
                self.protocol.writes.append(_framed(messages))
                self.send_data()
        except Exception as error:  # noqa: BLE001  # as above
            self._on_error(error)

    def send_data(self) -> None:
        """One write for all that is to go out now. An empty one would be the end of the stream, and stays apart."""
        writes = self.protocol.writes
        if len(writes) > 1 and all(writes):
            self.protocol.writes = [b"".join(writes)]
        super().send_data()


def _framed(messages: Sequence[bytes]) -> bytes:
    """Each as an unfragmented binary frame of a client (RFC 6455, 5.2), masked with a random key of its own."""
    keys = secrets.token_bytes(4 * len(messages))
    pieces: list[bytes] = []
    for number, message in enumerate(messages):
        key, length = keys[4 * number : 4 * number + 4], len(message)
        if length <= _SHORTEST:
            pieces.append(_SHORT.pack(_BINARY, 0x80 | length))
        elif length < 2**16:
            pieces.append(_LONGER.pack(_BINARY, 0xFE, length))
        else:
            pieces.append(_LONG.pack(_BINARY, 0xFF, length))
        pieces += (key, apply_mask(message, key))
    return b"".join(pieces)
