"""What the tests of PostgreSQL's own share."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.backends import OnPostgres, made

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture
def backend(tmp_path: Path) -> Iterator[OnPostgres]:
    """A database of its own."""
    for one in made("postgres", tmp_path):
        assert isinstance(one, OnPostgres)
        yield one
