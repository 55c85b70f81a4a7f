"""A replica that has lost a lease, and does not know that yet, writes nothing of what only its holder may."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

import pytest

from reserve_listener.errors import LeaseLostError
from reserve_listener.intake.complete import completing
from reserve_listener.intake.reconcile import comparing, reading_of
from reserve_listener.lark.api.answers import Limits
from reserve_listener.model import Outcome, Pruned, Scope
from reserve_listener.store.postgres.store import PostgresStore
from tests.helpers import NOW_MS, append, event

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

    from reserve_listener.model import Reading
    from reserve_listener.protocols.store import Store
    from tests.backends import OnPostgres

    Write = Callable[[Store], Awaitable[Any]]

APP = "cli_app"
ROOM = Scope(tenant_key=APP, scope_type="room", scope_id="omm_1")
LATER = NOW_MS + 10**9
COMPARE = comparing("en")

LED: dict[str, Write] = {
    "begin_pass": lambda store: store.begin_pass(APP),
    "end_pass": lambda store: store.end_pass(APP),
    "asked_in_vain": lambda store: store.asked_in_vain(ROOM, number=1),
    "compare": lambda store: store.compare(_reading(), COMPARE),
}

TABLES = (
    "events",
    "deliveries",
    "states",
    "history",
    "readings",
    "passes",
    "alerts",
    "sinks",
    "scopes",
    "gaps",
)


@pytest.fixture
async def store(backend: OnPostgres) -> AsyncIterator[PostgresStore]:
    """It leads everything, has a pass under way and an event that is delivered, and then does not look after its leases."""
    opened = await backend.open("a", complete=completing("en"))
    assert isinstance(opened, PostgresStore)
    await opened.begin_pass(APP)
    await append(opened, event("e1"))
    await opened.settle("a", [Outcome(seq=1, state="delivered", attempts=1)])
    await opened.remember_alerts(b"mine")
    if opened._beating is not None:
        opened._beating.cancel()
    yield opened
    await opened.close()


def take_away(backend: OnPostgres) -> None:
    """Another replica has all leases from now on."""
    backend.rows(
        "UPDATE leases SET holder = 'another', fence = fence + 1,"
        " until_ms = (extract(epoch FROM clock_timestamp()) * 1000)::bigint + 60000"
    )


def written(backend: OnPostgres) -> dict[str, Any]:
    """All that there is."""
    return {table: sorted(map(str, backend.rows(f"SELECT * FROM {table}"))) for table in TABLES}


@pytest.mark.parametrize("name", LED)
async def test_who_has_lost_reconciling_writes_nothing_of_it(
    backend: OnPostgres, store: PostgresStore, name: str
) -> None:
    """It is told so, and that is no failed commit; who holds the lease writes it."""
    before = written(backend)
    rows = backend.rows("SELECT name, holder, fence, until_ms FROM leases")
    take_away(backend)
    assert store.leads("reconcile")
    with pytest.raises(LeaseLostError):
        await LED[name](store)
    assert written(backend) == before
    assert (store.problem, store.failed_commits) == (None, 0)
    for lease, holder, fence, _ in rows:
        backend.rows(f"UPDATE leases SET holder = '{holder}', fence = {fence} WHERE name = '{lease}'")
    await LED[name](store)
    assert written(backend) != before


async def test_who_has_lost_retention_drops_nothing(backend: OnPostgres, store: PostgresStore) -> None:
    """Neither events nor history nor gaps, and it hears that there is nothing more to drop."""
    await store.know_app(APP, gap_since_ms=NOW_MS - 2, longer_than_ms=1)
    before = written(backend)
    take_away(backend)
    assert store.leads("retention")
    assert await store.prune(0, LATER, strip=False) == Pruned(events=0, after_seq=None)
    assert await store.prune_history(LATER) == (0, True)
    assert await store.forget(LATER, history_before_ms=LATER)
    assert written(backend) == before


async def test_who_has_lost_alerts_remembers_nothing(backend: OnPostgres, store: PostgresStore) -> None:
    """What the next one remembers stands; before there is one, the last one's counts, although its lease has run out."""
    backend.rows("UPDATE leases SET until_ms = 0")
    await store.remember_alerts(b"still mine")
    assert await store.remembered_alerts() == b"still mine"
    take_away(backend)
    with pytest.raises(LeaseLostError):
        await store.remember_alerts(b"late")
    assert await store.remembered_alerts() == b"still mine"


async def test_who_has_lost_a_sink_does_not_disable_it(backend: OnPostgres, store: PostgresStore) -> None:
    """That its receiver is gone says whoever works it; a person may disable it from anywhere."""
    disabled = partial(backend.rows, "SELECT name FROM sinks WHERE disabled_ms IS NOT NULL")
    take_away(backend)
    assert not await store.disable_gone("a", "HTTP 410")
    assert disabled() == []
    assert await store.disable_sink("a", "by hand")
    assert disabled() == [("a",)]


async def test_who_works_a_sink_disables_it(backend: OnPostgres, store: PostgresStore) -> None:
    """Once its receiver is gone; what was decided before stays as it was said."""
    assert await store.disable_gone("a", "HTTP 410")
    assert await store.disable_gone("a", "again")
    assert backend.rows("SELECT disabled_reason FROM sinks") == [("HTTP 410",)]


def _reading() -> Reading:
    config = {"time_config": {"time_switch": 1, "max_duration": 8}}
    limits = Limits(scope_type="room", scope_id="omm_1", config=config, as_of_ms=NOW_MS, until_ms=NOW_MS)
    return reading_of(limits, app_id=APP, received_ms=NOW_MS)
