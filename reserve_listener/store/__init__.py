"""The store: events and their deliveries on stable storage."""

from reserve_listener.store.reader import StoreReader
from reserve_listener.store.sqlite import SqliteStore
from reserve_listener.store.stopped import operate

__all__ = ["SqliteStore", "StoreReader", "operate"]
