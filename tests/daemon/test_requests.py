"""What commands ask of a daemon through the database, while that goes away."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, cast

import pytest
from structlog.testing import capture_logs

from reserve_listener.daemon.requests import AT_ONCE, WAITING, Requests
from reserve_listener.model import Request
from reserve_listener.store import open_store
from tests.daemon_process import until
from tests.postgres import MISSING, Server, programs

if TYPE_CHECKING:
    from reserve_listener.daemon.actions import OperatorActions


@pytest.mark.skipif(programs() is None, reason=MISSING)
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


class Hanging:
    """Actions that come to no end."""

    def __init__(self) -> None:
        self.begun = 0

    async def reconnect(self) -> str:
        """See `OperatorActions.reconnect`."""
        self.begun += 1
        await asyncio.Event().wait()
        return ""


async def test_requests_without_end_are_bounded() -> None:
    """So many are under way, so many wait, and what is beyond that is refused and logged."""
    actions, store = Hanging(), cast("Any", SimpleNamespace())
    requests = Requests(store, cast("OperatorActions", actions))
    running = asyncio.create_task(requests.run())
    with capture_logs() as logs:
        for number in range(AT_ONCE + WAITING + 5):
            store.on_request(Request(number, "reconnect", b"{}"))
            for _ in range(3):  # it takes it up, and begins it
                await asyncio.sleep(0)
    assert actions.begun == AT_ONCE
    assert [line["event"] for line in logs] == ["control.too_many_requests"] * 5
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
