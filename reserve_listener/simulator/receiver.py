"""A webhook receiver for tests: keeps what arrives, and answers as told."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, TypeAlias

from starlette.requests import Request
from starlette.responses import Response

from reserve_listener.simulator.signal import Signal

if TYPE_CHECKING:
    from collections.abc import Callable

    from starlette.types import Receive, Scope, Send


@dataclass(frozen=True, kw_only=True, slots=True)
class Received:
    """One request. `headers` have lower-case names; `at`: `time.monotonic()` when the body was complete."""

    method: str
    path: str
    headers: dict[str, str]
    body: bytes
    at: float


@dataclass(frozen=True, kw_only=True, slots=True)
class Answer:
    """What to answer: after `delay` seconds, `status` with `headers` and `body`."""

    status: int = 200
    delay: float = 0.0
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b""


Answers: TypeAlias = "int | Answer | Sequence[int | Answer] | Callable[[Received], int | Answer]"


class Receiver:
    """An ASGI app; serve it with `HttpServer(receiver)`.

    `answer`: a status or `Answer` for all requests, a sequence with one for each (200 after its end), or a callable that is given
    the request. `received` is in the order of arrival, and has a request before its answer goes out.
    """

    def __init__(self, answer: Answers = 200) -> None:
        self._script: deque[int | Answer] = deque()
        self.answer = answer
        self.received: list[Received] = []
        self.open_requests = 0
        self.most_open_requests = 0
        self._signal = Signal()

    @property
    def answer(self) -> Answers:
        """How to answer from now on."""
        return self._answer

    @answer.setter
    def answer(self, answer: Answers) -> None:
        self._answer = answer
        self._script = deque(answer if isinstance(answer, Sequence) else ())

    async def wait_for(self, count: int, timeout: float = 5.0) -> list[Received]:  # noqa: ASYNC109
        """All requests so far, once there are `count` of them; `TimeoutError` after `timeout` seconds."""
        await self._signal.until(lambda: len(self.received) >= count, timeout)
        return self.received

    async def until(self, condition: Callable[[], bool], timeout: float = 5.0) -> None:  # noqa: ASYNC109
        """Return once the condition holds, which is checked with each request; `TimeoutError` after `timeout` seconds."""
        await self._signal.until(condition, timeout)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Keep the request, then answer it."""
        request = Request(scope, receive)
        received = Received(
            method=request.method,
            path=request.url.path,
            headers=dict(request.headers),
            body=await request.body(),
            at=time.monotonic(),
        )
        self.received.append(received)
        self._signal.fire()
        self.open_requests += 1
        self.most_open_requests = max(self.most_open_requests, self.open_requests)
        try:
            await self._send(self._next(received), scope, receive, send)
        finally:
            self.open_requests -= 1

    async def _send(self, answer: Answer, scope: Scope, receive: Receive, send: Send) -> None:
        if answer.delay:
            await asyncio.sleep(answer.delay)
        response = Response(answer.body, status_code=answer.status, headers=answer.headers)
        await response(scope, receive, send)

    def _next(self, received: Received) -> Answer:
        answer = self._answer
        if isinstance(answer, Sequence):
            answer = self._script.popleft() if self._script else 200
        elif callable(answer):
            answer = answer(received)
        return Answer(status=answer) if isinstance(answer, int) else answer
