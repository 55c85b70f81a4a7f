"""The store: events and their deliveries on stable storage."""

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
    "count_matching",
    "disable_sink",
    "enable_sink",
    "holder",
    "operate",
]
