"""The payload read by its types against the general way: the same bytes, or left to it."""

from __future__ import annotations

import copy
import json
import random
from itertools import islice
from typing import Any

import pytest
from hypothesis import given, settings, strategies as st

from reserve_listener.intake import fast_path, normalize
from reserve_listener.model import EVENT_TYPE, IncomingEvent
from reserve_listener.simulator import realistic_events
from tests.intake.test_normalize import SAMPLE

PATHS = [
    (),
    *((key,) for key in ("schema", "header", "event")),
    *(("header", key) for key in SAMPLE["header"]),
    *(("event", key) for key in SAMPLE["event"]),
    *(
        ("event", section, key)
        for section in ("approve_config", "time_config", "reserve_scope_config")
        for key in SAMPLE["event"][section]
    ),
    *(("event", *way) for way in (("approve_config", "approvers", 0), ("reserve_scope_config", "allow_users", 0))),
    *(("event", "approve_config", "approvers", 0, "user_id", *way) for way in ((), ("open_id",), ("user_id",))),
    ("event", "reserve_scope_config", "allow_depts", 0),
    ("event", "reserve_scope_config", "allow_depts", 0, "department_id"),
]  # fmt: skip
VALUES: list[Any] = [
    None, True, False, 0, 1, 2, -1, 3, 24, 99, 100, 730, 731, 1.0, 1.5, -0.0, 1e300, 10**17, 10**30, "", "0", "1",
    "00", "-0", "027900", "86400", "86401", "86400\n", "\uff11\uff12", "1608725989000", "1608725989000123", "160872598900",
    "0000000000001", 'a "quoted" \\ text', "\u00fc\u2028\x00", "\U0001f600", EVENT_TYPE, "im.message", [], {}, [[]],
    [{"user_id": {}}], [{"user_id": {"open_id": None}}], [{"user_id": {"open_id": ""}}], {"token": "t"},
    [{"department_id": "d", "name": "n"}], {"user_id": {"open_id": "o"}, "open_id": "x"}, {"department_id": 1},
]  # fmt: skip
KEYS = ["token", "warnings", "changes", "scope_name", "unknown", "scope_id", "user_id", "uuid", "Token", ""]
ABSENT = object()


def general(raw: bytes) -> IncomingEvent:
    try:
        envelope = normalize.parse(raw)
    except normalize.Unreadable as problem:
        return normalize.unreadable(raw, str(problem), received_ms=7)
    return normalize.incoming(raw, envelope, received_ms=7)


def same_or_left(raw: bytes) -> bool:
    """Whether it was read by its types; then it is what the general way makes of it."""
    event = fast_path.read(raw, received_ms=7)
    if event is not None:
        assert event == general(raw)
        envelope = normalize.parse(raw)
        assert normalize.event_type_of(envelope) == f"p2.{EVENT_TYPE}"
    return event is not None


def shuffled(value: Any, dice: random.Random) -> Any:
    if isinstance(value, dict):
        items = [(key, shuffled(item, dice)) for key, item in value.items()]
        return dict(dice.sample(items, len(items)))
    return [shuffled(item, dice) for item in value] if isinstance(value, list) else value


def changed(envelope: Any, path: tuple[Any, ...], value: Any) -> Any:
    if not path:
        return envelope if value is ABSENT else value
    target = envelope
    try:
        for key in path[:-1]:
            target = target[key]
        if value is ABSENT:
            del target[path[-1]]
        else:
            target[path[-1]] = value
    except (KeyError, IndexError, TypeError):  # an earlier change took the way there away
        pass
    return envelope


CHANGES = st.one_of(
    st.tuples(st.sampled_from(PATHS), st.sampled_from([ABSENT, *VALUES])),
    st.tuples(st.sampled_from(PATHS), st.sampled_from(KEYS), st.sampled_from(VALUES)).map(
        lambda each: ((*each[0], each[1]), each[2])
    ),
)


@pytest.mark.parametrize("indent", [None, 2])
@pytest.mark.parametrize("seed", range(20))
def test_what_the_platform_sends_is_read_by_its_types(seed: int, indent: int | None) -> None:
    """A busy day's events and the page's sample, their keys in any order and with blanks, take the short way."""
    dice = random.Random(seed)
    for envelope in [SAMPLE, *islice(realistic_events(dice), 20)]:
        assert same_or_left(json.dumps(shuffled(envelope, dice), indent=indent).encode())


@pytest.mark.parametrize("section", ["approve_config", "time_config", "reserve_scope_config"])
def test_what_was_not_told_is_no_reason_for_the_long_way(section: str) -> None:
    """A section or a field of it may be absent, and the token, too."""
    envelope = copy.deepcopy(SAMPLE)
    for key in SAMPLE["event"][section]:
        del envelope["event"][section][key]
        assert same_or_left(json.dumps(envelope).encode())
    del envelope["event"][section], envelope["header"]["token"]
    assert same_or_left(json.dumps(envelope).encode())


@pytest.mark.parametrize("path", PATHS, ids=lambda path: ".".join(map(str, path)) or "all")
def test_one_odd_value_anywhere(path: tuple[Any, ...]) -> None:
    """Each place of the payload with each odd value, absent, or with a key beside it: the same, or left alone."""
    for value in [ABSENT, *VALUES]:
        same_or_left(json.dumps(changed(copy.deepcopy(SAMPLE), path, value)).encode())
    for key in KEYS:
        same_or_left(json.dumps(changed(copy.deepcopy(SAMPLE), (*path, key), "x")).encode())


@settings(deadline=None)
@given(changes=st.lists(CHANGES, max_size=4), seed=st.integers(0, 1000), ascii_only=st.booleans())
def test_several_odd_things_at_once(changes: list[Any], seed: int, *, ascii_only: bool) -> None:
    """Whatever is changed together, in whatever order the keys stand."""
    envelope: Any = copy.deepcopy(SAMPLE)
    for path, value in changes:
        envelope = changed(envelope, path, value if value is ABSENT else copy.deepcopy(value))
    same_or_left(json.dumps(shuffled(envelope, random.Random(seed)), ensure_ascii=ascii_only).encode())


@settings(deadline=None)
@given(
    place=st.floats(0, 1),
    length=st.integers(0, 40),
    put=st.one_of(
        st.binary(max_size=6),
        st.sampled_from([b'"token":"t",', b"\\u0074", b"1.0", b"\xff", b" ", b'"', b"}"]),
    ),
)
def test_damaged_bytes(place: float, length: int, put: bytes) -> None:
    """Bytes cut out, put in or replaced anywhere (half a character, a key twice, another number) make no difference."""
    raw = json.dumps(SAMPLE, separators=(",", ":")).encode()
    start = round(place * len(raw))
    same_or_left(raw[:start] + put + raw[start + length :])


@pytest.mark.parametrize(("key", "values"), [("days_in_advance", "30,40"), ("start_time", '"0","3600"')])
def test_a_key_that_stands_twice(key: str, values: str) -> None:
    """The last one counts, in both ways."""
    first, second = values.split(",")
    raw = json.dumps(SAMPLE).encode()
    old = json.dumps({key: SAMPLE["event"]["time_config"][key]})[1:-1].encode()
    assert old in raw
    assert same_or_left(raw.replace(old, f'"{key}": {first}, "{key}": {second}'.encode()))


def test_a_tokens_value_elsewhere_is_treated_alike() -> None:
    """Be it in an id or in the name of a key, what is kept of it is the same."""
    token = SAMPLE["header"]["token"]
    for path in [("event", "scope_id"), ("header", "event_id"), ("header", "app_id")]:
        same_or_left(json.dumps(changed(copy.deepcopy(SAMPLE), path, token)).encode())
