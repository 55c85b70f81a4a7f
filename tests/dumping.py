"""All that a store in a file holds, as another program sees it."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from typing import TYPE_CHECKING, Any

from reserve_listener.store.sqlite.places import alerts_path, inbox_path
from reserve_listener.store.sqlite.slots import Slots

if TYPE_CHECKING:
    from pathlib import Path


def dump(path: Path) -> dict[str, Any]:
    """The rows of each table; of the inbox those that are not projected; what was told of alerts."""
    found: dict[str, Any] = {}
    with closing(sqlite3.connect(path)) as store, closing(sqlite3.connect(inbox_path(path))) as inbox:
        names = [name for (name,) in store.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
        for name in sorted({*names} - {"inbox"}):
            found[name] = sorted(store.execute(f"SELECT * FROM {name}").fetchall(), key=repr)
        known, number = store.execute("SELECT inbox, number FROM inbox").fetchone()
        projected = number if (known,) == inbox.execute("SELECT id FROM inbox").fetchone() else 0
        found["batches"] = inbox.execute("SELECT * FROM batches WHERE number > ?", (projected,)).fetchall()
    found["alerts"] = Slots(alerts_path(path)).read()
    return found
