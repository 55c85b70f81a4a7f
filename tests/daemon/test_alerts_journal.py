"""What is told of conditions that come and go, by a clock of our own."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec
from hypothesis import given, strategies as st

from reserve_listener.daemon.alerts import journal
from reserve_listener.daemon.alerts.journal import Alert, Condition, Key, decide
from tests.helpers import NOW_MS

if TYPE_CHECKING:
    from collections.abc import Iterable

DOWN = Key("sink_down", "booking")
MINUTE, HOUR = 60_000, 3_600_000


class Journal:
    """The journal of one daemon, second by second. `told`: when, and what."""

    def __init__(self, *, repeat_ms: int = 6 * HOUR) -> None:
        self.known: dict[Key, Alert] = {}
        self.told: list[tuple[int, str]] = []
        self.now_ms = NOW_MS
        self._repeat_ms = repeat_ms

    def look(self, *keys: Key, unsure: Iterable[Key] = (), after_ms: int = 1000) -> None:
        """So much later these conditions hold."""
        self.now_ms += after_ms
        holding = {
            key: Condition(since_ms=self.now_ms, summary=f"at {self.now_ms}", detail="") for key in keys
        }
        changed = decide(
            self.known,
            holding,
            set(unsure),
            now_ms=self.now_ms,
            repeat_ms=self._repeat_ms,
            ended=lambda _: ("over", ""),
        )
        for alert, is_told in list(changed):
            self.known[alert.key] = alert
            if is_told:
                self.told.append((self.now_ms - NOW_MS, alert.state))

    def restart(self) -> None:
        """What was remembered is read again."""
        kept = msgspec.json.decode(
            msgspec.json.encode(journal.Memory(alerts=list(self.known.values()))), type=journal.Memory
        )
        self.known = {alert.key: alert for alert in kept.alerts}


def test_once_when_it_begins_and_once_when_it_ends() -> None:
    """However often it is looked at; since when it fires stays."""
    it = Journal()
    for _ in range(5):
        it.look(DOWN)
    since_ms = it.known[DOWN].since_ms
    it.restart()
    it.look(DOWN)
    assert it.known[DOWN].since_ms == since_ms == NOW_MS + 1000
    for _ in range(5):
        it.look()
    assert it.told == [(1000, "firing"), (7000, "resolved")]
    assert it.known[DOWN].since_ms == since_ms
    assert it.known[DOWN].summary == "over"


def test_it_is_repeated_while_it_lasts() -> None:
    """Every `repeat`, in the words of that time, also when a restart or a clock that was set lies between."""
    it = Journal(repeat_ms=HOUR)
    it.look(DOWN)
    for _ in range(3):
        it.look(DOWN, after_ms=30 * MINUTE)
    it.restart()
    it.look(DOWN, after_ms=30 * MINUTE)
    assert [state for _, state in it.told] == ["firing"] * 3
    assert it.known[DOWN].summary == f"at {it.now_ms}"
    it.look(DOWN, after_ms=-100 * HOUR)
    it.look(DOWN, after_ms=59 * MINUTE)
    assert len(it.told) == 3
    it.look(DOWN, after_ms=2 * MINUTE)
    assert len(it.told) == 4


def test_what_is_unsure_stays_as_it_is() -> None:
    """It neither begins nor ends, and is not repeated: nothing is known of it."""
    it = Journal(repeat_ms=1000)
    it.look(unsure=[DOWN])
    assert it.told == []
    it.look(DOWN)
    for _ in range(5):
        it.look(unsure=[DOWN])
    assert [state for _, state in it.told] == ["firing"]
    it.look()
    assert [state for _, state in it.told] == ["firing", "resolved"]


def test_an_end_is_told_at_once_the_first_time_and_later_the_more_often_it_flaps() -> None:
    """A minute, two, four, up to a quarter of an hour; an hour of calm forgets it all."""
    it = Journal()
    waits = []
    for _ in range(7):
        it.look(DOWN)
        start_ms = it.now_ms
        while it.known[DOWN].is_firing:
            it.look()
        waits.append((it.now_ms - start_ms - 1000) // MINUTE)
    assert waits == [0, 1, 2, 4, 8, 15, 15]
    it.look(after_ms=2 * HOUR)
    it.look(DOWN)
    it.look()
    assert [state for _, state in it.told[-2:]] == ["firing", "resolved"]


def test_each_sink_has_an_alert_of_its_own() -> None:
    """One that comes up again says nothing of another."""
    it, other = Journal(), Key("sink_down", "audit")
    it.look(DOWN, other)
    it.look(other)
    assert [alert.state for alert in it.known.values()] == ["resolved", "firing"]


def test_what_has_ended_long_ago_is_forgotten() -> None:
    """Unless somebody still waits to be told of it."""
    it = Journal()
    it.look(DOWN)
    firing = it.known[DOWN]
    it.look()
    resolved = it.known[DOWN]
    later = it.now_ms + 2 * HOUR
    assert journal.is_forgotten(resolved, later)
    assert not journal.is_forgotten(resolved, it.now_ms + MINUTE)
    assert not journal.is_forgotten(firing, later)
    assert not journal.is_forgotten(msgspec.structs.replace(resolved, waiting=("ops",)), later)


@given(st.lists(st.tuples(st.booleans(), st.integers(1, 120), st.booleans()), max_size=200))
def test_however_it_flaps_there_is_no_storm(steps: list[tuple[bool, int, bool]]) -> None:
    """Beginnings and ends alternate, over restarts too, and of neither there are more than eight in an hour."""
    it = Journal()
    for holds, seconds, restarts in steps:
        it.look(*([DOWN] if holds else []), after_ms=seconds * 1000)
        if restarts:
            it.restart()
    states = [state for _, state in it.told]
    assert states == (["firing", "resolved"] * len(states))[: len(states)]
    for at_ms, _ in it.told:
        assert len([one for one, state in it.told if state == "firing" and at_ms <= one < at_ms + HOUR]) <= 8
