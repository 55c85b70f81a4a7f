"""What holds for every test."""

from __future__ import annotations

import pytest


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """A test without a sentence that says what it shows is not taken."""
    silent = [
        item.nodeid for item in items if isinstance(item, pytest.Function) and not item.function.__doc__
    ]
    if silent:
        raise pytest.UsageError("tests without a docstring: " + ", ".join(silent))
