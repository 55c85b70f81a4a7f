"""The three seams of the daemon: transport, store, sink.

Each says what its implementations promise about idempotence, blocking, cancellation and errors. Fakes and later
implementations pass the same contract tests.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Collection, Sequence

    from reserve_listener.model import Delivery, IncomingEvent, Outcome, Verdict


class Accept(Protocol):
    """Intake, as a transport sees it."""

    def __call__(self, raw: bytes, /) -> asyncio.Future[Verdict]:
        """Take one payload. Never raises and never blocks; the future always gets a verdict, within 2.5 s."""


class Sink(Protocol):
    """Carries events out of the daemon. It never loops, sleeps or retries: the delivery engine does.

    `deliver` may be called again for events it has carried already (at least once), always with the same body.
    """

    name: str
    batch_size: int
    """How many events one `deliver` takes at the most."""
    max_in_flight: int
    """How many `deliver` calls may run at the same time, never two for one scope."""

    async def deliver(self, deliveries: Sequence[Delivery]) -> None:
        """Carry all of them, in order, or raise `DeliveryError` for the whole batch.

        Returns only when they are where they belong (a file is fsynced, a receiver has answered). Cancellation may
        leave them carried or not; they are then delivered again.
        """

    async def close(self) -> None:
        """Give back what is held. May be called twice; does not raise."""


class Store(Protocol):
    """Keeps events and their deliveries on stable storage. One writer; every method is safe to cancel.

    Errors of the medium (disk full, I/O) reach the caller as `StoreError`; nothing of the call is then stored.
    """

    def append(self, event: IncomingEvent) -> asyncio.Future[Verdict]:
        """Store an event with one delivery per sink, in one transaction. Resolves after the commit.

        Idempotent by (tenant_key, event_id). Does not block; OVERLOADED when too much waits for the commit.
        """

    async def claim(
        self, sink: str, *, limit: int, now_ms: int, excluding: Collection[int]
    ) -> list[Delivery]:
        """The oldest due deliveries of a sink whose scope is not held back by an earlier one that waits.

        Changes nothing: what is claimed and not settled is claimed again after a restart. `excluding` are the seqs
        that the caller has in hand.
        """

    async def next_due_ms(self, sink: str, *, after_ms: int) -> int | None:
        """The first time after `after_ms` at which a delivery comes due; None when none waits."""

    async def settle(self, sink: str, outcomes: Sequence[Outcome]) -> None:
        """Persist outcomes, all or none. Idempotent."""
