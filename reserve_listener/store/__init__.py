"""The store: events and their deliveries on stable storage."""

from reserve_listener.store.lock import holder
from reserve_listener.store.operations import OPERATIONS
from reserve_listener.store.reader import StoreReader
from reserve_listener.store.retention import Retention
from reserve_listener.store.sqlite import SqliteStore
from reserve_listener.store.stopped import count_matching, disable_sink, enable_sink, operate

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
