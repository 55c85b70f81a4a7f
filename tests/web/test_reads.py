"""Looking into the store beside the daemon: bounded in threads, in number and in time."""

from __future__ import annotations

import asyncio
import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import pytest

from reserve_listener.errors import StoreError
from reserve_listener.store import open_reader
from reserve_listener.web.reads import BusyError, Reads
from tests.daemon_process import until
from tests.helpers import append, small_event

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

    from reserve_listener.protocols.store import Store, StoreReader
    from tests.backends import Backend
FOR_EVER = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT max(i) FROM n"


@pytest.fixture
async def store(backend: Backend) -> AsyncIterator[Store]:
    """A store with one event that waits for a sink."""
    store = await backend.open("a")
    await append(store, small_event("one"))
    yield store
    await store.close()


@pytest.fixture
async def reads(backend: Backend, store: Store) -> AsyncIterator[Reads]:
    """Two threads that look into it."""
    reads = Reads(lambda: open_reader(backend.url), threads=2, waiting=3, deadline_s=0.5)
    yield reads
    await reads.close()


async def test_what_is_found_comes_from_threads_that_keep_their_connection(reads: Reads) -> None:
    """Never the loop's thread; two connections for any number of looks."""
    seen: set[tuple[str, int]] = set()

    def look(reader: StoreReader) -> list[str]:
        seen.add((threading.current_thread().name, id(reader)))
        return [sink.name for sink in reader.sinks()]

    for _ in range(20):
        assert list(await asyncio.gather(reads.ask(look), reads.ask(look))) == [["a"], ["a"]]
    assert {name for name, _ in seen} <= {"reads-0", "reads-1"}
    assert len(seen) <= 2


async def test_it_only_reads(reads: Reads) -> None:
    """The connections cannot write, whatever is asked of them."""

    def write(reader: Any) -> None:
        reader._connection.execute("DELETE FROM events")

    with pytest.raises(Exception, match="readonly"):
        await reads.ask(write)


async def test_what_takes_too_long_is_broken_off(reads: Reads) -> None:
    """Who asked is told in time, and the thread is free again: SQLite stops working, it is not only left alone."""

    def look(reader: Any) -> None:
        reader._all(FOR_EVER, ())

    slow = [reads.ask(look) for _ in range(2)]
    assert [type(found) for found in await asyncio.gather(*slow, return_exceptions=True)] == [BusyError] * 2
    assert [sink.name for sink in await reads.ask(lambda reader: reader.sinks())] == ["a"]


async def test_a_thread_that_hangs_costs_its_askers_their_time_and_no_more(reads: Reads) -> None:
    """With all threads on a disk that is away each look ends in time, and one too many is turned away at once."""
    go_on = threading.Event()

    def ask() -> asyncio.Task[bool]:
        return asyncio.create_task(reads.ask(lambda _reader: go_on.wait()))

    try:
        in_hand = [ask(), ask()]
        await until(lambda: reads._jobs.qsize() == 0 and reads._started)
        waiting = [ask(), ask(), ask()]
        await until(lambda: reads._jobs.qsize() == 3)
        with pytest.raises(BusyError, match="too many"):
            await ask()
        for task in (*in_hand, *waiting):
            with pytest.raises(BusyError, match="did not answer in time"):
                await task
    finally:
        go_on.set()


async def test_an_error_is_told_and_the_next_look_begins_anew(backend: Backend, store: Store) -> None:
    """A store that cannot be opened, or fails, is tried again the next time; a defect costs its asker alone."""
    opened = 0

    @contextmanager
    def opening() -> Iterator[StoreReader]:
        nonlocal opened
        opened += 1
        if opened == 1:
            raise StoreError("away")
        with open_reader(backend.url) as reader:
            yield reader

    def failing(_reader: StoreReader) -> Any:
        raise StoreError("broken")

    def wrong(_reader: StoreReader) -> Any:
        raise LookupError("a defect")

    reads = Reads(opening, threads=1)
    with pytest.raises(StoreError, match="away"):
        await reads.ask(lambda reader: reader.sinks())
    with pytest.raises(StoreError, match="broken"):
        await reads.ask(failing)
    with pytest.raises(LookupError):
        await reads.ask(wrong)
    assert len(await reads.ask(lambda reader: reader.sinks())) == 1
    assert opened == 3
    await reads.close()


async def test_a_look_that_nobody_waits_for_is_not_made(reads: Reads) -> None:
    """Whoever leaves while waiting takes the work along."""
    go_on, made = threading.Event(), threading.Event()
    hanging = [asyncio.create_task(reads.ask(lambda _reader: go_on.wait())) for _ in range(2)]
    leaving = asyncio.create_task(reads.ask(lambda _reader: made.set()))
    await asyncio.sleep(0)
    leaving.cancel()
    await asyncio.wait([leaving])
    go_on.set()
    await asyncio.gather(*hanging, leaving, return_exceptions=True)
    assert await reads.ask(lambda _reader: True)
    assert not made.is_set()


async def test_what_waits_is_counted_for_each_sink(store: Store, reads: Reads) -> None:
    """Pending, of that with a later time, dead, and the oldest."""
    await append(store, small_event("two", "omm_b", received_ms=5))
    found = await reads.ask(lambda reader: reader.backlog(0))
    (sink,) = found.sinks
    assert (sink.name, sink.pending, sink.waiting, sink.dead) == ("a", 2, 0, 0)
    assert sink.oldest_ms == small_event("one").received_ms
    assert found.last_event_ms == 5
