"""The WebSocket under the long connection: what it writes by hand is what the library would read."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from websockets.frames import Frame, Opcode
from websockets.protocol import OPEN
from websockets.server import ServerProtocol

from reserve_listener.transports import wire

if TYPE_CHECKING:
    from websockets.protocol import Event


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
