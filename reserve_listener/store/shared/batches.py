"""Pushes that are answered but are not events yet, batch by batch: SQLite's inbox, and what `store copy` makes of it.

A batch is a list of `IncomingEvent` as MessagePack arrays. New fields must come last and have a default, so that a newer
version can read what an older one left behind.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import msgspec

from reserve_listener.model import IncomingEvent
from reserve_listener.store.shared import sql

if TYPE_CHECKING:
    from collections.abc import Sequence

encode = msgspec.msgpack.Encoder().encode
decode = msgspec.msgpack.Decoder(list[IncomingEvent]).decode


class Batch(NamedTuple):
    """Pushes that were made durable together."""

    number: int
    events: Sequence[IncomingEvent]


def batches_after(projected: int, connection: Any) -> list[Batch]:
    """The batches after this one, in the order of their arrival."""
    rows = connection.execute(sql.BATCHES_AFTER, (projected,))
    return [Batch(number, decode(events)) for number, events in rows]
