"""A commit before an answer waits for the disk, however the server, the database or the role is set."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import psycopg
import pytest

from reserve_listener.model import Outcome, Verdict
from reserve_listener.store import open_store
from reserve_listener.store.postgres import schema
from reserve_listener.store.postgres.connection import APPEND_LOCK
from tests.helpers import append, event, until
from tests.postgres import MISSING, SERVER, programs

if TYPE_CHECKING:
    from collections.abc import Callable

pytestmark = pytest.mark.skipif(programs() is None, reason=MISSING)

ASK = "SELECT current_setting('synchronous_commit')"

REFUSE = """
CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  IF current_setting('synchronous_commit') NOT IN ('on', 'remote_apply') THEN RAISE 'this would not wait for the disk'; END IF;
  RETURN NULL;
END $$
"""

WATCH = """
DO $$ DECLARE name text; BEGIN
  FOR name IN SELECT tablename FROM pg_tables WHERE schemaname = 'reserve_listener' LOOP
    EXECUTE format('CREATE TRIGGER watch AFTER INSERT OR UPDATE OR DELETE ON reserve_listener.%I
      FOR EACH STATEMENT EXECUTE FUNCTION refuse()', name);
  END LOOP;
END $$
"""


def by_database(name: str, value: str) -> str:
    """The database's default; and the URL."""
    SERVER.ask("postgres", f"ALTER DATABASE {name} SET synchronous_commit = {value}")
    return SERVER.url(name)


def by_role(name: str, value: str) -> str:
    """The role's default; and the URL."""
    SERVER.ask("postgres", f"CREATE ROLE r_{name} LOGIN SUPERUSER")
    SERVER.ask("postgres", f"ALTER ROLE r_{name} SET synchronous_commit = {value}")
    return SERVER.url(name, f"r_{name}")


@pytest.mark.parametrize("default", [by_database, by_role])
@pytest.mark.parametrize(
    ("value", "used"),
    [("off", "on"), ("local", "on"), ("remote_write", "on"), ("on", "on"), ("remote_apply", "remote_apply")],
)
def test_what_is_weaker_is_made_synchronous_and_what_is_stronger_stays(
    default: Callable[[str, str], str], value: str, used: str
) -> None:
    """In each transaction, also where a pooler hands out another connection for the next."""
    url = default(SERVER.database().partition("?")[0].rpartition("/")[2], value)
    with psycopg.connect(url) as plain:
        assert plain.execute(ASK).fetchone() == (value,)
    connection = schema.target(url).connect()
    with connection.transaction():
        assert connection.query(ASK).fetchone() == (used,)
    connection.close()


async def test_other_defaults_of_the_database_spoil_nothing() -> None:
    """Stricter isolation would compare with what was there before the wait for the append lock; a short one for locks would refuse pushes."""
    url = SERVER.database()
    name = url.partition("?")[0].rpartition("/")[2]
    for setting in (
        "default_transaction_isolation = serializable",
        "lock_timeout = 10",
    ):
        SERVER.ask("postgres", f"ALTER DATABASE {name} SET {setting}")
    connection = schema.target(url).connect()
    for reads, isolation in ((False, "read committed"), (True, "repeatable read")):
        with connection.transaction(reads=reads):
            asked = "SELECT current_setting('transaction_isolation'), current_setting('lock_timeout')"
            assert connection.query(asked).fetchone() == (isolation, "0")
    connection.close()
    one, two = await open_store(url, ["a"]), await open_store(url, ["a"])
    with psycopg.connect(url) as blocking:
        blocking.execute(f"SELECT pg_advisory_xact_lock({APPEND_LOCK})".encode())
        waiting = [asyncio.ensure_future(append(store, event(f"e{n}"))) for n, store in enumerate((one, two))]
        await until(lambda: len(SERVER.ask("postgres", _WAITING)) == len(waiting), 30)
    assert [await each for each in waiting] == [Verdict.STORED] * 2
    await one.close()
    await two.close()


_WAITING = "SELECT 1 FROM pg_locks WHERE locktype = 'advisory' AND NOT granted"


async def test_whatever_the_store_writes_waits_for_the_disk() -> None:
    """Each table refuses what would not: events, outcomes, leases, sinks and alerts are written all the same."""
    url = SERVER.database()
    await (await open_store(url, ["a"])).close()
    name = url.partition("?")[0].rpartition("/")[2]
    SERVER.ask(name, REFUSE)
    SERVER.ask(name, WATCH)
    by_database(name, "off")
    with pytest.raises(psycopg.Error, match="would not wait"):
        SERVER.ask(name, "INSERT INTO reserve_listener.alerts (content) VALUES ('')")
    store = await open_store(url, ["a"])
    assert await append(store, event("e1")) is Verdict.STORED
    await store.settle("a", [Outcome(seq=1, state="delivered", attempts=1)])
    await store.remember_alerts(b"{}")
    assert SERVER.ask(name, "SELECT state FROM reserve_listener.deliveries") == [(1,)]
    assert await store.disable_sink("a", "by hand")
    await store.know_app("app")
    await store.close()
