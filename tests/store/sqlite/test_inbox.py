"""The inbox's file: what is answered is found again, whatever happens to it, to the store, or to the process between them."""

from __future__ import annotations

import asyncio
import shutil
import sqlite3
from contextlib import closing
from typing import TYPE_CHECKING

import msgspec
import pytest

from reserve_listener.errors import StoreError
from reserve_listener.model import PlaceNews, Verdict
from reserve_listener.simulator import patience
from reserve_listener.store.shared.batches import decode, encode
from reserve_listener.store.sqlite import schema
from reserve_listener.store.sqlite.places import inbox_path
from reserve_listener.store.sqlite.reader import SqliteReader
from reserve_listener.store.sqlite.store import SqliteStore
from tests.helpers import append, event, push, receive, small_event, stored, unreadable_event

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence
    from pathlib import Path


async def opened(path: Path, sinks: Sequence[str] = ("a",)) -> SqliteStore:
    store = SqliteStore(path)
    await store.open(sinks)
    return store


@pytest.fixture
async def store(path: Path) -> AsyncIterator[SqliteStore]:
    store = await opened(path)
    yield store
    await store.close()


async def test_a_reader_tells_the_same_size_as_the_store(path: Path, store: SqliteStore) -> None:
    """`status` of a stopped daemon counts both files, too: here most is in the inbox, which is not projected."""
    await asyncio.gather(*(receive(store, small_event(f"e{n}", size=50_000)) for n in range(20)))
    before = (await store.insight("cli_a", gaps_since_ms=0)).size_bytes
    with SqliteReader(path) as reader:
        assert reader.insight(gaps_since_ms=0).size_bytes == before
    assert before is not None
    assert before > 20 * 50_000


async def left(store: SqliteStore) -> list[list[str]]:
    return [[one.event_id for one in batch.events] for batch in await store.left()]


async def project_left(store: SqliteStore) -> list[Verdict]:
    verdicts = []
    for batch in await store.left():
        verdicts += await store.project(batch.events, number=batch.number)
    return verdicts


def ids(path: Path) -> list[str]:
    return [one.event_id for one in reversed(stored(path))]


def numbers(path: Path) -> list[int]:
    with closing(sqlite3.connect(inbox_path(path))) as connection:
        return [number for (number,) in connection.execute("SELECT number FROM batches ORDER BY number")]


async def test_what_comes_out_is_what_went_in(store: SqliteStore, path: Path) -> None:
    """Readable or not, every field of an event is the same after the inbox."""
    events = [event("e1"), unreadable_event(b"\x00\xff"), event("\u00fc\U0001f600", tenant="")]
    await receive(store, *events)
    await store.close()
    again = await opened(path)
    ((_, found),) = await again.left()
    assert found == events
    await again.close()


async def test_what_is_projected_is_freed_with_the_next_write(store: SqliteStore, path: Path) -> None:
    """The file does not grow with what is in the store, and the next life is given none of it."""
    for number in range(5):
        assert await push(store, event(f"e{number}")) is Verdict.STORED
    assert numbers(path) == [5]
    await store.free_inbox()
    assert numbers(path) == []
    assert await left(store) == []
    await push(store, event("last"))
    await store.close()
    again = await opened(path)
    assert await left(again) == []
    await again.close()


async def test_an_event_and_the_position_move_together(store: SqliteStore, path: Path) -> None:
    """When the transaction fails the batch is still to be projected; projected again, it is there once."""
    number = await receive(store, event("e1"), event("e2"))
    await store._writer.submit(lambda c: c.execute("PRAGMA max_page_count = 1").fetchone(), writes=False)
    big = [event("e1"), event("e2"), *(event(f"big{n}") for n in range(2_000))]
    with pytest.raises(StoreError, match="full"):
        await store.project(big, number=number)
    await store.close()
    again = await opened(path)
    assert await project_left(again) == [Verdict.STORED, Verdict.STORED]
    assert await left(again) == []
    await again.close()
    assert ids(path) == ["e1", "e2"]


async def test_numbers_are_never_given_twice(store: SqliteStore, path: Path) -> None:
    """Not after a restart, and not to an inbox that was emptied: the store would take a new batch for an old one."""
    given = [await receive(store, event("e1")), await receive(store, event("e2"))]
    await project_left(store)
    await store.free_inbox()
    await store.close()
    again = await opened(path)
    given.append(await receive(again, event("e3")))
    assert given == [1, 2, 3]
    await again.close()


async def test_an_inbox_restored_from_an_older_copy(store: SqliteStore, path: Path, tmp_path: Path) -> None:
    """What the store has since taken is not taken again, and what comes next is not taken for something it has."""
    await receive(store, event("e1"))
    await store.close()
    shutil.copy(inbox_path(path), tmp_path / "copy")
    again = await opened(path)
    await project_left(again)
    for number in range(5):
        await push(again, event(f"more{number}"))
    await again.close()
    for ending in ("-wal", "-shm"):
        inbox_path(path).with_name(inbox_path(path).name + ending).unlink(missing_ok=True)
    shutil.copy(tmp_path / "copy", inbox_path(path))
    restored = await opened(path)
    assert await left(restored) == []
    await receive(restored, event("new"))
    await restored.close()
    last = await opened(path)
    assert await left(last) == [["new"]]
    await last.close()


@pytest.mark.parametrize("what", ["events.db", "events.db-inbox"])
async def test_another_file_of_the_pair_is_begun_anew(path: Path, what: str) -> None:
    """With a new store all that is in the inbox is to be projected; with a new inbox, nothing, and then all of it."""
    store = await opened(path)
    for number in range(3):
        await push(store, event(f"old{number}"))
    await receive(store, event("answered"))
    await store.close()
    for ending in ("", "-wal", "-shm"):
        path.with_name(what + ending).unlink(missing_ok=True)
    again = await opened(path)
    if what == "events.db":
        await project_left(again)
        assert "answered" in ids(path)
    else:
        assert await left(again) == []
    await receive(again, event("next"))
    await again.close()
    last = await opened(path)
    assert await left(last) == [["next"]]
    await last.close()


@pytest.mark.parametrize("what", ["events.db", "events.db-inbox"])
@pytest.mark.parametrize("how", ["removed", "replaced"])
async def test_without_both_files_nothing_is_taken(
    store: SqliteStore, path: Path, what: str, how: str
) -> None:
    """When either file is taken away the next push fails, and the store ends with what a person has to know."""
    await push(store, event("e1"))
    file = path.with_name(what)
    file.rename(path.with_name("elsewhere"))
    if how == "replaced":
        file.touch()
    with pytest.raises(StoreError, match=f"{what} was {how}"):
        await receive(store, event("late"))
    with pytest.raises(StoreError, match=f"{what} was {how}"):
        async with asyncio.timeout(patience(10)):
            await store.ended()


async def test_a_full_inbox_fails_the_push_and_recovers(store: SqliteStore) -> None:
    """With no page left the batch is refused whole, what was received before is there, and room makes it work again."""
    await receive(store, event("before"))
    await store._inbox.ask(lambda c: int(c.execute("PRAGMA max_page_count = 1").fetchone()[0]))
    with pytest.raises(StoreError, match="full"):
        await receive(store, event("big", scope="x" * 100_000))
    assert "full" in (store.problem or "")
    await store._inbox.ask(lambda c: int(c.execute("PRAGMA max_page_count = 1073741823").fetchone()[0]))
    await receive(store, event("after"))
    assert store.problem is None
    assert await left(store) == [["before"], ["after"]]


@pytest.mark.parametrize("seed", range(12))
async def test_a_torn_tail_costs_nothing_that_was_committed_before(
    path: Path, tmp_path: Path, seed: int
) -> None:
    """Whatever is cut off or spoiled at the end of the inbox's log, the batches before it are there, whole and in order."""
    store = await opened(path)
    ends = []
    log = inbox_path(path).with_name(f"{inbox_path(path).name}-wal")
    for number in range(6):
        await receive(store, event(f"e{number}"), event(f"f{number}"))
        ends.append(log.stat().st_size)
    copy = tmp_path / "copy" / "events.db"
    copy.parent.mkdir()
    for ending in ("", "-wal", "-inbox", "-inbox-wal"):
        shutil.copy(f"{path}{ending}", f"{copy}{ending}")
    await store.close()
    cut = ends[2] + 24 + (ends[5] - ends[2]) * seed // 12
    torn = inbox_path(copy).with_name(log.name)
    content = torn.read_bytes()
    torn.write_bytes(content[:cut] if seed % 2 else content[:cut] + b"\xa5" * 64 + content[cut + 64 :])
    again = await opened(copy)
    found = await left(again)
    whole = sum(end <= cut for end in ends)
    assert found[:whole] == [[f"e{number}", f"f{number}"] for number in range(whole)]
    assert found == [[f"e{number}", f"f{number}"] for number in range(len(found))]
    await again.close()


async def test_a_newer_inbox_is_refused_and_left_alone(path: Path) -> None:
    """What a newer version has left in it is not understood: it is not opened, and not a byte of it changes."""
    store = await opened(path)
    await store.close()
    with closing(sqlite3.connect(inbox_path(path))) as connection:
        connection.execute("PRAGMA user_version = 99")
    before = inbox_path(path).read_bytes()
    with pytest.raises(StoreError, match=r"events\.db-inbox was written by a newer reserve-listener"):
        await opened(path)
    assert inbox_path(path).read_bytes() == before


async def test_a_store_of_the_version_before_gets_its_inbox(path: Path) -> None:
    """A store without one is taken over: its events stay, and pushes go in by the new way."""
    with pytest.MonkeyPatch.context() as patch:
        real = schema.migrations
        patch.setattr(
            schema,
            "migrations",
            lambda part=schema.STORE: real(part)[:3] if part is schema.STORE else real(part),
        )
        with closing(schema.open_writer(path)) as connection:
            connection.execute(
                "INSERT INTO scopes (tenant_key, scope_type, scope_id) VALUES ('t1', 'room', 'omm_a')"
            )
            connection.execute(
                "INSERT INTO events (tenant_key, event_id, scope, received_ms, raw, body) VALUES ('t1', 'old', 1, 1, '{}', '{}')".replace(
                    "'{}'", "CAST('{}' AS BLOB)"
                )
            )
    store = await opened(path)
    assert await push(store, event("old")) is Verdict.DUPLICATE
    assert await push(store, event("new")) is Verdict.STORED
    await store.close()
    assert ids(path) == ["old", "new"]


async def test_both_files_count_for_the_bound(path: Path) -> None:
    """What waits in the inbox takes room: it is measured, and what would be beyond the bound is refused."""
    store = SqliteStore(path, max_bytes=8 * 1024 * 1024)
    await store.open(["a"])
    before = await store.measure()
    await receive(store, event("big", scope="x" * 1_000_000))
    assert await store.measure() > before + 3_000_000
    with pytest.raises(StoreError, match="max_size_mb"):
        await receive(store, event("more", scope="x" * 1_000_000))
    await store.close()


async def test_an_event_of_another_source_leaves_the_position_alone(store: SqliteStore) -> None:
    """What is projected without a batch says nothing of the inbox."""
    await receive(store, event("answered"))
    assert await append(store, event("found by asking")) is Verdict.STORED
    assert await left(store) == [["answered"]]


def test_an_older_inbox_is_read() -> None:
    """An event that waits since before there was news has none: it is about limits."""
    news = (PlaceNews(scope_type="room", scope_id="omm_1", name="Ada"),)
    named = msgspec.structs.replace(small_event("e2"), news=news)
    (array,) = msgspec.msgpack.decode(encode([small_event("e1")]))
    older = msgspec.msgpack.encode([array[:8]])
    assert decode(older) == [small_event("e1")]
    assert decode(encode([named])) == [named]
