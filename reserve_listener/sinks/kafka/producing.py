"""librdkafka's producer, with a thread that waits for its reports.

What must stay true: a message is delivered when the broker's report says so, never when it is queued. After an error that it
calls fatal, of which an idempotent producer has several, it never sends again: it is let go of, and the next is a new one.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import threading
from collections import deque
from functools import partial
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from confluent_kafka import KafkaError, KafkaException, Message, Producer

from reserve_listener.sinks.brokers.together import Batch

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

POLL_S: Final = 0.5
"""How long the thread waits for reports at a time: the longest that closing takes."""
_SILENT: Final = logging.getLogger("reserve_listener.librdkafka")
_SILENT.setLevel(logging.CRITICAL + 1)  # what it logs it reports, too; by default it writes to standard error


class ToProduce(NamedTuple):
    """A message, as the client takes it."""

    topic: str
    key: bytes
    value: bytes
    headers: list[tuple[str, str | bytes | None]]


Outcome = KafkaError | Exception
"""What went wrong with a message; a `TimeoutError`: nobody knows."""


class Producing:
    """One producer. Makes it, which reads certificates, in its own thread: nothing here blocks."""

    def __init__(self, name: str, options: Mapping[str, Any]) -> None:
        self._options = {**options, "error_cb": self._failed}
        self._loop = asyncio.get_running_loop()
        self._made: asyncio.Future[Producer] = self._loop.create_future()
        self._ended = asyncio.Event()
        self._stop = threading.Event()
        self._reports: deque[tuple[Batch[Outcome], int, KafkaError | None]] = deque()
        self.last_error: KafkaError | None = None
        """What it said of brokers and connections since one last took a message: messages themselves only time out."""
        self.is_dead = False
        threading.Thread(target=self._run, name=f"kafka-{name}", daemon=True).start()

    async def produce(self, messages: Sequence[ToProduce], timeout_s: float) -> list[Outcome | None]:
        """Send messages, and wait for the reports on them, so long at the most."""
        batch: Batch[Outcome] = Batch(len(messages))
        try:
            async with asyncio.timeout(timeout_s):
                producer = await asyncio.shield(self._made)
                for number, message in enumerate(messages):
                    self._send(producer, message, batch, number)
                await batch.ended()
        except TimeoutError:
            pass
        except (KafkaException, ValueError) as error:  # what was to be the producer's options
            return [error] * len(messages)
        return batch.outcomes

    def _send(self, producer: Producer, message: ToProduce, batch: Batch[Outcome], number: int) -> None:
        try:
            producer.produce(
                message.topic,
                value=message.value,
                key=message.key,
                headers=message.headers,
                on_delivery=partial(self._report, batch, number),
            )
        except (KafkaException, BufferError) as error:
            batch.end(number, error)

    def let_go(self) -> None:
        """What is under way may arrive or not; nobody is told."""
        self.is_dead = True
        self._stop.set()

    async def ended(self) -> None:
        """Until its thread is through."""
        await self._ended.wait()

    def _run(self) -> None:
        try:
            producer = Producer(self._options, logger=_SILENT)
        except (KafkaException, ValueError) as error:
            self.is_dead = True
            self._call(_refuse, self._made, error)
        else:
            self._call(_settle, self._made, producer)
            while not self._stop.is_set():
                producer.poll(POLL_S)
            producer.purge()
            producer.poll(0)
        self._call(self._ended.set)

    def _report(self, batch: Batch[Outcome], number: int, error: KafkaError | None, _: Message) -> None:
        """Reports come by the hundred: the loop is woken for the first of those that it has not seen."""
        self._reports.append((batch, number, error))
        if len(self._reports) == 1:
            self._call(self._tell)

    def _tell(self) -> None:
        while self._reports:
            batch, number, error = self._reports.popleft()
            if error is None:
                self.last_error = None
            elif error.fatal():
                self.is_dead = True
            batch.end(number, error)

    def _failed(self, error: KafkaError) -> None:
        self.last_error = error
        self.is_dead = self.is_dead or error.fatal()

    def _call(self, function: Any, *arguments: Any) -> None:
        with contextlib.suppress(RuntimeError):  # the loop is closed: nobody waits
            self._loop.call_soon_threadsafe(function, *arguments)


def _settle(future: asyncio.Future[Any], result: object) -> None:
    if not future.done():
        future.set_result(result)


def _refuse(future: asyncio.Future[Any], error: Exception) -> None:
    if not future.done():
        future.set_exception(error)
        future.exception()  # somebody who was cancelled does not ask
