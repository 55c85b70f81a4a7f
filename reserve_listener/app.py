"""The composition root: the parts of the daemon put together, and its life from start to stop."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, Final

import structlog

from reserve_listener import __version__
from reserve_listener.config import (
    Config,
    FileSink as FileSinkConfig,
    HttpSink as HttpSinkConfig,
    signing_key,
)
from reserve_listener.control import ControlServer, socket_path
from reserve_listener.delivery import Workers
from reserve_listener.errors import ConfigError, StoreError
from reserve_listener.intake import Intake
from reserve_listener.model import Filters
from reserve_listener.observability.heartbeat import Heartbeat
from reserve_listener.observability.notify import Notifier
from reserve_listener.sinks.file import FileSink
from reserve_listener.sinks.http import HttpSink
from reserve_listener.sinks.log import LogSink
from reserve_listener.store import SqliteStore
from reserve_listener.supervision import Backoff, State, Supervisor
from reserve_listener.transports.long_connection import LongConnection, build_dispatcher, is_registered

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from reserve_listener.observability.logs import Logs
    from reserve_listener.protocols import Sink
    from reserve_listener.transports.timing import Timing

IO_THREADS: Final = 8
STOP_MARGIN_S: Final = 15.0
"""What a stop may take beyond the drain: verdicts, answers, closing."""

PUSHED_AGAIN_MS: Final = int(7.1 * 3600 * 1000)
"""How long the platform pushes an unanswered event again (after 15 s, 5 min, 1 h, 6 h)."""

SEEN_EVERY_S: Final = 300.0
"""How often the store is told that the app is still connected: a gap is known this precisely."""

RELOADABLE: Final = frozenset({"sinks", "log", "delivery"})

log = structlog.get_logger("daemon")


class Signals:
    """What people ask of a running daemon.

    The first SIGTERM or SIGINT asks for a clean stop, the second for an immediate one; what was answered is kept either
    way. SIGHUP reloads, except when it says that the terminal the daemon runs in is gone: then it stops.
    """

    def __init__(self) -> None:
        self.stop = asyncio.Event()
        self.now = asyncio.Event()
        self.reload = asyncio.Event()

    def install(self) -> None:
        """Hear them on the running loop."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self.ask_stop, number)
        if has_terminal():
            loop.add_signal_handler(signal.SIGHUP, self.ask_stop, signal.SIGHUP)
        else:
            loop.add_signal_handler(signal.SIGHUP, self.reload.set)

    def ask_stop(self, number: int) -> None:
        """One signal to stop."""
        log.info("daemon.signal", signal=signal.Signals(number).name)
        (self.now if self.stop.is_set() else self.stop).set()


def has_terminal() -> bool:
    """Whether this process has a controlling terminal."""
    try:
        os.close(os.open("/dev/tty", os.O_RDWR | os.O_NOCTTY | os.O_CLOEXEC))
    except OSError:
        return False
    return True


class App:
    """One daemon. `reload` loads the configuration anew, as at start, or raises `ConfigError`."""

    def __init__(
        self, config: Config, *, logs: Logs, reload: Callable[[], Config], notifier: Notifier | None = None
    ) -> None:
        self._config = config
        self._logs = logs
        self._reload = reload
        self._notifier = notifier or Notifier()
        self._store = SqliteStore(config.store.path)
        self._started = self._seen_at = time.monotonic()
        self._supervisor: Supervisor
        self._intake: Intake
        self._workers: Workers

    async def run(self, signals: Signals) -> None:
        """Start, serve until told to stop, drain, close. Raises `ReserveListenerError` for what a person must mend."""
        pool = ThreadPoolExecutor(IO_THREADS, thread_name_prefix="io")
        asyncio.get_running_loop().set_default_executor(pool)
        await self._store.open([sink.name for sink in self._config.sinks])
        control = ControlServer(socket_path(self._config.store.path), self._control)
        try:
            await self._build()
            await control.open()
            await self._serve(signals)
        finally:
            await control.close()
            pending = await self._backlog()
            await self._store.close()
            log.info("daemon.stopped", pending=pending)
            self._notifier.close()
            pool.shutdown(wait=False, cancel_futures=True)

    async def _serve(self, signals: Signals) -> None:
        running = [
            asyncio.create_task(self._supervisor.run(), name="supervisor"),
            asyncio.create_task(self._workers.wait_failed(), name="workers"),
            asyncio.create_task(self._store.ended(), name="store"),
            asyncio.create_task(self._heartbeat().run(), name="heartbeat"),
            asyncio.create_task(self._hear_reloads(signals.reload), name="reload"),
        ]
        try:
            await _first_end(running, signals.stop)
        finally:
            self._notifier.stopping(self._config.delivery.drain_timeout + STOP_MARGIN_S)
            for task in running:
                task.cancel()
            await asyncio.gather(*running, return_exceptions=True)
            await self._stop(signals.now)

    async def _build(self) -> None:
        lark = self._config.lark
        log.info(
            "daemon.started",
            version=__version__,
            app_id=lark.app_id,
            domain=lark.domain,
            store=str(self._config.store.path),
            sinks=[sink.name for sink in self._config.sinks],
            pending=await self._backlog(),
        )
        sinks = [make_sink(sink, self._logs) for sink in self._config.sinks]
        dispatcher = build_dispatcher(self._accept_typed)
        self._intake = Intake(self._store, knows=is_registered(dispatcher))
        self._workers = Workers(self._store)
        self._store.on_commit = self._workers.wake
        self._workers.start(sinks)
        self._supervisor = Supervisor(
            lambda timing: self._connection(dispatcher, timing),
            backoff=Backoff(base_s=lark.backoff_base, cap_s=lark.backoff_cap, refused_s=lark.refused_backoff),
            app_known=self._app_known,
            on_connected=self._on_connected,
            on_state=self._on_state,
            refused_hint="the secret is a systemd credential: once it is mended, restart the unit"
            if lark.app_secret_is_credential
            else None,
        )

    def _connection(self, dispatcher: Any, timing: Timing) -> LongConnection:
        lark = self._config.lark
        secret = lark.read_app_secret().get_secret_value()
        self._logs.hide(secret)
        return LongConnection(
            lark,
            app_secret=secret,
            proxy=lark.proxy.get_secret_value() if lark.proxy is not None else None,
            dispatcher=dispatcher,
            accept=self._intake.accept,
            timing=timing,
        )

    def _accept_typed(self, raw: bytes) -> None:
        """What the handler registered with the SDK does; see `build_dispatcher`."""
        self._intake.accept(raw)

    async def _stop(self, now: asyncio.Event) -> None:
        """Stop hearing, answer what is committed, deliver what is due; what is not delivered stays in the store."""
        self._supervisor.finish()
        await self._intake.close()
        await self._supervisor.close()
        started = time.monotonic()
        await self._workers.drain(self._config.delivery.drain_timeout, now)
        log.info("daemon.drained", took_s=round(time.monotonic() - started, 2))

    # -- how it goes --------------------------------------------------------------------------------------------------------

    def _heartbeat(self) -> Heartbeat:
        return Heartbeat(self._notifier, progress=self._progress, woke=self._supervisor.woke)

    async def _progress(self) -> str:
        """Through the loop and the writer's thread, and back with a line for `systemctl status`."""
        pending = await self._backlog()
        state = self._supervisor.state
        if state.name == "connected" and time.monotonic() - self._seen_at > SEEN_EVERY_S:
            self._seen_at = time.monotonic()
            with contextlib.suppress(StoreError):
                await self._store.know_app(self._config.lark.app_id)
        backlog = ", ".join(f"{name} {count}" for name, count in pending.items()) or "store failing"
        problem = f"; answering 500: {self._intake.problem}" if self._intake.problem else ""
        return f"{self._describe(state)}; pending: {backlog}{problem}"

    async def _backlog(self) -> dict[str, int]:
        try:
            return await self._store.backlog()
        except StoreError:
            return {}

    async def _status(self) -> dict[str, Any]:
        state = self._supervisor.state
        return {
            "healthy": state.name == "connected" and self._intake.problem is None,
            "version": __version__,
            "pid": os.getpid(),
            "running_s": round(time.monotonic() - self._started),
            "connection": self._logs.scrub(self._describe(state)),
            "problem": self._intake.problem,
            "pending": await self._backlog(),
        }

    def _describe(self, state: State) -> str:
        if state.until is None:
            return state.name
        return f"waiting {max(0.0, state.until - time.monotonic()):.0f} s ({state.reason})"

    def _on_state(self, state: State) -> None:
        # Ready once the first attempt has come to something: a refusal of an unknown app then fails the start.
        ready = ("READY=1",) if state.name in ("connected", "waiting") else ()
        self._notifier.send(*ready, f"STATUS={self._logs.scrub(self._describe(state))}")

    async def _app_known(self) -> bool:
        return await self._store.last_connected_ms(self._config.lark.app_id) is not None

    async def _on_connected(self) -> None:
        app_id = self._config.lark.app_id
        since_ms = await self._store.last_connected_ms(app_id)
        gap_ms = await self._store.know_app(app_id, gap_since_ms=since_ms, longer_than_ms=PUSHED_AGAIN_MS)
        if gap_ms is not None:
            log.error(
                "connection.gap",
                offline_s=gap_ms // 1000,
                hint="longer than the platform pushes again: changes of that time may be lost",
            )

    async def _control(self, request: dict[str, Any]) -> dict[str, Any]:
        """What `status`, and `dead-letters retry` and its like, ask over the control socket."""
        if request["operation"] == "status":
            return await self._status()
        count = await self._store.operate(request["operation"], Filters(**request["filters"]))
        log.info("control.done", operation=request["operation"], deliveries=count)
        return {"count": count}

    # -- reload -------------------------------------------------------------------------------------------------------------

    async def _hear_reloads(self, asked: asyncio.Event) -> None:
        while True:
            await asked.wait()
            asked.clear()
            self._notifier.reloading()
            await self._apply()
            self._notifier.send("READY=1")

    async def _apply(self) -> None:
        """Check first, then apply sinks and log level; the connection is not touched."""
        try:
            config, sinks = await asyncio.to_thread(self._prepare)
            await self._store.set_sinks([sink.name for sink in sinks])
        except (ConfigError, StoreError) as error:
            log.error("config.refused", error=str(error), hint="the old configuration stays in force")
            return
        await self._workers.halt()
        self._workers.start(sinks)
        fixed = [name for name in type(config).model_fields if name not in RELOADABLE]
        restart = [name for name in fixed if getattr(config, name) != getattr(self._config, name)]
        self._config = self._config.model_copy(update={name: getattr(config, name) for name in RELOADABLE})
        self._logs.set_level(config.log.level)
        log.info("config.applied", sinks=[sink.name for sink in sinks], restart_needed_for=restart)

    def _prepare(self) -> tuple[Config, list[Sink]]:
        """Everything that can be refused; reads files, so it runs in a thread."""
        config = self._reload()
        sinks = [make_sink(sink, self._logs) for sink in config.sinks]
        for secret in config.secret_texts():
            self._logs.hide(secret)
        return config, sinks


def make_sink(config: Any, logs: Logs) -> Sink:
    """The sink that a `[[sinks]]` table describes. Reads its secret files; `ConfigError` when one is amiss."""
    if isinstance(config, FileSinkConfig):
        return FileSink(config.name, config.path)
    if isinstance(config, HttpSinkConfig):
        keys = [signing_key(secret) for secret in config.read_signing_secrets()]
        try:
            return HttpSink(
                config.name,
                config.url,
                timeout_s=config.timeout,
                max_in_flight=config.max_in_flight,
                signing_keys=keys,
                ca_bundle=config.ca_bundle,
            )
        except OSError as error:  # ssl's errors are, too
            reason = error.strerror or str(error)
            raise ConfigError(f'sink "{config.name}": ca_bundle: {config.ca_bundle}: {reason}') from error
    return LogSink(config.name, logs.write_events)


async def _first_end(tasks: Sequence[asyncio.Task[None]], stop: asyncio.Event) -> None:
    """Until asked to stop. A task that ends before that takes the daemon down with its error."""
    stopping = asyncio.create_task(stop.wait(), name="stop")
    try:
        done, _ = await asyncio.wait([*tasks, stopping], return_when=asyncio.FIRST_COMPLETED)
        for task in tasks:
            if task in done:
                task.result()
                raise RuntimeError(f"the task {task.get_name()} ended by itself")
    finally:
        stopping.cancel()
