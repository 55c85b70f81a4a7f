"""The composition root: the parts of the daemon put together, and its life from start to stop."""

from __future__ import annotations

import asyncio
import signal
import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, Final, TypeAlias

import structlog

from reserve_listener import __version__
from reserve_listener.config import (
    Config,
    FileSink as FileSinkConfig,
    HttpSink as HttpSinkConfig,
    signing_key,
)
from reserve_listener.delivery import Worker
from reserve_listener.intake import Intake
from reserve_listener.retry import RetryPolicy
from reserve_listener.sinks.file import FileSink
from reserve_listener.sinks.http import HttpSink
from reserve_listener.sinks.log import LogSink
from reserve_listener.store import SqliteStore
from reserve_listener.supervision import Backoff, Supervisor
from reserve_listener.transports.long_connection import LongConnection, build_dispatcher, is_registered

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from reserve_listener.protocols import Sink
    from reserve_listener.transports.timing import Timing

IO_THREADS: Final = 8
CLOSE_TIMEOUT_S: Final = 5.0
STOP_SIGNALS: Final = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)

log = structlog.get_logger("daemon")

WriteEvents: TypeAlias = "Callable[[Sequence[dict[str, Any]]], Awaitable[None]]"


class StopSignals:
    """The first signal asks for a clean stop, the second for an immediate one. What was answered is kept either way."""

    def __init__(self) -> None:
        self.stop = asyncio.Event()
        self.now = asyncio.Event()

    def install(self) -> None:
        """Hear SIGTERM, SIGINT and SIGHUP on the running loop."""
        for number in STOP_SIGNALS:
            asyncio.get_running_loop().add_signal_handler(number, self.hear, number)

    def hear(self, number: int) -> None:
        """One signal."""
        log.info("daemon.signal", signal=signal.Signals(number).name)
        (self.now if self.stop.is_set() else self.stop).set()


class App:
    """One daemon. `write_events` writes the log sink's lines; see `observability.logs.Logs`."""

    def __init__(self, config: Config, *, write_events: WriteEvents) -> None:
        self._config = config
        self._write_events = write_events
        self._sinks: list[Sink] = []
        self._workers: list[Worker] = []

    async def run(self, signals: StopSignals) -> None:
        """Start, serve until told to stop, drain, close. Raises `ReserveListenerError` for what a person must mend."""
        pool = ThreadPoolExecutor(IO_THREADS, thread_name_prefix="io")
        asyncio.get_running_loop().set_default_executor(pool)
        store = SqliteStore(self._config.store.path)
        await store.open([sink.name for sink in self._config.sinks])
        try:
            await self._serve(store, signals)
        finally:
            for sink in self._sinks:
                await sink.close()
            pending = await store.backlog()
            await store.close()
            log.info("daemon.stopped", pending=pending)
            pool.shutdown(wait=False, cancel_futures=True)

    async def _serve(self, store: SqliteStore, signals: StopSignals) -> None:
        lark = self._config.lark
        pending = await store.backlog()
        log.info(
            "daemon.started",
            version=__version__,
            app_id=lark.app_id,
            domain=lark.domain,
            store=str(self._config.store.path),
            sinks=[sink.name for sink in self._config.sinks],
            pending=pending,
        )
        self._sinks += [make_sink(sink, self._write_events) for sink in self._config.sinks]
        self._workers = [Worker(sink, store, policy=RetryPolicy()) for sink in self._sinks]
        store.on_commit = self._wake
        dispatcher = build_dispatcher(lambda raw: _accept(intake, raw))
        intake = Intake(store, knows=is_registered(dispatcher))
        supervisor = self._supervisor(store, dispatcher, intake)
        connection = asyncio.create_task(supervisor.run(), name="supervisor")
        workers = [
            asyncio.create_task(worker.run(), name=f"worker-{worker.sink.name}") for worker in self._workers
        ]
        try:
            await _first_end([connection, *workers], signals.stop)
        finally:
            connection.cancel()
            await asyncio.gather(connection, return_exceptions=True)
            await self._stop_hearing(supervisor, intake)
            await self._drain(workers, signals.now)

    def _supervisor(self, store: SqliteStore, dispatcher: Any, intake: Intake) -> Supervisor:
        lark = self._config.lark

        def connect(timing: Timing) -> LongConnection:
            return LongConnection(
                lark,
                app_secret=lark.read_app_secret().get_secret_value(),
                proxy=lark.proxy.get_secret_value() if lark.proxy is not None else None,
                dispatcher=dispatcher,
                accept=intake.accept,
                timing=timing,
            )

        return Supervisor(
            connect,
            backoff=Backoff(base_s=lark.backoff_base, cap_s=lark.backoff_cap, refused_s=lark.refused_backoff),
            app_known=lambda: store.app_known(lark.app_id),
            on_connected=lambda: store.know_app(lark.app_id),
        )

    def _wake(self) -> None:
        for worker in self._workers:
            worker.wake()

    async def _stop_hearing(self, supervisor: Supervisor, intake: Intake) -> None:
        supervisor.finish()
        await intake.close()
        await supervisor.close()

    async def _drain(self, workers: Sequence[asyncio.Task[None]], now: asyncio.Event) -> None:
        """Give the workers `drain_timeout` for what is due; what is not delivered stays in the store."""
        for worker in self._workers:
            worker.drain()
        started = time.monotonic()
        hurry = asyncio.create_task(now.wait(), name="second-signal")
        drained = asyncio.create_task(asyncio.wait(workers), name="drained")
        await asyncio.wait(
            [drained, hurry], timeout=self._config.delivery.drain_timeout, return_when=asyncio.FIRST_COMPLETED
        )
        for task in (hurry, drained, *workers):
            task.cancel()
        await asyncio.wait(workers, timeout=CLOSE_TIMEOUT_S)
        log.info("daemon.drained", took_s=round(time.monotonic() - started, 2))


def make_sink(config: Any, write_events: WriteEvents) -> Sink:
    """The sink that a `[[sinks]]` table describes. Reads its secret files; `ConfigError` when one is amiss."""
    if isinstance(config, FileSinkConfig):
        return FileSink(config.name, config.path)
    if isinstance(config, HttpSinkConfig):
        return HttpSink(
            config.name,
            config.url,
            timeout_s=config.timeout,
            max_in_flight=config.max_in_flight,
            signing_keys=[signing_key(secret) for secret in config.read_signing_secrets()],
            ca_bundle=config.ca_bundle,
        )
    return LogSink(config.name, write_events)


def _accept(intake: Intake, raw: bytes) -> None:
    intake.accept(raw)


async def _first_end(tasks: Sequence[asyncio.Task[None]], stop: asyncio.Event) -> None:
    """Until asked to stop. A task that ends before that takes the daemon down with its error."""
    stopping = asyncio.create_task(stop.wait(), name="stop")
    try:
        done, _ = await asyncio.wait([*tasks, stopping], return_when=asyncio.FIRST_COMPLETED)
        for task in done - {stopping}:
            task.result()
            raise RuntimeError(f"the task {task.get_name()} ended by itself")
    finally:
        stopping.cancel()
