"""What commands ask of a daemon through the database, while that goes away."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, cast

import pytest
from structlog.testing import capture_logs

from reserve_listener.daemon.requests import Requests
from reserve_listener.model import Request
from reserve_listener.store import open_store
from tests.daemon_process import until
from tests.postgres import MISSING, Server, programs

if TYPE_CHECKING:
    from collections.abc import Iterator

    from reserve_listener.daemon.actions import OperatorActions

pytestmark = pytest.mark.skipif(programs() is None, reason=MISSING)


@pytest.fixture
def server_alone() -> Iterator[Server]:
    """One that is nobody else's: it is killed."""
    server = Server()
    yield server
    server.stop()


async def test_a_refusal_that_nobody_can_be_told_ends_nothing(server_alone: Server) -> None:
    """As when the lease on comparing runs out because the database is away: the daemon logs it and goes on."""
    store: Any = await open_store(server_alone.database(), ["a"])
    requests = Requests(store, cast("OperatorActions", None))  # what nobody knows is asked of no action
    running = asyncio.create_task(requests.run())
    try:
        server_alone.kill()
        with capture_logs() as logs:
            store.on_request(Request(1, "unknown", b"{}"))
            await until(
                lambda: running.done() or [line for line in logs if line["event"] == "control.not_answered"]
            )
        assert not running.done()
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
        await store.close()
