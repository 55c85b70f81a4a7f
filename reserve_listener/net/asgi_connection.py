"""One connection to an ASGI app: uvicorn's, with an end to each wait and a bound on each buffer.

What must stay true: a client that sends slowly, sends nonsense, or does not read its answers costs a bounded amount for a
bounded time, and can be told to give way at any moment except while the app works on a complete request.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, cast

import h11

from reserve_listener.net.http_framing import Framing, HeadReader
from reserve_listener.net.uvicorn import FlowControl, H11Protocol

if TYPE_CHECKING:
    from collections.abc import Callable

    from reserve_listener.net.turns import Turns
    from reserve_listener.net.uvicorn import Config, ServerState

READ_BYTES: Final = 64 * 1024
"""What is read at once, and what waits of a connection's input at the most."""

CHUNKED_BYTES: Final = 512
"""What is read of a body in chunks in one step: 85 chunks of one byte, 1 ms."""

PARTING_S: Final = 1.0
"""How long what a peer still sends is dropped after an answer that ends the connection. Closed at once, TCP would tell it that
its bytes were not read, and with that take the answer from it. 16 MiB take a tenth of that on a local network."""

PIPELINED: Final = 16
"""Requests in a row that came before the answer to the one before. Proxies and the platform send none."""

_BODY: Final = b'{"msg":"bad request"}'
BAD_REQUEST: Final = (
    h11.Response(
        status_code=400,
        headers=[
            ("content-type", "application/json"),
            ("content-length", str(len(_BODY))),
            ("connection", "close"),
        ],
        reason=b"Bad Request",
    ),
    h11.Data(data=_BODY),
    h11.EndOfMessage(),
)

NO_REQUEST: Final = "no request arrived in time"


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What a server grants to strangers."""

    connections: int = 1_000
    """The platform has some dozens open. With more, one that sends nothing has to give way to a new one."""
    handshake_s: float = 10.0
    """For TLS. As for a head: three round trips and two retransmissions on a bad line."""
    head_s: float = 10.0
    write_s: float = 10.0
    """For an answer to leave this machine: it is a few hundred bytes."""
    exchange_s: float | None = None
    """From a head to the end of its answer, for apps that have no deadlines of their own."""
    keep_alive_s: int = 75
    """Between two requests: longer than the 60 s of nginx, so that it is the proxy that ends an idle connection."""


@dataclass(frozen=True, slots=True)
class Shared:
    """What the connections of one server have in common."""

    config: Config
    state: ServerState
    limits: Limits
    turns: Turns
    tell: Callable[[str, Connection], None]
    """Hears why a connection was refused or ended, in one of few texts."""
    gone: Callable[[Connection], None]
    input: memoryview
    """Where input is read into before it is known whose it is: the loop reads one connection at a time."""


class Connection(H11Protocol, asyncio.BufferedProtocol):
    """See above. `accepting`: the task that makes it, TLS handshake included."""

    def __init__(self, shared: Shared) -> None:
        loop = asyncio.get_running_loop()
        super().__init__(shared.config, shared.state, {}, loop)
        self.conn: Framing = Framing()
        self.accepting: asyncio.Task[None] | None = None
        self.is_made = False
        """Whether it has come to a connection, after the handshake."""
        self.is_queued = False
        self.since = loop.time()
        """Since when it does what it does: waits for a request, sends one, does not read its answer."""
        self._shared = shared
        self._received = bytearray()
        self._head = HeadReader()
        self._pipelined = 0
        self._answer: _CyclesTransport | None = None
        self._is_parting = False
        self._is_waiting = False  # for the rest of a head
        self._is_ended = False
        """Whether nothing more will come: the other side has said so, and still waits for its answer."""
        self._timers: dict[str, asyncio.TimerHandle] = {}

    # -- giving way ---------------------------------------------------------------------------------------------------------

    @property
    def is_silent(self) -> bool:
        """Whether it is for the other side to go on: with a handshake, a head, or reading its answer."""
        return self.cycle is None or self.cycle.response_complete or self.flow.write_paused

    @property
    def is_sending(self) -> bool:
        """Whether a body is still under way."""
        return self.cycle is not None and self.cycle.more_body

    def give_way(self) -> None:
        """End at once."""
        if self.is_made:
            self.transport.abort()
        elif self.accepting is not None:
            self.accepting.cancel()

    # -- what the transport calls -------------------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as uvicorn's
        """Wait for a request, for a while."""
        super().connection_made(transport)
        self.is_made = True
        self.flow = _Flow(transport, self._go_on)
        # So `pause_writing` is heard whenever something of an answer is left behind, not from 64 KiB on.
        transport.set_write_buffer_limits(high=1)
        self._await_head()

    def connection_lost(self, exc: Exception | None) -> None:
        """Leave nothing behind."""
        super().connection_lost(exc)
        self._unset_keepalive_if_required()  # uvicorn leaves it after an error, and with it all of this
        for timer in self._timers.values():
            timer.cancel()
        self._timers.clear()
        self._received.clear()
        self._shared.gone(self)

    def get_buffer(self, sizehint: int) -> memoryview:  # noqa: ARG002  # the base class's signature
        """See `Shared.input`."""
        return self._shared.input

    def buffer_updated(self, nbytes: int) -> None:
        """Input came; it is looked at when it is this connection's turn."""
        if self._is_parting:
            return
        self._received += self._shared.input[:nbytes]
        self._unset_keepalive_if_required()
        if self.is_silent and "head" not in self._timers:
            self._await_head()
        self._go_on()

    def eof_received(self) -> bool:  # type: ignore[override]  # as asyncio's; uvicorn says that it is always None
        """The other side sends no more. What it has sent is answered all the same (RFC 9112, 9.6); TLS knows no such half."""
        self._is_ended = True
        self._go_on()
        is_tls = self.transport.get_extra_info("sslcontext") is not None
        return not (is_tls or self._is_parting or self._is_broken_off or self._is_streaming)

    @property
    def _is_streaming(self) -> bool:
        """Whether an answer has begun that comes bit by bit: who says that it is done while that goes on, has left."""
        return self.cycle is not None and self.cycle.response_started and not self.cycle.response_complete

    @property
    def _is_broken_off(self) -> bool:
        """Whether what has come so far makes no whole request, and never will."""
        if not self._is_ended:
            return False
        if self.cycle is None or self.cycle.response_complete:
            return self._is_waiting or not self._received
        return self.is_sending and not self._received

    def pause_writing(self) -> None:
        """An answer does not leave."""
        super().pause_writing()
        self.since = self.loop.time()
        self._allow("write", self._shared.limits.write_s, "an answer was not read in time")

    def resume_writing(self) -> None:
        """It has left."""
        super().resume_writing()
        self._forget("write")

    # -- input --------------------------------------------------------------------------------------------------------------

    def work(self) -> bool:
        """See `turns.Worker`: a head, with what is there of a body that has a length; or a piece of one in chunks."""
        if self._can_go_on() and self._advance() and not self.conn.is_chunked and self._can_go_on():
            self._advance()
        self._read_on()
        if self._is_broken_off:
            self.transport.close()
        return self._can_go_on() and not self._is_waiting

    def _advance(self) -> bool:
        try:
            size = self._step()
        except ValueError as error:
            self._refuse(str(error))
            return False
        self._is_waiting = size == 0
        if size:
            piece = bytes(self._received[:size])
            del self._received[:size]
            self.data_received(piece)
        return size > 0

    def handle_events(self) -> None:
        """As uvicorn's; a request that begins ends the wait for it."""
        before = self.cycle
        super().handle_events()
        if self.cycle is not before:
            self._answer = _CyclesTransport(self.transport, self._part)
            self.cycle.transport = cast("asyncio.Transport", self._answer)
            self._forget("head")
            self.since = self.loop.time()
            if self._shared.limits.exchange_s is not None:
                self._allow(
                    "exchange", self._shared.limits.exchange_s, "a request and its answer took too long"
                )

    def send_400_response(self, msg: str) -> None:  # noqa: ARG002  # uvicorn's signature
        """The answer to what cannot be read, unless another one has begun."""
        self._shared.tell(self.conn.problem, self)
        if self.conn.our_state in (h11.IDLE, h11.SEND_RESPONSE):
            for event in BAD_REQUEST:
                self.transport.write(self.conn.send(event) or b"")
            self._part()
        else:
            self.transport.abort()
        if self.cycle is not None:  # the app reads a body that will not come
            self.cycle.disconnected = True
            self.cycle.message_event.set()

    def on_response_complete(self) -> None:
        """As uvicorn's; the connection goes on only if what was asked has been read, and nothing was asked ahead."""
        if self._answer is not None:
            self._answer.flush()
        self.since = self.loop.time()
        self._forget("exchange")
        self._pipelined = self._pipelined + 1 if self._received else 0
        if self._pipelined > PIPELINED:
            self._shared.tell("too many requests arrived before their answers were read", self)
            self._part()
        # A body that nobody wanted; or, behind one in chunks, the beginning of a request that the framing has not seen.
        elif self.conn.their_state is not h11.DONE or self.conn.trailing_data[0]:
            self._part()
        elif self._is_ended and not self._received:  # nobody will ask again
            self.transport.close()
        if not self._is_parting:
            super().on_response_complete()
        if self._received:
            self._await_head()
            self._go_on()

    def _part(self) -> None:
        """Close, or, as long as something comes in that was not read, half of it: see `PARTING_S`."""
        is_read = self.conn.their_state in (h11.DONE, h11.MUST_CLOSE, h11.CLOSED) and not self._received
        if self._is_parting:  # its answer and its end both ask for it
            return
        if is_read or self.transport.is_closing():
            self.transport.close()
            return
        self._is_parting = True
        self._received.clear()
        if self.transport.can_write_eof():
            try:
                self.transport.write_eof()
            except OSError:  # the other side has reset it meanwhile, and the loop has not heard yet
                self.transport.abort()
                return
        self._forget("head")
        self._timers["parting"] = self.loop.call_later(PARTING_S, self.transport.close)
        self._read_on()

    def _refuse(self, problem: str) -> None:
        self.conn.problem = problem
        self.send_400_response(problem)

    def _can_go_on(self) -> bool:
        reads = self.conn.their_state in (h11.IDLE, h11.SEND_BODY) and not self.flow.read_paused
        return bool(self._received) and reads and not self._is_parting and not self.transport.is_closing()

    def _step(self) -> int:
        if self.conn.their_state is h11.IDLE:
            return self._head.find(self._received) or 0
        return CHUNKED_BYTES if self.conn.is_chunked else max(1, self.conn.body_left)

    def _go_on(self) -> None:
        self._read_on()
        if self._can_go_on():
            self._shared.turns.add(self)

    def _read_on(self) -> None:
        if len(self._received) >= READ_BYTES:
            self.transport.pause_reading()
        else:
            self.transport.resume_reading()

    def _await_head(self) -> None:
        self._allow("head", self._shared.limits.head_s, NO_REQUEST)

    def _allow(self, what: str, seconds: float, problem: str) -> None:
        self._forget(what)
        self._timers[what] = self.loop.call_later(seconds, self._end, problem)

    def _forget(self, what: str) -> None:
        if timer := self._timers.pop(what, None):
            timer.cancel()

    def _end(self, problem: str) -> None:
        self._shared.tell(problem, self)
        self.transport.abort()


class _CyclesTransport:
    """What a request sees of the transport: when its answer ends the connection, the connection says how.

    Head and body of an answer leave in one write, in the next turn of the loop at the latest.
    """

    def __init__(self, transport: asyncio.Transport, part: Callable[[], None]) -> None:
        self.is_closing = transport.is_closing
        self._transport = transport
        self._part = part
        self._unsent: list[bytes] = []

    def write(self, data: bytes) -> None:
        if not self._unsent:
            asyncio.get_running_loop().call_soon(self.flush)
        self._unsent.append(data)

    def flush(self) -> None:
        unsent, self._unsent = b"".join(self._unsent), []
        if unsent and not self._transport.is_closing():
            self._transport.write(unsent)

    def close(self) -> None:
        self.flush()
        self._part()


class _Flow(FlowControl):
    """uvicorn's, without a hand on the transport: there are more reasons to stop reading than uvicorn's."""

    def __init__(self, transport: asyncio.Transport, go_on: Callable[[], None]) -> None:
        super().__init__(transport)
        self._go_on = go_on

    def pause_reading(self) -> None:
        self.read_paused = True

    def resume_reading(self) -> None:
        if self.read_paused:
            self.read_paused = False
            self._go_on()
