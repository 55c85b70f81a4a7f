"""The log sink: what a line holds, and what happens when it cannot be written."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from reserve_listener.errors import TransientDeliveryError
from reserve_listener.intake.complete import completing
from reserve_listener.sinks.log import LogSink, log_line
from tests.helpers import delivery, event

if TYPE_CHECKING:
    from collections.abc import Sequence


class Written:
    """Keeps the lines; fails while told to."""

    def __init__(self) -> None:
        self.batches: list[list[dict[str, Any]]] = []
        self.error: OSError | None = None

    async def __call__(self, lines: Sequence[dict[str, Any]]) -> None:
        if self.error is not None:
            raise self.error
        self.batches.append(list(lines))


async def test_a_line_holds_the_whole_event() -> None:
    """Scope, id, source, time and the data whole stand in the line under constant names."""
    written = Written()
    completed = completing("en")(event("e1", "omm_a", tenant="t1"), None)
    assert completed is not None
    body = completed.body
    await LogSink("console", written).deliver([delivery(1, body)])
    sent = json.loads(body)
    assert [[{**line, "data": bytes(line["data"])} for line in batch] for batch in written.batches] == [
        [
            {
                "event": "reserve_config.updated",
                "sink": "console",
                "scope_type": "room",
                "scope_id": "omm_a",
                "summary": "no approval; up to 60 days ahead, a new day opens for booking at 08:00, bookable all day,"
                " at most 8 h per booking; all members may book",
                "event_id": "e1",
                "source": sent["source"],
                "time": sent["time"],
                "data": json.dumps(sent["data"], separators=(",", ":")).encode(),
            }
        ]
    ]


async def test_a_batch_is_written_in_order_and_at_once() -> None:
    """One write takes the whole batch, oldest first."""
    written = Written()
    await LogSink("console", written).deliver(
        [delivery(number, event(f"e{number}").body or b"") for number in range(5)]
    )
    (batch,) = written.batches
    assert [line["event_id"] for line in batch] == ["e0", "e1", "e2", "e3", "e4"]


def test_a_line_names_the_room() -> None:
    """As the event does; one whose name is not known has no such key (above)."""
    line = log_line(
        "console", b'{"id": "e", "source": "s", "subject": "x", "data": {"scope_name": "3F-Ada"}}'
    )
    assert list(line)[3:5] == ["scope_id", "scope_name"]
    assert line["scope_name"] == "3F-Ada"


def test_an_event_without_time_or_scope_type_is_still_a_line() -> None:
    """What the platform left out is null, and nothing is raised."""
    line = log_line("console", b'{"id": "e", "source": "s", "subject": "x", "data": {}}')
    assert (line["time"], line["scope_type"], line["scope_id"]) == (None, None, "x")


@pytest.mark.parametrize(
    ("error", "words"), [(BrokenPipeError(32, "Broken pipe"), "Broken pipe"), (OSError("gone"), "gone")]
)
async def test_a_log_that_cannot_be_written_is_a_transient_error(error: OSError, words: str) -> None:
    """The event stays in the store, and the error says why in words."""
    written = Written()
    written.error = error
    sink = LogSink("console", written)
    with pytest.raises(TransientDeliveryError, match=f"the log cannot be written: {words}"):
        await sink.deliver([delivery(1, event().body or b"")])
    written.error = None
    await sink.deliver([delivery(1, event().body or b"")])
    await sink.close()
    await sink.close()
    assert len(written.batches) == 1
