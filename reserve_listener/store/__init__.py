"""The store: events and their deliveries on stable storage. Each name is loaded when it is asked for: commands are to start fast."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from reserve_listener.store.sqlite.backup import back_up
    from reserve_listener.store.sqlite.lock import holder
    from reserve_listener.store.sqlite.operations import OPERATIONS
    from reserve_listener.store.sqlite.reader import StoreReader
    from reserve_listener.store.sqlite.retention import Retention
    from reserve_listener.store.sqlite.stopped import count_matching, disable_sink, enable_sink, operate
    from reserve_listener.store.sqlite.store import SqliteStore

__all__ = [
    "OPERATIONS",
    "Retention",
    "SqliteStore",
    "StoreReader",
    "back_up",
    "count_matching",
    "disable_sink",
    "enable_sink",
    "holder",
    "operate",
]

_MODULES = {
    "OPERATIONS": "operations",
    "Retention": "retention",
    "SqliteStore": "store",
    "StoreReader": "reader",
    "back_up": "backup",
    "holder": "lock",
}
"""Where a name is; `stopped` has the others."""


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.sqlite.{_MODULES.get(name, 'stopped')}"), name)
