"""The way to the database: connecting, what may be wrong with that in words, and the tables' version."""

from __future__ import annotations

import time
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import parse_qsl, quote, urlencode, urlsplit, urlunsplit

import psycopg
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from reserve_listener.errors import ConfigError, StoreError, WrongStoreError
from reserve_listener.store.postgres import waiting
from reserve_listener.store.postgres.connection import SCHEMA, Connection, OutdatedError, told
from reserve_listener.store.postgres.database_clock import NOW
from reserve_listener.store.postgres.leases import DEAD_MS
from reserve_listener.store.shared.medium import MediumError

if TYPE_CHECKING:
    from collections.abc import Mapping

OLDEST: Final = 140000
"""Of PostgreSQL's versions: before 14 neither pipelines nor timeouts of the kind that is used here are what they are now."""

MIGRATING: Final = 0x5265734D
"""The advisory lock of those who make or change the tables ("ResM"): replicas may start together."""

MIGRATION_TIMEOUT_S: Final = 600.0
"""A change of the tables may have to write all of them anew; other replicas wait for it."""

LOOK_S: Final = 1.0
"""How often a new version looks whether replicas of the old one still run. Those say so every 3 s."""

_OLDER: Final = f"""
SELECT id, seen_ms, host, pid, version FROM replicas WHERE seen_ms >= {NOW} - {DEAD_MS} ORDER BY host, pid
"""  # fixed texts only

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

_PERSON: Final = {
    "28P01": "Set the right password (store.password_file, or the URL), and the user's name in store.url.",
    "28000": "Check the user in store.url and the server's pg_hba.conf.",
    "3D000": "Create the database, or name another one in store.url.",
    "sslrootcert": "Set sslrootcert in store.url to the file of the authority that signed the server's certificate.",
    "42501": "Let the role create its schema, or create it: CREATE SCHEMA reserve_listener AUTHORIZATION <role>.",
}
"""What waiting does not mend, by its SQLSTATE if it has one, with what to do."""


class AwayError(MediumError):
    """The server cannot be reached, or does not take connections now: waiting may help."""


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
            raise self._explained(error) from None  # the cause may hold what the server was told
        if real.info.server_version < OLDEST:
            found = real.info.parameter_status("server_version") or "older"
            real.close()
            raise WrongStoreError(
                f"the store {self.name} is on PostgreSQL {found}, which is too old: version 14 or newer is needed."
            )
        real.allow(waiting.STATEMENT_TIMEOUT_S)
        return Connection(real, self.name)

    def _explained(self, error: psycopg.Error) -> StoreError:
        text, hint = told(error), _hint(error)
        if hint is None:
            return AwayError(f"the store {self.name} cannot be reached: {text}. {_look_at(text)}")
        return WrongStoreError(f"the store {self.name} cannot be used: {text}. {hint}")


def target(url: str) -> Target:
    """Of a `postgresql://` URL. Raises `ConfigError`."""
    parts = urlsplit(url)
    query = dict(parse_qsl(parts.query, keep_blank_values=True))
    password_file = query.pop(PASSWORD_FILE, None)
    plain = urlunsplit(parts._replace(query=urlencode(query, quote_via=quote)))
    try:
        known = conninfo_to_dict(plain)
        _ = parts.port
    except (psycopg.Error, ValueError):  # its text may show the password
        raise ConfigError(
            "store.url is not a PostgreSQL URL, which looks like postgresql://user@host:5432/database"
        ) from None
    host = f"{known.get('host') or 'localhost'}" + (f":{known['port']}" if known.get("port") else "")
    user = f"{known['user']}@" if known.get("user") else ""
    name = f"postgresql://{user}{host}/{known.get('dbname') or ''}"
    return Target(plain, name, Path(password_file) if password_file else None)


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
    except psycopg.errors.InsufficientPrivilege as error:
        raise WrongStoreError(
            f"the store {target.name} cannot be made: {told(error)}. {_PERSON['42501']}"
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
        raise StoreError(f"there is no store in {target.name}. `reserve-listener run` creates it.")
    if version < known():
        raise StoreError(
            f"the store {target.name} was written by an older reserve-listener (schema {version}, this one needs"
            f" {known()}). `reserve-listener run` migrates it."
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
    try:
        return file.read_text("utf-8").rstrip("\r\n")
    except (OSError, UnicodeError) as error:
        reason = getattr(error, "strerror", None) or "not UTF-8"
        raise WrongStoreError(f"store.password_file: {file} cannot be read: {reason}") from None


def _look_at(text: str) -> str:
    """What may be wrong; what waiting may mend is not known to be a person's mistake."""
    if "read-only" in text:
        return "It is a standby: wait for the failover to end, and name all hosts in store.url."
    if "certificate" in text:
        return "Check the server's certificate, and sslmode and sslrootcert in store.url."
    return "Is the server running, and is the address in store.url right?"


def _hint(error: psycopg.Error) -> str | None:
    """What a person has to do; None: waiting may help. A server that refuses at once gives no SQLSTATE to libpq."""
    if error.sqlstate in _PERSON:
        return _PERSON[error.sqlstate]
    text = str(error)
    for mark, state in (
        ("password authentication failed", "28P01"),
        ("no password supplied", "28P01"),
        ("no pg_hba.conf entry", "28000"),
        ('role "', "28000"),
        ('database "', "3D000"),
        ("permission denied for database", "28000"),
        ("root certificate file", "sslrootcert"),
    ):
        if mark in text and "starting up" not in text:
            return _PERSON[state]
    return None
