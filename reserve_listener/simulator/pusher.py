"""Sends pushes, takes their answers, and pushes again.

An attempt goes to one random open connection. It has failed if the answer is not 200, if there is none in time, if its
connection ends, or, at once, if nobody is connected.
"""

from __future__ import annotations

import asyncio
import itertools
from collections import Counter
from typing import TYPE_CHECKING, Any, Final, Protocol

import msgspec

from reserve_listener.lark import frames
from reserve_listener.simulator.pushes import Attempt, Ledger, Push, Sent

if TYPE_CHECKING:
    import random
    from collections.abc import Sequence

    from reserve_listener.simulator.faults import Faults
    from reserve_listener.simulator.signal import Signal
    from reserve_listener.simulator.watcher import Watcher

_OK: Final = 200


class Carrier(Protocol):
    """Carries pushes to a client: a connection or an address."""

    def carry(self, push: Push, message_id: str) -> None:
        """Send one attempt, at once. Its answer, if there is one, goes to `Pusher.answer`."""


class Carriers(Protocol):
    """The carriers to choose from."""

    def open(self) -> Sequence[Carrier]:
        """The open ones; if there are none, an attempt fails at once."""


class _Header(msgspec.Struct):
    event_id: str | None = None


class _Envelope(msgspec.Struct):
    header: _Header = msgspec.field(default_factory=_Header)


class _Answer(msgspec.Struct):
    code: int


_envelopes: Final = msgspec.json.Decoder(_Envelope)
_answers: Final = msgspec.json.Decoder(_Answer)


class Pusher:
    """Pushes through the gateway; `signal` is fired after each outcome."""

    def __init__(
        self,
        *,
        gateway: Carriers,
        ledger: Ledger,
        faults: Faults,
        random: random.Random,
        signal: Signal,
        watcher: Watcher,
    ) -> None:
        self.acknowledged: set[str] = set()
        self.answers: Counter[int | None] = Counter()
        self.unexpected = 0
        self._gateway = gateway
        self._ledger = ledger
        self._faults = faults
        self._random = random
        self._signal = signal
        self._watcher = watcher
        # No two simulators share an id: a client that joins parts may remember the ones of the last.
        self._prefix = f"sim-{random.getrandbits(48):012x}-"
        self._ids = itertools.count(1)

    def push(
        self, envelope: dict[str, Any] | bytes, *, message_id: str | None = None, **options: Any
    ) -> Push:
        """Make the first attempt of a push (twice with the fault `duplicate`). `options`: fields of `Push`."""
        payload = envelope if isinstance(envelope, bytes) else msgspec.json.encode(envelope)
        parts = max(options.pop("parts", 1), self._faults.split)
        push = Push(
            event_id=_event_id(payload),
            payload=payload,
            message_id=message_id or self._new_id(),
            parts=max(1, min(parts, len(payload))),
            **options,
        )
        duplicate = self._faults.duplicate
        if duplicate and self._random.random() < duplicate:
            push.copy = Push(
                event_id=push.event_id,
                payload=payload,
                message_id=self._new_id(),
                type=push.type,
                parts=push.parts,
                retry=push.retry,
            )
        self._attempt(push, push.message_id)
        if push.copy is not None:
            self._attempt(push.copy, push.copy.message_id)
        return push

    def answered(self, frame: Any) -> None:
        """Take a data frame from a client: the answer to an attempt, or else `unexpected`."""
        try:
            code = _answers.decode(frame.payload).code
        except msgspec.DecodeError:
            code = None
        self.answer(frames.headers_of(frame).get(frames.MESSAGE_ID, ""), code)

    def answer(self, message_id: str, code: int | None) -> None:
        """Take the answer to this message; None: it says nothing, so the attempt has failed."""
        sent = self._ledger.answered(message_id)
        if sent is None or code is None:
            self.unexpected += 1
        if sent is not None:
            self._conclude(sent.push, Attempt(code or 0, self._now() - sent.at))

    def lost(self, connection: Carrier) -> None:
        """Conclude the attempts whose connection has ended."""
        self._fail(list(self._ledger.lost(connection)), self._now())

    def tick(self, now: float) -> None:
        """Conclude the attempts whose time is up, and make those that are due."""
        self._fail(list(self._ledger.overdue(now)), now)
        for push in list(self._ledger.due(now)):
            self._attempt(push, self._new_id())

    def _attempt(self, push: Push, message_id: str) -> None:
        connections = self._gateway.open()
        if not connections:
            self._conclude(push, Attempt(None, 0.0))
            return
        connection = self._random.choice(connections) if len(connections) > 1 else connections[0]
        self._ledger.sent(message_id, Sent(push, self._now(), connection))
        connection.carry(push, message_id)

    def _fail(self, attempts: list[Sent], now: float) -> None:
        for sent in attempts:
            self._conclude(sent.push, Attempt(None, now - sent.at))

    def _conclude(self, push: Push, attempt: Attempt) -> None:
        self.answers[attempt.code] += 1
        again_in = None
        if attempt.code == _OK:
            if push.event_id is not None:
                self.acknowledged.add(push.event_id)
        else:
            again_in = self._ledger.retry_after(push)
        if again_in is not None:
            self._ledger.retry_at(self._now() + again_in, push)
        push.conclude(attempt, settled=again_in is None)
        self._watcher.concluded(push, attempt, again_in)
        self._signal.fire()

    def _new_id(self) -> str:
        return f"{self._prefix}{next(self._ids)}"

    def _now(self) -> float:
        return asyncio.get_running_loop().time()


def _event_id(payload: bytes) -> str | None:
    try:
        return _envelopes.decode(payload).header.event_id
    except (msgspec.DecodeError, UnicodeDecodeError):
        return None
