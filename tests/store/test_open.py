"""A store is made, and reached, by its URL."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from reserve_listener import store as stores
from reserve_listener.errors import ConfigError, StoreError, StoreInUseError
from reserve_listener.model import Verdict
from reserve_listener.store import open_reader, open_store
from tests.helpers import append, event

if TYPE_CHECKING:
    from pathlib import Path

    from tests.backends import Backend


@pytest.mark.parametrize("url", ["mysql://x", "events.db", ""])
def test_a_url_that_names_no_backend_is_refused_in_words(url: str) -> None:
    """The key and what it may begin with are named."""
    with pytest.raises(ConfigError, match=r'store\.url must begin with "sqlite:"'):
        stores.backend(url)


async def test_a_store_has_one_holder_and_any_number_of_readers(backend: Backend) -> None:
    """While it is open its process is named, a second one is refused, and a reader reads; closed, it is free again.

    One that is shared has no holder.
    """
    found = stores.backend(backend.url)
    assert found.holder() is None
    with pytest.raises(StoreError, match="no store"), open_reader(backend.url):
        pass
    store = await open_store(backend.url, ["a"])
    if not backend.shared:
        assert found.holder() is not None
        with pytest.raises(StoreInUseError):
            await open_store(backend.url, ["a"])
    assert await append(store, event("e1")) is Verdict.STORED
    with open_reader(backend.url) as reader:
        assert [one.event_id for one in reader.events(limit=5)] == ["e1"]
    await store.close()
    await store.close()
    assert found.holder() is None
    found.look_over()


def test_asking_for_a_backend_touches_nothing(backend: Backend, tmp_path: Path) -> None:
    """Its name, its files and its control socket are known before there is a store, and making one is left to `open`."""
    found = stores.backend(backend.url)
    assert found.name
    assert found.control_socket.name
    assert list(tmp_path.iterdir()) == []
