"""What those who ask the platform share."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from reserve_listener.intake import troubles
from reserve_listener.simulator import Estate, Simulator
from tests.intake.comparing import Seconds

if TYPE_CHECKING:
    from collections.abc import AsyncIterator


@pytest.fixture
def time(monkeypatch: pytest.MonkeyPatch) -> Seconds:
    """What is held up is tried again soon, by any clock."""
    monkeypatch.setattr(troubles, "BACKOFF_S", 0.01)
    monkeypatch.setattr(troubles, "BACKOFF_CAP_S", 0.02)
    return Seconds()


@pytest.fixture
async def simulator(time: Seconds) -> AsyncIterator[Simulator]:
    async with Simulator(estate=Estate(rooms=12, depth=2), clock=time) as simulator:
        yield simulator
