"""Which alerts' conditions hold now. Pure.

What must stay true: a firing alert ends only because of something seen, never for lack of knowledge. A daemon that has just
started has not heard from the store, the platform or a sink yet, and calls none of them well (`Found.unsure`).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

import msgspec

from reserve_listener.daemon import verdict
from reserve_listener.daemon.alerts.journal import Alert, Condition, Key
from reserve_listener.text import visible

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from reserve_listener.daemon.alerts.words import Words
    from reserve_listener.model import Insight

DISCONNECTED: Final = "disconnected"
GAP: Final = "gap"
OLDEST_PENDING: Final = "oldest_pending"
DEAD_LETTERS: Final = "dead_letters"
SINK_DOWN: Final = "sink_down"
STORE_FILLING: Final = "store_filling"
COMMIT_FAILING: Final = "commit_failing"
ALERTS: Final = (
    DISCONNECTED,
    GAP,
    OLDEST_PENDING,
    DEAD_LETTERS,
    SINK_DOWN,
    STORE_FILLING,
    COMMIT_FAILING,
)

FAILED_COMMITS: Final = 2
LONG_COMMIT_S: Final = 10.0

OF_DELIVERIES: Final = frozenset({OLDEST_PENDING, DEAD_LETTERS, SINK_DOWN})
"""Those of which the page of sinks and dead letters says more than that of changes."""

GAPS_SHOWN: Final = 3

SHOWN_CHARS: Final = 300
"""What is quoted of an error: a person reads it in a message on a telephone."""


class SinkNow(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """A sink as its worker, or the alerts that it carries, know it."""

    state: str
    """"ok", "failing", "down", "misconfigured", "disabled" (by hand), "gone" (by its receiver)."""
    since_ms: int | None = None
    error: str | None = None
    is_proven: bool = False
    """Whether it has carried anything since the daemon was started."""
    is_waiting: bool = True
    """Whether there is anything for it to carry, as far as is known."""


class Now(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """What the daemon's parts say. `stored` is None while the store does not tell."""

    now_ms: int
    age_ms: Callable[[int], int]
    """How long ago something was, whatever the clock was set to meanwhile."""
    is_receiving: bool
    silent_since_ms: int
    """When what is heard now, or was heard last, began or ended."""
    connection: str
    hint: str | None
    sinks: Mapping[str, SinkNow]
    stored: Insight | None
    max_bytes: int | None
    problem: str | None
    failed_commits: int
    failing_since_ms: int | None
    """When the first of them failed."""
    stuck_s: float
    is_full: bool


@dataclass(frozen=True, kw_only=True)
class Terms:
    """From when on something is worth an alert, and in which words. Times are milliseconds."""

    disconnected_ms: int
    oldest_pending_ms: int
    reconciles: bool
    """Whether the rooms are compared with the platform after a gap."""
    words: Words


@dataclass(kw_only=True)
class Found:
    """Conditions that hold, and keys of which nothing is known."""

    gap_ms: int
    """Up to here each gap has had its alert."""
    holding: dict[Key, Condition] = field(default_factory=dict)
    unsure: set[Key] = field(default_factory=set)


def look(now: Now, terms: Terms, firing: Mapping[Key, int], gap_ms: int) -> Found:
    """All conditions. `firing`: since when each alert does. `gap_ms`: up to here each gap has had its alert."""
    looking, found = _Looking(now, terms, firing), Found(gap_ms=gap_ms)
    conditions = {Key(DISCONNECTED): looking.disconnected(), Key(COMMIT_FAILING): looking.commits()}
    for name, sink in now.sinks.items():
        conditions[Key(SINK_DOWN, name)] = looking.sink(name, sink)
        if not _is_known(sink, now):
            found.unsure.add(Key(SINK_DOWN, name))
    if now.stored is None:
        found.unsure |= {Key(GAP), Key(OLDEST_PENDING), Key(DEAD_LETTERS), Key(STORE_FILLING)}
    else:
        conditions |= {
            Key(GAP): looking.gap(now.stored, found),
            Key(OLDEST_PENDING): looking.oldest_pending(now.stored),
            Key(DEAD_LETTERS): looking.dead_letters(now.stored),
            Key(STORE_FILLING): looking.filling(now.stored),
        }
    found.holding = {key: condition for key, condition in conditions.items() if condition is not None}
    return found


def ended(alert: Alert, *, now: Now, words: Words) -> tuple[str, str]:
    """Summary and detail of an alert that has ended."""
    if alert.alert == GAP:
        return _gap_is(now, alert.since_ms, words), ""
    summary = {
        DISCONNECTED: words.connected,
        OLDEST_PENDING: words.oldest_delivered,
        DEAD_LETTERS: words.no_dead_letters,
        SINK_DOWN: _sink_is(now.sinks.get(alert.sink or ""), words),
        STORE_FILLING: words.store_has_room,
        COMMIT_FAILING: words.committing,
    }[alert.alert]
    return summary.format(sink=alert.sink), words.lasted.format(span=words.span(now.age_ms(alert.since_ms)))


def _gap_is(now: Now, since_ms: int, words: Words) -> str:
    compared = [
        (found, not_read or 0)
        for _, to_ms, found, not_read in (now.stored.gaps if now.stored else [])
        if to_ms >= since_ms and found is not None
    ]
    if not compared:
        return words.gap_left
    # Each gap counts all that was found since it began, so the first of several has what the others have, too.
    over = words.gap_over.format(count=max(found for found, _ in compared))
    not_read = max(not_read for _, not_read in compared)
    return over + words.gap_not_read.format(count=not_read) if not_read else over


def _sink_is(sink: SinkNow | None, words: Words) -> str:
    if sink is None:
        return words.sink_removed
    return words.sink_disabled if sink.state == "disabled" else words.sink_up


@dataclass(frozen=True)
class _Looking:
    """One look. Each method says what holds of its kind, if anything does."""

    now: Now
    terms: Terms
    firing: Mapping[Key, int]

    def disconnected(self) -> Condition | None:
        """Changes are not heard."""
        now, words = self.now, self.terms.words
        # One that fired before a restart goes on: the silence is the same one.
        since_ms = self.firing.get(Key(DISCONNECTED), now.silent_since_ms)
        silent_ms = now.age_ms(since_ms)
        is_short = silent_ms < self.terms.disconnected_ms and Key(DISCONNECTED) not in self.firing
        if now.is_receiving or is_short:
            return None
        hint = f"{now.hint}. " if now.hint else ""
        return Condition(
            since_ms=since_ms,
            summary=words.disconnected.format(span=words.span(silent_ms)),
            detail=words.disconnected_detail.format(text=_quoted(now.connection), hint=hint),
        )

    def gap(self, stored: Insight, found: Found) -> Condition | None:
        """Changes may have been missed: until the rooms are compared with the platform, or for a day if nobody does that."""
        if not stored.gaps:
            return None
        words, now_ms, reconciles = self.terms.words, self.now.now_ms, self.terms.reconciles
        newest = from_ms, to_ms, _, _ = max(stored.gaps, key=lambda gap: gap[1])
        # One that is old when it is first seen is not told any more.
        is_new, is_old = to_ms > found.gap_ms, now_ms - to_ms > verdict.GAP_LEFT_MS
        open_gaps = verdict.open_gaps(stored.gaps, now_ms=now_ms, reconciles=reconciles)
        if is_old if is_new else newest not in open_gaps or Key(GAP) not in self.firing:
            return None
        found.gap_ms = to_ms
        times = words.gap_times(sorted({newest, *open_gaps}, key=lambda gap: gap[1])[-GAPS_SHOWN:])
        detail = words.gap_reconciling if reconciles else words.gap_by_hand
        return Condition(
            since_ms=to_ms,
            summary=words.gap.format(span=words.span(to_ms - from_ms)),
            detail=detail.format(times=times),
        )

    def oldest_pending(self, stored: Insight) -> Condition | None:
        """Deliveries are late. Those of a disabled sink do not age."""
        words = self.terms.words
        waiting = [
            (sink.oldest_ms, sink)
            for sink in stored.sinks
            if sink.configured and sink.disabled_ms is None and sink.oldest_ms is not None
        ]
        if not waiting:
            return None
        oldest_ms, sink = min(waiting, key=lambda one: one[0])
        age_ms = self.now.age_ms(oldest_ms)
        if age_ms < self.terms.oldest_pending_ms:
            return None
        return Condition(
            since_ms=oldest_ms,
            summary=words.oldest_pending.format(sink=sink.name, span=words.span(age_ms)),
            detail=words.oldest_pending_detail.format(count=sink.pending),
        )

    def dead_letters(self, stored: Insight) -> Condition | None:
        """Deliveries were given up."""
        words, dead = self.terms.words, [sink for sink in stored.sinks if sink.dead]
        if not dead:
            return None
        sinks = ", ".join(f"{sink.name} {sink.dead}" for sink in dead)
        return Condition(
            since_ms=stored.first_dead_ms or self.now.now_ms,
            summary=words.dead_letters.format(count=sum(sink.dead for sink in dead)),
            detail=words.dead_letters_detail.format(sinks=_quoted(sinks)),
        )

    def sink(self, name: str, sink: SinkNow) -> Condition | None:
        """A sink is down, or set up wrongly, or has been failing for so long that it is late."""
        words, key = self.terms.words, Key(SINK_DOWN, name)
        since_ms = self.firing.get(key) or sink.since_ms or self.now.now_ms
        span_ms = self.now.age_ms(since_ms)
        # What was given up has alerts of its own. A sink that has nothing to carry is late with nothing.
        is_late = span_ms >= verdict.LATE_MS and sink.is_waiting
        is_short = sink.state == "failing" and not is_late and key not in self.firing
        if sink.state not in words.sink_down or is_short:
            return None
        detail = words.sink_gone_detail if sink.state == "gone" else words.sink_down_detail
        return Condition(
            since_ms=since_ms,
            summary=words.sink_down[sink.state].format(sink=name, span=words.span(span_ms)),
            detail=detail.format(sink=name, error=_quoted(sink.error or sink.state)),
        )

    def filling(self, stored: Insight) -> Condition | None:
        """The store nears its bound."""
        words, size, bound = self.terms.words, stored.size_bytes, self.now.max_bytes
        if size is None or bound is None or not verdict.is_filling(size, bound):
            return None
        return Condition(
            since_ms=self.now.now_ms,
            summary=words.store_filling.format(percent=f"{100 * size / bound:.0f}"),
            detail=words.store_filling_detail,
        )

    def commits(self) -> Condition | None:
        """Changes are refused: until the next good commit, also if the one that took so long has failed in the end."""
        now, words = self.now, self.terms.words
        is_stuck, is_firing = now.stuck_s > LONG_COMMIT_S, Key(COMMIT_FAILING) in self.firing
        if not (is_stuck or now.is_full or now.failed_commits >= (1 if is_firing else FAILED_COMMITS)):
            return None
        return Condition(
            since_ms=min(now.failing_since_ms or now.now_ms, now.now_ms - round(now.stuck_s * 1000)),
            summary=words.commit_failing,
            detail=words.commit_failing_detail.format(problem=_quoted(now.problem or "")),
        )


def page_of(alert: str, page: str) -> str:
    """Where on the page a person finds more about it."""
    return f"{page.rstrip('/')}/deliveries" if alert in OF_DELIVERIES else page


def _is_known(sink: SinkNow, now: Now) -> bool:
    """Whether a sink that is not in trouble is known to be well, or to be disabled by a person."""
    if sink.state == "disabled":
        return now.stored is not None
    return sink.is_proven or not sink.is_waiting


def _quoted(text: str) -> str:
    """What others say, at the beginning of a sentence of ours: on one line, as it goes to chats and telephones."""
    return visible(text, SHOWN_CHARS).rstrip(".。")
