"""The WebSocket under the long connection: what it writes by hand is what the library would read."""

from __future__ import annotations

import random
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given, settings, strategies as st
from websockets.client import ClientProtocol
from websockets.frames import Frame, Opcode
from websockets.protocol import OPEN
from websockets.server import ServerProtocol
from websockets.uri import parse_uri

from reserve_listener.transports.long_connection import whole_frames, wire

if TYPE_CHECKING:
    from collections.abc import Sequence

    from websockets.protocol import Event

MAX_SIZE = 70_000


def read(data: bytes) -> list[Event]:
    server = ServerProtocol(state=OPEN, max_size=2**24)
    server.receive_data(data)
    assert server.parser_exc is None
    return server.events_received()


@pytest.mark.parametrize("size", [0, 1, 125, 126, 127, 65_535, 65_536, 70_000])
def test_each_message_is_a_frame_of_its_own(size: int) -> None:
    """Whatever their length, messages written together arrive one by one, whole, binary and masked."""
    messages = [b"first", bytes(number % 256 for number in range(size)), b"last"]
    assert read(wire._framed(messages)) == [Frame(Opcode.BINARY, message) for message in messages]


def test_every_frame_has_a_key_of_its_own() -> None:
    """The same message twice is two different runs of bytes: masking keys are not used again (RFC 6455, 5.3)."""
    data = wire._framed([b"x" * 100, b"x" * 100])
    assert data[: len(data) // 2] != data[len(data) // 2 :]
    assert wire._framed([b"x" * 100]) != wire._framed([b"x" * 100])


def client() -> ClientProtocol:
    return ClientProtocol(parse_uri("ws://127.0.0.1/"), state=OPEN, max_size=MAX_SIZE)


def heard(protocol: ClientProtocol, chunks: Sequence[bytes], seen: list[Any]) -> list[Any]:
    """What a connection can tell after each chunk and at the end: its events, its answers, its state, why it failed."""
    told = []
    for chunk in [*chunks, None]:
        if chunk is None:
            protocol.receive_eof()
        else:
            protocol.receive_data(chunk)
        seen += protocol.events_received()
        said = [read(data) if data else "end" for data in protocol.data_to_send()]
        told.append((list(seen), said, protocol.state, repr(protocol.parser_exc), protocol.close_rcvd))
    return told


def both(stream: bytes, cuts: Sequence[int]) -> list[Any]:
    """The library's way; ours is the same."""
    places = [0, *sorted(cuts), len(stream)]
    chunks = [stream[start:end] for start, end in pairwise(places)]
    ours: list[Any] = []
    protocol = client()
    whole_frames.read_whole_frames(protocol, lambda message: ours.append(Frame(Opcode.BINARY, message)))
    theirs = heard(client(), chunks, [])
    assert heard(protocol, chunks, ours) == theirs
    return theirs


def frame(opcode: int, payload: bytes, *, fin: bool = True, rsv: int = 0, mask: bool = False) -> bytes:
    """What a server may send, and may not."""
    length = len(payload)
    size = (
        bytes([length])
        if length < 126
        else b"\x7e" + length.to_bytes(2, "big")
        if length < 2**16
        else b"\x7f" + length.to_bytes(8, "big")
    )
    head = bytes([fin << 7 | rsv << 4 | opcode, size[0] | mask << 7]) + size[1:]
    return head + (b"\0\0\0\0" if mask else b"") + payload


PAYLOADS = st.one_of(
    st.binary(max_size=20),
    st.sampled_from([b"x" * size for size in (125, 126, 127, 65_535, 65_536, MAX_SIZE, MAX_SIZE + 1)]),
)
PLAIN = PAYLOADS.map(lambda payload: frame(2, payload))
OTHER = st.one_of(
    st.binary(max_size=125).map(lambda payload: frame(9, payload)),
    st.sampled_from([frame(10, b"pong"), frame(1, b"text"), frame(1, b"\xff")]),
    st.sampled_from([frame(2, b"a", fin=False), frame(0, b"b", fin=False), frame(0, b"c")]),
    st.sampled_from([frame(8, b"\x03\xe8bye"), frame(8, b""), frame(8, b"\x00")]),
    st.sampled_from(
        [frame(2, b"masked", mask=True), frame(2, b"rsv", rsv=4), frame(3, b"?"), b"\x82\x7f" + b"\xff" * 8]
    ),
    st.binary(max_size=4),
)


@settings(deadline=None)
@given(
    pieces=st.lists(st.one_of(PLAIN, PLAIN, PLAIN, OTHER), max_size=12),
    cuts=st.lists(st.floats(0, 1), max_size=8),
)
def test_whole_frames_are_cut_as_the_library_cuts_them(pieces: list[bytes], cuts: list[float]) -> None:
    """Any frames, right or wrong, cut anywhere: the same messages in the same order, the same answers, the same end."""
    stream = b"".join(pieces)
    both(stream, [round(cut * len(stream)) for cut in cuts])


@pytest.mark.parametrize("seed", range(5))
def test_byte_by_byte(seed: int) -> None:
    """A stream that arrives one byte at a time, with control frames and fragments between the messages."""
    dice = random.Random(seed)
    kinds = [
        frame(2, b"whole"),
        frame(2, b"y" * 200),
        frame(9, b"ping"),
        frame(2, b"a", fin=False) + frame(0, b"b"),
    ]
    stream = b"".join(dice.choices(kinds, k=30)) + frame(8, b"\x03\xe8")
    told = both(stream, range(1, len(stream)))
    assert told[-1][4].code == 1000


def test_the_library_sees_nothing_of_a_whole_frame() -> None:
    """It is read on the short way, or all of this proves nothing."""
    ours: list[bytes] = []
    protocol = client()
    whole_frames.read_whole_frames(protocol, ours.append)
    stream = frame(2, b"one") + frame(2, b"two" * 20_000) + frame(2, b"last")
    for part in (stream[:50], stream[50:]):
        protocol.receive_data(part)
    assert ours == [b"one", b"two" * 20_000, b"last"]
    assert protocol.events_received() == []
