"""Changes as they come, as server-sent events (`/api/v1/stream`).

What must stay true: answers to the platform wait for none of this. One look into the store serves all listeners. They are served
in small groups with pauses in between, so that any number of them takes a bounded share of the loop's time; each holds a bounded
amount of memory, and one that does not read is disconnected by the connection's write deadline.

A client that reconnects with `Last-Event-ID` continues after it, from the store: it misses nothing and gets nothing twice.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from hashlib import blake2b
from http import HTTPStatus
from typing import TYPE_CHECKING, Final, NamedTuple

import msgspec
import structlog
from starlette.datastructures import Headers

from reserve_listener.errors import StoreError
from reserve_listener.web.replies import problem
from reserve_listener.web.rows import history_row

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from starlette.types import Receive, Scope, Send

    from reserve_listener.model import HistoryEntry
    from reserve_listener.protocols.store import Directory, StoreReader
    from reserve_listener.web.reads import Reads

POLL_S: Final = 0.25
"""How often the store is looked at while somebody listens: whoever wrote it, a change is live well within a second."""

PAGE: Final = 200
"""Changes that are read, and made into text, at once: some 10 ms of a thread."""

KEPT_BYTES: Final = 8 * 1024 * 1024
"""The latest changes, made once for all: some ten thousand. Who is further behind gets them out of the store."""

AT_ONCE_BYTES: Final = 32 * 1024
"""What one listener is sent at a time, and holds at the most."""

GROUP: Final = 24
GROUP_BYTES: Final = 64 * 1024
"""Listeners that are served in one turn of the loop: so many, or fewer with much for each. A millisecond."""
PAUSE_S: Final = 0.008
"""And how long the loop is left alone then: 1,300 listeners have a change within half a second."""
PAGE_PAUSE_S: Final = 0.05
"""Between two pages of a burst, which take a thread some 10 ms each: the loop wants Python's lock, too."""

CATCHING_UP: Final = 2
"""Listeners that are read to from the store at the same time; the others of `Reads`' threads are for everybody else."""

COMMENT_S: Final = 15.0
"""A sign of life: proxies close what has been silent for 30 to 60 s."""

RETRY_MS: Final = 2_000
RESET: Final = b"event: reset\ndata: {}\n\n"
COMMENT: Final = b":\n\n"

HEADERS: Final = (
    (b"content-type", b"text/event-stream; charset=utf-8"),
    (b"cache-control", b"no-store"),
    (b"x-accel-buffering", b"no"),  # nginx would collect it
)


log = structlog.get_logger("status")


class Told(NamedTuple):
    """A change, made into text."""

    seq: int
    text: bytes


class _Listener:
    """Somebody who listens. `seq`: of the last change that was sent."""

    def __init__(self, seq: int) -> None:
        self.seq = seq
        self.turn = asyncio.Event()
        self.is_sending = False
        self.is_gone = False


class Changes:
    """The stream, as an ASGI app. `most`: how many may listen at the same time."""

    def __init__(self, reads: Reads, directory: Directory, *, language: str, most: int) -> None:
        self._reads = reads
        self._directory = directory
        self._language = language
        self._most = most
        self._listeners: set[_Listener] = set()
        self._tasks: Sequence[asyncio.Task[None]] = ()
        self._kept: deque[Told] = deque()
        self._kept_bytes = 0
        self._kept_after = 0
        """All changes after this one are kept."""
        self._newest = 0
        self._times_set_back = 0
        self._behind = asyncio.Event()
        self._catching_up = asyncio.Semaphore(CATCHING_UP)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """See ASGI: until the other side leaves."""
        if scope["method"] == "HEAD":
            await send({"type": "http.response.start", "status": 200, "headers": list(HEADERS)})
            await send({"type": "http.response.body", "body": b""})
            return
        if len(self._listeners) >= self._most:
            full = problem(
                HTTPStatus.SERVICE_UNAVAILABLE,
                "too many clients are listening at the moment",
                {"retry-after": "10"},
            )
            await full(scope, receive, send)
            return
        listener = _Listener(0)
        self._listeners.add(listener)
        leaving = asyncio.create_task(_left(listener, receive), name="stream-left")
        try:
            await self._serve(listener, Headers(scope=scope).get("last-event-id"), send)
        except StoreError as error:
            await problem(HTTPStatus.SERVICE_UNAVAILABLE, str(error))(scope, receive, send)
        finally:
            leaving.cancel()
            self._listeners.discard(listener)
            if not self._listeners:
                self._end()

    async def _serve(self, listener: _Listener, last: str | None, send: Send) -> None:
        await self._begin()
        found = await self._place(last) if last else None
        listener.seq = self._newest if found is None else found
        greeting = b"retry: %d\n\n%s" % (RETRY_MS, RESET if last and found is None else b"")
        await send({"type": "http.response.start", "status": 200, "headers": list(HEADERS)})
        await _send(send, greeting)
        while not listener.is_gone:
            listener.turn.clear()
            if listener.seq < self._newest:
                self._behind.set()
            if await self._is_turn(listener):
                await self._send_next(listener, send)
            elif not listener.is_gone:
                await _send(send, COMMENT)

    async def _is_turn(self, listener: _Listener) -> bool:
        """Whether there is something for it; False: for a while there was not."""
        try:
            async with asyncio.timeout(COMMENT_S):
                await listener.turn.wait()
        except TimeoutError:
            return False
        return not listener.is_gone

    async def _send_next(self, listener: _Listener, send: Send) -> None:
        listener.is_sending = True
        times = self._times_set_back
        try:
            told = list(self._next_kept(listener.seq))
            if not told and listener.seq < self._kept_after:
                with contextlib.suppress(StoreError):  # a moment later
                    told = await self._read(listener.seq)
            if told:
                await _send(send, b"".join(one.text for one in told))
                listener.seq = told[-1].seq if times == self._times_set_back else self._newest
        finally:
            listener.is_sending = False

    def _next_kept(self, seq: int) -> Iterator[Told]:
        """What comes after this one, if all of that is kept: as much as is sent at once."""
        if seq < self._kept_after:
            return
        size = 0
        for place in range(_first_after(self._kept, seq), len(self._kept)):
            one = self._kept[place]
            size += len(one.text)
            if size > AT_ONCE_BYTES and size > len(one.text):
                return
            yield one

    async def _read(self, seq: int) -> list[Told]:
        """The same from the store, for who is far behind."""
        async with self._catching_up:
            told = await self._reads.ask(lambda reader: self._told(reader, seq, PAGE // 4))
        return told or [Told(self._kept_after, b"")]  # what was in between is gone

    # -- one for all --------------------------------------------------------------------------------------------------------

    async def _begin(self) -> None:
        """The first who listens has the store looked at."""
        if self._tasks:
            return
        newest = await self._reads.ask(lambda reader: reader.newest_change())
        if not self._tasks:  # another may have been the first meanwhile
            self._newest = self._kept_after = newest
            self._tasks = (
                asyncio.create_task(self._follow(), name="stream-follow"),
                asyncio.create_task(self._take_turns(), name="stream-turns"),
            )

    def _end(self) -> None:
        for task in self._tasks:
            task.cancel()
        self._tasks = ()
        self._kept.clear()
        self._kept_bytes = 0

    async def _place(self, last: str) -> int | None:
        """Where the one with this id stands; None: there is none."""
        seq, _, _ = last.partition("-")
        if not (seq.isascii() and seq.isdecimal() and len(seq) < len(str(2**63))):
            return None
        found = await self._reads.ask(lambda reader: reader.changes_after(int(seq) - 1, limit=1))
        return int(seq) if found and _id(found[0]) == last else None

    async def _follow(self) -> None:
        while True:
            try:
                told, newest = await self._reads.ask(self._look)
            except StoreError:  # it is looked at again
                told, newest = [], self._newest
            self._keep(told)
            if newest < self._newest:
                self._set_back(newest)
            await asyncio.sleep(PAGE_PAUSE_S if len(told) == PAGE else POLL_S)

    def _look(self, reader: StoreReader) -> tuple[list[Told], int]:
        """In a thread of `Reads`: what is new, and the last that there is."""
        told = self._told(reader, self._newest, PAGE)
        return told, told[-1].seq if told else reader.newest_change()

    def _set_back(self, newest: int) -> None:
        """The store has lost its last changes, as a standby may that was promoted: everybody goes on from what there is."""
        self._times_set_back += 1
        self._newest = self._kept_after = newest
        self._kept.clear()
        self._kept_bytes = 0
        for listener in self._listeners:
            listener.seq = min(listener.seq, newest)

    def _keep(self, told: Sequence[Told]) -> None:
        if not told:
            return
        self._kept.extend(told)
        self._kept_bytes += sum(len(one.text) for one in told)
        while self._kept_bytes > KEPT_BYTES:
            gone = self._kept.popleft()
            self._kept_bytes -= len(gone.text)
            self._kept_after = gone.seq
        self._newest = told[-1].seq
        self._behind.set()

    async def _take_turns(self) -> None:
        """All who are behind, a few at a time; who is still being sent something is passed over."""
        while True:
            await self._behind.wait()
            self._behind.clear()
            room = GROUP_BYTES
            group = 0
            for listener in list(self._listeners):
                if listener.is_sending or listener.turn.is_set() or listener.seq >= self._newest:
                    continue
                listener.turn.set()
                room -= self._waiting(listener)
                group += 1
                if group == GROUP or room <= 0:
                    await asyncio.sleep(PAUSE_S)
                    room, group = GROUP_BYTES, 0
            await asyncio.sleep(PAUSE_S)

    def _waiting(self, listener: _Listener) -> int:
        """About how much it is sent next."""
        if not self._kept or listener.seq < self._kept_after:
            return AT_ONCE_BYTES
        share = self._kept_bytes // len(self._kept)
        return min(AT_ONCE_BYTES, (len(self._kept) - _first_after(self._kept, listener.seq)) * share)

    def _told(self, reader: StoreReader, seq: int, limit: int) -> list[Told]:
        """In a thread of `Reads`."""
        return [Told(entry.seq, self._text(entry)) for entry in reader.changes_after(seq, limit=limit)]

    def _text(self, entry: HistoryEntry) -> bytes:
        """JSON has no line end in it, and the id is ours: nothing foreign can end a field."""
        try:
            row = msgspec.json.encode(history_row(entry, self._language, self._directory))
        except Exception as defect:  # one that cannot be told must not keep all others back
            log.error("status.failed", event_id=entry.event_id, error=str(defect), exc_info=defect)
            return b""
        return b"id: %s\nevent: change\ndata: %s\n\n" % (_id(entry).encode(), row)


async def _left(listener: _Listener, receive: Receive) -> None:
    """Until the other side has gone."""
    while (await receive())["type"] != "http.disconnect":
        pass
    listener.is_gone = True
    listener.turn.set()


async def _send(send: Send, text: bytes) -> None:
    await send({"type": "http.response.body", "body": text, "more_body": True})


def _first_after(kept: Sequence[Told], seq: int) -> int:
    """The place of the first one behind this one, by halving."""
    low, high = 0, len(kept)
    while low < high:
        middle = (low + high) // 2
        if kept[middle].seq > seq:
            high = middle
        else:
            low = middle + 1
    return low


def _id(entry: HistoryEntry) -> str:
    """Its place, and which event stood there: after a restore from a backup another one may."""
    which = f"{entry.scope.tenant_key}\0{entry.event_id}".encode("utf-8", "surrogatepass")
    return f"{entry.seq}-{blake2b(which, digest_size=6).hexdigest()}"
