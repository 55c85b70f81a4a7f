"""What holds, of all that there are alerts for, by what the daemon's parts say."""

from __future__ import annotations

import string
from dataclasses import fields, replace
from typing import Any

import msgspec
import pytest

from reserve_listener.clock import now_ms, rfc3339
from reserve_listener.daemon import verdict
from reserve_listener.daemon.alerts import conditions
from reserve_listener.daemon.alerts.conditions import (
    COMMIT_FAILING,
    DEAD_LETTERS,
    DISCONNECTED,
    GAP,
    OLDEST_PENDING,
    SINK_DOWN,
    STORE_FILLING,
    Found,
    Now,
    SinkNow,
    Terms,
    look,
)
from reserve_listener.daemon.alerts.journal import Alert, Condition, Key
from reserve_listener.daemon.alerts.words import CHINESE, ENGLISH, LANGUAGES, Words
from reserve_listener.model import Insight, SinkState
from reserve_listener.web.answers import SinkStatus
from tests.helpers import NOW_MS

S, H = 1000, 3_600_000
TERMS = Terms(disconnected_ms=600 * S, oldest_pending_ms=900 * S, reconciles=True, words=ENGLISH)
WELL = Now(
    now_ms=NOW_MS,
    age_ms=lambda since_ms: NOW_MS - since_ms,
    is_receiving=True,
    silent_since_ms=NOW_MS - H,
    connection="connected",
    hint=None,
    sinks={},
    stored=Insight(),
    max_bytes=1000,
    problem=None,
    failed_commits=0,
    failing_since_ms=None,
    stuck_s=0.0,
    is_full=False,
)


def found(
    *, firing: dict[Key, int] | None = None, gap_ms: int = 0, terms: Terms = TERMS, **now: Any
) -> Found:
    """What is found, of a daemon that is well but for this."""
    return look(msgspec.structs.replace(WELL, **now), terms, firing or {}, gap_ms)


def one(key: Key, **given: Any) -> Condition | None:
    """The condition of this key, if it holds; no other does."""
    holding = found(**given).holding
    assert holding.keys() <= {key}
    return holding.get(key)


def sink(name: str = "booking", **given: Any) -> SinkState:
    """A sink as the store knows it."""
    usual: dict[str, Any] = {"configured": True, "pending": 0, "dead": 0}
    return SinkState(name=name, disabled_ms=None, disabled_reason=None, **{**usual, **given})


def test_a_daemon_that_is_well_has_none() -> None:
    """Nothing holds, and nothing is unsure."""
    assert found() == Found(gap_ms=0)


@pytest.mark.parametrize(("silent_s", "holds"), [(1, False), (599, False), (600, True), (7200, True)])
def test_disconnected(silent_s: int, *, holds: bool) -> None:
    """After `disconnected_after`; a connection that is there has no such alert, however long it was away before."""
    silent = {"silent_since_ms": NOW_MS - silent_s * S, "connection": "waiting 3 s (refused)", "hint": "look"}
    condition = one(Key(DISCONNECTED), is_receiving=False, **silent)
    assert (condition is not None) is holds
    assert one(Key(DISCONNECTED), is_receiving=True, **silent) is None
    if condition is not None:
        assert condition.since_ms == silent["silent_since_ms"]
        assert condition.detail.startswith("waiting 3 s (refused). look. ")


def test_disconnected_goes_on_after_a_restart() -> None:
    """The daemon has been silent for a second only, but the alert fired before: it is told since when."""
    firing = {Key(DISCONNECTED): NOW_MS - 2 * H}
    condition = one(Key(DISCONNECTED), firing=firing, is_receiving=False, silent_since_ms=NOW_MS - S)
    assert condition is not None
    assert "for 2 h" in condition.summary


@pytest.mark.parametrize(
    ("trouble", "fresh", "firing"),
    [
        ({"failed_commits": 1}, False, True),
        ({"failed_commits": 2}, True, True),
        ({"stuck_s": 10.0}, False, False),
        ({"stuck_s": 10.1}, True, True),
        ({"is_full": True}, True, True),
        ({}, False, False),
    ],
)
def test_commit_failing(trouble: dict[str, Any], *, fresh: bool, firing: bool) -> None:
    """Two in a row, or one of over 10 s, begin it; only a good one ends it."""
    key = Key(COMMIT_FAILING)
    assert (one(key, **trouble, problem="disk full") is not None) is fresh
    assert (one(key, **trouble, problem="disk full", firing={key: 1}) is not None) is firing


def test_commits_fail_since_the_first_that_failed() -> None:
    """Not since the second, which only proves it; and one that hangs since it began."""
    for trouble, since_s in (
        ({"failed_commits": 2, "failing_since_ms": NOW_MS - 40 * S}, 40),
        ({"stuck_s": 25.0}, 25),
        ({"failed_commits": 2, "failing_since_ms": NOW_MS - 40 * S, "stuck_s": 25.0}, 40),
        ({"is_full": True}, 0),
    ):
        condition = one(Key(COMMIT_FAILING), **trouble)
        assert condition is not None
        assert condition.since_ms == NOW_MS - since_s * S


def test_store_filling() -> None:
    """From 70 %, as everywhere; without a bound never."""
    assert one(Key(STORE_FILLING), stored=Insight(size_bytes=700)) is None
    condition = one(Key(STORE_FILLING), stored=Insight(size_bytes=731))
    assert condition is not None
    assert condition.summary == "The store is 73 % full."
    assert one(Key(STORE_FILLING), stored=Insight(size_bytes=731), max_bytes=None) is None


def test_dead_letters() -> None:
    """Of all sinks together, also of one that is no longer configured, since the first of them."""
    stored = Insight(sinks=[sink(dead=2), sink("old", configured=False, dead=1)], first_dead_ms=NOW_MS - H)
    condition = one(Key(DEAD_LETTERS), stored=stored)
    assert condition is not None
    assert condition.since_ms == NOW_MS - H
    assert ("3" in condition.summary, "booking 2, old 1" in condition.detail) == (True, True)


def test_oldest_pending() -> None:
    """The oldest of all; what waits for a sink that is disabled, or is none any more, does not age."""
    late = NOW_MS - 901 * S
    stored = Insight(
        sinks=[sink("new", pending=1, oldest_ms=NOW_MS - S), sink(pending=7, oldest_ms=late)],
    )
    condition = one(Key(OLDEST_PENDING), stored=stored)
    assert condition is not None
    assert condition.since_ms == late
    assert "booking for 15 min" in condition.summary
    for other in (
        sink(pending=1, oldest_ms=NOW_MS - 899 * S),
        SinkState(
            name="off",
            configured=True,
            pending=1,
            dead=0,
            oldest_ms=late,
            disabled_ms=1,
            disabled_reason="by hand",
        ),
        sink(configured=False, pending=1, oldest_ms=late),
    ):
        assert one(Key(OLDEST_PENDING), stored=Insight(sinks=[other])) is None


def test_ages_are_those_of_the_daemon() -> None:
    """A clock that jumped ahead makes nothing old."""
    stored = Insight(sinks=[sink(pending=1, oldest_ms=NOW_MS - 100 * H)])
    still: dict[str, Any] = {"age_ms": lambda _: 0}
    assert one(Key(OLDEST_PENDING), stored=stored, **still) is None
    assert one(Key(DISCONNECTED), is_receiving=False, **still) is None


@pytest.mark.parametrize(
    ("state", "since_s", "holds"),
    [
        ("down", 0, True),
        ("misconfigured", 0, True),
        ("gone", 0, True),
        ("failing", 299, False),
        ("failing", 300, True),
        ("disabled", 9999, False),
        ("ok", 0, False),
    ],
)
def test_sink_down(state: str, since_s: int, *, holds: bool) -> None:
    """Down, misconfigured or gone at once, failing once it is late; what a person has disabled wakes nobody."""
    now = SinkNow(state=state, since_ms=NOW_MS - since_s * S, error="HTTP 503", is_proven=True)
    condition = one(Key(SINK_DOWN, "booking"), sinks={"booking": now})
    assert (condition is not None) is holds
    if condition is not None:
        assert condition.since_ms == now.since_ms
        assert "booking" in condition.summary
        assert condition.detail.startswith("HTTP 503. ")


@pytest.mark.parametrize(
    ("state", "waits", "fires"), [("failing", False, False), ("failing", True, True), ("down", False, True)]
)
def test_a_sink_that_has_given_up_all_it_had_is_late_with_nothing(
    state: str, *, waits: bool, fires: bool
) -> None:
    """One event that was refused on a quiet evening is a dead letter, and no sink that "has been failing" for hours."""
    now = SinkNow(state=state, since_ms=NOW_MS - 3 * H, error="HTTP 400", is_waiting=waits)
    assert (one(Key(SINK_DOWN, "booking"), sinks={"booking": now}) is not None) is fires
    told = SinkStatus(
        name="booking",
        state=state,
        pending=int(waits),
        dead_letters=1,
        failing_since=rfc3339(now_ms() - 3 * H),
    )
    assert bool(list(verdict.troubled_sinks([told], now_ms=now_ms()))) is fires


def test_one_is_no_plural() -> None:
    """One delivery was given up, and what waits is counted in words that fit any number."""
    (one_dead,), (two_dead,) = (list(verdict.dead_letters(count, since_ms=None)) for count in (1, 2))
    assert (one_dead.reason, two_dead.reason) == ("1 delivery was given up", "2 deliveries were given up")
    waiting = Insight(sinks=[sink(pending=1, oldest_ms=NOW_MS - H)])
    condition = one(Key(OLDEST_PENDING), stored=waiting)
    assert condition is not None
    assert condition.detail.startswith("Events waiting for it: 1. ")


def test_a_failing_sink_that_has_been_told_of_ends_by_what_it_carries() -> None:
    """Giving up is no success: the alert that fires goes on until something has arrived."""
    key = Key(SINK_DOWN, "booking")
    now = SinkNow(state="failing", since_ms=NOW_MS - H, error="HTTP 400", is_waiting=False)
    assert one(key, sinks={"booking": now}, firing={key: NOW_MS - H}) is not None


@pytest.mark.parametrize(
    ("sink_now", "unsure"),
    [
        (SinkNow(state="ok", is_proven=False, is_waiting=True), True),
        (SinkNow(state="ok", is_proven=False, is_waiting=False), False),
        (SinkNow(state="ok", is_proven=True), False),
    ],
)
def test_a_sink_that_has_not_been_tried_yet_is_not_well(sink_now: SinkNow, *, unsure: bool) -> None:
    """After a restart an alert of a sink ends once it has carried something, or there is nothing to carry."""
    key = Key(SINK_DOWN, "booking")
    assert (key in found(sinks={"booking": sink_now}).unsure) is unsure


def test_a_store_that_does_not_tell_is_not_well() -> None:
    """What only it knows neither begins nor ends; why it is disabled is not known, either."""
    off = {"booking": SinkNow(state="disabled")}
    keys = {Key(GAP), Key(OLDEST_PENDING), Key(DEAD_LETTERS), Key(STORE_FILLING), Key(SINK_DOWN, "booking")}
    assert found(stored=None, sinks=off).unsure == keys
    assert found(sinks=off).unsure == set()


GAP_MS = NOW_MS - 2 * H


def gap(
    gap_ms: int = GAP_MS, *, firing: bool, compared: int | None = None, reconciles: bool = True, **now: Any
) -> Found:
    """What is found of a gap of eight hours that ended two hours ago."""
    gaps = [(1, 2, 0, 0), (NOW_MS - 10 * H, GAP_MS, compared, None)]
    return found(
        terms=replace(TERMS, reconciles=reconciles),
        gap_ms=gap_ms,
        firing={Key(GAP): GAP_MS} if firing else None,
        stored=Insight(gaps=gaps),
        **now,
    )


def test_a_gap_lasts_until_the_rooms_are_compared_with_the_platform() -> None:
    """It is told even if the comparison was quicker than the look; what has ended does not begin anew."""
    first = gap(0, firing=False)
    condition = first.holding[Key(GAP)]
    assert condition.since_ms == first.gap_ms == GAP_MS
    assert "8 h" in condition.summary
    assert gap(0, firing=False, compared=3).holding
    assert gap(firing=True).holding
    assert gap(firing=True, now_ms=NOW_MS + 100 * H).holding
    assert not gap(firing=True, compared=0).holding
    assert not gap(firing=False).holding


def test_all_gaps_that_are_open_are_told() -> None:
    """A second one while the first is told is in the detail, too: each has its own time to look through."""
    first: verdict.Missed = (NOW_MS - 30 * H, NOW_MS - 20 * H, None, None)
    second: verdict.Missed = (NOW_MS - 10 * H, GAP_MS, None, None)
    for gaps in ([first, second], [second, first]):
        condition = one(Key(GAP), stored=Insight(gaps=gaps), firing={Key(GAP): NOW_MS - 20 * H})
        assert condition is not None
        times = "; ".join(f"from {rfc3339(gap[0])} to {rfc3339(gap[1])}" for gap in (first, second))
        assert condition.detail.startswith(f"Offline {times}. ")
        assert "8 h" in condition.summary


def test_a_gap_that_nothing_looks_into_lasts_a_day() -> None:
    """Nobody could end it; one that is older when it is first seen is not told at all."""
    condition = gap(firing=True, reconciles=False).holding[Key(GAP)]
    assert "rooms.reconcile" in condition.detail
    assert not gap(firing=True, reconciles=False, now_ms=NOW_MS + 23 * H).holding
    for reconciles in (True, False):
        assert not gap(0, firing=False, reconciles=reconciles, now_ms=NOW_MS + 23 * H).holding


@pytest.mark.parametrize(
    ("compared", "not_read", "said"),
    [
        (None, None, "have not been compared with the platform since."),
        (0, 0, "Changes found: 0."),
        (3, 0, "Changes found: 3."),
        (3, 2, "Changes found: 3. Rooms and levels that could not be read: 2."),
    ],
)
def test_the_end_of_a_gap_says_what_was_found(compared: int | None, not_read: int | None, said: str) -> None:
    """Or that nobody has looked; and what could not be looked at."""
    alert = Alert(alert=GAP, is_firing=True, since_ms=GAP_MS, summary="", detail="", told_ms=1)
    now = msgspec.structs.replace(
        WELL, stored=Insight(gaps=[(1, 2, 9, 9), (NOW_MS - 10 * H, GAP_MS, compared, not_read)])
    )
    summary, _ = conditions.ended(alert, now=now, words=ENGLISH)
    assert summary.endswith(said)


def test_what_several_gaps_found_is_not_counted_twice() -> None:
    """Each counts from its own beginning on: the earlier one has found all that the later one has."""
    alert = Alert(alert=GAP, is_firing=True, since_ms=GAP_MS, summary="", detail="", told_ms=1)
    gaps: list[tuple[int, int, int | None, int | None]] = [
        (GAP_MS - 10 * H, GAP_MS, 5, 1),
        (GAP_MS + H, GAP_MS + 9 * H, 3, 1),
    ]
    summary, _ = conditions.ended(
        alert, now=msgspec.structs.replace(WELL, stored=Insight(gaps=gaps)), words=ENGLISH
    )
    assert summary.endswith("Changes found: 5. Rooms and levels that could not be read: 1.")


@pytest.mark.parametrize("words", LANGUAGES.values(), ids=LANGUAGES)
def test_every_alert_has_words_for_its_beginning_and_its_end(words: Words) -> None:
    """In each language no place is left open, and no sentence is empty."""
    terms = replace(TERMS, words=words)
    trouble: dict[str, Any] = {
        "is_receiving": False,
        "failed_commits": 2,
        "problem": "{disk} full",
        "sinks": {state: SinkNow(state=state, error="{x}", since_ms=1) for state in words.sink_down},
        "stored": Insight(
            sinks=[sink(pending=1, dead=1, oldest_ms=1)],
            gaps=[(1, GAP_MS, None, None)],
            size_bytes=999,
            first_dead_ms=1,
        ),
    }
    holding = found(terms=terms, **trouble).holding
    assert {key.alert for key in holding} == {*conditions.ALERTS}
    for key, condition in holding.items():
        alert = Alert(
            alert=key.alert, sink=key.sink, is_firing=True, since_ms=1, summary="", detail="", told_ms=1
        )
        summary, _ = conditions.ended(alert, now=WELL, words=words)
        for text in (condition.summary, condition.detail, summary):
            assert text
            assert not [
                name
                for _, name, _, _ in string.Formatter().parse(text.replace("{disk}", "").replace("{x}", ""))
                if name
            ]


def test_a_sinks_end_says_what_it_is() -> None:
    """Removed and disabled are not well."""
    alert = Alert(alert=SINK_DOWN, sink="a", is_firing=True, since_ms=1, summary="", detail="", told_ms=1)

    def summary(**sinks: SinkNow) -> str:
        return conditions.ended(alert, now=msgspec.structs.replace(WELL, sinks=sinks), words=ENGLISH)[0]

    assert summary(a=SinkNow(state="ok")) == "The sink a works again."
    assert "by hand" in summary(a=SinkNow(state="disabled"))
    assert "no longer configured" in summary()


@pytest.mark.parametrize(
    ("ms", "english", "chinese"),
    [
        (0, "0 s", "0 秒"),
        (59_999, "59 s", "59 秒"),
        (60_000, "1 min", "1 分钟"),
        (61_000, "1 min 1 s", "1 分钟 1 秒"),
        (3_600_000, "1 h", "1 小时"),
        (90_061_000, "1 d 1 h", "1 天 1 小时"),
        (-5, "0 s", "0 秒"),
    ],
)
def test_spans(ms: int, english: str, chinese: str) -> None:
    """Two units at the most."""
    assert (ENGLISH.span(ms), CHINESE.span(ms)) == (english, chinese)


def test_both_languages_take_the_same_values() -> None:
    """Each text names the same places in both."""

    def names(text: str) -> list[str]:
        return sorted(name for _, name, _, _ in string.Formatter().parse(text) if name is not None)

    for field in fields(Words):
        english, chinese = getattr(ENGLISH, field.name), getattr(CHINESE, field.name)
        if isinstance(english, str):
            assert names(english) == names(chinese), field.name
        else:
            assert {key: names(text) for key, text in english.items()} == {
                key: names(text) for key, text in chinese.items()
            }
