"""What tests of the store build on."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.backends import BACKENDS, made
from tests.helpers import Clock

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.backends import Backend


@pytest.fixture
def clock() -> Clock:
    """The store's time of day."""
    return Clock()


@pytest.fixture(params=BACKENDS)
def backend(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Backend]:
    """A store of each kind, not opened yet: what is said of every store is tried with all of them."""
    yield from made(request.param, tmp_path)
