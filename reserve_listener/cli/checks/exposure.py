"""Files that other users can read, and mounts that hold only half of a store. Warnings only: the daemon starts anyway."""

from __future__ import annotations

import os
import stat
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from pydantic import BaseModel

from reserve_listener.cli.checks.findings import Finding
from reserve_listener.store import backend

if TYPE_CHECKING:
    from collections.abc import Iterator

    from reserve_listener.config import Loaded

_MOUNTS: Final = Path("/proc/self/mountinfo")
_MOUNT_POINT: Final = 4
"""The field of proc(5) that has it, with blanks as \\040."""


def findings(loaded: Loaded) -> Iterator[Finding]:
    """What to do better before somebody makes use of it."""
    if loaded.file is not None and _others_can_read(loaded.file) and _holds_secrets(loaded):
        yield _exposed(loaded.file, "the configuration, which contains secrets")
    for key, path in secret_files(loaded.config):
        if _others_can_read(path):
            yield _exposed(path, key)
    for path in backend(loaded.config.store.url).files[:1]:
        yield from _store(path)


def secret_files(table: BaseModel, where: str = "") -> Iterator[tuple[str, Path]]:
    """All `*_file` keys of a configuration, but for certificates: those are shown to everybody."""
    for name in type(table).model_fields:
        value: Any = getattr(table, name)
        for number, one in enumerate(value if isinstance(value, list | tuple) else [value]):
            label = f"[{number}]" if isinstance(value, list | tuple) and isinstance(one, BaseModel) else ""
            if isinstance(one, BaseModel):
                yield from secret_files(one, f"{where}{name}{label}.")
            elif isinstance(one, Path) and name.endswith("_file") and not name.endswith("cert_file"):
                yield f"{where}{name}", one


def _exposed(path: Path, what: str) -> Finding:
    return Finding(
        where="permissions",
        level="warn",
        what=f"{path} ({what}) can be read by every user on this machine",
        do=f"chmod o-rwx {path}",
    )


def _others_can_read(path: Path) -> bool:
    try:
        return bool(path.stat().st_mode & stat.S_IROTH)
    except OSError:  # that it is missing is told elsewhere
        return False


def _holds_secrets(loaded: Loaded) -> bool:
    try:
        text = loaded.file.read_text("utf-8", "replace") if loaded.file else ""
    except OSError:
        return False
    return any(secret in text for secret in loaded.config.secret_texts())


def _store(path: Path) -> Iterator[Finding]:
    real = path.resolve()
    if str(real) in _mount_points():
        yield Finding(
            where="store",
            level="warn",
            what=f"{path} is mounted as a single file, so the files that belong to it (-wal, -shm) are outside the mount",
            do=f"mount its directory, {real.parent}: without these files, events are lost",
        )
    try:
        found = real.stat()
    except OSError:
        return
    if stat.S_ISREG(found.st_mode) and found.st_nlink > 1:
        yield Finding(
            where="store",
            level="warn",
            what=f"{path} has {found.st_nlink} names (hard links), each with a log (-wal) of its own",
            do="use only one of them, or make the other a copy",
        )


def _mount_points() -> set[str]:
    try:
        lines = _MOUNTS.read_text("utf-8", "surrogateescape").splitlines()
    except OSError:
        return set()
    return {
        os.fsdecode(os.fsencode(line.split()[_MOUNT_POINT]).decode("unicode_escape", "replace"))
        for line in lines
    }
