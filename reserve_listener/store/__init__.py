"""The store: events and their deliveries on stable storage. Only its URL says where it is, and which backend it uses.

A backend is loaded only when asked for, and each of its parts only when needed, so that commands start fast.
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
"""By the URL's scheme, the module with its `make`."""


async def open_store(
    url: str,
    sinks: Sequence[str],
    filters_by_sink: Mapping[str, SinkFilter] | None = None,
    **options: Unpack[StoreOptions],
) -> Store:
    """Take the store for this process and make `sinks` the ones that get deliveries, each of what its filter takes.

    Made if there is none, brought to this version if it is older. What a sink that is no longer configured has not got
    becomes dead letters. Raises `StoreError`; `StoreInUseError` when another daemon holds it.
    """
    return await backend(url).open(sinks, filters_by_sink, **options)


def open_reader(url: str) -> StoreReader:
    """Read the store, also while a daemon holds it. Use as a context manager."""
    return backend(url).reader()


def backend(url: str) -> Backend:
    """Everything else that can be done with the store of this URL. Touches nothing; raises `ConfigError`."""
    scheme = url.partition(":")[0]
    if scheme not in _BACKENDS:
        known = ", ".join(f'"{name}:"' for name in _BACKENDS)
        raise ConfigError(f"store.url must begin with {known}, not {scheme!r}.")
    made: Backend = import_module(_BACKENDS[scheme]).make(url)
    return made
