"""The SDK as everybody imports it, beside the lean one that other tests load."""

from __future__ import annotations

import logging
import sys
import warnings
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import ModuleType

_whole_sdk: dict[str, ModuleType] = {}


@contextmanager
def whole_sdk() -> Iterator[Any]:
    """The SDK as everybody imports it. Other tests load it lean into this process, so this is a copy of our own."""
    theirs, logger = _taken_out(), logging.getLogger("Lark")
    handlers = list(logger.handlers)
    sys.modules.update(_whole_sdk)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            import lark_oapi as lark  # noqa: PLC0415
        yield lark
    finally:
        _whole_sdk.update(_taken_out())
        sys.modules.update(theirs)
        logger.handlers = handlers  # the SDK's import adds one that writes to standard output


def _taken_out() -> dict[str, ModuleType]:
    names = [name for name in sys.modules if name.partition(".")[0] == "lark_oapi"]
    return {name: sys.modules.pop(name) for name in names}
