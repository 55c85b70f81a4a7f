"""What several tests build on: events, deliveries, a sink that does as it is told."""

from __future__ import annotations

import asyncio
import secrets
import socket
from collections import defaultdict
from contextlib import suppress
from typing import TYPE_CHECKING

import msgspec

from reserve_listener.intake import normalize
from reserve_listener.model import SQLITE_URL, Delivery, EventQuery, IncomingEvent, Scope, StoredEvent
from reserve_listener.simulator import patience, sample_event
from reserve_listener.store import open_reader, open_store

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence
    from pathlib import Path

    from reserve_listener.errors import StoreError
    from reserve_listener.model import Verdict
    from reserve_listener.protocols import Accept
    from reserve_listener.protocols.store import StoreIntake

NOW_MS = 1_790_000_000_000


def event(
    event_id: str = "e1", scope: str = "omm_a", *, tenant: str = "t1", received_ms: int = NOW_MS
) -> IncomingEvent:
    """A push, normalised by the real thing."""
    envelope = sample_event(event_id=event_id, scope_id=scope, tenant_key=tenant, create_time_ms=received_ms)
    return normalize.incoming(msgspec.json.encode(envelope), envelope, received_ms=received_ms)


def small_event(
    event_id: str,
    scope: str = "omm_a",
    *,
    size: int = 2,
    received_ms: int = NOW_MS,
    created_ms: int | None = NOW_MS,
    body: bytes | None = None,
) -> IncomingEvent:
    """A push of a given size, for tests that count bytes, or with this body."""
    return IncomingEvent(
        tenant_key="t1",
        event_id=event_id,
        raw=b"{}",
        received_ms=received_ms,
        created_ms=created_ms,
        scope=Scope(tenant_key="t1", scope_type="room", scope_id=scope),
        body=b"x" * size if body is None else body,
    )


def unreadable_event(raw: bytes = b"nonsense") -> IncomingEvent:
    """A push that no sink gets."""
    return normalize.unreadable(raw, "not JSON", received_ms=NOW_MS)


def delivery(
    seq: int = 1,
    body: bytes = b'{"specversion":"1.0","id":"e1"}',
    *,
    event_id: str | None = None,
    attempts: int = 0,
    received_ms: int = NOW_MS,
) -> Delivery:
    """What a sink is handed."""
    return Delivery(
        seq=seq,
        event_id=event_id or f"e{seq}",
        scope=1,
        attempts=attempts,
        received_ms=received_ms,
        body=body,
    )


class Clock:
    """Milliseconds that pass when told to."""

    def __init__(self, now_ms: int = NOW_MS) -> None:
        self.now_ms = now_ms

    def __call__(self) -> int:
        return self.now_ms

    def advance(self, seconds: float) -> None:
        """Let time pass."""
        self.now_ms += round(seconds * 1000)


class ScriptedSink:
    """Keeps what it is handed and does what `script` says; sees when two attempts of one scope overlap."""

    def __init__(
        self,
        name: str = "scripted",
        *,
        batch_size: int = 1,
        max_in_flight: int = 1,
        one_per_scope: bool = False,
        script: Callable[[Sequence[Delivery]], Awaitable[None]] | None = None,
    ) -> None:
        self.name = name
        self.one_per_scope = one_per_scope
        self.batch_size = batch_size
        self.max_in_flight = max_in_flight
        self.needs_raw = False
        self.script = script
        self.attempts: list[tuple[str, ...]] = []
        """The event ids of each attempt, in order of their beginning."""
        self.delivered: dict[int, list[str]] = defaultdict(list)
        """By scope, in order of success."""
        self.overlaps: list[int] = []
        self.most_at_once = 0
        self._under_way: list[int] = []
        self._open = 0

    @property
    def ids(self) -> list[str]:
        """All that was delivered, whatever the scope."""
        return [event_id for ids in self.delivered.values() for event_id in ids]

    async def deliver(self, deliveries: Sequence[Delivery]) -> None:
        """See `protocols.Sink.deliver`."""
        self.attempts.append(tuple(one.event_id for one in deliveries))
        scopes = {one.scope for one in deliveries}
        self.overlaps += [scope for scope in scopes if scope in self._under_way]
        self._under_way += scopes
        self._open += 1
        self.most_at_once = max(self.most_at_once, self._open)
        try:
            if self.script is not None:
                await self.script(deliveries)
            for one in deliveries:
                self.delivered[one.scope].append(one.event_id)
        finally:
            self._open -= 1
            for scope in scopes:
                self._under_way.remove(scope)

    async def close(self) -> None:
        """Nothing is held."""


def url_of(file: Path) -> str:
    """The URL of a store in this file."""
    return f"{SQLITE_URL}{file}"


def make_store(url: str) -> None:
    """A store with nothing in it, that no daemon holds."""

    async def made() -> None:
        await (await open_store(url, [])).close()

    asyncio.run(made())


def stored(
    store: str | Path, *, limit: int = 10_000, unreadable: bool = False, event_id: str | None = None
) -> list[StoredEvent]:
    """What a reader finds in a store, given by its URL or its file, the newest first."""
    with open_reader(store if isinstance(store, str) else url_of(store)) as reader:
        return reader.events(EventQuery(event_id=event_id), limit=limit, unreadable=unreadable)


def append(store: StoreIntake, event: IncomingEvent) -> asyncio.Future[Verdict]:
    """The store's verdict on an event that is projected alone, to wait for. It is queued when this returns."""
    projecting = store.project([event])

    async def verdict() -> Verdict:
        (one,) = await projecting
        return one

    return asyncio.ensure_future(verdict())


async def receive(store: StoreIntake, *events: IncomingEvent) -> int:
    """Make a batch durable; its number. Raises `StoreError`."""
    received: asyncio.Future[int] = asyncio.get_running_loop().create_future()

    def done(number: int, error: StoreError | None) -> None:
        if error is None:
            received.set_result(number)
        else:
            received.set_exception(error)

    store.receive(events, done)
    return await received


async def push(store: StoreIntake, event: IncomingEvent) -> Verdict:
    """The whole way of an event: durable in the inbox, then projected. Raises `StoreError`."""
    number = await receive(store, event)
    (verdict,) = await store.project([event], number=number)
    return verdict


def accepted(accept: Accept, raw: bytes) -> asyncio.Future[Verdict]:
    """The verdict on a push, to wait for."""
    verdict: asyncio.Future[Verdict] = asyncio.get_running_loop().create_future()
    accept(raw, lambda found: None if verdict.done() else verdict.set_result(found))
    return verdict


async def until(condition: Callable[[], object], timeout_s: float = 10.0) -> None:
    """Wait for a condition that has no event of its own."""
    async with asyncio.timeout(patience(timeout_s)):
        while not condition():
            await asyncio.sleep(0.002)


def free_port() -> int:
    """A port that nobody has, and that the kernel gives to nobody who does not ask for it by its number.

    Any other could be taken by a test beside this one before it is used.
    """
    while True:
        with socket.socket() as free, suppress(OSError):
            free.bind(("127.0.0.1", 20_000 + secrets.randbelow(5_000)))
            return int(free.getsockname()[1])
