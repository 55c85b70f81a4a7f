"""What is done with each frame of the long connection, apart from any socket.

A data frame is answered with the frame itself, its payload replaced by `{"code": 200}` or `{"code": 500}` and a
`biz_rt` header with the milliseconds taken (lark_oapi/ws/client.py, `_handle_data_frame`). What must stay true: 200 only
for a verdict that is committed; no frame, whatever is in it, raises; what is held of the frames is bounded.
"""

from __future__ import annotations

import time
from functools import partial
from typing import TYPE_CHECKING, Any, Final

import msgspec
import structlog

from reserve_listener.lark import frames
from reserve_listener.model import Verdict
from reserve_listener.observability.throttle import Throttle
from reserve_listener.transports.long_connection.failures import ConnectionLostError
from reserve_listener.transports.long_connection.parts import Parts, PartsError

if TYPE_CHECKING:
    from collections.abc import Callable

    from reserve_listener.protocols import Accept

ANSWER_OK: Final = b'{"code": 200}'
ANSWER_AGAIN: Final = b'{"code": 500}'

HELD_BYTES: Final = 4 * frames.MAX_FRAME_BYTES
"""The budget for all that is held of one connection. A message that is being read takes at most a quarter of it, and frames
that wait for their verdict another; what the peer has not read, and payloads with missing parts, have the rest."""

IN_HAND_BYTES: Final = HELD_BYTES // 4

LARGE_BYTES: Final = 64 * 1024
"""A frame beyond this waits for its verdict without its payload. To copy each would cost more than it spares."""

LINES_EVERY_S: Final = 1.0

log = structlog.get_logger("connection")


class FrameHandler:
    """Turns frames into calls of `accept`, and verdicts into answers given to `send`."""

    def __init__(
        self,
        accept: Accept,
        send: Callable[[bytes], None],
        configure: Callable[[dict[str, Any]], None],
    ) -> None:
        self._accept = accept
        self._send = send
        self._configure = configure
        self._parts = Parts()
        self._throttle = Throttle(LINES_EVERY_S)
        self._in_hand_bytes = 0
        self.pongs = 0
        """Answers to our pings so far."""

    def handle(self, message: bytes | str) -> None:
        """One WebSocket message. Never raises: what is no frame is logged."""
        try:
            if isinstance(message, str):
                raise frames.FrameError("a text message")
            frame = frames.decode(message)
            if not frame.IsInitialized():
                raise frames.FrameError("required fields are missing")  # it could not go back as the answer
            if frame.method == frames.CONTROL:
                self._control(frame)
            elif frame.method == frames.DATA:
                self._data(frame, len(message))
            else:
                raise frames.FrameError(f"unknown method {frame.method}")
        except (frames.FrameError, PartsError, ValueError, RecursionError) as error:
            self._tell(log.warning, "connection.garbage_frame", error=str(error)[:200], bytes=len(message))
        except Exception as error:  # noqa: BLE001  # ours, not the peer's; unanswered, so it is pushed again
            problem = f"{type(error).__name__}: {error}"[:200]  # no payload in a traceback
            self._tell(log.error, "connection.frame_failed", error=problem)

    def keep_bounds(self, held_elsewhere: int) -> None:
        """Let go what the budget has no room for, the oldest first. Raises `ConnectionLostError` if that is not enough."""
        room = HELD_BYTES - self._in_hand_bytes - held_elsewhere
        if room < 0:
            raise ConnectionLostError(
                "the platform sends data but does not read our answers", by_server=False
            )
        self._parts.shrink(room)

    def _tell(self, write: Callable[..., None], event: str, **facts: object) -> None:
        """A peer that sends nonsense sends it by the thousand."""
        self._throttle.tell(event, write, event, **facts)

    def _control(self, frame: Any) -> None:
        if frames.headers_of(frame).get(frames.TYPE) != frames.PONG:
            return
        self.pongs += 1
        if frame.payload:
            config = msgspec.json.decode(frame.payload)
            if isinstance(config, dict):
                self._configure(config)

    def _data(self, frame: Any, size: int) -> None:
        headers = frames.headers_of(frame)
        kind = headers.get(frames.TYPE)
        if kind != frames.EVENT:
            # A card callback gets no answer, as in the SDK; it is no event.
            raise frames.FrameError(f"data of type {kind!r}")
        payload: bytes | None = frame.payload
        total = int(headers.get(frames.SUM) or 1)
        if total > 1:
            seq = int(headers.get(frames.SEQ) or 0)
            message_id = headers.get(frames.MESSAGE_ID)
            if not message_id:
                raise frames.FrameError("a part of a message without an id")
            payload = self._parts.add(message_id, total, seq, frame.payload)
        if payload is not None:
            self._hand_over(frame, payload, size)

    def _hand_over(self, frame: Any, payload: bytes, size: int) -> None:
        if size > LARGE_BYTES:
            frame = _without_payload(frame)
            size = frame.ByteSize()
        self._in_hand_bytes += size
        answer = partial(self._answer, frame, size, time.monotonic())
        if self._in_hand_bytes > IN_HAND_BYTES:
            self._tell(log.warning, "connection.overloaded", bytes=self._in_hand_bytes)
            answer(Verdict.OVERLOADED)
        else:
            self._accept(payload, answer)

    def _answer(self, frame: Any, size: int, started: float, verdict: Verdict) -> None:
        self._in_hand_bytes -= size
        frame.headers.add(key=frames.BIZ_RT, value=str(round((time.monotonic() - started) * 1000)))
        frame.payload = ANSWER_OK if verdict.committed else ANSWER_AGAIN
        self._send(frames.encode(frame))


def _without_payload(frame: Any) -> Any:
    """The memory of a field that is cleared is given back only with its message, so it takes a new one."""
    frame.ClearField("payload")
    slim = frames.Frame()
    slim.CopyFrom(frame)
    return slim
