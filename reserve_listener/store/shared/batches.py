"""Pushes that are answered and not events yet, batch by batch: SQLite's inbox, and what `store copy` makes of it.

A batch is a list of `IncomingEvent`, an array each, as MessagePack. New fields of it come last and have a default: a newer
version then reads what an older one has left.
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
    """Those that are not events yet, in the order in which they came."""
    rows = connection.execute(sql.BATCHES_AFTER, (projected,))
    return [Batch(number, decode(events)) for number, events in rows]
