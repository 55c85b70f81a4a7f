"""Retention: events that every sink has are dropped after a while, or earlier if the store reaches its size bound.

The history of changes outlives the events. Its oldest part is dropped early only if dropping events has not made room.

What must stay true: nothing pending and no dead letter is dropped, and whatever the size, an event remains known for at least
`KNOWN_MS`: if it is pushed again, the push is answered and not delivered.
"""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Final

import structlog

from reserve_listener.ages import Ages
from reserve_listener.clock import now_ms
from reserve_listener.errors import StoreError
from reserve_listener.model import MIB

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from reserve_listener.protocols.store import StoreUpkeep

KNOWN_MS: Final = 48 * 3600 * 1000
ROUND_S: Final = 600.0
FULL_ROUND_S: Final = 15.0
"""How often to look while pushes are refused: what has been delivered or dropped since makes room."""
BREATH_S: Final = 0.02
"""The pause between two chunks, which lets pushes through."""

WARN_AT: Final = 0.7
DROP_AT: Final = 0.9
DROP_TO: Final = 0.85
WARN_EVERY_S: Final = 3600.0


log = structlog.get_logger("store")


class Retention:
    """Keeps `store` within `keep_ms` and its `max_bytes`, and its history within `history_ms`. Start `run` as a task.

    History is kept at least as long as events; None: for ever.
    """

    def __init__(
        self,
        store: StoreUpkeep,
        *,
        keep_ms: int,
        history_ms: int | None = None,
        now_ms: Callable[[], int] = now_ms,
        ages: Ages | None = None,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._store = store
        self._keep_ms = keep_ms
        self._history_ms = None if history_ms is None else max(history_ms, keep_ms)
        self._ages = ages or Ages(now_ms, now_ms)
        self._clock = clock
        self._sleep = sleep
        self._warned_at: float | None = None

    async def run(self) -> None:
        """Work until cancelled: now, every ten minutes, and whenever the store has grown."""
        while True:
            try:
                await self.tidy()
            except StoreError as error:
                log.error("store.not_tidied", error=str(error))
            self._store.grown.clear()
            try:
                async with asyncio.timeout(FULL_ROUND_S if self._store.full else ROUND_S):
                    await self._store.grown.wait()
            except TimeoutError:
                continue

    async def tidy(self) -> None:
        """Drop what is old enough, and then, if the size bound is reached, the oldest."""
        await self._store.free_inbox()
        dropped = await self._drop(self._ages.ago_ms(self._keep_ms), strip=False, until_bytes=None)
        if dropped:
            log.info("store.pruned", events=dropped)
        if self._history_ms is not None:
            dropped = await self._drop_history(self._ages.ago_ms(self._history_ms), until_bytes=None)
            if dropped:
                log.info("store.history_pruned", entries=dropped)
        await self._forget()
        size, bound = await self._store.measure(), self._store.max_bytes
        if bound is None:
            return
        if size > bound * DROP_AT:
            before_ms = self._ages.ago_ms(min(KNOWN_MS, self._keep_ms))
            dropped = await self._drop(before_ms, strip=True, until_bytes=round(bound * DROP_TO))
            if dropped:
                log.warning(
                    "store.pruned_early", events=dropped, size_mb=size // MIB, max_size_mb=bound // MIB
                )
            size = await self._store.measure()
        if size > bound * DROP_AT:
            dropped = await self._drop_history(self._ages.ago_ms(0), until_bytes=round(bound * DROP_TO))
            if dropped:
                log.warning(
                    "store.history_pruned_early",
                    entries=dropped,
                    size_mb=size // MIB,
                    max_size_mb=bound // MIB,
                )
            size = await self._store.measure()
        self._warn(size, bound)

    async def _drop(self, before_ms: int, *, strip: bool, until_bytes: int | None) -> int:
        after_seq: int | None = 0
        dropped = 0
        while after_seq is not None:
            pruned = await self._store.prune(after_seq, before_ms, strip=strip)
            dropped += pruned.events
            after_seq = pruned.after_seq
            if until_bytes is not None and await self._store.measure() <= until_bytes:
                break
            await self._sleep(BREATH_S)
        return dropped

    async def _forget(self) -> None:
        history_before_ms = None if self._history_ms is None else self._ages.ago_ms(self._history_ms)
        while not await self._store.forget(
            self._ages.ago_ms(self._keep_ms), history_before_ms=history_before_ms
        ):
            await self._sleep(BREATH_S)

    async def _drop_history(self, before_ms: int, *, until_bytes: int | None) -> int:
        over, dropped = False, 0
        while not over:
            count, over = await self._store.prune_history(before_ms)
            dropped += count
            if until_bytes is not None and await self._store.measure() <= until_bytes:
                break
            await self._sleep(BREATH_S)
        return dropped

    def _warn(self, size: int, bound: int) -> None:
        if size <= bound * WARN_AT:
            self._warned_at = None
            return
        if self._warned_at is None or self._clock() - self._warned_at >= WARN_EVERY_S:
            self._warned_at = self._clock()
            log.warning(
                "store.filling",
                size_mb=size // MIB,
                max_size_mb=bound // MIB,
                hint="run `reserve-listener sinks list` to see what is waiting, lower store.retention_days or raise store.max_size_mb",
            )
