"""All workers together: started, woken, replaced and drained as one."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final

import structlog

from reserve_listener.delivery.worker import Worker
from reserve_listener.retry import RetryPolicy

if TYPE_CHECKING:
    from collections.abc import Sequence

    from reserve_listener.protocols import Sink, Store

STOP_TIMEOUT_S: Final = 5.0
"""How long attempts under way may take to end when a worker has to go."""

log = structlog.get_logger("delivery")


class Workers:
    """One worker and one task for each sink. A task that ends by itself makes `wait_failed` raise."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._workers: dict[asyncio.Task[None], Worker] = {}
        self._failed: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def start(self, sinks: Sequence[Sink]) -> None:
        """Start a worker for each sink."""
        for sink in sinks:
            worker = Worker(sink, self._store, policy=RetryPolicy())
            task = asyncio.create_task(worker.run(), name=f"worker-{sink.name}")
            task.add_done_callback(self._ended)
            self._workers[task] = worker

    def wake(self) -> None:
        """New deliveries are in the store."""
        for worker in self._workers.values():
            worker.wake()

    async def wait_failed(self) -> None:
        """Raises the error of the first worker that ended by itself."""
        await asyncio.shield(self._failed)

    async def halt(self) -> None:
        """End all workers: attempts under way may finish, nothing new is begun. Closes their sinks."""
        for worker in self._workers.values():
            worker.halt()
        await self._end(STOP_TIMEOUT_S)

    async def drain(self, timeout_s: float, hurry: asyncio.Event) -> None:
        """Deliver what is due for at most `timeout_s`, or until `hurry`; then `halt`."""
        for worker in self._workers.values():
            worker.drain()
        if self._workers:
            hurrying = asyncio.create_task(hurry.wait(), name="second-signal")
            drained = asyncio.create_task(asyncio.wait(self._workers), name="drained")
            await asyncio.wait([drained, hurrying], timeout=timeout_s, return_when=asyncio.FIRST_COMPLETED)
            hurrying.cancel()
            drained.cancel()
        await self._end(0)

    async def _end(self, timeout_s: float) -> None:
        workers, self._workers = self._workers, {}
        tasks = list(workers)
        if tasks and timeout_s:
            await asyncio.wait(tasks, timeout=timeout_s)
        for task in tasks:
            task.remove_done_callback(self._ended)
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for worker in workers.values():
            try:
                await worker.sink.close()
            except Exception as error:  # noqa: BLE001  # one sink's end must not be another's
                log.error("delivery.close_failed", sink=worker.sink.name, error=str(error))

    def _ended(self, task: asyncio.Task[None]) -> None:
        worker = self._workers.get(task)
        if worker is None or worker.leaving or self._failed.done():
            return
        error = None if task.cancelled() else task.exception()
        self._failed.set_exception(error or RuntimeError(f"{task.get_name()} ended by itself"))
