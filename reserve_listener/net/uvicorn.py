"""Uvicorn's protocol and settings, loaded without its command line, which brings click: a tenth of the daemon's start."""

from __future__ import annotations

import sys
from importlib import import_module
from types import ModuleType
from typing import Any, Final

from reserve_listener.imports import replaced

__all__ = ["Config", "FlowControl", "H11Protocol", "ServerState"]

_COMMANDS: Final = ("Server", "main", "run")
"""All that the package takes from `uvicorn.main`."""


def _load_commands(name: str) -> Any:
    """The package's own, for whoever asks for one of them afterwards: a plugin, for instance."""
    if name not in _COMMANDS:
        raise AttributeError(name)
    commands = import_module("uvicorn.main")
    vars(_package).update({each: getattr(commands, each) for each in _COMMANDS})
    return vars(_package)[name]


_none = ModuleType("uvicorn.main")
vars(_none).update(dict.fromkeys(_COMMANDS))
_was_loaded = "uvicorn" in sys.modules
with replaced({"uvicorn.main": _none}):
    from uvicorn.config import Config
    from uvicorn.protocols.http.flow_control import FlowControl
    from uvicorn.protocols.http.h11_impl import H11Protocol
    from uvicorn.server import ServerState
_package = sys.modules["uvicorn"]
if not _was_loaded:
    for _name in _COMMANDS:
        delattr(_package, _name)
    vars(_package)["__getattr__"] = _load_commands
