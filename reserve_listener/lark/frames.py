"""The frames of the long connection: what both ends of the wire share.

A frame is a proto2 message: SeqID 1, LogID 2, service 3, method 4 (0 control, 1 data), repeated Header 5
(key 1, value 2), payload_encoding 6, payload_type 7, payload 8, LogIDNew 9 (lark_oapi/ws/pb/pbbp2_pb2.py). Those
generated classes run on a pure-Python protobuf (55 µs to read a frame); the same message declared here runs on the
compiled one. `tests/lark/test_frames.py` holds the two against each other.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from google.protobuf.message import DecodeError, EncodeError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

CONTROL: Final = 0
DATA: Final = 1

# Header keys (lark_oapi/ws/const.py).
TYPE: Final = "type"
MESSAGE_ID: Final = "message_id"
TRACE_ID: Final = "trace_id"
SUM: Final = "sum"
SEQ: Final = "seq"
BIZ_RT: Final = "biz_rt"

# Values of the header `type` (lark_oapi/ws/enum.py).
EVENT: Final = "event"
CARD: Final = "card"
PING: Final = "ping"
PONG: Final = "pong"

MAX_FRAME_BYTES: Final = 16 * 1024 * 1024
"""The largest frame, and the largest payload joined from parts, that is taken."""


class FrameError(ValueError):
    """The bytes are no frame."""


def _message_classes() -> dict[str, Any]:
    field = descriptor_pb2.FieldDescriptorProto
    file = descriptor_pb2.FileDescriptorProto(
        name="reserve_listener/frames.proto", package="reserve_listener", syntax="proto2"
    )

    def message(name: str, *fields: tuple[str, int, int, int]) -> None:
        declared = file.message_type.add(name=name)
        for field_name, number, kind, label in fields:
            added = declared.field.add(name=field_name, number=number)
            added.type = kind  # type: ignore[assignment]  # the stubs want the enum's own type
            added.label = label  # type: ignore[assignment]
            if kind == field.TYPE_MESSAGE:
                added.type_name = ".reserve_listener.Header"

    required, optional, repeated = field.LABEL_REQUIRED, field.LABEL_OPTIONAL, field.LABEL_REPEATED
    message("Header", ("key", 1, field.TYPE_STRING, required), ("value", 2, field.TYPE_STRING, required))
    message(
        "Frame",
        ("SeqID", 1, field.TYPE_UINT64, required),
        ("LogID", 2, field.TYPE_UINT64, required),
        ("service", 3, field.TYPE_INT32, required),
        ("method", 4, field.TYPE_INT32, required),
        ("headers", 5, field.TYPE_MESSAGE, repeated),
        ("payload_encoding", 6, field.TYPE_STRING, optional),
        ("payload_type", 7, field.TYPE_STRING, optional),
        ("payload", 8, field.TYPE_BYTES, optional),
        ("LogIDNew", 9, field.TYPE_STRING, optional),
    )
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return {
        name: message_factory.GetMessageClass(pool.FindMessageTypeByName(f"reserve_listener.{name}"))
        for name in ("Header", "Frame")
    }


Frame: Final[Any] = _message_classes()["Frame"]
"""The message class; an instance has the attributes SeqID, LogID, service, method, headers, payload."""


def decode(data: bytes) -> Any:
    """Read one frame; `FrameError` when the bytes are none."""
    frame = Frame()
    try:
        frame.ParseFromString(data)
    except (DecodeError, UnicodeDecodeError) as error:
        raise FrameError(f"not a frame: {error}") from error
    return frame


def encode(frame: Any) -> bytes:
    """Write one frame; `FrameError` when a required field is missing."""
    try:
        return bytes(frame.SerializeToString())
    except EncodeError as error:
        raise FrameError(str(error)) from error


def new(
    *, service: int, method: int, headers: Mapping[str, str] | Iterable[tuple[str, str]], payload: bytes = b""
) -> Any:
    """A frame with SeqID and LogID 0, as the SDK makes its pings."""
    frame = Frame(SeqID=0, LogID=0, service=service, method=method)
    for key, value in dict(headers).items():
        frame.headers.add(key=key, value=value)
    if payload:
        frame.payload = payload
    return frame


def headers_of(frame: Any) -> dict[str, str]:
    """The frame's headers; of a key that stands twice the first counts, as in the SDK.

    `FrameError` for one that is not UTF-8: protobuf hands it out as bytes, and the SDK's refuses the frame.
    """
    pairs = [(header.key, header.value) for header in reversed(frame.headers)]
    for key, value in pairs:
        if type(key) is not str or type(value) is not str:
            raise FrameError("a header is not UTF-8")
    return dict(pairs)
