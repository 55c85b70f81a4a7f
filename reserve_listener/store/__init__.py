"""The store: events and their deliveries on stable storage. Its URL alone says where it is and which backend it uses.

A backend is imported only when it is asked for, and each of its parts only when needed, so that commands start fast.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Final

from reserve_listener.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from typing import Unpack

    from reserve_listener.model import SinkFilter
    from reserve_listener.protocols.backend import Backend, StoreOptions
    from reserve_listener.protocols.store import Store, StoreReader

__all__ = ["backend", "open_reader", "open_store"]

_BACKENDS: Final = {
    "sqlite": "reserve_listener.store.sqlite.backend",
    "postgresql": "reserve_listener.store.postgres.backend",
}
"""The module with each backend's `make`, by the scheme of the URL."""


async def open_store(
    url: str,
    sinks: Sequence[str],
    filters_by_sink: Mapping[str, SinkFilter] | None = None,
    **options: Unpack[StoreOptions],
) -> Store:
    """Open the store for this process, with `sinks` as the ones that get deliveries, each of what its filter accepts.

    Creates the store if there is none, and migrates an older one. What a sink that is no longer configured did not get becomes
    dead letters. Raises `StoreError`, and `StoreInUseError` if another daemon holds the store.
    """
    return await backend(url).open(sinks, filters_by_sink, **options)


def open_reader(url: str) -> StoreReader:
    """Open the store for reading, which also works while a daemon holds it. Use as a context manager."""
    return backend(url).reader()


def backend(url: str) -> Backend:
    """The door to everything else that can be done with the store of this URL. Touches nothing; raises `ConfigError`."""
    scheme = url.partition(":")[0]
    if scheme not in _BACKENDS:
        known = ", ".join(f'"{name}:"' for name in _BACKENDS)
        raise ConfigError(f"store.url must begin with {known}, not {scheme!r}.")
    made: Backend = import_module(_BACKENDS[scheme]).make(url)
    return made
