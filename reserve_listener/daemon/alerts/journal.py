"""Which alerts to announce as conditions come and go. Pure.

What must stay true: each alert is announced once when it begins, once when it ends, and every `repeat_ms` while it lasts, even
across restarts. If it comes back soon after its end, its next end is announced later, each time twice as late (`quiet_ms`):
however fast a condition flaps, people hear of it only a few times an hour.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple, Protocol

import msgspec

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping

CALM_MS: Final = 3600 * 1000
"""An alert that has not been firing for so long starts over: its next end is told at once."""

FIRST_QUIET_MS: Final = 60_000
LONGEST_QUIET_MS: Final = 900_000
"""What has been well for a quarter of an hour has ended, whatever was before."""


class Key(NamedTuple):
    """Which alert. `sink`: the one that it is about, of an alert that there is for each."""

    alert: str
    sink: str | None = None


class Condition(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """Something that holds now, in words."""

    since_ms: int
    summary: str
    detail: str


class Alert(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The last that was told of an alert, and what is needed to tell the next."""

    alert: str
    sink: str | None = None
    is_firing: bool
    since_ms: int
    summary: str
    detail: str
    told_ms: int
    begun: int = 1
    """How often it has begun without an hour of calm between."""
    clear_ms: int | None = None
    """Since when the condition no longer holds, though the end is not told yet."""
    waiting: tuple[str, ...] = ()
    """The alert sinks that have not got this yet."""

    @property
    def key(self) -> Key:
        """Which alert it is."""
        return Key(self.alert, self.sink)

    @property
    def state(self) -> str:
        """As receivers are told."""
        return "firing" if self.is_firing else "resolved"


class Marks(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """By what one sink finds again what it told of one alert (`protocols.Sink`)."""

    carrier: str
    alert: str
    sink: str | None = None
    marks: tuple[str, ...]

    @property
    def key(self) -> Key:
        """Of which alert."""
        return Key(self.alert, self.sink)


class Memory(msgspec.Struct, frozen=True, kw_only=True):
    """What outlives the daemon."""

    alerts: list[Alert] = []
    gap_ms: int = 0
    """Up to here each time without a connection had its alert."""
    marks: list[Marks] = []


class Ended(Protocol):
    """Says in words that an alert has ended."""

    def __call__(self, alert: Alert, /) -> tuple[str, str]:
        """Summary and detail of it."""


def decide(
    known: Mapping[Key, Alert],
    holding: Mapping[Key, Condition],
    unsure: Collection[Key],
    *,
    now_ms: int,
    repeat_ms: int,
    ended: Ended,
) -> Iterator[tuple[Alert, bool]]:
    """What is different now, and whether it is to be told. What is `unsure` stays as it is."""
    for key, condition in holding.items():
        yield from _holding(known.get(key), key, condition, now_ms, repeat_ms)
    for key, alert in known.items():
        if key not in holding and key not in unsure and alert.is_firing:
            yield from _clear(alert, now_ms, ended)


def quiet_ms(begun: int) -> int:
    """How long a condition has to be gone before the end of its alert is told."""
    if begun <= 1:
        return 0
    return min(FIRST_QUIET_MS << min(begun - 2, 10), LONGEST_QUIET_MS)


def is_forgotten(alert: Alert, now_ms: int) -> bool:
    """Whether nothing of it matters any more."""
    return not alert.is_firing and not alert.waiting and abs(now_ms - alert.told_ms) > CALM_MS


def _holding(
    alert: Alert | None, key: Key, condition: Condition, now_ms: int, repeat_ms: int
) -> Iterator[tuple[Alert, bool]]:
    if alert is None or not alert.is_firing:
        calm = alert is None or now_ms - alert.told_ms > CALM_MS
        yield _begun(key, condition, now_ms, 1 if alert is None or calm else alert.begun + 1), True
        return
    # A clock that was set back must not silence it: what was told in the future counts as told now.
    told_ms = min(alert.told_ms, now_ms)
    if now_ms - told_ms >= repeat_ms:
        again = msgspec.structs.replace(
            alert, summary=condition.summary, detail=condition.detail, told_ms=now_ms, clear_ms=None
        )
        yield again, True
    elif alert.clear_ms is not None or told_ms != alert.told_ms:
        yield msgspec.structs.replace(alert, clear_ms=None, told_ms=told_ms), False


def _begun(key: Key, condition: Condition, now_ms: int, begun: int) -> Alert:
    return Alert(
        alert=key.alert,
        sink=key.sink,
        is_firing=True,
        since_ms=condition.since_ms,
        summary=condition.summary,
        detail=condition.detail,
        told_ms=now_ms,
        begun=begun,
    )


def _clear(alert: Alert, now_ms: int, ended: Ended) -> Iterator[tuple[Alert, bool]]:
    clear_ms = now_ms if alert.clear_ms is None else min(alert.clear_ms, now_ms)
    if now_ms - clear_ms >= quiet_ms(alert.begun):
        summary, detail = ended(alert)
        yield (
            msgspec.structs.replace(
                alert, is_firing=False, summary=summary, detail=detail, told_ms=now_ms, clear_ms=None
            ),
            True,
        )
    elif alert.clear_ms != clear_ms:
        yield msgspec.structs.replace(alert, clear_ms=clear_ms), False
