"""How the package waits."""

from __future__ import annotations

import ast
from pathlib import Path

import reserve_listener

PACKAGE = Path(reserve_listener.__file__).parent


def test_no_wait_can_lose_a_cancellation() -> None:
    """Python 3.11's `asyncio.wait_for` swallows one that comes as its time ends or its work is done; a stop then hangs."""
    used = [
        f"{path.relative_to(PACKAGE)}:{node.lineno}: use asyncio.timeout"
        for path in PACKAGE.rglob("*.py")
        for node in ast.walk(ast.parse(path.read_bytes()))
        if isinstance(node, ast.Attribute)
        and node.attr == "wait_for"
        and isinstance(node.value, ast.Name)
        and node.value.id == "asyncio"
    ]
    assert used == []
