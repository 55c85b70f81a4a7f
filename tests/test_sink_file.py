"""The file sink: whole lines, on the disk, whatever happens to the file meanwhile. On real files."""

# ruff: noqa: ASYNC240  # small files on a local disk, and the loop has nothing else to do

from __future__ import annotations

import asyncio
import os
import stat
import subprocess
import sys
import threading
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import structlog

from reserve_listener.errors import DeliveryError, MisconfiguredSinkError, TransientDeliveryError
from reserve_listener.sinks import file as file_module
from reserve_listener.sinks.file import OUR_LINES_BEGIN, FileSink
from tests.helpers import delivery, event, until

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from reserve_listener.model import Delivery


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "events.jsonl"


@pytest.fixture
async def sink(path: Path) -> AsyncIterator[FileSink]:
    sink = FileSink("audit", path)
    yield sink
    await sink.close()


def line(number: int, size: int = 0) -> Delivery:
    return delivery(number, b'{"specversion":"1.0","id":"%d"%s}' % (number, b" " * size))


def text_of(*numbers: int) -> bytes:
    return b"".join(line(number).body + b"\n" for number in numbers)


def test_our_lines_begin_as_the_normaliser_writes_them() -> None:
    """What marks a torn line as ours is really how each body begins."""
    assert (event().body or b"").startswith(OUR_LINES_BEGIN)


async def test_each_event_is_a_line_of_a_file_with_mode_0640(sink: FileSink, path: Path) -> None:
    """Bodies come out byte for byte, one a line, appended batch after batch; the group may read."""
    old = os.umask(0o022)
    try:
        await sink.deliver([line(1), line(2)])
        await sink.deliver([line(3)])
    finally:
        os.umask(old)
    assert path.read_bytes() == text_of(1, 2, 3)
    assert stat.S_IMODE(path.stat().st_mode) == 0o640


async def test_a_batch_is_on_the_disk_before_it_counts(
    sink: FileSink, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each batch is fsynced once with all its lines written; a new file's folder is fsynced too."""
    synced: list[tuple[str, int]] = []
    fsync = os.fsync

    def counted(descriptor: int) -> None:
        kind = "folder" if stat.S_ISDIR(os.fstat(descriptor).st_mode) else "file"
        synced.append((kind, 0 if kind == "folder" else os.fstat(descriptor).st_size))
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", counted)
    await sink.deliver([line(1), line(2)])
    await sink.deliver([line(3)])
    assert synced == [("folder", 0), ("file", len(text_of(1, 2))), ("file", len(text_of(1, 2, 3)))]


@pytest.mark.parametrize("cut", [1, 5, len(OUR_LINES_BEGIN), len(OUR_LINES_BEGIN) + 3])
@pytest.mark.parametrize("before", [b"", text_of(1)])
async def test_a_line_of_ours_torn_by_a_crash_is_taken_off(
    sink: FileSink, path: Path, cut: int, before: bytes
) -> None:
    """However short the torn rest of our line, it goes, and every whole line before it stays."""
    path.write_bytes(before + line(2).body[:cut])
    with structlog.testing.capture_logs() as logs:
        await sink.deliver([line(2)])
    assert path.read_bytes() == before + text_of(2)
    assert [(one["event"], one["torn_bytes"], one["taken_off"]) for one in logs] == [
        ("file.mended", cut, True)
    ]


async def test_nuls_left_by_a_power_cut_are_taken_off(sink: FileSink, path: Path) -> None:
    """A tail that the file system had promised and not written, with or without our line's beginning, goes."""
    for tail in (b"\0" * 4096, b'{"specversion"' + b"\0" * 50):
        path.write_bytes(b'{"whole":1}\n' + tail)
        fresh = FileSink("audit", path)
        await fresh.deliver([delivery()])
        await fresh.close()
        assert path.read_bytes() == b'{"whole":1}\n' + delivery().body + b"\n"


async def test_a_long_torn_line_of_ours_is_taken_off(sink: FileSink, path: Path) -> None:
    """A torn line longer than what is read at once is found to its beginning."""
    path.write_bytes(text_of(1) + line(2, size=300_000).body[:-1])
    await sink.deliver([line(2)])
    assert path.read_bytes() == text_of(1, 2)


@pytest.mark.parametrize(
    "foreign", [b"written by hand", b'{"specversion":"0.3"', b"\x00\xff", b"x" * 200_000]
)
async def test_an_unended_line_of_somebody_else_is_ended_and_kept(
    sink: FileSink, path: Path, foreign: bytes
) -> None:
    """What is not ours is never cut: it gets its end, and our lines begin behind it."""
    path.write_bytes(b"first\n" + foreign)
    await sink.deliver([line(1)])
    assert path.read_bytes() == b"first\n" + foreign + b"\n" + text_of(1)


async def test_a_huge_file_without_lines_is_looked_through_in_little_memory(
    sink: FileSink, path: Path
) -> None:
    """A sparse gigabyte that is not ours and without a line end is ended within seconds; it is read piece by piece and not kept."""
    with path.open("wb") as file:
        file.write(b"somebody else's")
        file.truncate(1 << 30)
    async with asyncio.timeout(20):
        await sink.deliver([line(1)])
    assert path.stat().st_size == (1 << 30) + 1 + len(text_of(1))


async def test_after_rotation_a_new_file_is_begun(sink: FileSink, path: Path) -> None:
    """Logrotate renames the file: the next batch goes to a new one of the old name, also when that exists already."""
    await sink.deliver([line(1)])
    path.rename(path.with_suffix(".1"))
    await sink.deliver([line(2)])
    path.rename(path.with_suffix(".2"))
    path.touch()
    await sink.deliver([line(3)])
    path.unlink()
    await sink.deliver([line(4)])
    assert path.with_suffix(".1").read_bytes() == text_of(1)
    assert path.with_suffix(".2").read_bytes() == text_of(2)
    assert path.read_bytes() == text_of(4)


async def test_a_file_cut_by_copytruncate_is_written_from_its_beginning(sink: FileSink, path: Path) -> None:
    """Logrotate's copytruncate leaves no hole of zeros."""
    await sink.deliver([line(1)])
    os.truncate(path, 0)
    await sink.deliver([line(2)])
    assert path.read_bytes() == text_of(2)


async def test_what_others_append_meanwhile_stays(sink: FileSink, path: Path) -> None:
    """Our lines go behind those that somebody else wrote."""
    await sink.deliver([line(1)])
    with path.open("ab") as file:
        file.write(b"theirs\n")
    await sink.deliver([line(2)])
    assert path.read_bytes() == text_of(1) + b"theirs\n" + text_of(2)


LIMITED = """
import asyncio, resource, sys
from pathlib import Path
from reserve_listener.errors import TransientDeliveryError
from reserve_listener.sinks.file import FileSink
from tests.helpers import delivery

async def main() -> None:
    sink = FileSink("audit", Path(sys.argv[1]))
    first, second = (delivery(n, b'{"specversion":"1.0","id":"%d"}' % n) for n in (1, 2))
    await sink.deliver([first])
    size = Path(sys.argv[1]).stat().st_size
    resource.setrlimit(resource.RLIMIT_FSIZE, (size + 40, resource.RLIM_INFINITY))
    try:
        await sink.deliver([second] * 10)
    except TransientDeliveryError as error:
        print(error, "|", Path(sys.argv[1]).read_bytes() == first.body + b"\\n")
    resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    await sink.deliver([second])
    print(Path(sys.argv[1]).read_bytes() == first.body + b"\\n" + second.body + b"\\n")
    await sink.close()

asyncio.run(main())
"""


def test_a_batch_that_fails_in_its_middle_is_cut_off_again(path: Path) -> None:
    """At the limit of the file's size a batch gets half its way: it is cut off whole, and later ones work."""
    done = subprocess.run(
        [sys.executable, "-c", LIMITED, str(path)], capture_output=True, text=True, timeout=60, check=True
    )
    assert done.stdout.splitlines() == [f"{path}: File too large | True", "True"]


async def test_a_torn_batch_that_cannot_be_cut_off_is_mended_at_the_next(
    sink: FileSink, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Write and cut both fail: the next batch finds the torn line and takes it off before it writes."""
    await sink.deliver([line(1)])

    def torn(file: int, data: bytes) -> None:
        os.write(file, data[:30])
        raise OSError(28, "No space left on device")

    def no_cut(_: int, __: int) -> None:
        raise OSError(5, "Input/output error")

    with monkeypatch.context() as patch:
        patch.setattr(file_module, "_write_all", torn)
        patch.setattr(os, "ftruncate", no_cut)
        with pytest.raises(TransientDeliveryError):
            await sink.deliver([line(2)])
    assert path.read_bytes() == text_of(1) + line(2).body[:30]
    await sink.deliver([line(2)])
    assert path.read_bytes() == text_of(1, 2)


async def test_a_failed_fsync_is_a_failed_batch(
    sink: FileSink, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """When the disk does not confirm, the lines are taken back and come again."""
    await sink.deliver([line(1)])

    def refuse(_: int) -> None:
        raise OSError(5, "Input/output error")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", refuse)
        with pytest.raises(TransientDeliveryError, match=r"events.jsonl: Input/output error"):
            await sink.deliver([line(2)])
    assert path.read_bytes() == text_of(1)
    await sink.deliver([line(2)])
    assert path.read_bytes() == text_of(1, 2)


async def test_a_missing_folder_may_appear_later(tmp_path: Path) -> None:
    """Without its folder the sink fails in words and for now; once the folder is there it works."""
    path = tmp_path / "not yet" / "events.jsonl"
    sink = FileSink("audit", path)
    with pytest.raises(TransientDeliveryError, match=r"not yet/events.jsonl: No such file or directory"):
        await sink.deliver([line(1)])
    path.parent.mkdir()
    await sink.deliver([line(1)])
    await sink.close()
    assert path.read_bytes() == text_of(1)


@pytest.mark.parametrize("kind", ["fifo", "folder", "device"])
async def test_what_is_no_file_is_refused_in_words(path: Path, kind: str) -> None:
    """A FIFO, a folder or a device is refused at once, without hanging and without writing to it."""
    if kind == "fifo":
        os.mkfifo(path)
    elif kind == "folder":
        path.mkdir()
    else:
        path.symlink_to("/dev/null")
    sink = FileSink("audit", path)
    async with asyncio.timeout(5):
        with pytest.raises(
            DeliveryError, match=r"events.jsonl(: Is a directory| is not a regular file)"
        ) as caught:
            await sink.deliver([line(1)])
    assert isinstance(caught.value, MisconfiguredSinkError)
    await sink.close()


async def test_close_waits_for_an_attempt_that_was_broken_off(
    sink: FileSink, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The thread of a cancelled attempt goes on: its file is not closed beneath it, nor written by the next meanwhile."""
    writing, release = threading.Event(), threading.Event()
    write_all = file_module._write_all

    def slow(file: int, data: bytes) -> None:
        writing.set()
        assert release.wait(10)
        write_all(file, data)

    monkeypatch.setattr(file_module, "_write_all", slow)
    first = asyncio.create_task(sink.deliver([line(1)]))
    await until(writing.is_set)
    first.cancel()
    second = asyncio.create_task(sink.deliver([line(2)]))
    closing = asyncio.create_task(sink.close())
    await asyncio.wait([second, closing], timeout=0.05)
    assert not closing.done()
    release.set()
    await asyncio.gather(second, closing)
    assert path.read_bytes() == text_of(1, 2)


async def test_closing_twice_and_delivering_afterwards(sink: FileSink, path: Path) -> None:
    """Close may come twice; it gives the descriptor back, and a later batch opens the file anew."""
    await sink.deliver([line(1)])
    await sink.close()
    await sink.close()
    assert str(path) not in {str(link.resolve()) for link in Path("/proc/self/fd").iterdir()}
    await sink.deliver([line(2)])
    assert path.read_bytes() == text_of(1, 2)
