"""Pushes: what the platform has sent, which answers came, and what to push again.

Every attempt ends exactly once: answered in time, or not. A push is over (`settled`) once an attempt was answered 200 or all
retries are used up.
"""

from __future__ import annotations

import heapq
import itertools
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple

from reserve_listener.lark import frames
from reserve_listener.simulator.signal import Signal

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence


class Attempt(NamedTuple):
    """One attempt: the answer's code (None: no answer in time), and how long it took in seconds."""

    code: int | None
    elapsed: float


@dataclass(slots=True, eq=False, kw_only=True)
class Push:
    """One event on its way to the client; made by `Simulator.push`."""

    event_id: str | None
    payload: bytes
    message_id: str
    """The id of the first attempt. Each later one has its own: otherwise late answers could not be told apart."""
    type: str = frames.EVENT
    parts: int = 1
    part_order: Sequence[int] | None = None
    repeat_parts: bool = False
    retry: bool = True
    attempts: list[Attempt] = field(default_factory=list)
    copy: Push | None = None
    """The second push of the same event, made by the fault `duplicate`."""
    settled: bool = False
    first_outcome: Callable[[], Any] | None = None
    _signal: Signal | None = None

    @property
    def code(self) -> int | None:
        """The last attempt's code; None: no answer."""
        return self.attempts[-1].code if self.attempts else None

    async def answered(self, timeout: float = 5.0) -> int | None:  # noqa: ASYNC109
        """The last attempt's code (None: no answer in time), once at least one attempt is over; `TimeoutError`."""
        await self._until(lambda: bool(self.attempts), timeout)
        return self.code

    async def tried(self, count: int, timeout: float = 5.0) -> list[Attempt]:  # noqa: ASYNC109
        """The attempts, once `count` of them are over; `TimeoutError`."""
        await self._until(lambda: len(self.attempts) >= count, timeout)
        return self.attempts

    async def over(self, timeout: float = 5.0) -> int | None:  # noqa: ASYNC109
        """The last code, once the push was answered 200 or given up; `TimeoutError`."""
        await self._until(lambda: self.settled, timeout)
        return self.code

    async def _until(self, condition: Callable[[], bool], timeout: float) -> None:  # noqa: ASYNC109
        if self._signal is None:
            self._signal = Signal()  # not for each of ten thousand pushes that nobody waits for
        await self._signal.until(condition, timeout)

    def conclude(self, attempt: Attempt, *, settled: bool) -> None:
        """Note the outcome of an attempt, and tell those who wait for it."""
        self.attempts.append(attempt)
        self.settled = settled
        if self.first_outcome is not None:
            tell, self.first_outcome = self.first_outcome, None
            tell()
        if self._signal is not None:
            self._signal.fire()

    def wire(self, message_id: str, service: int) -> list[bytes]:
        """The messages of one attempt, in the order to send them."""
        first = not self.attempts
        count = self.parts
        size = len(self.payload)
        order = self.part_order if first and self.part_order is not None else range(count)
        messages = [
            self._part(
                message_id, service, seq, self.payload[seq * size // count : (seq + 1) * size // count]
            )
            for seq in order
        ]
        if first and self.repeat_parts:
            return [message for message in messages for _ in range(2)]
        return messages

    def _part(self, message_id: str, service: int, seq: int, payload: bytes) -> bytes:
        headers = (
            (frames.TYPE, self.type),
            (frames.MESSAGE_ID, message_id),
            (frames.TRACE_ID, message_id),
            (frames.SUM, str(self.parts)),
            (frames.SEQ, str(seq)),
        )
        return frames.encode(
            frames.new(service=service, method=frames.DATA, headers=headers, payload=payload)
        )


class Sent(NamedTuple):
    """An attempt that has no answer yet. `at`: the loop's time; `connection` is only compared."""

    push: Push
    at: float
    connection: object


class Ledger:
    """The open attempts, and the retries to come. Times are the loop's, in seconds."""

    def __init__(self, *, answer_timeout: float, retry_delays: Sequence[float]) -> None:
        self.answer_timeout = answer_timeout
        self.retry_delays = retry_delays
        # Kept in the order of sending, which is the order of the deadlines too.
        self._waiting: dict[str, Sent] = {}
        self._retries: list[tuple[float, int, Push]] = []
        self._ties = itertools.count()

    @property
    def unanswered(self) -> int:
        """How many attempts are on their way."""
        return len(self._waiting)

    @property
    def to_retry(self) -> int:
        """How many pushes are waiting for their next attempt."""
        return len(self._retries)

    def sent(self, message_id: str, sent: Sent) -> None:
        """Expect the answer to this message. `ValueError` if the id is already on its way."""
        if message_id in self._waiting:
            raise ValueError(f"message {message_id} is already on its way")
        self._waiting[message_id] = sent

    def answered(self, message_id: str) -> Sent | None:
        """Take out the attempt that was answered; None if it is unknown or the answer too late."""
        return self._waiting.pop(message_id, None)

    def retry_after(self, push: Push) -> float | None:
        """The seconds until the next attempt, after one more has failed; None if it was the last."""
        failed = len(push.attempts)
        if not push.retry or failed >= len(self.retry_delays):
            return None
        return self.retry_delays[failed]

    def retry_at(self, due: float, push: Push) -> None:
        """Have `due` return the push again at this time."""
        heapq.heappush(self._retries, (due, next(self._ties), push))

    def overdue(self, now: float) -> Iterator[Sent]:
        """Take out the attempts that have not been answered in time."""
        expired = list(
            itertools.takewhile(lambda item: now - item[1].at >= self.answer_timeout, self._waiting.items())
        )
        for message_id, sent in expired:
            del self._waiting[message_id]
            yield sent

    def lost(self, connection: object) -> Iterator[Sent]:
        """Take out the attempts that cannot be answered any more, since their connection is gone."""
        gone = [item for item in self._waiting.items() if item[1].connection is connection]
        for message_id, sent in gone:
            del self._waiting[message_id]
            yield sent

    def due(self, now: float) -> Iterator[Push]:
        """Take out the pushes whose next attempt is due."""
        while self._retries and self._retries[0][0] <= now:
            yield heapq.heappop(self._retries)[2]
