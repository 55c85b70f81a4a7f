"""The composition root: the parts of the daemon put together, and its life from start to stop."""

from __future__ import annotations

import asyncio
import contextlib
import time
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import TYPE_CHECKING, Any, Final

import structlog

from reserve_listener import __version__
from reserve_listener.config import StatusConfig, WebhookConfig
from reserve_listener.config.files import ours
from reserve_listener.config.sinks import for_alerts_only
from reserve_listener.daemon import runtime
from reserve_listener.daemon.actions import OperatorActions
from reserve_listener.daemon.alerts.watch import Alerts
from reserve_listener.daemon.heartbeat import Heartbeat
from reserve_listener.daemon.push_monitor import PushMonitor
from reserve_listener.daemon.requests import Requests
from reserve_listener.daemon.rooms import Rooms
from reserve_listener.daemon.snapshot import Health
from reserve_listener.daemon.systemd import Notifier
from reserve_listener.delivery import Workers
from reserve_listener.errors import ConfigError, StoreError
from reserve_listener.intake.complete import completing
from reserve_listener.intake.directory import Directory
from reserve_listener.intake.intake import Intake
from reserve_listener.model import MIB, State
from reserve_listener.net import proxies
from reserve_listener.sinks.registry import filter_of, make_sink_spec, problem_of
from reserve_listener.store import backend, open_reader, open_store
from reserve_listener.store.retention import Retention
from reserve_listener.transports.long_connection.connection import (
    LongConnection,
    build_dispatcher,
    is_registered,
)
from reserve_listener.transports.long_connection.supervisor import ATTEMPT_TIMEOUT_S, Backoff, Supervisor
from reserve_listener.transports.webhook.listener import Listener, make_webhook
from reserve_listener.web.listener import StatusListener
from reserve_listener.web.reads import Reads
from reserve_listener.web.server import ControlServer

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Iterator, Mapping, Sequence

    from starlette.types import ASGIApp

    from reserve_listener.config import Config, LarkConfig
    from reserve_listener.daemon.signals import Signals
    from reserve_listener.delivery import SinkSpec
    from reserve_listener.model import SinkFilter
    from reserve_listener.observability.logs import Logs
    from reserve_listener.protocols import Transport
    from reserve_listener.protocols.store import Store
    from reserve_listener.transports.long_connection.timing import Timing
    from reserve_listener.web.answers import Status

IO_THREADS: Final = 8
"""A thread hangs as long as the disk that it reads from. Six may at the same time: the secret for the connection and that for
the API, a reload, the alerts' file, certificates for the connection and for the heartbeat. Two remain for work without a disk,
such as the text of /metrics.
"""
OPENING_TOLD_S: Final = 10.0
"""How often systemd is told that the store is still being opened."""

STOP_MARGIN_S: Final = 15.0
"""What a stop may take beyond the drain: verdicts, answers, closing."""

PUSHED_AGAIN_MS: Final = int(7.1 * 3600 * 1000)
"""How long the platform pushes an unanswered event again (after 15 s, 5 min, 1 h, 6 h)."""

SEEN_EVERY_S: Final = 300.0
"""How often the store is told that the app is still connected: a gap is known this precisely."""

APPLY_TIMEOUT_S: Final = 20.0
"""How long a stop waits for a reload under way."""

DAY_MS: Final = 24 * 3600 * 1000

RELOADABLE: Final = frozenset({"sinks", "log", "delivery", "alerts"})

log = structlog.get_logger("daemon")


class IoPool(ThreadPoolExecutor):
    """The loop's pool, for short reads of files; names are looked up elsewhere, see `resolver`.

    Its threads may hang (a network disk). The end of the daemon must not wait for them, as asyncio would.
    """

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:  # noqa: FBT001, FBT002, ARG002  # the base class's signature
        """Wait for nothing; see `cli.main` for what still runs then."""
        super().shutdown(wait=False, cancel_futures=True)


class App:
    """One daemon. `reload` loads the configuration anew, as at start, or raises `ConfigError`."""

    def __init__(
        self, config: Config, *, logs: Logs, reload: Callable[[], Config], notifier: Notifier | None = None
    ) -> None:
        self._config = config
        self._logs = logs
        self._reload = reload
        self._notifier = notifier or Notifier()
        self._directory = Directory()
        self._started = self._seen_at = time.monotonic()
        self._reloading = False
        self._store: Store
        self._rooms: Rooms
        self._transport: Transport
        self._intake: Intake
        self._workers: Workers
        self._health: Health
        self._alerts: Alerts
        self._monitor: PushMonitor | None = None
        self._actions: OperatorActions
        self._control: ControlServer
        self._status: StatusListener | None = None
        self._reads = Reads(lambda: open_reader(config.store.url))

    async def run(self, signals: Signals) -> None:
        """Start, serve until told to stop, drain, close. Raises `ReserveListenerError` for what a person must mend."""
        asyncio.get_running_loop().set_default_executor(IoPool(IO_THREADS, thread_name_prefix="io"))
        url = self._config.store.url
        filters = {sink.name: filter_of(sink) for sink in self._config.sinks}
        if not await _came_before(signals.stop, self._open(url, filters)):
            return
        self._rooms = Rooms(
            self._config,
            self._store,
            self._directory,
            hide=self._logs.hide,
            flush=self._flush,
            now_ms=self._store.now_ms,
        )
        self._store.on_doubt = self._rooms.doubt
        self._control = ControlServer(backend(url).control_socket)
        try:
            if await _came_before(signals.stop, self._build()):
                await self._intake.start()
                self._control.bind()
                await self._serve(signals)
        finally:
            await self._control.close()
            if self._status is not None:
                await self._status.close()
            await self._reads.close()
            pending = await self._backlog()
            await self._store.close()
            log.info("daemon.stopped", pending=pending)
            self._notifier.close()

    async def _open(self, url: str, filters: Mapping[str, SinkFilter]) -> None:
        """A store on a server that is away is waited for, and one of an older version is migrated: both may take long."""
        telling = asyncio.create_task(self._tell_opening(backend(url).name), name="opening")
        try:
            if not backend(url).files:
                await self._serve_opening()
            self._store = await open_store(
                url,
                list(filters),
                filters,
                max_bytes=round(self._config.store.max_size_mb * MIB),
                complete=completing(self._config.lark.tells_in, self._directory),
                directory=self._directory,
            )
        except BaseException:
            if self._status is not None:
                await self._status.close()
            raise
        finally:
            telling.cancel()

    async def _serve_opening(self) -> None:
        """Whoever probes would take a daemon that waits for its server for one that hangs, and restart it."""
        await self._listen()
        if self._status is not None:
            from reserve_listener.web import opening  # noqa: PLC0415  # see `_make_site`

            await self._status.serve(opening.make_app, opening=True)

    async def _tell_opening(self, store: str) -> None:
        """A restart would not help, so systemd is asked for time as long as it takes."""
        while True:
            self._notifier.extend(3 * OPENING_TOLD_S)
            self._notifier.status(f"opening the store {store}")
            await asyncio.sleep(OPENING_TOLD_S)

    async def _serve(self, signals: Signals) -> None:
        running = [
            asyncio.create_task(self._transport.run(), name="transport"),
            asyncio.create_task(self._workers.wait_failed(), name="workers"),
            asyncio.create_task(self._store.ended(), name="store"),
            asyncio.create_task(self._intake.ended(), name="intake"),
            asyncio.create_task(self._heartbeat().run(), name="heartbeat"),
            asyncio.create_task(self._retention().run(), name="retention"),
            asyncio.create_task(self._rooms.run(), name="rooms"),
            asyncio.create_task(self._alerts.run(), name="alerts"),
            asyncio.create_task(self._requests.run(), name="requests"),
            *self._push_monitors(),
            asyncio.create_task(self._handle_reloads(signals.reload), name="reload"),
        ]
        try:
            await self._control.serve(self._actions)
            if self._status is not None:
                await self._status.serve(partial(self._make_site, self._status))
            asyncio.get_running_loop().call_later(runtime.LOADED_S, runtime.give_back_memory)
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
            store=self._store.name,
            sinks=[sink.name for sink in self._config.sinks],
            pending=await self._backlog(),
        )
        # The first attempt to connect may take so long before READY is said.
        self._notifier.extend(lark.endpoint_timeout + ATTEMPT_TIMEOUT_S + STOP_MARGIN_S)
        specs = await asyncio.to_thread(self._specs, self._config)
        dispatcher = build_dispatcher(self._accept_typed)
        self._intake = Intake(
            self._store,
            knows=is_registered(dispatcher),
            tokens=_tokens(self._config),
            now_ms=self._store.now_ms,
            on_stored=self._rooms.heard,
        )
        self._transport = (
            self._listener() if lark.transport == "webhook" else self._long_connection(dispatcher)
        )
        self._monitor = self._make_monitor()
        await self._listen()
        # After the transport and [status], which may refuse their settings: nobody would stop the workers then.
        self._workers = Workers(self._store, self._store.ages, redact=self._logs.redact)
        self._store.connection = lambda: self._transport.state.name
        self._store.on_commit = self._workers.wake
        self._store.on_requeue = self._workers.requeue
        self._store.on_disabled = self._workers.disable_only
        self._workers.start(specs, disabled=await self._disabled())
        self._health = Health(
            lark.app_id,
            self._store,
            self._transport,
            self._workers,
            redact=self._logs.redact,
            reconciling=self._rooms.reconcile_status,
            replica=self._store.replica,
        )
        self._alerts = self._make_alerts()
        self._store.told = self._alerts.of_itself
        self._health.alerts, self._health.alerts_to = self._alerts.firing, self._alerts.sink_health
        self._actions = OperatorActions(
            lark.app_id,
            self._store,
            transport=self._transport,
            workers=self._workers,
            health=self._health,
            rooms=self._rooms,
            redact=self._logs.redact,
        )
        self._actions.for_alerts_only = lambda: [
            one.name for one in self._config.sinks if for_alerts_only(one)
        ]
        self._requests = Requests(self._store, self._actions)
        runtime.started()

    def _listener(self) -> Transport:
        settings = self._config.webhook or WebhookConfig()
        return Listener(
            make_webhook(settings, self._config.lark.app_id, self._intake.accept),
            where=settings.listen,
            on_listening=self._on_connected,
            on_state=self._on_state,
        )

    def _long_connection(self, dispatcher: Any) -> Transport:
        lark = self._config.lark
        proxies.decide(
            lark.domain, setting=_proxy(lark), key="lark.proxy"
        )  # one that cannot be used ends the start
        return Supervisor(
            lambda timing: self._connection(dispatcher, timing),
            backoff=Backoff(base_s=lark.backoff_base, cap_s=lark.backoff_cap, refused_s=lark.refused_backoff),
            app_known=self._app_known,
            on_connected=self._on_connected,
            on_state=self._on_state,
            refused_hint="the secret is a systemd credential: correct it, then restart the unit"
            if lark.app_secret_is_credential
            else None,
            attempt_timeout_s=lark.endpoint_timeout + ATTEMPT_TIMEOUT_S,
        )

    async def _connection(self, dispatcher: Any, timing: Timing) -> LongConnection:
        lark = self._config.lark
        secret = (await asyncio.to_thread(lark.read_app_secret)).get_secret_value()
        self._logs.hide(secret)
        return LongConnection(
            lark,
            app_secret=secret,
            proxy=_proxy(lark),
            dispatcher=dispatcher,
            accept=self._intake.accept,
            timing=timing,
        )

    async def _flush(self) -> None:
        await self._intake.flush()

    def _accept_typed(self, raw: bytes) -> None:
        """What the handler registered with the SDK does; see `build_dispatcher`."""
        self._intake.accept(raw, lambda _verdict: None)

    async def _stop(self, now: asyncio.Event) -> None:
        """Stop receiving, answer what is committed, deliver what is due; the rest stays in the store."""
        self._transport.stop_accepting()
        await self._rooms.close()
        await self._intake.close()
        await self._transport.close()
        await self._intake.project_rest()
        self._notifier.status(f"stopping: {await self._health.line()}")
        started = time.monotonic()
        await self._workers.drain(self._config.delivery.drain_timeout, now)
        log.info("daemon.drained", took_s=round(time.monotonic() - started, 2))

    # -- [status] -----------------------------------------------------------------------------------------------------------

    async def _listen(self) -> None:
        if self._config.status is not None and self._status is None:
            self._status = await asyncio.to_thread(StatusListener, self._config.status)
            await self._status.bind()

    def _make_site(self, listener: StatusListener) -> ASGIApp:
        """What `[status]` serves. In a thread: the libraries take some 0.1 s to load."""
        from reserve_listener.daemon.metrics import Metrics  # noqa: PLC0415
        from reserve_listener.daemon.probes import Probes  # noqa: PLC0415
        from reserve_listener.web.access import Access  # noqa: PLC0415
        from reserve_listener.web.site import Site, make_app  # noqa: PLC0415

        settings, lark = self._config.status or StatusConfig(), self._config.lark
        token = None if settings.token is None else settings.token.get_secret_value()
        return make_app(
            Site(
                access=Access(token=token, allowed_hosts=settings.allowed_hosts or ()),
                actions=self._actions,
                probes=Probes(self._store, self._transport, connects=lark.transport == "long_connection"),
                metrics=Metrics(
                    store=self._store,
                    intake=self._intake,
                    transport=self._transport,
                    transport_name=lark.transport,
                    workers=self._workers,
                    rooms=self._rooms.meter,
                    health=self._health,
                    reads=self._reads,
                ),
                reads=self._reads,
                directory=self._directory,
                streams=listener.streams,
                language=lark.tells_in,
                public_url=settings.public_url,
            )
        )

    # -- how it goes --------------------------------------------------------------------------------------------------------

    def _heartbeat(self) -> Heartbeat:
        return Heartbeat(self._notifier, progress=self._progress, on_resume=self._transport.on_resume)

    def _make_monitor(self) -> PushMonitor | None:
        heartbeat = self._config.heartbeat
        if heartbeat is None or heartbeat.url is None:
            return None
        return PushMonitor(
            heartbeat.url.get_secret_value(),
            every_s=heartbeat.every,
            look=self._snapshot,
            redact=self._logs.redact,
        )

    async def _snapshot(self) -> Status:
        return await self._health.snapshot()

    def _push_monitors(self) -> list[asyncio.Task[None]]:
        if self._monitor is None:
            return []
        return [asyncio.create_task(self._monitor.run(), name="push-monitor")]

    def _make_alerts(self) -> Alerts:
        config, lark = self._config, self._config.lark
        page = None if config.status is None else config.status.public_url
        return Alerts(
            app_id=lark.app_id,
            language=lark.tells_in,
            store=self._store,
            state=lambda: self._transport.state,
            connection=self._health,
            workers=self._workers,
            settings=config.alerts,
            reconciles=lambda: self._rooms.reconcile_status().state != "off",
            page=page,
            redact=self._logs.redact,
            now_ms=self._store.now_ms,
            age_ms=self._store.ages.age_ms,
        )

    def _retention(self) -> Retention:
        store = self._config.store
        return Retention(
            self._store,
            keep_ms=round(store.retention_days * DAY_MS),
            history_ms=round(store.history_days * DAY_MS) or None,
            ages=self._store.ages,
        )

    async def _progress(self) -> str:
        """Through the loop and the writer's thread, and back with a line for `systemctl status`."""
        self._store.ages.now_ms()  # a clock that was set is noticed although nothing happens
        due = time.monotonic() - self._seen_at > SEEN_EVERY_S
        with contextlib.suppress(StoreError):
            if self._transport.state.is_receiving and due:
                self._seen_at = time.monotonic()
                await self._store.know_app(self._config.lark.app_id)
            elif self._store.problem is not None:
                await self._store.touch(
                    self._config.lark.app_id
                )  # on a quiet day nothing else would show that it is over
        return await self._health.line()

    async def _backlog(self) -> dict[str, int]:
        """For the log: not worth waiting for a store that fails."""
        if self._store.problem is not None:
            return {}
        try:
            return await self._store.backlog()
        except StoreError:
            return {}

    async def _disabled(self) -> set[str]:
        return await self._store.disabled()

    def _on_state(self, state: State) -> None:
        # Ready once the first attempt has come to something: a refusal of an unknown app then fails the start.
        ready = (
            ("READY=1",) if (state.is_receiving or state.name == "waiting") and not self._reloading else ()
        )
        self._health.on_state(state)
        self._store.tell()
        self._notifier.send(*ready, f"STATUS={self._health.connection()}")

    async def _app_known(self) -> bool:
        return await self._store.last_connected_ms(self._config.lark.app_id) is not None

    async def _on_connected(self) -> None:
        app_id = self._config.lark.app_id
        since_ms = await self._store.last_connected_ms(app_id)
        gap_ms = await self._store.know_app(app_id, gap_since_ms=since_ms, longer_than_ms=PUSHED_AGAIN_MS)
        if gap_ms is not None:
            self._alerts.wake()
            log.error(
                "connection.gap",
                offline_s=gap_ms // 1000,
                hint=f"longer than the platform keeps retrying: {self._rooms.after_gap}",
            )
        self._rooms.connected(after_gap=gap_ms is not None)

    # -- reload -------------------------------------------------------------------------------------------------------------

    async def _handle_reloads(self, asked: asyncio.Event) -> None:
        while True:
            await asked.wait()
            asked.clear()
            self._notifier.reloading()
            self._reloading = True
            # Told to stop meanwhile, it is finished all the same: workers that are half exchanged would not drain.
            applying = asyncio.create_task(self._apply(), name="apply")
            try:
                await asyncio.shield(applying)
            finally:
                self._reloading = False
                await asyncio.wait([applying], timeout=APPLY_TIMEOUT_S)
            self._notifier.send("READY=1", f"STATUS={self._health.connection()}")

    async def _apply(self) -> None:
        """Check first, then apply sinks and log level; the connection is not touched."""
        specs: list[SinkSpec] = []
        try:
            config, specs = await asyncio.to_thread(self._prepare)
            names = [sink.name for sink in config.sinks]
            await self._intake.flush()  # what is answered is for the sinks that were in force then
            await self._store.set_sinks(names, {sink.name: filter_of(sink) for sink in config.sinks})
            disabled = await self._disabled()
        except Exception as error:  # whatever it is, what runs goes on running
            defect = None if isinstance(error, (ConfigError, StoreError)) else error
            hint = "the old configuration stays in effect"
            log.error("config.refused", error=str(error), hint=hint, exc_info=defect)
            for spec in specs:
                await spec.sink.close()
            return
        keeping = self._workers.unchanged(specs)
        await self._workers.halt(keeping=keeping)
        with contextlib.suppress(StoreError):  # done at the next start then
            await self._store.dead_letter_removed()
        for spec in specs:
            if spec.sink.name in keeping:
                await spec.sink.close()  # the one that runs goes on
        changed = [spec for spec in specs if spec.sink.name not in keeping]
        self._workers.start(changed, disabled=disabled)
        restart = list(_needing_restart(self._config, config))
        self._config = self._config.model_copy(update={name: getattr(config, name) for name in RELOADABLE})
        self._alerts.configure(config.alerts)
        self._logs.set_level(config.log.level)
        log.info("config.applied", sinks=names, unchanged=sorted(keeping), restart_needed_for=restart)

    def _prepare(self) -> tuple[Config, list[SinkSpec]]:
        """Everything that can be refused; reads files, so it runs in a thread."""
        config = self._reload()
        for secret in config.secret_texts():
            self._logs.hide(secret)
        return config, self._specs(config)

    def _specs(self, config: Config) -> list[SinkSpec]:
        """The sinks; one whose file cannot be used now is said so at once, and not only when an event comes."""
        reserved = [path for path, _ in ours(config)]
        specs = [
            make_sink_spec(sink, self._logs.write_events, reserved=reserved, of=config, hide=self._logs.hide)
            for sink in config.sinks
        ]
        for spec in specs:
            if problem := problem_of(spec.sink):
                log.warning("sink.unusable", sink=spec.sink.name, problem=problem)
        return specs


def _needing_restart(running: Config, wanted: Config) -> Iterator[str]:
    """Keys that differ and that a reload does not apply; a section that came or went as a whole."""
    for section in [name for name in type(wanted).model_fields if name not in RELOADABLE]:
        old, new = getattr(running, section), getattr(wanted, section)
        if old is None or new is None:
            yield from () if old is new else (section,)
            continue
        for key in type(new).model_fields:
            if getattr(old, key) != getattr(new, key):
                yield f"{section}.{key}"


def _proxy(lark: LarkConfig) -> str | None:
    return None if lark.proxy is None else lark.proxy.get_secret_value()


def _tokens(config: Config) -> list[str]:
    token = config.webhook.verification_token if config.webhook else None
    return [token.get_secret_value()] if token else []


async def _came_before(stop: asyncio.Event, start: Coroutine[Any, Any, None]) -> bool:
    """Whether the start came to its end before a stop was asked for; a disk that hangs would put off both for ever."""
    starting = asyncio.create_task(start, name="start")
    stopping = asyncio.create_task(stop.wait(), name="stop")
    await asyncio.wait([starting, stopping], return_when=asyncio.FIRST_COMPLETED)
    stopping.cancel()
    if not starting.done():
        starting.cancel()
        await asyncio.wait([starting])
        return False
    await starting
    return True


async def _first_end(tasks: Sequence[asyncio.Task[None]], stop: asyncio.Event) -> None:
    """Until asked to stop. A task that ends before that takes the daemon down with its error."""
    stopping = asyncio.create_task(stop.wait(), name="stop")
    try:
        done, _ = await asyncio.wait([*tasks, stopping], return_when=asyncio.FIRST_COMPLETED)
        for task in tasks:
            if task in done:
                task.result()
                raise RuntimeError(f"the task {task.get_name()} ended unexpectedly")
    finally:
        stopping.cancel()
