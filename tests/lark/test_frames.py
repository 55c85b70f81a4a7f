"""The frames against the SDK's own class: what one end writes the other reads, and garbage is told apart."""

from __future__ import annotations

import asyncio
import warnings
from typing import Any

import pytest
from hypothesis import given, strategies as st

from reserve_listener.lark import frames

HEADERS = {"type": "event", "message_id": "m-1", "trace_id": "t-1", "sum": "1", "seq": "0"}

texts = st.text(max_size=40)
wire_frames = st.fixed_dictionaries(
    {
        "SeqID": st.integers(0, 2**64 - 1),
        "LogID": st.integers(0, 2**64 - 1),
        "service": st.integers(-(2**31), 2**31 - 1),
        "method": st.integers(-(2**31), 2**31 - 1),
        "headers": st.lists(st.tuples(texts, texts), max_size=6),
        "payload": st.binary(max_size=300),
    }
)


@pytest.fixture(scope="module")
def sdk_frame() -> Any:
    """The SDK's generated class; importing it takes seconds."""

    async def load() -> Any:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            from lark_oapi.ws.pb.pbbp2_pb2 import Frame  # noqa: PLC0415
        return Frame

    return asyncio.run(load())  # outside of a loop the import makes one and never closes it


def fill(frame: Any, values: dict[str, Any]) -> Any:
    for name in ("SeqID", "LogID", "service", "method", "payload"):
        setattr(frame, name, values[name])
    for key, value in values["headers"]:
        frame.headers.add(key=key, value=value)
    return frame


def read(frame: Any) -> dict[str, Any]:
    values = {name: getattr(frame, name) for name in ("SeqID", "LogID", "service", "method", "payload")}
    return {**values, "headers": [(header.key, header.value) for header in frame.headers]}


@given(values=wire_frames)
def test_the_sdk_reads_what_we_write(sdk_frame: Any, values: dict[str, Any]) -> None:
    """A frame of ours comes out of the SDK's class with every field as it was put in."""
    theirs = sdk_frame()
    theirs.ParseFromString(frames.encode(fill(frames.Frame(), values)))
    assert read(theirs) == values


@given(values=wire_frames)
def test_we_read_what_the_sdk_writes(sdk_frame: Any, values: dict[str, Any]) -> None:
    """A frame of the SDK comes out of ours with every field, and is written again byte for byte the same."""
    written = fill(sdk_frame(), values).SerializeToString()
    ours = frames.decode(written)
    assert read(ours) == values
    assert frames.encode(ours) == written


def test_optional_fields_survive_the_answer(sdk_frame: Any) -> None:
    """The fields that we do not use are still there in the frame that goes back as the answer."""
    frame = fill(sdk_frame(), {**read(frames.new(service=1, method=1, headers=HEADERS)), "payload": b"x"})
    frame.payload_encoding, frame.payload_type, frame.LogIDNew = "gzip", "json", "log-1"
    ours = frames.decode(frame.SerializeToString())
    ours.payload = b'{"code":200}'
    theirs = sdk_frame()
    theirs.ParseFromString(frames.encode(ours))
    assert (theirs.payload_encoding, theirs.payload_type, theirs.LogIDNew) == ("gzip", "json", "log-1")


def test_a_ping_is_the_sdks_ping(sdk_frame: Any) -> None:
    """Our ping has the very bytes of the one that the SDK's client sends."""
    from lark_oapi.ws.client import _new_ping_frame  # noqa: PLC0415

    ours = frames.encode(frames.new(service=7, method=frames.CONTROL, headers={frames.TYPE: frames.PING}))
    assert ours == _new_ping_frame(7).SerializeToString()


def test_new_takes_pairs_or_a_mapping() -> None:
    """Headers may be given either way and keep their order; a frame without a payload has an empty one."""
    by_mapping = frames.new(service=1, method=frames.DATA, headers=HEADERS)
    by_pairs = frames.new(service=1, method=frames.DATA, headers=HEADERS.items())
    assert frames.encode(by_mapping) == frames.encode(by_pairs)
    assert frames.headers_of(by_mapping) == HEADERS
    assert by_mapping.payload == b""


def test_the_first_of_two_headers_counts() -> None:
    """Of a header that stands twice the first value is taken, as in the SDK."""
    frame = frames.new(service=1, method=frames.DATA, headers={"seq": "0"})
    frame.headers.add(key="seq", value="1")
    assert frames.headers_of(frame) == {"seq": "0"}


@pytest.mark.parametrize(
    "garbage", [b"\x00", b"\xff" * 9, b"not a frame", b'{"json":1}', b"\x08\xff", b"\x2a\xff\xff\xff\x7f"]
)
def test_garbage_is_a_frame_error(garbage: bytes) -> None:
    """Bytes that are no frame raise FrameError and nothing else."""
    with pytest.raises(frames.FrameError):
        frames.decode(garbage)


def test_a_header_that_is_no_utf8_is_a_frame_error() -> None:
    """A header that is no UTF-8 is refused when the frame is read or when its headers are."""
    good = frames.encode(frames.new(service=1, method=frames.DATA, headers={"type": "event"}))
    with pytest.raises(frames.FrameError):
        frames.headers_of(frames.decode(good.replace(b"event", b"\xff\xfe\xff\xfe\xff")))


@given(data=st.binary(max_size=60))
def test_any_bytes_are_a_frame_or_a_frame_error(sdk_frame: Any, data: bytes) -> None:
    """No bytes make the decoder raise anything but FrameError; what it and the SDK both read is the same."""
    try:
        ours = frames.decode(data)
    except frames.FrameError:
        return  # the SDK takes some corrupt bytes: groups that end as another field
    theirs = sdk_frame()
    try:
        theirs.ParseFromString(data)
    except Exception:  # noqa: BLE001  # for garbage its codec raises UnicodeDecodeError, IndexError and others
        return
    assert read(ours) == read(theirs)


def test_an_incomplete_frame_is_not_written() -> None:
    """A frame without its required fields is a FrameError on the way out too."""
    with pytest.raises(frames.FrameError):
        frames.encode(frames.Frame(SeqID=1))
