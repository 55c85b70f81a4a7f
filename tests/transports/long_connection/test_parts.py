"""Joining split payloads: any order, any repetition, and bounds that the peer cannot move."""

from __future__ import annotations

import random
import tracemalloc

import pytest
from hypothesis import given, strategies as st

from reserve_listener.lark.frames import MAX_FRAME_BYTES
from reserve_listener.transports.long_connection import parts as bounds
from reserve_listener.transports.long_connection.parts import Parts, PartsError


class Clock:
    """A clock that stands still until it is set."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def empty(parts: Parts) -> bool:
    return not parts._messages and parts.held_bytes == 0


@given(payload=st.binary(min_size=1, max_size=60), count=st.integers(1, 12), seed=st.integers())
def test_any_order_with_repetitions(payload: bytes, count: int, seed: int) -> None:
    """In whatever order and how often the parts come, the payload is whole with the last missing one, not before."""
    chance = random.Random(seed)
    pieces = [payload[n * len(payload) // count : (n + 1) * len(payload) // count] for n in range(count)]
    order = list(range(count)) + [chance.randrange(count) for _ in range(count)]
    chance.shuffle(order)
    parts, seen = Parts(), set()
    for seq in order:
        seen.add(seq)
        whole = parts.add("m", count, seq, pieces[seq])
        if len(seen) == count:
            assert whole == payload
            assert empty(parts)
            return
        assert whole is None


def test_two_messages_do_not_mix() -> None:
    """Parts of different messages that come in turn are joined by their message id."""
    parts = Parts()
    assert parts.add("a", 2, 0, b"a0") is None
    assert parts.add("b", 2, 1, b"b1") is None
    assert parts.add("a", 2, 1, b"a1") == b"a0a1"
    assert parts.add("b", 2, 0, b"b0") == b"b0b1"


def test_a_repeated_part_replaces_the_first() -> None:
    """Of a part that comes twice the later one counts, in content and in size."""
    parts = Parts()
    parts.add("m", 2, 0, b"long" * 10)
    parts.add("m", 2, 0, b"x")
    assert parts.held_bytes == 1 + bounds.PART_BYTES
    assert parts.add("m", 2, 1, b"y") == b"xy"


def test_another_sum_starts_anew() -> None:
    """A part that names another number of parts begins a new message: the old parts are not mixed in."""
    parts = Parts()
    parts.add("m", 3, 0, b"old")
    parts.add("m", 2, 0, b"new")
    assert parts.add("m", 2, 1, b"!") == b"new!"
    assert empty(parts)


@pytest.mark.parametrize(
    ("total", "seq"),
    [(2, 2), (2, -1), (0, 0), (-1, 0), (bounds.MAX_PARTS + 1, 0), (10**12, 0), (2**63, 2**62), (1, 1)],
)
def test_out_of_bounds(total: int, seq: int) -> None:
    """A part that cannot be is refused and leaves nothing behind."""
    parts = Parts()
    with pytest.raises(PartsError, match="out of bounds"):
        parts.add("m", total, seq, b"x")
    assert empty(parts)


def test_the_peers_sum_allocates_nothing() -> None:
    """The first part of the largest message that is taken costs a few hundred bytes, whatever sum it names."""
    parts = Parts()
    tracemalloc.start()
    for number in range(50):
        parts.add(f"m{number}", bounds.MAX_PARTS, 0, b"x")
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 50 * 2_000


def test_a_joined_payload_is_bounded() -> None:
    """Parts that together exceed the largest payload are refused, forgotten, and do not count any more."""
    parts = Parts()
    half = b"x" * (MAX_FRAME_BYTES // 2)
    parts.add("m", 3, 0, half)
    parts.add("m", 3, 1, half)
    with pytest.raises(PartsError, match="exceeds"):
        parts.add("m", 3, 2, b"x")
    assert empty(parts)
    assert parts.add("n", 2, 0, half) is None
    assert parts.add("n", 2, 1, half) == half + half


def test_all_that_waits_can_be_bounded_in_bytes() -> None:
    """Told to hold no more than a bound, the oldest messages are forgotten, and no more of them than that takes."""
    parts = Parts()
    piece = b"x" * 1_000_000
    for number in range(5):
        parts.add(f"m{number}", 2, 0, piece)
    parts.shrink(to_bytes=4_100_000)
    assert 4_000_000 < parts.held_bytes <= 4_100_000
    assert parts.add("m1", 2, 1, b"y") == piece + b"y"
    parts.shrink(to_bytes=0)
    assert empty(parts)


@pytest.mark.parametrize("size", [0, 1])
def test_parts_of_nothing_count(size: int) -> None:
    """What is held for a part counts beside its payload: the memory of many tiny ones is no more than they count for."""
    parts = Parts()
    tracemalloc.start()
    before, _ = tracemalloc.get_traced_memory()
    for message in range(20):
        for seq in range(bounds.MAX_PARTS - 1):
            parts.add(f"m{message}", bounds.MAX_PARTS, seq, b"xyz"[:size])
    after, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert after - before < parts.held_bytes


def test_an_id_of_megabytes_costs_nothing() -> None:
    """However long their ids, messages are told apart, and nothing of the ids is kept."""
    parts = Parts()
    long = "x" * 8_000_000
    tracemalloc.start()
    before, _ = tracemalloc.get_traced_memory()
    for number in range(5):
        parts.add(f"{long}{number}", 2, 0, b"a%d" % number)
    after, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert after - before < 100_000
    assert parts.add(f"{long}3", 2, 1, b"b") == b"a3b"


def test_the_messages_that_wait_are_bounded() -> None:
    """More unfinished messages than the bound push the oldest out; the newest can still be finished."""
    parts = Parts()
    for number in range(bounds.MAX_MESSAGES + 10):
        parts.add(f"m{number}", 2, 0, b"x")
    assert len(parts._messages) == bounds.MAX_MESSAGES
    assert parts.add(f"m{bounds.MAX_MESSAGES + 9}", 2, 1, b"y") == b"xy"
    assert parts.add("m0", 2, 1, b"y") is None


def test_what_never_completes_is_forgotten() -> None:
    """A message is forgotten its time after its first part, even if later parts keep coming."""
    clock = Clock()
    parts = Parts(clock)
    parts.add("m", 3, 0, b"a")
    clock.now += bounds.TTL_S - 0.1
    parts.add("m", 3, 1, b"b")
    clock.now += 0.1
    assert parts.add("m", 3, 2, b"c") is None
    assert parts.add("m", 3, 0, b"a") is None
    assert parts.add("m", 3, 1, b"b") == b"abc"


def test_a_message_in_time_is_joined() -> None:
    """Just before its time is over a message can still be finished."""
    clock = Clock()
    parts = Parts(clock)
    parts.add("m", 2, 0, b"a")
    clock.now += bounds.TTL_S - 0.1
    assert parts.add("m", 2, 1, b"b") == b"ab"
