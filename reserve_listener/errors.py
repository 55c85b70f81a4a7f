"""Errors, classified by what has to happen next.

A `ReserveListenerError` ends a command: its text is shown to the user unchanged, and its `exit_code` becomes the
process's. A `DeliveryError` never leaves the delivery engine: a sink raises it to say what an answer means.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence


class ReserveListenerError(Exception):
    """An error that ends the command. The text says what is wrong, where, and what to do; `hint` says how to start a daemon again."""

    exit_code = 1
    hint = "fix what the reason names, then start the daemon again; it resumes where it stopped"


class ConfigError(ReserveListenerError):
    """The configuration is wrong; a restart will not fix it."""

    exit_code = 78
    hint = "fix the configuration, run `reserve-listener check`, then start the daemon again"


class RefusedAtStartError(ReserveListenerError):
    """The platform refused an app that this store has never seen connected."""

    exit_code = 77
    hint = "run `reserve-listener check --online` to check lark.app_id, lark.app_secret and lark.domain, then start the daemon again"


class StoreError(ReserveListenerError):
    """The store cannot be opened or used."""

    hint = "run `reserve-listener check` and look at the store's disk, owner and mode; everything answered 200 is in the store"


class WrongStoreError(StoreError):
    """What `store.url` names is not a store of ours: a directory, another program's file."""

    exit_code = ConfigError.exit_code
    hint = ConfigError.hint


class StoreAwayError(StoreError):
    """The server of the store cannot be reached now. Waiting may help."""


class StoreInUseError(StoreError):
    """Another daemon holds the store."""

    exit_code = 75
    hint = "stop the other daemon, or give this one a store.url of its own"


class LeaseLostError(StoreError):
    """Another replica does this now: nothing was written. Not a fault; the former holder leaves the rest to that replica."""


class NotFoundError(ReserveListenerError):
    """The requested thing does not exist."""


class NoAnswerError(ReserveListenerError):
    """A daemon is running but does not answer."""


class DeliveryError(Exception):
    """A sink could not deliver. `str(error)` is kept with the delivery and shown to people."""

    status: int | None = None
    """The receiver's HTTP status, if it answered."""


class TransientDeliveryError(DeliveryError):
    """A retry may succeed. `retry_after` is the delay the receiver asks for, in seconds.

    `down` is whether the receiver as a whole seems to be down, which opens the circuit breaker; an answer of the 400
    class says that it is up.
    """

    def __init__(self, message: str, *, retry_after: float | None = None, down: bool = True) -> None:
        super().__init__(message)
        self.retry_after = retry_after
        self.down = down


class MisconfiguredSinkError(DeliveryError):
    """The sink is set up wrongly (HTTP 3xx, 401 to 405, 407, 421, 451): retried slowly and loudly."""


class SinkGoneError(DeliveryError):
    """The receiver says it is gone for good (HTTP 410): the sink is disabled until an operator enables it."""


class PermanentDeliveryError(DeliveryError):
    """The receiver will never accept this event: it becomes a dead letter."""


class PartlyDeliveredError(DeliveryError):
    """The deliveries of a batch had different outcomes: `errors` has one for each, in order, or None if it was delivered.

    After a failure that will be retried, none of that room's or level's later events may have been delivered: they would be out of order.
    """

    def __init__(self, errors: Sequence[DeliveryError | None]) -> None:
        super().__init__(next((str(error) for error in errors if error is not None), ""))
        self.errors = errors
