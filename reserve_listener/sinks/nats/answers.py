"""What a JetStream stream answers to events that are published side by side.

What must stay true: whatever becomes of the connection, each event has one outcome. The client's own `publish` does the same for twice
the time an event: it makes a task, a time limit and an inbox with random letters for each.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import msgspec
from nats import errors
from nats.js.errors import APIError, NoStreamResponseError

if TYPE_CHECKING:
    from nats.aio.client import Client
    from nats.aio.msg import Msg

    from reserve_listener.sinks.brokers.together import Batch

NOBODY: Final = "503"
"""The status of an answer that the server itself gives: nobody listens to the subject."""


class _Error(msgspec.Struct, gc=False):
    code: int | None = None
    err_code: int | None = None
    description: str | None = None


class _Acknowledgement(msgspec.Struct, gc=False):
    """What a stream answers; `error` only if it has not taken the event."""

    error: _Error | None = None


_acknowledgement: Final = msgspec.json.Decoder(_Acknowledgement).decode


class Answers:
    """Those that come to one client, over one subscription."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self._inbox = ""
        self._waiting: dict[str, tuple[Batch[Exception], int]] = {}
        self._count = 0

    async def listen(self) -> None:
        """Subscribe, before the first `ask`. After a reconnect the client does so itself."""
        inbox = self._client.new_inbox()
        await self._client.subscribe(f"{inbox}.*", cb=self._answered)
        self._inbox = inbox

    @property
    def are_heard(self) -> bool:
        """Whether `ask` may be called."""
        return bool(self._inbox)

    async def ask(
        self, batch: Batch[Exception], number: int, *, subject: str, body: bytes, headers: dict[str, str]
    ) -> None:
        """Publish the event of this number; the batch is told what becomes of it."""
        self._count += 1
        name = str(self._count)
        self._waiting[name] = (batch, number)
        try:
            await self._client.publish(subject, body, reply=f"{self._inbox}.{name}", headers=headers)
        except (errors.Error, OSError, ValueError) as error:
            self._end(name, error)

    def forget(self, batch: Batch[Exception]) -> None:
        """Nobody waits for this batch any more."""
        for name in [name for name, (other, _) in self._waiting.items() if other is batch]:
            del self._waiting[name]

    async def lost(self) -> None:
        """The connection broke, and with it the answers. A stream that has the events says so when they come again."""
        for name in list(self._waiting):
            self._end(name, ConnectionResetError("the connection broke before the acknowledgement came"))

    async def _answered(self, message: Msg) -> None:
        self._end(message.subject.rpartition(".")[2], refusal(message))

    def _end(self, name: str, outcome: Exception | None) -> None:
        if (asked := self._waiting.pop(name, None)) is not None:
            batch, number = asked
            batch.end(number, outcome)


def refusal(message: Msg) -> Exception | None:
    """Why an event is not in a stream; None: it is. Must not raise: the event would be waited for in vain."""
    if message.headers is not None and message.headers.get("Status") == NOBODY:
        return NoStreamResponseError()
    try:
        error = _acknowledgement(message.data).error
    except msgspec.DecodeError as wrong:  # an answer that is none, of whoever it is
        return wrong
    # Not by `APIError.from_error`, which raises what it is to return: nobody would be told before the time-out.
    return None if error is None else APIError(error.code, error.description, error.err_code)
