"""All workers together: started, woken, replaced and drained as one."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import structlog

from reserve_listener.delivery.worker import SinkHealth, Worker
from reserve_listener.errors import StoreError
from reserve_listener.meters import DeliveryMeter

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Sequence

    from reserve_listener.ages import Ages
    from reserve_listener.delivery.retry import RetryPolicy
    from reserve_listener.protocols import Sink
    from reserve_listener.protocols.store import StoreQueue

HALT_TIMEOUT_S: Final = 15.0
"""How long attempts under way get to end when their sink is replaced."""

SAVE_TIMEOUT_S: Final = 2.0

CLOSE_TIMEOUT_S: Final = 6.0
"""How long a sink gets to close; a file sink limits itself to 5 s."""

log = structlog.get_logger("delivery")


@dataclass(frozen=True, slots=True, kw_only=True)
class SinkSpec:
    """A sink with all that its worker needs. `settings`: if equal, one sink need not be replaced by the other."""

    sink: Sink
    policy: RetryPolicy
    settings: Any = None


class Workers:
    """A worker and a task for each sink. If a task ends by itself, `wait_failed` raises."""

    def __init__(
        self, store: StoreQueue, ages: Ages | None = None, *, redact: Callable[[str], str] = str
    ) -> None:
        self._store = store
        self._redact = redact
        self._ages = ages
        self._workers: dict[str, tuple[Worker, SinkSpec, asyncio.Task[None]]] = {}
        self._meters: dict[str, DeliveryMeter] = {}
        self._failed: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def start(self, specs: Iterable[SinkSpec], *, disabled: Collection[str] = ()) -> None:
        """Start a worker for each sink; those in `disabled` begin nothing."""
        for spec in specs:
            name = spec.sink.name
            worker = Worker(
                spec.sink,
                self._store,
                policy=spec.policy,
                disabled=name in disabled,
                ages=self._ages,
                meter=self._meters.setdefault(name, DeliveryMeter()),
                redact=self._redact,
            )
            task = asyncio.create_task(worker.run(), name=f"worker-{name}")
            self._workers[name] = (worker, spec, task)
            task.add_done_callback(self._ended)

    def wake(self) -> None:
        """New deliveries are in the store."""
        for worker, *_ in self._workers.values():
            worker.wake()

    def requeue(self) -> None:
        """Settled deliveries are pending again."""
        for worker, *_ in self._workers.values():
            worker.requeue()

    def disable_only(self, names: Collection[str]) -> None:
        """These sinks are disabled, and no others: another daemon may have changed it."""
        for name, (worker, *_) in self._workers.items():
            if worker.is_disabled and name not in names:
                worker.enable()
            elif not worker.is_disabled and name in names:
                worker.disable()

    def worker(self, name: str) -> Worker | None:
        """The worker of the sink with this name."""
        return self._workers[name][0] if name in self._workers else None

    def all(self) -> list[Worker]:
        """The running workers."""
        return [worker for worker, *_ in self._workers.values()]

    def meters(self) -> dict[str, DeliveryMeter]:
        """The counters of each sink, including sinks that have been removed since."""
        return dict(self._meters)

    def health(self) -> dict[str, SinkHealth]:
        """How each sink is doing."""
        return {name: worker.health for name, (worker, *_) in self._workers.items()}

    def unchanged(self, specs: Sequence[SinkSpec]) -> set[str]:
        """The names of the sinks that already run as specified."""
        return {
            spec.sink.name
            for spec in specs
            if spec.settings is not None
            and spec.sink.name in self._workers
            and self._workers[spec.sink.name][1].settings == spec.settings
        }

    async def wait_failed(self) -> None:
        """Raises the error of the first worker that ended by itself."""
        await asyncio.shield(self._failed)

    async def halt(self, *, keeping: Collection[str] = ()) -> None:
        """End workers and close their sinks: attempts under way may finish, and nothing new is started."""
        leaving = [name for name in self._workers if name not in keeping]
        for name in leaving:
            self._workers[name][0].halt()
        await self._end(leaving, HALT_TIMEOUT_S)

    async def drain(self, timeout_s: float, hurry: asyncio.Event) -> None:
        """Deliver what is due for at most `timeout_s`, or until `hurry`; then end all workers."""
        for worker, *_ in self._workers.values():
            worker.drain()
        tasks = [task for *_, task in self._workers.values()]
        if tasks:
            hurrying = asyncio.create_task(hurry.wait(), name="second-signal")
            drained = asyncio.create_task(asyncio.wait(tasks), name="drained")
            await asyncio.wait([drained, hurrying], timeout=timeout_s, return_when=asyncio.FIRST_COMPLETED)
            hurrying.cancel()
            drained.cancel()
        await self._end(list(self._workers), 0)

    async def _end(self, names: Sequence[str], timeout_s: float) -> None:
        ending = [self._workers[name] for name in names]
        tasks = [task for *_, task in ending]
        try:
            if tasks and timeout_s:
                await asyncio.wait(tasks, timeout=timeout_s)
        finally:  # also when told to stop meanwhile: then `drain` finds only what is left
            for name in names:
                self._workers.pop(name, None)
            for task in tasks:
                task.remove_done_callback(self._ended)
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            await asyncio.gather(*(_put_away(worker) for worker, *_ in ending))

    def _ended(self, task: asyncio.Task[None]) -> None:
        worker = next((worker for worker, _, each in self._workers.values() if each is task), None)
        if worker is None or worker.leaving or self._failed.done():
            return
        error = None if task.cancelled() else task.exception()
        self._failed.set_exception(error or RuntimeError(f"{task.get_name()} ended unexpectedly"))


async def _put_away(worker: Worker) -> None:
    """Store the worker's last outcomes and close its sink. Whatever fails here must not keep other workers from doing so."""
    try:
        async with asyncio.timeout(SAVE_TIMEOUT_S):
            await worker.save()
    except (StoreError, TimeoutError) as error:
        log.warning("delivery.not_saved", sink=worker.sink.name, error=str(error) or "no commit in time")
    try:
        async with asyncio.timeout(CLOSE_TIMEOUT_S):
            await worker.sink.close()
    except Exception as error:  # noqa: BLE001  # one sink's end must not be another's
        log.error("delivery.close_failed", sink=worker.sink.name, error=str(error) or type(error).__name__)
