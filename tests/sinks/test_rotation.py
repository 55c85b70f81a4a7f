"""Rotation by the file sink: on real files, with a failure or a kill at each step. No line is ever lost by it."""

# ruff: noqa: ASYNC240  # small files on a local disk, and the loop has nothing else to do

from __future__ import annotations

import asyncio
import calendar
import errno
import gzip
import os
import random
import re
import signal
import stat
import subprocess
import sys
import threading
import time
from typing import TYPE_CHECKING, Any

import pytest
import structlog

from reserve_listener.errors import TransientDeliveryError
from reserve_listener.simulator import patience
from reserve_listener.sinks.file import rotation
from reserve_listener.sinks.file.rotation import CHUNK_BYTES, Every, Rotation, next_name
from reserve_listener.sinks.file.sink import FileSink
from tests.helpers import delivery, until

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator
    from pathlib import Path

    from reserve_listener.model import Delivery

NOON = calendar.timegm((2026, 11, 22, 12, 0, 0))  # a Sunday
STAMP = "20261122T120000Z"
LINE = 40


class Seconds:
    """A clock that stands until it is set."""

    def __init__(self, now_s: float = NOON) -> None:
        self.now_s = now_s

    def __call__(self) -> float:
        return self.now_s


@pytest.fixture(autouse=True)
def utc(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Calendar periods are local: every test begins in UTC."""
    monkeypatch.setenv("TZ", "UTC")
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()


@pytest.fixture
def clock() -> Seconds:
    return Seconds()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "events.jsonl"


@pytest.fixture
async def sinks(path: Path, clock: Seconds) -> AsyncIterator[Callable[..., FileSink]]:
    """Makes sinks of one path, closed in the end."""
    made: list[FileSink] = []

    def make(at: Path = path, **options: Any) -> FileSink:
        made.append(FileSink("audit", at, now_s=clock, **options))
        return made[-1]

    yield make
    for sink in made:
        await sink.close()


def line(number: int) -> Delivery:
    """Forty bytes with the line's end."""
    return delivery(number, b'{"specversion":"1.0","id":"%08d"}  ' % number)


def text_of(*numbers: int) -> bytes:
    return b"".join(line(number).body + b"\n" for number in numbers)


def names(folder: Path) -> list[str]:
    return sorted(one.name for one in folder.iterdir())


def ids_in(folder: Path) -> set[int]:
    """All events in all files; every line has to be whole."""
    found: set[int] = set()
    for file in folder.iterdir():
        if file.name.endswith(".tmp"):
            continue
        data = gzip.decompress(file.read_bytes()) if file.suffix == ".gz" else file.read_bytes()
        assert data.endswith(b"\n") or not data
        for one in data.splitlines():
            match = re.fullmatch(rb'\{"specversion":"1.0","id":"(\d{8})"\} *', one)
            assert match, (file, one)
            found.add(int(match[1]))
    return found


def test_a_line_of_these_tests_is_forty_bytes() -> None:
    """The sizes below count on it."""
    assert len(text_of(1)) == LINE


# -- when --------------------------------------------------------------------------------------------------------------------


async def test_nothing_is_rotated_unless_asked(sinks: Callable[..., FileSink], path: Path) -> None:
    """Without rotation the file grows, old as it may be, whatever `keep` and `compress` say."""
    path.write_bytes(text_of(1))
    os.utime(path, (0, 0))
    (path.parent / f"events.jsonl.{STAMP}").write_bytes(text_of(9))
    await sinks(keep=0, compress=True).deliver([line(2)])
    assert path.read_bytes() == text_of(1, 2)
    assert names(path.parent) == ["events.jsonl", f"events.jsonl.{STAMP}"]


async def test_a_full_file_is_rotated_before_the_batch_that_would_exceed_it(
    sinks: Callable[..., FileSink], path: Path
) -> None:
    """At the limit exactly it stays; beyond it the file gets the time's name, and a new one of mode 0640 is begun."""
    sink = sinks(rotate_bytes=3 * LINE)
    await sink.deliver([line(1), line(2)])
    await sink.deliver([line(3)])
    assert names(path.parent) == ["events.jsonl"]
    with structlog.testing.capture_logs() as logs:
        await sink.deliver([line(4)])
    rotated = path.with_name(f"events.jsonl.{STAMP}")
    assert rotated.read_bytes() == text_of(1, 2, 3)
    assert path.read_bytes() == text_of(4)
    assert stat.S_IMODE(path.stat().st_mode) == stat.S_IMODE(rotated.stat().st_mode) == 0o640
    assert logs == [
        {
            "event": "file.rotated",
            "log_level": "info",
            "sink": "audit",
            "path": str(path),
            "rotated_path": str(rotated),
            "size_bytes": 3 * LINE,
        }
    ]


async def test_a_batch_bigger_than_a_file_has_one_of_its_own(
    sinks: Callable[..., FileSink], path: Path
) -> None:
    """A batch is never split: it goes whole into a new file, and an empty file is never rotated."""
    sink = sinks(rotate_bytes=LINE)
    await sink.deliver([line(1), line(2)])
    assert names(path.parent) == ["events.jsonl"]
    await sink.deliver([line(3), line(4)])
    assert path.read_bytes() == text_of(3, 4)
    assert path.with_name(f"events.jsonl.{STAMP}").read_bytes() == text_of(1, 2)


@pytest.mark.parametrize(
    ("every", "zone", "first", "second", "due"),
    [
        ("hour", "UTC", "2026-11-22 11:00:00", "2026-11-22 11:59:59", False),
        ("hour", "UTC", "2026-11-22 11:59:59", "2026-11-22 12:00:00", True),
        ("hour", "UTC", "2026-11-22 12:00:00", "2026-11-23 12:00:00", True),
        ("hour", "Asia/Kolkata", "2026-11-22 11:29:59", "2026-11-22 11:30:00", True),
        ("hour", "Europe/Berlin", "2026-10-25 00:30:00", "2026-10-25 01:30:00", True),
        ("day", "UTC", "2026-11-22 00:00:00", "2026-11-22 23:59:59", False),
        ("day", "UTC", "2026-11-22 23:59:59", "2026-11-23 00:00:00", True),
        ("day", "Asia/Shanghai", "2026-11-22 15:59:59", "2026-11-22 16:00:00", True),
        ("day", "Asia/Shanghai", "2026-11-22 23:59:59", "2026-11-23 00:00:00", False),
        ("day", "Europe/Berlin", "2026-10-24 22:00:00", "2026-10-25 22:59:59", False),
        ("week", "UTC", "2026-11-16 00:00:00", "2026-11-22 23:59:59", False),
        ("week", "UTC", "2026-11-22 23:59:59", "2026-11-23 00:00:00", True),
        ("week", "UTC", "2026-12-31 12:00:00", "2027-01-01 12:00:00", False),
        ("week", "Asia/Shanghai", "2026-11-22 15:59:59", "2026-11-22 16:00:00", True),
    ],
)
def test_periods_are_those_of_the_local_calendar(
    every: Every, zone: str, first: str, second: str, *, due: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Hours, days and weeks from Monday, by the wall clock, also where it is set back."""
    monkeypatch.setenv("TZ", zone)
    time.tzset()
    since_s, now_s = (calendar.timegm(time.strptime(at, "%Y-%m-%d %H:%M:%S")) for at in (first, second))
    assert Rotation(every=every).due(size=1, batch=1, since_s=since_s, now_s=now_s) is due


async def test_a_new_day_begins_a_new_file(
    sinks: Callable[..., FileSink], path: Path, clock: Seconds
) -> None:
    """The first batch of a day finds yesterday's file and rotates it; all others of the day follow it."""
    sink = sinks(rotate_every="day")
    await sink.deliver([line(1)])
    clock.now_s += 11 * 3600
    await sink.deliver([line(2)])
    clock.now_s += 3600
    await sink.deliver([line(3)])
    clock.now_s += 3600
    await sink.deliver([line(4)])
    assert path.read_bytes() == text_of(3, 4)
    assert path.with_name("events.jsonl.20261123T000000Z").read_bytes() == text_of(1, 2)
    assert len(names(path.parent)) == 2


@pytest.mark.parametrize(("age_s", "rotated"), [(11 * 3600, False), (13 * 3600, True), (10**11, True)])
async def test_the_period_is_known_after_a_restart(
    sinks: Callable[..., FileSink], path: Path, age_s: int, *, rotated: bool
) -> None:
    """A file found at the start is of the day in which it was written last, whatever that may be."""
    path.write_bytes(text_of(1))
    os.utime(path, (NOON - age_s, NOON - age_s))
    sink = sinks(rotate_every="day")
    await sink.deliver([line(2)])
    await sink.deliver([line(3)])
    assert path.read_bytes() == (text_of(2, 3) if rotated else text_of(1, 2, 3))


# -- names -------------------------------------------------------------------------------------------------------------------


async def test_nothing_is_ever_overwritten(sinks: Callable[..., FileSink], path: Path) -> None:
    """Several rotations within a second are told apart by a number; a compressed file's name counts as taken too."""
    path.with_name(f"events.jsonl.{STAMP}.gz").write_bytes(gzip.compress(text_of(90)))
    path.with_name(f"events.jsonl.{STAMP}-1").write_bytes(text_of(91))
    sink = sinks(rotate_bytes=1)
    for number in range(4):
        await sink.deliver([line(number)])
    assert names(path.parent) == [
        "events.jsonl",
        f"events.jsonl.{STAMP}-1",
        f"events.jsonl.{STAMP}-2",
        f"events.jsonl.{STAMP}-3",
        f"events.jsonl.{STAMP}-4",
        f"events.jsonl.{STAMP}.gz",
    ]
    assert ids_in(path.parent) == {0, 1, 2, 3, 90, 91}


def test_a_clock_set_back_does_not_make_the_newest_the_oldest(path: Path) -> None:
    """Behind a file from the future the next one is numbered, so that pruning does not take it first."""
    path.with_name("events.jsonl.20991231T235959Z-9").touch()
    path.with_name("events.jsonl.20991231T235959Z-10.gz").touch()
    assert next_name(path, NOON).name == "events.jsonl.20991231T235959Z-11"


async def test_beside_the_file_that_a_link_names(
    sinks: Callable[..., FileSink], path: Path, tmp_path: Path
) -> None:
    """A path that is a link stays one: what is rotated is the file it names."""
    (tmp_path / "disk").mkdir()
    path.symlink_to(tmp_path / "disk" / "real.jsonl")
    sink = sinks(rotate_bytes=1, keep=1)
    for number in range(3):
        await sink.deliver([line(number)])
    await until(lambda: len(names(tmp_path / "disk")) == 2)
    assert path.is_symlink()
    assert path.read_bytes() == text_of(2)
    assert names(tmp_path / "disk") == ["real.jsonl", f"real.jsonl.{STAMP}-1"]


# -- what is kept ------------------------------------------------------------------------------------------------------------


async def test_the_oldest_go_and_nobody_elses(
    sinks: Callable[..., FileSink], path: Path, clock: Seconds
) -> None:
    """Only `keep` rotated files stay, compressed or not; what merely looks alike is not touched."""
    others = [
        "events.jsonl.1",
        "events.jsonl.20200101T000000Z.bak",
        "events.jsonl.20200101T000000",
        "events.jsonl.20200101T000000Z-0",
        "events.jsonl.20200101T000000Z-01",
        "events.jsonl.20200101T000000Z.gz.gz",
        "events_jsonl.20200101T000000Z",
        "events_jsonl.20990101T000000Z",
        "other-events.jsonl.20200101T000000Z",
        "events.jsonl.old.20200101T000000Z",
    ]
    for name in others:
        path.with_name(name).touch()
    path.with_name("events.jsonl.20190101T000000Z").mkdir()
    ours = [path.with_name(f"events.jsonl.2021010{day}T000000Z") for day in range(1, 5)]
    for number, file in enumerate(ours):
        file.write_bytes(text_of(number))
    ours[0].rename(f"{ours[0]}.gz")
    sink = sinks(rotate_every="hour", keep=3)
    await sink.deliver([line(8)])
    clock.now_s += 3600
    await sink.deliver([line(9)])
    await sink.close()
    expected = {*others, path.name, "events.jsonl.20190101T000000Z", ours[2].name, ours[3].name}
    assert set(names(path.parent)) == expected | {"events.jsonl.20261122T130000Z"}


async def test_a_smaller_keep_holds_from_the_opening_on(sinks: Callable[..., FileSink], path: Path) -> None:
    """After a restart with fewer files to keep, the rest goes without waiting for a rotation."""
    for day in range(1, 6):
        path.with_name(f"events.jsonl.2021010{day}T000000Z").touch()
    await sinks(rotate_every="week", keep=2).deliver([line(1)])
    expected = ["events.jsonl", "events.jsonl.20210104T000000Z", "events.jsonl.20210105T000000Z"]
    await until(lambda: names(path.parent) == expected)


async def test_rotated_files_are_compressed(sinks: Callable[..., FileSink], path: Path) -> None:
    """Each becomes a whole .gz of mode 0640 with the plain one gone."""
    old = os.umask(0o022)
    try:
        sink = sinks(rotate_bytes=1, compress=True)
        for number in range(3):
            await sink.deliver([line(number)])
        packed = [path.with_name(f"events.jsonl.{STAMP}{end}.gz") for end in ("", "-1")]
        await until(lambda: set(names(path.parent)) == {path.name, packed[0].name, packed[1].name})
    finally:
        os.umask(old)
    assert [gzip.decompress(file.read_bytes()) for file in packed] == [text_of(0), text_of(1)]
    assert [stat.S_IMODE(file.stat().st_mode) for file in packed] == [0o640, 0o640]


async def test_each_step_is_on_the_disk_before_the_next(
    sinks: Callable[..., FileSink], path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A power cut finds whole data under some name: renames are flushed with their folder, and the plain file goes last."""
    steps: list[str] = []

    def noted(call: str) -> Callable[..., Any]:
        real: Callable[..., Any] = getattr(os, call)

        def wrapped(at: Any, *args: Any, **kwargs: Any) -> Any:
            shown = os.readlink(f"/proc/self/fd/{at}") if isinstance(at, int) else str(at)  # noqa: PTH115  # no path
            steps.append(" ".join([call, shown.removeprefix(f"{path.parent}/")]))
            return real(at, *args, **kwargs)

        return wrapped

    sink = sinks(rotate_bytes=1, compress=True)
    tidy_up = sink._tidy_up
    sink._tidy_up = lambda: None  # type: ignore[method-assign]  # also what the opening begins
    await sink.deliver([line(1)])
    for call in ("rename", "fsync", "unlink"):
        monkeypatch.setattr(os, call, noted(call))
    await sink.deliver([line(2)])
    assert steps == [
        "rename events.jsonl",
        f"fsync {path.parent}",
        f"fsync {path.parent}",
        "fsync events.jsonl",
    ]
    steps.clear()
    tidy_up()
    rotated = f"events.jsonl.{STAMP}"
    await until(lambda: len(steps) == 4)
    assert steps == [
        f"fsync {rotated}.gz.tmp",
        f"rename {rotated}.gz.tmp",
        f"fsync {path.parent}",
        f"unlink {rotated}",
    ]


async def test_what_a_kill_left_half_compressed_is_finished_at_the_opening(
    sinks: Callable[..., FileSink], path: Path
) -> None:
    """Leftovers go; a plain file is compressed, also one whose compressed file was already whole; links are left alone."""
    path.with_name(f"events.jsonl.{STAMP}").write_bytes(text_of(1))
    path.with_name(f"events.jsonl.{STAMP}.gz.tmp").write_bytes(b"half")
    path.with_name(f"events.jsonl.{STAMP}-1").write_bytes(text_of(2))
    path.with_name(f"events.jsonl.{STAMP}-1.gz").write_bytes(gzip.compress(text_of(2)))
    path.with_name(f"events.jsonl.{STAMP}-2.gz.tmp").write_bytes(b"orphan")
    with structlog.testing.capture_logs() as logs:
        await sinks(rotate_bytes=1000, compress=True).deliver([line(3)])
        expected = ["events.jsonl", f"events.jsonl.{STAMP}-1.gz", f"events.jsonl.{STAMP}.gz"]
        await until(lambda: names(path.parent) == expected)
    assert ids_in(path.parent) == {1, 2, 3}
    assert logs == []


async def test_a_batch_is_not_held_up_by_compressing(
    sinks: Callable[..., FileSink], path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While a file is being compressed batches are delivered and files rotated; one is compressed at a time."""
    begun, go_on = threading.Event(), threading.Event()
    running: list[str] = []
    write = rotation._write_gzip

    def slow(source: int, half: Path, name: str, stop: threading.Event) -> bool:
        running.append(name)
        begun.set()
        assert go_on.wait(20)
        assert running == [name]
        done = write(source, half, name, stop)
        running.remove(name)
        return done

    monkeypatch.setattr(rotation, "_write_gzip", slow)
    sink = sinks(rotate_bytes=1, compress=True)
    await sink.deliver([line(0)])
    await sink.deliver([line(1)])
    await until(begun.is_set)
    for number in range(2, 6):
        await sink.deliver([line(number)])
    assert path.read_bytes() == text_of(5)
    go_on.set()
    await until(lambda: all(name == path.name or name.endswith(".gz") for name in names(path.parent)))
    assert ids_in(path.parent) == set(range(6))


async def test_closing_breaks_compressing_off(
    sinks: Callable[..., FileSink], path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A big file does not hold up the end: the half goes, the plain one stays, and the next sink compresses it."""
    big = path.with_name(f"events.jsonl.{STAMP}")
    big.write_bytes(text_of(1) * (3 * CHUNK_BYTES // LINE))
    reading, go_on = threading.Event(), threading.Event()
    reads: list[int] = []
    read = os.read

    def slow(file: int, size: int) -> bytes:
        reads.append(size)
        reading.set()
        assert go_on.wait(20)
        return read(file, size)

    sink = sinks(rotate_bytes=1000, compress=True)
    with monkeypatch.context() as patch:
        patch.setattr(os, "read", slow)
        await sink.deliver([line(2)])
        await until(reading.is_set)
        closing = asyncio.create_task(sink.close())
        await until(sink._stop_tidying.is_set)
        go_on.set()
        await closing
    assert reads == [CHUNK_BYTES]
    assert names(path.parent) == ["events.jsonl", big.name]
    await sink.deliver([line(3)])
    await until(lambda: names(path.parent) == ["events.jsonl", f"{big.name}.gz"])
    assert gzip.decompress(big.with_name(f"{big.name}.gz").read_bytes()).startswith(text_of(1))


def test_a_stop_at_the_last_moment_still_counts(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A disk that hung over the end of its sink: what comes out of it then must not replace what the next one made."""
    plain = path.with_name(f"events.jsonl.{STAMP}")
    plain.write_bytes(text_of(1))
    stop = threading.Event()
    monkeypatch.setattr(os, "fsync", lambda _: stop.set())
    assert rotation.tidy(path, keep=1, compress=True, stop=stop) == []
    assert names(path.parent) == [plain.name]


async def test_what_another_still_has_open_is_not_compressed(
    sinks: Callable[..., FileSink], path: Path
) -> None:
    """A rotated file that is locked may still be written to: it is left for the next time."""
    held = path.with_name(f"events.jsonl.{STAMP}")
    await sinks(held).deliver([line(1)])
    sink = sinks(rotate_bytes=1000, compress=True)
    await sink.deliver([line(2)])
    await sink.close()
    assert names(path.parent) == ["events.jsonl", held.name]


# -- failures ----------------------------------------------------------------------------------------------------------------


class Failing:
    """Fails the calls that the test picks, by their names and numbers, with "disk full"."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, *calls: str) -> None:
        self.count = 0
        self.fail_at: Callable[[int], bool] = lambda _: False
        for call in calls:
            monkeypatch.setattr(os, call, self._wrapped(getattr(os, call)))

    def _wrapped(self, call: Callable[..., Any]) -> Callable[..., Any]:
        def wrapped(*args: Any, **kwargs: Any) -> Any:
            if not threading.current_thread().name.startswith("file-"):
                return call(*args, **kwargs)
            self.count += 1
            if self.fail_at(self.count):
                raise OSError(errno.ENOSPC, "No space left on device")
            return call(*args, **kwargs)

        return wrapped


async def test_a_failed_rotation_does_not_stop_delivery(
    sinks: Callable[..., FileSink], path: Path, clock: Seconds, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The present file goes on, with one warning a minute; as soon as it can be, it is rotated."""
    sink = sinks(rotate_every="day", rotate_bytes=1000)
    await sink.deliver([line(0)])
    clock.now_s += 24 * 3600
    with monkeypatch.context() as patch, structlog.testing.capture_logs() as logs:
        Failing(patch, "rename").fail_at = lambda _: True
        for number, pause_s in ((1, 59), (2, 0.9), (3, 0.2), (4, 0)):
            await sink.deliver([line(number)])
            clock.now_s += pause_s
    assert [(one["event"], one["log_level"]) for one in logs] == [("file.rotation_failed", "warning")] * 2
    assert logs[0] == {
        "event": "file.rotation_failed",
        "log_level": "warning",
        "sink": "audit",
        "path": str(path),
        "error": "[Errno 28] No space left on device",
    }
    assert path.read_bytes() == text_of(0, 1, 2, 3, 4)
    await sink.deliver([line(5)])
    assert path.read_bytes() == text_of(5)


async def test_without_a_new_file_the_old_one_gets_its_name_back(
    sinks: Callable[..., FileSink], path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Renamed, but nothing new can be created: the rename is taken back and delivery goes on."""
    sink = sinks(rotate_bytes=1)
    await sink.deliver([line(1)])
    with monkeypatch.context() as patch, structlog.testing.capture_logs() as logs:
        Failing(patch, "open").fail_at = lambda _: True
        await sink.deliver([line(2)])
    assert [one["event"] for one in logs] == ["file.rotation_failed"]
    assert names(path.parent) == ["events.jsonl"]
    assert path.read_bytes() == text_of(1, 2)


async def test_nothing_is_written_to_a_file_that_has_lost_its_name(
    sinks: Callable[..., FileSink], path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Renamed, the new file created and its folder not flushed: the batch goes to the new file once that is flushed."""
    sink = sinks(rotate_bytes=1)
    await sink.deliver([line(1)])
    with monkeypatch.context() as patch, structlog.testing.capture_logs() as logs:
        Failing(patch, "fsync").fail_at = lambda number: number == 2
        await sink.deliver([line(2)])
    assert [one["event"] for one in logs] == ["file.rotation_failed"]
    assert path.read_bytes() == text_of(2)
    assert path.with_name(f"events.jsonl.{STAMP}").read_bytes() == text_of(1)


async def test_pruning_and_compressing_that_fail_are_warnings(
    sinks: Callable[..., FileSink], path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Both are tried for each file, told once a minute, and made up for later."""
    for day in range(1, 4):
        path.with_name(f"events.jsonl.2021010{day}T000000Z").write_bytes(text_of(day))
    sink = sinks(rotate_bytes=1, keep=2, compress=True)
    real = type(path).unlink

    def refuse(file: Path, missing_ok: bool = False) -> None:  # noqa: FBT001, FBT002  # as pathlib has it
        if file.suffix != ".tmp":
            raise OSError(errno.EACCES, "Permission denied")
        real(file, missing_ok)

    with monkeypatch.context() as patch, structlog.testing.capture_logs() as logs:
        patch.setattr(type(path), "unlink", refuse)
        Failing(patch, "rename").fail_at = lambda _: True
        await sink.deliver([line(4)])
        await sink.close()
    assert [(one["event"], one["log_level"]) for one in logs] == [("file.tidying_failed", "warning")]
    assert ids_in(path.parent) == {1, 2, 3, 4}
    await sink.deliver([line(5)])
    await until(
        lambda: (
            names(path.parent) == [path.name, "events.jsonl.20210103T000000Z.gz", f"events.jsonl.{STAMP}.gz"]
        )
    )


CALLS = ("open", "rename", "fsync", "write", "ftruncate", "unlink")


@pytest.mark.parametrize("lasting", [False, True])
async def test_no_failure_at_any_step_loses_a_line(
    sinks: Callable[..., FileSink], path: Path, *, lasting: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One call fails, or all from it on: whatever was taken is in whole lines in some file, then and after mending."""
    failing = Failing(monkeypatch, *CALLS)
    at, number, taken = 0, 0, set[int]()
    reached = True
    while reached:
        at += 1
        failing.count = 0
        failing.fail_at = (lambda n, at=at: n >= at) if lasting else (lambda n, at=at: n == at)  # type: ignore[misc]
        sink = sinks(rotate_bytes=2 * LINE, keep=100_000, compress=True)
        for _ in range(4):
            number += 1
            try:
                await sink.deliver([line(number)])
            except TransientDeliveryError:
                continue
            taken.add(number)
        await sink.close()
        reached = failing.count >= at
        failing.fail_at = lambda _: False
        mended = sinks(rotate_bytes=10**6, keep=100_000, compress=True)
        number += 1
        await mended.deliver([line(number)])
        taken.add(number)
        await until(lambda: all(name == path.name or name.endswith(".gz") for name in names(path.parent)))
        await mended.close()
        assert taken <= ids_in(path.parent)
    assert at > 20


LOAD = """
import asyncio, os, signal, sys
from pathlib import Path
import structlog
from reserve_listener.sinks.file.sink import FileSink
from tests.sinks.test_rotation import CALLS, line

structlog.configure(logger_factory=structlog.PrintLoggerFactory(sys.stderr))
kill_at = int(sys.argv[3])
count = 0

def wrapped(call):
    def deadly(*args, **kwargs):
        global count
        count += 1
        if count == kill_at:
            os.kill(os.getpid(), signal.SIGKILL)
        return call(*args, **kwargs)
    return deadly

async def main():
    number = int(sys.argv[2])
    sink = FileSink("audit", Path(sys.argv[1]), rotate_bytes=120, keep=10**6, compress=True)
    say = os.write
    if kill_at:
        for name in CALLS:
            setattr(os, name, wrapped(getattr(os, name)))
    while not kill_at or number < int(sys.argv[2]) + 12:
        await sink.deliver([line(number)])
        say(1, b"%d\\n" % number)
        number += 1
    await sink.close()

asyncio.run(main())
"""


def load(path: Path, first: int, kill_at: int) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [sys.executable, "-c", LOAD, str(path), str(first), str(kill_at)], stdout=subprocess.PIPE
    )


async def mend(path: Path) -> None:
    """As the next start does: open, and finish what was left."""
    sink = FileSink("audit", path, rotate_bytes=10**9, keep=10**6, compress=True)
    await sink.deliver([line(0)])
    await until(lambda: all(name == path.name or name.endswith(".gz") for name in names(path.parent)))
    await sink.close()


@pytest.mark.long
def test_a_kill_before_any_step_loses_no_line(path: Path) -> None:
    """SIGKILL before the first, second, … call that touches the disk, in a process of its own each."""
    taken: set[int] = set()
    kill_at, first, ended = 0, 1, 0
    while ended == 0 and kill_at < 400:
        kill_at += 1
        with load(path, first, kill_at) as process:
            out, _ = process.communicate(timeout=patience(60))
        taken |= {int(one) for one in out.split()}
        asyncio.run(mend(path))
        assert taken <= ids_in(path.parent)
        first += 20
        ended = int(process.returncode != -signal.SIGKILL)
    assert kill_at > 60


@pytest.mark.long
def test_kills_under_load_lose_no_line(path: Path) -> None:
    """A process that rotates and compresses without a pause is killed again and again; what it said it took is there."""
    seed = random.randrange(10**6)
    print("seed", seed)
    chance = random.Random(seed)
    taken: set[int] = set()
    first = 1
    for _ in range(12):
        with load(path, first, 0) as process:
            assert process.stdout is not None
            seen = [int(process.stdout.readline()) for _ in range(chance.randrange(1, 60))]
            process.kill()
            seen += [int(one) for one in process.stdout.read().splitlines()]
        taken.update(seen)
        first = max(taken) + 2
        asyncio.run(mend(path))
        assert taken <= ids_in(path.parent)
    assert len(names(path.parent)) > 20
