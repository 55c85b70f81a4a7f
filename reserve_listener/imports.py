"""Loading a library without the modules that it would also load and the daemon never uses."""

from __future__ import annotations

import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from types import ModuleType


@contextmanager
def replaced(modules: Mapping[str, ModuleType | None]) -> Iterator[None]:
    """Meanwhile these stand for the modules of those names, and None for one that is not installed.

    What somebody has loaded before stays; who imports one of them afterwards gets the real one (the import system, "The
    module cache").
    """
    cache: dict[str, Any] = sys.modules
    missing = {name: module for name, module in modules.items() if name not in cache}
    cache.update(missing)
    try:
        yield
    finally:
        for name in missing:
            del cache[name]
