"""No other part may use a file sink's path: appended events would destroy a store, a secret or another sink's file."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from reserve_listener.config.reading import LOOK_S, answer_within

if TYPE_CHECKING:
    from collections.abc import Iterator

    from reserve_listener.config.model import Config

COMPANIONS = (
    *(part + end for part in ("", "-inbox") for end in ("", "-wal", "-shm", "-journal", ".lock", ".sock")),
    "-alerts",
)


def collisions(config: Config, file: Path | None) -> Iterator[tuple[str, str, str]]:
    """Name and key of each sink that would write to a file that is taken, and whose it is. Links are seen through."""
    taken = {_identity(path): what for path, what in ours(config, file)}
    for sink in config.sinks:
        for key, path in sink.files_written():
            identity = _identity(path)
            if identity in taken:
                yield sink.name, key, f"{path} is {taken[identity]}; name another path"
            else:
                taken[identity] = f'the file of the sink "{sink.name}"'


def homeless(config: Config) -> Iterator[tuple[tuple[str | int, ...], str]]:
    """The keys whose paths are relative to a working directory that is no more, and what to do about it."""
    try:
        Path.cwd()
    except OSError:
        paths: list[tuple[tuple[str | int, ...], Path]] = []
        if config.store.path is not None:
            paths.append((("store", "url"), config.store.path))
        paths += [
            (("sinks", index, key), path)
            for index, sink in enumerate(config.sinks)
            for key, path in sink.files_written()
        ]
        for key, path in paths:
            if not path.is_absolute():
                yield (
                    key,
                    f"{path} is relative to the working directory, which has been removed; use an absolute path, or start in another directory",
                )


def ours(config: Config, file: Path | None = None) -> Iterator[tuple[Path, str]]:
    """What the daemon writes or reads itself, with what it is. `file`: the configuration."""
    store = config.store.path
    if store is not None:
        for ending in COMPANIONS:
            yield store.with_name(store.name + ending), "a file of the store"
    if file is not None:
        yield file, "the configuration"
    yield from _secrets(config)
    if config.webhook is not None:
        for path in config.webhook.files():
            yield path, "a file that the webhook reads"
    if config.status is not None:
        for path in config.status.files():
            yield path, "a file that [status] reads"
    for sink in config.sinks:
        for path in sink.files_read():
            yield path, f'a file that the sink "{sink.name}" reads'


def _secrets(config: Config) -> Iterator[tuple[Path, str]]:
    if config.store.password_file is not None:
        yield config.store.password_file, "the file of the store's password"
    if config.lark.app_secret_file is not None:
        yield config.lark.app_secret_file, "the file of the app's secret"
    if config.heartbeat is not None and config.heartbeat.url_file is not None:
        yield config.heartbeat.url_file, "the file of the heartbeat's URL"


def _identity(path: Path) -> tuple[int, int] | str:
    """Device and inode of a file that is there, so that hard links count; else its path with links resolved.

    Of one on a disk that hangs the path as it stands: whoever opens it looks again.
    """

    def look() -> tuple[int, int] | str:
        try:
            status = path.stat()
        except OSError:
            return os.path.realpath(path)
        return status.st_dev, status.st_ino

    try:
        return answer_within(("identity", path), look, LOOK_S)
    except TimeoutError:
        return os.path.abspath(path)  # noqa: PTH100  # it only looks at the text
