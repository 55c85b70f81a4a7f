"""Copies a store, also while its daemon runs.

What must stay true: the copy has everything that was answered before it began. So the inbox is copied first: what is projected
in between is then in both files, and the store's position says so. The other way round it could be missing from both.
"""

from __future__ import annotations

import os
import sqlite3
from contextlib import closing
from typing import TYPE_CHECKING

from reserve_listener import ownership
from reserve_listener.errors import StoreError
from reserve_listener.store.sqlite import schema
from reserve_listener.store.sqlite.places import inbox_path

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path


def back_up(store: Path, folder: Path) -> list[Path]:
    """Copy both files into the folder, under their own names. Returns the copies. Raises `StoreError`, and then leaves no copy."""
    store, inbox = store.resolve(), inbox_path(store)
    if not store.exists():
        raise schema.no_store(store)
    # An older version has left no inbox.
    parts = [(inbox, schema.INBOX)] if inbox.exists() else []
    parts.append((store, schema.STORE))
    try:
        ownership.make_folder(folder)
        _require_free([folder / file.name for file in (inbox, store)])
        return _copies([(file, part, folder / file.name) for file, part in parts])
    except OSError as error:
        raise StoreError(
            f"{folder}: cannot be written: {error.strerror}. Name a folder in which you may make files."
        ) from error


def _require_free(targets: Sequence[Path]) -> None:
    for target in targets:
        if os.path.lexists(target):
            raise StoreError(
                f"{target} is there already and is not overwritten. Name a new folder, or move it away."
            )


def _copies(files: Sequence[tuple[Path, schema.Part, Path]]) -> list[Path]:
    partial = {target: target.with_name(f".{target.name}.partial") for _, _, target in files}
    try:
        for file, part, target in files:
            _copy(file, part, partial[target])
        for target, copy in partial.items():
            copy.rename(target)
    finally:
        for copy in partial.values():
            for ending in ("", "-journal", "-wal", "-shm"):
                copy.with_name(copy.name + ending).unlink(missing_ok=True)
    targets = list(partial)
    sync(targets[0].parent)
    return targets


def _copy(file: Path, part: schema.Part, target: Path) -> None:
    """Copy in one transaction: page by page, each commit of the daemon would start it over. The log grows meanwhile."""
    target.unlink(missing_ok=True)  # of one that was killed
    os.close(ownership.create_file(target, os.O_RDWR, 0o600))
    with closing(schema.open_reader(file, part, older=True)) as source:
        try:
            with closing(sqlite3.connect(target, isolation_level=None)) as copy:
                source.backup(copy)
                schema.require_sound(copy, file)
        except sqlite3.Error as error:
            raise StoreError(
                f"{file} cannot be copied to {target.parent}: {error}. Is the disk full?"
            ) from error
    sync(target)


def sync(path: Path) -> None:
    """Flush a file, or the names in a folder, to the disk."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
