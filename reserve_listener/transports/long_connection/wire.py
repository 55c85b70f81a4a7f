"""The WebSocket under the long connection: websockets' own client, without what it spends on each message.

A message goes to its handler as it is read instead of through a queue and a task that waits at it, and what is to be
sent at the same time goes out in one system call. Each message remains a WebSocket message of its own. The handler may
not block, so nothing has to hold back the peer.

What must stay true: the connection is known to be lost as soon as it ends in either direction, whether or not the peer
closes the socket; and what is held of it is bounded in bytes and in pieces, whatever the peer sends or leaves unread.
"""

from __future__ import annotations

import secrets
from struct import Struct
from typing import TYPE_CHECKING, Any, Final

from websockets.asyncio.client import ClientConnection
from websockets.exceptions import ConnectionClosedError, InvalidStatus
from websockets.frames import DATA_OPCODES, Frame, Opcode, apply_mask  # type: ignore[attr-defined]  # the compiled one, if there is
from websockets.protocol import State

from reserve_listener.transports.long_connection.failures import ConnectionLostError
from reserve_listener.transports.long_connection.whole_frames import read_whole_frames

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from websockets.protocol import Event

READ_BYTES: Final = 16 * 1024
"""Read from the socket is parsed in portions of this size: of empty frames it holds 8,192, a few megabytes as objects."""

TURN_S: Final = 0.05
"""After so long with what was read at once (a quarter of a megabyte, which may be 100,000 frames) the rest waits for the next
turn of the loop: nobody notices, and everything else goes on."""

PIECES: Final = 16 * 1024
"""The fragments that a message may come in: the largest message in fragments of 1 KiB."""

_BINARY: Final = 0x82
_SHORTEST: Final = 125
_SHORT, _LONGER, _LONG = Struct("!BB"), Struct("!BBH"), Struct("!BBQ")


class Wire(ClientConnection):
    """Given to `websockets.connect` as `create_connection`."""

    def __init__(
        self,
        *args: Any,
        on_message: Callable[[bytes | str], None],
        on_error: Callable[[Exception], None],
        keep_bounds: Callable[[int], None],
        **options: Any,
    ) -> None:
        """`keep_bounds` is told what is held here, in bytes, after each read and write; it may raise."""
        super().__init__(*args, **options)
        self._on_message = on_message
        self._on_error = on_error
        self._keep_bounds = keep_bounds
        self._going: list[bytes] = []
        self._pieces: list[bytes] = []
        self._text = False
        self._reading = False
        self._owed_pong = b""
        self._given_up = False
        read_whole_frames(self.protocol, self._on_whole)

    async def handshake(self, *args: Any, **options: Any) -> None:
        """A redirect is a refusal like any other.

        The library would follow it, ten times, to places that the platform's endpoint has not named, by the proxy of the first.
        """
        try:
            await super().handshake(*args, **options)
        except InvalidStatus as error:
            if "Location" in error.response.headers:
                del error.response.headers["Location"]
            raise

    # -- reading ------------------------------------------------------------------------------------------------------------

    def data_received(self, data: bytes) -> None:
        """Parse what was read, portion by portion, until the connection ends or others must have their turn."""
        started = self.loop.time()
        for start in range(0, len(data), READ_BYTES):
            if self._given_up or self.connection_lost_waiter.done():
                return
            if start and self.loop.time() - started > TURN_S:
                self.transport.pause_reading()
                self.loop.call_soon(self._read_on, data[start:])
                return
            self._reading = True
            super().data_received(data[start : start + READ_BYTES] if len(data) > READ_BYTES else data)
            self._reading = False
            self._look()

    def _read_on(self, data: bytes) -> None:
        self.transport.resume_reading()  # which has its effect in a later turn, so `data` is still the next
        self.data_received(data)

    def process_event(self, event: Event) -> None:
        """Messages go to the handler; anything else takes the library's way."""
        if type(event) is not Frame or event.opcode not in DATA_OPCODES:
            super().process_event(event)
        elif not self._given_up:
            try:
                self._take(event)
            except Exception as error:  # noqa: BLE001  # whatever it was, the connection must not seem to be heard
                self._give_up(error)

    def _on_whole(self, message: bytes) -> None:
        """A message in one frame, which is what the platform sends."""
        if self._given_up:
            return
        try:
            self._on_message(message)
        except Exception as error:  # noqa: BLE001  # as above
            self._give_up(error)

    def _take(self, frame: Frame) -> None:
        if frame.opcode is not Opcode.CONT:
            self._text = frame.opcode is Opcode.TEXT
        self._pieces.append(frame.data)  # type: ignore[arg-type]  # as above
        if len(self._pieces) > PIECES:
            raise ConnectionLostError(f"a message in more than {PIECES} fragments", by_server=False)
        if frame.fin:
            message, self._pieces = b"".join(self._pieces), []
            self._on_message(message.decode(errors="replace") if self._text else message)

    def _look(self) -> None:
        """After each read and write: is the connection still one, and within its bounds?"""
        try:
            self._keep_bounds(self.held_bytes)
        except Exception as error:  # noqa: BLE001  # as above
            self._give_up(error)
        if self.protocol.state is State.CLOSING:
            # Closed by either side, or the peer broke the protocol. The library would wait for the end of the stream.
            protocol = self.protocol
            self._on_error(
                ConnectionClosedError(protocol.close_rcvd, protocol.close_sent, protocol.close_rcvd_then_sent)
            )

    @property
    def held_bytes(self) -> int:
        """Of unfinished frames and messages, and of what waits for the peer to read it.

        The library keeps what it reads of one message within `max_size`, fragments included.
        """
        unread = len(self.protocol.reader.buffer) + (self.protocol.cur_size or 0)
        return unread + sum(map(len, self._going)) + self.transport.get_write_buffer_size()

    def _give_up(self, error: Exception) -> None:
        """The end, by us and at once: nothing more is read, and the peer's reading is not waited for."""
        self._given_up = True
        self._on_error(error)
        self.transport.abort()

    # -- writing ------------------------------------------------------------------------------------------------------------

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
            if messages and self.protocol.state is State.OPEN:
                self.protocol.writes.append(_framed(messages))
                self.send_data()
        except Exception as error:  # noqa: BLE001  # as above
            self._give_up(error)
        self._look()

    def send_data(self) -> None:
        """One write for all that is to go out now. An empty one would be the end of the stream, and stays apart.

        What comes of reading is pongs, unless it is the end. While the peer does not read, only the last of them is kept
        (RFC 6455, 5.5.3).
        """
        writes = self.protocol.writes
        if self._reading and self.paused and writes and self.protocol.state is State.OPEN:
            self._owed_pong = writes[-1]
            writes.clear()
        elif len(writes) > 1 and all(writes):
            self.protocol.writes = [b"".join(writes)]
        super().send_data()

    def resume_writing(self) -> None:
        """The peer reads again."""
        super().resume_writing()
        pong, self._owed_pong = self._owed_pong, b""
        if pong and self.protocol.state is State.OPEN:
            self.transport.write(pong)


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
