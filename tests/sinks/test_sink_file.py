"""The file sink: whole lines, on the disk, whatever happens to the file meanwhile. On real files."""

# ruff: noqa: ASYNC240  # small files on a local disk, and the loop has nothing else to do

from __future__ import annotations

import asyncio
import contextlib
import errno
import fcntl
import os
import re
import socket
import stat
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import structlog

from reserve_listener.errors import MisconfiguredSinkError, TransientDeliveryError
from reserve_listener.simulator import patience
from reserve_listener.sinks.file import sink as file_module
from reserve_listener.sinks.file.sink import OUR_LINES_BEGIN, FileSink
from tests.helpers import delivery, event, until

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

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
    async with asyncio.timeout(patience(20)):
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
from reserve_listener.sinks.file.sink import FileSink
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
        [sys.executable, "-c", LIMITED, str(path)],
        capture_output=True,
        text=True,
        timeout=patience(60),
        check=True,
    )
    assert done.stdout.splitlines() == [f"{path}: File too large | True", "True"]


async def test_a_torn_batch_that_cannot_be_cut_off_is_mended_at_the_next(
    sink: FileSink, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Write and cut both fail: the next batch finds the torn line and takes it off before it writes."""
    await sink.deliver([line(1)])

    write = os.write

    def torn(file: int, data: bytes) -> int:
        if len(data) < len(line(2).body):
            raise OSError(28, "No space left on device")
        return write(file, data[:30])

    def no_cut(_: int, __: int) -> None:
        raise OSError(5, "Input/output error")

    with monkeypatch.context() as patch:
        patch.setattr(os, "write", torn)
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
    said = f"{path}: No such file or directory: create the directory {path.parent}"
    with pytest.raises(TransientDeliveryError, match=re.escape(said)):
        await sink.deliver([line(1)])
    assert sink.problem() == said
    path.parent.mkdir()
    await sink.deliver([line(1)])
    await sink.close()
    assert path.read_bytes() == text_of(1)


@pytest.mark.parametrize("kind", ["fifo", "folder", "device", "socket"])
async def test_what_is_no_file_is_refused_in_words(
    path: Path, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A FIFO, a folder, a device or a socket is refused at once, without hanging and without writing to it."""
    if kind == "fifo":
        os.mkfifo(path)
    elif kind == "folder":
        path.mkdir()
    elif kind == "socket":
        monkeypatch.chdir(path.parent)  # the path of a socket may not be long
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind(path.name)
    else:
        path.symlink_to("/dev/null")
    sink = FileSink("audit", path)
    said = f"{path} is not a regular file: choose another path"
    async with asyncio.timeout(patience(5)):
        with pytest.raises(MisconfiguredSinkError, match=re.escape(said)):
            await sink.deliver([line(1)])
    assert sink.problem() == said
    await sink.close()


async def test_close_waits_for_an_attempt_that_was_broken_off(
    sink: FileSink, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The thread of a cancelled attempt goes on: its file is not closed beneath it, nor written by the next meanwhile."""
    writing, release = threading.Event(), threading.Event()
    write = os.write

    def slow(file: int, data: bytes) -> int:
        writing.set()
        assert release.wait(10)
        return write(file, data)

    monkeypatch.setattr(os, "write", slow)
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


# -- the path, looked at beforehand ------------------------------------------------------------------------------------------


def test_a_usable_path_has_no_problem_and_is_not_created(path: Path) -> None:
    """A new path and an existing file are both fine, and looking changes nothing."""
    assert FileSink("audit", path).problem() is None
    assert not path.exists()
    path.write_bytes(b"whole\n")
    assert FileSink("audit", path).problem() is None
    assert path.read_bytes() == b"whole\n"


@pytest.mark.parametrize("kind", ["file", "new"])
def test_a_path_that_may_not_be_written_is_told(
    path: Path, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither the file nor, before there is one, its folder may be written: said with the path and what to do."""
    if kind == "file":
        path.touch()
    monkeypatch.setattr(os, "access", lambda _, mode: not mode & os.W_OK)
    assert FileSink("audit", path).problem() == (
        f"{path}: Permission denied: give the daemon's user write access to the file and its directory"
    )


def test_a_folder_that_may_not_be_written_cannot_rotate(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The file alone is enough without rotation; with it the folder has to be writable too."""
    path.touch()
    monkeypatch.setattr(os, "access", lambda asked, _: asked == path)
    assert FileSink("audit", path).problem() is None
    assert FileSink("audit", path, rotate_bytes=1).problem() == (
        f"{path} cannot be rotated: give the daemon's user read and write access to the directory {path.parent}"
    )


async def test_a_folder_that_is_a_file_or_a_circle_is_told(tmp_path: Path) -> None:
    """A path below a file, or a link to itself, is refused in words, beforehand and at delivery."""
    (tmp_path / "file").touch()
    (tmp_path / "circle").symlink_to(tmp_path / "circle")
    for path, words in (
        (tmp_path / "file" / "events.jsonl", "Not a directory: choose another path"),
        (tmp_path / "circle", "Too many levels of symbolic links"),
    ):
        sink = FileSink("audit", path)
        assert sink.problem() == f"{path}: {words}"
        with pytest.raises(TransientDeliveryError, match=re.escape(f"{path}: {words}")):
            await sink.deliver([line(1)])
        await sink.close()


# -- others at the same file -------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def failing_fsync(monkeypatch: pytest.MonkeyPatch, meanwhile: bytes | None, path: Path) -> Iterator[None]:
    """The disk refuses, after somebody else has truncated the file (None) or appended to it."""

    def refuse(_: int) -> None:
        if meanwhile is None:
            os.truncate(path, 0)
        else:
            with path.open("ab") as file:
                file.write(meanwhile)
        raise OSError(errno.EIO, "Input/output error")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", refuse)
        yield


async def test_a_failed_batch_never_extends_a_truncated_file(
    sink: FileSink, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Copytruncate in the middle of a batch that fails: the cut would fill the file with NULs, so it is left out."""
    await sink.deliver([line(1)])
    with failing_fsync(monkeypatch, None, path), pytest.raises(TransientDeliveryError):
        await sink.deliver([line(2)])
    assert path.read_bytes() == b""
    await sink.deliver([line(2)])
    assert path.read_bytes() == text_of(2)


async def test_a_failed_batch_never_cuts_what_others_wrote(
    sink: FileSink, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Somebody else's line behind the batch that fails stays; ours comes again."""
    await sink.deliver([line(1)])
    with failing_fsync(monkeypatch, b"theirs\n", path), pytest.raises(TransientDeliveryError):
        await sink.deliver([line(2)])
    await sink.deliver([line(2)])
    assert path.read_bytes() == text_of(1, 2) + b"theirs\n" + text_of(2)


async def test_a_replaced_sink_hands_its_file_over(sink: FileSink, path: Path) -> None:
    """As on SIGHUP after logrotate: the old sink is closed, and a new one of the same path goes on."""
    await sink.deliver([line(1)])
    path.rename(path.with_suffix(".1"))
    await sink.close()
    fresh = FileSink("audit", path)
    await fresh.deliver([line(2)])
    await fresh.close()
    assert path.with_suffix(".1").read_bytes() == text_of(1)
    assert path.read_bytes() == text_of(2)


IN_USE = "is being written by another process or by the previous configuration"


async def test_two_sinks_never_write_one_file(sink: FileSink, path: Path) -> None:
    """While one has the file open the other is refused, for now and in words; the file is not touched."""
    await sink.deliver([line(1)])
    other = FileSink("other", path)
    with pytest.raises(TransientDeliveryError, match=f"events.jsonl {IN_USE}"):
        await other.deliver([line(2)])
    assert path.read_bytes() == text_of(1)
    await sink.close()
    await other.deliver([line(2)])
    await other.close()
    assert path.read_bytes() == text_of(1, 2)


HOLDS = """
import asyncio, sys
from pathlib import Path
from reserve_listener.sinks.file.sink import FileSink
from tests.helpers import delivery

async def main() -> None:
    sink = FileSink("audit", Path(sys.argv[1]))
    await sink.deliver([delivery()])
    print("held", flush=True)
    sys.stdin.read()

asyncio.run(main())
"""


@contextlib.contextmanager
def held_by_another(path: Path) -> Iterator[None]:
    command = [sys.executable, "-c", HOLDS, str(path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == b"held\n"
        try:
            yield
        finally:
            other.kill()


async def test_two_processes_never_write_one_file(sink: FileSink, path: Path) -> None:
    """Another daemon's file is refused until that one is gone, however it went."""
    with held_by_another(path), pytest.raises(TransientDeliveryError, match=IN_USE):
        await sink.deliver([line(1)])
    await sink.deliver([line(1)])
    assert path.read_bytes() == delivery().body + b"\n" + text_of(1)


async def test_a_file_replaced_before_it_is_locked_is_not_written(
    sink: FileSink, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between opening and locking another may rotate and delete the file: what is written to it then would be lost."""
    path.touch()

    def too_late(file: int) -> bool:
        path.unlink(missing_ok=True)
        return True

    with monkeypatch.context() as patch:
        patch.setattr(file_module, "lock", too_late)
        with pytest.raises(TransientDeliveryError, match="was replaced while it was being opened"):
            await sink.deliver([line(1)])
    await sink.deliver([line(1)])
    assert path.read_bytes() == text_of(1)


@pytest.mark.parametrize("code", [errno.ENOTSUP, errno.ENOLCK])
async def test_a_file_system_without_locks_will_do(
    sink: FileSink, path: Path, code: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where flock is not to be had the sink works as before."""

    def refuse(_: int, __: int) -> None:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(fcntl, "flock", refuse)
    await sink.deliver([line(1)])
    assert path.read_bytes() == text_of(1)


async def test_a_lock_that_fails_is_told(sink: FileSink, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Any other failure of the lock is a failed opening, and no descriptor stays behind."""

    def refuse(_: int, __: int) -> None:
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(fcntl, "flock", refuse)
    with pytest.raises(TransientDeliveryError, match=r"events.jsonl: Input/output error"):
        await sink.deliver([line(1)])
    assert not is_open(path)


# -- a disk that hangs -------------------------------------------------------------------------------------------------------


def is_open(path: Path) -> bool:
    links = []
    for link in Path("/proc/self/fd").iterdir():
        with contextlib.suppress(FileNotFoundError):
            links.append(str(link.readlink()))
    return str(path) in links


class Hanging:
    """An fsync that hangs until released and then fails, for the first caller; the others' works."""

    def __init__(self) -> None:
        self.hangs, self.release = threading.Event(), threading.Event()
        self._first = True
        self._fsync = os.fsync

    def __call__(self, descriptor: int) -> None:
        if not self._first or stat.S_ISDIR(os.fstat(descriptor).st_mode):
            return self._fsync(descriptor)
        self._first = False
        self.hangs.set()
        assert self.release.wait(20)
        raise OSError(errno.EIO, "Input/output error")


@pytest.fixture
def hanging(monkeypatch: pytest.MonkeyPatch) -> Iterator[Hanging]:
    hanging = Hanging()
    monkeypatch.setattr(os, "fsync", hanging)
    monkeypatch.setattr(file_module, "CLOSE_TIMEOUT_S", 0.05)
    yield hanging
    hanging.release.set()


async def leave_hanging(sink: FileSink, hanging: Hanging) -> None:
    """As a reload does: the attempt is broken off and the sink closed while its thread hangs."""
    attempt = asyncio.create_task(sink.deliver([line(2)]))
    await until(hanging.hangs.is_set)
    attempt.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await attempt
    await sink.close()


def threads_of(sink: FileSink) -> list[threading.Thread]:
    return [one for one in threading.enumerate() if one.name.startswith(f"file-{sink.name}")]


async def test_a_late_failure_cuts_nothing_of_the_next_sink(path: Path, hanging: Hanging) -> None:
    """A replaced sink whose thread still hangs keeps the file locked; it fails, cuts its own, and lets go by itself."""
    path.write_bytes(text_of(1))
    old, new = FileSink("old", path), FileSink("new", path)
    await leave_hanging(old, hanging)
    with pytest.raises(TransientDeliveryError, match=IN_USE):
        await new.deliver([line(3)])
    hanging.release.set()
    await until(lambda: not threads_of(old))
    await new.deliver([line(3)])
    await new.close()
    assert path.read_bytes() == text_of(1, 3)


async def test_a_late_failure_cuts_nothing_without_locks_either(
    path: Path, hanging: Hanging, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where nothing can be locked, lines behind the failed batch keep it from being cut off."""
    monkeypatch.setattr(file_module, "lock", lambda _: True)
    path.write_bytes(text_of(1))
    old, new = FileSink("old", path), FileSink("new", path)
    await leave_hanging(old, hanging)
    await new.deliver([line(3)])
    hanging.release.set()
    await until(lambda: not threads_of(old))
    await new.close()
    assert path.read_bytes() == text_of(1, 2, 3)


async def test_a_hanging_disk_holds_up_nobody_else(path: Path, hanging: Hanging) -> None:
    """Beside it another sink delivers and the loop's pool is free; its own next attempts wait, and write nothing when broken off."""
    sink, other = FileSink("stuck", path), FileSink("well", path.with_suffix(".other"))
    first = asyncio.create_task(sink.deliver([line(1)]))
    await until(hanging.hangs.is_set)
    waiting = [asyncio.create_task(sink.deliver([line(2)])) for _ in range(50)]
    await other.deliver([line(3)])
    assert await asyncio.to_thread(lambda: 7) == 7
    assert len(threads_of(sink)) == 1
    for task in waiting:
        task.cancel()
    await asyncio.gather(*waiting, return_exceptions=True)
    hanging.release.set()
    with pytest.raises(TransientDeliveryError):
        await first
    await sink.deliver([line(4)])
    await asyncio.gather(sink.close(), other.close())
    assert path.read_bytes() == text_of(4)


async def test_an_attempt_on_a_hanging_disk_has_an_end(
    path: Path, hanging: Hanging, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The sink is down then, which the worker tells; it is tried again, and works as soon as the disk does."""
    monkeypatch.setattr(file_module, "ATTEMPT_TIMEOUT_S", 0.05)
    sink = FileSink("stuck", path)
    for number in (1, 2):
        with pytest.raises(TransientDeliveryError, match="does not respond") as caught:
            await sink.deliver([line(number)])
        assert caught.value.down
    hanging.release.set()
    await until(lambda: not path.read_bytes())
    monkeypatch.setattr(file_module, "ATTEMPT_TIMEOUT_S", 30)
    await sink.deliver([line(3)])
    await sink.close()
    assert path.read_bytes() == text_of(3)


async def test_delivering_after_a_hanging_close_waits_its_turn(path: Path, hanging: Hanging) -> None:
    """A sink used again while its thread still hangs goes on in that thread, behind what was queued."""
    sink = FileSink("again", path)
    await leave_hanging(sink, hanging)
    again = asyncio.create_task(sink.deliver([line(3)]))
    hanging.release.set()
    await again
    assert len(threads_of(sink)) == 1
    await sink.close()
    await until(lambda: not threads_of(sink))
    assert path.read_bytes() == text_of(3)


STUCK = """
import asyncio, os, sys, threading, time
from pathlib import Path
from reserve_listener.sinks.file import sink as file
from tests.helpers import delivery

file.CLOSE_TIMEOUT_S = 0.1
hangs = threading.Event()

def hang(_: int) -> None:
    hangs.set()
    threading.Event().wait()

async def main() -> None:
    sink = file.FileSink("audit", Path(sys.argv[1]))
    await sink.deliver([delivery()])
    os.fsync = hang
    attempt = asyncio.create_task(sink.deliver([delivery()]))
    while not hangs.is_set():
        await asyncio.sleep(0.002)
    attempt.cancel()
    await asyncio.wait([attempt])
    await sink.close()

asyncio.run(main())
print(time.time(), flush=True)
"""


def test_a_hanging_disk_does_not_keep_the_process(path: Path) -> None:
    """With a thread that will never come back from fsync the process ends as soon as its main function has."""
    done = subprocess.run(
        [sys.executable, "-c", STUCK, str(path)],
        capture_output=True,
        text=True,
        timeout=patience(60),
        check=True,
    )
    assert time.time() - float(done.stdout) < patience(2)
    assert done.stderr == ""


async def test_a_hundred_reloads_leave_no_thread_and_no_descriptor(path: Path) -> None:
    """Each closed sink's threads end, used or not, rotating or not."""
    before = set(threading.enumerate())
    for number in range(100):
        unused, used = FileSink("unused", path), FileSink("used", path, rotate_bytes=40, keep=3)
        await used.deliver([line(number)])
        await asyncio.gather(unused.close(), used.close())
    await until(lambda: set(threading.enumerate()) <= before)
    assert not is_open(path)
    assert len(list(path.parent.iterdir())) == 4


async def test_the_thread_bears_the_name_of_its_sink(sink: FileSink) -> None:
    """A stack dump says whose disk hangs; without rotation there is one thread, and the process need not wait for it."""
    await sink.deliver([line(1)])
    assert [(one.name, one.daemon) for one in threads_of(sink)] == [("file-audit", True)]
