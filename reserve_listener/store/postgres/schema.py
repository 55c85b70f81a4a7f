"""The way to the database: its URL, connecting, and the tables' version. What may be wrong with it in words is in `faults`."""

from __future__ import annotations

import os
import time
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import parse_qsl, quote, urlencode, urlsplit, urlunsplit

import psycopg
from psycopg.conninfo import conninfo_to_dict, make_conninfo
from psycopg.pq import Conninfo

from reserve_listener.config import secret_files
from reserve_listener.errors import ConfigError, StoreError, WrongStoreError
from reserve_listener.store.postgres import faults, waiting
from reserve_listener.store.postgres.connection import (
    SCHEMA,
    Connection,
    NotAllowedError,
    OutdatedError,
    told,
)
from reserve_listener.store.postgres.database_clock import NOW
from reserve_listener.store.postgres.leases import DEAD_MS

if TYPE_CHECKING:
    from collections.abc import Mapping

OLDEST: Final = 140000
"""Of PostgreSQL's versions: before 14 neither pipelines nor timeouts of the kind that is used here are what they are now."""

ENCODING: Final = "UTF8"

MIGRATING: Final = 0x5265734D
"""The advisory lock of those who make or change the tables ("ResM"): replicas may start together."""

MIGRATION_TIMEOUT_S: Final = 600.0
"""A change of the tables may have to write all of them anew; other replicas wait for it."""

LOOK_S: Final = 1.0
"""How often a new version looks whether replicas of the old one still run. Those say so every 3 s."""

_OLDER: Final = f"""
SELECT id, seen_ms, host, pid, version FROM replicas WHERE seen_ms >= {NOW} - {DEAD_MS} ORDER BY host, pid
"""  # fixed texts only

_MAY_CREATE: Final = f"""
SELECT coalesce(has_schema_privilege(to_regnamespace('{SCHEMA}')::oid, 'CREATE'),
  has_database_privilege(current_database(), 'CREATE'))
"""

_TAKEN: Final = (psycopg.errors.DuplicateTable, psycopg.errors.DuplicateObject)

LAST_PORT: Final = 65_535

DEFAULTS: Final[Mapping[str, str]] = {
    "application_name": "reserve-listener",
    # What waits for the database is answered 500 after 2.5 s.
    "connect_timeout": "3",
    # A standby, or a primary that was demoted, is as good as away: the next attempt may find the primary.
    "target_session_attrs": "read-write",
    # A server that has vanished is noticed within 20 s; `waiting` has the rest.
    "tcp_user_timeout": "15000",
    "keepalives_idle": "5",
    "keepalives_interval": "5",
    "keepalives_count": "3",
}
"""What libpq is told unless the URL says otherwise."""

PASSWORD_FILE: Final = "password_file"  # noqa: S105  # a key's name
"""In a URL's query: the file with the password, ours and not libpq's. It is read before each connection."""


@dataclass(frozen=True)
class Target:
    """A database by its URL. `name`: the URL without password."""

    url: str
    name: str
    password_file: Path | None

    def connect(self) -> Connection:
        """A connection. Raises `AwayError` for what waiting may mend, else `WrongStoreError`."""
        options: dict[str, Any] = {**DEFAULTS, **conninfo_to_dict(self.url)}
        if self.password_file is not None:
            options["password"] = _password(self.password_file)
        try:
            real = waiting.BoundedConnection.connect(
                make_conninfo(**options), autocommit=True, prepare_threshold=None
            )
        except psycopg.Error as error:
            raise faults.explained(self.name, error) from None  # the cause may hold what the server was told
        try:
            self._require_fit(real.info)
        except WrongStoreError:
            real.close()
            raise
        real.allow(waiting.STATEMENT_TIMEOUT_S)
        return Connection(real, self.name)

    def _require_fit(self, server: psycopg.ConnectionInfo) -> None:
        if server.server_version < OLDEST:
            found = server.parameter_status("server_version") or "older"
            raise WrongStoreError(
                f"the store {self.name} is on PostgreSQL {found}, which is too old: version 14 or newer is needed."
            )
        encoding = server.parameter_status("server_encoding")
        if encoding not in {ENCODING, None}:  # not every pooler tells
            raise WrongStoreError(
                f"the store {self.name} is a database with the encoding {encoding}, which does not hold every name. Create one"
                f" with another: CREATE DATABASE <name> ENCODING '{ENCODING}' TEMPLATE template0."
            )


def target(url: str) -> Target:
    """Of a `postgresql://` URL. Raises `ConfigError`, which shows nothing that may be a password."""
    parts = urlsplit(url)
    if "@" in f"{parts.netloc.rpartition('@')[0]}{parts.path}":
        raise ConfigError(
            'store.url has an "@" too many: in a user\'s name and a password "@" is written %40, "/" %2F, ":" %3A and "%" %25.'
        )
    query = dict(parse_qsl(parts.query, keep_blank_values=True))
    password_file = query.pop(PASSWORD_FILE, None)
    plain = urlunsplit(parts._replace(query=urlencode(query, quote_via=quote)))
    known = _known(plain, query)
    if password_file and known.get("password"):
        raise ConfigError(
            "store.url has a password, and store.password_file is set, too: remove one of them."
        )
    ports = str(known.get("port") or "").strip(",")
    host = f"{known.get('host') or 'localhost'}" + (f":{ports}" if ports else "")
    user = f"{known['user']}@" if known.get("user") else ""
    name = f"postgresql://{user}{host}/{known.get('dbname') or ''}"
    return Target(plain, name, Path(password_file) if password_file else None)


def _known(url: str, query: Mapping[str, str]) -> Mapping[str, Any]:
    """What libpq reads in it."""
    settings = {option.keyword.decode() for option in Conninfo.get_defaults()} | {"ssl"}
    if unknown := [key for key in query if key not in settings and key.isidentifier()]:
        raise ConfigError(
            f"store.url has a setting that libpq does not know: {unknown[0]}. Correct it, or remove it."
        )
    try:
        known = conninfo_to_dict(url)
        if all(0 < int(port or 1) <= LAST_PORT for port in str(known.get("port") or "").split(",")):
            return known
    except (psycopg.Error, ValueError):  # its text may show the password
        pass
    raise ConfigError(
        "store.url is not a PostgreSQL URL, which looks like postgresql://user@host:5432/database"
    )


def migrations() -> list[str]:
    """The SQL scripts, oldest first; the n-th leads to version n."""
    folder = resources.files("reserve_listener.store.postgres") / "migrations"
    files = sorted((file for file in folder.iterdir() if file.name.endswith(".sql")), key=lambda f: f.name)
    return [file.read_text("utf-8") for file in files]


def known() -> int:
    """The version that this program's statements are for."""
    return len(migrations())


def migrate(connection: Connection, target: Target, *, source: str | None = None) -> None:
    """Make the tables, or bring them to this version; one replica does while the others wait. Raises `WrongStoreError`.

    Not while replicas run that know only the old ones: one that was killed a moment ago is waited for.
    `source`: they are for a copy of this store, and nobody else's until that is whole.
    """
    seen: dict[str, int] = {}
    while others := _migrate(connection, target, source=source):
        _require_dead(others, seen, target)
        seen = {one: seen_ms for one, seen_ms, *_ in others}
        time.sleep(LOOK_S)


def _migrate(connection: Connection, target: Target, *, source: str | None) -> list[tuple[Any, ...]]:
    """The replicas that may still run older code; none: it is done."""
    try:
        with connection.transaction(timeout_s=MIGRATION_TIMEOUT_S):
            connection.query(f"SELECT pg_advisory_xact_lock({MIGRATING})")
            _require_whole(connection, target)
            version = version_of(connection)
            if version == known():
                return []
            _require_not_newer(version, target)
            if version and (others := connection.query(_OLDER).fetchall()):
                return others
            if not version:
                if not connection.query(f"SELECT to_regnamespace('{SCHEMA}') IS NOT NULL").fetchone()[0]:
                    connection.query(f"CREATE SCHEMA {SCHEMA}")
                connection.query("CREATE TABLE version (number integer NOT NULL)")
                connection.query("INSERT INTO version VALUES (0)")
            for script in migrations()[version:]:
                connection.script(script)
            connection.query(f"UPDATE version SET number = {known()}")
            if source is not None:
                connection.query("CREATE TABLE copying (source text, place text, after text)")
                connection.query("INSERT INTO copying VALUES (%s, '', '[]')", (source,))
            return []
    except NotAllowedError as error:
        reason = told(error.__cause__) if isinstance(error.__cause__, psycopg.Error) else error
        raise WrongStoreError(
            f"the store {target.name} cannot be made: {reason}. {faults.MAY_CREATE}"
        ) from error
    except _TAKEN as error:
        raise WrongStoreError(
            f"the store {target.name} cannot be made: its schema {SCHEMA} holds something else ({told(error)}). Name another"
            f" database in store.url, or remove what is there: DROP SCHEMA {SCHEMA} CASCADE"
        ) from error


def _require_dead(others: list[tuple[Any, ...]], seen: Mapping[str, int], target: Target) -> None:
    """None of them has been heard of since it was seen last."""
    alive = [
        f"{host} (process {pid}, version {version})"
        for one, seen_ms, host, pid, version in others
        if seen_ms > seen.get(one, seen_ms)
    ]
    if alive:
        raise WrongStoreError(
            f"the store {target.name} has to be migrated to schema {known()}, which replicas that run now do not know:"
            f" {', '.join(alive)}. Stop them all, then start this version; the platform retries what it pushes meanwhile."
        )


def require_version(connection: Connection, target: Target) -> None:
    """Whether the tables are there and of this version. Raises `StoreError`."""
    _require_whole(connection, target)
    version = version_of(connection)
    _require_not_newer(version, target)
    if not version:
        _require_may_create(connection, target)
        raise StoreError(f"there is no store in {target.name}. `reserve-listener run` creates it.")
    if version < known():
        raise StoreError(
            f"the store {target.name} was written by an older reserve-listener (schema {version}, this one needs"
            f" {known()}). `reserve-listener run` migrates it."
        )


def _require_may_create(connection: Connection, target: Target) -> None:
    (may,) = connection.query(_MAY_CREATE).fetchone()
    if not may:
        raise WrongStoreError(
            f"the store {target.name} cannot be made: the role may not create tables in the schema {SCHEMA}. {faults.MAY_CREATE}"
        )


def version_of(connection: Connection) -> int:
    """0: there are no tables."""
    (found,) = connection.query(f"SELECT to_regclass('{SCHEMA}.version') IS NOT NULL").fetchone()
    return int(connection.query(f"SELECT number FROM {SCHEMA}.version").fetchone()[0]) if found else 0


def copied_from(connection: Connection) -> str | None:
    """Of which store the tables are a copy that has not ended; None: they are none."""
    (begun,) = connection.query(f"SELECT to_regclass('{SCHEMA}.copying') IS NOT NULL").fetchone()
    return str(connection.query(f"SELECT source FROM {SCHEMA}.copying").fetchone()[0]) if begun else None


def _require_whole(connection: Connection, target: Target) -> None:
    source = copied_from(connection)
    if source is not None:
        raise WrongStoreError(
            f"the store {target.name} is an unfinished copy of {source}. Run the same `reserve-listener store copy`"
            f" again to finish it, or remove it: DROP SCHEMA {SCHEMA} CASCADE"
        )


def _require_not_newer(version: int, target: Target) -> None:
    if version > known():
        raise OutdatedError(
            f"the store {target.name} was written by a newer reserve-listener (schema {version}, this one knows"
            f" {known()}). Install that version again, or set store.url to another database."
        )


def _password(file: Path) -> str:
    """As it is now: it may have been changed."""
    try:
        found = secret_files.read_secret(secret_files.locate(str(file), os.environ))
    except ConfigError as error:
        raise WrongStoreError(
            f"store.password_file: {error}. Write the password into it, as its only line, and let the daemon's user read it."
        ) from None
    return found.get_secret_value()
