"""Frames in, answers out, without a socket: 200 only for what is committed, and nothing that comes raises."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import msgspec
import pytest
from hypothesis import given, strategies as st
from structlog.testing import capture_logs

from reserve_listener.lark import frames
from reserve_listener.model import Verdict
from reserve_listener.transports.long_connection.frame_handler import FrameHandler

if TYPE_CHECKING:
    from collections.abc import Callable

HEADERS = {"type": "event", "message_id": "m-1", "trace_id": "t-1", "sum": "1", "seq": "0", "x-new": "kept"}


class Ends:
    """Both ends of a handler: what intake took, what was sent, what the peer configured."""

    def __init__(self) -> None:
        self.taken: list[bytes] = []
        self.waiting: list[Callable[[Verdict], None]] = []
        self.sent: list[bytes] = []
        self.configs: list[dict[str, Any]] = []
        self.handler = FrameHandler(self.accept, self.sent.append, self.configs.append)

    def accept(self, raw: bytes, answer: Callable[[Verdict], None], /) -> None:
        self.taken.append(raw)
        self.waiting.append(answer)

    async def answers(self) -> list[Any]:
        """The answers so far, once the loop has run what is due."""
        await asyncio.sleep(0)
        return [frames.decode(message) for message in self.sent]


def data(payload: bytes = b"{}", **headers: str) -> bytes:
    return frames.encode(
        frames.new(service=5, method=frames.DATA, headers={**HEADERS, **headers}, payload=payload)
    )


def control(kind: str, payload: bytes = b"") -> bytes:
    return frames.encode(
        frames.new(service=5, method=frames.CONTROL, headers={"type": kind}, payload=payload)
    )


@pytest.mark.parametrize("verdict", Verdict)
async def test_200_only_for_what_is_committed(verdict: Verdict) -> None:
    """Stored, also late, known and kept whole are answered 200, everything else 500, and nothing before there is a verdict."""
    ends = Ends()
    ends.handler.handle(data(b"payload"))
    assert ends.taken == [b"payload"]
    assert await ends.answers() == []
    ends.waiting[0](verdict)
    [answer] = await ends.answers()
    committed = verdict in (Verdict.STORED, Verdict.SUPERSEDED, Verdict.DUPLICATE, Verdict.UNREADABLE)
    assert msgspec.json.decode(answer.payload) == {"code": 200 if committed else 500}


async def test_the_answer_is_the_frame_itself() -> None:
    """Ids, service, method and all headers go back as they came, `biz_rt` with milliseconds is added."""
    ends = Ends()
    frame = frames.new(service=5, method=frames.DATA, headers=HEADERS, payload=b"{}")
    frame.SeqID, frame.LogID, frame.LogIDNew, frame.payload_type = 2**63, 17, "log", "json"
    ends.handler.handle(frames.encode(frame))
    ends.waiting[0](Verdict.STORED)
    [answer] = await ends.answers()
    headers = frames.headers_of(answer)
    assert headers.pop("biz_rt").isdigit()
    assert headers == HEADERS
    assert (answer.SeqID, answer.LogID, answer.LogIDNew, answer.payload_type) == (2**63, 17, "log", "json")
    assert (answer.service, answer.method) == (5, frames.DATA)


async def test_the_time_taken_is_the_verdicts() -> None:
    """`biz_rt` counts from the frame to the verdict."""
    ends = Ends()
    ends.handler.handle(data())
    waited = asyncio.get_running_loop().create_future()
    asyncio.get_running_loop().call_later(0.03, waited.set_result, None)
    await waited
    ends.waiting[0](Verdict.STORED)
    [answer] = await ends.answers()
    assert 25 <= int(frames.headers_of(answer)["biz_rt"]) < 2_000


async def test_answers_go_out_as_verdicts_come() -> None:
    """A push whose verdict takes long does not hold back the answer of a later one."""
    ends = Ends()
    for name in ("a", "b"):
        ends.handler.handle(data(message_id=name))
    for answer in reversed(ends.waiting):
        answer(Verdict.STORED)
        await asyncio.sleep(0)
    assert [frames.headers_of(answer)["message_id"] for answer in await ends.answers()] == ["b", "a"]


@pytest.mark.parametrize("order", [(0, 1, 2), (2, 1, 0), (1, 1, 2, 2, 0)])
async def test_split_payloads_are_taken_whole_and_answered_once(order: tuple[int, ...]) -> None:
    """Parts in any order, also repeated, make one payload and one answer, on the frame of the last part."""
    ends = Ends()
    pieces = [b'{"a"', b": ", b"1}"]
    for seq in order:
        ends.handler.handle(data(pieces[seq], sum="3", seq=str(seq)))
    assert ends.taken == [b'{"a": 1}']
    ends.waiting[0](Verdict.STORED)
    [answer] = await ends.answers()
    assert frames.headers_of(answer)["seq"] == str(order[-1])


@pytest.mark.parametrize("total", ["", "0", "1", "-3"])
async def test_a_sum_below_two_is_a_whole_payload(total: str) -> None:
    """Whatever a sum below two says, the payload is whole, as for the SDK."""
    ends = Ends()
    ends.handler.handle(data(b"whole", sum=total))
    assert ends.taken == [b"whole"]


GARBAGE: list[tuple[str, bytes | str]] = [
    ("empty", b""),
    ("no frame", b"\xff\xff\xff"),
    ("an event without the required ids", b"\x20\x01\x2a\x0d\x0a\x04type\x12\x05event"),
    ("a text message", '{"code": 200}'),
    ("cut off", data()[:-1]),
    ("unknown method", frames.encode(frames.new(service=1, method=7, headers=HEADERS))),
    ("negative method", frames.encode(frames.new(service=1, method=-1, headers=HEADERS))),
    ("a card", data(type="card")),
    ("no type", frames.encode(frames.new(service=1, method=frames.DATA, headers={}))),
    ("header key of invalid UTF-8", data().replace(b"x-new", b"\xff\xfe\xff\xfe\xff")),
    ("header value of invalid UTF-8", data().replace(b"event", b"\xff\xfe\xff\xfe\xff")),
    ("sum is no number", data(sum="many")),
    ("sum of 5,000 digits", data(sum="9" * 5_000)),
    ("sum beyond the bound", data(sum="1000000000")),
    ("seq is no number", data(sum="2", seq="x")),
    ("seq out of bounds", data(sum="2", seq="2")),
    ("seq below zero", data(sum="2", seq="-1")),
    ("a part without message id", data(sum="2", message_id="")),
    ("a pong that is no JSON", control("pong", b"{")),
    ("a pong of deep nesting", control("pong", b"[" * 100_000)),
    ("a pong of invalid UTF-8", control("pong", b'"\xff"')),
]


@pytest.mark.parametrize("message", [message for _, message in GARBAGE], ids=[name for name, _ in GARBAGE])
async def test_garbage_is_one_log_line(message: bytes | str) -> None:
    """What is no frame, or a frame that makes no sense, is logged once, answered never, and the next frame is taken."""
    ends = Ends()
    with capture_logs() as lines:
        ends.handler.handle(message)
    [line] = lines
    assert line.pop("error")
    assert line == {"event": "connection.garbage_frame", "log_level": "warning", "bytes": len(message)}
    assert (ends.taken, ends.sent, ends.configs) == ([], [], [])
    ends.handler.handle(data(b"next"))
    assert ends.taken == [b"next"]


async def test_an_error_of_our_own_is_one_log_line() -> None:
    """Should intake raise after all, the push stays without an answer (it is pushed again) and the connection lives."""
    sent: list[bytes] = []

    def accept(_raw: bytes, _answer: Callable[[Verdict], None], /) -> None:
        raise KeyError("a bug")

    handler = FrameHandler(accept, sent.append, lambda _config: None)
    with capture_logs() as lines:
        handler.handle(data())
    assert lines == [{"event": "connection.frame_failed", "log_level": "error", "error": "KeyError: 'a bug'"}]
    assert sent == []


@given(message=st.binary(max_size=200))
async def test_random_bytes_never_raise(message: bytes) -> None:
    """Whatever bytes come, nothing raises, and what was not taken is logged, at most one line."""
    ends = Ends()
    with capture_logs() as lines:
        ends.handler.handle(message)
    assert len(lines) <= 1


@given(
    headers=st.dictionaries(st.sampled_from(sorted(HEADERS)) | st.text(max_size=5), st.text(max_size=12), max_size=8),
    payload=st.binary(max_size=50),
    method=st.integers(-2, 3),
)  # fmt: skip
async def test_random_frames_never_raise(headers: dict[str, str], payload: bytes, method: int) -> None:
    """A well-formed frame with anything in it never raises; taken, it is answered."""
    ends = Ends()
    with capture_logs() as lines:
        ends.handler.handle(
            frames.encode(frames.new(service=1, method=method, headers=headers, payload=payload))
        )
    assert len(lines) <= 1
    for answer in ends.waiting:
        answer(Verdict.STORED)
    assert len(await ends.answers()) == len(ends.taken)


@pytest.mark.parametrize(
    ("payload", "configs"),
    [
        (b"", []),
        (b"null", []),
        (b"[]", []),
        (b"5", []),
        (b"{}", [{}]),
        (b'{"PingInterval": 30}', [{"PingInterval": 30}]),
        (b'{"PingInterval": 1' + b"0" * 400 + b"}", [{"PingInterval": 10**400}]),
    ],
)
async def test_pongs(payload: bytes, configs: list[Any]) -> None:
    """A pong counts, whatever it carries; an object in it is the platform's new timing."""
    ends = Ends()
    with capture_logs() as lines:
        ends.handler.handle(control("pong", payload))
    assert ends.handler.pongs == 1
    assert ends.configs == configs
    assert lines == []


async def test_a_pong_of_garbage_still_counts() -> None:
    """The peer lives, even if what it says with its pong is not to be understood."""
    ends = Ends()
    with capture_logs():
        ends.handler.handle(control("pong", b"{"))
    assert ends.handler.pongs == 1


@pytest.mark.parametrize("kind", ["ping", "nonsense", ""])
async def test_other_control_frames_are_nothing(kind: str) -> None:
    """A control frame that is no pong is neither counted nor logged nor answered."""
    ends = Ends()
    with capture_logs() as lines:
        ends.handler.handle(control(kind, b"{"))
    assert (ends.handler.pongs, ends.sent, lines) == (0, [], [])
