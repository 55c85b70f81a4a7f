"""A store with a history, and a site that looks into it."""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

from reserve_listener.intake.complete import completing
from reserve_listener.intake.directory import Directory
from reserve_listener.store import open_reader
from reserve_listener.web.reads import Reads
from tests.helpers import NOW_MS, append, event
from tests.web.serving import a_site, served

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    import httpx2

    from reserve_listener.protocols.store import Store
    from tests.backends import Backend


@asynccontextmanager
async def looked_into(
    backend: Backend, *sinks: str, **parts: Any
) -> AsyncIterator[tuple[Store, httpx2.AsyncClient]]:
    """An open store, and a client of the site over it."""
    directory = Directory()
    store = await backend.open(*sinks, complete=completing("en", directory), directory=directory)
    reads = Reads(lambda: open_reader(backend.url))
    try:
        async with served(a_site(reads=reads, directory=directory, **parts)) as client:
            yield store, client
    finally:
        await reads.close()
        await store.close()


async def happened(store: Store, *event_ids: str, scope: str = "omm_a") -> None:
    """So many events of a room, a second apart."""
    for number, event_id in enumerate(event_ids):
        await append(store, event(event_id, scope, received_ms=NOW_MS + 1000 * number))
