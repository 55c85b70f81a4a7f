"""Opens the database file and checks that it is ours: identity, version, pragmas."""

from __future__ import annotations

import os
import sqlite3
from contextlib import closing
from dataclasses import dataclass
from importlib import resources
from typing import TYPE_CHECKING, Final

from reserve_listener import ownership
from reserve_listener.errors import StoreError, WrongStoreError

if TYPE_CHECKING:
    from pathlib import Path

HEADER: Final = b"SQLite format 3\x00"

APPLICATION_ID: Final = 0x5265734C
"""`PRAGMA application_id` ("ResL"), which tells our files from other programs'."""

INBOX_APPLICATION_ID: Final = 0x52657349
""""ResI"."""

BUSY_TIMEOUT_S: Final = 5.0
WAL_LIMIT_BYTES: Final = 16 * 1024 * 1024
CHECKPOINT_PAGES: Final = 3_900
"""Just within that. A page that is written twice before the checkpoint is copied once."""
CACHE_KIB: Final = 16 * 1024
"""Of pages in memory, taken as they are needed: what one large transaction writes, and the index of what is known. With SQLite's
2 MiB it writes pages of a burst twice and reads them back."""


class DamagedStoreError(StoreError):
    """The file is not an intact store: opening it again will not help."""


def no_store(path: Path) -> StoreError:
    """The error of a command that finds no store: the daemon may not have run yet, or may use another place."""
    return StoreError(
        f"there is no store at {path}. `reserve-listener run` creates it; if yours is elsewhere, give its configuration"
        " with -c FILE or $RESERVE_LISTENER_CONFIG, or the store itself with $RESERVE_LISTENER_STORE__URL."
    )


@dataclass(frozen=True, slots=True)
class Part:
    """One of the store's files. `folder`: where its migrations are, below those of the main file."""

    application_id: int
    folder: str


STORE: Final = Part(APPLICATION_ID, "")
INBOX: Final = Part(INBOX_APPLICATION_ID, "inbox")


def migrations(part: Part = STORE) -> list[str]:
    """The SQL scripts, oldest first; the n-th leads to `user_version` n."""
    folder = resources.files("reserve_listener.store.sqlite") / "migrations"
    if part.folder:
        folder /= part.folder
    return [
        file.read_text("utf-8")
        for file in sorted(folder.iterdir(), key=lambda f: f.name)
        if file.name.endswith(".sql")
    ]


def open_writer(path: Path, part: Part = STORE) -> sqlite3.Connection:
    """Open the one connection that writes. Creates the file (0600) and migrates it. Raises `StoreError`.

    The connection is for the calling thread.
    """
    if path.is_dir():
        raise WrongStoreError(f"the store {path} is a directory. Set store.url to a file.")
    try:
        ownership.make_folder(path.parent)
        os.close(ownership.open_file(path.resolve(), os.O_RDWR, 0o600))  # a link to a store is fine
        connection = sqlite3.connect(path, isolation_level=None, timeout=BUSY_TIMEOUT_S)
    except (OSError, sqlite3.Error) as error:
        raise StoreError(
            f"the store {path} cannot be opened: {error}. Check the directory's owner, or set store.url to another file."
        ) from error
    try:
        _identify(connection, path, part)
        connection.execute("PRAGMA journal_mode = WAL")
        # A 200 goes out after the commit, so the commit is on the disk: design, invariant 1.
        connection.execute("PRAGMA synchronous = FULL")
        connection.execute(f"PRAGMA journal_size_limit = {WAL_LIMIT_BYTES}")
        connection.execute(f"PRAGMA wal_autocheckpoint = {CHECKPOINT_PAGES}")
        # What a statement would have to take back is kept in memory, not in a file that is made for each.
        connection.execute("PRAGMA temp_store = MEMORY")
        connection.execute(f"PRAGMA cache_size = {-CACHE_KIB}")
        connection.execute("PRAGMA foreign_keys = ON")
        _migrate(connection, part)
    except sqlite3.Error as error:
        connection.close()
        raise explained(path, error) from error
    except StoreError:
        connection.close()
        raise
    return connection


def require_sound(connection: sqlite3.Connection, path: Path, *, indexes: bool = False) -> None:
    """Check a file that was said to be damaged, which takes seconds for a large one. Raises `DamagedStoreError`.

    `indexes`: also check that they match their tables, which takes five times as long.
    """
    try:
        check = "integrity_check" if indexes else "quick_check"
        (found,) = connection.execute(f"PRAGMA {check}(1)").fetchone()
    except sqlite3.Error as error:
        raise explained(path, error) from error
    if found != "ok":
        raise _damaged(path, found)


def open_reader(path: Path, part: Part = STORE, *, older: bool = False) -> sqlite3.Connection:
    """Open a connection that only reads, for commands; the daemon may be running.

    `older`: accept also a store of an older version, whose tables differ from those of this one.
    """
    if not path.exists():
        raise no_store(path)
    try:
        connection = sqlite3.connect(f"file:{_uri(path)}?mode=ro", uri=True, timeout=BUSY_TIMEOUT_S)
    except sqlite3.Error as error:
        raise explained(path, error) from error
    try:
        _identify(connection, path, part)
        version = _version(connection)
        if version != len(migrations(part)) and not older:
            raise StoreError(_versions_differ(path, version, part))
    except sqlite3.Error as error:
        connection.close()
        raise explained(path, error) from error
    except StoreError:
        connection.close()
        raise
    return connection


def look_at(path: Path, part: Part = STORE) -> None:
    """Check that the file is a store that this version accepts. Leaves nothing behind. Raises `StoreError`.

    Looks only at the file itself: opening its log, too, would create or change files.
    """
    if path.stat().st_size == 0:
        return
    try:
        with closing(
            sqlite3.connect(f"file:{_uri(path.resolve())}?mode=ro&immutable=1", uri=True)
        ) as connection:
            _identify(connection, path, part)
    except sqlite3.Error as error:
        raise explained(path, error) from error


def require_header(path: Path) -> None:
    """Raise `WrongStoreError` for another kind of file: SQLite takes any that is shorter than its header for an empty one."""
    try:
        with path.open("rb") as file:
            head = file.read(len(HEADER))
    except OSError as error:
        raise StoreError(f"{path}: cannot be read: {error.strerror}") from None
    if head not in {b"", HEADER}:
        raise WrongStoreError(f"{path}: is not an SQLite database; set store.url to another file")


def _identify(connection: sqlite3.Connection, path: Path, part: Part) -> None:
    (found,) = connection.execute("PRAGMA application_id").fetchone()
    (tables,) = connection.execute("SELECT count(*) FROM sqlite_master").fetchone()
    version = _version(connection)
    if found == part.application_id and version > len(migrations(part)):
        raise WrongStoreError(_versions_differ(path, version, part))
    if found == part.application_id and tables and not version:
        raise WrongStoreError(
            f"{path} has a store's tables but no schema version (user_version 0): something has changed it. It was left"
            " alone; restore a copy, or set store.url to another file."
        )
    if found == part.application_id or (found == 0 and tables == 0):
        return
    raise WrongStoreError(
        f"{path} is another program's database; it was left alone. Set store.url to another file."
    )


def _migrate(connection: sqlite3.Connection, part: Part) -> None:
    scripts, version = migrations(part), _version(connection)
    for number, script in enumerate(scripts[version:], start=version + 1):
        connection.executescript(
            f"BEGIN IMMEDIATE;\n{script}\n"
            f"PRAGMA application_id = {part.application_id};\nPRAGMA user_version = {number};\nCOMMIT;"
        )


def _version(connection: sqlite3.Connection) -> int:
    return int(connection.execute("PRAGMA user_version").fetchone()[0])


def _versions_differ(path: Path, version: int, part: Part) -> str:
    known = len(migrations(part))
    if version > known:
        return (
            f"the store {path} was written by a newer reserve-listener (schema {version}, this one knows {known})."
            " Install that version again, or set store.url to another file."
        )
    return (
        f"the store {path} was written by an older reserve-listener (schema {version}, this one needs {known})."
        " `reserve-listener run` migrates it."
    )


def explained(path: Path, error: sqlite3.Error) -> StoreError:
    """What is wrong with the file, and what to do."""
    name = getattr(error, "sqlite_errorname", "")
    if name == "SQLITE_NOTADB":
        return WrongStoreError(
            f"{path} is not a reserve-listener store (not a database). It was left alone; set store.url to another file."
        )
    if name.startswith("SQLITE_CORRUPT"):
        return _damaged(path, str(error))
    if name.startswith(("SQLITE_READONLY", "SQLITE_CANTOPEN", "SQLITE_PERM")):
        return StoreError(
            f"the store {path} or its directory cannot be written to ({error}). Check the owner and the mode."
        )
    if name == "SQLITE_FULL":
        return StoreError(f"the store {path} cannot be used: {error}. Make room on its disk.")
    if name.startswith("SQLITE_IOERR"):
        return StoreError(f"the store {path} cannot be used: {error}. Is the disk full, or failing?")
    return StoreError(f"the store {path} cannot be used: {error}.")


def _damaged(path: Path, found: str) -> StoreError:
    return DamagedStoreError(
        f"the store {path} is damaged ({found}). It was left alone: move it away, or restore a copy, then start again."
    )


def _uri(path: Path) -> str:
    return str(path).replace("%", "%25").replace("?", "%3f").replace("#", "%23")
