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
    """Says last what the sinks receive of an event: after this its body is never changed."""

    def __call__(self, event: IncomingEvent, previous: Known | None, /) -> Completed | None:
        """An event that is not stored yet, compared with what is known of its scope; None: there is nothing to say.

        Pure, and called in the store's thread, in the order in which events are stored.
        """


class Compare(Protocol):
    """Says what a reading of limits comes to."""

    def __call__(self, reading: Reading, tenant_key: str, previous: Known | None, /) -> Compared:
        """A reading, compared with what is known of its scope. Pure, and called in the store's thread, as `Complete` is.

        The same reading with the same state makes an event with the same id.
        """


class Transport(Protocol):
    """How pushes come in, as the daemon drives it. It hands them to an `Accept`."""

    state: State

    @property
    def last_frame_s(self) -> float | None:
        """When something was last read from the platform, on the monotonic clock; None when that is not known."""

    async def run(self) -> None:
        """Hear pushes until cancelled, whatever happens on the way. Raises `ReserveListenerError` for what is final."""

    def on_resume(self) -> None:
        """The machine was asleep: look whether pushes still come in."""

    def reconnect(self) -> bool:
        """As a person asks: connect anew, now, losing nothing. False when there is nothing to connect."""

    def stop_accepting(self) -> None:
        """Take no more pushes, as the end is near: the platform pushes them again. Answers can still be sent."""

    async def close(self) -> None:
        """Send the answers that are ready and give everything back. Bounded in time; does not raise."""


class Sink(Protocol):
    """Carries events out of the daemon. It never loops, sleeps or retries: the delivery engine does.

    `deliver` may be called again for events it has carried already (at least once), always with the same body.

    A sink may have `window_s`: for so many seconds after the first event the daemon waits for more, to hand them over
    together. What was pending at the start, and what is tried again, does not wait.

    A sink may have `one_per_scope`: if it is true, no two deliveries of a batch are of the same room or level, so that it may
    carry them side by side.

    A sink may have `tell_alert(alert, marks)`: it is awaited instead of `deliver` with each alert that the daemon tells, and
    returns marks, short texts by which it finds again what it posted. They are remembered over restarts while the alert
    fires, and are handed back with the next that is told of it: so a sink can say in the old place that it has ended.
    """

    name: str
    batch_size: int
    """How many events one `deliver` takes at the most."""
    max_in_flight: int
    """How many `deliver` calls may run at the same time, never two for one scope."""
    needs_raw: bool
    """Whether deliveries shall hold what the platform sent (`Delivery.raw`)."""

    async def deliver(self, deliveries: Sequence[Delivery]) -> None:
        """Carry all of them, in order, or raise `DeliveryError` for the whole batch; `PartlyDeliveredError` if they differ.

        Returns only when they are where they belong (a file is fsynced, a receiver has answered). Cancellation may
        leave them carried or not; they are then delivered again.
        """

    async def close(self) -> None:
        """Give back what is held. May be called twice; does not raise."""


def _hide_nothing(_secret: str, _instead_of: str) -> None:
    """Where there is no log."""


@dataclass(frozen=True, kw_only=True)
class SinkRuntime:
    """What the daemon gives a sink."""

    name: str
    """The sink's name in the configuration: `Sink.name`, and what its messages begin with."""
    write_events: Callable[[Sequence[dict[str, Any]]], Awaitable[None]]
    """Writes lines to the daemon's own log. Returns when they are out; raises `OSError` when they cannot be."""
    reserved: Collection[Path] = ()
    """What a sink never writes to, whatever name it goes by: the store, secrets, the configuration."""
    language: Literal["en", "zh"] = "en"
    """In which changes are told to people (`lark.language`)."""
    public_url: str | None = None
    """Where people find the page (`status.public_url`)."""
    app: Any = None
    """The platform's app (`config.LarkConfig`), for a sink that posts as the app itself. None where nothing will be sent."""
    hide: Callable[[str, str], None] = _hide_nothing
    """Tells the log to mask the first text from now on, and that it may forget the second."""


class SinkKind(Protocol):
    """A type of sink: what `type = "…"` of a `[[sinks]]` table means. Built in, or a plugin's (docs/plugins.md).

    An object may have more, each of which may be left out:

    - `files`: keys of its settings that name files which it reads.
    - `secrets`: keys that name files with secrets. Each file is one line and is read once, when the configuration is
      loaded: what is used, masked and compared by a reload is the same. A mapping says for each key how its file is read.
      The files of `files` and `secrets` are systemd credentials first, and no file sink may write to them.
    - `writes`: keys that name files which it writes to: no two sinks may name the same.
    - `masks(settings, secrets)`: texts that nothing may show, beside the secrets' own and every `SecretStr`.
    - `needs`: modules that must be installed, each with what to give to `pip install` for it.
    - `check(settings, secrets, runtime)`: what `reserve-listener check` says of such a sink; changes and sends nothing.
      Raises `ConfigError` for what would keep it from working. May block.
    - `target(settings, secrets, runtime)`: the `net.target.Target` that `check --online` tries to reach. May block.
    - `takes_alerts(settings)`: False for a sink that can carry only what the platform sent.
    - `docs`: a line that says what such sinks do.
    """

    @property
    def name(self) -> str:
        """The `type`."""

    @property
    def settings(self) -> type[BaseModel]:
        """Its own keys. name, type, retry and the filters are the daemon's; a key that nobody knows is refused."""

    def build(self, settings: Any, secrets: Mapping[str, Any], runtime: SinkRuntime, /) -> Sink:
        """A sink of these settings. Opens no connection. May block, in any thread; raises `ConfigError`.

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
        """The kind of this name, the same object each time; None when there is none.

        Raises `ConfigError` for one that cannot be used: it does not load, is no kind, or is offered twice.
        """
