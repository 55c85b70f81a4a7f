"""The stream of changes: live, never twice, out of the store after a pause; and whoever does not read costs nobody else."""

from __future__ import annotations

import asyncio
import json
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, NamedTuple

import pytest

from reserve_listener.net import asgi_connection
from reserve_listener.simulator import patience
from reserve_listener.web import listener as listener_module, stream
from reserve_listener.web.answers import HistoryRow
from tests.daemon_process import until
from tests.helpers import NOW_MS, append, event
from tests.web.looking import happened, looked_into
from tests.web.test_listings import whole

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    import httpx2

    from reserve_listener.protocols.store import Store
    from tests.backends import Backend


class Message(NamedTuple):
    """One event of a stream."""

    id: str | None
    event: str
    data: Any


class Listening:
    """Reads a stream, message by message."""

    def __init__(self, lines: AsyncIterator[str]) -> None:
        self._lines = lines
        self.comments = 0

    async def next(self) -> Message:
        """The next message, comments passed over."""
        fields: dict[str, str] = {}
        async with asyncio.timeout(patience(20)):
            while line := await anext(self._lines, None) or ("" if fields else " "):
                name, _, value = line.partition(": ")
                if line.startswith(":"):
                    self.comments += 1
                elif name in ("id", "event", "data"):
                    fields[name] = value
        return Message(fields.get("id"), fields["event"], json.loads(fields["data"]))

    async def some(self, count: int) -> list[Message]:
        """So many of them."""
        return [await self.next() for _ in range(count)]


@asynccontextmanager
async def listening(client: httpx2.AsyncClient, last: str | None = None) -> AsyncIterator[Listening]:
    """A stream that has begun."""
    headers = {} if last is None else {"last-event-id": last}
    async with client.stream("GET", "/api/v1/stream", headers=headers) as answer:
        assert (answer.status_code, answer.headers["content-type"]) == (
            200,
            "text/event-stream; charset=utf-8",
        )
        lines = _lines(answer.aiter_bytes())
        assert (await anext(lines)).startswith("retry: ")
        yield Listening(lines)


async def _lines(pieces: AsyncIterator[bytes]) -> AsyncIterator[str]:
    """What a line end of HTTP's kind divides; the client's own lines end at those of Unicode, too."""
    rest = b""
    async for piece in pieces:
        *lines, rest = (rest + piece).split(b"\n")
        for line in lines:
            yield line.decode()


def ids(messages: list[Message]) -> list[str]:
    """Of the events that they tell of."""
    assert {one.event for one in messages} <= {"change"}
    return [one.data["event_id"] for one in messages]


async def test_a_change_is_live_for_everybody(backend: Backend) -> None:
    """As a row of the history, within a second; what was before is not told."""
    async with looked_into(backend, "a") as (store, client):
        await happened(store, "before")
        async with listening(client) as one, listening(client) as other:
            await happened(store, "after")
            first, second = await asyncio.wait_for(asyncio.gather(one.next(), other.next()), patience(1))
        assert first == second
        (row, _) = (await client.get("/api/v1/scopes/omm_a/history")).json()["items"]
        assert (first.event, first.data) == ("change", row)
        assert row["event_id"] == "after"


async def test_who_comes_back_misses_nothing(backend: Backend) -> None:
    """After any of the changes the stream goes on behind it: what is stored first, then what comes."""
    async with looked_into(backend, "a") as (store, client):
        async with listening(client) as stream_:
            await happened(store, *"123")
            seen = await stream_.some(3)
        assert ids(seen) == ["1", "2", "3"]
        await happened(store, *"45")
        for place, message in enumerate(seen):
            async with listening(client, message.id) as again:
                rest = await again.some(4 - place)
                assert ids(rest) == list("2345")[place:]
                assert rest[: 2 - place] == seen[place + 1 :]
        async with listening(client, rest[-1].id) as again:
            await happened(store, "6")
            assert ids([await again.next()]) == ["6"]


@pytest.mark.parametrize("last", ["7-abcdef123456", "nonsense", "-", "1-", "99999999999999999999-a", "1"])
async def test_a_place_that_is_not_known_begins_anew(backend: Backend, last: str) -> None:
    """Of a store that was restored, or of nobody's making: `reset`, then live only."""
    async with looked_into(backend, "a") as (store, client):
        await happened(store, "before")
        async with listening(client, last) as stream_:
            assert await stream_.next() == Message(None, "reset", {})
            await happened(store, "after")
            assert ids([await stream_.next()]) == ["after"]


async def test_another_event_at_the_same_place_is_not_the_same(backend: Backend) -> None:
    """An id names the event, too: a store restored from a backup gives places again."""
    async with looked_into(backend, "a") as (store, client):
        async with listening(client) as stream_:
            await happened(store, "one")
            seq, _, _ = ((await stream_.next()).id or "").partition("-")
        async with listening(client, f"{seq}-000000000000") as stream_:
            assert (await stream_.next()).event == "reset"


async def test_a_store_that_has_lost_its_last_changes_silences_nobody(backend: Backend) -> None:
    """A standby that was promoted numbers what comes from where it was: it is told, although something newer was before."""
    if not backend.shared:
        pytest.skip("a file does not go back while it is open")
    async with looked_into(backend, "a") as (store, client), listening(client) as stream_:
        await happened(store, "kept")
        backend.rows("SELECT setval('events_seq', 1000)")
        await happened(store, "lost")
        assert ids(await stream_.some(2)) == ["kept", "lost"]
        for table in ("deliveries", "history", "events"):
            backend.rows(f"DELETE FROM {table} WHERE seq > 1")
        backend.rows("SELECT setval('events_seq', 1)")
        told = asyncio.create_task(stream_.next())
        number = 0
        while not told.done():  # from when it is noticed
            number += 1
            await happened(store, f"later{number}")
            await asyncio.wait([told], timeout=0.1)
        assert number < 100
        assert ids([await told])[0].startswith("later")


async def test_a_burst_comes_whole_and_in_order(backend: Backend, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also for who is behind what is kept in memory, and with looks that find more than one page."""
    monkeypatch.setattr(stream, "KEPT_BYTES", 4_000)
    monkeypatch.setattr(stream, "AT_ONCE_BYTES", 2_000)
    monkeypatch.setattr(stream, "PAGE", 20)
    async with (
        looked_into(backend, "a") as (store, client),
        listening(client) as one,
        listening(client) as other,
    ):
        events = [event(f"e{number}", f"omm_{number % 7}", received_ms=NOW_MS) for number in range(300)]
        await store.project(events)
        for stream_ in (one, other):
            assert ids(await stream_.some(300)) == [f"e{number}" for number in range(300)]


async def test_a_silent_stream_says_that_it_lives(backend: Backend, monkeypatch: pytest.MonkeyPatch) -> None:
    """A comment now and then, which proxies count as traffic."""
    assert stream.COMMENT_S == 15
    monkeypatch.setattr(stream, "COMMENT_S", 0.05)
    async with looked_into(backend, "a") as (store, client), listening(client) as stream_:

        async def wait_for_change() -> Message:
            return await stream_.next()

        waiting = asyncio.create_task(wait_for_change())
        await until(lambda: stream_.comments >= 2)
        await happened(store, "one")
        assert ids([await waiting]) == ["one"]


async def test_foreign_text_ends_no_field(backend: Backend) -> None:
    """Line ends of every kind in an event's id stay in its data."""
    async with looked_into(backend, "a") as (store, client), listening(client) as stream_:
        strange = "a\nid: 1\n\r\n\u2028data: x\u0085"
        await append(store, event(strange))
        await happened(store, "next")
        assert ids(await stream_.some(2)) == [strange, "next"]


async def test_there_is_room_for_so_many_and_no_more(backend: Backend) -> None:
    """One too many is told to come later; a place that is left is free again."""
    async with looked_into(backend, "a", streams=1) as (store, client):
        async with listening(client):
            full = await client.get("/api/v1/stream")
            assert (full.status_code, full.headers["retry-after"]) == (503, "10")
            head = await client.head("/api/v1/stream")
            assert (head.status_code, head.content) == (200, b"")
        await _until_free(client)
        await happened(store, "one")
        assert len(await whole(client, "/api/v1/scopes/omm_a/history", HistoryRow)) == 1


async def _until_free(client: httpx2.AsyncClient) -> None:
    async with asyncio.timeout(patience(20)):
        while True:
            async with client.stream("GET", "/api/v1/stream") as answer:
                if answer.status_code == 200:
                    return
            await asyncio.sleep(0.02)


async def test_nobody_listens_nobody_looks(backend: Backend) -> None:
    """The store is left alone when the last one has gone, and looked at again for the next."""
    async with looked_into(backend, "a") as (store, client):
        for name in ("one", "two"):
            async with listening(client) as stream_:
                await happened(store, name)
                assert ids([await stream_.next()]) == [name]
            await until(lambda: not [t for t in asyncio.all_tasks() if t.get_name().startswith("stream-")])


async def test_who_does_not_read_is_dropped_and_nobody_waits_for_it(
    backend: Backend, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A listener that has stopped reading holds a bounded amount, is cut off, and costs the others nothing."""
    usual = asgi_connection.Limits
    monkeypatch.setattr(asgi_connection, "Limits", lambda **more: usual(**more, write_s=patience(1)))
    async with looked_into(backend, "a") as (store, client):
        reader, writer = await asyncio.open_connection("127.0.0.1", client.base_url.port, limit=1024)
        writer.write(b"GET /api/v1/stream HTTP/1.1\r\nhost: localhost\r\n\r\n")
        await reader.readuntil(b"retry:")
        async with listening(client) as stream_:
            reading = asyncio.create_task(stream_.some(200))
            await _flood(store, writer)
            assert len(ids(await reading)) == 200
            await until(lambda: len([t for t in asyncio.all_tasks() if t.get_name() == "stream-left"]) == 1)
        writer.close()
    assert listener_module.CONNECTIONS == 2_000


async def _flood(store: Store, writer: asyncio.StreamWriter) -> None:
    """More than the buffers between take."""
    writer.transport.pause_reading()  # type: ignore[attr-defined]  # of a socket it has
    padding = "x" * 100_000
    events = [event(f"{number}{padding}", f"omm_{number}") for number in range(200)]
    for begin in range(0, len(events), 50):
        await store.project(events[begin : begin + 50])
