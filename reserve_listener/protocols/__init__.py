"""The seams of the daemon: transport, sink, and what a kind of sink is; `protocols.store` has the roles of the store.

Each says what its implementations promise about idempotence, blocking, cancellation and errors. Fakes and later
implementations pass the same contract tests.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, Protocol

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
    from pathlib import Path

    from pydantic import BaseModel

    from reserve_listener.model import (
        Compared,
        Completed,
        Delivery,
        IncomingEvent,
        Known,
        Reading,
        State,
        Verdict,
    )


class Accept(Protocol):
    """Intake, as a transport sees it."""

    def __call__(self, raw: bytes, answer: Callable[[Verdict], None], /) -> None:
        """Take one payload. Never raises and never blocks.

        `answer` is called once with the verdict, on the loop, within 2.5 s; also before this returns.
        """


class Complete(Protocol):
    """Decides what sinks receive of an event: after this its body never changes."""

    def __call__(self, event: IncomingEvent, previous: Known | None, /) -> Completed | None:
        """Compare an event that is not stored yet with what is known of its scope; None: there is nothing to add.

        Pure, and called in the store's thread, in the order in which events are stored.
        """


class Compare(Protocol):
    """Decides what follows from a reading of limits."""

    def __call__(self, reading: Reading, tenant_key: str, previous: Known | None, /) -> Compared:
        """Compare a reading with what is known of its scope. Pure, and called in the store's thread, like `Complete`.

        The same reading with the same state gives an event with the same id.
        """


class Transport(Protocol):
    """Receives pushes and hands them to an `Accept`."""

    state: State

    @property
    def last_frame_s(self) -> float | None:
        """When something was last read from the platform, on the monotonic clock; None if unknown."""

    async def run(self) -> None:
        """Receive pushes until cancelled, whatever happens. Raises `ReserveListenerError` for a final error."""

    def on_resume(self) -> None:
        """Called after the machine was asleep: check that pushes still arrive."""

    def reconnect(self) -> bool:
        """Connect anew at once, on request, losing nothing. False if there is nothing to connect."""

    def stop_accepting(self) -> None:
        """Accept no more pushes before a stop: the platform retries them. Answers can still be sent."""

    async def close(self) -> None:
        """Send the answers that are ready and release all resources. Bounded in time; does not raise."""


class Sink(Protocol):
    """Delivers events to a destination. It never loops, sleeps or retries: the delivery engine does that.

    `deliver` may be called again for events that it has already delivered (at least once), always with the same body.

    A sink may have `window_s`: the daemon then waits this many seconds after the first event for more, to hand them over
    together. Deliveries that were pending at the start, and retries, do not wait.

    A sink may have `one_per_scope`: if it is true, a batch never has two deliveries of the same room or level, so that the
    sink may deliver them concurrently.

    A sink may have `tell_alert(alert, marks)`: it is awaited for each alert instead of `deliver`, and returns marks, short
    texts by which the sink finds its post again. While the alert fires, the daemon keeps them, across restarts too, and
    passes them to the next call for that alert, so that a sink can update its post when the alert ends.
    """

    name: str
    batch_size: int
    """The maximum number of events per `deliver`."""
    max_in_flight: int
    """How many `deliver` calls may run at the same time, never two for one scope."""
    needs_raw: bool
    """Whether deliveries must contain the platform's push (`Delivery.raw`)."""

    async def deliver(self, deliveries: Sequence[Delivery]) -> None:
        """Deliver all, in order, or raise `DeliveryError` for the whole batch; `PartlyDeliveredError` if outcomes differ.

        Returns only once they have safely arrived (a file is fsynced, a receiver has answered). If it is cancelled, they
        may have arrived or not; they are then delivered again.
        """

    async def close(self) -> None:
        """Release all resources. May be called twice; does not raise."""


def _hide_nothing(_secret: str, _instead_of: str) -> None:
    """Used if there is no log."""


@dataclass(frozen=True, kw_only=True)
class SinkRuntime:
    """What the daemon gives a sink."""

    name: str
    """The sink's name in the configuration: becomes `Sink.name`, and begins its messages."""
    write_events: Callable[[Sequence[dict[str, Any]]], Awaitable[None]]
    """Writes lines to the daemon's own log. Returns once they are written; raises `OSError` if that fails."""
    reserved: Collection[Path] = ()
    """Files that no sink may write to, under any name: the store, secrets, the configuration."""
    language: Literal["en", "zh"] = "en"
    """The language in which changes are described (`lark.language`)."""
    public_url: str | None = None
    """Where people find the page (`status.public_url`)."""
    app: Any = None
    """The platform's app (`config.LarkConfig`), for a sink that posts as the app itself. None if nothing will be sent."""
    hide: Callable[[str, str], None] = _hide_nothing
    """Tells the log to mask the first text from now on, and to forget the second."""


class SinkKind(Protocol):
    """A type of sink: what `type = "…"` of a `[[sinks]]` table means. Built in, or a plugin's (docs/plugins.md).

    It may also have any of these:

    - `files`: keys of its settings that name files to read.
    - `secrets`: keys that name files with secrets. Each file is one line and is read once, when the configuration is
      loaded, so that the value used, masked and compared on a reload is the same. A mapping says for each key how to read
      its file. Names in `files` and `secrets` are looked up among the systemd credentials first, and no file sink may write
      to these files.
    - `writes`: keys that name files to write to: no two sinks may name the same one.
    - `masks(settings, secrets)`: texts that must never be shown, besides the secrets themselves and every `SecretStr`.
    - `needs`: modules that must be installed, each with the argument of `pip install` that provides it.
    - `check(settings, secrets, runtime)`: the text of `reserve-listener check` for such a sink; changes and sends nothing.
      Raises `ConfigError` if the sink could not work. May block.
    - `target(settings, secrets, runtime)`: the `net.target.Target` that `check --online` tries to reach. May block.
    - `takes_alerts(settings)`: False if the sink can deliver only what the platform sent.
    - `docs`: a line that says what such sinks do.
    """

    @property
    def name(self) -> str:
        """The `type`."""

    @property
    def settings(self) -> type[BaseModel]:
        """Its own keys. name, type, retry and the filters are the daemon's; unknown keys are refused."""

    def build(self, settings: Any, secrets: Mapping[str, Any], runtime: SinkRuntime, /) -> Sink:
        """Make a sink with these settings. Opens no connection. May block, in any thread; raises `ConfigError`.

        `settings` is an instance of `settings`. `secrets` has a `SecretStr` for each key of `secrets` that is set.
        """


class SinkKinds(Protocol):
    """All kinds there are."""

    @property
    def built_in(self) -> Collection[str]:
        """The names of those that come with the daemon."""

    def installed(self) -> Collection[str]:
        """The names that plugins offer."""

    def find(self, name: str, /) -> SinkKind | None:
        """The kind of this name, the same object each time; None if there is none.

        Raises `ConfigError` if it cannot be used: it does not load, is not a kind of sink, or is offered twice.
        """
