"""What is kept however broken the store is: whole, after any kill, and without room on the disk."""

from __future__ import annotations

import errno
import os
import resource
import signal
from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, given, settings, strategies as st

from reserve_listener.store.sqlite import slots
from reserve_listener.store.sqlite.slots import CONTENT_BYTES, SLOT_BYTES, Slots

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


def test_what_was_kept_last_is_found_again(tmp_path: Path) -> None:
    """In this life and the next; the file is private, and never grows."""
    path = tmp_path / "kept"
    assert Slots(path).read() is None
    kept = Slots(path)
    kept.read()
    for content in (b"one", b"", b"x" * CONTENT_BYTES, b"four"):
        kept.write(content)
        assert kept.read() == content
        assert Slots(path).read() == content
    assert path.stat().st_size == 2 * SLOT_BYTES
    assert path.stat().st_mode & 0o777 == 0o600


def test_what_is_too_long_is_refused_and_leaves_the_other_slot_alone(tmp_path: Path) -> None:
    """A byte too many, whichever slot is next: what was kept last is still there."""
    kept = Slots(tmp_path / "kept")
    kept.read()
    for content in (b"one", b"two"):
        kept.write(content)
        with pytest.raises(OSError, match="more than"):
            kept.write(b"x" * (CONTENT_BYTES + 1))
        assert Slots(tmp_path / "kept").read() == content


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(contents=st.lists(st.binary(max_size=200), min_size=2, max_size=5), data=st.data())
def test_a_write_that_is_broken_off_leaves_the_one_before(
    tmp_path: Path, contents: list[bytes], data: st.DataObject
) -> None:
    """Cut after any byte, the new content is there whole or the old one is."""
    path = tmp_path / "kept"
    path.unlink(missing_ok=True)
    kept = Slots(path)
    kept.read()
    for content in contents[:-1]:
        kept.write(content)
    before = path.read_bytes()
    kept.write(contents[-1])
    after = path.read_bytes()
    start = len(contents) % 2 * SLOT_BYTES
    cut = start + data.draw(st.integers(0, 220))
    path.write_bytes(before[:start] + after[start:cut] + before[cut:])
    assert Slots(path).read() in (contents[-2], contents[-1])
    again = Slots(path)
    again.read()
    again.write(b"next")
    assert Slots(path).read() == b"next"


@pytest.fixture
def full_disk() -> Iterator[None]:
    """No file grows beyond what the slots take."""
    ignored = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    unlimited = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2 * SLOT_BYTES, unlimited[1]))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, unlimited)
    signal.signal(signal.SIGXFSZ, ignored)


def test_no_room_is_needed_once_the_file_is_there(tmp_path: Path, full_disk: None) -> None:
    """A disk that takes no more byte takes what is kept."""
    kept = Slots(tmp_path / "kept")
    kept.read()
    with pytest.raises(OSError, match="too large") as caught:
        (tmp_path / "other").write_bytes(bytes(2 * SLOT_BYTES + 1))
    assert caught.value.errno == errno.EFBIG
    for number in range(3):
        kept.write(bytes([number]) * CONTENT_BYTES)
    assert Slots(tmp_path / "kept").read() == bytes([2]) * CONTENT_BYTES


def test_a_link_in_its_place_is_refused(tmp_path: Path) -> None:
    """As for every file that root could be led to."""
    (tmp_path / "elsewhere").write_bytes(b"mine")
    (tmp_path / "kept").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(OSError, match="symbolic"):
        Slots(tmp_path / "kept").read()
    assert (tmp_path / "elsewhere").read_bytes() == b"mine"


def test_what_is_no_slot_is_nothing(tmp_path: Path) -> None:
    """A file of anything else is taken over, and nothing is read from it."""
    (tmp_path / "kept").write_bytes(os.urandom(2 * SLOT_BYTES))
    kept = Slots(tmp_path / "kept")
    assert kept.read() is None
    kept.write(b"mine")
    assert Slots(tmp_path / "kept").read() == b"mine"
    assert slots._slot(b"") == (0, b"")
