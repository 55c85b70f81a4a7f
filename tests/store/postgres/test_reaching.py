"""What may be wrong on the way to the database: one line each, with what to do, and the password nowhere."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

import pytest
from psycopg import OperationalError
from structlog.testing import capture_logs

from reserve_listener import store as stores
from reserve_listener.errors import ConfigError, StoreError, WrongStoreError
from reserve_listener.model import Verdict
from reserve_listener.simulator.postgres import IN_MEMORY, as_user
from reserve_listener.store import open_reader, open_store
from reserve_listener.store.postgres import faults, schema
from reserve_listener.store.postgres.faults import AwayError
from tests.helpers import append, event, free_port, until
from tests.postgres import MISSING, SERVER, WITH_PASSWORD, Server, programs
from tests.sinks.test_sink_http import make_certificate

if TYPE_CHECKING:
    from reserve_listener.protocols.store import Store

PASSWORD = "correct-horse-battery"

pytestmark = pytest.mark.skipif(programs() is None, reason=MISSING)


@pytest.fixture(scope="module")
def database() -> str:
    """A database, with a role that needs a password and one that may do nothing."""
    url = SERVER.database()
    SERVER.ask("postgres", f"CREATE ROLE {WITH_PASSWORD} LOGIN SUPERUSER PASSWORD '{PASSWORD}'")
    SERVER.ask("postgres", "CREATE ROLE plain LOGIN")
    return url.partition("?")[0].rpartition("/")[2]


async def refused(url: str) -> str:
    """What the daemon is told, which is final: 78."""
    with pytest.raises(WrongStoreError) as raised:
        await open_store(url, ["a"])
    assert raised.value.exit_code == ConfigError.exit_code
    return one_line(raised.value)


def one_line(error: Exception) -> str:
    """A sentence or two that shows no password."""
    text = str(error)
    assert "\n" not in text
    assert PASSWORD not in text
    assert "wrong-password" not in text
    return text


async def test_a_wrong_password(database: str) -> None:
    """Says so, and which keys to look at."""
    url = SERVER.url(database, f"{WITH_PASSWORD}:wrong-password")
    assert "store.password_file" in await refused(url)


async def test_the_password_is_read_from_its_file_before_each_connection(
    database: str, tmp_path: Path
) -> None:
    """A file that is wrong is refused, mended it works, and a URL with the password works, too."""
    file = tmp_path / "password"
    url = f"{SERVER.url(database, WITH_PASSWORD)}&password_file={file}"
    assert str(file) in await refused(url)
    file.write_text("wrong-password\n")
    assert "password" in await refused(url)
    file.write_text(f"{PASSWORD}\n")
    await (await open_store(url, ["a"])).close()
    with open_reader(SERVER.url(database, f"{WITH_PASSWORD}:{PASSWORD}")) as reader:
        assert [one.name for one in reader.sinks()] == ["a"]


async def test_a_passwords_file_is_read_as_every_other_secret(
    database: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A unit's credential of that name goes first; a pipe, a folder, an empty file and several lines are refused, and hold up nobody."""
    url = f"{SERVER.url(database, WITH_PASSWORD)}&password_file="
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(tmp_path))
    (tmp_path / "db_password").write_text(f"{PASSWORD}\n")
    await (await open_store(f"{url}db_password", ["a"])).close()
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "folder").mkdir()
    (tmp_path / "empty").touch()
    (tmp_path / "lines").write_text(f"{PASSWORD}\n{PASSWORD}\n")
    for name in ("pipe", "folder", "empty", "lines", "missing"):
        told = await refused(f"{url}{tmp_path}/{name}")
        assert told.startswith("store.password_file: ")
        assert f"{tmp_path}/{name}" in told
        assert "as its only line" in told


async def test_a_password_that_is_changed_is_used_by_the_next_connection(
    database: str, tmp_path: Path
) -> None:
    """The role's and the file's, while the store is open: it is not begun anew."""
    file = tmp_path / "password"
    file.write_text(f"{PASSWORD}\n")
    store = await open_store(f"{SERVER.url(database, WITH_PASSWORD)}&password_file={file}", ["a"])
    assert await append(store, event("before")) is Verdict.STORED
    file.write_text("another\n")
    SERVER.ask("postgres", f"ALTER ROLE {WITH_PASSWORD} PASSWORD 'another'")
    try:
        SERVER.ask(
            "postgres",
            f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = '{WITH_PASSWORD}'",
        )
        await _answers(store, "before")
    finally:
        SERVER.ask("postgres", f"ALTER ROLE {WITH_PASSWORD} PASSWORD '{PASSWORD}'")
        await store.close()


def test_the_name_has_no_password(tmp_path: Path) -> None:
    """What messages call the store is its URL without that, and without what else stands behind the question mark."""
    url = f"postgresql://u:{PASSWORD}@db.example:6432/rooms?sslmode=require"
    in_file = f"postgresql://u@db.example:6432/rooms?password_file={tmp_path}/p"
    assert {stores.backend(each).name for each in (url, in_file)} == {"postgresql://u@db.example:6432/rooms"}


@pytest.mark.parametrize(
    ("url", "said"),
    [
        (f"postgresql://u:{PASSWORD}@h:port/d", "postgresql://user@host"),
        (f"postgresql://u:{PASSWORD}@h:70000/d", "postgresql://user@host"),
        (f"postgresql://u:{PASSWORD}%zz@h/d", "postgresql://user@host"),
        (f"postgresql://u:{PASSWORD}@h/d?sslmod=require", "setting that libpq does not know: sslmod."),
        (f"postgresql://u:12@{PASSWORD}@h/d", '"@" is written %40'),
        (f"postgresql://u:12/{PASSWORD}@h/d", '"/" %2F'),
        (f"postgresql://u:12?{PASSWORD}@h/d", "postgresql://user@host"),
        (f"postgresql://u:{PASSWORD}@h/d?password_file=/p", "remove one of them"),
    ],
)
def test_what_is_no_url_of_a_database(url: str, said: str) -> None:
    """Is refused with what to mend, and without showing it: a password may stand where none is looked for."""
    with pytest.raises(ConfigError) as raised:
        stores.backend(url)
    assert said in one_line(raised.value)


def test_a_url_may_name_several_servers() -> None:
    """With or without ports, in libpq's two ways."""
    assert stores.backend("postgresql://u@a:1,b:2/d").name == "postgresql://u@a,b:1,2/d"
    assert stores.backend("postgresql://u@a,b/d").name == "postgresql://u@a,b/d"
    assert stores.backend("postgresql://u@/d?host=a,b").name == "postgresql://u@a,b/d"


@pytest.mark.parametrize(
    "setting",
    ["sslmode=no", "target_session_attrs=no", "connect_timeout=no", "service=no"],
)
async def test_a_setting_that_is_wrong_is_not_waited_for(database: str, setting: str) -> None:
    """Libpq, or psycopg, says which; no server has to be there for that."""
    told = await refused(f"{SERVER.url(database)}&{setting}")
    assert setting.partition("=")[0] in told
    assert "Correct that setting in store.url" in told


async def test_a_database_that_is_missing(database: str) -> None:
    """Is to be created, or another named."""
    assert "Create the database" in await refused(SERVER.url(f"{database}_2"))


async def test_a_role_that_may_not_make_tables(database: str) -> None:
    """Is told the statement that helps."""
    empty = SERVER.database().partition("?")[0].rpartition("/")[2]
    del database
    assert "CREATE SCHEMA reserve_listener AUTHORIZATION" in await refused(SERVER.url(empty, "plain"))
    SERVER.ask(empty, "CREATE SCHEMA reserve_listener AUTHORIZATION plain")
    await (await open_store(SERVER.url(empty, "plain"), ["a"])).close()


def test_a_command_says_that_the_daemon_could_not_make_its_tables() -> None:
    """As `check` does, before the daemon tries it; a role that may is told that there is no store yet."""
    empty = SERVER.database().partition("?")[0].rpartition("/")[2]
    with pytest.raises(WrongStoreError, match="CREATE SCHEMA"), open_reader(SERVER.url(empty, "plain")):
        pass
    SERVER.ask(empty, "CREATE SCHEMA reserve_listener")
    with pytest.raises(WrongStoreError, match="own the schema"), open_reader(SERVER.url(empty, "plain")):
        pass
    SERVER.ask(empty, "ALTER SCHEMA reserve_listener OWNER TO plain")
    with pytest.raises(StoreError, match="run` creates it"), open_reader(SERVER.url(empty, "plain")):
        pass


async def test_tables_that_are_not_ours(database: str) -> None:
    """Another program's, in a schema of the same name: they stay, and the person is told what is in the way."""
    url = SERVER.database()
    name = url.partition("?")[0].rpartition("/")[2]
    SERVER.ask(name, "CREATE SCHEMA reserve_listener")
    SERVER.ask(name, "CREATE TABLE reserve_listener.events (x integer)")
    told = await refused(url)
    assert 'holds something else (relation "events" already exists)' in told
    assert SERVER.ask(name, "SELECT count(*) FROM reserve_listener.events") == [(0,)]
    del database


async def test_an_encoding_that_does_not_hold_every_name(database: str) -> None:
    """Is refused before the first room in Chinese is: the statement that makes another database is named."""
    SERVER.ask(
        "postgres", f"CREATE DATABASE {database}_latin ENCODING 'LATIN1' TEMPLATE template0 LOCALE 'C'"
    )
    told = await refused(SERVER.url(f"{database}_latin"))
    assert "encoding LATIN1" in told
    assert "ENCODING 'UTF8'" in told


async def test_a_role_that_may_not_connect(database: str) -> None:
    """Not to this database, or not at all: refused, each with what is to be done for it."""
    SERVER.ask("postgres", f"CREATE DATABASE {database}_shut")
    SERVER.ask("postgres", f"REVOKE CONNECT ON DATABASE {database}_shut FROM PUBLIC")
    SERVER.ask("postgres", "CREATE ROLE no_login NOLOGIN")
    assert "GRANT CONNECT" in await refused(SERVER.url(f"{database}_shut", "plain"))
    assert "pg_hba.conf" in await refused(SERVER.url(database, "no_login"))
    assert "pg_hba.conf" in await refused(SERVER.url(database, "no_such_role"))


def test_what_is_over_by_itself_is_waited_for(database: str) -> None:
    """No connection is left for the role, or the database takes none for the moment: neither ends a daemon."""
    SERVER.ask("postgres", "CREATE ROLE crowded LOGIN CONNECTION LIMIT 0")
    with pytest.raises(AwayError, match="Each replica takes four connections"):
        schema.target(SERVER.url(database, "crowded")).connect()
    SERVER.ask("postgres", f"CREATE DATABASE {database}_closed ALLOW_CONNECTIONS false")
    with pytest.raises(AwayError, match="not currently accepting"):
        schema.target(SERVER.url(f"{database}_closed", "plain")).connect()


@pytest.mark.parametrize(
    ("text", "is_final"),
    [
        ('FATAL:  Peer authentication failed for user "u"', True),
        ('FATAL:  pg_hba.conf rejects connection for host "h", user "u", database "d", no encryption', True),
        ("FATAL:  SASL authentication failed", True),  # PgBouncer's, as are the next two
        ("FATAL:  no such database: d", True),
        ("FATAL:  no more connections allowed (max_client_conn)", False),
        ('invalid integer value "x" for connection option "keepalives_idle"', True),
        ('private key file "k" has group or world access', True),
        ('FATAL:  too many connections for database "d"', False),
        ("FATAL:  remaining connection slots are reserved", False),
        ("FATAL:  the database system is starting up", False),
        ("FATAL:  the database system is in recovery mode", False),
        ('could not translate host name "db" to address: Temporary failure in name resolution', False),
        ("server does not support SSL, but SSL was required", False),
    ],
)
def test_what_waiting_may_mend(text: str, *, is_final: bool) -> None:
    """A daemon that ends for it would stay away until somebody starts it; one that waits for ever hides a mistake."""
    assert isinstance(faults.explained("s", OperationalError(text)), WrongStoreError) is is_final


async def test_a_role_that_may_not_use_the_tables(database: str) -> None:
    """Somebody else made them: which table it is, and whose they should be."""
    await (await open_store(SERVER.url(database), ["a"])).close()
    SERVER.ask(database, "GRANT USAGE ON SCHEMA reserve_listener TO plain")
    SERVER.ask(database, "GRANT SELECT ON reserve_listener.version TO plain")
    told = await refused(SERVER.url(database, "plain"))
    assert "permission denied for table" in told
    assert "own the schema" in told
    with (
        pytest.raises(WrongStoreError, match="permission denied for table"),
        open_reader(SERVER.url(database, "plain")) as reader,
    ):
        reader.sinks()


async def test_a_server_that_is_too_old(database: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Says which version it is and which is needed."""
    monkeypatch.setattr(schema, "OLDEST", 990_000)
    assert "14 or newer" in await refused(SERVER.url(database))


async def test_a_newer_schema(database: str) -> None:
    """Is left alone."""
    url = SERVER.database()
    await (await open_store(url, ["a"])).close()
    name = url.partition("?")[0].rpartition("/")[2]
    SERVER.ask(name, "UPDATE reserve_listener.version SET number = 99")
    assert "newer reserve-listener" in await refused(url)
    del database


def test_nobody_at_home(tmp_path: Path) -> None:
    """A command says that the server cannot be reached."""
    with (
        pytest.raises(StoreError) as raised,
        open_reader(f"postgresql://u:{PASSWORD}@/d?host={tmp_path}"),
    ):
        pass
    assert "cannot be reached" in one_line(raised.value)


def test_without_psycopg() -> None:
    """The line that installs it is named."""
    told = subprocess.run(
        [
            sys.executable,
            "-c",
            (
                "import sys; sys.modules['psycopg'] = None\n"
                "from reserve_listener import store\n"
                "from reserve_listener.errors import ConfigError\n"
                "try: store.backend('postgresql://u@h/d')\n"
                "except ConfigError as error: print(error)"
            ),
        ],
        capture_output=True,
        check=True,
        text=True,
    ).stdout
    assert "pip install 'reserve-listener[postgres]'" in told


async def test_a_server_that_is_away_at_the_start_is_waited_for() -> None:
    """The store opens once the server is there."""
    server = Server()
    try:
        url = server.database()
        server.kill()
        opening = asyncio.create_task(open_store(url, ["a"]))
        with capture_logs() as told:
            await until(lambda: any(line["event"] == "store.unreachable" for line in told))
        assert not opening.done()
        server.start()
        await (await opening).close()
    finally:
        server.stop()


async def test_a_database_that_goes_away_refuses_pushes_until_it_is_back() -> None:
    """While it is away nothing counts as stored and `problem` says why; the same store goes on when it is back."""
    server = Server(options=())
    try:
        store = await open_store(server.database(), ["a"])
        assert await append(store, event("e1")) is Verdict.STORED
        server.kill()
        with pytest.raises(StoreError):
            await append(store, event("e2"))
        assert "failed" in str(store.problem)
        assert await store.disabled() == set()  # the daemon's start needs it, and goes on
        server.start()
        await _answers(store, "e1")
        assert await append(store, event("e3")) is Verdict.STORED
        assert str(store.problem) == "None"
        await store.close()
    finally:
        server.stop()


async def _answers(store: Store, known: str) -> None:
    """Until it does: it knows this event."""
    async with asyncio.timeout(60):
        while True:
            with suppress(StoreError):
                assert await append(store, event(known)) is Verdict.DUPLICATE
                return
            await asyncio.sleep(0.1)


class WithTls(Server):
    """On a port of this machine, too, where it shows a certificate."""

    def __init__(self, folder: Path) -> None:
        folder.chmod(0o755)  # the server reads there, too
        self.certificate = make_certificate(folder, "DNS:localhost")
        self.port = free_port()
        keys = (f"ssl_cert_file={self.certificate}", f"ssl_key_file={folder}/key.pem")
        super().__init__(
            options=(*IN_MEMORY, "ssl=on", *keys, "listen_addresses=127.0.0.1", f"port={self.port}")
        )
        if owner := as_user():
            os.chown(folder / "key.pem", owner["user"], owner["group"])

    def url(self, database: str = "postgres", user: str = "postgres") -> str:
        """By its socket."""
        return f"{super().url(database, user)}&port={self.port}"

    def over_tls(self, host: str, authority: Path) -> str:
        """By the port; who it is has to be shown by a certificate of this authority."""
        return (
            f"postgresql://postgres@{host}:{self.port}/postgres?sslmode=verify-full&sslrootcert={authority}"
        )


async def test_tls_that_shows_who_the_server_is() -> None:
    """By libpq's own settings: the right name and authority work; another name, or another authority, is refused in a line."""
    with TemporaryDirectory() as one, TemporaryDirectory() as other:
        server = WithTls(Path(one))
        try:
            server.start()
            await (await open_store(server.over_tls("localhost", server.certificate), ["a"])).close()
            (used,) = server.ask("postgres", "SHOW ssl")
            assert used == ("on",)
            for url, said in (
                (server.over_tls("127.0.0.1", server.certificate), "does not match host name"),
                (server.over_tls("localhost", make_certificate(Path(other))), "certificate verify failed"),
            ):
                with pytest.raises(AwayError, match=said) as raised, open_reader(url):
                    pass
                assert "sslrootcert in store.url" in one_line(raised.value)
            assert "Check sslrootcert" in await refused(server.over_tls("localhost", Path(one, "none.pem")))
        finally:
            server.stop()
