"""The log: every line whole, nothing secret in it, and never the reason that the daemon waits."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import io
import json
import logging
import os
import subprocess
import sys
import threading
import time
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import structlog

from reserve_listener.intake import normalize
from reserve_listener.model import IncomingEvent
from reserve_listener.observability import log_writer as writer_module, logs as logs_module
from reserve_listener.observability.log_writer import LogWriter
from reserve_listener.observability.logs import LEVELS, LINE_BYTES, Logs
from reserve_listener.simulator import patience, sample_event
from reserve_listener.sinks.log import LogSink
from reserve_listener.text import MASK, visible_lines
from tests.helpers import delivery, event, until

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

SECRETS = ("hunter2-app-secret", "hunter2", "sign|ing.key*")


@pytest.fixture(autouse=True)
def untouched_logging() -> Iterator[None]:
    """What `Logs` sets up for the whole process is taken back."""
    root = logging.getLogger()
    handlers, level = root.handlers, root.level
    with warnings.catch_warnings():
        yield
    logging.captureWarnings(capture=False)
    root.handlers, root.level = handlers, level
    structlog.reset_defaults()


class Output:
    """A file as the log's stream, and what was written to it."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.stream = path.open("w")
        self._made: list[Logs] = []

    def logs(self, **more: Any) -> Logs:
        logs = Logs(
            **{"level": "info", "log_format": "json", "secrets": SECRETS, "stream": self.stream, **more}
        )
        self._made.append(logs)
        return logs

    def text(self) -> str:
        """All that was logged; ends the logs."""
        self.close()
        return self.path.read_text()

    def lines(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.text().splitlines()]

    def close(self) -> None:
        while self._made:
            self._made.pop().close()
        self.stream.close()


@pytest.fixture
def output(tmp_path: Path) -> Iterator[Output]:
    output = Output(tmp_path / "log")
    yield output
    output.close()


def test_a_line_is_json_with_time_level_and_event_first(output: Output) -> None:
    """Keys come in a constant order, values keep their types, other objects are their text."""
    output.logs()
    structlog.get_logger("x").info(
        "daemon.started", count=3, ratio=0.5, on=True, none=None, path=Path("/a"), names=("a",)
    )
    (line,) = output.lines()
    assert list(line)[:3] == ["timestamp", "level", "event"]
    del line["timestamp"]
    assert line == {
        "level": "info",
        "event": "daemon.started",
        "count": 3,
        "ratio": 0.5,
        "on": True,
        "none": None,
        "path": "/a",
        "names": ["a"],
    }


@pytest.mark.parametrize("level", LEVELS)
async def test_the_level_holds_for_the_daemon_and_not_for_the_sink(output: Output, level: str) -> None:
    """Lines below the level are left out; the log sink's events are written whatever it is."""
    logs = output.logs(level=level)
    log = structlog.get_logger()
    for name in LEVELS:
        getattr(log, name)(f"daemon.{name}")
    await LogSink("console", logs.write_events).deliver([delivery(1, event().body or b"")])
    events = [line["event"] for line in output.lines()]
    expected = [f"daemon.{name}" for name in LEVELS[LEVELS.index(level) :]]
    assert events == [*expected, "reserve_config.updated"]


async def test_a_sink_line_carries_its_event_whole(output: Output) -> None:
    """What stands in the log is the data of the event, with time stamp and level like any line."""
    logs = output.logs(level="error")
    body = event("e1").body or b""
    await LogSink("console", logs.write_events).deliver([delivery(1, body)])
    (line,) = output.lines()
    assert line["data"] == json.loads(body)["data"]
    assert (line["level"], line["event_id"], line["sink"]) == ("info", "e1", "console")
    assert line["timestamp"].endswith("Z")


# -- nothing secret -------------------------------------------------------------------------------------------------------


class Url:
    """An object that is its text in a log."""

    def __str__(self) -> str:
        return "wss://x/ws?access_key=AK123&ticket=TK456"


def raise_secret() -> None:
    raise ValueError(
        "connect to wss://h/ws?device=1&access_key=AK123&ticket=TK456 with hunter2-app-secret failed"
    )


LEAKS: dict[str, Callable[[], None]] = {
    "text": lambda: structlog.get_logger().info("x", text="the hunter2-app-secret and sign|ing.key* here"),
    "event": lambda: structlog.get_logger().info("got hunter2-app-secret"),
    "url": lambda: structlog.get_logger().info(
        "x", url="wss://x/ws?access_key=AK123&ticket=TK456&service_id=1"
    ),
    "nested": lambda: structlog.get_logger().info("x", a=[{"b": ("hunter2", {"c": "ticket=TK456"})}]),
    "object": lambda: structlog.get_logger().info(
        "x", url=Url(), error=ValueError("hunter2"), kinds={"hunter2"}
    ),
    "key": lambda: structlog.get_logger().info("x", a={"hunter2": 1, "ticket=TK456": {"hunter2": 2}}),
    "bytes": lambda: structlog.get_logger().info("x", frame=b"access_key=AK123&ticket=TK456 hunter2"),
    "exception": lambda: _logged(structlog.get_logger().exception),
    "library": lambda: logging.getLogger("Lark").warning("connected to %s, %s", Url(), "hunter2-app-secret"),
    "library exception": lambda: _logged(logging.getLogger("Lark").exception),
    "library dict": lambda: logging.getLogger("Lark").error("%s", {"ticket": "TK456", "access_key": "AK123"}),
    "cut message": lambda: logging.getLogger("Lark").error("%s", "y" * 1988 + "sign|ing.key*"),
    "broken format": lambda: logging.getLogger("Lark").error("%d ticket=TK456", "hunter2"),
    "warning": lambda: warnings.warn("access_key=AK123", UserWarning, stacklevel=1),
}


def _logged(say: Callable[[str], None]) -> None:
    try:
        raise_secret()
    except ValueError:
        say("it failed")


@pytest.mark.parametrize("log_format", ["json", "console"])
@pytest.mark.parametrize("name", LEAKS)
def test_no_secret_is_written(output: Output, name: str, log_format: str) -> None:
    """Configured secrets and what looks like a credential are masked, wherever in a line they stand."""
    output.logs(log_format=log_format)
    LEAKS[name]()
    text = output.text()
    assert len(text.splitlines()) >= 1
    for secret in ("hunter2", "hunter", "AK123", "TK456", "app-secret", "ing.key"):
        # What a source line of a traceback shows is this file's own text.
        shown = "\n".join(
            line for line in text.replace("\\n", "\n").splitlines() if "raise ValueError(" not in line
        )
        assert secret not in shown
    if name != "broken format":
        assert "****" in text or name == "cut message"


def test_what_is_beside_a_secret_stays(output: Output) -> None:
    """Masking takes the values and leaves the rest of the line readable."""
    output.logs()
    structlog.get_logger().info("x", url="wss://x/ws?access_key=AK123&ticket=TK456&service_id=1")
    assert output.lines()[0]["url"] == "wss://x/ws?access_key=********&ticket=********&service_id=1"


# -- other libraries ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("number", "level"),
    [(20, "info"), (25, "info"), (30, "warning"), (35, "warning"), (40, "error"), (50, "error")],
)
def test_records_of_libraries_become_lines(output: Output, number: int, level: str) -> None:
    """A record comes out with its logger's name at its level, or the next lower one we have."""
    output.logs(level="debug")
    logging.getLogger("some.library").log(number, "hello %s", "world")
    (line,) = output.lines()
    assert (line["event"], line["logger"], line["message"], line["level"]) == (
        "library.log",
        "some.library",
        "hello world",
        level,
    )


def test_chatter_of_libraries_stays_out(output: Output) -> None:
    """At info only warnings of libraries are written: their infos hold addresses of connections."""
    output.logs(level="info")
    logging.getLogger("some.library").info("connected")
    assert output.lines() == []


def test_a_library_that_repeats_itself_is_one_line_a_second(
    output: Output, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of a thousand records from one place the first is written; the next second says how many more there were."""
    now = 100.0
    output.logs()
    bridge: Any = logging.getLogger().handlers[0]
    monkeypatch.setattr(bridge._throttle, "_clock", lambda: now)
    for second in range(3):
        now = 100.0 + second
        for number in range(1_000):
            logging.getLogger("websockets.client").warning("bad frame from %s", number)
            if number == 500:
                logging.getLogger("asyncio").error("another trouble")
    lines = [(line["logger"], line["message"], line.get("more")) for line in output.lines()]
    assert lines == [
        ("websockets.client", "bad frame from 0", None),
        ("asyncio", "another trouble", None),
        ("websockets.client", "bad frame from 0", 999),
        ("asyncio", "another trouble", None),
        ("websockets.client", "bad frame from 0", 999),
        ("asyncio", "another trouble", None),
    ]


def test_a_secret_that_has_ended_makes_room(output: Output) -> None:
    """A token that takes the place of another is masked from now on, and the other is looked for no more."""
    logs = output.logs()
    logs.hide("t-first-token")
    logs.hide("t-second-token", "t-first-token")
    logs.hide("t-second-token", "")
    assert logs.redact("t-first-token t-second-token") == f"t-first-token {MASK}"


def test_different_errors_from_one_place_are_different_lines(output: Output) -> None:
    """Asyncio reports every exception of a task from the same line: one type does not hide another."""
    output.logs()
    for error in (ValueError("one"), KeyError("two"), ValueError("three")):
        logging.getLogger("asyncio").error("Task exception was never retrieved", exc_info=error)
    assert ["ValueError" in line["exception"] for line in output.lines()] == [True, False]


STRANGE: dict[str, dict[str, Any]] = {
    "lone surrogate": {"path": "\udce4"},
    "huge number": {"number": 10**40},
    "keys of any kind": {"map": {(1, 2): 3, None: 4}},
    "no number": {"number": float("nan")},
    "an event": {"one": event()},
    "line breaks": {"text": "one\ntwo\r\u2028three"},
}


@pytest.mark.parametrize("name", STRANGE)
def test_no_value_makes_the_logging_code_raise(output: Output, name: str) -> None:
    """Whatever is logged, the caller goes on and exactly one line comes out."""
    output.logs()
    structlog.get_logger().info("x", **STRANGE[name])
    text = output.text()
    assert text.count("\n") == 1
    assert json.loads(text)["event"] == "x"


UNCAUGHT = """
import threading
from reserve_listener.observability.logs import Logs, log_uncaught
logs = Logs(level="info", log_format="json", secrets=("hunter2",))
log_uncaught()
def fail():
    raise ValueError("hunter2 in a thread")
thread = threading.Thread(target=fail, name="file-a")
thread.start()
thread.join()
class Broken:
    def __del__(self):
        raise ValueError("hunter2 in a finalizer")
del (broken := [Broken()])[0]
logs.close()
"""


def test_what_nobody_catches_is_a_masked_line() -> None:
    """An error in a thread or in a finalizer goes to the log with its traceback, and nothing of it to standard error."""
    done = subprocess.run(
        [sys.executable, "-c", UNCAUGHT], capture_output=True, text=True, timeout=patience(60), check=True
    )
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    assert [line["event"] for line in lines] == ["daemon.uncaught", "daemon.uncaught"]
    assert "file-a" in lines[0]["where"]
    assert all("Traceback" in line["exception"] for line in lines)
    assert "hunter2" not in done.stdout + done.stderr


# -- nothing that acts ----------------------------------------------------------------------------------------------------

DIRTY = "a\x1b]0;title\x07\nb\r\x85c\u2028d\u202ee\x9b2J\x7f"


@pytest.mark.parametrize("log_format", ["json", "console"])
async def test_no_foreign_text_acts_on_a_terminal_or_ends_a_line(output: Output, log_format: str) -> None:
    """Controls and bidi marks in values, keys, ids and data come out as escapes, and each event is one line."""
    logs = output.logs(log_format=log_format)
    structlog.get_logger().warning("x", reason=DIRTY, within={DIRTY: [DIRTY]})
    raw = json.dumps(
        sample_event(event_id=DIRTY, scope_id=DIRTY)
        | {"event": {"scope_id": DIRTY, DIRTY: DIRTY, "x": {"y": DIRTY}}}
    ).encode()
    body = normalize.incoming(raw, json.loads(raw), received_ms=1).body or b""
    await LogSink("console", logs.write_events).deliver([delivery(1, body)])
    text = output.text()
    assert text == visible_lines(text)
    assert len(text.splitlines()) == 2
    if log_format == "json":
        first, second = map(json.loads, text.splitlines())
        assert (first["reason"], second["event_id"], second["data"][DIRTY]) == (DIRTY, DIRTY, DIRTY)


def test_a_traceback_cannot_forge_a_line(output: Output) -> None:
    """On the console a traceback is set in, so that what stands in its message begins no line of the log."""
    output.logs(log_format="console")
    try:
        raise ValueError("\n12:00:00 [info] daemon.forged\x1b[2J")
    except ValueError:
        structlog.get_logger().exception("x")
    text = output.text()
    assert [line for line in text.splitlines() if not line.startswith("  ")][1:] == []
    assert "\x1b" not in text


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "gbk"])
@pytest.mark.parametrize("log_format", ["json", "console"])
def test_the_log_is_written_in_the_encoding_of_its_stream(
    tmp_path: Path, encoding: str, log_format: str
) -> None:
    """What an encoding lacks is escaped, and a line of JSON means what it meant."""
    with (tmp_path / "log").open("w", encoding=encoding) as stream:
        logs = Logs(level="info", log_format=log_format, stream=stream)
        structlog.get_logger().info("x", name="北京 é 😀")
        logs.close()
    text = (tmp_path / "log").read_text(encoding)
    assert ("北京" in text) == (encoding == "gbk")
    if log_format == "json":
        assert json.loads(text)["name"] == "北京 é 😀"


def long_event(**sections: Any) -> bytes:
    envelope = sample_event(**({"event_id": "e1", "scope_id": "omm_a"} | sections))
    return normalize.incoming(json.dumps(envelope).encode(), envelope, received_ms=1).body or b""


async def test_a_long_line_carries_counts_instead_of_its_lists(output: Output) -> None:
    """A line over 16 KiB says how many there are and that it is not whole; one that just fits is whole."""
    logs = output.logs()
    people = [{"user_id": {"open_id": f"ou_{number:032}"}} for number in range(1_000)]
    bodies = [
        long_event(reserve_scope_config={"allow_all_users": 0, "allow_users": people[:count]})
        for count in (1_000, 200)
    ]
    await LogSink("console", logs.write_events).deliver([delivery(1, body) for body in bodies])
    short, whole = output.lines()
    assert short["truncated"] is True
    assert short["data"]["reserve_scope_config"] == {"allow_all_users": False, "allow_users": 1_000}
    assert (short["event_id"], short["scope_id"]) == ("e1", "omm_a")
    assert "truncated" not in whole
    assert whole["data"] == json.loads(bodies[1])["data"]


@pytest.mark.parametrize(
    "sections",
    [
        {"text": "x" * 100_000},
        {"text": "\u202e" * 6_000},
        {"many": {f"key{number}": number for number in range(10_000)}},
        {"many": {"x" * 100_000: 1}},
        {"scope_type": {"x" * number: number for number in range(1_000)}},
        {"scope_id": "y" * 100_000},
    ],
    ids=["text", "escapes", "keys", "long key", "type", "id"],
)
@pytest.mark.parametrize("log_format", ["json", "console"])
async def test_no_line_of_an_event_is_longer(
    output: Output, sections: dict[str, Any], log_format: str
) -> None:
    """Whatever it is that is long, the line is not."""
    logs = output.logs(log_format=log_format)
    body = long_event(**({"time_config": {}} | sections))
    await LogSink("console", logs.write_events).deliver([delivery(1, body)])
    (line,) = output.text().splitlines()
    assert len(line.encode()) <= LINE_BYTES
    assert "truncated" in line or log_format == "console"


# -- the writer's thread ----------------------------------------------------------------------------------------------------


class Pipe:
    """A pipe that nobody reads until told to: what a stopped terminal is to the daemon."""

    def __init__(self) -> None:
        self.read_end, self.write_end = os.pipe()
        fcntl.fcntl(self.write_end, fcntl.F_SETPIPE_SZ, 4096)
        self._data = bytearray()
        self._thread = threading.Thread(target=self._read)

    def flow(self) -> None:
        self._thread.start()

    def _read(self) -> None:
        while piece := os.read(self.read_end, 65536):
            self._data += piece

    def end(self) -> list[str]:
        os.close(self.write_end)
        self._thread.join(10)
        os.close(self.read_end)
        return self._data.decode().splitlines()


async def test_a_blocked_log_drops_and_counts_the_daemons_lines_and_no_event(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """While nobody reads nothing waits for the log; then every event is there, and a line says how many others are not."""
    monkeypatch.setattr(writer_module, "HELD_BYTES", 100 * (113 + writer_module.LINE_BYTES))
    pipe = Pipe()
    writer = LogWriter(pipe.write_end, on_dropped=lambda count: f"dropped {count}")
    started = time.monotonic()
    for number in range(1_000):
        writer.line(f"daemon {number:04} {'x' * 100}")
    assert time.monotonic() - started < patience(2)
    events = [asyncio.create_task(writer.write([f"event {number}"])) for number in range(200)]
    done, _ = await asyncio.wait(events, timeout=0.05)
    assert not done
    pipe.flow()
    async with asyncio.timeout(patience(10)):
        await asyncio.gather(*events)
    writer.close()
    lines = pipe.end()
    assert [line for line in lines if line.startswith("event")] == [
        f"event {number}" for number in range(200)
    ]
    daemon = [line for line in lines if line.startswith("daemon")]
    dropped = [int(line.split()[1]) for line in lines if line.startswith("dropped")]
    assert len(daemon) + sum(dropped) == 1_000
    assert sum(dropped) > 800
    assert set(map(len, daemon)) == {len("daemon 0000 ") + 100}


def test_long_lines_are_bounded_by_their_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    """A few large ones, such as tracebacks, fill it as many small ones do; written, they leave room for others."""
    monkeypatch.setattr(writer_module, "HELD_BYTES", 100_000)
    pipe = Pipe()
    writer = LogWriter(pipe.write_end, on_dropped=lambda count: f"dropped {count}")
    for _ in range(10):
        writer.line("x" * 30_000)
    assert writer._held_bytes <= 100_000
    pipe.flow()
    while writer._held_bytes:
        time.sleep(0.001)
    writer.line("afterwards")
    writer.close()
    lines = pipe.end()
    assert (lines.count("x" * 30_000), lines.count("dropped 7"), lines[-1]) == (3, 1, "afterwards")


async def test_an_event_is_written_when_write_returns(tmp_path: Path) -> None:
    """`write` returns after the bytes are out, not when they are queued."""
    descriptor = os.open(tmp_path / "log", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    writer = LogWriter(descriptor, on_dropped=str)
    await writer.write(["one", "two"])
    assert (tmp_path / "log").read_text() == "one\ntwo\n"
    writer.close()
    os.close(descriptor)


async def test_a_log_that_cannot_be_written_is_heard_by_the_sink_and_counted() -> None:
    """On a full disk `write` raises OSError and daemon lines are counted as dropped; the thread lives on."""
    descriptor = os.open("/dev/full", os.O_WRONLY)
    writer = LogWriter(descriptor, on_dropped=lambda count: f"dropped {count}")
    for number in range(3):
        writer.line(f"daemon {number}")
    for _ in range(2):
        with pytest.raises(OSError, match="No space left"):
            await writer.write(["event"])
    read_end, write_end = os.pipe()
    os.dup2(write_end, descriptor)
    await writer.write(["event"])
    writer.close()
    assert os.read(read_end, 1000) == b"dropped 3\nevent\n"
    for open_one in (descriptor, read_end, write_end):
        os.close(open_one)


async def test_a_line_cut_off_by_a_full_disk_is_ended(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What comes after half a line begins on a line of its own."""
    descriptor = os.open(tmp_path / "log", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    writer = LogWriter(descriptor, on_dropped=str)
    real = os.write
    room = [4, 0]

    def little(file: int, data: memoryview) -> int:
        if file != descriptor or not room:
            return real(file, data)
        if size := room.pop(0):
            return real(file, data[:size])
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "write", little)
    with pytest.raises(OSError, match="No space left"):
        await writer.write(["event one"])
    await writer.write(["event one"])
    await writer.write(["event two"])
    writer.close()
    os.close(descriptor)
    assert (tmp_path / "log").read_text() == "even\nevent one\nevent two\n"


async def test_a_non_blocking_terminal_is_waited_for() -> None:
    """A descriptor that somebody else made non-blocking loses nothing."""
    pipe = Pipe()
    os.set_blocking(pipe.write_end, False)
    writer = LogWriter(pipe.write_end, on_dropped=str)
    written = asyncio.create_task(writer.write([f"event {number:05}" for number in range(5_000)]))
    await asyncio.wait([written], timeout=0.05)
    assert not written.done()
    pipe.flow()
    async with asyncio.timeout(patience(10)):
        await written
    writer.close()
    assert pipe.end() == [f"event {number:05}" for number in range(5_000)]


async def test_a_caller_who_goes_away_disturbs_nobody(tmp_path: Path) -> None:
    """A cancelled write, and one whose loop is closed, leave the thread at work."""
    descriptor = os.open(tmp_path / "log", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    writer = LogWriter(descriptor, on_dropped=str)
    cancelled = asyncio.create_task(writer.write(["cancelled"]))
    await asyncio.sleep(0)
    cancelled.cancel()

    def on_a_loop_of_its_own() -> None:
        loop = asyncio.new_event_loop()
        one = loop.create_task(writer.write(["elsewhere"]))
        loop.run_until_complete(asyncio.sleep(0))
        one.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            loop.run_until_complete(one)
        loop.close()

    await asyncio.to_thread(on_a_loop_of_its_own)
    await writer.write(["last"])
    writer.close()
    os.close(descriptor)
    assert (tmp_path / "log").read_text().splitlines()[-1] == "last"


def test_close_does_not_wait_for_a_blocked_log_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    """With nobody reading, `close` returns after its timeout."""
    monkeypatch.setattr(writer_module, "CLOSE_TIMEOUT_S", 0.05)
    pipe = Pipe()
    writer = LogWriter(pipe.write_end, on_dropped=str)
    for _ in range(100):
        writer.line("x" * 100)
    started = time.monotonic()
    writer.close()
    assert time.monotonic() - started < patience(2)
    pipe.flow()
    writer._thread.join(10)
    assert pipe.end() == ["x" * 100] * 100


async def test_lines_of_several_threads_do_not_interleave(output: Output) -> None:
    """Daemon lines from threads and events of the sink come out as whole lines, none missing."""
    logs = output.logs()

    def chatter(name: int) -> None:
        for number in range(200):
            structlog.get_logger().info("x", who=name, number=number, filler="y" * 200)

    threads = [asyncio.to_thread(chatter, name) for name in range(4)]
    sink = LogSink("console", logs.write_events)
    events = [sink.deliver([delivery(number, event(f"e{number}").body or b"")]) for number in range(100)]
    await asyncio.gather(*threads, *events)
    lines = output.lines()
    assert len(lines) == 900
    for name in range(4):
        assert [line["number"] for line in lines if line.get("who") == name] == list(range(200))


# -- on a terminal --------------------------------------------------------------------------------------------------------


async def test_the_console_format_is_one_line_for_an_event(output: Output) -> None:
    """For people the data are dotted keys on one line, without colours where there is no terminal."""
    logs = output.logs(log_format="console")
    await LogSink("console", logs.write_events).deliver([delivery(1, event("e1").body or b"")])
    text = output.text()
    assert text.count("\n") == 1
    assert "reserve_config.updated" in text
    assert "time.opening_hour=28800" in text
    assert "approve.approvers=[0]" in text
    assert "\x1b" not in text


async def test_the_console_says_where_and_what_first(output: Output) -> None:
    """The room with the levels above it, the sentence, and what to look the event up by; the limits are in `events show`."""
    data = {
        "scope_id": "omm_a",
        "scope_type": "room",
        "time_config": {"max_duration": 2},
        "quiet": 22,
        "scope_name": "3F-Ada",
        "scope_path": ["Tower A", "3F"],
        "revision": 2,
        "changes": [{"path": "time_config.max_duration", "before": 8, "after": 2}],
        "summary": "at most 8 h \u2192 2 h per booking",
        "origin": "reconcile",
    }
    body = json.dumps({"id": "e1", "source": "s", "subject": "omm_a", "time": "t", "data": data}).encode()
    logs = output.logs(log_format="console")
    await LogSink("console", logs.write_events).deliver([delivery(1, body)])
    assert output.text().partition("reserve_config.updated")[2].strip() == (
        "scope_name='Tower A / 3F / 3F-Ada' summary='at most 8 h → 2 h per booking' quiet=22 revision=2"
        " origin=reconcile sink=console scope_type=room scope_id=omm_a event_id=e1"
    )


def test_the_console_shows_lists_without_brackets(output: Output) -> None:
    """Names and numbers in a line of the daemon; what is nested stays as Python writes it."""
    output.logs(log_format="console")
    structlog.get_logger().info("x", sinks=["a", "b"], pending={"a": 0, "b": 2}, deep=[["c"]], none=[])
    assert "sinks='a, b' pending='a: 0, b: 2' deep=\"[['c']]\" none=" in output.text()


@pytest.mark.parametrize(("no_color", "colours"), [(False, True), (True, False)])
def test_a_terminal_gets_colours_unless_no_color_is_set(
    monkeypatch: pytest.MonkeyPatch, *, no_color: bool, colours: bool
) -> None:
    """`auto` is colourful on a terminal, and NO_COLOR is heeded."""
    monkeypatch.delenv("NO_COLOR", raising=False)
    if no_color:
        monkeypatch.setenv("NO_COLOR", "1")
    master, slave = os.openpty()
    with open(slave, "w", closefd=False) as stream:
        logs = Logs(level="info", log_format="auto", stream=stream)
        structlog.get_logger().warning("daemon.started", name="x")
        logs.close()
        text = os.read(master, 10_000).decode()
    os.close(master)
    os.close(slave)
    assert "daemon.started" in text
    assert ("\x1b[" in text) is colours


def test_a_stream_without_a_descriptor_falls_back_to_standard_output() -> None:
    """What has no file descriptor (a test's capture) is no reason to fail."""
    assert logs_module._descriptor(io.StringIO()) == 1


def test_the_event_struct_is_logged_without_raising() -> None:
    """The guard that the value of STRANGE is what it says."""
    assert isinstance(STRANGE["an event"]["one"], IncomingEvent)


async def test_close_writes_what_is_queued(output: Output) -> None:
    """Every line that was logged before `close` is in the file after it."""
    output.logs()
    for number in range(500):
        structlog.get_logger().info("x", number=number)
    assert [line["number"] for line in output.lines()] == list(range(500))
    await until(lambda: True)
