"""Files that root creates are given to the owner of their folder.

What must stay true: a command run by root leaves no file that the daemon's user cannot write, and gives away only files that it
has created itself: existing files, and targets of links, keep their owner.
"""

from __future__ import annotations

import os
from contextlib import suppress
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path


def open_file(path: Path, flags: int, mode: int) -> int:
    """`os.open` that makes the file if there is none. A link in the place of the file is refused (ELOOP)."""
    flags |= os.O_NOFOLLOW | os.O_CLOEXEC
    while True:
        with suppress(FileNotFoundError):
            return os.open(path, flags)
        with suppress(FileExistsError):  # somebody else was faster
            return create_file(path, flags, mode)


def create_file(path: Path, flags: int, mode: int) -> int:
    """`os.open` of a file that nobody has made yet."""
    file = os.open(path, flags | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, mode)
    if os.geteuid() == 0:
        with suppress(OSError):  # a file system without owners
            owner = path.parent.stat()
            os.fchown(file, owner.st_uid, owner.st_gid)
    return file


def make_folder(folder: Path) -> None:
    """The folder and those above it, 0700, unless they are there."""
    if folder.is_dir():
        return
    make_folder(folder.parent)
    with suppress(FileExistsError):
        folder.mkdir(mode=0o700)
        give(folder)
    if not folder.is_dir():
        raise NotADirectoryError(20, "Not a directory", str(folder))


def give(path: Path) -> None:
    """What root has made just now, to the owner of the folder that it is in."""
    if os.geteuid() == 0:
        with suppress(OSError):  # a file system without owners
            owner = path.parent.stat()
            os.chown(path, owner.st_uid, owner.st_gid, follow_symlinks=False)
