"""What is done with each frame of the long connection, apart from any socket.

A data frame is answered with the frame itself, its payload replaced by `{"code": 200}` or `{"code": 500}` and a
`biz_rt` header with the milliseconds taken (lark_oapi/ws/client.py, `_handle_data_frame`). What must stay true: 200 only
for a verdict that is committed; no frame, whatever is in it, raises.
"""

from __future__ import annotations

import time
from functools import partial
from typing import TYPE_CHECKING, Any, Final

import msgspec
import structlog

from reserve_listener import frames
from reserve_listener.transports.parts import Parts, PartsError

if TYPE_CHECKING:
    from collections.abc import Callable

    from reserve_listener.model import Verdict
    from reserve_listener.protocols import Accept

ANSWER_OK: Final = b'{"code": 200}'
ANSWER_AGAIN: Final = b'{"code": 500}'

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
                self._data(frame)
            else:
                raise frames.FrameError(f"unknown method {frame.method}")
        except (frames.FrameError, PartsError, ValueError, RecursionError) as error:
            log.warning("connection.garbage_frame", error=str(error)[:200], bytes=len(message))
        except Exception as error:  # noqa: BLE001  # ours, not the peer's; unanswered, so it is pushed again
            log.error(
                "connection.frame_failed", error=f"{type(error).__name__}: {error}"[:200]
            )  # no payload in a traceback

    def _control(self, frame: Any) -> None:
        if frames.headers_of(frame).get(frames.TYPE) != frames.PONG:
            return
        self.pongs += 1
        if frame.payload:
            config = msgspec.json.decode(frame.payload)
            if isinstance(config, dict):
                self._configure(config)

    def _data(self, frame: Any) -> None:
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
            self._accept(payload, partial(self._answer, frame, time.monotonic()))

    def _answer(self, frame: Any, started: float, verdict: Verdict) -> None:
        frame.headers.add(key=frames.BIZ_RT, value=str(round((time.monotonic() - started) * 1000)))
        frame.payload = ANSWER_OK if verdict.committed else ANSWER_AGAIN
        self._send(frames.encode(frame))
