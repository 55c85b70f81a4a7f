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
from structlog.testing import capture_logs

from reserve_listener import store as stores
from reserve_listener.errors import ConfigError, StoreError, WrongStoreError
from reserve_listener.model import Verdict
from reserve_listener.simulator.postgres import IN_MEMORY, as_user
from reserve_listener.store import open_reader, open_store
from reserve_listener.store.postgres import schema
from reserve_listener.store.postgres.schema import AwayError
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
    url = f"postgresql://u:{PASSWORD}@db.example:6432/rooms?password_file={tmp_path}/p&sslmode=require"
    assert stores.backend(url).name == "postgresql://u@db.example:6432/rooms"


@pytest.mark.parametrize(
    "url", [f"postgresql://u:{PASSWORD}@h:port/d", f"postgresql://u:{PASSWORD}@h/d?no=1"]
)
def test_what_is_no_url_of_a_database(url: str) -> None:
    """Is refused without showing it."""
    with pytest.raises(ConfigError) as raised:
        stores.backend(url)
    assert "postgresql://user@host" in one_line(raised.value)


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


async def test_a_role_that_may_not_use_the_tables(database: str) -> None:
    """Somebody else made them: which table it is, and whose they should be."""
    await (await open_store(SERVER.url(database), ["a"])).close()
    SERVER.ask(database, "GRANT USAGE ON SCHEMA reserve_listener TO plain")
    SERVER.ask(database, "GRANT SELECT ON reserve_listener.version TO plain")
    told = await refused(SERVER.url(database, "plain"))
    assert "permission denied for table" in told
    assert "own the tables" in told


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
            assert "Set sslrootcert" in await refused(server.over_tls("localhost", Path(one, "none.pem")))
        finally:
            server.stop()
