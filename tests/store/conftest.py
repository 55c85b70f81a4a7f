"""What tests of the store build on."""

from __future__ import annotations

import pytest

from tests.helpers import Clock


@pytest.fixture
def clock() -> Clock:
    """The store's time of day."""
    return Clock()
