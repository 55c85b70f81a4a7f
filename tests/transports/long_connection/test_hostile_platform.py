"""A platform gone mad, or somebody in its place: the connection is known to be lost at once, and the memory stays bounded."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from structlog.testing import capture_logs

from reserve_listener.lark import frames
from reserve_listener.model import Verdict
from reserve_listener.simulator import Faults, HttpServer, Receiver, Simulator, patience, sample_event
from reserve_listener.transports.long_connection import frame_handler, wire
from tests.conftest import NO_WAITS
from tests.daemon_process import running, until, write_config
from tests.hostile import BINARY, CLOSE, CONT, PING, PONG, TEXT, frame, gateway, read_frame
from tests.transports.long_connection.test_long_connection import Taker, lost, make

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

    from reserve_listener.transports.long_connection.connection import LongConnection

MIB = 1024 * 1024
MOST_MIB = 192
"""What an attack may cost: the budget of 64 MiB, and as much again twice, since a message of 16 MiB exists up to five
times while it is read (the socket's buffer, the frame, its parsed form, the payload, the answer)."""


@contextlib.asynccontextmanager
async def connected(
    act: Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]], accept: Taker | None = None
) -> AsyncIterator[LongConnection]:
    """The real client, connected to a server that does `act`. Its own pings would find nothing for minutes."""
    async with gateway(act) as body, Simulator(faults=Faults(endpoint_body=body)) as simulator:
        connection = make(simulator, accept, liveness_s=600.0)
        try:
            await connection.open()
            yield connection
        finally:
            await connection.close()


def push(payload: bytes = b"{}", **headers: str) -> bytes:
    named = {"type": "event", "message_id": "m", "sum": "1", "seq": "0", **headers}
    return frames.encode(frames.new(service=1, method=frames.DATA, headers=named, payload=payload))


# -- lost at once ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("in_a_message", [False, True])
async def test_a_close_that_leaves_the_socket_open(*, in_a_message: bool) -> None:
    """A server that says Close and keeps the TCP connection is gone at once, in its own words."""

    async def act(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(frame(BINARY, b"x", fin=False) if in_a_message else b"")
        writer.write(frame(CLOSE, b"\x03\xf4going down"))

    async with connected(act) as connection:
        reason = await lost(connection, 5)
        assert reason.by_server
        assert str(reason) == "closed by the server, code 1012: going down"


BREACHES = {
    "reserved bits": frame(BINARY, b"x", reserved=0x40),
    "an unknown opcode": frame(0x3, b"x"),
    "a masked frame": b"\x82\x81\x00\x00\x00\x00x",
    "a continuation of nothing": frame(CONT, b"x"),
    "a message within a message": frame(BINARY, b"x", fin=False) + frame(BINARY, b"y"),
    "a ping in fragments": frame(PING, b"x", fin=False),
    "a ping that is too long": frame(PING, b"x" * 200),
    "a frame beyond the bound": b"\x82\x7f" + (2**40).to_bytes(8, "big"),
    "a close of one byte": frame(CLOSE, b"x"),
    "a close with a code that is none": frame(CLOSE, b"\x00\x05"),
    "HTTP": b"HTTP/1.1 400 Bad Request\r\n\r\n" + b"<html>" * 20,
}


@pytest.mark.parametrize("what", BREACHES)
async def test_a_breach_of_the_protocol_that_leaves_the_socket_open(what: str) -> None:
    """After a breach nothing more is read, so the connection is lost at once, whatever the server does with the socket."""

    async def act(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(frame(BINARY, push()) + BREACHES[what])

    accept = Taker()
    async with connected(act, accept) as connection:
        reason = await lost(connection, 5)
        assert not reason.by_server
        assert "closed by us, code 10" in str(reason)
        assert accept.taken == [b"{}"]  # what came before it counts


# -- fragments ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("count", [2, 3, 200, wire.PIECES])
async def test_a_message_in_fragments(count: int) -> None:
    """A push that comes in fragments, some of them empty and with pings in between, is taken whole and answered."""
    answered: asyncio.Future[int] = asyncio.get_running_loop().create_future()
    message = push(b'{"a": "' + b"x" * 20_000 + b'"}')
    cuts = [number * len(message) // (count - 1) for number in range(count)]
    pieces = [message[start:end] for start, end in itertools.pairwise(cuts)]

    async def act(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        for number, piece in enumerate(pieces):
            writer.write(
                frame(CONT if number else BINARY, piece, fin=False) + frame(PING) * (number % 7 == 0)
            )
        writer.write(frame(CONT))
        pongs = 0
        while frame_handler.ANSWER_OK not in (read := await read_frame(reader))[1]:
            pongs += read[0] == PONG
        answered.set_result(pongs)

    accept = Taker()
    async with connected(act, accept) as connection:
        assert await asyncio.wait_for(answered, patience(10)) > 0
        assert accept.taken == [b'{"a": "' + b"x" * 20_000 + b'"}']
        assert not connection._lost.done()


@pytest.mark.parametrize("size", [0, 1])
async def test_a_message_of_endless_fragments(size: int) -> None:
    """Fragments without end, empty or nearly, end the connection once they are more than any message needs."""

    async def act(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(frame(BINARY, b"x", fin=False))
        while True:
            writer.write(frame(CONT, b"x" * size, fin=False) * 10_000)
            await writer.drain()

    async with connected(act) as connection:
        assert str(await lost(connection, 5)) == f"a message in more than {wire.PIECES} fragments"


async def test_texts_in_fragments_are_garbage() -> None:
    """A text message is no frame, in fragments neither, whatever its bytes; the next push is taken."""
    taken = asyncio.Event()

    class Watched(Taker):
        def __call__(self, raw: bytes, answer: Callable[[Verdict], None], /) -> None:
            super().__call__(raw, answer)
            taken.set()

    async def act(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(frame(TEXT, b"\xff", fin=False) + frame(CONT, b"\xfe") + frame(BINARY, push()))

    with capture_logs() as lines:
        async with connected(act, Watched()):
            await asyncio.wait_for(taken.wait(), patience(10))
    assert [(line["event"], line["error"]) for line in lines] == [
        ("connection.garbage_frame", "a text message")
    ]


# -- the loop's turns ---------------------------------------------------------------------------------------------------------


async def test_what_takes_long_to_parse_leaves_others_their_turn(monkeypatch: pytest.MonkeyPatch) -> None:
    """What was read at once is parsed over several turns of the loop, in order and to the end, the close behind it included."""
    monkeypatch.setattr(wire, "TURN_S", 0.0)
    turns = 0
    seen: list[int] = []

    class Watched(Taker):
        def __call__(self, raw: bytes, answer: Callable[[Verdict], None], /) -> None:
            super().__call__(raw, answer)
            seen.append(turns)

    async def act(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        pushes = [frame(BINARY, push(b"%d" % number)) for number in range(5_000)]
        writer.write(b"".join(pushes) + frame(CLOSE, b"\x03\xe8"))

    async def count() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    accept = Watched()
    counting = asyncio.create_task(count())
    async with connected(act, accept) as connection:
        assert str(await lost(connection, 20)) == "closed by the server, code 1000"
    counting.cancel()
    assert accept.taken == [b"%d" % number for number in range(5_000)]
    portions = sum(len(frame(BINARY, push(raw))) for raw in accept.taken) // wire.READ_BYTES
    assert len(set(seen)) >= portions


# -- what is not read -----------------------------------------------------------------------------------------------------


async def test_pings_of_a_peer_that_reads_late() -> None:
    """While the peer does not read, only the pong for its last ping is kept; it arrives once the peer reads again."""
    last = asyncio.Event()

    async def act(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        for number in range(150):
            writer.write(
                b"".join(frame(PING, b"%06d" % (number * 1000 + n) + b"." * 100) for n in range(1000))
            )
            await writer.drain()
        writer.write(frame(PING, b"the last"))
        heard = b""
        while _mask(b"the last", heard[-12:-8]) != heard[-8:]:
            heard = (heard + await reader.read(1_000_000))[-100:]
        last.set()

    async with connected(act) as connection:
        await asyncio.wait_for(last.wait(), patience(20))
        assert not connection._lost.done()


def _mask(data: bytes, key: bytes) -> bytes:
    return bytes(a ^ b for a, b in zip(data, itertools.cycle(key or b"\0"), strict=False))


async def test_frames_whose_verdicts_do_not_come_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """What waits for its verdict is bounded by the budget; beyond it the answer is 500 at once, and later 200 again."""
    monkeypatch.setattr(frame_handler, "IN_HAND_BYTES", 100_000)
    waiting: list[Callable[[Verdict], None]] = []

    def accept(_raw: bytes, answer: Callable[[Verdict], None], /) -> None:
        waiting.append(answer)

    sent: list[bytes] = []
    handler = frame_handler.FrameHandler(accept, sent.append, lambda _config: None)
    with capture_logs() as lines:
        for number in range(200):
            handler.handle(push(trace_id=f"{number}" + "x" * 1_000))
    assert 80 < len(waiting) < 100
    assert len(waiting) + len(sent) == 200
    assert {json.loads(frames.decode(message).payload)["code"] for message in sent} == {500}
    assert [line["event"] for line in lines] == ["connection.overloaded"]
    for answer in waiting:
        answer(Verdict.STORED)
    sent.clear()
    handler.handle(push(b"again"))
    waiting[-1](Verdict.STORED)
    assert json.loads(frames.decode(sent[0]).payload)["code"] == 200


async def test_a_large_frame_waits_without_its_payload() -> None:
    """What is held for the answer to a frame of megabytes is the rest of it, and that is what the answer echoes."""
    sent: list[bytes] = []
    waiting: list[Callable[[Verdict], None]] = []
    handler = frame_handler.FrameHandler(
        lambda _raw, answer: waiting.append(answer), sent.append, lambda _config: None
    )
    for number in range(30):
        handler.handle(push(b"x" * 5_000_000, message_id=f"m{number}"))
    assert len(waiting) == 30
    assert handler._in_hand_bytes < 10_000
    waiting[7](Verdict.STORED)
    answer = frames.decode(sent[0])
    assert (answer.payload, frames.headers_of(answer)["message_id"]) == (b'{"code": 200}', "m7")


# -- memory, measured from outside ------------------------------------------------------------------------------------------


async def _fragments(writer: asyncio.StreamWriter, size: int) -> None:
    writer.write(frame(BINARY, b"x", fin=False))
    for _ in range(200):
        writer.write(frame(CONT, b"x" * size, fin=False) * 50_000)
        await writer.drain()


async def _unfinished(writer: asyncio.StreamWriter) -> None:
    for number in range(30):
        writer.write(frame(BINARY, push(sum="2", message_id=f"{number:04d}" + "m" * 8 * MIB)))
        await writer.drain()


async def _unfinished_payloads(writer: asyncio.StreamWriter) -> None:
    for number in range(20):
        writer.write(frame(BINARY, push(b"x" * 15 * MIB, sum="2", message_id=f"{number}")))
        await writer.drain()


async def _tiny_parts(writer: asyncio.StreamWriter) -> None:
    for number in range(250):
        parts = [
            frame(BINARY, push(b"", sum="1024", message_id=f"{number}", seq=str(n))) for n in range(1023)
        ]
        writer.write(b"".join(parts))
        await writer.drain()


async def _foreign_types(writer: asyncio.StreamWriter) -> None:
    for number in range(30):
        header = {"event_id": f"e{number}", "event_type": f"{number:04d}" + "t" * 8 * MIB, "tenant_key": "t"}
        payload = json.dumps({"schema": "2.0", "header": header, "event": {}}).encode()
        writer.write(frame(BINARY, push(payload, message_id=f"m{number}")))
        await writer.drain()


async def _long_headers(writer: asyncio.StreamWriter) -> None:
    for number in range(30):
        writer.write(frame(BINARY, push(f'{{"n":{number}}}'.encode(), trace_id="x" * 8 * MIB)))
        await writer.drain()


async def _pings(writer: asyncio.StreamWriter) -> None:
    for _ in range(12):
        writer.write(frame(PING, b"x" * 125) * 30_000)
        await writer.drain()


ATTACKS: dict[str, Any] = {
    "empty fragments": lambda writer: _fragments(writer, 0),
    "fragments of a byte": lambda writer: _fragments(writer, 1),
    "unfinished payloads with ids of 8 MiB": _unfinished,
    "unfinished payloads of 15 MiB": _unfinished_payloads,
    "a quarter of a million empty parts": _tiny_parts,
    "event types of 8 MiB": _foreign_types,
    "headers of 8 MiB, answers unread": _long_headers,
    "pings, pongs unread": _pings,
}


TINY = (
    "empty fragments",
    "fragments of a byte",
    "a quarter of a million empty parts",
    "pings, pongs unread",
)
"""Many pieces of next to nothing: these may cost next to nothing, a third of the others' bound."""

QUICK = ("empty fragments", "unfinished payloads with ids of 8 MiB", "event types of 8 MiB")
"""The others each take as long."""


@pytest.mark.parametrize(
    "attack", [name if name in QUICK else pytest.param(name, marks=pytest.mark.long) for name in ATTACKS]
)
async def test_the_memory_stays_bounded(tmp_path: Path, attack: str) -> None:
    """Whatever is sent and left unread, the process stays within the budget, and is connected again when it is over."""
    attacked = asyncio.Event()

    async with Simulator(client_config=NO_WAITS) as platform, HttpServer(Receiver()) as server:

        async def act(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            platform.faults.endpoint_body = None  # once is enough
            try:
                await ATTACKS[attack](writer)
            finally:
                attacked.set()
                writer.transport.abort()

        config = write_config(tmp_path, platform, server.url)
        async with running(tmp_path, config, anew=True) as daemon, gateway(act) as body:
            await platform.connected(20)
            before = _peak_mib(daemon.process.pid)
            platform.faults.endpoint_body = body
            await platform.drop(abort=True)
            await asyncio.wait_for(attacked.wait(), patience(60))
            await platform.connected(60)
            assert await platform.push(sample_event(event_id="after")).answered(10) == 200
            grown = _peak_mib(daemon.process.pid) - before
            print(f"{attack}: {grown} MiB")
            assert grown < (MOST_MIB // 3 if attack in TINY else MOST_MIB)
            assert len((tmp_path / "log.jsonl").read_bytes()) < 100_000


def _peak_mib(pid: int) -> int:
    """The most memory that the process ever had."""
    status = Path(f"/proc/{pid}/status").read_text().splitlines()
    (peak,) = [line for line in status if line.startswith("VmHWM:")]
    return int(peak.split()[1]) // 1024


async def test_twenty_thousand_garbage_frames_are_a_few_lines(tmp_path: Path) -> None:
    """Nonsense by the thousand is one line a second, which says how many more there were."""
    async with Simulator(client_config=NO_WAITS) as platform, HttpServer(Receiver()) as server:
        config = write_config(tmp_path, platform, server.url)
        async with running(tmp_path, config) as daemon:
            await platform.connected(20)
            for _ in range(20_000):
                platform.send_raw(b"\xff\xff\xff")
            assert await platform.push(sample_event()).answered(30) == 200
            platform.send_raw(b"\xff\xff\xff")

            def garbage() -> list[dict[str, Any]]:
                return [line for line in daemon.log() if line["event"] == "connection.garbage_frame"]

            def all_told() -> bool:
                platform.send_raw(b"\xff\xff\xff")
                return sum(1 + int(line.get("more", 0)) for line in garbage()) > 20_000

            await until(all_told)
            assert len(garbage()) < 30
